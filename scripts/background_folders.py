"""Writes the image folders of a data set with an additional class of background images.

    python scripts/background_folders.py stl10 --background Background_data --data data

reads STL-10 in the data folder and writes data/stl10_background/ for dataset=stl10_background, as
the notebooks do (recipes 9); cifar10 and cifar100 likewise. --background is the unpacked
Background_data.zip of the Kaggle notebook dipuk0506/background-image-data, or any other folder of
images, which are then another background class than the published one.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from spinal_repro.config.compose import compose
from spinal_repro.data.image_files import image_files
from spinal_repro.data.sources import Dataset, load_dataset
from spinal_repro.errors import UserError

BACKGROUND = "zz_background"  # the last class by name, so it gets the last label
VALIDATION_IMAGE = 1999  # the background image that is also in the validation part, from 0


def write_folders(dataset: Dataset, background: Sequence[Path], target: Path, *, val: bool) -> None:
    """Write PART/CLASS/NUMBER.SUFFIX below ``target``, which must not exist.

    Args:
        dataset: Data in memory, with class names.
        background: Image files, which are copied to the training part.
        val: Hold out every tenth training image, from the fifth, and one background image, which
            the training part has as well.
    """
    if target.exists():
        raise UserError(f"{target} exists; delete it first")
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for part in ("train", "test"):
        images = getattr(dataset, part)
        for number, (pixels, label) in enumerate(zip(images.images, images.labels, strict=True)):
            held = val and part == "train" and number % 10 == 4
            folder = partial / ("valid" if held else part) / dataset.classes[int(label)]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(folder / f"{number:05}.png")
    for number, path in enumerate(background):
        for part in ["train"] + ["valid"] * (val and number == VALIDATION_IMAGE):
            folder = partial / part / BACKGROUND
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / f"{number:05}{path.suffix.lower()}")
    partial.rename(target)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("dataset", choices=("cifar10", "cifar100", "stl10"))
    parser.add_argument("--background", type=Path, required=True, help="a folder of images")
    parser.add_argument("--data", type=Path, default=Path("data"), help="the data folder")
    given = parser.parse_args()
    target = given.data / f"{given.dataset}_background"
    try:
        background = image_files(given.background)
        if not background:
            raise UserError(f"{given.background} has no image files")
        dataset = load_dataset(compose([f"dataset={given.dataset}"]).dataset, given.data)
        write_folders(dataset, background, target, val=given.dataset == "stl10")
    except (UserError, OSError) as error:
        sys.exit(f"error: {error}")
    print(f"{target}: {len(background):,} background images")


if __name__ == "__main__":
    main()
