"""The rules that decide claims, on made-up runs whose verdict is known."""

from dataclasses import replace

import pytest
from helpers.fakes import CHANGED, SHORT, cell, fc_and_spinal, findings, result
from helpers.made_records import gradient_record

from spinal_repro.errors import UserError
from spinal_repro.paper.cells import Published
from spinal_repro.records.record import Selection, parse_record
from spinal_repro.results.rules import RULES

FC, SPINAL = fc_and_spinal()
LOW, HIGH = [97.9, 98.0, 98.1, 98.0], [98.4, 98.55, 98.6, 98.45]


def decide(rule, known, **parameters):
    return RULES.build(rule, parameters, known)


def both(first, second, **more):
    return findings([FC, SPINAL], [result(FC, first, **more), result(SPINAL, second, **more)])


@pytest.mark.parametrize(
    ("first", "second", "verdict", "opposite"),
    [
        (LOW, HIGH, "supported", "contradicted"),
        (HIGH, LOW, "contradicted", "supported"),
        (LOW, [98.0, 97.9, 98.0, 98.3], "inconclusive", "inconclusive"),
        (LOW[:2], HIGH[:2], "inconclusive", "inconclusive"),  # two runs decide nothing
    ],
)
def test_the_interval_of_the_paired_difference_decides(first, second, verdict, opposite):
    known = both(first, second)
    above = decide("mean_above", known, cells=["mnist/sp"])
    assert (above.verdict, above.n) == (verdict, len(first))
    assert decide("mean_above", known, cells=["mnist/sp"], below=True).verdict == opposite
    difference = sum(second) / len(second) - sum(first) / len(first)
    assert f"difference {difference:+.2f}" in above.evidence


def test_a_reduced_budget_or_another_recipe_decides_nothing():
    for difference, word in ((SHORT, "reduced budget"), (CHANGED, "changed recipe")):
        found = decide("mean_above", both(LOW, HIGH, differences=(difference,)), cells=["mnist/sp"])
        assert found.verdict == "inconclusive" and found.label == f"inconclusive ({word})"
        assert str(difference) in found.evidence
    short = {"differences": (SHORT,)}
    runs = [result(FC, LOW), result(SPINAL, HIGH), result(FC, HIGH, **short)]
    known = findings([FC, SPINAL], [*runs, result(SPINAL, LOW, **short)])
    assert decide("mean_above", known, cells=["mnist/sp"]).label == "supported"  # of whole runs


def test_protocols_that_contradict_each_other_leave_it_open():
    other = {"protocol": "heldout", "selection": Selection("val", "", 8, 0.98)}
    runs = [result(FC, LOW), result(SPINAL, HIGH)]
    known = findings([FC, SPINAL], [*runs, result(FC, HIGH, **other), result(SPINAL, LOW, **other)])
    found = decide("mean_above", known, cells=["mnist/sp"])
    assert found.verdict == "inconclusive" and "protocol heldout" in found.evidence


def test_of_errors_the_lower_one_is_better():
    error = {"unit": "1e-3", "regression": {"net": "spinal", "function": "sum", "epochs": 100}}
    fc, spinal = fc_and_spinal(**error)
    known = findings([fc, spinal], [result(fc, [2.0, 2.1, 2.2]), result(spinal, [1.0, 1.1, 1.3])])
    assert decide("mean_above", known, cells=["mnist/sp"]).verdict == "supported"
    found = decide("wins_of", known, cells=["mnist/sp"], wins=1)
    assert found.verdict == "supported" and "better 1, worse 0" in found.evidence


def test_not_run_and_cannot_be_run():
    known = findings([FC, SPINAL])
    found = decide("mean_above", known, cells=["mnist/sp"])
    assert found.verdict == "not run" and "published: 98.0 against 98.0" in found.evidence
    gone = cell("mnist/sp", counterpart="mnist/fc", not_runnable="the data are gone")
    known = findings([FC, gone], [result(FC, LOW)])
    assert "the data are gone" in decide("mean_above", known, cells=["mnist/sp"]).evidence
    known = findings([FC, SPINAL], [result(FC, LOW)])
    assert "only mnist/fc was run" in decide("mean_above", known, cells=["mnist/sp"]).evidence


