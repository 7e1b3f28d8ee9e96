"""One answer over data sets: closed forms, and how often its interval holds the truth."""

import copy
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers.fakes import CHANGED, cell, findings, result
from helpers.made_records import committed
from scipy import stats
from statsmodels.stats.meta_analysis import combine_effects

from spinal_repro.records.statistics import Paired
from spinal_repro.results.joint import combine, describe, rows

IMAGES, REPEATS = 10_000, 10_000
ROUNDING = (100 / IMAGES) ** 2 / 12  # variance of an accuracy rounded to whole images
NAMES = {"MNIST": "", "Fashion-MNIST": "fashion_mnist_", "Kuzushiji-MNIST": "kmnist_"}
MANY = pytest.mark.parametrize("k", [3, 6, 10])


def pair(dataset: str, *differences: float) -> Any:
    """As much of a `Pair` as `combine` reads."""
    tested = SimpleNamespace(tested=lambda metric: SimpleNamespace(count=IMAGES))
    of = SimpleNamespace(dataset=dataset, regression=None)
    return SimpleNamespace(
        spinal=SimpleNamespace(cell=of, runs=[tested], reported_metric="last epoch"),
        comparison=Paired(differences),
        seeds=tuple(range(len(differences))),
        sign=1,
    )


def asked(datasets: list[str], gains: list[float], **how: Any) -> list[Any]:
    """Pairs of FC and Spinal cells on these data sets, one seed for each gain."""
    results, change = [], how.pop("cell", {})
    for dataset in datasets:
        config = copy.deepcopy(committed()["config"])
        config["dataset"]["name"] = NAMES[dataset].rstrip("_") or "mnist"
        for head, gain in (("fc", [0.0] * len(gains)), ("spinal8", gains)):
            more = {"counterpart": f"mnist/{NAMES[dataset]}cnn_fc"} if head != "fc" else {}
            of = cell(f"mnist/{NAMES[dataset]}cnn_{head}", dataset=dataset, **more | change)
            values = [90.0 + 0.1 * seed + value for seed, value in enumerate(gain)]
            results.append(result(of, values, config=config, **how))
    return findings([r.cell for r in results], results).pairs


def test_the_same_question_on_several_data_sets_is_one_row():
    pairs = asked(list(NAMES), [0.5, 0.6, 0.7], protocol="heldout")
    (row,) = rows([*pairs, *asked(["MNIST"], [1.0, 2.0, 3.0])])  # under protocol paper
    assert (row["cell"], row["counterpart"]) == ("cnn_spinal8", "cnn_fc")
    assert (row["datasets"], row["k"], row["n"]) == (", ".join(NAMES), 3, 9)
    assert row["difference"] == pytest.approx(0.6) and row["wins"] == 100
    assert sum(row[vote] for vote in ("better", "worse", "inconclusive")) == 3
    text = describe(pairs)
    assert "mean effect +0.60" in text and "3 data sets" in text and "p 0.25" in text
    assert "better in 100 % of the seeds" in text


@pytest.mark.parametrize(
    ("gains", "how"),
    [
        ([0.5, 0.6], {}),
        ([0.5, 0.6, 0.7], {"differences": (CHANGED,)}),
        ([0.5, 0.6, 0.7], {"cell": {"unit": "1e-3"}}),
        ([0.5, 0.6, 0.7], {"cell": {"shorter": "mnist/other"}}),
    ],
)
def test_what_is_left_out(gains, how):
    pairs = asked(list(NAMES), gains, **how)
    assert len(pairs) == 3 and rows(pairs) == [] and describe(pairs) == ""


def test_one_data_set_has_no_joint_answer():
    pairs = asked(["MNIST"], [0.5, 0.6, 0.7])
    assert len(pairs) == 1 and rows(pairs) == [] and describe(pairs) == ""


