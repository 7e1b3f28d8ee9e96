"""The rules that decide claims, on made-up runs whose verdict is known."""

from dataclasses import replace

import pytest
from helpers.fakes import CHANGED, cell, fc_and_spinal, findings, result
from helpers.made_records import gradient_record

from spinal_repro.errors import UserError
from spinal_repro.paper.cells import Published
from spinal_repro.paper.claims import Claim
from spinal_repro.records.record import Selection, parse_record
from spinal_repro.records.statistics import binomial_interval
from spinal_repro.results.rules import RULES

FC, SPINAL = fc_and_spinal()
LOW, HIGH = [97.9, 98.0, 98.1, 98.0] * 2, [98.4, 98.55, 98.6, 98.45] * 2


def decide(rule, known, **parameters):
    claims = [Claim("a sentence", "a table", rule=rule, parameters=parameters)]
    return RULES.build(rule, parameters, replace(known, claims=claims))


def both(first, second, **more):
    return findings([FC, SPINAL], [result(FC, first, **more), result(SPINAL, second, **more)])


@pytest.mark.parametrize(
    ("first", "second", "verdict", "opposite"),
    [
        (LOW, HIGH, "supported", "contradicted"),
        (HIGH, LOW, "contradicted", "supported"),
        (LOW, [98.0, 97.9, 98.0, 98.3] * 2, "inconclusive", "inconclusive"),
        (LOW[:5], HIGH[:5], "inconclusive", "inconclusive"),  # five pairs decide nothing
    ],
)
def test_a_claim_is_decided_as_its_comparison(first, second, verdict, opposite):
    known = both(first, second)
    above = decide("mean_above", known, cells=["mnist/sp"])
    assert (above.verdict, above.n) == (verdict, len(first))
    assert decide("mean_above", known, cells=["mnist/sp"], below=True).verdict == opposite
    difference = sum(second) / len(second) - sum(first) / len(first)
    assert f"difference {difference:+.2f}" in above.evidence


def test_another_recipe_decides_nothing():
    changed = {"differences": (CHANGED,)}
    found = decide("mean_above", both(LOW, HIGH, **changed), cells=["mnist/sp"])
    assert found.label == "inconclusive (changed recipe)" and str(CHANGED) in found.evidence
    runs = [result(FC, LOW), result(SPINAL, HIGH), result(FC, HIGH, **changed)]
    known = findings([FC, SPINAL], [*runs, result(SPINAL, LOW, **changed)])
    assert decide("mean_above", known, cells=["mnist/sp"]).label == "supported"  # as published


def test_protocols_that_contradict_each_other_leave_it_open():
    other = {"protocol": "heldout", "selection": Selection("val", "", 8, 0.98)}
    runs = [result(FC, LOW), result(SPINAL, HIGH)]
    known = findings([FC, SPINAL], [*runs, result(FC, HIGH, **other), result(SPINAL, LOW, **other)])
    found = decide("mean_above", known, cells=["mnist/sp"])
    assert found.verdict == "inconclusive" and "protocol heldout" in found.evidence


