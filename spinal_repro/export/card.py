"""The model card: training, data and accuracy of a model, and how to use it."""

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from spinal_repro import __version__
from spinal_repro.data.catalog import entry_for
from spinal_repro.data.photos import converted
from spinal_repro.inference import Trained
from spinal_repro.results.tables import escape_markdown

CARD = "model_card.md"


@dataclass(frozen=True)
class Parity:
    """Agreement between the logits of an exported model and of the trained one."""

    images: int  # number compared
    difference: float  # largest absolute difference of a logit
    allowed: float
    agree: int  # images with the same predicted class


def preprocessing(trained: Trained) -> dict[str, Any]:
    """Describe the preprocessing of an image, for `read`."""
    config, preprocessing = trained.config, trained.config.preprocessing("eval")
    return {
        "mode": "L" if config.dataset.channels == 1 else "RGB",
        "resize": preprocessing.resize,
        "interpolation": preprocessing.interpolation,
        "pad": preprocessing.pad,
        "crop": preprocessing.size,
        "transpose": config.dataset.source == "emnist",  # its files store images transposed (Q17)
        "scale": 1 / 255,
        "mean": list(map(float, trained.mean)),
        "std": list(map(float, trained.std)),
        "size": config.input_size,
        "channels": max(config.dataset.channels, len(trained.mean)),
    }


def read(file: str, prepare: dict) -> np.ndarray:
    """Read an image file as input of the model, float32 [1, C, H, W]."""
    image = converted(Image.open(file), prepare["mode"])
    resize, size = prepare["resize"], prepare["size"]
    if prepare["pad"]:  # to a square
        left, top = ((side - max(image.size)) // 2 for side in image.size)
        image = image.crop((left, top, left + max(image.size), top + max(image.size)))
    if isinstance(resize, int):  # the shorter side
        resize = [int(resize * side / min(image.size)) for side in reversed(image.size)]
    if resize is not None:
        method = Image.Resampling[prepare["interpolation"].upper()]
        image = image.resize((resize[-1], resize[0]), method)
    left, top = (round((side - size) / 2) for side in image.size)
    image = image.crop((left, top, left + size, top + size))
    pixels = np.asarray(image, np.float32).reshape(size, size, -1).transpose(2, 0, 1) / 255
    if prepare["transpose"]:  # as the images that the model was trained on are stored
        pixels = pixels.transpose(0, 2, 1)
    mean, std = (np.array(prepare[key], np.float32).reshape(-1, 1, 1) for key in ("mean", "std"))
    return ((pixels - mean) / std)[None]


def describe(trained: Trained) -> dict[str, str]:
    """The metadata of every exported file: JSON or plain text by name."""
    record = trained.record
    return {
        "producer": f"spinal-repro {__version__}",
        "run": record.run,
        "identity": record.identity,
        "classes": json.dumps(list(trained.classes)),
        "preprocessing": json.dumps(preprocessing(trained)),
        "config": json.dumps(record.config),
    }


def model_card(trained: Trained, to: str, parity: Parity, sums: Mapping[str, str]) -> str:
    """Render the card as Markdown; ``sums`` are the SHA-256 of the files by name."""
    environment = Environment(
        loader=PackageLoader("spinal_repro", "export"),
        undefined=StrictUndefined,
        autoescape=False,  # Markdown, not HTML: `finalize` escapes every expression
        finalize=_escaped,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    entry = entry_for(trained.config.dataset)
    return environment.get_template("card.md").render(
        config=trained.config,
        record=trained.record,
        about=None if entry is None else entry.about,
        prepare=preprocessing(trained),
        functions=[inspect.getsource(function) for function in (converted, read)],
        classes=list(trained.classes),
        to=to,
        parity=parity,
        sums=sums,
        Code=Markup,  # shown as it is
    )


def _escaped(value: Any) -> Any:
    if isinstance(value, Markup):
        return value
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return escape_markdown(str(value))
