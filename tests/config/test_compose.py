"""Composition, validation and identity of configurations."""

import copy
import dataclasses
import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from helpers.composing import composed
from omegaconf import OmegaConf

from spinal_repro.config.compose import GROUPS, compose, compose_raw, config_dir, validate
from spinal_repro.config.schema import Config, RecipeConfig, schema_keys
from spinal_repro.data.augment import build_augmentations
from spinal_repro.errors import UserError
from spinal_repro.models.backbones import load_backbones
from spinal_repro.models.heads import HEADS
from spinal_repro.training.optim import LR_RULES

CHOICES = {
    group: sorted(path.stem for path in (config_dir() / group).glob("*.yaml")) for group in GROUPS
}
VGG5_AUGMENT = ["perspective", "rotation"]


def cell(dataset: str = "mnist", model: str = "cnn", head: str = "fc") -> Config:
    return composed(f"dataset={dataset}", f"model={model}", f"head={head}")


def changed(config: Config, **settings: Any) -> Config:
    """The configuration with some settings (``group__key``) changed, validated again."""
    plain = copy.deepcopy(config.to_dict())
    for name, value in settings.items():
        *groups, key = name.split("__")
        node = plain
        for group in groups:
            node = node[group]
        node[key] = value
    return validate(plain)


@pytest.fixture
def mnist() -> Config:
    return cell(head="spinal")


# Composition


def test_every_group_has_choices():
    assert all(CHOICES.values())
    assert {"fc", "spinal"} <= set(CHOICES["head"])


@pytest.mark.parametrize(
    "group, name", [(g, name) for g in ("recipe", "protocol", "runtime") for name in CHOICES[g]]
)
def test_every_choice_composes_under_its_own_name(group, name):
    config = compose(["dataset=cifar10", f"{group}={name}"])  # colour, for its constants
    if group != "runtime":  # the machine's settings have no name
        assert getattr(config, group).name == name
    assert config.reduced_budget == []


@pytest.mark.parametrize("dataset", CHOICES["dataset"])
def test_every_data_set_goes_with_a_model(dataset):
    """And every model with a data set and both heads: tests/backbones/test_every_model.py."""
    config = cell(dataset, "vgg5", "spinal")
    assert (config.dataset.name, config.head.name) == (dataset, "spinal")
    load_backbones().check(config.model.registered, config.model.arguments)
    HEADS.check("spinal", config.head.options)
    rule = dict(config.recipe.lr_rule)
    LR_RULES.build(rule.pop("name"), rule)
    build_augmentations(config.recipe.augment)


def test_files_of_every_specialisation_name_choices_that_exist():
    """A file whose name fits no pair would silently never be used."""
    pairs = {f"{m}_{h}" for m, h in product(CHOICES["model"], CHOICES["head"])}
    recipes = {f"{d}_{r}" for d, r in product(CHOICES["dataset"], CHOICES["recipe"])}
    triples = {f"{d}_{pair}" for d, pair in product(CHOICES["dataset"], pairs)}
    for folder, known in (("head/for", pairs), ("head/for/on", triples), ("recipe/on", recipes)):
        found = {path.stem for path in (config_dir() / folder).glob("*.yaml")}
        assert found, folder
        assert found <= known, folder


def test_the_small_cnn_on_mnist():
    fc, spinal = cell(), cell(head="spinal")
    assert fc.model.name == fc.recipe.name == "cnn"
    assert fc.head.options["hidden"] == [50]
    assert fc.head.options["dropout"] == [0.0, 0.5]
    assert not fc.head.options["norm"]
    wanted = {"width": 8, "layers": 6, "splits": 2, "dropout": 0.0, "norm": False, "shared": False}
    assert spinal.head.options == {**wanted, "activation": "relu"}
    assert fc.recipe == spinal.recipe
    recipe = fc.recipe
    assert (recipe.optimizer, recipe.lr, recipe.momentum) == ("sgd", 0.01, 0.5)
    assert (recipe.epochs, recipe.batch_size, recipe.eval_batch_size) == (8, 64, 1000)
    assert recipe.lr_rule == {"name": "constant"}
    assert (recipe.augment, recipe.mean, recipe.std) == ([], [0.1307], [0.3081])


def test_emnist_digits_has_the_wider_spinal_head_with_the_cnn_alone():
    spinal = cell(dataset="emnist_digits", head="spinal").head.options
    assert (spinal["width"], spinal["layers"], spinal["dropout"]) == (10, 6, 0.0)
    assert cell(dataset="emnist_digits").head == cell().head
    vgg5 = cell(dataset="emnist_digits", model="vgg5", head="spinal").head
    assert vgg5 == cell(model="vgg5", head="spinal").head


