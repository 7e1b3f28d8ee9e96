"""Runs on the device: they learn, continue, share it, and are used on a CPU afterwards."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers.interrupting import results, signal_in_step
from helpers.on_device import DEVICE, MARKS, cuda_only, small, small_overrides
from PIL import Image

from spinal_repro.config.compose import compose
from spinal_repro.data.sources import load_dataset
from spinal_repro.errors import EXIT_FAILED
from spinal_repro.export import load_safetensors
from spinal_repro.inference import load_run, load_split
from spinal_repro.io import read_json
from spinal_repro.training.checkpoint import Interrupted
from spinal_repro.training.run import Outcome, run

pytestmark = MARKS
FORMATS = {"safetensors": load_safetensors, "torch_export": lambda p: torch.export.load(p).module()}
LIMIT = 120  # seconds for a process of its own
DETERMINISTIC = "runtime.deterministic=true"

TRAIN = "from spinal_repro.cli.train import main\nmain()\n"
KILLED = """
import os, signal
from spinal_repro.training import engine
loss, steps = engine.training_loss, iter(range(7))  # 3 an epoch: in the third

def then_die(*given):
    if next(steps, None) is None:
        os.kill(os.getpid(), signal.SIGKILL)
    return loss(*given)

engine.training_loss = then_die
"""
LITTLE_MEMORY = """
import torch
torch.cuda.set_per_process_memory_fraction(100 * 2**20 / torch.cuda.mem_get_info()[1])
"""
WITHOUT_CUDA = """
import json, sys, torch
from spinal_repro.cli.spinal import main
assert not torch.cuda.is_available()
for command in json.loads(sys.argv[1]):
    main(command)
