"""SVHN and STL-10 through torchvision's own classes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchvision import datasets as tv

from spinal_repro.data.sources import (
    SOURCES,
    Dataset,
    ImageSet,
    check_options,
    check_sums,
)
from spinal_repro.errors import UserError
from spinal_repro.schema import DatasetConfig


@dataclass(frozen=True)
class _Kind:
    """One torchvision class whose parts are called ``train`` and ``test``.

    Attributes:
        open: Reads one part under a root.
        folder: Where its files lie below the root.
        sums: File name to MD5 sum, read late: they are attributes of the class.
    """

    open: Callable[..., Any]
    folder: str
    sums: Callable[[], dict[str, str]]


_KINDS = {
    "svhn": _Kind(
        tv.SVHN,
        ".",
        lambda: {tv.SVHN.split_list[p][1]: tv.SVHN.split_list[p][2] for p in ("train", "test")},
    ),
    "stl10": _Kind(
        tv.STL10,
        tv.STL10.base_folder,
        lambda: dict([*tv.STL10.train_list, *tv.STL10.test_list]),
    ),
}


def _load(config: DatasetConfig, root: Path, download: bool) -> Dataset:
    """Images ``[N, 3, S, S]``; no file is opened before its sum agrees."""
    kind = _KINDS[config.source]
    check_options(config, [])
    check_sums(config, root, root / kind.folder, kind.sums(), download)
    parts = []
    for name in ("train", "test"):
        try:
            part = kind.open(str(root), split=name)
            images = torch.from_numpy(np.ascontiguousarray(part.data))
            labels = torch.from_numpy(np.asarray(part.labels, dtype=np.int64))
        except Exception as error:  # files that are none can end scipy's reader in any way
            said = " ".join(str(error).split()) or type(error).__name__
            raise UserError(
                f"{config.title} cannot be read from {root / kind.folder}: {said}"
            ) from error
        parts.append(ImageSet(images, labels + config.label_offset))
    return Dataset(train=parts[0], test=parts[1])


for _name in _KINDS:
    SOURCES.register(_name)(_load)