def test_vgg5_heads_and_recipe():
    fc = cell(model="vgg5")
    spinal = cell(model="vgg5", head="spinal")
    wanted = {"hidden": [512], "dropout": [0.5, 0.5], "norm": True, "activation": "relu"}
    assert fc.head.options == wanted
    wanted = {"width": 128, "layers": 4, "splits": 2, "dropout": 0.5, "norm": True}
    assert spinal.head.options == {**wanted, "activation": "relu", "shared": False}
    assert fc.recipe == spinal.recipe
    recipe = fc.recipe
    assert (recipe.name, recipe.optimizer, recipe.lr) == ("vgg5", "adam", 0.005)
    assert (recipe.epochs, recipe.batch_size, recipe.momentum) == (200, 100, 0.0)
    assert recipe.lr_rule == {"name": "redraw", "power": 3, "tie_is_better": False}
    assert [entry["name"] for entry in recipe.augment] == VGG5_AUGMENT
    assert (recipe.mean, recipe.std) == ([0.1307], [0.3081])


def test_fashion_mnist_has_its_own_augmentation_with_vgg5_alone():
    recipe = cell(dataset="fashion_mnist", model="vgg5").recipe
    rotation, crop = recipe.augment
    assert rotation == {"name": "rotation", "degrees": 10}
    assert (crop["name"], crop["scale"]) == ("resized_crop", [0.95, 1.0])
    assert crop["ratio"] == pytest.approx([3 / 4, 4 / 3])
    assert (recipe.mean, recipe.std) == ([0.5], [0.5])
    assert (recipe.lr, recipe.epochs) == (0.005, 200)
    assert cell(dataset="fashion_mnist").recipe == cell().recipe


def test_a_recipe_chosen_explicitly_wins_over_the_models_own():
    config = compose(["dataset=fashion_mnist", "model=vgg5", "recipe=cnn"])
    assert config.model.name == "vgg5"
    assert config.recipe == cell().recipe
    assert config.head == cell(model="vgg5").head


def test_the_original_reading_of_the_letters():
    letters, original = cell(dataset="emnist_letters"), cell(dataset="emnist_letters_62")
    assert (letters.dataset.outputs, letters.dataset.label_offset) == (26, -1)
    assert (original.dataset.outputs, original.dataset.label_offset) == (62, 0)
    assert original.dataset.num_classes == 26
    assert original.dataset.options == letters.dataset.options == {"split": "letters"}


def test_the_order_of_overrides_does_not_matter():
    one = compose(["head.width=5", "head=spinal", "dataset=mnist", "model=vgg5"])
    other = compose(["model=vgg5", "dataset=mnist", "head=spinal", "head.width=5"])
    assert one == other
    assert one.head.options["width"] == 5


def test_folders_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("SPINAL_DATA", "/somewhere/data")
    monkeypatch.setenv("SPINAL_RUNS", "/somewhere/runs")
    config = compose()
    assert (config.data.root, config.runs) == ("/somewhere/data", "/somewhere/runs")
    monkeypatch.delenv("SPINAL_DATA")
    monkeypatch.delenv("SPINAL_RUNS")
    config = compose()
    assert (config.data.root, config.runs) == ("data", "runs")


# Refusals


@pytest.mark.parametrize("plus", ["", "+", "++"])
@pytest.mark.parametrize("key", ["dataset.num_clases", "sede"])
def test_typos_are_refused_behind_nothing_and_any_plus(plus, key):
    with pytest.raises(UserError, match=key.rpartition(".")[2]):
        compose([f"{plus}{key}=1"])


def test_typos_behind_a_plus_name_the_nearest():
    with pytest.raises(UserError, match=r"no option of recipe 'epoch'; did you mean 'epochs'\?"):
        compose(["+recipe.epoch=1"])
    with pytest.raises(UserError, match=r"no configuration key 'sede'; did you mean 'seed'\?"):
        compose(["++sede=1"])


