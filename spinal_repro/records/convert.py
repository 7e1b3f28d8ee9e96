"""Conversion between dataclasses and plain JSON or YAML, validated by their annotations."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass
from types import NoneType
from typing import Annotated, Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from spinal_repro.errors import UserError, unknown

T = TypeVar("T")
Converter = Callable[[Any, str], Any]  # of a value and its dotted key
SCALARS: dict[Any, frozenset[type]] = {
    kind: frozenset({kind, int} if kind is float else {kind}) for kind in (int, float, str, bool)
}
TYPE_NAMES = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


@dataclass(frozen=True)
class Range:
    """Bounds of a number, both included: ``Annotated[float, Range(0, 1)]``."""

    least: float
    most: float = math.inf


def from_plain(kind: type[T], value: Any, where: str = "") -> T:
    """Build a value from plain containers; keys and types must be those of the annotations.

    These are dataclasses, int, float, str, bool, Any, and list, dict, Literal, Annotated (with
    `Range`) and ``| None`` of them. Messages begin with ``where``, the dotted key of the value.
    """
    return cast(T, _converter(cast(Any, kind))(value, where))


def to_plain(value: Any) -> Any:
    """Convert a dataclass to plain containers; fields with their default are omitted."""
    if isinstance(value, list):
        return [to_plain(item) for item in value]
    if not dataclasses.is_dataclass(value):
        return value
    found = ((field, getattr(value, field.name)) for field in dataclasses.fields(value))
    return {field.name: to_plain(item) for field, item in found if item != field.default}


@functools.cache  # annotations are looked into once, not for each of thousands of records
def _converter(kind: Any) -> Converter:
    """Make the function that converts the value at a dotted key to an annotation."""
    if kind is Any:
        return lambda value, where: value
    if kind in SCALARS:
        return lambda value, where: (
            value if type(value) in SCALARS[kind] else _refuse(value, TYPE_NAMES[kind], where)
        )
    if dataclasses.is_dataclass(kind):
        return _of_dataclass(kind)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return lambda value, where: (
            value if value in arguments else _refuse(value, " or ".join(arguments), where)
        )
    if origin in (list, dict):
        return _of_container(origin, arguments[-1])
    of, limits = arguments  # of Annotated; or a type and None, in either order
    if origin is Annotated:
        return lambda value, where: _in_range(_converter(of)(value, where), limits, where)
    item = _converter(limits if of is NoneType else of)
    return lambda value, where: None if value is None else item(value, where)


def _of_container(origin: Any, of: Any) -> Converter:
    item, scalars = _converter(of), SCALARS.get(of, frozenset())

    def convert(value: Any, where: str) -> Any:
        if not isinstance(value, origin):
            return _refuse(value, "a list" if origin is list else "a mapping", where)
        entries = value.values() if origin is dict else value
        if of is Any or scalars.issuperset(map(type, entries)):
            return value
        if origin is list:
            return [item(entry, f"{where}[{i}]") for i, entry in enumerate(value)]
        return {key: item(entry, f"{where}.{key}") for key, entry in value.items()}

    return convert


def _in_range(value: Any, limits: Range, where: str) -> Any:
    if limits.least <= value <= limits.most:
        return value
    upper = "" if limits.most == math.inf else f" and at most {limits.most:g}"
    return _refuse(value, f"at least {limits.least:g}{upper}", where)


def _of_dataclass(kind: Any) -> Converter:
    hints, fields = get_type_hints(kind, include_extras=True), dataclasses.fields(kind)
    known = {field.name: _converter(hints[field.name]) for field in fields}
    needed = [field.name for field in fields if field.default is field.default_factory is MISSING]

    def convert(value: Any, where: str) -> Any:
        if not isinstance(value, Mapping):
            return _refuse(value, "a mapping", where)
        prefix = f"{where}." if where else ""
        for key in value:
            if key not in known:
                raise unknown("key", f"{prefix}{key}", [f"{prefix}{name}" for name in known])
        for name in needed:
            if name not in value:
                raise UserError(f"{prefix}{name} is missing")
        return kind(**{k: known[k](v, f"{prefix}{k}") for k, v in value.items()})

    return convert


def _refuse(value: Any, expected: str, where: str) -> None:
    text = repr(value)
    short = text if len(text) <= 40 else f"{text[:40]}..."
    raise UserError(f"{where or 'it'} must be {expected}, got {short}")
