"""The cells: the published table and they say the same, and every one composes and can be built."""

import csv
import dataclasses
import functools
import itertools
import json
from collections import Counter
from pathlib import Path

import pytest
import torch

from spinal_repro.config.compose import compose, config_dir, validate
from spinal_repro.config.schema import Config
from spinal_repro.data.augment import build_augmentations
from spinal_repro.data.sources import Dataset, ImageSet
from spinal_repro.errors import UserError
from spinal_repro.models.classifier import build_model
from spinal_repro.models.heads import HEADS
from spinal_repro.paper import cells as paper
from spinal_repro.paper.cells import TABLES, Cell, Published, curve, load_cells
from spinal_repro.paper.sizes import count_cells
from spinal_repro.training import setup as builder
from spinal_repro.training.engine import train_one_epoch, training_loss
from spinal_repro.training.optim import LR_RULES

pytestmark = pytest.mark.xdist_group("paper")  # every cell is composed once
PUBLISHED_CSV = Path(__file__).parents[1] / "published.csv"
CELLS = {cell.name: cell for cell in load_cells()}
# Names that the published table has in more than one spelling.
SAME = {
    "Fruits 360": "Fruits-360", "225 Bird Species": "Bird-225", "Oxford 102": "Oxford 102 Flowers",
    "10 Monkey": "10 Monkey Species", "EMNIST (Balanced)": "EMNIST-Balanced",
    "EMNIST (Letters)": "EMNIST-Letters", "EMNIST (Digits)": "EMNIST-Digits",
    "ViT": "ViT-L/16", '"Vanilla FC layer only"': "none",
    "pre-trained wide-resnet-101": "Wide-ResNet-101-2",
}  # fmt: skip
FEATURES = {
    "cnn": 320, "vgg5": 256, "flatten": 784, "cifar_cnn": 4096, "densenet": 342,
    "resnet18_thin": 256, "resnet34_thin": 256, "torchvision.vgg19_bn": 25088, "vgg19_bn": 512,
    "torchvision.alexnet": 9216, "timm.vit_large_patch16_224": 1024,
    "timm.tf_efficientnet_lite0": 1280,
}  # fmt: skip
OTHERS_FEATURES = 2048  # the residual and Inception networks


@functools.cache
def config_of(name: str) -> Config:
    return validate(CELLS[name].config)


def elsewhere(row: dict[str, str]) -> str | None:
    """Why a row of the published table is no cell; None if it is one."""
    if row["metric"] == "direction":
        return "a claim in words"
    if row["metric"] in ("parameters", "combinations won") or row["metric"].startswith("fewer "):
        return "a claim about sizes or counts"
    if row["metric"] == "layer_width / epochs in script":
        return "the setting of a cell, not a result"
    if row["metric"] == "rank on leaderboard":
        return "a rank, not an accuracy"
    if row["backbone"] in ("all", "all other torchvision backbones"):
        return "many rows in one, without a number"
    return None


def csv_rows() -> list[dict[str, str]]:
    with PUBLISHED_CSV.open(newline="") as file:
        return list(csv.DictReader(file))


def key(dataset, backbone, spinal, metric, value, source, confidence):
    names = SAME.get(dataset, dataset), SAME.get(backbone, backbone)
    number = None if value in ("", None) else round(float(value), 4)
    return (*names, spinal, metric, number, source.strip(), confidence)


def key_of_row(row: dict[str, str]):
    value = row["value"]
    if row["metric"] == "test accuracy":  # a share
        value = str(100 * float(value))
    spinal = "Spinal" in row["head"].partition(" (file")[0]
    parts = (row[k] for k in ("dataset", "backbone"))
    return key(*parts, spinal, row["metric"], value, row["source"], row["confidence"])


def key_of_entry(cell: Cell, entry: Published, backbone: str, spinal: bool):
    return key(
        cell.dataset, backbone, spinal, entry.metric, entry.value, entry.source, entry.confidence
    )


