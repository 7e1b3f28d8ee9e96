"""Records read, checked and written in one place."""

import json

import pytest
from helpers.composing import composed
from helpers.made_records import RECORDS, committed, gradient_record, path_of, regression_record

from spinal_repro.errors import UserError
from spinal_repro.io import write_json
from spinal_repro.records.record import (
    SCHEMA_VERSION,
    Record,
    load_record,
    parse_record,
    read_record,
    stored_config,
    write_record,
)


def test_every_committed_record_is_written_as_it_was_read(tmp_path):
    paths = list(RECORDS.rglob("*.json"))
    kinds = set()
    for path in paths:
        record = load_record(path)
        write_record(tmp_path / "again.json", record)
        assert (tmp_path / "again.json").read_bytes() == path.read_bytes(), path
        if isinstance(record, Record):
            assert record.identity == record.run.split("/")[1].split("-")[1]
            assert record.identity in path.name
        kinds.add(type(record))
    assert len(paths) > 90 and len(kinds) == 3


def test_the_identity_of_committed_records_is_that_of_their_configuration():
    paths = sorted(RECORDS.glob("*/*-s0.json"))
    assert len(paths) >= 25
    for record in map(read_record, paths):
        config = stored_config(record.config)
        assert config.identity() == record.identity
        assert record.run == "/".join(config.run_dir.parts[-3:])


def test_a_record_of_version_1_gets_the_identity_of_today(tmp_path):
    old = committed() | {"schema_version": 1, "identity": "eb7f4acf"}
    old["run"] = "mnist-cnn-fc/paper-eb7f4acf/s0"
    old["config"]["runtime"]["self_check"] = True  # a setting that is gone
    old["config"]["recipe"].pop("prepare")  # younger than the record
    write_json(tmp_path / "record.json", old)
    record, today = read_record(tmp_path / "record.json"), read_record(path_of("fc"))
    assert (record.identity, record.run) == (today.identity, today.run)
    assert record.history == today.history and record.test == today.test


@pytest.mark.parametrize("version", [999, "1", None, True])
def test_another_version_is_refused(version):
    with pytest.raises(UserError, match=rf"version.*{SCHEMA_VERSION}"):
        parse_record(committed() | {"schema_version": version})
    with pytest.raises(UserError, match="version"):
        stored_config({**composed().to_dict(), "schema_version": version})


@pytest.mark.parametrize("content", ["[1, 2]", "null", "{", '{"schema_version": 2, "test"'])
def test_other_files_are_refused_by_name(tmp_path, content):
    (tmp_path / "record.json").write_text(content)
    with pytest.raises(UserError, match=r"record\.json"):
        read_record(tmp_path / "record.json")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", -1),
        ("seed", True),
        ("config", 3),
        ("config.recipe", {}),
        ("config.protocol", "paper"),
        ("test.selected.correct", 10_001),
        ("test.last.accuracy", 1.5),
        ("test.last.accuracy", "0.5"),
        ("selection.on", "train"),
        ("selection.epoch", 0),
        ("counts.head_parameters", "many"),
        ("history", [{"epoch": 1, "test_accuracy": "x"}]),
        ("environment.device", None),
        ("data.normalisation", {"mean": [0.1], "std": "0.3"}),
        ("data.sizes", {"test": "many"}),
        ("warmup", 3),
    ],
)
def test_wrong_values_are_refused_by_key(key, value):
    record = committed()
    *parents, last = key.split(".")
    node = record
    for parent in parents:
        node = node[parent]
    node[last] = value
    with pytest.raises(UserError) as error:
        parse_record(record)
    assert last.removesuffix("d") in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("key", [key for key in committed() if key != "schema_version"])
def test_missing_keys_are_named(key):
    record = committed()
    del record[key]
    with pytest.raises(UserError, match=f"{key} is missing"):
        parse_record(record)


def test_regression_records_are_checked_too(tmp_path):
    record = regression_record()
    write_json(tmp_path / "r.json", record)
    with pytest.raises(UserError, match="spinal regression"):
        read_record(tmp_path / "r.json")
    del record["runs"][0]["seed"]
    with pytest.raises(UserError, match=r"runs\[0\].seed is missing"):
        parse_record(record)


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r["runs"].pop(),
        lambda r: r["runs"][0].update(net="linear"),
        lambda r: r["runs"][0].update(start=[1.0]),
        lambda r: r.update(seeds=5),
        lambda r: r.update(depths=[1, 2, 3]),
    ],
)
def test_a_record_of_gradients_has_every_net_depth_seed_and_layer(change):
    record = gradient_record()
    assert len(parse_record(record).runs) == 2 * 2 * 4
    change(record)
    with pytest.raises(UserError, match=r"runs|depths"):
        parse_record(record)


def test_stages_come_back_from_json():
    record = committed()
    record["config"]["recipe"]["stages"] = {"5": 0.001}
    assert stored_config(json.loads(json.dumps(record["config"]))).recipe.stages == {5: 0.001}
