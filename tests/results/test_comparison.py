"""Groups of runs, compared by pairs."""

import copy
import math
from pathlib import Path

import pytest
from helpers.made_records import made
from scipy import stats

from spinal_repro.errors import UserError
from spinal_repro.records.record import parse_record
from spinal_repro.records.statistics import Paired, corrected_t_test, mean_interval
from spinal_repro.results.comparison import (
    Finished,
    compare,
    group_runs,
    head_label,
)
from spinal_repro.results.comparison_tables import comparison_row, group_row


def finished(which, values, **config):
    records = [made(which, seed, value, **config) for seed, value in enumerate(values)]
    return [Finished(Path(f"{which}{r['seed']}"), parse_record(r)) for r in records]


def folds(which, values, test=20, train=70, val=10):
    runs = []
    for number, value in enumerate(values):
        record = made(which, 0, value)
        record["config"]["protocol"] |= {"name": "own", "folds": len(values), "fold": number}
        record["data"]["sizes"] = {"train": train, "val": val, "test": test}
        record["data"]["split_hash"] = f"fold {number}"
        runs.append(Finished(Path(f"{which}{number}"), parse_record(record)))
    return runs


def test_a_clear_difference_is_decided_and_named():
    second = [9810 + n for n in range(8)]
    (found,) = compare(group_runs(finished("fc", [9800] * 8) + finished("spinal", second)))
    assert (found.second.label, found.first.label) == ("Spinal 6 x 8", "FC 50")
    assert found.paired.mean == pytest.approx(0.135)
    low, high = mean_interval([0.1 + n / 100 for n in range(8)])
    assert found.interval == pytest.approx((low, high))
    assert found.verdict == "better" and found.paired.p == 2 / 2**8
    assert f"{low:+.2f} to {high:+.2f}, 8 pairs: better" in str(found)


def test_few_pairs_say_how_many_would_decide():
    runs = finished("fc", [9800, 9805, 9790]) + finished("spinal", [9810, 9800, 9812])
    (found,) = compare(group_runs(runs))
    assert "undecided, needs about" in found.verdict and found.paired.p is None


def test_every_group_is_compared_with_every_earlier_one():
    values = [9800 + n for n in range(8)]
    groups = group_runs(
        finished("fc", values)
        + finished("fc", [v + 30 for v in values], head={"hidden": [99]})
        + finished("spinal", [v + 60 + v % 3 for v in values])
    )
    found = compare(groups)
    assert [(c.second.label, c.first.label) for c in found] == [
        ("Spinal 6 x 8", "FC 99"), ("FC 99", "FC 50"), ("Spinal 6 x 8", "FC 50"),
    ]  # fmt: skip
    assert {c.paired.family for c in found} == {3}
    assert found[-1].paired.p_holm == pytest.approx(3 * 2 / 2**8)


def test_only_equal_images_and_seeds_are_pairs():
    first, second = finished("fc", [9800] * 3), finished("spinal", [9810] * 4)
    second[0].record.data["test_hash"] = "other"
    (found,) = compare(group_runs(first + second))
    assert found.paired.n == 2
    for run in second:
        run.record.data["split_hash"] = "other"
    with pytest.raises(UserError, match="have a seed in common on the same images"):
        compare(group_runs(first + second))


def test_folds_have_the_interval_of_the_corrected_t_test():
    values = [9810, 9830, 9805, 9840, 9822]
    (found,) = compare(group_runs(folds("fc", [9800] * 5) + folds("spinal", values)))
    differences = [(value - 9800) / 100 for value in values]
    mean, sd = sum(differences) / 5, stats.tstd(differences)
    half = stats.t.ppf(0.975, 4) * sd * math.sqrt(1 / 5 + 20 / 80)
    assert found.interval == pytest.approx((mean - half, mean + half))
    assert found.paired.p == pytest.approx(2 * stats.t.sf(mean / (sd * math.sqrt(9 / 20)), 4))
    assert "5 folds" in str(found)


