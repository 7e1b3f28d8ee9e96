"""Using a trained model from its run folder alone, with the transforms it was trained with."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from spinal_repro.config.preprocessing import refuse_constants
from spinal_repro.config.schema import Config
from spinal_repro.data.image_files import IMAGE_SUFFIXES, image_files
from spinal_repro.data.loader import Batches
from spinal_repro.data.photos import read_image
from spinal_repro.data.preprocessing import batches_of, split_dataset
from spinal_repro.data.sources import load_dataset
from spinal_repro.errors import UserError
from spinal_repro.io import read_yaml
from spinal_repro.models.classifier import build_model
from spinal_repro.models.pretrained import load_whole, read_tensors
from spinal_repro.records.record import refuse_other_shapes
from spinal_repro.records.store import RECORD, read_record, stored_config
from spinal_repro.training.device import (
    autocast,
    backend_settings,
    keep_freed_memory,
    resolve_device,
)
from spinal_repro.training.engine import Evaluation
from spinal_repro.training.engine import evaluate as run_over

BATCH = 64


@dataclass(frozen=True)
class Trained:
    """A finished run, ready to be used.

    Attributes:
        folder: The run folder.
        config: What was trained; data and runs lie where they lay then.
        record: The run's record.
        model: The selected weights, in evaluation mode, on ``device``.
        classes: A name for each output.
        mean: Normalisation for pixels in [0, 1].
        std: As mean.
        device: Where it computes.
    """

    folder: Path
    config: Config
    record: dict[str, Any]
    model: nn.Module
    classes: Sequence[str]
    mean: Sequence[float]
    std: Sequence[float]
    device: torch.device


def load_run(folder: Path, device: str = "auto") -> Trained:
    """Load a finished run.

    Args:
        folder: A run folder: with ``config.yaml``, ``record.json`` and ``best.safetensors``.
        device: Where to compute, as ``runtime.device``.

    Raises:
        UserError: where it is no folder of a finished run, or its files do not fit together.
    """
    if not (folder / RECORD).is_file():
        raise UserError(
            f"{folder} is no folder of a finished run (it has no {RECORD}); "
            f"`spinal status` lists those here"
        )
    record = read_record(folder / RECORD)
    refuse_other_shapes(record, str(folder / RECORD))
    config = _config(folder, record)
    keep_freed_memory()
    place = resolve_device(device)
    size = config.input_size
    model = build_model(
        config.dataset, config.model, config.head, image_size=size, load_weights=False
    )
    path = folder / "best.safetensors"
    load_whole(model, read_tensors(path), str(path))
    mean, std = _normalisation(record, config, folder)
    names = list((record.get("data") or {}).get("classes") or ())
    if len(names) > config.dataset.outputs:
        raise UserError(
            f"{folder / RECORD} names {len(names)} classes where the run's model has "
            f"{config.dataset.outputs} outputs"
        )
    numbers = [str(number) for number in range(len(names), config.dataset.outputs)]
    return Trained(
        folder, config, record, model.to(place).eval(), names + numbers, mean, std, place
    )


def _config(folder: Path, record: dict[str, Any]) -> Config:
    """The configuration in a run folder, which is that of its record."""
    path = folder / "config.yaml"
    try:
        config = stored_config(read_yaml(path))
    except UserError as error:
        raise UserError(f"{path} cannot be used: {error}") from error
    if config.identity() != record["identity"]:
        raise UserError(
            f"{path} is not the configuration of {folder / RECORD}: its identity is "
            f"{config.identity()}, not {record['identity']}"
        )
    return config


def _normalisation(
    record: dict[str, Any], config: Config, folder: Path
) -> tuple[list[float], list[float]]:
    """Mean and std that the run normalised with."""
    said = (record.get("data") or {}).get("normalisation")
    found = []
    for key in ("mean", "std"):
        values = said.get(key) if isinstance(said, dict) else None
        if (
            not isinstance(values, list)
            or len(values) not in (1, config.dataset.channels)
            or any(type(value) not in (int, float) for value in values)
        ):
            raise UserError(f"{folder / RECORD} does not say the {key} to normalise with")
        found.append(values)
    mean, std = found
    refuse_constants(std, str(folder / RECORD))
    return [float(value) for value in mean], [float(value) for value in std]


def find_images(paths: Sequence[Path]) -> list[Path]:
    """The image files among paths and below folders, in the order given.

    Raises:
        UserError: where a path does not exist, or there is no image at all.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += image_files(path)
        elif path.is_file():
            found.append(path)
        else:
            raise UserError(f"there is no file or folder {path}")
    if not found:
        raise UserError(f"no images ({', '.join(IMAGE_SUFFIXES)}) in {', '.join(map(str, paths))}")
    return found


