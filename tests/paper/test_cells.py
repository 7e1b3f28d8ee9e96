"""The cells: numbers, texts and configurations agree, and every configuration composes."""

import dataclasses
import functools
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers.composing import composed

from spinal_repro.config.compose import config_dir, validate
from spinal_repro.config.schema import Config
from spinal_repro.data.augment import build_augmentations
from spinal_repro.data.sources import Dataset, ImageSet
from spinal_repro.errors import UserError
from spinal_repro.models.heads import HEADS
from spinal_repro.paper.cells import Cell, curve, load_cells, read_cells, tables
from spinal_repro.training import setup as builder
from spinal_repro.training.engine import train_one_epoch
from spinal_repro.training.optim import LR_RULES

pytestmark = pytest.mark.xdist_group("paper")  # every cell is composed once
CELLS = {cell.name: cell for cell in load_cells()}


@functools.cache
def configs() -> dict[str, Config]:
    """The configuration of each cell that has one."""
    return {name: validate(cell.config) for name, cell in CELLS.items() if cell.config}


def composing() -> list[tuple[Cell, Config]]:
    return [(CELLS[name], config) for name, config in configs().items()]


def test_no_cell_is_composed_to_be_listed():
    cells = read_cells(config_dir() / "paper")
    assert len({hash(cell) for cell in cells}) == len(cells) == len(CELLS)
    assert "FC 320-50-10" in repr(cells)
    assert not any(
        "config" in vars(cell) for cell in read_cells.__wrapped__(config_dir() / "paper")
    )


def test_every_cell_is_in_a_table_and_is_run_in_one_way_or_not():
    assert list(dict.fromkeys(cell.table for cell in CELLS.values())) == list(tables())
    for name, cell in CELLS.items():
        assert cell.title and (cell.published or cell.table == "controls"), name
        ways = [cell.compose, cell.regression, cell.best_of, cell.not_runnable]
        assert sum(bool(way) for way in ways) == 1, name
        assert (cell.refusal() is None) == (cell.compose is not None), name


def test_cells_name_cells():
    for cell in CELLS.values():
        others = (cell.counterpart, cell.variant_of, cell.shorter, *cell.best_of)
        assert set(filter(None, others)) <= set(CELLS), cell.name
        if cell.variant_of is not None and any(e.value is not None for e in cell.published):
            assert cell.published == CELLS[cell.variant_of].published


def test_a_counterpart_differs_in_the_head_alone():
    for cell, config in composing():
        if cell.counterpart is None:
            continue
        other = configs()[cell.counterpart]
        assert other.head.name == "fc" and CELLS[cell.counterpart].head_kind == "fc"
        recipe, its = config.recipe, other.recipe
        if cell.name.endswith("_committed"):  # the scripts' rules differ with the head (Q8)
            assert recipe.lr_rule != its.lr_rule
            its = dataclasses.replace(its, lr_rule=recipe.lr_rule, name=recipe.name)
        assert (recipe, config.dataset) == (its, other.dataset), cell.name
        if cell.published:
            assert config.protocol == other.protocol, cell.name
        else:  # the project's own cells select on no test set
            assert (cell.table, cell.protocol) == ("controls", "heldout"), cell.name
        models = [{**c.model.options, "pool": None} for c in (config, other)]  # Q12
        assert (models[0], config.model.label) == (models[1], other.model.label), cell.name


def test_epochs_and_protocol_are_those_published():
    for cell, config in composing():
        assert config.cell == cell.name
        assert config.recipe.published_epochs in (None, config.recipe.epochs), cell.name
        for entry in cell.published[:1]:
            assert entry.epochs in (None, config.recipe.epochs), cell.name
            at_validation = entry.selection == "test at best validation"
            assert entry.selection == "unknown" or (
                config.protocol.name == ("heldout" if at_validation else "paper")
            ), cell.name


def test_every_configuration_has_parts_that_fit():
    """Options that heads and rules have, and one size of images in training and evaluation."""
    for cell, config in composing():
        size = config.preprocessing("train").size
        for augmentation in build_augmentations(config.recipe.augment):
            size = augmentation.size_after(size)
        assert size == config.input_size, cell.name
        rule = dict(config.recipe.lr_rule)
        LR_RULES.build(rule.pop("name"), rule)
        HEADS.check(config.head.name, config.head.options)
        kind = config.head.name if config.head.name in ("fc", "spinal") else "other"
        assert cell.head_kind == kind, cell.name


WIDTHS = {  # of the Wide-ResNet-101-2 rows, and whether the class has dropout and batch norm
    "cifar10": (20, True), "cifar100": (512, True), "caltech101": (1024, False),
    "bird225": (1024, True), "stanford_cars": (196, False), "svhn": (20, False),
    "cinic10": (20, False), "stl10": (512, True), "flowers102": (102, False),
    "fruits360": (131, False),
}  # fmt: skip


def test_transferred_heads_have_the_widths_of_their_scripts():
    for dataset, (width, large) in WIDTHS.items():
        config = configs()[f"transfer/{dataset}_wide_resnet101_2_spinal"]
        head = config.head.options
        assert (head["width"], head["layers"], head["norm"]) == (width, 4, large), dataset
        assert head["dropout"] == (0.5 if large else 0.0), dataset
        assert config.model.options["pretrained"] == "IMAGENET1K_V1"
        assert (config.recipe.momentum, config.recipe.lr_rule["step"]) == (0.9, 7)