def test_without_overlap_the_corrected_t_test_is_the_t_test():
    values = [0.3, -0.1, 0.5, 0.2]
    assert corrected_t_test(values, 0.0) == pytest.approx(stats.ttest_1samp(values, 0).pvalue)
    assert corrected_t_test([0.2, 0.2, 0.2], 0.25) is None
    assert corrected_t_test([0.1, 0.2], 0.25) is None


def test_seeds_of_one_fold_are_averaged():
    runs = folds("fc", [9800] * 3) + folds("spinal", [9810, 9820, 9830])
    again = copy.deepcopy(runs[3:4])
    object.__setattr__(again[0].record, "seed", 1)
    object.__setattr__(again[0].record.test.selected, "accuracy", 0.9850)
    first = copy.deepcopy(runs[:1])
    object.__setattr__(first[0].record, "seed", 1)
    (found,) = compare(group_runs(runs + first + again))
    assert found.paired.differences == pytest.approx((0.3, 0.2, 0.3))


def test_equal_folds_decide_nothing():
    assert Paired((0.1, 0.1, 0.1), overlap=0.25).side() == 0


def test_groups_that_differ_elsewhere_say_where():
    groups = group_runs(finished("fc", [9800]) + finished("fc", [9810], recipe={"lr": 0.5}))
    assert [group.label for group in groups] == ["FC 50, recipe.lr 0.01", "FC 50, recipe.lr 0.5"]


def test_a_single_group_has_a_mean_with_an_interval_and_no_comparison():
    (group,) = group_runs(folds("fc", [9800, 9810, 9830]))
    assert compare([group]) == []
    row, values = group_row(group, "accuracy"), [98.0, 98.1, 98.3]
    half = stats.t.ppf(0.975, 2) * stats.tstd(values) * math.sqrt(1 / 3 + 20 / 80)
    assert (row["low"], row["high"]) == pytest.approx((98.1333 - half, 98.1333 + half), abs=1e-3)


def test_groups_on_other_images_are_left_out():
    first, second = finished("fc", [9800] * 2), finished("spinal", [9810] * 2)
    other = finished("fc", [9700] * 2, recipe={"lr": 0.5})
    for run in other:
        run.record.data["test_hash"] = "other"
    (found,) = compare(group_runs(first + second + other))
    assert found.paired.n == 2 and "0.5" not in found.first.label + found.second.label


def test_a_single_pair_has_the_interval_of_the_test_images():
    (found,) = compare(group_runs(finished("fc", [9800]) + finished("spinal", [9800])))
    low, high = found.interval
    assert low < high and found.paired.interval is None
    assert comparison_row(found)["n"] == 1


def test_an_unknown_metric_names_the_known_ones():
    (run,) = finished("fc", [9800])
    with pytest.raises(UserError, match="accuracy"):
        run.value("loss of hair")


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_the_best_run_is_chosen_on_the_selecting_part(metric):
    runs = finished("fc", [9900, 9800]) + finished("spinal", [9800])
    for run, accuracy in zip(runs, (0.90, 0.95, 0.9), strict=True):
        run.record.config["protocol"]["select_metric"] = metric
        selected = run.record.selection
        run.record.history[selected.epoch - 1][f"{selected.on}_{metric}"] = accuracy
    group = group_runs(runs)[0]
    assert group.best.folder == Path("fc1")
    assert group_row(group, "accuracy")["mean"] == pytest.approx(98.5)


@pytest.mark.parametrize(
    ("head", "label"),
    [
        ({"name": "fc", "hidden": []}, "Linear"),
        ({"name": "fc", "hidden": [512, 64]}, "FC 512 x 64"),
        ({"name": "spinal", "layers": 4, "width": 128}, "Spinal 4 x 128"),
        ({"name": "pretrained"}, "Pretrained"),
    ],
)
def test_labels_of_heads(head, label):
    assert head_label(head) == label
