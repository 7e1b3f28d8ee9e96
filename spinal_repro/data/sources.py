"""Sources: from a data-set name to images and labels in memory.

A source is a function ``(config, root, download) -> Dataset`` registered under the name that
``dataset.source`` gives. Reading a data set that is missing or damaged ends in one message that
names the folder and the command to run.
"""

import dataclasses
import importlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from spinal_repro.config.schema import DatasetConfig
from spinal_repro.data.photos import Decoded, Photos
from spinal_repro.data.splits import content_hash, fingerprints, stratified
from spinal_repro.errors import UserError, unknown
from spinal_repro.registry import Registry


@dataclass(frozen=True)
class ImageSet:
    """Images ``[N, C, H, W]`` uint8, in memory or decoded on demand, with labels ``[N]`` int64."""

    images: Tensor | Decoded
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def digests(self) -> list[bytes]:
        """16 bytes for the contents of each image."""
        assert isinstance(self.images, Tensor)
        return fingerprints(self.images.numpy())

    @property
    def hash(self) -> str:
        """SHA-256 over images and labels."""
        assert isinstance(self.images, Tensor)
        return content_hash(self.images.numpy(), self.labels.numpy())


@dataclass(frozen=True)
class Dataset:
    """The published parts of a data set.

    Attributes:
        train: What is trained on, or a validation part cut from.
        test: What is reported.
        val: A published validation part, if there is one.
        classes: Names of the classes in the order of their labels, where the data say them.
    """

    train: ImageSet | Photos
    test: ImageSet | Photos
    val: ImageSet | Photos | None = None
    classes: Sequence[str] = ()


Source = Callable[[DatasetConfig, Path, bool], Dataset]
SOURCES: Registry[Dataset] = Registry("data source")

MODULES = ("folder", "idx", "torchvision_sets")


def load_sources() -> Registry[Dataset]:
    """The registry with the sources of the other files of this folder in it."""
    for module in MODULES:
        importlib.import_module(f"spinal_repro.data.{module}")
    return SOURCES


def load_dataset(
    config: DatasetConfig, root: str | Path, download: bool = False, test: bool = True
) -> Dataset:
    """Load a data set and check it against its configuration.

    Args:
        config: What to load and what must be found.
        root: The folder data sets lie in.
        download: Fetch what is missing first.
        test: False puts an empty part in the place of the test part, before anything looks at it.

    Raises:
        UserError: where files are missing or damaged, or hold other than what is expected.
    """
    dataset = load_sources()[config.source](config, Path(root), download)
    if not test:
        nothing = torch.zeros(0, config.channels, 1, 1, dtype=torch.uint8)
        dataset = dataclasses.replace(dataset, test=ImageSet(nothing, torch.zeros(0).long()))
    if config.num_classes is None:
        config = dataclasses.replace(config, num_classes=len(dataset.classes))
    if config.channels == 3:
        dataset = dataclasses.replace(
            dataset, train=_in_colour(dataset.train), test=_in_colour(dataset.test)
        )
    for part, size in (
        ("train", config.train_size),
        ("val", config.val_size),
        ("test", config.test_size),
    ):
        images = getattr(dataset, part)
        if (images is not None or size is not None) and (test or part != "test"):
            _check(images, config, part, size)
    return dataset


def _in_colour(part: ImageSet | Photos) -> ImageSet | Photos:
    """Grey images on three equal channels, which take no memory of their own."""
    if isinstance(part, ImageSet) and isinstance(part.images, Tensor) and part.images.shape[1] == 1:
        return ImageSet(part.images.expand(-1, 3, -1, -1), part.labels)
    return part


def _check(
    images: ImageSet | Photos | None, config: DatasetConfig, part: str, size: int | None
) -> None:
    """Check one part against the configuration."""
    where = f"{config.title} ({part})"
    count = 0 if images is None else len(images)
    if images is None or size not in (None, count):
        raise UserError(
            f"{where} has {count} images where {size} are expected; if the files are "
            f"right, pass dataset.{part}_size={count or 'null'}"
        )
    if count == 0:
        raise UserError(f"{where} holds no images")
    if isinstance(images, ImageSet):
        _check_kinds(images, where)
    low, high = int(images.labels.min()), int(images.labels.max())
    if low < 0 or high >= config.outputs:
        raise UserError(
            f"{where} has labels {low}..{high}, outside the {config.outputs} outputs; "
            f"check dataset.num_classes, dataset.num_outputs and dataset.label_offset"
        )
    if isinstance(images, ImageSet):
        side = config.image_size
        shape = (config.channels, side, side)
        if tuple(images.images.shape[1:]) != shape:
            found = "x".join(map(str, images.images.shape[1:]))
            raise UserError(
                f"{where} holds images of {found}, expected {config.channels}x{side}x{side}"
            )


