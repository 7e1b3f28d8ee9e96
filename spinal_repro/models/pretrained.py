"""Weights for a backbone, from a file or as a library publishes them."""

import hashlib
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from spinal_repro.errors import UserError

HERE = Path()
COUNTER = "num_batches_tracked"  # of batch norm
SHOWN = 300  # characters of PyTorch's message
SUFFIXES = (".pth", ".pt", ".bin", ".safetensors")
# torchvision's oldest DenseNet files number what are attributes now
_OLD_DENSENET = re.compile(r"(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..+)")


@dataclass(frozen=True)
class WeightReport:
    """What came of loading weights into a backbone.

    Attributes:
        source: A file, or the name of published weights.
        sha256: Of the file; None for published weights.
        matched: Tensors of the backbone that were found.
        missing: Batch norm's counters that were not found (old files lack them).
        unexpected: Tensors of the classifier, which the head replaces.
    """

    source: str
    sha256: str | None
    matched: int
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """One line for people."""
        dropped = f" ({', '.join(self.unexpected[:4])}: the classifier)" if self.unexpected else ""
        return (
            f"weights {self.source}: {self.matched} tensors matched, {len(self.missing)} missing, "
            f"{len(self.unexpected)} unexpected{dropped}"
        )


def load_pretrained(backbone: nn.Module, source: str, data_root: Path = HERE) -> WeightReport:
    """Load weights into a backbone.

    A file may hold the whole network, its classifier included, or a run's ``best.safetensors``.
    A network of a library also takes the names of its published weights. Normalisation
    constants that come with published weights become the backbone's ``mean`` and ``std``.

    Args:
        backbone: What to load into.
        source: A path that ends in one of `SUFFIXES`, or a name such as ``IMAGENET1K_V1``.
        data_root: Where else a path is looked for, so that a recipe can name a file that lies
            elsewhere on every machine.

    Raises:
        UserError: where the weights cannot be had or read, or do not fit.
    """
    sha256 = None
    path = next((p for p in (Path(source), data_root / source) if p.is_file()), None)
    if path is not None:
        tensors = read_tensors(path)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    elif source.endswith(SUFFIXES):
        raise UserError(
            f"there is no weights file {source}, neither here nor in the data folder {data_root} "
            f"(data.root, SPINAL_DATA)"
        )
    else:
        tensors = _fetch(backbone, source)
    classifier = set(getattr(backbone, "classifier_tensors", ()))
    target: Any = getattr(backbone, "net", backbone)
    if any(name.startswith("backbone.") for name in tensors):  # a run of this program
        heads = ("head.", "aux_heads.")
        classifier = {name for name in tensors if name.startswith(heads)}
        tensors = {name.removeprefix("backbone."): t for name, t in tensors.items()}
        target = backbone
    report = _load(target, tensors, classifier, source, sha256)
    if hasattr(target, "transform_input") and target is not backbone:
        # torchvision's GoogLeNet and Inception v3 weights: from our normalisation to theirs
        target.transform_input = True
    return report


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a file; nothing in it is executed.

    Raises:
        UserError: where there is no such file, or it holds anything but tensors.
    """
    if not path.is_file():
        raise UserError(f"there is no file {path} to read weights from")
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} holds more than tensors and is not loaded, because unpickling it could run "
            f"code; save its state_dict as .safetensors where you trust it"
        ) from error
    except Exception as error:  # bytes that are no weights can end the readers in any way
        raise UserError(f"{path}: {_first_line(error)}") from error
    for key in ("state_dict", "model"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not all(isinstance(t, Tensor) for t in found.values()):
        raise UserError(f"{path} holds no table of named tensors (a state_dict)")
    return {str(name): tensor for name, tensor in found.items()}


def load_whole(model: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Load all the weights of a model, as a run has saved them.

    Raises:
        UserError: with the name of the file, where they do not fit.
    """
    try:
        _load_strictly(model, tensors)
    except RuntimeError as error:
        raise UserError(f"{source} does not fit the run's config: {_short(error)}") from error


def _load_strictly(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load every tensor of a module; batch norm's counters may be missing, as in old files."""
    counters = {n: t for n, t in module.state_dict().items() if n.endswith(COUNTER)}
    module.load_state_dict({**counters, **tensors})


def _fetch(backbone: nn.Module, name: str) -> dict[str, Tensor]:
    fetch = getattr(backbone, "fetch", None)
    if fetch is None:
        raise UserError(
            f"this model has no published weights '{name}'; give a file "
            f"({', '.join(SUFFIXES)}) as model.pretrained"
        )
    try:
        published = fetch(name)
    except UserError:
        raise
    except Exception as error:  # whatever a download can end in
        raise UserError(
            f"the weights '{name}' could not be fetched ({_first_line(error)}); without a network "
            f"give a file as model.pretrained"
        ) from error
    backbone.mean, backbone.std = list(published.mean), list(published.std)  # type: ignore[assignment]
    return dict(published.tensors)


def _load(
    target: nn.Module,
    tensors: Mapping[str, Tensor],
    classifier: set[str],
    source: str,
    sha256: str | None,
) -> WeightReport:
    """Load what fits; refuse if anything but the classifier does not."""
    expected = target.state_dict()
    given = {_OLD_DENSENET.sub(r"\1\2", name): tensor for name, tensor in tensors.items()}
    missing = [name for name in expected if name not in given]
    unexpected = [name for name in given if name not in expected]
    kept = {n: t for n, t in given.items() if n in expected or n not in classifier}
    try:
        _load_strictly(target, kept)
    except RuntimeError as error:
        raise UserError(
            f"{source} does not fit this model: {_short(error)}; check model.name and "
            f"dataset.image_size"
        ) from error
    return WeightReport(source, sha256, len(kept), missing, unexpected)


def _short(error: Exception) -> str:
    """The message of an error on one line; PyTorch lists every tensor."""
    line = " ".join(str(error).split())
    return line if len(line) <= SHOWN else f"{line[:SHOWN]}..."


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
