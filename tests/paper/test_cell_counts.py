"""results/counts.json has every cell's model, counted as it is."""

import json

import pytest
from helpers.made_records import RECORDS

from spinal_repro.paper.cells import load_cells
from spinal_repro.paper.sizes import count_cells

pytestmark = pytest.mark.xdist_group("paper")  # where the cells are composed
COMMITTED = json.loads((RECORDS.parent / "counts.json").read_text())


def test_every_cell_that_can_be_built_is_counted():
    wanted = [c.name for c in load_cells() if c.regression is not None or c.compose]
    assert list(COMMITTED) == wanted, (
        "make it anew: spinal params --cells --out results/counts.json"
    )


@pytest.mark.parametrize(
    "pattern", ["mnist/vgg5_*", "regression/sum_*", "cifar10/*", "transfer/bird225_vgg19_bn_*"]
)
def test_counts_are_those_of_the_models(pattern):
    counts, refused = count_cells(load_cells(pattern))
    assert counts and not refused
    assert counts == {name: COMMITTED[name] for name in counts}


def test_the_regression_nets_have_the_published_sizes():
    normal, spinal = (COMMITTED[f"regression/sum_{net}_100"] for net in ("normal", "spinal"))
    assert (normal["total_parameters"], spinal["total_parameters"]) == (22_001, 14_301)
    fewer = 1 - spinal["total_multiplications"] / normal["total_multiplications"]
    assert 100 * fewer == pytest.approx(35.48, abs=0.01)
