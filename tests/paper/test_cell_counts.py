"""results/counts.json has the counts of every cell's model."""

import json

import pytest
from helpers.made_records import RECORDS

from spinal_repro.paper.cells import load_cells
from spinal_repro.paper.sizes import count_cells

COMMITTED = json.loads((RECORDS.parent / "counts.json").read_text())
ORIGINAL = {  # parameters and multiplications of heads, counted in the original's own classes
    "mnist/cnn_fc": (16_560, 16_500),
    "mnist/cnn_spinal8": (8_538, 8_480),
    "progressive/mnist_flatten": (514_218, 512_672),
    "progressive/kmnist_vgg5": (95_498, 95_232),
    "progressive/qmnist_vgg5": (96_010, 95_232),
    "progressive/caltech101_wide_resnet101_2": (2_166_949, 2_166_048),
    "progressive/fruits360_wide_resnet101_2": (15_489_155, 15_484_928),
    "shared/stl10_wide_resnet101_2_8x20": (12_290, 45_360),
}
EARLY = {  # recipes 4.5: parameters and multiplications of the head; multiplications
    "cifar10/densenet_fc": (529_930, 529_408, 191_566_848),
    "cifar10/densenet_spinal": (68_746, 68_608, 191_106_048),
    "cifar10/densenet_spinal64": (296_458, 295_936, 191_037_440 + 295_936),
    "early/cifar10_tutorial_cnn_fc": (59_134, 58_920, None),
    "early/cifar10_tutorial_cnn_spinal": (27_330, 27_200, None),
    "early/cifar10_tutorial_resnet_fc": (650, 640, None),
    "early/cifar10_tutorial_resnet_spinal": (34_250, 34_176, None),
    "early/mnist_two_taps_spinal": (122_400, 122_100, None),
}


def test_every_cell_with_a_model_is_counted():
    wanted = [c.name for c in load_cells() if c.regression is not None or c.compose]
    assert list(COMMITTED) == wanted, "run: spinal params --cells --out results/counts.json"


@pytest.mark.parametrize("pattern", ["mnist/vgg5_*", "regression/sum_*", "cifar10/cnn_*"])
def test_counts_are_those_of_the_models(pattern):
    counts, refused = count_cells(load_cells(pattern))
    assert counts and not refused
    assert counts == {name: COMMITTED[name] for name in counts}


@pytest.mark.parametrize("name", EARLY)
def test_early_scripts_have_the_sizes_of_the_original(name):
    counts = count_cells(load_cells(name))[0][name]
    keys = ("head_parameters", "head_multiplications", "total_multiplications")
    for key, wanted in zip(keys, EARLY[name], strict=True):
        assert wanted in (None, counts[key]), key


def test_heads_have_the_sizes_of_the_original():
    keys = ("head_parameters", "head_multiplications")
    assert {name: tuple(COMMITTED[name][key] for key in keys) for name in ORIGINAL} == ORIGINAL


def test_regression_nets_have_the_sizes_of_the_original():
    """The Spinal net in both readings of its layers: dead parameters count, too (Q2)."""
    counts, _ = count_cells(load_cells("regression"))
    assert len(counts) == 24
    for name, found in counts.items():
        sizes = (14_301, 14_000, 300) if "_spinal_" in name else (22_001, 21_700, 300)
        keys = ("total_parameters", "total_multiplications", "head_activations")
        assert tuple(found[key] for key in keys) == sizes, name
