"""The benchmark: its measurements, its time limit, and its page."""

import dataclasses
import itertools
import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers import graphs
from helpers.interrupting import signal_in_step
from torch.autograd import DeviceType

from spinal_repro.models.backbones import load_backbones
from spinal_repro.models.counting import MultiplicationCounter
from spinal_repro.training import engine, graph

ROOT, CPU = Path(__file__).parents[1], torch.device("cpu")
SCRIPTS = ROOT / "scripts"
if not SCRIPTS.is_dir():
    pytest.skip("scripts/ is in the repository, not in the source archive", allow_module_level=True)


MACHINE = {
    "device_name": "a GPU", "cpu_count": 1, "threads": 1, "torch": "2.7",
    "git": {"commit": "0123abc", "modified": False},
}  # fmt: skip


@pytest.fixture
def benchmark(monkeypatch):
    """The script, with data sets of a few images."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    backbones = load_backbones()
    monkeypatch.setattr(backbones, "_items", {**backbones._items})
    import benchmark
    from bench import cases, training

    for module in (cases, training):
        monkeypatch.setattr(module, "SIZES", {"mnist": (400, 200), "cifar10": (400, 200)})
    yield benchmark
    for name in [name for name in sys.modules if name.split(".")[0] in ("bench", "benchmark")]:
        del sys.modules[name]


def call(benchmark, monkeypatch, out, *arguments):
    words = ["--parts", "loops", "--models", "cnn", "--device", "cpu", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *words, *arguments])
    benchmark.main()


def test_shares_of_an_epoch_are_of_a_whole(benchmark, monkeypatch, tmp_path):
    out = tmp_path / "benchmark.json"
    call(benchmark, monkeypatch, out, "--seconds", "0.05", "--repeats", "1")
    loops = json.loads(out.read_text())["loops"]
    assert [row["head"] for row in loops["rows"]] == ["fc", "spinal"]
    for row in loops["rows"]:
        assert row["precision"] == "fp32" and row["images"] == "noise"
        assert list(row["epoch"]) == ["steps", "batches", "evaluation", "checkpoint"]
        assert sum(row["epoch"].values()) == pytest.approx(1)
        assert min(row["epoch"].values()) > 0
    products = 10 * 24**2 * 25 + 20 * 8**2 * 250 + 320 * 50 + 50 * 10  # of the CNN with FC head
    row = loops["rows"][0]
    assert row["multiplications"] == 3 * products
    share = 3 * products * row["rates"]["loop"]["median"] / row["peak"]
    assert row["share_of_peak"] == pytest.approx(share) and 0 < share < 1


def test_the_peak_is_the_rate_of_one_matrix_product(benchmark, monkeypatch):
    from bench import peak

    def two_seconds(work, *_):
        with MultiplicationCounter() as counter:
            work()
        assert counter.total == peak.SIDE**3
        return lambda: 2.0

    monkeypatch.setattr(peak, "repeated", two_seconds)
    assert peak.product_rate(CPU, "bf16") == peak.SIDE**3 / 2


def test_times_of_whole_runs_follow_from_rates(benchmark, monkeypatch):
    from bench import training

    monkeypatch.setattr(training, "product_rate", lambda *_: 1e9)
    speeds = {"loop": 50.0, "whole": 40.0}
    wanted = {"vgg5": 200 * 400 / 40, "airbench": 9.9 * 400 / 50, "cnn": None}
    for model, seconds in wanted.items():
        case = benchmark.make_case(model, "fc", "fp32", CPU, None)
        assert training.computed(case, speeds).get("run_seconds") == seconds


def test_airbench_is_trained_by_our_loop(benchmark):
    from bench import peak, training

    assert benchmark.pairs(["airbench", "cnn"], ["fc", "spinal"]) == [
        ("airbench", "fc"), ("cnn", "fc"), ("cnn", "spinal"),
    ]  # fmt: skip
    case = benchmark.make_case("airbench", "fc", "fp32", CPU, None)
    assert case.batch_size == 1024
    # its authors count 0.36 PFLOP in 9.9 epochs of 50,000 images
    assert 2 * peak.multiplications(case) * 9.9 * 50000 == pytest.approx(0.36e15, rel=0.05)
    recipe = dataclasses.replace(case.config.recipe, batch_size=8)
    case = dataclasses.replace(case, config=dataclasses.replace(case.config, recipe=recipe))
    run = case.run(16)
    first = run.model.backbone.layers[0].weight.clone()
    training.one_epoch(case, run)
    assert math.isfinite(run.state.history[0]["train_loss"])
    assert torch.equal(run.model.backbone.layers[0].weight, first)  # fixed
    assert 1.9e6 < sum(weights.numel() for weights in run.model.parameters()) < 2.1e6
    assert run.model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_steps_as_a_graph_are_rows_of_their_own(benchmark, monkeypatch):
    """With a stand-in for the CUDA graph, which fails if tensors of the step are not kept."""
    from bench import training

    calls = []

    def capture(step, device):
        calls.append(device)
        return graphs.capture(step, device)

    monkeypatch.setattr(graph, "capture", capture)
    cases = [benchmark.make_case("cnn", "fc", "fp32", CPU, None, g) for g in (False, True)]
    plain, graphed = rows = training.compare_loops(cases, 0.01, 1)
    assert "graph" not in plain and graphed["graph"] and len(calls) == 2  # bare step and loop
    assert plain.keys() | {"graph"} == graphed.keys()
    about = {"machine": MACHINE, "settings": {"repeats": 1}, "load": {"before": 0, "after": 0}}
    text = "<!-- benchmark: loops -->\n<!-- end -->"
    page = benchmark.fill(text, {"loops": {"rows": rows, **about}})
    assert "| cnn | fc | fp32 |  | " in page and "| cnn | fc | fp32 | yes | " in page
    assert "noise images" in page and "Run, s" not in page  # no row has this

    def refuse(step, device):
        raise graph.NotCapturableError("it waits")

    monkeypatch.setattr(graph, "capture", refuse)
    assert ["graph" in row for row in training.compare_loops(cases, 0.01, 1)] == [False]


@pytest.mark.parametrize("model", ["cnn", "vgg5", "airbench"])
def test_bf16_weights_follow_their_copies_in_fp32(benchmark, model):
    from bench.half import with_bf16_weights

    run = with_bf16_weights(benchmark.make_case(model, "fc", "bf16", CPU, None).run(8))
    images, labels = next(run.train.epoch(0, 1))
    before = [weights.detach().clone() for weights in run.model.parameters()]
    loss, _ = engine.training_step(run, images.bfloat16(), labels)
    assert math.isfinite(loss)
    (group,) = run.optimizer.param_groups
    for name, old, new, copy in zip(
        dict(run.model.named_parameters()), before, run.model.parameters(), group["params"],
        strict=True,
    ):  # fmt: skip
        assert copy.dtype == torch.float32 and torch.equal(copy.to(new.dtype), new)
        assert new.grad is None and (not torch.equal(old, new) or old.dim() == 1), name
    for module in run.model.modules():
        dtype = torch.float32 if "BatchNorm" in type(module).__name__ else torch.bfloat16
        assert {weights.dtype for weights in module.parameters(False)} <= {dtype}


def test_kernels_count_once_and_conversions_of_layout_are_seen(benchmark):
    from bench.profiling import by_kind

    def event(key, gpu, cpu=0.0, at=DeviceType.CPU):
        times = {"self_device_time_total": gpu, "self_cpu_time_total": cpu}
        return SimpleNamespace(key=key, device_type=at, **times)

    events = [
        event("aten::cudnn_convolution", 6.0, 1.0), event("aten::copy_", 2.0, 3.0),
        event("sm80_xmma_fprop", 4.0, at=DeviceType.CUDA),
        event("void cudnn::nchwToNhwcKernel<float>", 2.0, at=DeviceType.CUDA),
        event("elementwise_kernel", 2.0, at=DeviceType.CUDA),
    ]  # fmt: skip
    found = by_kind(events, on_gpu=True)
    assert found.pop("layout conversions") == found["casts and copies"] == 0.25
    assert found["convolutions"] == 0.75 and sum(found.values()) == 1
    assert by_kind(events[:2], on_gpu=False)["convolutions"] == 0.25


def test_no_network_starts_after_the_time_is_up(benchmark, monkeypatch, tmp_path, capsys):
    out, clock = tmp_path / "benchmark.json", itertools.count(step=61.0)
    monkeypatch.setattr(benchmark.time, "monotonic", lambda: next(clock))
    call(benchmark, monkeypatch, out, "--minutes", "1")
    assert not out.exists() and "cnn fc: not measured" in capsys.readouterr().out


def test_the_page_shows_what_was_measured(benchmark, monkeypatch, tmp_path):
    page, text = tmp_path / "speed.md", (ROOT / "docs" / "speed.md").read_text()
    emptied = benchmark.fill(text, {})
    assert emptied.count("Not measured yet.") == text.count("<!-- end -->") > 5
    page.write_text(emptied)
    call(benchmark, monkeypatch, ROOT / "results" / "benchmark.json", "--page", str(page))
    assert page.read_text() == text


def test_parts_measured_on_a_gpu_stand_beside_those_of_a_cpu(benchmark, monkeypatch, tmp_path):
    page, out, more = (tmp_path / name for name in ("speed.md", "all.json", "gpu.json"))
    marked = (f"<!-- benchmark: {part} -->\n<!-- end -->\n" for part in ("memory", "memory_cuda"))
    page.write_text("".join(marked))
    about = {"machine": MACHINE, "settings": {"repeats": 1}, "load": {"before": 0, "after": 0}}

    def rows(megabytes):
        row = {"model": "cnn", "head": "fc", "precision": "fp32", "megabytes": megabytes}
        return {"rows": [row], **about}

    out.write_text(json.dumps({"memory": rows(1), "memory_cuda": rows(2)}))
    more.write_text(json.dumps({"memory_cuda": rows(3)}))
    call(benchmark, monkeypatch, out, "--page", str(page), "--add", str(more))
    shown = [line.split("|")[-2].strip() for line in page.read_text().splitlines() if "cnn" in line]
    assert shown == ["1", "3"] and json.loads(out.read_text())["memory_cuda"] == rows(3)


@pytest.mark.parametrize("option", ["--repeats", "--minutes", "--seconds", "--threads"])
def test_numbers_are_above_zero(benchmark, monkeypatch, tmp_path, capsys, option):
    with pytest.raises(SystemExit):
        call(benchmark, monkeypatch, tmp_path / "out.json", option, "0")
    assert f"{option}: must be above 0" in capsys.readouterr().err


def test_a_signal_ends_the_benchmark(benchmark, monkeypatch):
    from bench import training

    case = benchmark.make_case("cnn", "fc", "fp32", CPU, None)
    run = case.run(64)
    signal_in_step(monkeypatch, 1)
    with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
        training.one_epoch(case, run)
