"""CIFAR-10 and CIFAR-100 through torchvision's own classes."""

import tarfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torchvision import datasets as tv
from torchvision.datasets.utils import check_integrity

from spinal_repro.config import DatasetConfig
from spinal_repro.data.sources import SOURCES, Dataset, ImageSet, not_there
from spinal_repro.errors import UserError


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
    folder = root / kind.base_folder
    _unpack(root / kind.filename, folder, root)
    missing = [name for name in files.sums if not (folder / name).is_file()]
    if missing and download:
        try:
            kind(str(root), download=True)
        except (OSError, RuntimeError) as error:
            raise UserError(f"downloading {config.title} to {folder} failed: {error}") from error
    elif missing:
        raise not_there(config, folder, missing)
    for name, md5 in files.sums.items():
        if not check_integrity(str(folder / name), md5):
            raise UserError(
                f"{name} is damaged (its MD5 sum is not {md5}); delete {folder / name} and fetch "
                f"it again with data.download=true"
            )
    parts = []
    for train in (True, False):
        part = kind(str(root), train=train)
        images = torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous()
        parts.append(ImageSet(images, torch.tensor(part.targets) + config.label_offset))
    return Dataset(parts[0], parts[1], classes=part.classes)


for _name in _KINDS:
    SOURCES.register(_name)(_load_cifar)


def _unpack(archive: Path, folder: Path, root: Path) -> None:
    """Unpack an archive that lies there alone."""
    if folder.exists() or not archive.is_file():
        return
    try:
        with tarfile.open(archive) as packed:
            packed.extractall(root, filter="data")
    except (OSError, EOFError, tarfile.TarError) as error:
        raise UserError(f"{archive} is damaged ({error}); delete it and fetch it again") from error
