"""The cells: numbers, texts and configurations agree, and every configuration composes."""

import dataclasses
import functools
import shutil
from collections import Counter
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.composing import composed
from helpers.recipe_facts import CONSTANTS, RECIPES, TRANSFER_HEADS

from spinal_repro.config.compose import config_dir
from spinal_repro.config.preprocessing import Preprocessing
from spinal_repro.config.schema import Config
from spinal_repro.config.validate import validate
from spinal_repro.data.augment import build_augmentations
from spinal_repro.errors import UserError
from spinal_repro.io import read_yaml
from spinal_repro.models.heads import HEADS
from spinal_repro.paper.cells import Cell, load_cells, read_cells, tables
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
        dataset = dataclasses.replace(other.dataset, num_outputs=config.dataset.num_outputs)  # Q45
        assert (recipe, config.dataset) == (its, dataset), cell.name
        if cell.table == "controls":  # the project's own cells select on no test set
            assert cell.protocol == "heldout", cell.name
        else:
            assert config.protocol == other.protocol, cell.name
        models = [{**c.model.options, "pool": None} for c in (config, other)]  # Q12
        assert (models[0], config.model.label) == (models[1], other.model.label), cell.name


def test_a_frozen_cell_differs_in_that_alone():
    """Transferred initialisation is compared with traditional transfer learning."""
    frozen = [name for name in CELLS if name.endswith("_frozen")]
    assert len(frozen) >= 3
    for name in frozen:
        cell = name.replace("controls/", "transfer/").removesuffix("_frozen")
        ours, theirs = (CELLS[n].config for n in (name, cell))
        frozen_model = {"model": theirs["model"] | {"freeze": "backbone"}}
        assert ours == theirs | frozen_model | {"cell": name}


def test_epochs_and_protocol_are_those_published():
    for cell, config in composing():
        assert config.cell == cell.name
        assert config.recipe.published_epochs in (None, config.recipe.epochs), cell.name
        for entry in cell.published[:1]:
            assert entry.epochs in (None, config.recipe.epochs), cell.name
            heldout = entry.selection == "test at best validation"
            wanted = "heldout" if heldout else "paper"
            assert entry.selection == "unknown" or config.protocol.name == wanted, cell.name


NOTEBOOKS = {  # rows of recipes 9
    "stl10_vit_fc": "STL-10-Transformer",
    "stl10_vit_spinal40": "STL-10-Transformer and SpinalNet",
    "stl10_vit_spinal_background": "STL-10-Background, Transformer, and SpinalNet",
    "cifar100_vit_spinal_background": "CIFAR100-Background, Transformer, and SpinalNet, July",
}


@pytest.mark.parametrize(("name", "notebook"), NOTEBOOKS.items())
def test_vision_transformers_train_as_their_notebooks(name, notebook):
    recipes = Path(__file__).parents[2] / "docs" / "recipes.md"
    if not recipes.is_file():
        pytest.skip("docs/ is in the repository, not in the source archive")
    (row,) = (x for x in recipes.read_text().splitlines() if x.startswith(f"| {notebook} |"))
    _, batch, epochs, head, outputs, sizes, _, test = row.strip("| ").split(" | ")
    config, cell = configs()[f"notebooks/{name}"], CELLS[f"notebooks/{name}"]
    recipe, dataset = config.recipe, config.dataset
    assert (recipe.batch_size, recipe.epochs, recipe.lr) == (int(batch), int(epochs), 0.0005)
    assert dataset.outputs == int(outputs.split()[0])
    train, selecting, tested = (int(size.replace(",", "")) for size in sizes.split(" / "))
    held = dataset.val_size or round(config.protocol.val_fraction * dataset.train_size)
    assert dataset.train_size in (train, train + held) and dataset.test_size == tested
    assert held == (selecting if config.protocol.name == "heldout" else 0)
    if head.startswith("drop-bn 4 x "):
        options = {"width": int(head.split()[-1]), "layers": 4, "dropout": 0.5, "norm": True}
        assert options.items() <= config.head.options.items()
    assert cell.published[0].value == pytest.approx(float(test), abs=0.005)


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


def script_of(name: str) -> str | None:
    return next((pattern for pattern in RECIPES if fnmatchcase(name, pattern)), None)