@pytest.mark.parametrize(
    ("dataset", "width"), [("mnist", 30), ("kmnist", 50), ("qmnist", 50), ("fashion_mnist", 300)]
)
def test_arch2_has_the_widths_of_its_scripts(dataset, width):
    config = composed(f"dataset={dataset}", "model=arch2", "head=arch2")
    assert config.head.options["width"] == width


def test_repaired_and_faithful_readings_differ_where_they_say():
    letters, fashion, cifar100 = (
        "mnist/emnist_letters_vgg5_spinal",
        "notebooks/fashion_mnist_wide_resnet101_2_spinal1024",
        "notebooks/cifar100_wide_resnet101_2_spinal200",
    )
    assert configs()[letters].dataset.num_outputs is None
    assert configs()[f"{letters}_62"].dataset.num_outputs == 62  # Q15
    assert configs()[fashion].head.options["activation"] == "relu"
    assert configs()[f"{fashion}_linear"].head.options["activation"] == "identity"  # Q14
    assert not configs()[cifar100].recipe.best_of_last_stage
    assert configs()[f"{cifar100}_last_stage"].recipe.best_of_last_stage  # Q21
    assert configs()["notebooks/flowers102_wide_resnet101_2_fc"].head.name == "fc"  # Q5


def fake(config, root, download, test) -> Dataset:
    """A few random images of a data set's shape."""
    generator = torch.Generator().manual_seed(0)
    shape = (16, config.channels, config.image_size, config.image_size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    labels = torch.arange(16) // 8
    return Dataset(ImageSet(images, labels), ImageSet(images.flip(0), labels))


@pytest.mark.parametrize(
    "name",
    [
        "mnist/emnist_letters_vgg5_spinal_62",
        "cifar10/cnn_spinal_committed",
        "progressive/mnist_flatten",
    ],
)
def test_a_small_cell_trains(name, monkeypatch):
    monkeypatch.setattr(builder, "load_dataset", fake)
    config = configs()[name]
    recipe = dataclasses.replace(config.recipe, batch_size=8)
    config = dataclasses.replace(config, recipe=recipe)
    losses, *_ = train_one_epoch(builder.build_run(config, torch.device("cpu")).run, 1)
    assert all(loss > 0 for loss in losses)


def test_the_user_overrides_the_protocol_of_a_cell():
    config = composed("paper=mnist/vgg5_spinal", "protocol=heldout", "head.width=64")
    assert (config.protocol.name, config.cell) == ("heldout", "mnist/vgg5_spinal")
    assert config.head.options["width"] == 64


def test_a_stored_configuration_is_the_composed_one():
    """JSON turns the epochs of stages into text."""
    config = configs()["transfer/cinic10_wide_resnet101_2_spinal"]
    assert config.recipe.stages == {21: 0.001}
    assert config == composed(f"paper={config.cell}").portable()


def test_patterns_tables_and_near_names():
    names = ["mnist/cnn_fc", "mnist/cnn_spinal8", "mnist/cnn_spinal10"]
    assert [cell.name for cell in load_cells("mnist/cnn_*")] == names
    assert {cell.table for cell in load_cells("curve")} == {"curve"}
    with pytest.raises(UserError, match="did you mean 'mnist/vgg5_spinal'"):
        load_cells("mnist/vgg_spinal")
    with pytest.raises(UserError, match=r"mnist/resnet\*"):
        load_cells("mnist/resnet*")


def test_the_curve_ends_where_its_cells_do():
    cells = load_cells("curve")
    for cell in cells:
        rows = [r for r in curve() if (r["cell"], r["quantity"]) == (cell.name, "mean accuracy %")]
        assert [row["epoch"] for row in rows] == list(range(1, 21))
        assert rows[-1]["value"] == cell.published[0].value
    assert {row["cell"] for row in curve()} == {cell.name for cell in cells}


NUMBER = "mnist/x,result,accuracy %,98.1,%,last epoch,8,a page,quoted"
ROW: dict[str, Any] = {"title": "t", "dataset": "d", "backbone": "b", "head": "h"}
BROKEN = [
    (ROW | {"titel": "t"}, NUMBER),
    (ROW | {"assumptions": ["no_such_key"]}, NUMBER),
    ({"title": "t"}, NUMBER),
    (ROW, NUMBER.replace("quoted", "quotted")),
    (ROW, NUMBER.replace("98.1", "98,1")),
    (ROW, NUMBER.replace("mnist/x", "mnist/y")),
]


def small_paper(folder: Path, row: dict[str, Any], number: str) -> tuple[Cell, ...]:
    """The cells of a folder with one cell without configuration and one number."""
    shutil.copy(config_dir() / "paper" / "tables.yaml", folder)
    header = "cell,role,metric,value,unit,selection,epochs,source,confidence"
    (folder / "published.csv").write_text(f"{header}\n{number}\n")
    (folder / "others.yaml").write_text(yaml.safe_dump({"mnist/x": row}))
    return read_cells(folder)


def test_a_row_of_others_is_a_cell(tmp_path):
    (cell,) = small_paper(
        tmp_path, ROW | {"assumptions": ["constants_mnist", "One of ours."]}, NUMBER
    )
    assert cell.config is None and cell.published[0].value == 98.1
    assert cell.assumptions[0].startswith("Normalised by") and cell.assumptions[1] == "One of ours."


@pytest.mark.parametrize(("row", "number"), BROKEN)
def test_broken_cells_are_refused(tmp_path, row, number):
    with pytest.raises(UserError, match=r"mnist/x|mnist/y|published\.csv"):
        small_paper(tmp_path, row, number)