def test_of_errors_the_lower_one_is_better():
    error = {"unit": "1e-3", "regression": {"net": "spinal", "function": "sum", "epochs": 100}}
    fc, spinal = fc_and_spinal(**error)
    high, low = [2.0, 2.1, 2.2] * 2, [1.0, 1.1, 1.3] * 2
    known = findings([fc, spinal], [result(fc, high), result(spinal, low)])
    assert [pair.verdict for pair in known.pairs] == ["better"]
    assert decide("mean_above", known, cells=["mnist/sp"]).verdict == "supported"
    found = decide("wins_of", known, readings={"one": ["mnist/sp"]}, wins=1)
    assert found.verdict == "supported" and "better 1, worse 0" in found.evidence
    runs = [result(fc, high), result(spinal, [2.2, 2.3, 2.41] * 2)]
    known = findings([fc, spinal], runs, {"mnist/fc": {}, "mnist/sp": {"head_parameters": 90}})
    options = {"cells": ["mnist/sp"], "quantity": "head_parameters"}
    for worse_by, verdict in ((0.0, "contradicted"), (0.3, "supported")):
        found = decide("fraction_of_networks_cheaper", known, worse_by=worse_by, **options)
        assert found.verdict == verdict


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
    lost = [result(c, [97.0, 97.1, 97.05, 97.1] * 2) for c in cells[:2]]
    won = [result(FC, LOW), result(cells[2], HIGH)]
    every, one, other = ["mnist/sp*"], {"one": ["mnist/sp2"]}, {"other": ["mnist/sp0"]}
    for runs, rule, options, verdict in (
        (won, "mean_above", {"cells": every}, "inconclusive"),  # the others were not run
        (won + lost, "mean_above", {"cells": every}, "contradicted"),
        (won + lost, "most_above", {"cells": every}, "contradicted"),
        (won + lost, "wins_of", {"wins": 2, "readings": {"one": every}}, "inconclusive"),
        (won + lost, "wins_of", {"wins": 3, "readings": {"one": every}}, "contradicted"),
        (won + lost, "wins_of", {"wins": 1, "readings": one}, "supported"),
        (won + lost, "wins_of", {"wins": 1, "readings": other}, "contradicted"),
        (won + lost, "wins_of", {"wins": 1, "readings": one | other}, "inconclusive"),
    ):
        found = decide(rule, findings([FC, *cells], runs), **options)
        assert found.verdict == verdict, (rule, options, found.evidence)
        disagree = options.get("readings") == one | other
        assert ("depends on the reading" in found.evidence) == disagree
    for names, verdict in (("012", "contradicted"), ("23", "inconclusive"), ("2", "supported"),
                           ("3", "not run")):  # fmt: skip
        pairs = {f"mnist/sp{name}": "mnist/fc" for name in names}
        found = decide("most_above_others", findings([FC, *cells], won + lost), pairs=pairs)
        assert found.verdict == verdict, (names, found.evidence)


@pytest.mark.parametrize(("count", "decided"), [(1, True), (6, True), (7, False)])
def test_one_worse_cell_of_many_in_a_table_may_be_chance(count, decided):
    """Eight pairs have a p-value of 2 / 2^8, which Holm multiplies by the number of cells."""
    names = [*(f"mnist/sp{i}" for i in range(count)), "curve/sp"]
    cells = [cell(name, counterpart="mnist/fc") for name in names]
    runs = [result(FC, HIGH), result(cells[0], LOW), *(result(c, HIGH[::-1]) for c in cells[1:])]
    known = findings([FC, *cells], runs)
    assert (known.pairs[0].verdict == "worse") == decided
    found = decide("mean_above", known, cells=["*/sp*"])
    assert found.verdict == ("contradicted" if decided else "inconclusive")
    assert f"corrected p {count * 2 / 256:.2g}" in found.evidence


def test_the_same_is_shown_and_not_assumed():
    near, far = both(LOW, [98.0, 98.0, 98.1, 98.1] * 2), both(LOW, HIGH)
    for known, margin, verdict in (
        (near, 0.5, "supported"), (near, 0.01, "inconclusive"), (far, 0.1, "contradicted"),
        (both(LOW, [v + 0.5 for v in LOW]), 0.1, "contradicted"),  # equal differences
        (both(LOW, LOW), 0.1, "inconclusive"),  # have no interval
        (both(LOW, HIGH, differences=(CHANGED,)), 0.1, "inconclusive"),
    ):  # fmt: skip
        found = decide("same_mean", known, cells=["mnist/sp"], margin=margin)
        assert found.verdict == verdict
    runs = [result(FC, LOW, differences=(CHANGED,)), result(SPINAL, HIGH, differences=(CHANGED,))]
    runs += [result(FC, LOW, protocol="heldout"), result(SPINAL, LOW[::-1], protocol="heldout")]
    found = decide("same_mean", findings([FC, SPINAL], runs), cells=["mnist/sp"], margin=0.5)
    assert found.label == "supported"  # by the runs that follow their cells


ROW = {"best_of": ("mnist/fc", "mnist/sp"), "value": 98.6}


def summary(reference, **more):
    """A row of the summary of MNIST, whose test set has 10,000 images."""
    said = Published("accuracy %", reference, "%", "unknown", None, "a chart", "digitised")
    return cell("summary/mnist", reference=said, **ROW | more)


