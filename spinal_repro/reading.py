"""Reading JSON and YAML that somebody else wrote.

Both are read whole or refused with a reason: nothing in them is executed, and none is so large,
so deep or so full of references that reading it never ends.
"""

import json
import math
import os
import stat
from pathlib import Path
from typing import Any, NoReturn

import yaml

from spinal_repro.errors import UserError
from spinal_repro.text import printable

MAX_BYTES = 64 * 2**20  # a record of 200 epochs has 100 kB, one of 50 regressions 300 kB
MAX_YAML = 2**20  # a configuration has 4 kB
MAX_NODES = 100_000  # of a YAML file, each reference counted as what it stands for
MAX_DEPTH = 50
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast where it is there


def read_file(path: Path, limit: int = MAX_BYTES) -> bytes:
    """The contents of a regular file.

    Args:
        path: The file.
        limit: Bytes it may have.

    Raises:
        UserError: where it cannot be read, is no regular file (reading from a pipe never ends),
            or is too large.
    """
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise UserError(f"{_name(path)} is no regular file")
            content = file.read(limit + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{_name(path)} cannot be read: {_said(error)}") from error
    if len(content) > limit:
        raise UserError(
            f"{_name(path)} has more than the {limit:,} bytes that such a file may have"
        )
    return content


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def read_json(path: Path, limit: int = MAX_BYTES) -> Any:
    """JSON with finite numbers only.

    Args:
        path: The file.
        limit: Bytes it may have.

    Raises:
        UserError: where it cannot be read or is no such JSON.
    """
    return parse_json(read_file(path, limit), _name(path))


def parse_json(content: bytes | str, what: str) -> Any:
    """JSON with finite numbers only.

    Args:
        content: The text.
        what: Where it is from, for the message.

    Raises:
        UserError: where it is no such JSON.
    """
    try:
        text = content.decode() if isinstance(content, bytes) else content
        return json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{what} cannot be read: {_said(error)}") from error


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is too large a number")
    return value


def read_yaml(path: Path, limit: int = MAX_YAML) -> Any:
    """YAML as plain containers; tags that would make objects are refused.

    Args:
        path: The file.
        limit: Bytes it may have.

    Raises:
        UserError: where it cannot be read, or its references multiply.
    """
    content = read_file(path, limit)
    try:
        text = content.decode()
        _bounded(text)
        return yaml.load(text, Loader=_LOADER)
    except (yaml.YAMLError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise UserError(f"{_name(path)} cannot be read: {_said(error)}") from error


def _bounded(text: str) -> None:
    """Refuse what nests too deep (the parser in C would crash) or multiplies by references."""
    depth, refers = 0, False
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        refers = refers or isinstance(event, yaml.AliasEvent)
    if refers:  # before anything is made of it: merging repeats what it refers to
        node = yaml.compose(text, Loader=_LOADER)
        if node is not None:
            _size(node, {}, 0)


def _size(node: yaml.Node, known: dict[int, int], depth: int) -> int:
    """Nodes of a tree in which the same node may stand in many places, each counted anew."""
    if depth > MAX_DEPTH:
        raise ValueError(f"its references nest more than {MAX_DEPTH} deep")
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in known:
        pairs = isinstance(node, yaml.MappingNode)
        inside = [item for pair in node.value for item in pair] if pairs else node.value
        known[id(node)] = 1 + sum(_size(item, known, depth + 1) for item in inside)
        if known[id(node)] > MAX_NODES:
            raise ValueError(f"its references make more than {MAX_NODES:,} values of it")
    return known[id(node)]


def _name(path: Path) -> str:
    return printable(str(path))


def _said(error: Exception) -> str:
    """An error on one line."""
    return printable(" ".join(str(error).split())) or type(error).__name__