def test_every_published_row_is_in_one_cell_and_nothing_else_is():
    rows = Counter(key_of_row(row) for row in csv_rows() if elsewhere(row) is None)
    entries = Counter()
    for cell in CELLS.values():
        spinal = cell.head.startswith(("Spinal", "Progressive"))
        if cell.variant_of is None and cell.table != "curve":
            for entry in cell.published:
                entries[key_of_entry(cell, entry, cell.backbone, spinal)] += 1
        if cell.reference is not None:
            entries[key_of_entry(cell, cell.reference, "literature", False)] += 1
    assert not rows - entries, f"rows without a cell: {rows - entries}"
    assert not entries - rows, f"entries without a row: {entries - rows}"


def test_rows_that_are_no_cell_are_few_and_have_a_reason():
    reasons = Counter(elsewhere(row) for row in csv_rows())
    assert len(csv_rows()) == sum(reasons.values()) == 244
    assert len(reasons) == 6  # five reasons, and none


def test_every_table_has_cells_and_names_are_places():
    assert {cell.table for cell in CELLS.values()} == set(TABLES)
    assert list(dict.fromkeys(cell.table for cell in CELLS.values())) == list(TABLES)
    for name, cell in CELLS.items():
        assert (config_dir() / "paper" / f"{name}.yaml").is_file()
        assert cell.title and (cell.published or cell.table == "controls")
        ways = [cell.config is not None, cell.regression is not None, bool(cell.best_of)]
        assert sum(ways) + (cell.not_runnable is not None) == 1, name


def test_cells_name_cells():
    for cell in CELLS.values():
        for other in filter(None, (cell.counterpart, cell.variant_of, *cell.best_of)):
            assert other in CELLS, f"{cell.name} names {other}"
        if cell.variant_of is not None and any(e.value is not None for e in cell.published):
            assert cell.published == CELLS[cell.variant_of].published


def test_a_counterpart_differs_in_the_head_alone():
    for cell in CELLS.values():
        if cell.counterpart is None or cell.config is None:
            continue
        other = CELLS[cell.counterpart].config
        assert other is not None and other["head"]["name"] == "fc"
        recipe, its = dict(cell.config["recipe"]), dict(other["recipe"])
        if cell.name.endswith("_committed"):  # the scripts' rules differ with the head (Q8)
            assert recipe.pop("lr_rule") != its.pop("lr_rule")
            recipe["name"] = its["name"] = ""
        assert recipe == its, cell.name
        assert cell.config["dataset"] == other["dataset"], cell.name
        if cell.published:  # what we add runs under the protocol that selects on no test set
            assert cell.config["protocol"] == other["protocol"], cell.name
        else:
            assert cell.table == "controls" and cell.protocol == "heldout", cell.name
        model, its_model = dict(cell.config["model"]), dict(other["model"])
        model.pop("pool", None), its_model.pop("pool", None)  # comes with the head (Q12)
        assert model == its_model, cell.name


def test_published_epochs_are_those_of_the_recipe():
    for cell in CELLS.values():
        if cell.config:
            recipe = cell.config["recipe"]
            wanted = {entry.epochs for entry in cell.published[:1]}
            assert wanted <= {None, recipe["epochs"]}, cell.name
            assert recipe["published_epochs"] in (None, recipe["epochs"]), cell.name
            assert cell.config["cell"] == cell.name


def test_the_protocol_is_that_of_the_published_selection():
    for cell in CELLS.values():
        if cell.config is not None and cell.published:
            at_validation = cell.published[0].selection == "test at best validation"
            if cell.published[0].selection != "unknown":
                assert cell.protocol == ("heldout" if at_validation else "paper"), cell.name


def test_every_cell_sees_the_same_size_in_training_and_evaluation():
    for cell in CELLS.values():
        if cell.config is None:
            continue
        config = config_of(cell.name)
        size = config.preprocessing("train").size
        for augmentation in build_augmentations(config.recipe.augment):
            size = augmentation.size_after(size)
        assert size == config.input_size, cell.name
        rule = dict(config.recipe.lr_rule)
        LR_RULES.build(rule.pop("name"), rule)
        HEADS.check(config.head.name, config.head.options)


