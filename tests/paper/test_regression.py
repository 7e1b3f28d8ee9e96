"""The stacked regression nets are the nets of Table I, trained one by one."""

import csv
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.nn import functional

from spinal_repro.config.compose import config_dir
from spinal_repro.paper.cells import load_cells
from spinal_repro.paper.regression import (
    FUNCTIONS,
    NETS,
    Ensemble,
    draw,
    make_net,
    regression,
    regressions,
)
from spinal_repro.records.check import check_regression
from spinal_repro.records.convert import to_plain
from spinal_repro.records.record import load_record
from spinal_repro.results.regression import published, summarise
from spinal_repro.seeds import stream_seed


def train_alone(module, x, y, seed, epochs):
    """The original's loop for one network; the loss of every epoch's last batch."""
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    losses = []
    for epoch in range(1, epochs + 1):
        generator = torch.Generator().manual_seed(stream_seed(seed, "order", epoch))
        for batch in torch.randperm(len(x), generator=generator).split(64):
            output = module(x[batch])
            loss = functional.mse_loss(output.expand_as(y[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
    assert len(batch) == len(x) % 64
    return losses


@pytest.fixture
def double_precision():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    ("net", "layers"), [("normal", "distinct"), ("spinal", "distinct"), ("spinal", "reused")]
)
@pytest.mark.parametrize("target", ["column", "square"])
def test_stacked_training_is_separate_training(net, layers, target, double_precision):
    """With the literal (N, N) target, too, so the shortcut for it is exact (Q1)."""
    seeds, epochs, count = [3, 8], 2, 200
    samples = draw(seeds, target, count)
    ensemble = Ensemble(net, seeds, layers)
    stacked = torch.stack([ensemble.train_epoch(samples, e + 1) for e in range(epochs)])
    models = [(seed, name) for seed in seeds for name in FUNCTIONS]
    for i, (seed, name) in enumerate(models):
        generator = torch.Generator().manual_seed(stream_seed(seed, "samples", 0))
        x = torch.randn(count, 8, generator=generator)
        noise = 0.2 * torch.rand(count, generator=generator)
        signal = FUNCTIONS[name](x).unsqueeze(1)
        y = signal + (noise.unsqueeze(1) if target == "column" else noise)
        assert y.shape == (count, 1 if target == "column" else count)
        torch.manual_seed(stream_seed(seed, "head"))
        module = make_net(net, layers)
        losses = train_alone(module, x, y, seed, epochs)
        torch.testing.assert_close(stacked[:, i], torch.tensor(losses), rtol=1e-9, atol=0)
        with torch.no_grad():
            alone = functional.mse_loss(module(x).expand_as(y), y)
            torch.testing.assert_close(ensemble.mse(samples)[i], alone)


def test_functions_are_those_of_the_paper():
    x = torch.tensor([[1.0, 2.0, -1.0, 0.5, 1.0, 1.0, 3.0, 1.0]])
    values = {name: function(x).item() for name, function in FUNCTIONS.items()}
    expected = {"sum": 8.5, "product": -3.0, "sin(sum)": 0.7984871, "sin(product)": -0.1411200}
    assert values == pytest.approx(expected)


def test_seeds_and_parts_are_independent_and_functions_share_samples():
    one, two, fresh = draw([0], "column"), draw([1], "column"), draw([0], "column", part=1)
    assert torch.equal(one.x, draw([1, 0], "column").x[4:])
    assert all(torch.equal(one.x[0], x) for x in one.x)
    assert not torch.equal(one.x[0], two.x[0]) and not torch.equal(one.x[0], fresh.x[0])
    noise = [one.y[i] - f(one.x[i]) for i, f in enumerate(FUNCTIONS.values())]
    torch.testing.assert_close(noise[0], noise[1], rtol=0, atol=1e-5)
    assert noise[3].min() >= -1e-6 and noise[3].max() <= 0.2 + 1e-6
    floor = draw([0], "square").extra.mean().item()
    assert floor == pytest.approx(0.2**2 / 12, rel=0.1) and (one.extra == 0).all()


def test_rows_hold_the_minimum_so_far_and_errors_at_that_epoch():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    rows = regression("spinal", [5], epochs=6, checkpoints=(2, 4))
    assert torch.equal(torch.get_rng_state(), before), "the caller's random state changed"
    assert [(r["function"], r["epochs"]) for r in rows] == [
        (f, e) for e in (2, 4, 6) for f in FUNCTIONS
    ]
    samples, ensemble = draw([5], "column"), Ensemble("spinal", [5])
    losses = torch.stack([ensemble.train_epoch(samples, epoch) for epoch in range(1, 7)])
    measured = torch.tensor([r["published_metric"] for r in rows]).view(3, 4)
    expected = torch.stack([losses[:n].min(0).values for n in (2, 4, 6)])
    torch.testing.assert_close(measured, expected, rtol=1e-5, atol=0)
    fresh = ensemble.mse(draw([5], "column", part=1))
    got = torch.tensor([r["fresh_mse"] for r in rows[-4:]])
    torch.testing.assert_close(got, fresh, rtol=1e-4, atol=0)


@pytest.mark.slow
def test_processes_change_nothing():
    rows = regressions([0, 1], jobs=2, epochs=1)
    alone = [row for net in NETS for row in regression(net, [0, 1], epochs=1)]
    for row, same in zip(rows, alone, strict=True):
        names = ("net", "function", "epochs", "seed")
        assert [row.pop(name) for name in names] == [same.pop(name) for name in names]
        assert row == pytest.approx(same, rel=1e-4)


def test_spinal_wins_six_of_eight_in_table_one():
    table = published()
    cells = {key[1:] for key in table}
    assert len(table) == 16 and {function for function, _ in cells} == set(FUNCTIONS)
    assert sum(table["spinal", *cell] < table["normal", *cell] for cell in cells) == 6


def test_each_number_of_the_spinal_net_has_a_cell_for_both_readings_of_its_layers():
    """Q2; the normal net has one cell for each number."""
    cells = {cell.name: cell for cell in load_cells("regression")}
    with (config_dir() / "paper/published.csv").open(newline="") as file:
        numbers = {row["cell"] for row in csv.DictReader(file)} & set(cells)
    spinal = {name for name in numbers if "_spinal_" in name}
    assert len(spinal) == 8 and set(cells) == numbers | {f"{name}_reused" for name in spinal}
    for name in spinal:
        distinct, reused = cells[name], cells[f"{name}_reused"]
        assert reused.variant_of == name and reused.published == distinct.published
        assert reused.counterpart == distinct.counterpart == name.replace("_spinal_", "_normal_")
        assert distinct.regression["layers"] == "distinct"
        assert reused.regression == distinct.regression | {"layers": "reused"}


def test_command_writes_table_and_every_seed(call, here, monkeypatch):
    in_process = lambda jobs, *settings: ThreadPoolExecutor(jobs)  # noqa: E731
    monkeypatch.setattr("spinal_repro.paper.regression.ProcessPoolExecutor", in_process)
    words = "--seeds 2 --epochs 1 --target square --layers reused --format csv --out x.json"
    lines = call(f"spinal regression {words}").out.splitlines()
    assert len(lines) == 1 + len(NETS) * len(FUNCTIONS)
    document = load_record(here / "x.json")  # it is a record
    assert check_regression(document) == []
    settings = {"seeds": 2, "epochs": 1, "target": "square", "layers": "reused"}
    assert to_plain(document.settings) == settings
    assert len(document.runs) == 2 * len(NETS) * len(FUNCTIONS)
    assert summarise([to_plain(run) for run in document.runs]) == document.summary
    first = dict(zip(lines[0].split(","), lines[1].split(","), strict=True))
    assert float(first["metric_median"]) == document.summary[0]["metric_median"]


@pytest.mark.parametrize("words", ["--out missing/x.json", "--seeds 0"])
def test_command_refuses_before_training(words, call, monkeypatch):
    monkeypatch.setattr("spinal_repro.paper.regression.regressions", None)
    assert call(f"spinal regression {words}").code == 2


def test_summary_pairs_nets_by_seed():
    metrics = {"normal": [0.4, 0.1, 0.3], "spinal": [0.2, 0.2, 0.2]}
    rows = [
        {"net": net, "seed": seed, "published_metric": value, "function": "sum", "epochs": 100}
        | {"train_mse": 1.0, "fresh_mse": 2.0, "fresh_variance": 8.0}
        for net, values in metrics.items()
        for seed, value in enumerate(values)
    ]
    normal, spinal = summarise(rows)
    assert (normal["net"], normal["metric_median"], normal["lower"]) == ("normal", 0.3, 1)
    assert (spinal["net"], spinal["metric_median"], spinal["lower"]) == ("spinal", 0.2, 2)
    assert (normal["metric_q1"], normal["metric_q3"]) == pytest.approx((0.2, 0.35))
    for found in (normal, spinal):
        assert found["published"] == published()[found["net"], "sum", 100]
    assert [row["published"] for row in summarise([r | {"epochs": 7} for r in rows])] == [None] * 2