def _check_kinds(images: ImageSet, where: str) -> None:
    """Pixels are bytes, so that none can be infinite or NaN; labels are whole numbers."""
    pixels = images.images
    if isinstance(pixels, Tensor) and pixels.dtype != torch.uint8:
        raise UserError(f"{where} holds pixels of {pixels.dtype}; a source gives torch.uint8")
    if images.labels.dtype != torch.int64 or images.labels.ndim != 1:
        kind = f"{images.labels.dtype} in {images.labels.ndim} dimensions"
        raise UserError(f"{where} has labels of {kind}; a source gives torch.int64 in one")
    if isinstance(pixels, Tensor) and (pixels.ndim != 4 or len(pixels) != len(images.labels)):
        raise UserError(
            f"{where} has {len(images.labels)} labels for images of shape {list(pixels.shape)}"
        )


@SOURCES.register("digits")
def digits(config: DatasetConfig, root: Path, download: bool) -> Dataset:
    """scikit-learn's handwritten digits: 1,797 real 8x8 images, enlarged to the configured size.

    The package has no split; a fixed stratified fifth is the test part.
    """
    check_options(config, [])
    from sklearn.datasets import load_digits

    raw = load_digits()
    small = torch.from_numpy(raw.images).float().mul(255 / 16).unsqueeze(1)
    size = config.image_size
    large = torch.nn.functional.interpolate(small, size, mode="bilinear", align_corners=False)
    images = large.round().to(torch.uint8)
    labels = torch.from_numpy(raw.target).long()
    train, test = stratified(labels.numpy(), fraction=0.2, seed=0)
    return Dataset(
        ImageSet(images[train], labels[train]),
        ImageSet(images[test], labels[test]),
    )


def check_options(config: DatasetConfig, known: Iterable[str]) -> None:
    """Refuse options that a source does not have.

    Raises:
        UserError: for an unknown key of ``dataset.options``.
    """
    for key in config.options:
        if key not in known:
            raise unknown(f"option of the data set {config.name}", str(key), known)


def not_there(config: DatasetConfig, folder: Path, missing: list[str]) -> UserError:
    """The error for files that are missing and may be fetched."""
    return UserError(
        f"{config.title} is not in {folder.resolve()} (missing {', '.join(missing)}). "
        f"Fetch it with: spinal-train dataset={config.name} data.download=true; or say "
        f"where it lies: data.root=FOLDER or the environment variable SPINAL_DATA; more with: "
        f"spinal data info {config.name}"
    )


def check_sums(config: DatasetConfig, root: Path, names: Sequence[str], download: bool) -> Path:
    """See that files are there and have their published checksums.

    An archive that lies under the root alone is unpacked.

    Args:
        config: The data set; the catalog has a record of the name of its source.
        root: The folder data sets lie in.
        names: The files.
        download: Fetch what is missing first.

    Returns:
        The folder of the files.

    Raises:
        UserError: where a file is missing or has another checksum.
    """
    from spinal_repro.data.catalog import find_entry
    from spinal_repro.data.verify import wrong_sum

    entry = find_entry(config.source)
    folder = entry.path(root)

    def missing() -> list[str]:
        return [name for name in names if not (folder / name).is_file()]

    if missing():
        from spinal_repro.data.fetch import ensure
        from spinal_repro.data.imports import import_lying

        if download:
            ensure(config, root)
        else:
            import_lying(config, root)
    if missing():
        raise not_there(config, folder, missing())
    published = {file.name: file for file in entry.contents}
    for name in names:
        if (wrong := wrong_sum(folder / name, published[name])) is not None:
            raise UserError(
                f"{name} is damaged: {wrong}; delete {folder / name} and fetch it again with "
                f"data.download=true"
            )
    return folder
