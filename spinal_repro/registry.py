"""Registries of constructors by name; a constructor's signature is the schema of its options."""

import collections.abc
import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from spinal_repro.errors import UserError, check_known

T = TypeVar("T")


class Registry(Generic[T]):
    """Constructors by name, e.g. heads or backbones.

    The keyword-only parameters of a constructor are its options: a configuration is checked
    against their names, types and defaults. Positional parameters are set by the program
    (numbers of features and classes) and cannot be configured.
    """

    def __init__(self, noun: str) -> None:
        self.noun = noun
        self._items: dict[str, Callable[..., T]] = {}

    def register(self, name: str) -> Callable[[Callable[..., T]], Callable[..., T]]:
        """Decorate a constructor to register it under ``name``."""

        def add(constructor: Callable[..., T]) -> Callable[..., T]:
            if self._items.setdefault(name, constructor) is not constructor:
                raise ValueError(f"{self.noun} '{name}' is registered twice")
            return constructor

        return add

    def names(self) -> list[str]:
        """All registered names, sorted."""
        return sorted(self._items)

    def __getitem__(self, name: str) -> Callable[..., T]:
        check_known(self.noun, name, self._items)
        return self._items[name]

    def check(self, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """Convert options to the types of the constructor and fill in its defaults."""
        return merge_onto(_schema(self[name]), options, where=f"{self.noun} '{name}'")

    def build_entry(self, entry: Mapping[str, Any]) -> T:
        """Build from a mapping with a ``name`` and options, as in a recipe."""
        options = dict(entry)
        if "name" not in options:
            raise UserError(f"each {self.noun} needs a name, got {options}")
        return self.build(str(options.pop("name")), options)

    def build(self, name: str, options: Mapping[str, Any], *args: Any) -> T:
        """Check the options and call the constructor with ``args`` and them."""
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
    function = function.__init__ if inspect.isclass(function) else function
    hints = typing.get_type_hints(function)
    fields: list[tuple[str, Any, Any]] = []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is not parameter.KEYWORD_ONLY:
            continue
        hint, default = hints[name], parameter.default
        if typing.get_origin(hint) in (collections.abc.Sequence, tuple):  # a list in YAML
            hint = list[typing.get_args(hint)[0]]  # type: ignore[misc]
        known: Any = {} if default is parameter.empty else {"default": default}
        if isinstance(default, (list, tuple)):
            known = {"default_factory": functools.partial(list, default)}
        fields.append((name, hint, dataclasses.field(**known)))
    return dataclasses.make_dataclass("Options", fields, kw_only=True)


def merge_onto(schema: type, values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Validate values from YAML against a dataclass; messages begin with ``where``."""
    known = {field.name for field in dataclasses.fields(schema)}
    for key in values:
        check_known(f"option of {where}", key, known)
    try:
        merged = OmegaConf.merge(OmegaConf.structured(schema), dict(values))
        plain: Any = OmegaConf.to_container(merged, resolve=True, throw_on_missing=True)
    except TypeError as error:
        raise UserError(f"{where}: {error}") from None
    except OmegaConfBaseException as error:
        place = [where, *([str(error.full_key)] if error.full_key else [])]
        raise UserError(": ".join([*place, str(error).splitlines()[0]])) from None
    return {str(key): value for key, value in plain.items()}