def closed_form(effects: np.ndarray, variances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means and half-widths of the interval of differences ``[..., k]``."""
    k = effects.shape[-1]
    spread = np.maximum(effects.var(-1, ddof=1), variances.mean(-1))
    return effects.mean(-1), stats.t.isf(0.025, k - 1) * np.sqrt(spread / k)


@MANY
@pytest.mark.parametrize("tau", [0.0, 0.3, 3.0])
def test_the_interval_is_its_closed_form(k, tau):
    generator = np.random.default_rng(k)
    for _ in range(10):
        drawn = generator.normal(generator.normal(0.2, tau, (k, 1)), 0.5, (k, 4))
        found = combine([pair(str(i), *seeds) for i, seeds in enumerate(drawn.tolist())])
        variances = drawn.var(1, ddof=1) / 4
        mean, half = closed_form(drawn.mean(1), variances)
        assert found["difference"] == pytest.approx(mean)
        assert (found["high"] - found["low"]) / 2 == pytest.approx(half, rel=1e-4)
        between = max(0, drawn.mean(1).var(ddof=1) - variances.mean())
        assert found["tau"] == pytest.approx(between**0.5, rel=1e-3, abs=1e-3)


def test_two_data_sets_have_a_mean_and_no_interval():
    pairs = [pair("a", 0.3, 0.4, 0.5), pair("b", 1.9, 2.0, 2.1)]
    found = combine(pairs)
    assert found["difference"] == pytest.approx(1.2) and found["p"] == 0.5
    assert not {"low", "high"} & set(found)


@MANY
@pytest.mark.parametrize("gain", [0.0, 0.25])
def test_equal_differences_have_the_width_of_whole_images(k, gain):
    found = combine([pair(str(i), *[gain] * 4) for i in range(k)])
    half = stats.t.isf(0.025, k - 1) * math.sqrt(ROUNDING / 4 / k)
    assert [found["low"], found["high"]] == pytest.approx([gain - half, gain + half], rel=1e-6)
    assert found["tau"] == 0 and found["wins"] == (100 if gain else 50)
    assert found["p"] == (1.0 if gain == 0 else pytest.approx(2 / 2**k))


def test_a_data_set_counts_once_and_its_pairs_are_averaged():
    one = pair("a", -0.2, 0.1, 0.1, 0.4), pair("a", 0.5, 0.9, 0.0, 0.2)
    found = combine([*one, pair("b", 1.0, 1.1, 0.9, 1.0, 1.1, 0.9)])
    assert (found["k"], found["n"], found["better"], found["inconclusive"]) == (2, 14, 1, 2)
    assert found["difference"] == pytest.approx((0.25 + 1.0) / 2)
    assert found["wins"] == pytest.approx(100 * ((0.75 + 0.875) / 2 + 1) / 2)


@pytest.mark.parametrize("k", range(2, 9))
def test_wilcoxon_needs_six_data_sets(k):
    found = combine([pair(str(i), i + 0.5, i + 1.0, i + 1.5) for i in range(k)])
    assert found["p"] == pytest.approx(2 / 2**k)
    assert (found["p"] < 0.05) == (k >= 6)


@MANY
@pytest.mark.parametrize("seeds", [3, 12])
@pytest.mark.parametrize("tau", [0.0, 0.5, 3.0])
@pytest.mark.parametrize("unlike", [1, 5])
def test_the_interval_misses_the_mean_of_all_data_sets_in_at_most_5_percent(k, seeds, tau, unlike):
    """Also with a true mean of 0, so this bounds false positives; ``unlike``: ratio of SDs."""
    generator = np.random.default_rng(19)
    true = generator.normal(0, tau, (REPEATS, k, 1))
    deviations = np.geomspace(1, unlike, k)[:, None]
    drawn = generator.normal(true, deviations, (REPEATS, k, seeds))
    mean, half = closed_form(drawn.mean(-1), drawn.var(-1, ddof=1) / seeds)
    missed = np.mean(np.abs(mean) > half)
    assert missed < 0.05 + 4 * math.sqrt(0.05 * 0.95 / REPEATS)
    if tau == 3 and k >= 6 and unlike == 1:
        assert missed > 0.04  # and it is no wider than it has to be


def test_weights_by_variance_would_miss_twice_as_often():
    """Why data sets have equal weights: 10 of them with 3 seeds, no difference."""
    generator, missed, repeats = np.random.default_rng(19), 0, 1000
    for drawn in generator.normal(0, 1, (repeats, 10, 3)):
        variances = drawn.var(1, ddof=1) / 3
        found = combine_effects(drawn.mean(1), variances, "pm", use_t=True)
        low, high = found.conf_int()[1]
        missed += not low <= 0 <= high
    assert missed / repeats == pytest.approx(0.11, abs=0.03)
