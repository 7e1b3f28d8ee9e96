"""A constructor's keyword-only parameters are the schema of its configuration."""

from collections.abc import Sequence

import pytest

from spinal_repro.errors import UserError
from spinal_repro.registry import Registry


class Gadget:
    def __init__(
        self,
        size: int,
        *,
        depth: int,
        rate: float = 0.5,
        fast: bool = False,
        colour: str = "red",
        widths: Sequence[int] = (1, 2),
        bounds: tuple[float, ...] = (0.0, 1.0),
        limit: int | None = None,
    ) -> None:
        if depth < 0:
            raise ValueError(f"depth must not be negative, got {depth}")
        if colour == "plaid":
            raise UserError("plaid is out of stock")
        self.size, self.depth, self.widths = size, depth, widths


DEFAULTS = {
    "rate": 0.5, "fast": False, "colour": "red", "widths": [1, 2], "bounds": [0.0, 1.0],
    "limit": None,
}  # fmt: skip


@pytest.fixture
def gadgets() -> Registry[Gadget]:
    registry: Registry[Gadget] = Registry("gadget")
    registry.register("gadget")(Gadget)
    registry.register("small")(lambda size: Gadget(size, depth=0))
    return registry


def test_defaults_are_filled_in_and_not_shared(gadgets):
    for _ in range(2):
        checked = gadgets.check("gadget", {"depth": 3})
        assert checked == {"depth": 3, **DEFAULTS}
        checked["widths"].append(99)


@pytest.mark.parametrize(
    "given, converted",
    [
        ({"depth": "3"}, 3), ({"rate": 1}, 1.0), ({"fast": "true"}, True), ({"colour": 7}, "7"),
        ({"bounds": [1, 2]}, [1.0, 2.0]), ({"limit": 5}, 5), ({"widths": (4, 5, 6)}, [4, 5, 6]),
        ({"widths": []}, []),
    ],
)  # fmt: skip
def test_values_are_converted_to_the_types_of_the_signature(gadgets, given, converted):
    (name,) = given
    value = gadgets.check("gadget", {"depth": 1} | given)[name]
    assert value == converted and type(value) is type(converted)


@pytest.mark.parametrize(
    "name, options, words",
    [
        ("gaget", {}, "'gadget'"),
        ("gadget", {"dpeth": 1}, "'depth'"),
        ("gadget", {"rate": 0.1}, r"depth\b"),  # missing
        ("gadget", {"depth": 1, "size": 2}, "'size'"),  # positional: set by the program
        ("small", {"depth": 1}, "known: none"),
        *(
            ("gadget", {"depth": 1, option: value}, rf"gadget 'gadget': {option}\b")
            for option, value in (
                ("depth", "three"), ("depth", 1.5), ("depth", None), ("rate", [0.5]),
                ("fast", "maybe"), ("colour", ["red"]), ("widths", 3), ("widths", "wide"),
                ("widths", [1, "two"]), ("bounds", [0.0, None]),
                ("limit", "all"),
            )
        ),
    ],
)  # fmt: skip
def test_names_and_types_that_do_not_fit_are_refused(gadgets, name, options, words):
    with pytest.raises(UserError, match=words):
        gadgets.check(name, options)


def test_a_name_is_registered_once(gadgets):
    with pytest.raises(ValueError, match="registered twice"):
        gadgets.register("gadget")(lambda size: None)


def test_build_passes_arguments_and_checked_options(gadgets):
    gadget = gadgets.build("gadget", {"depth": "2", "widths": (9,)}, 40)
    assert (gadget.size, gadget.depth, gadget.widths) == (40, 2, [9])
    with pytest.raises(UserError, match="gadget 'gadget': depth must not be"):
        gadgets.build("gadget", {"depth": -1}, 40)
    with pytest.raises(UserError, match="plaid"):
        gadgets.build("gadget", {"depth": 1, "colour": "plaid"}, 40)
    with pytest.raises(TypeError):  # a mistake in the program is not hidden: the size is missing
        gadgets.build("gadget", {"depth": 1})
