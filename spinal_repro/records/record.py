"""What a record is built like: the types and ranges of everything that is computed from it.

Whether a record also agrees with itself is another matter, see `contributed`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from spinal_repro.errors import NAME, UserError


@dataclass(frozen=True)
class Kind:
    """A kind of value: what it is called and how it is known."""

    called: str
    fits: Callable[[Any], bool]


def _whole(value: Any, least: int) -> bool:
    return type(value) is int and least <= value < 2**63


def _number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e300  # NaN is not


NATURAL = Kind("a whole number, 0 or more", lambda v: _whole(v, 0))
POSITIVE = Kind("a whole number above 0", lambda v: _whole(v, 1))
SEED = Kind("a whole number, 0 or more", lambda v: type(v) is int and v >= 0)
NUMBER = Kind("a finite number", _number)
SHARE = Kind("a number from 0 to 1", lambda v: _number(v) and 0 <= v <= 1)
WORD = Kind("a name", lambda v: isinstance(v, str) and NAME.fullmatch(v) is not None)
TEXT = Kind("text", lambda v: isinstance(v, str))
MAPPING = Kind("a group", lambda v: isinstance(v, Mapping))
SELECTS = Kind("val or test", lambda v: v in ("val", "test"))
ANY = Kind("anything", lambda v: True)

Spec = Kind | dict[str, Any] | list[Any]
# A key that ends in ? may be missing or null. A list holds entries of one kind; "*" is any key.
PART: Spec = {"accuracy": SHARE, "correct": NATURAL, "count": POSITIVE}
COUNTS: Spec = {
    "head_parameters": NATURAL,
    "total_parameters": NATURAL,
    "head_multiplications": NATURAL,
    "total_multiplications": NATURAL,
    "*": NATURAL,
}
RUN: Spec = {
    "identity": WORD,
    "seed": SEED,
    "config": {
        "dataset": {"name": WORD, "title?": TEXT},
        "model": {"name": TEXT},
        "head": {"name": WORD},
        "recipe": {
            "epochs": POSITIVE,
            "stages?": MAPPING,
            "prepare?": MAPPING,
            "lr_rule?": MAPPING,
        },
        "protocol": {"name": WORD, "select_on?": SELECTS},
        "runtime": {"precision": WORD},
        "data?": {"limit?": POSITIVE},
        "cell?": TEXT,
    },
    "environment": {"device": WORD, "torch?": TEXT},
    "selection": {"on": SELECTS, "epoch": POSITIVE, "accuracy": SHARE},
    # null where the test part was not read (data.test=false)
    "test?": {"selected": PART, "last": PART, "best_on_test?": {"accuracy": SHARE}},
    "git?": {"commit?": TEXT, "modified?": ANY},
    "data?": {"train_hash?": TEXT, "test_hash?": TEXT, "classes?": [TEXT]},
    "counts?": COUNTS,
    "history?": [
        {
            "epoch": POSITIVE,
            "val_accuracy?": SHARE,
            "test_accuracy?": SHARE,
            "val_loss?": NUMBER,
            "test_loss?": NUMBER,
        }
    ],
    "reduced_budget?": [TEXT],
}
REGRESSION: Spec = {
    "settings": {"seeds": POSITIVE, "epochs": POSITIVE, "target": WORD, "layers": WORD},
    "environment": {"device": WORD},
    "runs": [
        {
            "net": WORD,
            "function": TEXT,
            "epochs": POSITIVE,
            "seed": SEED,
            "published_metric": NUMBER,
        }
    ],
}


def refuse_other_shapes(record: Mapping[str, Any], what: str, whole: bool = True) -> None:
    """Refuse a record that nothing can be computed from.

    Args:
        record: Of a run, or of the regression.
        what: What it is called in the message.
        whole: Whether parts that are missing matter as well.

    Raises:
        UserError: naming the first parts that are missing or of another kind.
    """
    spec = REGRESSION if record.get("kind") == "regression" else RUN
    wrong = list(problems(record, spec, "", whole))
    if not wrong and spec is RUN:
        wrong = list(_against_itself(record))
    if wrong:
        raise UserError(f"{what} is not built as a record: {'; '.join(wrong[:3])}")


def refuse_other_counts(counts: Any, what: str) -> None:
    """Refuse what is no table of counts by name of the cell.

    Args:
        counts: As read.
        what: What it is called in the message.

    Raises:
        UserError: naming the first parts that are missing or of another kind.
    """
    wrong = list(problems(counts, {"*": COUNTS}, "", True))
    if wrong:
        raise UserError(f"{what} cannot be read: {'; '.join(wrong[:3])}")


def problems(value: Any, spec: Spec, where: str, whole: bool) -> Iterator[str]:
    """What is wrong with a value, one part after another.

    Args:
        value: As read.
        spec: What it should be.
        where: What it is called; empty for the outermost.
        whole: Whether parts that are missing matter as well.
    """
    if isinstance(spec, Kind):
        if not spec.fits(value):
            yield f"{where} is {_short(value)}, not {spec.called}"
    elif isinstance(spec, list):
        if not isinstance(value, list):
            yield f"{where} is {_short(value)}, not a list"
            return
        for index, item in enumerate(value):
            yield from problems(item, spec[0], f"{where}[{index}]", whole)
    elif not isinstance(value, Mapping):
        yield f"{where or 'it'} is {_short(value)}, not a group"
    else:
        yield from _entries(value, spec, f"{where}." if where else "", whole)


def _entries(value: Mapping[str, Any], spec: dict[str, Any], where: str, whole: bool) -> Any:
    named = {key.removesuffix("?"): key for key in spec if key != "*"}
    for name, key in named.items():
        if name not in value:
            if whole and not key.endswith("?"):
                yield f"it lacks {where}{name}"
        elif not (key.endswith("?") and value[name] is None):
            yield from problems(value[name], spec[key], f"{where}{name}", whole)
    if "*" in spec:
        for name in value:
            if name not in named:
                yield from problems(value[name], spec["*"], f"{where}{name}", whole)


def _against_itself(record: Mapping[str, Any]) -> Iterator[str]:
    for part in ("last", "selected"):
        found = (record.get("test") or {}).get(part) or {}
        if found.get("correct", 0) > found.get("count", 2**63):
            yield f"test.{part}.correct is above test.{part}.count"
    said = ((record.get("config") or {}).get("protocol") or {}).get("select_on")
    on = (record.get("selection") or {}).get("on")
    if None not in (said, on) and said != on:
        yield f"selection.on is {on}, config.protocol.select_on {said}"


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())  # a tensor's has lines
    return text if len(text) <= 40 else f"{text[:40]}..."
