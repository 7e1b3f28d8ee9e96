"""The stacked regression nets are the nets of Table I, trained one by one."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.nn import functional

from spinal_repro.cli.spinal import main
from spinal_repro.errors import UserError
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


def net_of(net, seed, layers):
    torch.manual_seed(stream_seed(seed, "head"))
    return make_net(net, layers)


def order_of(seed, epoch, count):
    generator = torch.Generator().manual_seed(stream_seed(seed, "order", epoch))
    return torch.randperm(count, generator=generator)


def train_alone(module, x, y, seed, epochs):
    """The original's loop for one network; the loss of every epoch's last batch."""
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    losses = []
    for epoch in range(1, epochs + 1):
        for batch in order_of(seed, epoch, len(x)).split(64):
            output = module(x[batch])
            loss = functional.mse_loss(output.expand_as(y[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
    assert len(batch) == len(x) % 64
    return losses


@pytest.mark.parametrize(
    ("net", "layers"), [("normal", "distinct"), ("spinal", "distinct"), ("spinal", "reused")]
)
@pytest.mark.parametrize("target", ["column", "square"])
def test_stacked_training_is_separate_training(net, layers, target):
    """With the literal (N, N) target, too, so the shortcut for it is exact (Q1)."""
    torch.set_default_dtype(torch.float64)
    try:
        seeds, epochs, count = [3, 8], 2, 200
        samples = draw(seeds, target, count)
        ensemble = Ensemble(net, seeds, layers)
        stacked = torch.stack([ensemble.train_epoch(samples, e + 1) for e in range(epochs)])
        cells = [(seed, name) for seed in seeds for name in FUNCTIONS]
        for i, (seed, name) in enumerate(cells):
            generator = torch.Generator().manual_seed(stream_seed(seed, "samples", 0))
            x = torch.randn(count, 8, generator=generator)
            noise = 0.2 * torch.rand(count, generator=generator)
            signal = FUNCTIONS[name](x).unsqueeze(1)
            y = signal + (noise.unsqueeze(1) if target == "column" else noise)
            assert y.shape == (count, 1 if target == "column" else count)
            module = net_of(net, seed, layers)
            losses = train_alone(module, x, y, seed, epochs)
            torch.testing.assert_close(stacked[:, i], torch.tensor(losses), rtol=1e-9, atol=0)
            with torch.no_grad():
                alone = functional.mse_loss(module(x).expand_as(y), y)
                torch.testing.assert_close(ensemble.mse(samples)[i], alone)
    finally:
        torch.set_default_dtype(torch.float32)


def test_functions_are_those_of_the_paper():
    x = torch.tensor([[1.0, 2.0, -1.0, 0.5, 1.0, 1.0, 3.0, 1.0]])
    values = {name: function(x).item() for name, function in FUNCTIONS.items()}
    assert values["sum"] == 8.5
    assert values["product"] == -3.0
    assert values["sin(sum)"] == pytest.approx(0.7984871)
    assert values["sin(product)"] == pytest.approx(-0.1411200)


def test_square_target_cannot_be_fitted_below_the_variance_of_its_noise():
    samples = draw([0], "square")
    perfect = samples.y.clone()
    floor = (perfect - samples.y).square().mean(-1) + samples.extra
    assert floor.mean().item() == pytest.approx(0.2**2 / 12, rel=0.1)
    assert (draw([0], "column").extra == 0).all()


def test_seeds_and_parts_are_independent_and_functions_share_samples():
    one, two, fresh = draw([0], "column"), draw([1], "column"), draw([0], "column", part=1)
    assert torch.equal(one.x, draw([1, 0], "column").x[4:])
    assert all(torch.equal(one.x[0], x) for x in one.x)
    assert not torch.equal(one.x[0], two.x[0])
    assert not torch.equal(one.x[0], fresh.x[0])
    noise = [one.y[i] - f(one.x[i]) for i, f in enumerate(FUNCTIONS.values())]
    torch.testing.assert_close(noise[0], noise[1], rtol=0, atol=1e-5)
    assert noise[3].min() >= -1e-6
    assert noise[3].max() <= 0.2 + 1e-6


def test_rows_hold_the_minimum_so_far_and_errors_at_that_epoch():
    rows = regression("spinal", [5], epochs=6, checkpoints=(2, 4))
    assert [(r["function"], r["epochs"]) for r in rows] == [
        (f, e) for e in (2, 4, 6) for f in FUNCTIONS
    ]
    samples, ensemble = draw([5], "column"), Ensemble("spinal", [5])
    losses = torch.stack([ensemble.train_epoch(samples, epoch) for epoch in range(1, 7)])
    measured = torch.tensor([r["published_metric"] for r in rows]).view(3, 4)
    expected = torch.stack([losses[:n].min(0).values for n in (2, 4, 6)])
    torch.testing.assert_close(measured, expected, rtol=1e-5, atol=0)
    with torch.no_grad():
        fresh = ensemble.mse(draw([5], "column", part=1))
    got = torch.tensor([r["fresh_mse"] for r in rows[-4:]])
    torch.testing.assert_close(got, fresh, rtol=1e-4, atol=0)


def test_processes_change_nothing():
    seeds, settings = [0, 1], {"epochs": 1}
    rows = regressions(seeds, jobs=2, **settings)
    alone = [row for net in NETS for row in regression(net, seeds, **settings)]
    assert len(rows) == len(alone)
    for row, same in zip(rows, alone, strict=True):
        names = ("net", "function", "epochs", "seed")
        assert [row.pop(name) for name in names] == [same.pop(name) for name in names]
        assert row == pytest.approx(same, rel=1e-4)


def test_the_callers_random_state_is_left_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    regression("normal", [0], epochs=1)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("call", "hint"),
    [
        (lambda: make_net("spinel"), "spinal"),
        (lambda: make_net("spinal", "reuse"), "reused"),
        (lambda: draw([0], "colum"), "column"),
    ],
)
def test_wrong_names_are_refused_with_the_nearest(call, hint):
    with pytest.raises(UserError, match=f"did you mean '{hint}'"):
        call()


def row(net, seed, metric, **values):
    defaults = {"function": "sum", "epochs": 100, "train_mse": 1.0, "fresh_mse": 2.0}
    return {
        **defaults,
        "net": net,
        "seed": seed,
        "published_metric": metric,
        "fresh_variance": 8.0,
    } | values


def test_summary_pairs_nets_by_seed():
    rows = [row("normal", s, m) for s, m in enumerate([0.4, 0.1, 0.3])]
    rows += [row("spinal", s, m) for s, m in enumerate([0.2, 0.2, 0.2])]
    normal, spinal = summarise(rows, {("spinal", "sum", 100): 0.001})
    assert (normal["net"], normal["metric_median"], normal["lower"]) == ("normal", 0.3, 1)
    assert (spinal["net"], spinal["metric_median"], spinal["lower"]) == ("spinal", 0.2, 2)
    assert (normal["metric_q1"], normal["metric_q3"]) == pytest.approx((0.2, 0.35))
    assert (normal["published"], spinal["published"]) == (None, 0.001)


def test_table_one_is_whole_and_spinal_wins_six_of_eight():
    table = published()
    assert len(table) == 16
    cells = {key[1:] for key in table}
    assert {function for function, _ in cells} == set(FUNCTIONS)
    wins = [cell for cell in cells if table["spinal", *cell] < table["normal", *cell]]
    assert len(wins) == 6  # as the paper says
    assert table["normal", "product", 200] == pytest.approx(3.875e-3)


def test_command_writes_table_and_every_seed(tmp_path, capsys, monkeypatch):
    in_process = lambda jobs, *settings: ThreadPoolExecutor(jobs)  # noqa: E731
    monkeypatch.setattr("spinal_repro.paper.regression.ProcessPoolExecutor", in_process)
    out = tmp_path / "regression.json"
    arguments = ["--seeds", "2", "--epochs", "1", "--target", "square", "--format", "csv"]
    main(["regression", *arguments, "--out", str(out)])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(NETS) * len(FUNCTIONS)
    document = load_record(out)  # it is a record
    assert check_regression(document) == []
    assert to_plain(document.settings) == {
        "seeds": 2,
        "epochs": 1,
        "target": "square",
        "layers": "distinct",
    }
    assert len(document.runs) == 2 * len(NETS) * len(FUNCTIONS)
    assert summarise([to_plain(run) for run in document.runs], published()) == document.summary
    first = dict(zip(lines[0].split(","), lines[1].split(","), strict=True))
    assert float(first["metric_median"]) == document.summary[0]["metric_median"]


def test_command_refuses_before_training(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("spinal_repro.paper.regression.regressions", None)
    with pytest.raises(SystemExit) as stop:
        main(["regression", "--out", str(tmp_path / "missing" / "x.json")])
    assert stop.value.code == 2
    assert "no folder" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["regression", "--seeds", "0"])


def test_an_ensemble_starts_every_function_of_a_seed_from_one_net():
    ensemble, x = Ensemble("normal", [4, 9]), torch.randn(5, 8)
    predicted = ensemble.predict(ensemble.parameters, x.expand(8, 5, 8))
    for i, seed in enumerate([4, 9]):
        alone = net_of("normal", seed, "distinct")(x).squeeze(-1).detach()
        for k in range(4):
            torch.testing.assert_close(predicted[4 * i + k], alone)