def test_our_mean_is_compared_with_the_best_of_others_at_the_resolution_of_the_test_set():
    runs = [result(FC, LOW), result(SPINAL, HIGH)]
    for reference, only, of, verdict in (
        (98.0, "*", runs, "supported"),  # one cell is enough: 98.43 is above 98.0 + 0.03 + 0.29
        (98.0, "*/fc", runs, "inconclusive"),  # its interval is above by less than that
        (99.0, "*", runs, "contradicted"),
        (98.2, "*/sp", runs, "inconclusive"),  # though the best run, 98.6, is above 98.5
        (99.0, "*", runs[:1], "inconclusive"),  # the other might be above
        (98.5, "*", [], "not decidable here"),  # the published 98.6 leads by less than 0.26
        (98.5, "*/sp", runs, "not decidable here"),
        (99.5, "*", [], "not run"),
    ):
        known = findings([FC, SPINAL, summary(reference)], of)
        found = decide("above_reference", known, cell="summary/mnist", only=only)
        assert found.verdict == verdict, (reference, found.evidence)
        assert ("below the resolution" in found.evidence) == (reference == 98.5)
    below = 99.5 - 100 * binomial_interval(9950, 10_000)[0]  # the wider side
    assert "10,000 test images one is 0.0100 points, the 95 % interval" in found.evidence
    assert f"of one accuracy is ± {below:.2f}" in found.evidence
    known = findings([FC, SPINAL, summary(98.0)], [result(SPINAL, HIGH)])
    found = decide("above_reference", known, cell="summary/mnist", only="*/sp")
    assert "best of 8 runs 98.60, +0.60; mean 98.50, +0.50, 95 % interval" in found.evidence
    with pytest.raises(UserError, match="matches 'x'"):
        decide("above_reference", known, cell="summary/mnist", only="x")


@pytest.mark.parametrize(
    ("value", "top", "inside", "outside"),
    [
        (98.6, 5, "supported", "contradicted"),  # above the best of the others, 98.3
        (98.1, 1, "contradicted", "supported"),
        (98.1, 5, "not decidable here", "not decidable here"),
        (98.31, 1, "not decidable here", "not decidable here"),  # read off a chart: ± 0.03
    ],
)
def test_a_place_is_known_for_the_first_alone(value, top, inside, outside):
    known = findings([FC, SPINAL, summary(98.3, value=value)])
    for given, verdict in (({}, inside), ({"outside": True}, outside)):
        found = decide("placing", known, cell="summary/mnist", top=top, **given)
        assert found.verdict == verdict and f"{value - 98.3:+.2f}" in found.evidence


def test_reaching_a_number_is_shown_by_one_run_and_refuted_by_none():
    known = findings([SPINAL], [result(SPINAL, [98.0, 99.0])])
    assert decide("reaches", known, cell="mnist/sp", value=99.0).verdict == "supported"
    assert decide("reaches", known, cell="mnist/sp", value=99.5).verdict == "inconclusive"
    assert decide("reaches", findings([SPINAL]), cell="mnist/sp", value=1.0).verdict == "not run"


def curves(*shifts):
    """Eight seeds, three epochs; the Spinal side is shifted at each epoch."""
    fc = [[90 + 0.1 * s, 95 + 0.1 * s, 97 + 0.1 * s] for s in range(4)] * 2
    wobble = (0.0, 0.02, -0.02, 0.01) * 2
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
        assert (found.verdict, found.n) == (verdict, 8), shifts
    assert "over the first 2 epochs" in found.evidence
    if quantity == "accuracy":  # the last shifts' mean is 2 / 3, that of the wobble 0.0025
        assert f"over the first 3 epochs {94.1525 + 2 / 3:.2f} against 94.15" in found.evidence
    shorter = decide("above_early", curves(1, 1, 1), **options | {"early": 5})
    assert shorter.label == "inconclusive" and "3 of 5 epochs" in shorter.evidence
    many = replace(curves(1, 1, 1), claims=[Claim("", "", rule="sooner")] * 7)  # 7 * 2 / 2^8
    assert RULES.build("above_early", options, many).verdict == "inconclusive"


def test_early_epochs_of_longer_and_shorter_runs_count_once_a_seed():
    long_fc, long = (cell(f"curve/{name}", counterpart=other) for name, other in
                     (("fc", None), ("sp", "curve/fc")))  # fmt: skip
    runs = []
    for cells, seeds, epochs in (((FC, SPINAL), 8, 2), ((long_fc, long), 3, 4)):
        for of, lead in zip(cells, (0, 1), strict=True):
            by_seed = [[90 + lead * (1 + 0.01 * (s % 2)) + 0.1 * s] * epochs for s in range(seeds)]
            runs.append(result(of, [v[-1] for v in by_seed], curves=by_seed))
    known = findings([FC, SPINAL, long_fc, long], runs)
    options = {"cells": ["mnist/sp", "curve/sp"], "quantity": "accuracy", "early": 2}
    found = decide("above_early", known, **options)
    assert (found.verdict, found.n) == ("supported", 8)
    assert "4 epochs 91.10 against 90.10 (3 pairs)" in found.evidence