def features_of(config) -> int:
    pooled = {2: 4}.get(config.model.options.get("pool"), 1)  # quadrants (Q12)
    return pooled * FEATURES.get(config.model.label, OTHERS_FEATURES)


def head_parameters(config) -> int:
    """Parameters of a head, by the closed forms of its definition; batch norm has two a unit."""
    head, classes, features = config.head.options, config.dataset.outputs, features_of(config)
    if config.head.name == "fc":
        widths = [features, *head["hidden"], classes]
        weights = sum(a * b + b for a, b in itertools.pairwise(widths))
        return weights + 2 * head["norm"] * sum(head["hidden"])
    w, n = head["width"], head["layers"]
    if config.head.name == "progressive":
        inside = n * features * w + n * (n - 1) // 2 * w * w + n * w
        return inside + classes * (features + n * w) + classes + 2 * head["norm"] * n * w
    part = features // head["splits"]
    later = 1 if head["shared"] else n - 1
    norms = 2 * head["norm"] * (1 + later) * w
    return part * w + w + later * ((part + w) * w + w) + n * w * classes + classes + norms


def test_every_head_has_the_parameters_of_its_closed_form():
    for cell in CELLS.values():
        if cell.config:
            config = config_of(cell.name)
            outputs, options = config.dataset.outputs, config.head.options
            with torch.device("meta"):
                head = HEADS.build(config.head.name, options, features_of(config), outputs)
            found = sum(parameter.numel() for parameter in head.parameters())
            assert found == head_parameters(config), cell.name


def backbones() -> list[str]:
    """One cell for each backbone and size of its features."""
    first = {}
    for cell in CELLS.values():
        if cell.config:
            model = {k: v for k, v in cell.config["model"].items() if k != "pretrained"}
            first.setdefault(json.dumps(model), cell.name)
    return list(first.values())


def without_gradient(model, images, outputs):
    """Parameters that a step of training leaves without a gradient, after taking it."""
    optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9)
    labels = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    logits, loss = training_loss(model.train()(images), labels, 0.0)
    assert logits.shape == (len(images), outputs)
    loss.backward()
    optimizer.step()
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    assert trained
    return [name for name, parameter in trained if parameter.grad is None]


def test_every_backbone_takes_a_step():
    """On the meta device, in the shapes of its cell: features for the head, a gradient for all."""
    for name in backbones():
        config = config_of(name)
        bare = {k: v for k, v in config.model.options.items() if k != "pretrained"}
        component = dataclasses.replace(config.model, options=bare)
        side, channels = config.input_size, config.dataset.channels
        with torch.device("meta"):
            model = build_model(config.dataset, component, config.head, image_size=side)
            images = torch.zeros(2, channels, side, side)
            assert without_gradient(model, images, config.dataset.outputs) == [], name
        assert model.backbone.num_features == features_of(config), name


def test_every_head_takes_a_step():
    """On the features of its cell's backbone; with the test above, every cell does."""
    for name, cell in CELLS.items():
        if cell.config is None:
            continue
        config = config_of(cell.name)
        features, outputs = features_of(config), config.dataset.outputs
        with torch.device("meta"):
            head = HEADS.build(config.head.name, config.head.options, features, outputs)
            assert without_gradient(head, torch.zeros(2, features), outputs) == [], name


COUNTED = {  # parameters and multiplications of heads, counted from the original's own classes
    "mnist/cnn_fc": (16_560, 16_500),
    "mnist/cnn_spinal8": (8_538, 8_480),
    "progressive/mnist_flatten": (514_218, 512_672),
    "progressive/kmnist_vgg5": (95_498, 95_232),
    "progressive/qmnist_vgg5": (96_010, 95_232),
    "progressive/caltech101_wide_resnet101_2": (2_166_949, 2_166_048),
    "progressive/fruits360_wide_resnet101_2": (15_489_155, 15_484_928),
    "shared/stl10_wide_resnet101_2_8x20": (12_290, 45_360),
}


