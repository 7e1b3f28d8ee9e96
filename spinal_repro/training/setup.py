"""Builds the parts of a run: model, optimizer, data, learning-rate rule."""

import copy
import dataclasses
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from spinal_repro.config.schema import Config, RecipeConfig
from spinal_repro.data import preprocessing
from spinal_repro.data.augment import build_augmentations
from spinal_repro.data.features import cached, fingerprint
from spinal_repro.data.folder import with_counts
from spinal_repro.data.loader import Batches, training_weights
from spinal_repro.data.photos import save_digests
from spinal_repro.data.sources import Dataset, load_dataset
from spinal_repro.data.splits import Split
from spinal_repro.errors import UserError
from spinal_repro.models.classifier import Classifier, build_blank, build_model
from spinal_repro.models.counting import count
from spinal_repro.models.pretrained import RUN_WEIGHTS
from spinal_repro.records.record import Record, read_record
from spinal_repro.records.store import RECORD
from spinal_repro.training.device import autocast, compile_model
from spinal_repro.training.engine import Run, State, Steps
from spinal_repro.training.graph import GraphedSteps
from spinal_repro.training.optim import build_optimizer, build_rule
from spinal_repro.training.resolve import weights_file


@dataclass(frozen=True)
class Setup:
    """A run that is ready to train, with the other data for its record."""

    run: Run
    test: Batches | None
    counts: dict[str, int]  # see `count`
    data: dict[str, Any]  # see `describe_data`
    left_out: Counter[str]  # files that are not images, by suffix

    @property
    def inputs(self) -> dict[str, str | None]:
        """Hashes of the inputs that must not change until a run is finished, by name."""
        weights = self.run.model.weights
        return {
            "training images": self.data["train_hash"],
            "test images": self.data["test_hash"],
            "the split": self.data["split_hash"],
            "pretrained weights": weights and weights.sha256,
        }


def _source_run(config: Config) -> Record | None:
    """Read the record of the run whose weights ``model.pretrained`` names; None if it is no run."""
    path, model = weights_file(config), config.model
    if path is None or path.name != RUN_WEIGHTS or not path.with_name(RECORD).is_file():
        return None
    record = read_record(path.with_name(RECORD))
    if (name := record.config["model"]["name"]) != model.name:
        raise UserError(
            f"model.pretrained is a run of {name}; give one of {model.name} or model={name}"
        )
    return record


def check_parts(config: Config) -> None:
    """Build model, optimizer, learning-rate rule and augmentations on the meta device.

    Weights are not loaded: a wrong file or name of weights is found when the run starts. The
    user's own folder of images is read for its classes.
    """
    dataset, recipe = with_counts(config.dataset, Path(config.data.root))[0], config.recipe
    config = dataclasses.replace(config, dataset=dataset)
    model = build_blank(dataset, config.model, config.head, config.input_size)
    build_optimizer(recipe, model.parameters(), model.backbone.parameters())
    build_rule(recipe)
    build_augmentations(recipe.augment)
    _joins_last(config, recipe.batch_size, model)  # refuses a batch size of one


def _joins_last(config: Config, images: int, blank: Classifier | None = None) -> bool:
    """Whether the last batch has one image, on which batch norm cannot train; refuse it alone."""
    size, batch = config.input_size, config.recipe.batch_size
    if (images - 1) % batch:
        return False
    blank = blank or build_blank(config.dataset, config.model, config.head, size)
    device = next(blank.parameters()).device
    try:
        with torch.no_grad():
            blank.train()(torch.zeros(1, config.dataset.channels, size, size, device=device))
    except ValueError as error:
        if images > batch > 1:
            return True
        raise UserError(
            "batch norm cannot train on a single image: use more images, or recipe.batch_size=2"
        ) from error
    return False