@pytest.mark.parametrize(
    ("fc", "spinal", "seeds", "verdict"),
    [
        (0.1, 1.0, 8, "supported"),
        (1.0, 0.1, 8, "contradicted"),
        (1.0, 1.0, 8, "inconclusive"),
        (0.0, 1.0, 8, "supported"),  # below the smallest float
        (0.1, 1.0, 7, "inconclusive"),  # p of each of four is 2 / 2^7
        (0.1, 1.0, 1, "inconclusive"),
    ],
)
def test_the_gradient_of_the_first_layer_as_a_share_of_the_last(fc, spinal, seeds, verdict):
    made = parse_record(gradient_record(fc, spinal, seeds))
    known = replace(findings([]), gradients=[made])
    found = decide("gradient_at_first_layer", known, init="default")
    assert (found.verdict, found.n) == (verdict, seeds), found.evidence
    if seeds == 1:
        assert f"ratio {spinal / fc:.2g}, needs at least" in found.evidence
    elif fc:  # each seed has about the same ratio of both shares
        ratio = f"{spinal / fc:.2g}"
        assert f"ratio (95 %) {ratio} to {ratio}" in found.evidence
    assert decide("gradient_at_first_layer", known, init="he").verdict == "not run"


def test_sooner_counts_epochs():
    options = {"cells": ["mnist/sp"], "epochs": 3, "level": 96.5}
    found = decide("sooner", curves(6.35, 2, 1), **options)
    assert "+1.50 epochs sooner" in found.evidence  # in the first or second, not the third
    assert found.verdict == "supported"
    assert decide("sooner", curves(0, 0, 0), **options).verdict == "inconclusive"
    slow = decide("sooner", curves(-6, -6, -2.2), **options | {"level": 94.9})
    assert slow.verdict == "contradicted"
    never = decide("sooner", curves(3, 1, 1), **options | {"level": 99.0, "epochs": 20})
    assert never.label == "inconclusive" and "3 of 20 epochs" in never.evidence


def test_reductions_are_counted():
    counts = {"mnist/fc": {"head_parameters": 200}, "mnist/sp": {"head_parameters": 90}}
    known = findings([FC, SPINAL], counts=counts)
    pair = {"cell": "mnist/sp", "against": "mnist/fc", "quantity": "head_parameters"}
    for percent, verdict in ((55.0, "supported"), (54.0, "contradicted"), (None, "supported")):
        found = decide("counts", known, percent=percent, **pair)
        assert found.verdict == verdict
    assert "200 → 90 parameters of the head, 55.00 % fewer" in found.evidence
    assert decide("counts", known, percent=54.0, tolerance=[1.5], **pair).verdict == "supported"
    swapped = pair | {"cell": "mnist/fc", "against": "mnist/sp"}
    assert decide("counts", known, **swapped).verdict == "contradicted"
    wide = decide("counts", known, claimed=[210, 94], tolerance=[10, 5], **pair)
    narrow = decide("counts", known, claimed=[210, 94], tolerance=[9, 5], **pair)
    assert (wide.verdict, narrow.verdict) == ("supported", "contradicted")
    assert decide("counts", findings([FC, SPINAL]), **pair).verdict == "not run"
    with pytest.raises(UserError, match="did you mean 'head_parameters'"):
        decide("counts", known, **pair | {"quantity": "head_parametres"})


SIZES = {  # by backbone: parameters of FC heads and of the Spinal heads in their place
    "A": [(100, 80), (100, 80), (100, 60)],
    "B": [(100, 95)],
    "C": [(100, 300), (100, 200), (100, 150)],
}


def networks(assumed=(), runs=(), **sizes):
    """Cells ``mnist/A0`` and so on, each against its own FC cell; some assume their width."""
    cells, counts, results = [], {}, []
    for backbone, of in (SIZES | sizes).items():
        for i, pair in enumerate(of):
            name = f"mnist/{backbone}{i}"
            assumes = ("width_for_vgg",) if name in assumed else ()
            fc = cell(f"{name}_fc", backbone=backbone)
            sp = cell(name, backbone=backbone, counterpart=fc.name, assumes=assumes)
            cells += [fc, sp]
            sides = zip((fc, sp), pair, strict=True)
            counts |= {side.name: {"head_parameters": n} for side, n in sides if n}
            if name in runs:
                results += [result(fc, LOW), result(sp, runs[name])]
    return findings(cells, results, counts)