@pytest.mark.parametrize("pattern", RECIPES)
def test_a_recipe_is_that_of_its_script(pattern):
    images, batch, stages, constants = RECIPES[pattern]
    found = [config for name, config in configs().items() if script_of(name) == pattern]
    assert found, "no cell has this pattern"
    for recipe in (config.recipe for config in found):
        parts = [Preprocessing.of(recipe.prepare, part) for part in ("train", "eval")]
        assert [(part.resize, part.crop) for part in parts] == [images.train, images.eval]
        assert [a["name"] for a in recipe.augment] == [a["name"] for a in images.augment]
        for ours, theirs in zip(recipe.augment, images.augment, strict=True):
            assert ours == ours | theirs
        starts = {1: recipe.lr, **recipe.stages}
        ends = [*list(starts)[1:], recipe.epochs + 1]
        ran = [
            f"{rate:g} x {end - at}" for (at, rate), end in zip(starts.items(), ends, strict=True)
        ]
        assert (recipe.batch_size, ", ".join(ran)) == (batch, stages)
        assert (recipe.mean, recipe.std) == CONSTANTS[constants]


def test_every_transfer_cell_has_a_script():
    wanted = [name for name in configs() if name.startswith(("transfer/", "docstring/"))]
    assert wanted and all(map(script_of, wanted))


@pytest.mark.parametrize("dataset", TRANSFER_HEADS)
def test_transfer_heads_are_those_of_the_scripts(dataset):
    style, width, vgg_width = TRANSFER_HEADS[dataset]
    wanted = {"wide_resnet101_2": (style, width), "vgg19_bn": ("drop-bn", vgg_width)}
    for backbone, expected in wanted.items():
        if expected != (None, None):
            head = configs()[f"transfer/{dataset}_{backbone}_spinal"].head.options
            styles = {(0.0, False): "bare", (0.5, True): "drop-bn"}
            assert (styles[head["dropout"], head["norm"]], head["width"]) == expected
            assert (head["layers"], head["splits"]) == (4, 2)


def test_a_transfer_recipe_is_chosen_as_the_readme_says():
    given = ("dataset=cifar10", "model=wide_resnet101_2", "recipe=transfer")
    given = (*given, "model.pretrained=IMAGENET1K_V1", "protocol=paper")
    cell = "transfer/cifar10_wide_resnet101_2"
    assert composed(*given, "head=fc").identity() == configs()[f"{cell}_fc"].identity()
    assert composed(*given, "head=spinal").recipe == configs()[f"{cell}_spinal"].recipe


def test_another_reading_of_a_cell_has_another_configuration():
    for cell, config in composing():
        if cell.variant_of in configs():
            assert config.identity() != configs()[cell.variant_of].identity(), cell.name


@pytest.mark.parametrize(
    ("dataset", "width", "lr", "rule"),
    [
        ("mnist", 30, 0.01, {"name": "redraw_late", "start": 100, "factor": 5, "power": 3}),
        (
            "fashion_mnist",
            300,
            0.005,
            {"name": "redraw_late", "start": 50, "factor": 5, "power": 3},
        ),
        *((name, 50, 0.1, None) for name in ("kmnist", "qmnist", "emnist_digits")),
    ],
)
def test_arch2_cells_are_the_scripts(dataset, width, lr, rule):
    """Recipes 2.2; as committed the rate of three scripts is constant (Q9)."""
    config = configs()[f"arch2/{dataset}"]
    assert (config.head.options["width"], config.recipe.lr) == (width, lr)
    recipe = config.recipe
    assert (recipe.optimizer, recipe.momentum, recipe.batch_size) == ("sgd", 0.5, 64)
    assert (recipe.epochs, recipe.weight_decay, config.protocol.name) == (200, 0, "paper")
    fashion = dataset == "fashion_mnist"
    names = ["rotation", "resized_crop"] if fashion else ["perspective", "rotation"]
    assert [entry["name"] for entry in recipe.augment] == names
    assert recipe.mean == ([0.5] if fashion else [0.1307])
    assert rule in (None, recipe.lr_rule)
    if rule is None:
        committed = configs()[f"arch2/{dataset}_committed"].recipe
        assert committed.lr_rule == {"name": "constant"} != recipe.lr_rule
        changed = {"lr_rule": recipe.lr_rule, "name": recipe.name}
        assert dataclasses.replace(committed, **changed) == recipe


def test_patterns_tables_and_near_names():
    names = ["mnist/cnn_fc", "mnist/cnn_spinal8", "mnist/cnn_spinal10"]
    assert [cell.name for cell in load_cells("mnist/cnn_*")] == names
    assert {cell.table for cell in load_cells("curve")} == {"curve"}
    with pytest.raises(UserError, match="did you mean 'mnist/vgg5_spinal'"):
        load_cells("mnist/vgg_spinal")
    with pytest.raises(UserError, match=r"mnist/resnet\*"):
        load_cells("mnist/resnet*")


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
    assert cell.assumes == ("constants_mnist",)


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
