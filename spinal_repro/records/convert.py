"""Conversion between dataclasses and plain JSON or YAML, validated by their annotations."""

import dataclasses
import functools
import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from spinal_repro.errors import UserError, unknown

T = TypeVar("T")
TYPE_NAMES = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


@dataclass(frozen=True)
class Range:
    """Bounds of a number, both included: ``Annotated[float, Range(0, 1)]``."""

    least: float
    most: float = math.inf


def from_plain(kind: type[T], value: Any, where: str = "") -> T:
    """Build a value from plain containers; keys and types must be those of the annotations.

    Args:
        kind: A dataclass, or int, float, str, bool, Any, and list, dict, Literal, Annotated
            (with `Range`) and ``| None`` of them.
        where: Dotted key of the value, for messages.
    """
    return cast(T, _convert(kind, value, where))


def to_plain(value: Any) -> Any:
    """Convert a dataclass to plain containers; fields with their default are omitted."""
    if isinstance(value, list):
        return [to_plain(item) for item in value]
    if not dataclasses.is_dataclass(value):
        return value
    found = ((field, getattr(value, field.name)) for field in dataclasses.fields(value))
    return {field.name: to_plain(item) for field, item in found if item != field.default}


def _convert(kind: Any, value: Any, where: str) -> Any:
    if kind in TYPE_NAMES:
        fits = type(value) is kind or (kind is float and type(value) is int)
        return value if fits else _refuse(value, TYPE_NAMES[kind], where)
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind, value, where)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        found, limits = _convert(arguments[0], value, where), arguments[1]
        if limits.least <= found <= limits.most:
            return found
        upper = "" if limits.most == math.inf else f" and at most {limits.most:g}"
        return _refuse(value, f"at least {limits.least:g}{upper}", where)
    if origin is Literal:
        return value if value in arguments else _refuse(value, " or ".join(arguments), where)
    if origin is UnionType:
        (other,) = (argument for argument in arguments if argument is not NoneType)
        return None if value is None else _convert(other, value, where)
    if not isinstance(value, origin):
        return _refuse(value, "a list" if origin is list else "a mapping", where)
    if origin is list:
        return [_convert(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value)]
    return {key: _convert(arguments[1], item, f"{where}.{key}") for key, item in value.items()}


def _dataclass(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, Mapping):
        return _refuse(value, "a mapping", where)
    hints, prefix = _hints(kind), f"{where}." if where else ""
    for key in value:
        if key not in hints:
            raise unknown("key", f"{prefix}{key}", [f"{prefix}{name}" for name in hints])
    for field in dataclasses.fields(kind):
        if field.name not in value and field.default is field.default_factory is MISSING:
            raise UserError(f"{prefix}{field.name} is missing")
    return kind(**{k: _convert(hints[k], item, f"{prefix}{k}") for k, item in value.items()})


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def _refuse(value: Any, expected: str, where: str) -> None:
    text = repr(value)
    short = text if len(text) <= 40 else f"{text[:40]}..."
    raise UserError(f"{where or 'it'} must be {expected}, got {short}")