@pytest.mark.parametrize(
    "override, named",
    [
        ("head=spinall", "spinall"),
        ("datset=mnist", "datset"),
        ("recipe.lr=abc", "recipe: lr: .*'abc'"),
        ("recipe.epochs=1.5", "recipe: epochs: .*'1.5'"),
        ("data.download=maybe", "data: download: .*'maybe'"),
        ("recipe.mean=0.5", "recipe: mean"),
        ("recipe.std=[[1]]", "recipe.std must be a list of numbers"),
        ("recipe.lr_rule=redraw", "recipe: lr_rule"),
        ("dataset=[mnist", "mnist"),
        ("~recipe.lr", "recipe: lr: "),
        ("~head", "head must be a group of settings with a name"),
        ("recipe.lr=${nowhere}", "nowhere"),
        ("runs=null", "runs: .*'None'"),
    ],
)
def test_what_cannot_be_composed_is_refused_in_one_line(override, named):
    with pytest.raises(UserError, match=named) as refused:
        compose([override])
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"recipe__epochs": -1}, r"recipe\.epochs must be above 0, got -1"),
        ({"recipe__epochs": 0}, r"recipe\.epochs must be above 0"),
        ({"recipe__batch_size": 0}, r"recipe\.batch_size must be above 0"),
        ({"recipe__eval_batch_size": -5}, r"recipe\.eval_batch_size must be above 0"),
        ({"recipe__lr": 0.0}, r"recipe\.lr must be above 0"),
        ({"recipe__lr": float("nan")}, r"recipe\.lr must be a finite number"),
        ({"recipe__momentum": -0.1}, r"recipe\.momentum must be 0 or more"),
        ({"recipe__weight_decay": -1e-4}, r"recipe\.weight_decay must be 0 or more"),
        ({"recipe__std": [0.0]}, "std in recipe must be above 0"),
        ({"recipe__mean": [10**400]}, r"recipe\.mean must be a number that 64 bits hold"),
        ({"recipe__batch_size": 10**24}, r"recipe\.batch_size must be a number"),
        ({"recipe__prepare": {"eval": {"resize": 4097}}}, r"resize must be N .* from 1 to 4096"),
        ({"recipe__prepare": {"eval": {"crop": 4097}}}, "crop must lie between 1 and 4096"),
        ({"runtime__threads": 4097}, r"runtime\.threads must be at most 4,096"),
        ({"protocol__split_seed": -1}, r"protocol\.split_seed must be 0 or more"),
        ({"protocol__split_seed": 2**32}, r"protocol\.split_seed must be at most 4,294,967,295"),
        ({"seed": 2**63}, "seed must be a number"),
        ({"recipe__mean": [0.1, 0.2]}, r"recipe\.mean needs one value, or one for each of the 1"),
        ({"recipe__std": []}, r"recipe\.std needs one value"),
        ({"dataset__num_classes": 0}, r"dataset\.num_classes must be above 0"),
        ({"dataset__image_size": -28}, r"dataset\.image_size must be above 0"),
        ({"dataset__channels": 0}, r"dataset\.channels must be above 0"),
        ({"dataset__num_outputs": 9}, r"num_outputs \(9\) is below the number of classes \(10\)"),
        ({"data__limit": 0}, r"data\.limit must be above 0"),
        ({"runtime__threads": 0}, r"runtime\.threads must be above 0"),
        ({"runtime__jobs": "all"}, r"runtime\.jobs must be a whole number or auto"),
        ({"runtime__jobs": 0}, r"runtime\.jobs must be above 0"),
        ({"runtime__jobs": "many"}, r"runtime\.jobs must be a whole number or auto"),
        ({"runtime__time_limit": 0}, r"runtime\.time_limit must be above 0"),
        ({"runtime__precision": "fp16"}, r"runtime\.precision 'fp16'; did you mean 'bf16'"),
        ({"runtime__precision": "tf32", "runtime__device": "cpu"}, "tf32 needs an NVIDIA GPU"),
        ({"runtime__save_every": -1}, r"runtime\.save_every must be 0 or more"),
        ({"runtime__progress": "line"}, r"runtime\.progress 'line'; did you mean 'lines'"),
        ({"runtime__device": "cudda"}, r"runtime\.device 'cudda'; did you mean 'cuda'"),
        ({"protocol__select_on": "vall"}, r"protocol\.select_on 'vall'; did you mean 'val'"),
        ({"seed": -1}, "seed must be 0 or more, got -1"),
        ({"seed": 1.5}, "seed: .*'1.5'"),
        ({"seed": True}, "seed: .*'True'"),
        ({"seed": None}, "seed: .*'None'"),
        ({"recipe": 3}, "recipe must be a group of settings"),
        ({"head": {"width": 8}}, "head must be a group of settings with a name"),
        ({"dataset__source": None}, "dataset: source"),
    ],
)
def test_values_that_make_no_sense_are_refused(mnist, settings, message):
    with pytest.raises(UserError, match=message):
        changed(mnist, **settings)


