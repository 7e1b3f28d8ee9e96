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
        self.size = size
        self.options = {"depth": depth, "rate": rate, "widths": widths}


@pytest.fixture
def gadgets() -> Registry[Gadget]:
    registry: Registry[Gadget] = Registry("gadget")
    registry.register("gadget")(Gadget)
    registry.register("small")(lambda size: Gadget(size, depth=0))
    return registry


def test_defaults_fill_what_is_not_given(gadgets):
    assert gadgets.check("gadget", {"depth": 3}) == {
        "depth": 3,
        "rate": 0.5,
        "fast": False,
        "colour": "red",
        "widths": [1, 2],
        "bounds": [0.0, 1.0],
        "limit": None,
    }


def test_values_are_converted_to_the_types_of_the_signature(gadgets):
    given = {"depth": "3", "rate": 1, "fast": "true", "colour": 7, "bounds": [1, 2], "limit": 5}
    checked = gadgets.check("gadget", given)
    assert (checked["depth"], checked["fast"], checked["colour"]) == (3, True, "7")
    assert checked["limit"] == 5
    assert isinstance(checked["rate"], float)
    assert all(isinstance(bound, float) for bound in checked["bounds"])


@pytest.mark.parametrize(
    "option, value",
    [
        ("depth", "three"),
        ("depth", 1.5),
        ("depth", None),
        ("rate", "fast"),
        ("rate", [0.5]),
        ("fast", "maybe"),
        ("colour", ["red"]),
        ("widths", 3),
        ("widths", "wide"),
        ("widths", [1, "two"]),
        ("bounds", [0.0, None]),
        ("limit", "all"),
    ],
)
def test_wrong_types_are_refused_naming_gadget_and_option(gadgets, option, value):
    with pytest.raises(UserError, match=rf"gadget 'gadget': {option}\b"):
        gadgets.check("gadget", {"depth": 1, option: value})


@pytest.mark.parametrize("value", [[4, 5, 6], (4, 5, 6), []])
def test_sequences_may_be_lists_or_tuples_of_any_length(gadgets, value):
    assert gadgets.check("gadget", {"depth": 1, "widths": value})["widths"] == list(value)


def test_a_mapping_is_no_sequence(gadgets):
    with pytest.raises(UserError, match=r"gadget 'gadget': \w"):
        gadgets.check("gadget", {"depth": 1, "widths": {"low": 0}})


def test_default_sequences_are_not_shared(gadgets):
    gadgets.check("gadget", {"depth": 1})["widths"].append(99)
    assert gadgets.check("gadget", {"depth": 1})["widths"] == [1, 2]


def test_unknown_option_names_the_nearest(gadgets):
    with pytest.raises(UserError, match=r"option of gadget 'gadget' 'dpeth'; .* 'depth'\?"):
        gadgets.check("gadget", {"dpeth": 1})


def test_option_where_there_are_none(gadgets):
    with pytest.raises(UserError, match="no option of gadget 'small' 'depth'; known: none"):
        gadgets.check("small", {"depth": 1})


def test_missing_option_is_named(gadgets):
    with pytest.raises(UserError, match=r"gadget 'gadget': depth\b"):
        gadgets.check("gadget", {"rate": 0.1})


def test_positional_parameters_cannot_be_configured(gadgets):
    with pytest.raises(UserError, match="no option of gadget 'gadget' 'size'"):
        gadgets.check("gadget", {"depth": 1, "size": 2})


def test_unknown_name_names_the_nearest(gadgets):
    with pytest.raises(UserError, match=r"no gadget 'gaget'; did you mean 'gadget'\?"):
        gadgets.check("gaget", {})
    with pytest.raises(UserError, match="no gadget 'xyz'; known: gadget, small"):
        gadgets["xyz"]


def test_names_are_sorted(gadgets):
    gadgets.register("a")(Gadget)
    assert gadgets.names() == ["a", "gadget", "small"]


def test_a_name_is_given_once(gadgets):
    assert gadgets.register("gadget")(Gadget) is Gadget  # the same one again does no harm
    with pytest.raises(ValueError, match="gadget 'gadget' is registered twice"):
        gadgets.register("gadget")(lambda size: None)
    assert gadgets["gadget"] is Gadget


def test_build_passes_arguments_and_checked_options(gadgets):
    gadget = gadgets.build("gadget", {"depth": "2", "widths": (9,)}, 40)
    assert gadget.size == 40
    assert gadget.options["depth"] == 2
    assert gadget.options["widths"] == [9]


def test_build_names_what_the_constructor_refused(gadgets):
    with pytest.raises(UserError, match=r"^gadget 'gadget': depth must not be negative, got -1$"):
        gadgets.build("gadget", {"depth": -1}, 40)


def test_build_passes_user_errors_on_as_they_are(gadgets):
    with pytest.raises(UserError, match=r"^plaid is out of stock$"):
        gadgets.build("gadget", {"depth": 1, "colour": "plaid"}, 40)


def test_build_does_not_hide_programming_errors(gadgets):
    with pytest.raises(TypeError):
        gadgets.build("gadget", {"depth": 1})  # the size is the program's to give
