"""CIFAR-10 and CIFAR-100 through torchvision's own classes."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torchvision import datasets as tv

from spinal_repro.data.sources import SOURCES, Dataset, ImageSet, check_options, check_sums
from spinal_repro.schema import DatasetConfig


@dataclass(frozen=True)
class _Files:
    """The files of one torchvision class with their MD5 sums."""

    kind: type[tv.CIFAR10]

    @property
    def sums(self) -> dict[str, str]:
        """File name to MD5 sum."""
        meta = (self.kind.meta["filename"], self.kind.meta["md5"])
        return dict([*self.kind.train_list, *self.kind.test_list, meta])


_KINDS = {"cifar10": _Files(tv.CIFAR10), "cifar100": _Files(tv.CIFAR100)}


def _load_cifar(config: DatasetConfig, root: Path, download: bool) -> Dataset:
    """Images ``[N, 3, 32, 32]``; the files are pickles, so none is opened before its sum agrees."""
    files = _KINDS[config.source]
    kind = files.kind
    check_options(config, [])
    check_sums(config, root, root / kind.base_folder, files.sums, download)
    parts = []
    for train in (True, False):
        part = kind(str(root), train=train)
        images = torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous()
        parts.append(ImageSet(images, torch.tensor(part.targets) + config.label_offset))
    return Dataset(parts[0], parts[1], classes=part.classes)


for _name in _KINDS:
    SOURCES.register(_name)(_load_cifar)
