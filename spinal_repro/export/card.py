"""The model card: what was trained on what, how good it is, and how to use it."""

import json
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from spinal_repro import __version__
from spinal_repro.data.catalog import entry_for
from spinal_repro.export.formats import Format
from spinal_repro.export.parity import Parity
from spinal_repro.inference import Trained
from spinal_repro.records.record import Accuracy, Record
from spinal_repro.results.tables import escape_markdown

CARD = "model_card.md"
SHOWN_CLASSES = 200


def preprocessing(trained: Trained) -> dict[str, Any]:
    """What images must be brought to before the model sees them."""
    config, preprocessing = trained.config, trained.config.preprocessing("eval")
    return {
        "mode": "L" if config.dataset.channels == 1 else "RGB",
        "resize": preprocessing.resize,
        "interpolation": preprocessing.interpolation,
        "crop": preprocessing.size,
        "transpose": config.dataset.source == "emnist",  # its images are stored so (Q17)
        "scale": 1 / 255,
        "mean": [float(value) for value in trained.mean],
        "std": [float(value) for value in trained.std],
        "size": config.input_size,
        "channels": config.dataset.channels,
    }


def describe(trained: Trained) -> dict[str, str]:
    """What every exported file says of itself: JSON or plain text by name."""
    record = trained.record
    return {
        "producer": f"spinal-repro {__version__}",
        "run": record.run,
        "identity": record.identity,
        "classes": json.dumps(list(trained.classes)),
        "preprocessing": json.dumps(preprocessing(trained)),
        "config": json.dumps(record.config),
    }


def model_card(trained: Trained, form: Format, parity: Parity, sums: Mapping[str, str]) -> str:
    """The card as Markdown; every text that comes from data is escaped.

    Args:
        trained: The run.
        form: What its model was written as.
        parity: How near that is.
        sums: SHA-256 of each file written.
    """
    environment = Environment(
        loader=PackageLoader("spinal_repro", "export"),
        undefined=StrictUndefined,
        autoescape=False,  # Markdown, not HTML: `finalize` escapes every expression
        finalize=_escaped,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    template = environment.get_template("card.md")
    config, record = trained.config, trained.record
    classes = list(trained.classes)
    return template.render(
        config=config,
        record=record,
        counts=record.counts,
        data=_data(trained),
        tests={name: _accuracy(getattr(record.test, name)) for name in ("selected", "last")},
        best_on_test=record.selection.on == "test",
        marks=_marks(record),
        prepare=preprocessing(trained),
        classes=", ".join(classes[:SHOWN_CLASSES]),
        hidden=max(0, len(classes) - SHOWN_CLASSES),
        outputs=len(classes),
        form=form,
        usage=Code(form.usage),
        parity=parity,
        sums=sums,
        Code=lambda value: Code(value),
    )


class Code(str):
    """Text of this program's own that stands in the card as it is."""

    __slots__ = ()


def _escaped(value: Any) -> Any:
    if isinstance(value, Code):
        return str(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return escape_markdown(str(value))


def _accuracy(part: Accuracy) -> dict[str, Any]:
    """One accuracy with its interval, in percent."""
    low, high = part.interval_95
    return {
        "accuracy": f"{100 * part.accuracy:.2f}",
        "low": f"{100 * low:.2f}",
        "high": f"{100 * high:.2f}",
        "correct": part.correct,
        "count": part.count,
    }


def _data(trained: Trained) -> dict[str, Any]:
    """The data set: what the catalog and the record know of it."""
    entry = entry_for(trained.config.dataset)
    about = None if entry is None else entry.about
    unknown = "not known to this package; ask whoever made the images"
    return {
        "title": trained.config.dataset.title,
        "licence": (about and about.licence) or unknown,
        "citation": about and about.citation,
        "homepage": about and about.homepage,
        "sizes": trained.record.data["sizes"],
        "hash": trained.record.data["train_hash"][:16],
    }


def _marks(record: Record) -> list[str]:
    """What a reader must know before trusting the number."""
    marks = [f"REDUCED BUDGET: {reason}" for reason in record.reduced_budget]
    if record.selection.on == "test":
        marks.append(
            "BEST ON TEST: the test set picked the epoch, as the original scripts do, so the "
            "accuracy of the selected epoch is too high"
        )
    shared = record.data.get("test_images_also_in_train")
    if shared:
        marks.append(f"{shared} test images also stand in train")
    if record.pretrained:
        marks.append("the backbone started from pretrained weights, which have a licence as well")
    if record.git.get("modified"):
        marks.append("trained with code that differed from the commit named below")
    if record.precision != "fp32":
        marks.append(f"trained in {record.precision}, exported in fp32")
    return marks