def test_heads_are_as_large_as_the_original_s():
    counts, refused = count_cells(CELLS[name] for name in COUNTED)
    assert not refused
    found = {name: (c["head_parameters"], c["head_multiplications"]) for name, c in counts.items()}
    assert found == COUNTED
    for name, parameters in (
        ("shared/stl10_vit_8x10", 3_490),
        ("shared/stl10_vit_8x100", 43_810),
        ("notebooks/fashion_mnist_wide_resnet101_2_spinal1024_linear", 7_385_098),
    ):
        assert head_parameters(config_of(name)) == parameters


WIDTHS = {  # of the Wide-ResNet-101-2 rows, and whether the class has dropout and batch norm
    "cifar10": (20, True), "cifar100": (512, True), "caltech101": (1024, False),
    "bird225": (1024, True), "stanford_cars": (196, False), "svhn": (20, False),
    "cinic10": (20, False), "stl10": (512, True), "flowers102": (102, False),
    "fruits360": (131, False),
}  # fmt: skip


@pytest.mark.parametrize("dataset", WIDTHS)
def test_transferred_heads_have_the_widths_of_their_scripts(dataset):
    config = CELLS[f"transfer/{dataset}_wide_resnet101_2_spinal"].config
    head, (width, large) = config["head"], WIDTHS[dataset]
    assert (head["width"], head["layers"], head["norm"]) == (width, 4, large)
    assert head["dropout"] == (0.5 if large else 0.0)
    assert config["model"]["pretrained"] == "IMAGENET1K_V1"
    assert (config["recipe"]["momentum"], config["recipe"]["lr_rule"]["step"]) == (0.9, 7)


@pytest.mark.parametrize(
    ("dataset", "width"), [("mnist", 30), ("kmnist", 50), ("qmnist", 50), ("fashion_mnist", 300)]
)
def test_arch2_has_the_widths_of_its_scripts(dataset, width):
    found = compose([f"dataset={dataset}", "model=arch2", "head=arch2"])
    assert found.head.options["width"] == width


