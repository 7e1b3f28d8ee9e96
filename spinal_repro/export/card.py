"""The model card: training, data and accuracy of a model, and how to use it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from spinal_repro import __version__
from spinal_repro.data.catalog import entry_for
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
    """Describe the preprocessing of an image."""
    config, preprocessing = trained.config, trained.config.preprocessing("eval")
    return {
        "mode": "L" if config.dataset.channels == 1 else "RGB",
        "resize": preprocessing.resize,
        "interpolation": preprocessing.interpolation,
        "crop": preprocessing.size,
        "transpose": config.dataset.source == "emnist",  # its files store images transposed (Q17)
        "scale": 1 / 255,
        "mean": list(map(float, trained.mean)),
        "std": list(map(float, trained.std)),
        "size": config.input_size,
        "channels": config.dataset.channels,
    }


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
