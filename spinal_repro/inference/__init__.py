"""Inference with a trained model from its run folder, with the preprocessing of the run."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from spinal_repro.config.schema import Config
from spinal_repro.data.catalog import PARTS
from spinal_repro.data.containers import feature_values, load_new_rows, read_unlabelled
from spinal_repro.data.folder import find_parts, is_own, load_new_images
from spinal_repro.data.image_files import OWN_SUFFIXES, image_files
from spinal_repro.data.loader import Batches
from spinal_repro.data.photos import Row, read_image
from spinal_repro.data.preprocessing import batches_of, split_dataset
from spinal_repro.data.sources import Dataset, load_dataset
from spinal_repro.data.splits import Split
from spinal_repro.errors import UserError
from spinal_repro.io import read_yaml
from spinal_repro.models.classifier import build_model
from spinal_repro.models.pretrained import load_strict, read_tensors
from spinal_repro.records.record import Record, class_names, read_record, stored_config
from spinal_repro.records.store import RECORD
from spinal_repro.training import evaluation
from spinal_repro.training.device import (
    autocast,
    backend_settings,
    keep_freed_memory,
    resolve_device,
)

BATCH = 64
Found = tuple[Dataset, Split, bool]  # see `find_split`


@dataclass(frozen=True)
class Trained:
    """A finished run: the model with the selected weights, in evaluation mode, on ``device``.

    ``classes`` has a name for each output; ``mean`` and ``std`` normalise pixels in [0, 1];
    ``flip``: probabilities are the mean over an image and its horizontal mirror image.
    """

    folder: Path
    config: Config
    record: Record
    model: nn.Module
    classes: Sequence[str]
    mean: Sequence[float]
    std: Sequence[float]
    device: torch.device
    flip: bool = False


def load_run(folder: Path, device: str = "auto", flip: bool = False) -> Trained:
    """Load a finished run from its ``config.yaml``, ``record.json`` and ``best.safetensors``."""
    path = folder / RECORD
    if not path.is_file():
        missing = f"there is no {RECORD}; list finished runs with: spinal status"
        raise UserError(f"{folder} is not the folder of a finished run: {missing}")
    record, path = read_record(path), folder / "config.yaml"
    try:
        config = stored_config(read_yaml(path))
    except UserError as error:
        raise UserError(f"{path} cannot be used: {error}") from error
    if config.identity() != record.identity:
        other = f"its identity is {config.identity()}, not {record.identity}"
        raise UserError(f"{path} is not the configuration of {folder / RECORD}: {other}")
    keep_freed_memory()
    place = resolve_device(device)
    weights = folder / "best.safetensors"
    model = build_trained(config, read_tensors(weights), str(weights)).to(place)
    names = class_names(record.data, config.dataset.outputs)
    mean, std = (record.data["normalisation"][key] for key in ("mean", "std"))
    return Trained(folder, config, record, model, names, mean, std, place, flip)


def build_trained(config: Config, weights: dict[str, Tensor], source: str) -> nn.Module:
    """Build the model of a run with its weights, in evaluation mode on the CPU."""
    parts, size = (config.dataset, config.model, config.head), config.input_size
    model = build_model(*parts, image_size=size, load_weights=False)
    load_strict(model, weights, source)
    return model.eval()


def find_images(paths: Sequence[Path]) -> list[Path | Row]:
    """List the image files among paths, below folders and in CSV, npz and Parquet files."""
    found: list[Path | Row] = []
    for path in paths:
        if not path.exists():
            raise UserError(f"there is no file or folder {path}")
        found += image_files(path) if path.is_dir() else read_unlabelled(path)
    if not found:
        raise UserError(f"no images ({', '.join(OWN_SUFFIXES)}) in {', '.join(map(str, paths))}")
    return found


def load_ensemble(
    folders: Sequence[Path], device: str = "auto", flip: bool = False
) -> list[Trained]:
    """Load finished runs of the same classes; see `load_run`."""
    first, *others = runs = [load_run(folder, device, flip) for folder in folders]
    for run in others:
        if run.classes != first.classes:
            theirs, known = (shorten(", ".join(of.classes), 200) for of in (run, first))
            other = f"{run.folder} has other classes ({theirs}) than {first.folder} ({known})"
            raise UserError(f"{other}; runs are averaged only if they have the same, in order")
    return runs


def predict(
    trained: Trained, paths: Sequence[Path | Row], *others: Trained
) -> Iterator[Tensor | str]:
    """Classify image files: like `compute_logits`, but mean probabilities of one or more runs."""
    for answers in zip(*(compute_logits(run, paths) for run in (trained, *others)), strict=True):
        logits = [answer for answer in answers if not isinstance(answer, str)]
        unread = next((answer for answer in answers if isinstance(answer, str)), None)
        yield unread or torch.stack(logits).softmax(dim=1).mean(dim=0)


def compute_logits(trained: Trained, paths: Sequence[Path | Row]) -> Iterator[Tensor | str]:
    """Yield for each image file, of any size, logits ``[C]`` or why it cannot be read."""
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(paths), BATCH):
            chunk = paths[start : start + BATCH]
            pixels = list(pool.map(lambda path: _read(trained, path), chunk))
            images = [image for image in pixels if not isinstance(image, str)]
            logits = iter(_logits(trained, images)) if images else iter(())
            for image in pixels:
                yield image if isinstance(image, str) else next(logits)


def read_logits(trained: Trained, paths: Sequence[Path | Row]) -> Tensor:
    """Compute the logits ``[N, C]`` of image files, which must all be readable."""
    found = []
    for path, logits in zip(paths, compute_logits(trained, paths), strict=True):
        if isinstance(logits, str):
            raise UserError(f"{path} cannot be read: {logits}")
        found.append(logits)
    return torch.stack(found)


def _read(trained: Trained, path: Path | Row) -> NDArray[Any] | str:
    config, features = trained.config, trained.record.data.get("features", [])
    if features or (isinstance(path, Row) and path.features):
        return feature_values(path, features)
    try:
        pixels = read_image(path, config.dataset.channels, config.preprocessing("eval"))
    except Exception as error:  # Pillow raises many types for damaged files
        return str(error) or type(error).__name__
    return pixels.transpose(0, 2, 1) if _is_transposed(trained) else pixels


def _is_transposed(trained: Trained) -> bool:
    """Whether the model knows images transposed, as EMNIST stores them; files are not (Q17)."""
    return trained.config.dataset.source == "emnist"


def normalise(trained: Trained, images: Sequence[NDArray[Any]]) -> Tensor:
    """Convert images ``[C, H, W]`` to the model's input ``[N, C, H, W]``, on its device."""
    device = trained.device
    mean, std = (torch.tensor(c, device=device).view(-1, 1, 1) for c in (trained.mean, trained.std))
    return (torch.from_numpy(np.stack(images)).to(device).float() / 255 - mean) / std


