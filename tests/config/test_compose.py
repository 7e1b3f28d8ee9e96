"""Composition: every choice, the published pairs, names without a file, YAML of the user's own."""

from itertools import product
from pathlib import Path

import pytest
from helpers.composing import composed

from spinal_repro.config.compose import GROUPS, choices, compose
from spinal_repro.config.schema import Config
from spinal_repro.errors import UserError
from spinal_repro.paper.sizes import count_model

CHOICES = {group: choices(group) for group in GROUPS}


def cell(dataset: str = "mnist", model: str = "cnn", head: str = "fc") -> Config:
    return composed(f"dataset={dataset}", f"model={model}", f"head={head}")


def test_files_of_every_specialisation_name_choices_that_exist():
    """A file whose name fits no pair would silently never be used."""
    pairs = {f"{m}_{h}" for m, h in product(CHOICES["model"], CHOICES["head"])}
    recipes = {f"{d}_{r}" for d, r in product(CHOICES["dataset"], CHOICES["recipe"])}
    heads = {f"{d}_{h}" for d, h in product(CHOICES["dataset"], CHOICES["head"])}
    for folder, known in (("head/for", pairs), ("head/on", heads), ("recipe/on", recipes)):
        assert choices(folder) and set(choices(folder)) <= known


def test_the_head_of_the_small_cnn_has_dropout_and_its_spinal_head_has_none():
    fc, spinal = cell(), cell(head="spinal")
    assert fc.head.options["hidden"] == [50] and fc.head.options["dropout"] == [0.0, 0.5]
    wanted = {"width": 8, "layers": 6, "splits": 2, "dropout": 0.0, "norm": False, "shared": False}
    assert spinal.head.options == {**wanted, "activation": "relu"}


def test_the_order_of_a_spinal_head_is_an_option_that_changes_no_identity_until_it_is_set():
    words = ["dataset=mnist", "head=spinal"]
    plain, empty, reused = (
        composed(*words, *more) for more in ([], ["head.order=[]"], ["head.order=[1,2,3,4,3,4]"])
    )
    assert "order" not in plain.head.options and plain.identity() == empty.identity()
    assert reused.head.options["order"] == [1, 2, 3, 4, 3, 4]
    assert reused.identity() != plain.identity()
    cell = composed("paper=transfer/hymenoptera_resnet18_spinal")
    assert cell.head.options["order"] == reused.head.options["order"]


def test_a_recipe_of_the_command_line_wins_over_the_models_own():
    config = composed("dataset=fashion_mnist", "model=vgg5", "recipe=cnn")
    assert config.recipe == cell().recipe and config.head == cell(model="vgg5").head


def test_the_original_reading_of_the_letters():
    letters, original = cell("emnist_letters"), cell("emnist_letters_62")
    assert (letters.dataset.outputs, letters.dataset.label_offset) == (26, -1)
    assert (original.dataset.outputs, original.dataset.label_offset) == (62, 0)
    assert original.dataset.options == letters.dataset.options == {"split": "letters"}
    for group in ("recipe/on", "head/on"):  # what is made for the letters is kept for both
        names = [name for name in choices(group) if name.startswith("emnist_letters_")]
        ours = {name.removeprefix("emnist_letters_62_") for name in names if "_62_" in name}
        theirs = {name.removeprefix("emnist_letters_") for name in names if "_62_" not in name}
        assert ours == theirs and ours, group


@pytest.mark.parametrize(
    ("dataset", "parameters", "batch"), [("kmnist", 95_498, 64), ("emnist_letters_62", 277_566, 50)]
)
def test_progressive_heads_and_batches_are_those_of_the_data_set(dataset, parameters, batch):
    """Recipes 7.2."""
    words = f"dataset={dataset}", "model=vgg5", "head=progressive", "recipe=progressive"
    config = composed(*words)
    assert config.recipe.batch_size == batch
    assert count_model(config)["head_parameters"] == parameters


def test_the_order_of_overrides_does_not_matter():
    words = ["head.width=5", "head=spinal", "dataset=mnist", "model=vgg5"]
    one = compose(words)
    assert one == compose(words[::-1]) and one.head.options["width"] == 5


def test_folders_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("SPINAL_DATA", "/somewhere/data")
    monkeypatch.setenv("SPINAL_RUNS", "/somewhere/runs")
    config = compose()
    assert (config.data.root, config.runs) == ("/somewhere/data", "/somewhere/runs")


def test_any_network_of_a_library_is_a_model():
    for library, name in (("torchvision", "shufflenet_v2_x0_5"), ("timm", "resnet10t")):
        pytest.importorskip(library)
        config = composed("dataset=cifar10", f"model={name}")
        named = composed("dataset=cifar10", f"model={library}", f"model.name={name}", "recipe=sgd")
        assert config.model == named.model and config.recipe == named.recipe


@pytest.mark.parametrize(
    "override, named",
    [
        ("dataset.num_clases=1", "num_clases"),
        ("+recipe.epoch=1", "'epochs'"),
        ("++sede=1", "'seed'"),
        ("head=spinall", "spinall"),
        ("recipe.lr=abc", "recipe: lr: .*'abc'"),
        ("recipe.epochs=1.5", "recipe: epochs: .*'1.5'"),
        ("recipe.mean=0.5", "recipe: mean"),
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


def write_choice(folder: Path, name: str, text: str) -> None:
    path = folder / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_choices_of_ones_own_are_found_in_every_folder(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    write_choice(one, "dataset/mine", "defaults: [mnist, _self_]\nname: mine\ntest_size: 7\n")
    write_choice(other, "head/mine", "name: spinal\nwidth: 3\n")
    config = compose(["dataset=mine", "head=mine"], one, None, other)
    assert (config.dataset.name, config.dataset.test_size) == ("mine", 7)
    assert (config.dataset.source, config.head.options) == ("mnist", {"width": 3})


def test_a_model_of_ones_own_needs_no_recipe_and_may_choose_one(tmp_path):
    write_choice(tmp_path, "model/plain", "name: vgg5\n")
    write_choice(
        tmp_path, "model/mine", "defaults: [override /recipe@_global_.recipe: cnn]\nname: cnn\n"
    )
    assert compose(["model=plain"], tmp_path).recipe.name == "sgd"
    assert compose(["dataset=mnist", "model=mine"], tmp_path).recipe == cell().recipe


@pytest.mark.parametrize(
    "override", ["recipe.lr_rule.name=cosine", "recipe.lr_rule={min_lr: 0.0, name: cosine}"]
)
@pytest.mark.parametrize("recipe", ["sgd", "cnn", "vgg_bn"])
def test_cosine_does_not_keep_the_options_of_another_rule(recipe, override):
    chosen = ("model=flatten", f"recipe={recipe}", "recipe.mean=[0.5]", "recipe.std=[0.5]")
    rule = composed(*chosen, override).recipe.lr_rule
    assert rule == {"name": "cosine"} | ({"min_lr": 0.0} if "min_lr" in override else {})
