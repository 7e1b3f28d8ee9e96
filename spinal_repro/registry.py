"""Names to constructors. The constructor's signature is the schema of its configuration."""

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from spinal_repro.errors import UserError, unknown

T = TypeVar("T")


class Registry(Generic[T]):
    """Constructors by name, e.g. heads or backbones.

    Keyword-only parameters of a constructor are its options: their names, types and
    defaults are what a configuration is checked against. Positional parameters are
    given by the program (feature counts, numbers of classes) and cannot be configured.
    """

    def __init__(self, noun: str) -> None:
        self.noun = noun
        self._items: dict[str, Callable[..., T]] = {}

    def register(self, name: str) -> Callable[[Callable[..., T]], Callable[..., T]]:
        """Decorator that makes a constructor known under ``name``."""

        def add(constructor: Callable[..., T]) -> Callable[..., T]:
            if name in self._items and self._items[name] is not constructor:
                raise ValueError(f"{self.noun} '{name}' is registered twice")
            self._items[name] = constructor
            return constructor

        return add

    def names(self) -> list[str]:
        """All registered names, sorted."""
        return sorted(self._items)

    def __getitem__(self, name: str) -> Callable[..., T]:
        if name not in self._items:
            raise unknown(self.noun, name, self._items)
        return self._items[name]

    def check(self, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """Options with their types converted and checked against the constructor.

        Raises:
            UserError: for an unknown name, an unknown option, a missing or ill-typed value.
        """
        constructor = self[name]
        schema = _schema(constructor)
        return merge_onto(schema, options, where=f"{self.noun} '{name}'")

    def build(self, name: str, options: Mapping[str, Any], *args: Any) -> T:
        """Check the options and call the constructor with ``args`` and them.

        Raises:
            UserError: as `check`, and where the constructor itself refuses a value.
        """
        checked = self.check(name, options)
        try:
            return self[name](*args, **checked)
        except UserError:
            raise
        except ValueError as error:
            raise UserError(f"{self.noun} '{name}': {error}") from error


def _schema(constructor: Callable[..., Any]) -> type:
    """A dataclass with one field for each keyword-only parameter of a constructor."""
    function: Any = constructor.func if isinstance(constructor, functools.partial) else constructor
    if inspect.isclass(function):
        function = function.__init__
    hints = typing.get_type_hints(function)
    fields: list[tuple[str, Any, Any]] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is not parameter.KEYWORD_ONLY:
            continue
        hint = hints[parameter.name]
        if typing.get_origin(hint) is not None and typing.get_origin(hint) not in (list, dict):
            arguments = typing.get_args(hint)
            # Sequence[int] and tuple[int, ...] arrive from YAML as lists
            if arguments and type(None) not in arguments:
                hint = list[arguments[0]]  # type: ignore[valid-type]
        default = parameter.default
        if default is parameter.empty:
            fields.append((parameter.name, hint, dataclasses.field()))
        elif isinstance(default, (list, tuple)):
            fresh: Any = functools.partial(list, default)
            fields.append((parameter.name, hint, dataclasses.field(default_factory=fresh)))
        else:
            fields.append((parameter.name, hint, dataclasses.field(default=default)))
    return dataclasses.make_dataclass("Options", fields, kw_only=True)


def merge_onto(schema: type, values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Merge plain values onto a dataclass schema: names, types and missing values are checked.

    Args:
        schema: A dataclass.
        values: Plain containers, as read from YAML.
        where: What the values are, for messages, e.g. ``"recipe"``.

    Returns:
        Plain containers with every field of the schema.
    """
    known = {field.name for field in dataclasses.fields(schema)}
    for key in values:
        if str(key) not in known:
            raise unknown(f"option of {where}", str(key), known)
    try:
        merged = OmegaConf.merge(OmegaConf.structured(schema), dict(values))
        plain = OmegaConf.to_container(merged, resolve=True, throw_on_missing=True)
    except TypeError as error:
        raise UserError(f"{where}: {error}") from None
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or getattr(error, "key", None) or ""
        message = str(error.msg if getattr(error, "msg", None) else error).splitlines()[0]
        raise UserError(f"{where}: {key}: {message}" if key else f"{where}: {message}") from None
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}