def test_all_cells_some_of_them_or_most():
    cells = [cell(f"mnist/sp{i}", counterpart="mnist/fc") for i in range(4)]
    lost = [result(c, [97.0, 97.1, 97.05, 97.1]) for c in cells[:2]]
    won = [result(FC, LOW), result(cells[2], HIGH)]
    for runs, rule, options, verdict in (
        (won, "mean_above", {}, "inconclusive"),  # the others were not run
        (won + lost, "mean_above", {}, "contradicted"),
        (won + lost, "wins_of", {"wins": 2}, "inconclusive"),
        (won + lost, "wins_of", {"wins": 3}, "contradicted"),
        (won + lost, "most_above", {}, "contradicted"),
    ):
        found = decide(rule, findings([FC, *cells], runs), cells=["mnist/sp*"], **options)
        assert found.verdict == verdict, (rule, options, found.evidence)
    for names, verdict in (("012", "contradicted"), ("23", "inconclusive"), ("2", "supported"),
                           ("3", "not run")):  # fmt: skip
        pairs = {f"mnist/sp{name}": "mnist/fc" for name in names}
        found = decide("most_above_others", findings([FC, *cells], won + lost), pairs=pairs)
        assert found.verdict == verdict, (names, found.evidence)


def test_the_same_is_shown_and_not_assumed():
    near, far = both(LOW, [98.0, 98.0, 98.1, 98.1]), both(LOW, HIGH)
    for known, margin, verdict in (
        (near, 0.5, "supported"), (near, 0.01, "inconclusive"), (far, 0.1, "contradicted"),
    ):  # fmt: skip
        found = decide("same_mean", known, cells=["mnist/sp"], margin=margin)
        assert found.verdict == verdict


def test_a_reference_is_passed_by_the_interval_and_its_own_uncertainty():
    runs = [result(FC, LOW), result(SPINAL, HIGH)]
    for reference, only, of, verdict in (
        (98.0, "*", runs, "supported"),  # one cell above is enough
        (98.0, "*/fc", runs, "inconclusive"),
        (99.0, "*", runs, "contradicted"),
        (98.36, "*/sp", runs, "inconclusive"),  # inside the interval
        (99.0, "*", runs[:1], "inconclusive"),  # the other might be above
    ):
        said = Published("accuracy %", reference, "%", "unknown", None, "a chart", "digitised")
        row = cell("summary/mnist", best_of=("mnist/fc", "mnist/sp"), reference=said)
        known = findings([FC, SPINAL, row], of)
        found = decide("above_reference", known, cell="summary/mnist", only=only)
        assert found.verdict == verdict, (reference, found.evidence)
    with pytest.raises(UserError, match="matches 'x'"):
        decide("above_reference", known, cell="summary/mnist", only="x")


def test_reaching_a_number_is_shown_by_one_run_and_refuted_by_none():
    known = findings([SPINAL], [result(SPINAL, [98.0, 99.0])])
    assert decide("reaches", known, cell="mnist/sp", value=99.0).verdict == "supported"
    assert decide("reaches", known, cell="mnist/sp", value=99.5).verdict == "inconclusive"
    assert decide("reaches", findings([SPINAL]), cell="mnist/sp", value=1.0).verdict == "not run"


def curves(*shifts):
    """Four seeds, three epochs; the Spinal side is shifted at each epoch."""
    fc = [[90 + 0.1 * s, 95 + 0.1 * s, 97 + 0.1 * s] for s in range(4)]
    wobble = (0.0, 0.02, -0.02, 0.01)
    sides = zip(fc, wobble, strict=True)
    spinal = [[v + d + w for v, d in zip(c, shifts, strict=True)] for c, w in sides]
    runs = [result(c, [v[-1] for v in by], curves=by) for c, by in ((FC, fc), (SPINAL, spinal))]
    return findings([FC, SPINAL], runs)