def fake(config, root, download, test) -> Dataset:
    """A few random images of a data set's shape, with labels of all its outputs."""
    generator = torch.Generator().manual_seed(0)
    shape = (16, config.channels, config.image_size, config.image_size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    labels = torch.arange(16) // 8
    return Dataset(ImageSet(images, labels), ImageSet(images.flip(0), labels))


SMALL = (
    "mnist/cnn_fc", "mnist/qmnist_cnn_spinal10", "mnist/vgg5_fc",
    "mnist/emnist_balanced_vgg5_spinal", "mnist/emnist_letters_vgg5_spinal_62",
    "mnist/fashion_mnist_vgg5_spinal",
    "cifar10/cnn_spinal_committed", "curve/mnist_cnn_spinal8", "progressive/mnist_flatten",
    "progressive/qmnist_vgg5", "progressive/emnist_letters_vgg5",
)  # fmt: skip


@pytest.mark.parametrize("name", SMALL)
def test_a_small_cell_trains(name, monkeypatch):
    monkeypatch.setattr(builder, "load_dataset", fake)
    config = config_of(name)
    recipe = dataclasses.replace(config.recipe, batch_size=8)
    config = dataclasses.replace(config, recipe=recipe)
    losses, *_ = train_one_epoch(builder.build_run(config, torch.device("cpu")).run, 1)
    assert all(loss > 0 for loss in losses)


def test_the_user_overrides_the_protocol_of_a_cell():
    config = compose(["paper=mnist/vgg5_spinal", "protocol=heldout", "head.width=64"])
    assert (config.protocol.name, config.cell) == ("heldout", "mnist/vgg5_spinal")
    assert config.head.options["width"] == 64


def test_repaired_and_faithful_readings_differ_where_they_say():
    def options(name, *path):
        found = CELLS[name].config
        for step in path:
            found = found[step]
        return found

    base = "mnist/emnist_letters_vgg5_spinal"
    assert options(base, "dataset", "num_outputs") is None
    assert options(f"{base}_62", "dataset", "num_outputs") == 62  # Q15
    base = "notebooks/fashion_mnist_wide_resnet101_2_spinal1024"
    assert options(base, "head", "activation") == "relu"
    assert options(f"{base}_linear", "head", "activation") == "identity"  # Q14
    base = "notebooks/cifar100_wide_resnet101_2_spinal200"
    assert not options(base, "recipe", "best_of_last_stage")
    assert options(f"{base}_last_stage", "recipe", "best_of_last_stage")  # Q21
    assert options("cifar10/cnn_fc", "recipe", "lr_rule") == options(
        "cifar10/cnn_spinal", "recipe", "lr_rule"
    )  # Q8
    assert options("notebooks/flowers102_wide_resnet101_2_fc", "head", "name") == "fc"  # Q5


def test_patterns_tables_and_near_names():
    assert [c.name for c in load_cells("curve")] == [
        "curve/mnist_cnn_fc",
        "curve/mnist_cnn_spinal8",
    ]
    names = ["mnist/cnn_fc", "mnist/cnn_spinal8", "mnist/cnn_spinal10"]
    assert load_cells("mnist/cnn_*") == [CELLS[name] for name in names]
    with pytest.raises(UserError, match="did you mean 'mnist/vgg5_spinal'"):
        load_cells("mnist/vgg_spinal")
    with pytest.raises(UserError, match=r"no cell matches 'mnist/resnet\*'; a name is e.g. "):
        load_cells("mnist/resnet*")


def test_the_curve_ends_where_its_cells_do():
    rows = curve()
    assert {row["epoch"] for row in rows} == set(range(1, 21))
    for name in ("curve/mnist_cnn_fc", "curve/mnist_cnn_spinal8"):
        (last,) = [
            row["value"]
            for row in rows
            if (row["cell"], row["epoch"], row["quantity"]) == (name, 20, "mean accuracy %")
        ]
        assert last == CELLS[name].published[0].value


def test_listing_cells_composes_none(monkeypatch):
    def refuse(name):
        raise AssertionError(f"{name} was composed")

    paper._read.cache_clear()
    monkeypatch.setattr(paper, "_compose", refuse)
    cells = load_cells()
    assert len({hash(cell) for cell in cells}) == len(cells) and "FC 320-50-10" in repr(cells)
    paper._read.cache_clear()


def test_a_composed_cell_is_a_configuration_again():
    """The epochs of its stages are text in JSON."""
    config = config_of("transfer/cinic10_wide_resnet101_2_spinal")
    assert config.recipe.stages == {21: 0.001}
    assert config == compose([f"paper={config.cell}"]).portable()


def test_broken_cells_are_refused(tmp_path):
    def written(**changes):
        node = {
            "name": "mnist/x", "title": "t", "dataset": "d", "backbone": "b", "head": "h",
            "published": [],
        } | changes  # fmt: skip
        (tmp_path / "mnist").mkdir(exist_ok=True)
        (tmp_path / "mnist" / "x.yaml").write_text(json.dumps({"paper": node}))
        paper._read.cache_clear()
        return load_cells("*", tmp_path)

    assert written()[0].config is None
    for changes, message in (
        ({"titel": "t"}, "there is no key of the cell mnist/x: 'titel'; did you mean 'title'"),
        ({"name": "mnist/y"}, "the cell mnist/x calls itself mnist/y"),
        ({"published": [{"metric": "m"}]}, "mnist/x.yaml does not describe a cell"),
    ):
        with pytest.raises(UserError, match=message):
            written(**changes)
    paper._read.cache_clear()
