"""Which record counts for which cell, and with which differences."""

import pytest
from helpers.made_records import (
    FC,
    RECORDS,
    SPINAL,
    cell,
    grouped,
    heldout,
    made,
    regression_record,
)

from spinal_repro.paper.cells import Cell, Published, load_cells
from spinal_repro.records.record import parse_record
from spinal_repro.records.store import read_records
from spinal_repro.results.cells import group_records_by_cell, own_runs
from spinal_repro.results.verdicts import CHANGED, FEW, NOT_RUN


def only(cells, records):
    (found,) = [result for result in grouped(cells, records) if result.runs]
    return found


def sentences(result):
    return [str(difference) for difference in result.differences]


def test_the_committed_records_belong_to_their_cells():
    known = read_records([RECORDS / "mnist"])
    records = [r for r in known if r.config["model"]["name"] == "cnn"]
    assert len(records) >= 15
    results = group_records_by_cell(load_cells("mnist/*cnn*"), records)
    found = {r.cell.name: r for r in results if r.runs and r.protocol == "paper"}
    assert sum(result.n for result in results) == len(records)
    assert list(found) == ["mnist/cnn_fc", "mnist/cnn_spinal8", "mnist/cnn_spinal10"]
    for result in found.values():
        assert [run.seed for run in result.runs] == list(range(result.n)) and result.n >= 5
        assert (result.differences, result.reported_metric) == ((), "last epoch")


def test_numbers_over_seeds():
    result = only([FC], [made(seed=seed, correct=9810 + 10 * seed) for seed in range(3)])
    assert result.values == [98.1, 98.2, 98.3]
    assert result.mean == pytest.approx(98.2) and result.sd == pytest.approx(0.1)
    assert result.difference == pytest.approx(0, abs=1e-9)
    low, high = result.interval
    assert (high - low) / 2 == pytest.approx(4.3027 * 0.1 / 3**0.5, rel=1e-4)


@pytest.mark.parametrize("correct", [[9800], [9790, 9810], [9800, 9800, 9800]])
def test_few_runs_or_equal_ones_have_the_interval_of_the_test_set(correct):
    """Of no width is none, and of two runs none is as wide as the scale."""
    result = only([FC], [made(seed=seed, correct=right) for seed, right in enumerate(correct)])
    assert (result.verdict == FEW) == (len(correct) < 3)
    expected = [100 * bound for bound in made()["test"]["last"]["interval_95"]]
    assert list(result.interval) == pytest.approx(expected)


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"epochs": 9}, "9 epochs instead of 8"),
        ({"dataset": {"name": "kmnist"}}, "dataset kmnist instead of mnist"),
        ({"recipe": {"lr": 0.02}}, "recipe.lr 0.02 instead of 0.01"),
        ({"recipe": {"stages": {"4": 0.1}}}, "recipe.stages"),
        ({"head": {"dropout": [0.0, 0.2]}}, "head.dropout [0, 0.2] instead of [0, 0.5]"),
        ({"head": {"name": "linear"}}, "head linear instead of fc"),
        ({"protocol": {"split_seed": 3}}, "protocol.split_seed 3 instead of 0"),
    ],
    ids=str,
)
def test_changed_settings_are_differences(changes, sentence):
    result = only([FC, SPINAL], [made(seed=seed, **changes) for seed in range(3)])
    assert any(found.startswith(sentence) for found in sentences(result)), sentences(result)
    assert result.verdict == CHANGED


@pytest.mark.parametrize(
    "changes", [{"epochs": 3}, {"data": {"limit": 100}}, {"epochs": 3, "recipe": {"lr": 0.02}}]
)
def test_runs_with_a_reduced_budget_are_in_no_result(changes):
    reduced = [made(seed=seed, correct=5000, **changes) for seed in range(3)]
    assert [(r.n, r.verdict) for r in grouped([FC], reduced)] == [(0, NOT_RUN)]
    assert only([FC], [*reduced, made(seed=1, correct=9800)]).values == [98.0]


@pytest.mark.parametrize(
    "changes",
    [
        {"recipe": {"eval_batch_size": 7, "name": "mine", "weight_decay": 0}},
        {"recipe": {"prepare": {}, "stages": {}, "best_of_last_stage": False}},
        {"dataset": {"val_size": None, "title": "digits"}, "runtime": {"threads": 9}},
        {"model": {"freeze": "none", "pretrained": None}},
    ],
    ids=str,
)
def test_settings_that_change_no_result_are_no_difference(changes):
    assert only([FC], [made(**changes)]).differences == ()