def predict(trained: Trained, paths: Sequence[Path]) -> Iterator[Tensor | str]:
    """Classify image files.

    Args:
        trained: From `load_run`.
        paths: Image files of any size and kind.

    Yields:
        For each file, in order: probabilities ``[C]`` of the classes, or why it cannot be read.
    """
    config = trained.config
    preprocessing, channels = config.preprocessing("eval"), config.dataset.channels

    def read(path: Path) -> NDArray[np.uint8] | str:
        try:
            pixels = read_image(path, channels, preprocessing)
        except Exception as error:  # Pillow raises many kinds for damaged files
            return str(error) or type(error).__name__
        # EMNIST's images are transposed, those that people have are not (Q17)
        return pixels.transpose(0, 2, 1) if config.dataset.source == "emnist" else pixels

    mean, std = (
        torch.tensor(c, device=trained.device).view(-1, 1, 1) for c in (trained.mean, trained.std)
    )
    runtime = config.runtime
    context = autocast(trained.device, runtime.precision)
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(paths), BATCH):
            pixels = list(pool.map(read, paths[start : start + BATCH]))
            good = [p for p in pixels if not isinstance(p, str)]
            answers: Iterator[Tensor] = iter(())
            if good:
                images = torch.from_numpy(np.stack(good)).to(trained.device).float() / 255
                settings = backend_settings(
                    trained.device, runtime.precision, runtime.deterministic
                )
                with torch.inference_mode(), settings, context():
                    logits = trained.model((images - mean) / std).float()
                answers = iter(logits.softmax(dim=1).cpu())
            for given in pixels:
                yield given if isinstance(given, str) else next(answers)


def part_of(trained: Trained, part: str, root: str | None = None) -> tuple[Batches, bool]:
    """The images of one part as the run saw them in evaluation.

    Args:
        trained: From `load_run`.
        part: ``train``, ``val`` or ``test``.
        root: Where data sets lie now; as then unless given.

    Returns:
        The batches, and whether data and split are those of the run.

    Raises:
        UserError: where the data are missing or the run has no such part.
    """
    config = trained.config
    dataset = load_dataset(config.dataset, root or config.data.root, test=config.data.test)
    split = split_dataset(dataset, config.protocol, config.data.limit)
    if not len(getattr(split, part)):
        why = f"protocol {config.protocol.name} holds none out"
        if part == "test":
            why = "it was trained with data.test=false"
        raise UserError(f"this run has no {part} images: {why}")
    batches = batches_of(
        dataset,
        split,
        part,
        preprocessing=config.preprocessing("eval"),
        runs=run_place(trained.folder, trained.config),
        batch_size=config.recipe.eval_batch_size,
        mean=trained.mean,
        std=trained.std,
        device=trained.device,
        channels_last=config.runtime.channels_last,
    )
    then = trained.record["data"]
    same = (dataset.train.hash, dataset.test.hash, split.hash) == tuple(
        then[key] for key in ("train_hash", "test_hash", "split_hash")
    )
    return batches, same


def run_place(folder: Path, config: Config) -> Path:
    """The folder of runs that a run folder lies in, or itself where it came from afar.

    It is seen from where the folder lies: what its configuration says may be meant for another
    machine, or to mislead.

    Args:
        folder: Of the run.
        config: Of the run.
    """
    place = folder.resolve()
    return place.parents[2] if place.parts[-3:] == config.run_dir.parts[-3:] else place


def evaluate(trained: Trained, batches: Batches) -> Evaluation:
    """Run the model over a part, as the run did.

    Args:
        trained: From `load_run`.
        batches: From `part_of`.
    """
    runtime = trained.config.runtime
    with backend_settings(trained.device, runtime.precision, runtime.deterministic):
        return run_over(trained.model, batches, autocast(trained.device, runtime.precision))
