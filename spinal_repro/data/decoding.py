"""One image file to pixels of one size."""

import stat
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spinal_repro.preparation import Preparation

MAX_PIXELS = 180_000_000  # of a resized image; Pillow decodes no more than 179 million


def read_image(path: Path, channels: int, preparation: Preparation) -> NDArray[np.uint8]:
    """Decode one image and bring it to its size.

    Grey, palette, CMYK and 16-bit images are converted; transparency is laid over white. The
    geometry is that of torchvision's ``Resize`` and ``CenterCrop`` on PIL images.

    Args:
        path: The file.
        channels: 1 for grey, 3 for colour.
        preparation: What the image is brought to.

    Returns:
        ``[C, H, W]`` uint8.

    Raises:
        OSError: or another error of Pillow, where it cannot be decoded.
    """
    refuse_pipe(path)
    try:
        with Image.open(path) as opened:
            image = _converted(opened, "L" if channels == 1 else "RGB")
        image = _resized(image, preparation)
    except (OSError, ValueError, Image.DecompressionBombError):
        raise
    except Exception as error:  # bytes that are no image can end its decoders in any way
        raise ValueError(f"it cannot be decoded: {type(error).__name__}: {error}") from error
    pixels = np.asarray(image)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def refuse_pipe(path: Path) -> None:
    """Reading from what is no file may never end."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(f"{path} is no regular file")


def _converted(image: Image.Image, mode: str) -> Image.Image:
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        image = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(
            "its pixels have 32 bits, of which nobody knows what is black and what is white; "
            "save it with 8 or 16 bits"
        )
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert(mode)


def _resized(image: Image.Image, preparation: Preparation) -> Image.Image:
    """Bring an image to its size."""
    width, height = image.size
    resize, side = preparation.resize, preparation.size
    method = Image.Resampling[preparation.interpolation.upper()]
    if isinstance(resize, list):
        high, wide = resize[0], resize[-1]
    elif resize is None:
        high, wide = height, width
    else:  # the shorter side to that size, the longer one in proportion, rounded down
        wide = resize if width <= height else int(resize * width / height)
        high = resize if height <= width else int(resize * height / width)
    if wide * high > MAX_PIXELS:  # a line of pixels whose shorter side is to have 256 of them
        raise ValueError(f"its {width} x {height} pixels would become {wide:,} x {high:,}")
    if (wide, high) != (width, height):
        image = image.resize((wide, high), method)
    if side is None or (wide, high) == (side, side):
        return image
    left, top = round((wide - side) / 2), round((high - side) / 2)
    return image.crop((left, top, left + side, top + side))  # zeros where it is smaller
