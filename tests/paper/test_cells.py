"""The cells: numbers, texts and configurations agree, and every configuration composes."""

import dataclasses
import functools
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from spinal_repro.config.compose import config_dir
from spinal_repro.config.schema import Config
from spinal_repro.config.validate import validate
from spinal_repro.data.augment import build_augmentations
from spinal_repro.errors import UserError
from spinal_repro.io import read_yaml
from spinal_repro.models.heads import HEADS
from spinal_repro.paper.cells import Cell, curve, load_cells, read_cells, tables
from spinal_repro.training.optim import LR_RULES

CELLS = {cell.name: cell for cell in load_cells()}


@functools.cache
def configs() -> dict[str, Config]:
    """The configuration of each cell that has one."""
    return {name: validate(cell.config) for name, cell in CELLS.items() if cell.config}


def composing() -> list[tuple[Cell, Config]]:
    return [(CELLS[name], config) for name, config in configs().items()]


def test_no_cell_is_composed_to_be_listed():
    cells = read_cells.__wrapped__(config_dir() / "paper")
    assert len(cells) == len(CELLS) and not any("config" in vars(cell) for cell in cells)


def test_every_cell_is_in_a_table_and_is_run_in_one_way_or_not():
    assert list(dict.fromkeys(cell.table for cell in CELLS.values())) == list(tables())
    for name, cell in CELLS.items():
        unpublished = any("no number was published" in text.lower() for text in cell.assumptions)
        assert cell.title and bool(cell.published) != unpublished, name
        ways = [cell.compose, cell.regression, cell.best_of, cell.not_runnable]
        assert sum(bool(way) for way in ways) == 1, name
        assert (cell.refusal() is None) == (cell.compose is not None), name


def test_published_numbers_say_how_they_were_made():
    selections = {"last epoch", "best on test", "test at best validation", "best validation"}
    selections |= {"min over epochs of last mini-batch", "unknown"}
    for cell in CELLS.values():
        for entry in (*cell.published, *filter(None, [cell.reference])):
            assert entry.selection in selections and entry.unit in ("%", "1e-3"), cell.name
            known = ("quoted", "digitised", "recalled")
            assert entry.confidence in (("not found",) if entry.value is None else known), cell.name


def test_sentences_of_several_cells_are_typed_once():
    sentences = read_yaml(config_dir() / "paper" / "tables.yaml")["sentences"]
    texts = Counter(t for c in CELLS.values() for t in (*c.assumptions, c.not_runnable) if t)
    assert {text for text, count in texts.items() if count > 1} == set(sentences.values())
    assert all(" " in text for text in texts), "a key that tables.yaml lacks"


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
        if cell.table == "controls":  # the project's own cells select on no test set
            assert cell.protocol == "heldout", cell.name
        else:
            assert config.protocol == other.protocol, cell.name
        models = [{**c.model.options, "pool": None} for c in (config, other)]  # Q12
        assert (models[0], config.model.label) == (models[1], other.model.label), cell.name


def test_epochs_and_protocol_are_those_published():
    for cell, config in composing():
        assert config.cell == cell.name
        assert config.recipe.published_epochs in (None, config.recipe.epochs), cell.name
        for entry in cell.published[:1]:
            assert entry.epochs in (None, config.recipe.epochs), cell.name
            heldout = entry.selection == "test at best validation"
            wanted = "heldout" if heldout else "paper"
            assert entry.selection == "unknown" or config.protocol.name == wanted, cell.name


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


def test_another_reading_of_a_cell_has_another_configuration():
    for cell, config in composing():
        if cell.variant_of in configs():
            assert config.identity() != configs()[cell.variant_of].identity(), cell.name


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
ROW = {"dataset": "d", "backbone": "b", "head": "h"}


def small_paper(folder: Path, row: dict[str, Any], number: str) -> tuple[Cell, ...]:
    """The cells of a folder with one cell without configuration and one number."""
    shutil.copy(config_dir() / "paper" / "tables.yaml", folder)
    header = "cell,role,metric,value,unit,selection,epochs,source,confidence"
    (folder / "published.csv").write_text(f"{header}\n{number}\n")
    (folder / "others.yaml").write_text(yaml.safe_dump({"mnist/x": row}))
    return read_cells(folder)


def test_a_row_of_others_is_a_cell(tmp_path):
    (cell,) = small_paper(tmp_path, ROW | {"assumptions": ["constants_mnist", "Ours."]}, NUMBER)
    assert (cell.config, cell.published[0].value, cell.title) == (None, 98.1, "d, b, h")
    assert cell.assumptions[0].startswith("Normalised by") and cell.assumptions[1] == "Ours."


@pytest.mark.parametrize(
    ("row", "number"),
    [
        (ROW | {"titel": "t"}, NUMBER),
        ({"dataset": "d"}, NUMBER),
        (ROW | {"name": "mnist/z"}, NUMBER),
        (ROW, NUMBER.replace("mnist/x", "mnist/y")),
    ],
)
def test_broken_cells_are_refused(tmp_path, row, number):
    with pytest.raises(UserError, match=r"mnist/[xy]"):
        small_paper(tmp_path, row, number)
