"""Properties over made-up inputs: readers refuse in words, and what they accept they keep."""

import json
import math

import pytest

pytest.importorskip("hypothesis")
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_records import committed

from spinal_repro.config import compose
from spinal_repro.errors import UserError
from spinal_repro.reading import read_json, read_yaml
from spinal_repro.record_shape import refuse_other_shapes
from spinal_repro.records import stored_config
from spinal_repro.results.tables import escape_latex, escape_markdown
from spinal_repro.text import printable

few = settings(
    max_examples=60,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["${oc.env:HOME}", "???", "_target_", "", "../x", "nan", "0", "null"]),
)
TREES = st.recursive(
    ODD,
    lambda inside: st.one_of(
        st.lists(inside, max_size=3), st.dictionaries(st.text(max_size=8), inside, max_size=3)
    ),
    max_leaves=8,
)
PLAIN = compose(["dataset=mnist", "model=vgg5", "head=spinal"]).to_dict()
GROUPS = sorted(PLAIN)


def leaves(value, path=()):
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    else:
        yield path


CONFIG_LEAVES = sorted(leaves(PLAIN), key=str)
RECORD_LEAVES = sorted(leaves({k: v for k, v in committed().items() if k != "timing"}), key=str)


def changed(whole, path, value):
    """The same nested mapping with another value in one place."""
    if not path:
        return value
    return {**whole, path[0]: changed(whole[path[0]], path[1:], value)}


@settings(few, max_examples=25)
@given(path=st.sampled_from(CONFIG_LEAVES), value=TREES)
def test_configurations_with_another_value_in_one_place(path, value):
    try:
        found = stored_config(changed(PLAIN, path, value))
    except UserError as error:
        assert str(error)
        return
    again = stored_config(found.to_dict())
    assert again.identity() == found.identity()
    assert str(found.run_dir).count("/") == str(stored_config(PLAIN).run_dir).count("/") or (
        path == ("runs",)
    )
    json.dumps(found.to_dict(), allow_nan=False)


@settings(few, max_examples=25)
@given(group=st.sampled_from(GROUPS), value=TREES)
def test_configurations_with_another_group(group, value):
    try:
        stored_config({**PLAIN, group: value})
    except UserError as error:
        assert str(error)


@few
@given(path=st.sampled_from(RECORD_LEAVES), value=TREES)
def test_records_with_another_value_in_one_place(path, value):
    record = changed(committed(), path, value)
    try:
        refuse_other_shapes(record, "it")
    except UserError:
        return
    selected = record["test"]["selected"]
    assert 0 <= selected["correct"] <= selected["count"]
    assert math.isfinite(record["test"]["last"]["accuracy"])


@few
@given(st.binary(max_size=200))
def test_any_bytes_as_yaml_and_json(tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    for read in (read_json, read_yaml):
        try:
            read(path)
        except UserError as error:
            assert str(path) in str(error)


@few
@given(st.text())
def test_any_text_can_be_shown(text):
    shown = printable(text)
    assert shown.encode() and printable(shown) == shown if text else shown == ""
    assert "\n" not in escape_markdown(text) and "\n" not in escape_latex(text)
    assert "<" not in escape_markdown(text)