def _logits(trained: Trained, images: Sequence[NDArray[Any]]) -> Tensor:
    """Logits ``[N, C]`` on the CPU, of images ``[C, H, W]``; their softmax is the probabilities."""
    device, runtime = trained.device, trained.config.runtime
    settings = backend_settings(device, runtime.precision, runtime.deterministic)
    with torch.inference_mode(), settings, autocast(device, runtime.precision)():
        batch = normalise(trained, images)
        logits: Tensor = trained.model(batch).float()
        if trained.flip:
            mirrored = batch.flip(-2 if _is_transposed(trained) else -1)
            both = torch.stack([logits, trained.model(mirrored).float()]).softmax(dim=2)
            logits = both.mean(dim=0).log()
    return logits.cpu()


def find_split(trained: Trained, part: str, root: Path | None = None) -> Found:
    """Find the images of a part, which must have some: ``train``, ``val`` or ``test``.

    For a run on one's own images, these may also be others of the same classes: those of the part,
    or all in a file or a folder without parts. ``root`` is a folder of data sets or a file like
    that of the run; None for those of the run. Returns the data set, its split, and whether the
    hashes of both match the record.
    """
    config, found = trained.config, trained.config.dataset
    place, own, same = root or Path(config.data.root), is_own(found), False
    if root and found.file and (root.is_file() or found.source != "table"):
        place, found = Path(config.data.root), replace(found, file=str(root))
    try:
        dataset = load_dataset(found, place, test=config.data.test)
        split = split_dataset(dataset, config.protocol, config.data.limit)
        hashes = {"train_hash": dataset.train.hash, "test_hash": dataset.test.hash}
        same = (hashes | {"split_hash": split.hash}).items() <= trained.record.data.items()
    except UserError:
        if not own:
            raise
    if own and not same:  # all images of the part, or of the folder
        images: Any = None
        if found.file:
            images = load_new_rows(found, place, trained.classes, trained.record.data)
        else:
            images = load_new_images(found, place, part, trained.classes)
        dataset = Dataset(images, images, images, trained.classes)
        train, val, test = (np.arange(len(images) if p == part else 0) for p in PARTS)
        split = Split(train, val, test)
    if not len(getattr(split, part)):
        none_out = f"protocol {config.protocol.name} holds none out"
        why = "it was trained with data.test=false" if part == "test" else none_out
        raise UserError(f"this run has no {part} images: {why}")
    return dataset, split, same


def load_split(trained: Trained, part: str, root: Path | None = None) -> tuple[Batches, bool]:
    """Load the images of one split as in the run's evaluation; see `find_split`."""
    found = find_split(trained, part, root)
    return prepare_split(trained, found, part, root), found[2]


def prepare_split(trained: Trained, found: Found, part: str, root: Path | None) -> Batches:
    """Prepare the images that `find_split` found."""
    (dataset, split, same), config = found, trained.config
    place = Path(config.dataset.file or config.data.root).resolve()
    changed = not same and is_own(config.dataset) and (root or place).resolve() == place
    own_file = config.dataset.file
    if changed and (own_file or list(find_parts(config.dataset, place, part)) == ["train"]):
        raise UserError(
            f"the images in {place} have changed since the run, which trained on some of them; "
            f"give labelled images that it has not seen: --root {'FILE' if own_file else 'FOLDER'}"
        )
    # caches are in the folder of runs: here, not `config.runs` of another machine
    folder = trained.folder.resolve()
    whole = folder.parts[-3:] == config.run_dir.parts[-3:]  # else the run folder was moved alone
    runs = folder.parents[2] if whole else folder
    options: Any = {"mean": trained.mean, "std": trained.std, "device": trained.device}
    return batches_of(config, dataset, split, part, runs=runs, **options)


def evaluate(trained: Trained, batches: Batches) -> evaluation.Evaluation:
    """Evaluate the model on a part, as the run did, and keep the probabilities."""
    runtime = trained.config.runtime
    with backend_settings(trained.device, runtime.precision, runtime.deterministic):
        amp = autocast(trained.device, runtime.precision)
        return evaluation.evaluate(trained.model, batches, amp, keep=True)