"""


def started(program: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


@pytest.fixture(scope="module")
def processes(tmp_path_factory) -> Iterator[dict[str, tuple[Path, subprocess.Popen[str]]]]:
    """Runs in processes of their own, all on one device at once."""
    places = {name: tmp_path_factory.mktemp(name) for name in ("killed", "pair", "memory")}
    programs = {
        "killed": (KILLED + TRAIN, small_overrides(places["killed"], DETERMINISTIC)),
        "first": (TRAIN, small_overrides(places["pair"])),
        "second": (TRAIN, small_overrides(places["pair"], "seed=1")),
    }
    if DEVICE.type == "cuda":  # one layer's output of this batch is more than 100 MiB
        large = ("model=vgg5", "data.limit=null", "recipe.batch_size=1000")
        overrides = small_overrides(places["memory"], *large)
        programs["memory"] = (LITTLE_MEMORY + TRAIN, overrides)
    running = {
        name: (places.get(name, places["pair"]), started(program, *overrides))
        for name, (program, overrides) in programs.items()
    }
    yield running
    for _, process in running.values():
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def learned(processes, tmp_path_factory) -> Outcome:
    """A longer run, in this process, while the others start."""
    torch.set_num_threads(1)
    overrides = [
        f"runs={tmp_path_factory.mktemp('learned')}", f"runtime.device={DEVICE.type}",
        "runtime.progress=none", "model=cnn", "head=spinal", "recipe.batch_size=64",
        "recipe.optimizer=adam", "recipe.momentum=0", "recipe.lr=0.003", "recipe.epochs=12",
    ]  # fmt: skip
    return run(compose(overrides))


@pytest.fixture(scope="module")
def elsewhere(learned, tmp_path_factory) -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    """A process without a CUDA device that uses that run."""
    place, folder = tmp_path_factory.mktemp("elsewhere"), str(learned.folder)
    config = load_run(learned.folder, "cpu").config
    pixels = load_dataset(config.dataset, "unused").test.images[0, 0]
    Image.fromarray(pixels.numpy()).save(place / "digit.png")
    commands = [
        ["eval", folder, "--format", "csv"],
        ["predict", folder, str(place / "digit.png"), "--top", "1", "--format", "json"],
        *(["export", folder, "--to", to, "--out", str(place / to)] for to in FORMATS),
    ]
    process = started(WITHOUT_CUDA, json.dumps(commands), CUDA_VISIBLE_DEVICES="")
    yield place, process
    process.kill()
    process.communicate()


def test_a_run_learns(learned, elsewhere):
    assert learned.record.test.selected.accuracy > 0.95  # ten classes: chance is 0.1
    assert learned.record.environment["device"] == DEVICE.type
    if DEVICE.type == "cuda":
        assert learned.record.environment["device_name"] == torch.cuda.get_device_name()


def test_two_runs_share_a_device(processes):
    histories = []
    for seed, name in enumerate(("first", "second")):
        place, process = processes[name]
        _, said = process.communicate(timeout=LIMIT)
        assert process.returncode == 0, said
        outcome = run(small(place, f"seed={seed}"))
        assert outcome.was_done and outcome.record.environment["device"] == DEVICE.type
        histories.append(outcome.record.history)
    assert histories[0] != histories[1]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Outcome:
    torch.set_num_threads(1)
    return run(small(tmp_path_factory.mktemp("whole"), DETERMINISTIC))


def test_killed_and_continued_is_the_same_to_the_bit(processes, whole):
    place, process = processes["killed"]
    _, said = process.communicate(timeout=LIMIT)
    assert process.returncode == -signal.SIGKILL, said
    config = small(place, DETERMINISTIC)
    assert (config.run_dir / "last.pt").is_file()
    assert not (config.run_dir / "record.json").exists()
    continued = run(config)
    assert "resuming after epoch 2" in (continued.folder / "log.txt").read_text()
    assert results(continued.folder) == results(whole.folder)


@pytest.mark.parametrize(("save_every", "saved"), [(0, 1), (1000, 2)])
def test_stopped_in_an_epoch_and_continued(tmp_path, monkeypatch, whole, save_every, saved):
    """At once if the epoch before is saved, else after this one."""
    config = small(tmp_path, DETERMINISTIC, f"runtime.save_every={save_every}")
    signal_in_step(monkeypatch, 5)  # 3 an epoch
    with pytest.raises(Interrupted, match=f"SIGTERM: stopped, saved after epoch {saved}"):
        run(config)
    torch.manual_seed(12345)  # a new process starts with another random state
    continued = run(config)
    assert f"resuming after epoch {saved}" in (config.run_dir / "log.txt").read_text()
    found, expected = results(continued.folder), results(whole.folder)
    for each in (found, expected):
        del each["record"]["config"]  # has save_every
    assert found == expected


def test_a_run_is_used_where_there_is_no_gpu(learned, elsewhere):
    place, process = elsewhere
    said, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, errors
    trained = load_run(learned.folder, "cpu")
    batches, same = load_split(trained, "test")
    assert f'"class": "{int(batches.labels[0])}"' in said

    # the same weights on the CPU in fp32: an image at the border between two classes may change
    images = torch.cat([images for images, _ in batches.in_order()])
    with torch.no_grad():
        logits = trained.model(images)
    correct = int((logits.argmax(1) == batches.labels).sum())
    selected = learned.record.test.selected
    assert same and abs(correct - selected.correct) <= 2
    assert f"({correct} of {selected.count})" in errors

    for to, load in FORMATS.items():
        model = load(next((place / to).glob("model.[ps]*")))
        torch.testing.assert_close(model(images), logits, rtol=1e-4, atol=1e-4)


@cuda_only
def test_too_little_memory_is_one_message(processes):
    place, process = processes["memory"]
    said, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == EXIT_FAILED, said + errors
    assert "Traceback" not in said + errors
    (line,) = [line for line in errors.splitlines() if line.startswith("spinal-train: ")]
    assert "recipe.batch_size" in line
    (status,) = place.glob("*/*/*/status.json")
    assert read_json(status)["state"] == "failed" and "traceback" not in read_json(status)