@pytest.mark.parametrize("quantity", ["accuracy", "loss"])
def test_early_epochs_count_on_average_and_later_ones_are_told(quantity):
    options = {"cells": ["mnist/sp"], "quantity": quantity, "early": 2}
    for shifts, verdict in (
        ((1, 1, -2), "supported"),
        ((-1, 2, 0), "supported"),  # on average
        ((1, -2, 2), "contradicted"),
        ((1, -1, 2), "inconclusive"),
    ):
        found = decide("above_early", curves(*shifts), **options)
        assert (found.verdict, found.n) == (verdict, 4), shifts
    assert "over the first 2 epochs" in found.evidence
    if quantity == "accuracy":  # the last shifts' mean is 2 / 3, that of the wobble 0.0025
        assert f"over the first 3 epochs {94.1525 + 2 / 3:.2f} against 94.15" in found.evidence
    shorter = decide("above_early", curves(1, 1, 1), **options | {"early": 5})
    assert shorter.label == "inconclusive (reduced budget)"
    assert "3 of 5 epochs" in shorter.evidence


def test_early_epochs_of_longer_and_shorter_runs_count_once_a_seed():
    long_fc, long = (cell(f"curve/{name}", counterpart=other) for name, other in
                     (("fc", None), ("sp", "curve/fc")))  # fmt: skip
    runs = []
    for cells, seeds, epochs in (((FC, SPINAL), 4, 2), ((long_fc, long), 3, 4)):
        for of, lead in zip(cells, (0, 1), strict=True):
            by_seed = [[90 + lead + 0.1 * s] * epochs for s in range(seeds)]
            runs.append(result(of, [v[-1] for v in by_seed], curves=by_seed))
    known = findings([FC, SPINAL, long_fc, long], runs)
    options = {"cells": ["mnist/sp", "curve/sp"], "quantity": "accuracy", "early": 2}
    found = decide("above_early", known, **options)
    assert (found.verdict, found.n) == ("supported", 4)
    assert "4 epochs 91.10 against 90.10 (3 pairs)" in found.evidence


@pytest.mark.parametrize(
    ("fc", "spinal", "seeds", "verdict"),
    [
        (0.1, 1.0, 4, "supported"),
        (1.0, 0.1, 4, "contradicted"),
        (1.0, 1.0, 4, "inconclusive"),
        (0.0, 1.0, 4, "supported"),  # below the smallest float
        (0.1, 1.0, 2, "inconclusive"),  # two runs decide nothing
    ],
)
def test_the_gradient_of_the_first_layer_as_a_share_of_the_last(fc, spinal, seeds, verdict):
    made = parse_record(gradient_record(fc, spinal, seeds))
    known = replace(findings([]), gradients=[made])
    found = decide("gradient_at_first_layer", known, init="default")
    assert (found.verdict, found.n) == (verdict, seeds), found.evidence
    if fc:  # each seed has the same ratio of both shares
        ratio = f"{spinal / fc:.2g}"
        assert f"ratio (95 %) {ratio} to {ratio}" in found.evidence
    assert decide("gradient_at_first_layer", known, init="he").verdict == "not run"


def test_sooner_counts_epochs():
    options = {"cells": ["mnist/sp"], "epochs": 3, "level": 93.0}
    found = decide("sooner", curves(3, 1, 1), **options)
    assert "+1.00 epochs sooner" in found.evidence  # after the first epoch, not the second
    assert found.verdict == "supported"
    assert decide("sooner", curves(0, 0, 0), **options).verdict == "inconclusive"
    assert decide("sooner", curves(-6, -6, 1), **options).verdict == "contradicted"
    never = decide("sooner", curves(3, 1, 1), **options | {"level": 99.0, "epochs": 20})
    assert never.label == "inconclusive (reduced budget)"


