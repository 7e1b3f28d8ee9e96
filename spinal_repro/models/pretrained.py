"""Pretrained weights for a backbone, from a file or as published by a library."""

import pickle
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from spinal_repro.errors import UserError, error_message
from spinal_repro.io import checksum

RUN_WEIGHTS = "best.safetensors"  # in a run folder
# files that published cells name, with their SHA-256: a run of them is identified by the name alone
PUBLISHED = {  # made by scripts/efficientnet_lite0.py
    "weights/tf_efficientnet_lite0.safetensors": (
        "2b4a5f7e9a1870e2c41efd811c5b04f7e5843b32900a338e3f181204a324f9c6"
    ),
}
STATE_DICTS = ("state_dict", "model_state_dict", "model")  # their usual keys in a checkpoint
# torchvision's oldest DenseNet files write "norm.1" for today's "norm1"
_OLD_DENSENET = re.compile(r"(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..+)")


@dataclass(frozen=True)
class WeightReport:
    """Result of loading weights into a backbone."""

    source: str  # a file, or the name of published weights
    sha256: str | None  # of the file
    matched: int  # number of tensors loaded
    missing: list[str]  # only batch-norm counters (old files)
    unexpected: list[str]  # only tensors of the classifier
    prefix: str = ""  # removed from the names in the file, e.g. "module."

    def __str__(self) -> str:
        """One line for the log."""
        dropped = f" ({', '.join(self.unexpected[:4])}: the classifier)" if self.unexpected else ""
        prefix = f"; prefix {self.prefix} removed from the names" if self.prefix else ""
        return (
            f"weights {self.source}: {self.matched} tensors matched, {len(self.missing)} missing, "
            f"{len(self.unexpected)} unexpected{dropped}{prefix}"
        )


def find_weights(source: str, data_root: str | Path) -> Path | None:
    """Find a weights file, or that of a run folder, here or in the data folder."""
    places = (Path(source), Path(data_root, source))
    files = (place / RUN_WEIGHTS if place.is_dir() else place for place in places)
    return next((path for path in files if path.is_file()), None)


def load_pretrained(
    backbone: nn.Module, source: str, data_root: str | Path = ".", head: nn.Module | None = None
) -> WeightReport:
    """Load weights into a backbone.

    A file may hold the whole network with its classifier, or be of a run; a prefix that other
    training scripts put before all names is removed. Published weights also set the ``mean`` and
    ``std`` of the backbone.

    Args:
        source: A weights file, the folder of a finished run, or, for a network of torchvision or
            timm, the name of published weights, such as ``IMAGENET1K_V1``.
        data_root: Folder searched for a relative path after the working directory, so that a
            recipe can name a file on any machine.
        head: The network's own classifier, to load its weights too; None to leave them out.
    """
    sha256 = None
    if (path := find_weights(source, data_root)) is not None:
        tensors = read_tensors(path)
        sha256 = checksum(path)
    else:
        tensors = _fetch(backbone, source, data_root)
    target: Any = getattr(backbone, "net", backbone)
    expected = target.state_dict()
    tensors = {_OLD_DENSENET.sub(r"\1\2", name): tensor for name, tensor in tensors.items()}
    prefix = _common_prefix(tensors, expected)
    own = getattr(backbone, "classifier_tensors", ())
    classifier = {start + name for name in own for start in ("", prefix)}
    of_head = f"{prefix}{getattr(backbone, 'classifier_name', '')}."
    outer, of_run, _ = prefix.partition("backbone.")
    if of_run:
        of_head = f"{outer}head."
        classifier |= {n for n in tensors if n.startswith((of_head, f"{outer}aux_heads."))}
    kept = {}
    if head is not None:
        names = [name for name in head.state_dict() if of_head + name in tensors]
        kept = {name: tensors.pop(of_head + name) for name in names}
        load_strict(head, kept, source, "the network's own classifier, which head=pretrained keeps")
    fitting = {n.removeprefix(prefix): t for n, t in tensors.items() if n not in classifier}
    load_strict(target, fitting, source, "this model; check model.name and dataset.image_size")
    missing = [name for name in expected if name not in fitting]
    unexpected = [name.removeprefix(prefix) for name in tensors if name in classifier]
    return WeightReport(source, sha256, len(fitting) + len(kept), missing, unexpected, prefix)


def _common_prefix(names: Collection[str], expected: Collection[str]) -> str:
    """Find what precedes the names of the network in those of a file: "module.", "net.", ..."""
    first = next(iter(expected), "")
    starts = ["", *(name.removesuffix(first) for name in names if name.endswith(f".{first}"))]
    return max(starts, key=lambda start: sum(start + name in names for name in expected))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a file without executing any code in it."""
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} was not loaded: it holds more than tensors, and unpickling it could run "
            f"code. If you trust it, save its state_dict as .safetensors"
        ) from error
    except Exception as error:  # damaged files raise many types of error
        raise UserError(f"{path} cannot be read as weights: {_one_line(error)}") from error
    for key in STATE_DICTS:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    inner = found.values() if isinstance(found, Mapping) else ()
    tables = [table for table in (found, *inner) if _is_state_dict(table)]
    if len(tables) != 1:  # under another key only if nothing else in the file could be it
        raise UserError(f"{path} is not a state_dict (tensors by name)")
    return {str(name): tensor for name, tensor in tables[0].items()}


def _is_state_dict(found: Any) -> bool:
    named = isinstance(found, Mapping) and bool(found)
    return named and all(isinstance(tensor, Tensor) for tensor in found.values())


def load_strict(
    model: nn.Module, tensors: Mapping[str, Tensor], source: str, target: str = "the run's config"
) -> None:
    """Load every tensor of a model; only batch norm's counters may be missing, as in old files."""
    counters = {n: t for n, t in model.state_dict().items() if n.endswith("num_batches_tracked")}
    try:
        model.load_state_dict({**counters, **tensors})
    except RuntimeError as error:
        raise UserError(f"{source} does not fit {target}: {_one_line(error)}") from error


def _fetch(backbone: nn.Module, name: str, data_root: str | Path) -> dict[str, Tensor]:
    """Download published weights, or take them from the library's cache."""
    fetch: Any = getattr(backbone, "fetch", None)
    try:
        if fetch is None:
            raise UserError("this model has no published weights")
        tensors, mean, std = fetch(name)
    except UserError as error:
        places = f"the current folder or in the data folder {data_root} (data.root, SPINAL_DATA)"
        why = f"there is no weights file or finished run {name} in {places}, and {error}"
        raise UserError(why) from error
    except Exception as error:  # a download raises many types of error
        raise UserError(
            f"the weights '{name}' could not be downloaded ({_one_line(error)}); without an "
            f"internet connection set model.pretrained to a file"
        ) from error
    backbone.mean, backbone.std = list(mean), list(std)  # type: ignore[assignment]
    return dict(tensors)


def _one_line(error: Exception) -> str:
    """Shorten a message to one line; PyTorch lists every tensor that does not fit."""
    return shorten(error_message(error), 300)