@pytest.mark.parametrize(
    ("known", "options", "verdict", "number"),
    [
        (networks(), {}, "supported", 2),  # of 3: the three networks of C are one
        (networks(), {"at_least": 5.0}, "supported", 2),
        (networks(), {"at_least": 6.0}, "contradicted", 1),
        (networks(), {"at_least": 30.0}, "contradicted", 1),  # A: the median of 20 and 40
        (networks(), {"at_least": 31.0}, "contradicted", 0),
        (networks(), {"every": True}, "contradicted", 2),
        (networks(C=[(9, 8), (9, 9)]), {"every": True}, "contradicted", 2),
        (networks(C=[(9, 8), (9, 7)]), {"every": True}, "supported", 3),
        (networks(C=[(9, 0)]), {}, "supported", 2),  # C is not counted
        (networks(B=[(9, 0)]), {}, "inconclusive", 1),
        (networks(A=[(9, 0)], B=[(9, 0)], C=[(9, 0)]), {}, "not run", 0),
        (networks(["mnist/B0"]), {"without": ["*width*"]}, "contradicted", 1),  # of 2
        (networks(["mnist/B0"]), {"without": ["*depth*"]}, "supported", 2),
        (networks(), {"against": {"mnist/B0": "mnist/A2"}}, "contradicted", 1),
    ],
)
def test_networks_of_one_backbone_count_once(known, options, verdict, number):
    parameters = {"cells": ["mnist/?[0-9]"], "quantity": "head_parameters"} | options
    found = decide("fraction_of_networks_cheaper", known, **parameters)
    assert found.verdict == verdict, found.evidence
    if verdict != "not run":
        assert found.evidence.startswith(f"{number} of ")
        assert found.evidence.count("20.00 to 40.00") == 1  # the sizes of A


def test_sizes_are_stated_with_their_median_and_those_left_out_apart():
    found = decide(
        "fraction_of_networks_cheaper", networks(["mnist/C0"]), cells=["mnist/?[0-9]"],
        quantity="head_parameters", without=["width_*"],
    )  # fmt: skip
    kept, left = found.evidence.split("left out")
    assert "A 20.00 to 40.00 and 0;" in kept and "B 5.00 and" in kept
    assert "C -100.00 to -50.00" in kept and "C -200.00" in left
    assert "median of the architectures 5.00 (-75.00 to 30.00) and 0 (0)" in kept


@pytest.mark.parametrize(
    ("runs", "worse_by", "verdict"),
    [
        ({"A0": HIGH, "A1": HIGH, "B0": HIGH}, 0.0, "supported"),  # 2 of 3 cells of A
        ({"A0": HIGH, "B0": HIGH, "C0": HIGH, "C1": HIGH}, 0.0, "inconclusive"),  # A: 1 of 3
        ({"A0": HIGH, "A1": HIGH, "B0": LOW[::-1]}, 0.0, "inconclusive"),  # B: neither way
        ({"A0": HIGH, "A1": HIGH, "B0": LOW[::-1]}, 0.5, "supported"),
        ({"A0": HIGH, "A1": HIGH, "B0": [v - 0.5 for v in HIGH[::-1]]}, 0.0, "inconclusive"),
        ({"A0": HIGH, "A1": HIGH, "B0": [97.0, 97.1, 97.15, 97.0] * 2}, 0.0, "contradicted"),
        ({"C0": HIGH, "C1": HIGH, "C2": HIGH}, 0.0, "not run"),  # C is not cheaper in any case
    ],
)
def test_the_same_architecture_must_be_better_and_cheaper(runs, worse_by, verdict):
    known = networks(runs={f"mnist/{name}": values for name, values in runs.items()})
    options = {"cells": ["mnist/?[0-9]"], "quantity": "head_parameters", "worse_by": worse_by}
    found = decide("fraction_of_networks_cheaper", known, **options)
    assert found.verdict == verdict, found.evidence
    assert "A 20.00 to 40.00" in found.evidence and "verdicts on the error" in found.evidence
    expensive = decide("fraction_of_networks_cheaper", known, **options | {"at_least": 50.0})
    assert (expensive.verdict, expensive.n) == ("contradicted", None)  # by the counts alone


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