@pytest.mark.parametrize(
    "select_on, fraction, message",
    [
        ("val", 0.0, "val_fraction must lie between 0 and 1"),
        ("val", 1.0, "val_fraction must lie between 0 and 1"),
        ("val", -0.1, "val_fraction must lie between 0 and 1"),
        ("test", 0.1, "val_fraction must be 0 where the test set selects"),
    ],
)
def test_validation_part_and_who_selects_must_fit(mnist, select_on, fraction, message):
    with pytest.raises(UserError, match=message):
        changed(mnist, protocol__select_on=select_on, protocol__val_fraction=fraction)


def test_one_mean_for_each_channel_is_accepted(mnist):
    three = {"dataset__channels": 3, "recipe__mean": [0.1, 0.2, 0.3]}
    assert changed(mnist, **three).recipe.mean == [0.1, 0.2, 0.3]
    with pytest.raises(UserError, match="one for each of the 3 channels"):
        changed(mnist, **three, recipe__std=[0.1, 0.2])


# Configuration of the user's own


def write_choice(folder: Path, name: str, text: str) -> None:
    path = folder / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_choices_of_ones_own_are_found(tmp_path):
    write_choice(tmp_path, "dataset/mine", "defaults: [mnist, _self_]\nname: mine\ntest_size: 7\n")
    config = compose(["dataset=mine"], extra_dir=tmp_path)
    assert (config.dataset.name, config.dataset.test_size) == ("mine", 7)
    assert config.dataset.source == "mnist"


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("dataset/mine", "defaults: [mnist, _self_]\nnum_clases: 3\n", "'num_classes'"),
        ("recipe/mine", "defaults: [cnn, _self_]\nbatchsize: 3\n", "'batch_size'"),
        ("protocol/mine", "defaults: [paper, _self_]\nval_faction: 0\n", "'val_fraction'"),
        ("runtime/mine", "defaults: [default, _self_]\ndevise: cpu\n", "'device'"),
        ("recipe/mine", "defaults: [cnn, _self_]\nlr: fast\n", "recipe: lr: .*'fast'"),
        ("dataset/mine", "name: mine\n", "dataset: "),
        ("dataset/mine", "name: [mine\n", "mine.yaml"),
        ("head/mine", "width: 3\n", "head must be a group of settings with a name"),
    ],
)
def test_mistakes_in_ones_own_yaml_are_refused(tmp_path, name, text, message):
    write_choice(tmp_path, name, text)
    with pytest.raises(UserError, match=message):
        compose([f"{name.partition('/')[0]}=mine"], extra_dir=tmp_path)


@pytest.mark.parametrize(
    "group, registry, text, message",
    [
        ("head", HEADS, "name: spinal\nwidht: 3\n", r"'widht'; did you mean 'width'\?"),
        ("head", HEADS, "name: spinall\n", r"'spinall'; did you mean 'spinal'\?"),
        ("model", load_backbones(), "name: vgg6\n", r"'vgg6'; did you mean 'vgg5'\?"),
        ("model", load_backbones(), "name: vgg5\ndepth: 3\n", "'depth'"),
    ],
)
def test_components_are_checked_against_their_constructors(
    tmp_path, group, registry, text, message
):
    write_choice(tmp_path, f"{group}/mine", text)
    component = getattr(compose([f"{group}=mine", "recipe=cnn"], extra_dir=tmp_path), group)
    with pytest.raises(UserError, match=message):
        registry.check(component.name, component.options)


# Identity


@pytest.mark.parametrize(
    "settings",
    [
        {"data__root": "/elsewhere"},
        {"data__download": True},
        {"runs": "/elsewhere"},
        {"runtime__threads": 2},
        {"runtime__jobs": 4},
        {"runtime__time_limit": 90.0},
        {"runtime__progress": "none"},
        {"dataset__title": "Digits"},
        {"recipe__published_epochs": None},
        {"recipe__name": "renamed"},
        {"seed": 5},
    ],
    ids=str,
)
def test_identity_ignores_what_cannot_change_a_result(mnist, settings):
    other = changed(mnist, **settings)
    assert other != mnist
    assert other.identity() == mnist.identity()