def build_run(config: Config, device: torch.device, dataset: Dataset | None = None) -> Setup:
    """Build all parts of a resolved configuration, and read its images.

    Args:
        dataset: To be timed with, instead of reading images and pretrained weights.
    """
    recipe, data, runtime, size = config.recipe, config.data, config.runtime, config.input_size
    lr_rule, first_lr = build_rule(recipe)
    augmentations = build_augmentations(recipe.augment)
    weights = dataset is None
    if dataset is None:  # before the model, which takes longer
        dataset = load_dataset(config.dataset, data.root, data.download, data.test)
    source_run = _source_run(config)
    parts = config.dataset, config.model, config.head, config.seed, size
    model = build_model(*parts, data_root=data.root, load_weights=weights)
    split = preprocessing.split_dataset(dataset, config.protocol, data.limit)
    counts = count(model, config.dataset.channels, size)
    if dataset.features:
        constants = feature_scale(dataset, split)
    else:
        constants = normalisation(recipe, model.backbone, source_run)
    layout = torch.channels_last if runtime.channels_last else torch.preserve_format
    model.to(device=device, memory_format=layout)  # type: ignore[call-overload]
    optimizer = build_optimizer(recipe, model.parameters(), model.backbone.parameters())
    average = copy.deepcopy(model) if recipe.ema else None
    if runtime.compile:
        compile_model(model, device, graph=runtime.graph == "none")

    published = preprocessing.published_part(dataset, split, "train")
    of_train = training_weights(recipe, published, split.train)
    of_train["join_last"] = _joins_last(config, len(split.train))
    source, select_on = (config, dataset, split), config.protocol.select_on
    options: Any = {"runs": Path(config.runs), "device": device, **constants}
    of_train |= options
    test = preprocessing.batches_of(*source, "test", **options) if data.test else None
    select = preprocessing.batches_of(*source, "val", **options) if select_on == "val" else test
    assert select is not None  # `validate` refuses data.test=false if the test split selects
    run = Run(
        model=model,
        optimizer=optimizer,
        lr_rule=lr_rule,
        recipe=recipe,
        train=preprocessing.batches_of(*source, "train", training=True, **of_train),
        select=select,
        select_on=select_on,
        select_metric=config.protocol.select_metric,
        watch=test if config.protocol.watch_test else None,
        augmentations=augmentations,
        autocast=autocast(device, runtime.precision),
        seed=config.seed,
        state=State(first_lr),
        average=average,
        mixers=_mixers(recipe, config.dataset.outputs),
        steps=GraphedSteps() if runtime.graph == "auto" else Steps(),
    )
    _check_sizes(config, run)
    if recipe.cache_features and weights:
        test = _cache_features(config, run, test, dataset, split, constants)
    _check_metric(run, config.dataset.outputs)
    about = preprocessing.describe_data(config.dataset, dataset, split)
    save_digests(Path(config.runs) / preprocessing.CACHE)
    about["normalisation"] = constants
    return Setup(run, test, counts, about, dataset.left_out)


def _cache_features(
    config: Config, run: Run, test: Batches | None, dataset: Dataset, split: Split, constants: Any
) -> Batches | None:
    """Replace the images of a run by features of its frozen backbone; return the test part."""
    backbone, device = run.model.backbone, run.train.device.type
    made: dict[int, Batches] = {}

    def features(batches: Batches, part: str) -> Batches:
        if id(batches) not in made:
            digests = preprocessing.published_part(dataset, split, part).digests
            chosen = [digests[index].hex() for index in getattr(split, part)]
            size = config.preprocessing("train" if part == "train" else "eval")
            name = fingerprint(chosen, size, constants, device, config.runtime.precision, backbone)
            path = Path(config.runs) / preprocessing.CACHE / f"features-{name}.safetensors"
            made[id(batches)] = cached(batches, backbone, run.autocast, path)
        return made[id(batches)]

    run.train, run.select = features(run.train, "train"), features(run.select, run.select_on)
    run.watch = run.watch and features(run.watch, "test")
    for model in (run.model, run.evaluated):
        model.of_features = True
    return test and features(test, "test")


def _mixers(recipe: RecipeConfig, outputs: int) -> list[Any]:
    if not (recipe.mixup or recipe.cutmix):
        return []
    from torchvision.transforms import v2  # slow to import

    alphas = {v2.MixUp: recipe.mixup, v2.CutMix: recipe.cutmix}
    return [kind(alpha=alpha, num_classes=outputs) for kind, alpha in alphas.items() if alpha]


def _check_sizes(config: Config, run: Run) -> None:
    recipe, size = config.recipe, run.train.size
    for augmentation in run.augmentations:
        size = augmentation.size_after(size)
    if size != config.input_size:
        raise UserError(
            f"recipe {recipe.name} trains on images of {size} px and evaluates on images of "
            f"{config.input_size} px; change recipe.prepare or recipe.augment"
        )


def _check_metric(run: Run, outputs: int) -> None:
    """Refuse a metric that the labels of the selecting split do not define."""
    metric, classes = run.select_metric, len(run.select.labels.unique())
    needed = {"auc": run.select.outputs or outputs, "kappa": 2}.get(metric, 1)
    if classes < needed:
        raise UserError(
            f"protocol.select_metric={metric} needs {needed} classes in the {run.select_on} part, "
            f"which has {classes}; use protocol.select_metric=macro_f1, or more images there"
        )


def normalisation(
    recipe: RecipeConfig, backbone: torch.nn.Module, source_run: Record | None = None
) -> dict[str, list[float]]:
    """Return ``mean`` and ``std`` of the recipe, else of the backbone's weights (Q18).

    Args:
        source_run: The run that the weights are from; None if they are from no run.
    """
    if recipe.mean is None and source_run is not None:
        return {key: list(source_run.data["normalisation"][key]) for key in ("mean", "std")}
    source: Any = backbone if recipe.mean is None else recipe
    if not hasattr(source, "mean"):
        raise UserError("this model has no normalisation: set recipe.mean=[0.5] recipe.std=[0.5]")
    return {"mean": list(source.mean), "std": list(source.std)}


def feature_scale(dataset: Dataset, split: Split) -> dict[str, list[float]]:
    """Return mean and SD of each feature over the training part, as for pixels in [0, 1]."""
    images: Any = preprocessing.published_part(dataset, split, "train")
    values = images.images[split.train].double().flatten(1)
    std = values.std(0, correction=0)
    std[std == 0] = 1  # a constant column stays 0
    return {"mean": (values.mean(0) / 255).tolist(), "std": (std / 255).tolist()}
