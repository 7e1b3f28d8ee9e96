"""Tables between the markers of a page."""

import pytest
from fakes import fc_and_spinal, result

from spinal_repro.errors import UserError
from spinal_repro.results.pages import fill

FC, _ = fc_and_spinal()
RESULTS = [result(FC, [98.0, 98.2]), result(FC, [97.0, 97.2], protocol="heldout")]


def page(marker: str) -> str:
    return f"before\n<!-- table: {marker} -->\nold\n<!-- end -->\nafter\n"


@pytest.mark.parametrize(("marker", "mean"), [("", "98.10"), ("@heldout", "97.10")])
def test_a_marker_may_ask_for_a_protocol(marker, mean):
    filled = fill(page(FC.name + marker), RESULTS, {})
    assert f"| {mean} |" in filled and "old" not in filled
    assert filled.startswith("before\n") and filled.endswith("after\n")
    assert fill(filled, RESULTS, {}) == filled


@pytest.mark.parametrize("marker", ["nothing/*", f"{FC.name}@other"])
def test_a_marker_that_matches_nothing_is_named(marker):
    with pytest.raises(UserError, match="matches no cell"):
        fill(page(marker), RESULTS, {})