@pytest.mark.parametrize(
    "settings",
    [
        {"recipe__lr": 0.02},
        {"recipe__epochs": 9},
        {"recipe__lr_rule": {"name": "redraw"}},
        {"recipe__augment": [{"name": "rotation", "degrees": 10}]},
        {"head__width": 9},
        {"head__name": "fc"},
        {"model__name": "flatten"},
        {"dataset__num_outputs": 12},
        {"dataset__options": {"split": "digits"}},
        {"protocol__split_seed": 1},
        {"protocol__val_fraction": 0.2},
        {"runtime__precision": "bf16"},
        {"runtime__device": "cpu"},
        {"data__limit": 100},
        {"runtime__compile": True},
    ],
    ids=str,
)
def test_identity_depends_on_what_can_change_a_result(mnist, settings):
    other = changed(mnist, **settings)
    assert other.identity() != mnist.identity()
    assert other.run_dir != mnist.run_dir


@pytest.mark.parametrize(
    ("device", "precision"),
    [("cpu", "fp32"), ("mps", "fp32"), ("cuda", "tf32"), ("cuda:1", "tf32")],
)
def test_the_device_decides_what_precision_auto_is(mnist, device, precision):
    """The run is the same as one that names that precision, and keeps its device."""
    auto = changed(mnist, runtime__device=device)
    assert auto.runtime.precision == precision and auto.runtime.device == device
    named = changed(mnist, runtime__device=device, runtime__precision=precision)
    assert auto.identity() == named.identity()
    assert changed(mnist, runtime__device="auto").runtime.precision == "auto"  # found by the run


def test_identity_depends_on_the_protocol():
    heldout, paper = cell(), compose(["dataset=mnist", "protocol=paper"])
    assert heldout.identity() != paper.identity()
    assert heldout.run_dir.parent.name.startswith("heldout-")
    assert paper.run_dir.parent.name.startswith("paper-")


def test_identity_does_not_depend_on_how_a_setting_came_in():
    explicit = compose(["dataset=mnist", "head=spinal", "head.width=8", "recipe.lr=1e-2"])
    assert explicit.identity() == cell(head="spinal").identity()


def test_run_folder_holds_cell_protocol_identity_and_seed(mnist):
    folder = changed(mnist, runs="/some/runs", seed=3).run_dir
    identity = mnist.identity()
    assert len(identity) == 8
    assert folder == Path("/some/runs/mnist-cnn-spinal", f"heldout-{identity}", "s3")
    assert changed(mnist, seed=4).run_dir.name == "s4"
    assert changed(mnist, seed=4).run_dir.parent == mnist.run_dir.parent


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("dataset=fashion_mnist", "model=vgg5", "head=spinal", "protocol=paper"),
        ("dataset=emnist_letters_62", "head=spinal"),
    ],
    ids=str,
)
def test_round_trip_through_plain_containers_json_and_yaml(overrides):
    config = compose(overrides)
    plain = config.to_dict()
    for again in (
        validate(plain),
        validate(json.loads(json.dumps(plain))),
        validate(OmegaConf.create(OmegaConf.to_yaml(OmegaConf.create(plain)))),
    ):
        assert again == config
        assert again.identity() == config.identity()


def test_schema_keys_are_those_of_the_yaml_and_more():
    raw = compose_raw(["dataset=emnist_letters_62"])
    for group in ("dataset", "recipe", "protocol", "runtime", "data"):
        keys = {f"{group}.{key}" for key in raw[group]} - {"dataset.about"}  # for the catalog
        assert keys <= schema_keys()
    assert {"head", "seed", "runs", "dataset.num_outputs"} <= schema_keys()
    assert "head.options" not in schema_keys()  # options stand beside the name


# Reduced budgets


@pytest.mark.parametrize(
    "settings, reasons",
    [
        ({}, []),
        ({"recipe__epochs": 20}, []),
        ({"recipe__epochs": 1}, ["1 of 8 epochs"]),
        ({"data__limit": 10}, ["at most 10 images a split"]),
        ({"recipe__epochs": 7, "data__limit": 9}, ["7 of 8 epochs", "at most 9 images a split"]),
        ({"recipe__epochs": 1, "recipe__published_epochs": None}, []),
    ],
)
def test_reduced_budget_says_why(mnist, settings, reasons):
    assert changed(mnist, **settings).reduced_budget == reasons


def test_a_new_setting_changes_no_identity_until_it_is_set(mnist):
    newer = dataclasses.make_dataclass(
        "N", [("warmup", int, 0)], bases=(RecipeConfig,), frozen=True
    )
    with_default = dataclasses.replace(mnist, recipe=newer(**vars(mnist.recipe)))
    assert with_default.identity() == mnist.identity()
    recipe = dataclasses.replace(with_default.recipe, warmup=1)
    assert dataclasses.replace(mnist, recipe=recipe).identity() != mnist.identity()
