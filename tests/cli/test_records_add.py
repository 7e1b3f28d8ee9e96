"""spinal records add: consistent records go in; one that is wrong keeps all out."""

import json

import pytest
from helpers.made_records import (
    FC,
    committed,
    gradient_record,
    grouped,
    path_of,
    regression_record,
)

from spinal_repro.io import write_json
from spinal_repro.records.record import stored_config

FC0, SPINAL0 = path_of("fc"), path_of("spinal")


@pytest.fixture
def add(call):
    return lambda *files: call("spinal", "records", "add", *map(str, files), "--out", "out")


@pytest.fixture
def changed(here):
    """A committed record with a change, as a file."""

    def write(change, head="fc"):
        record = committed(head)
        change(record)
        write_json(here / "x.json", record)
        return here / "x.json"

    return write


def test_real_records_are_copied_to_their_table_once(add, here):
    ended = add(FC0, SPINAL0)
    assert ended.code == 0 and "differs" not in ended.out
    copies = sorted((here / "out").rglob("*.json"))
    assert copies == [here / "out/mnist" / path.name for path in (FC0, SPINAL0)]
    assert [path.read_bytes() for path in copies] == [FC0.read_bytes(), SPINAL0.read_bytes()]
    assert add(FC0).code == 2  # nothing was added
    assert sorted((here / "out").rglob("*.json")) == copies


def test_known_runs_and_those_of_no_cell_are_skipped_by_name(add, changed, here):
    own = changed(lambda record: record["config"].pop("cell"))
    add(FC0)
    ended = add(FC0, own, SPINAL0, SPINAL0)
    assert ended.code == 0 and ended.out.count("added") == 1
    assert [line.split(":")[0] for line in ended.err.splitlines()] == [
        f"skipped {path}" for path in (FC0, own, SPINAL0)
    ]
    assert {path.name for path in here.glob("out/*/*")} == {FC0.name, SPINAL0.name}


def test_run_folders_and_experiments_are_taken_too(add, here):
    (here / "runs").mkdir()
    write_json(here / "runs/record.json", committed())
    write_json(here / "r.json", regression_record())
    write_json(here / "g.json", gradient_record())
    assert add("runs", "r.json", "g.json").code == 0
    found = sorted(path.name for path in (here / "out").rglob("*.json"))
    assert found == [FC0.name, "column-distinct-200-s4.json", "mnist-default-s4.json"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda r: r["counts"].update(head_parameters=1), "x.json: counts.head_parameters"),
        (lambda r: r["data"].pop("normalisation"), "x.json is not a valid record: data.norm"),
        (lambda r: r.update(schema_version=7), "version"),
    ],
)
def test_one_bad_record_keeps_all_out(add, changed, here, change, named):
    ended = add(FC0, changed(change, "spinal"))
    assert ended.code == 2 and named in ended.err
    assert not list(here.glob("out/*/*"))


def test_a_file_that_is_not_there_keeps_all_out(add, here):
    assert add(FC0, "nowhere.json").code == 2 and not list(here.glob("out/*/*"))


@pytest.mark.parametrize(
    ("group", "settings", "said"),
    [
        ("recipe", {"lr": 0.02}, "recipe.lr 0.02 instead of 0.01"),
        ("data", {"inputs": {"weights": "ab"}}, "of weights ab instead of that of the cell"),
    ],
)
def test_what_differs_from_the_cell_is_said(add, changed, here, group, settings, said):
    def change(record):
        record["config"][group].update(settings)
        record["identity"] = stored_config(record["config"]).identity()
        record["git"]["modified"] = True

    ended = add(changed(change))
    assert said in ended.out and "uncommitted" in ended.out
    (copy,) = (here / "out").rglob("*.json")
    assert grouped([FC], [json.loads(copy.read_text())])[0].verdict == "changed recipe"