@pytest.mark.parametrize("name", [None, "gone/cnn"])
def test_a_record_that_names_no_cell_is_matched_to_none(name):
    """However much it was trained as a cell says."""
    named, other = made(), made(identity="00000000")
    other["config"]["cell"] = name
    assert [r.n for r in grouped([FC, cell("curve/cnn_fc")], [named, other])] == [1, 0]
    records = [parse_record(r) for r in (named, other, regression_record())]
    assert own_runs([FC], records) == [records[1]]


def test_protocols_devices_precisions_and_recipes_are_never_pooled():
    gpu = made(seed=0, correct=9700)
    gpu["environment"]["device"] = "cuda"
    half = made(seed=0, correct=9600, runtime={"precision": "bf16"})
    records = [heldout(made()), gpu, half, made(epochs=9), made(), made(seed=1)]
    results = grouped([FC], records)
    seen = [(r.protocol, r.runs[0].device, r.runs[0].precision, r.n) for r in results]
    assert seen == [
        ("paper", "cpu", "fp32", 2),
        ("paper", "cuda", "fp32", 1),
        ("paper", "cpu", "bf16", 1),
        ("paper", "cpu", "fp32", 1),
        ("heldout", "cpu", "fp32", 1),
    ]
    assert sentences(results[3]) == ["9 epochs instead of 8"]


def test_a_seed_counts_once():
    again = made(seed=1, correct=9000, identity="00000000", runtime={"channels_last": False})
    result = only([FC], [made(seed=1, correct=9800), again, made(seed=0, correct=9700)])
    assert [(run.seed, run.last) for run in result.runs] == [(0, 97.0), (1, 98.0)]


@pytest.mark.parametrize(
    "selection, protocol, shown, value",
    [
        ("last epoch", "paper", "last epoch", 97.0),
        ("best on test", "paper", "best on test", 98.0),
        ("unknown", "paper", "best on test", 98.0),
        ("last epoch", "heldout", "test at best validation", 98.0),
        ("best on test", "heldout", "test at best validation", 98.0),
        ("best validation", "paper", "best validation", 99.25),
    ],
)
def test_which_number_is_shown(selection, protocol, shown, value):
    record = made(correct=9800)
    record["test"]["last"].update({"correct": 9700, "accuracy": 0.97})
    if "validation" in shown:
        record = heldout(record, validation=0.9925)
        record["config"]["protocol"] |= {"name": protocol, "val_fraction": 0.0}
    result = only([cell(FC.name, selection=selection)], [record])
    assert (result.reported_metric, result.values) == (shown, [value])


def toy(net: str, function: str, epochs: int, **layers: str) -> Cell:
    published = Published("min MSE", 2.5, "1e-3", "unknown", epochs, "Table I", "quoted")
    return cell(
        "_".join([f"regression/{function}_{net}_{epochs}", *layers.values()]),
        config=None,
        published=(published,),
        regression={"net": net, "function": function, "epochs": epochs} | layers,
    )


def test_regression_records_are_matched_by_net_function_and_epochs():
    cells = [toy("normal", "sum", 100), toy("spinal", "product", 200), toy("normal", "sin", 100)]
    early, late, none = grouped(cells, [regression_record()])
    assert early.values == [1.0, 2.0, 3.0, 4.0] and late.values == [0.5, 1.0, 1.5, 2.0]
    assert none.runs == () and early.differences == () and early.interval is not None


def test_records_of_reused_layers_belong_to_other_cells_but_for_the_normal_net():
    """Q2; a seed of the normal net counts once."""
    nets = [("normal", {}), *(("spinal", {"layers": name}) for name in ("distinct", "reused"))]
    records = [regression_record(2, layers="distinct"), regression_record(3, layers="reused")]
    results = grouped([toy(net, "sum", 200, **layers) for net, layers in nets], records)
    assert [(r.n, r.differences, len({id(run.record) for run in r.runs})) for r in results] == [
        (3, (), 2), (2, (), 1), (3, (), 1),
    ]  # fmt: skip


def test_short_regressions_are_no_evidence_and_changed_ones_differ():
    records = [regression_record(epochs=100), regression_record(target="square")]
    results = grouped([toy("normal", "sum", 200)], records)
    assert [(sentences(r), r.verdict) for r in results] == [
        (["target square instead of column"], CHANGED),
    ]


def test_the_best_of_cells_is_the_highest_of_their_means_where_all_were_run():
    best = cell("summary/x", config=None, best_of=(FC.name, SPINAL.name))
    records = [made("fc", 0, 9700), made("spinal", 0, 9800), heldout(made("fc", 0, 9600))]
    (whole,) = grouped([FC, SPINAL, best], records)[3:]
    assert (whole.protocol, whole.values, whole.differences) == ("paper", [98.0], ())
    short = [made("fc", 0), made("spinal", 0, epochs=1)]
    for partly in ([], [made("fc", 0)], [made("spinal", 0)], short):
        assert grouped([FC, SPINAL, best], partly)[-1].verdict == NOT_RUN