def test_reductions_are_counted():
    counts = {"mnist/fc": {"head_parameters": 200}, "mnist/sp": {"head_parameters": 90}}
    known = findings([FC, SPINAL], counts=counts)
    pair = {"cell": "mnist/sp", "against": "mnist/fc", "quantity": "head_parameters"}
    for percent, verdict in ((55.0, "supported"), (54.0, "contradicted"), (None, "supported")):
        found = decide("counts_reduction", known, percent=percent, **pair)
        assert found.verdict == verdict
    assert "200 → 90 parameters of the head, 55.00 % fewer" in found.evidence
    swapped = pair | {"cell": "mnist/fc", "against": "mnist/sp"}
    assert decide("counts_reduction", known, **swapped).verdict == "contradicted"
    wide = decide("counts_values", known, claimed=[210, 94], tolerance=[10, 5], **pair)
    narrow = decide("counts_values", known, claimed=[210, 94], tolerance=[9, 5], **pair)
    assert (wide.verdict, narrow.verdict) == ("supported", "contradicted")
    assert decide("counts_reduction", findings([FC, SPINAL]), **pair).verdict == "not run"
    with pytest.raises(UserError, match="did you mean 'head_parameters'"):
        decide("counts_reduction", known, **pair | {"quantity": "head_parametres"})


def test_networks_that_differ_in_the_data_set_alone_count_once():
    cells, counts = [], {}
    for i, (fc, spinal) in enumerate([(9, 8), (9, 8), (9, 8), (5, 7)]):
        cells += [cell(f"mnist/fc{i}"), cell(f"mnist/sp{i}", counterpart=f"mnist/fc{i}")]
        counts[f"mnist/fc{i}"] = {"head_parameters": fc}
        counts[f"mnist/sp{i}"] = {"head_parameters": spinal}
    options = {"cells": ["mnist/*"], "quantity": "head_parameters"}
    found = decide("fraction_of_networks_cheaper", findings(cells, counts=counts), **options)
    assert found.verdict == "contradicted"  # one of two is not most
    assert "1 of 2 networks" in found.evidence and "CNN (5 → 7)" in found.evidence
    del counts["mnist/sp3"]
    found = decide("fraction_of_networks_cheaper", findings(cells, counts=counts), **options)
    assert found.verdict == "inconclusive" and "1 cells not counted" in found.evidence
    other = {"against": {"mnist/sp0": "mnist/fc3"}, "every": True}
    known = findings(cells, counts=counts)
    found = decide("fraction_of_networks_cheaper", known, **options | other)
    assert "CNN (5 → 8)" in found.evidence


def test_another_reading_counts_only_where_it_is_named():
    as_committed = cell("mnist/sp_62", counterpart="mnist/fc", variant_of="mnist/sp")
    known = findings([FC, SPINAL, as_committed])
    assert [c.name for c in known.matching(["mnist/sp*"])] == ["mnist/sp"]
    assert [c.name for c in known.matching(["mnist/sp_62"])] == ["mnist/sp_62"]
    with pytest.raises(UserError, match="mnist/sp"):
        known.matching(["mnist/spi"])


def test_a_cell_is_compared_with_any_other_one():
    third = cell("mnist/other", counterpart=None, head="FC small")
    known = findings([FC, SPINAL, third], [result(SPINAL, HIGH), result(third, LOW)])
    found = decide("above_other", known, cell=SPINAL.name, other=third.name)
    assert found.verdict == "supported" and "against FC small" in found.evidence
    swapped = decide("above_other", known, cell=third.name, other=SPINAL.name)
    assert swapped.verdict == "contradicted"
    assert decide("above_other", known, cell=SPINAL.name, other=FC.name).verdict == "not run"
    with pytest.raises(UserError, match="mnist/othr"):
        decide("above_other", known, cell=SPINAL.name, other="mnist/othr")
