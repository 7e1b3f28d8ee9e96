"""spinal records add: what holds together goes in, what does not is refused, all or nothing."""

import json

import pytest
from helpers.made_records import FC, committed, grouped, path_of, regression_record

from spinal_repro.cli.spinal import main
from spinal_repro.io import write_json
from spinal_repro.records.record import stored_config

FC0, SPINAL0 = path_of("fc"), path_of("spinal")


def add(*files, out):
    main(["records", "add", *map(str, files), "--out", str(out)])


def refused(capsys, *files, out) -> str:
    with pytest.raises(SystemExit) as stop:
        add(*files, out=out)
    assert stop.value.code == 2 and not list(out.rglob("*.json"))
    return capsys.readouterr().err


def test_real_records_are_copied_to_their_table(tmp_path, capsys):
    add(FC0, SPINAL0, out=tmp_path)
    names = sorted(path.name for path in tmp_path.glob("mnist/*.json"))
    assert names == [FC0.name, SPINAL0.name]
    assert (tmp_path / "mnist" / names[0]).read_bytes() == FC0.read_bytes()
    assert "differs" not in capsys.readouterr().out


def test_run_folders_and_regressions_are_taken_too(tmp_path):
    run = tmp_path / "runs" / "s0"
    run.mkdir(parents=True)
    write_json(run / "record.json", committed())
    write_json(tmp_path / "r.json", regression_record())
    add(run, tmp_path / "r.json", out=tmp_path / "out")
    found = sorted(path.name for path in (tmp_path / "out").rglob("*.json"))
    assert found == [FC0.name, "column-distinct-200-s4.json"]


def test_one_bad_record_keeps_all_out(tmp_path, capsys):
    bad = committed("spinal")
    bad["counts"]["head_parameters"] += 1
    write_json(tmp_path / "bad.json", bad)
    said = refused(capsys, FC0, tmp_path / "bad.json", out=tmp_path / "out")
    assert "nothing was added" in said and "bad.json: counts.head_parameters is 8539" in said


def test_a_known_run_is_refused(tmp_path, capsys):
    assert "already have this run" in refused_again(tmp_path, capsys, [FC0])
    assert "already have this run" in refused(capsys, SPINAL0, SPINAL0, out=tmp_path / "other")


def refused_again(tmp_path, capsys, files) -> str:
    add(*files, out=tmp_path / "out")
    with pytest.raises(SystemExit):
        add(*files, out=tmp_path / "out")
    assert len(list((tmp_path / "out").rglob("*.json"))) == len(files)
    return capsys.readouterr().err


def test_what_differs_from_the_cell_is_said(tmp_path, capsys):
    record = committed()
    record["config"]["recipe"]["lr"] = 0.02
    record["identity"] = stored_config(record["config"]).identity()
    record["git"]["modified"] = True
    write_json(tmp_path / "x.json", record)
    add(tmp_path / "x.json", out=tmp_path / "out")
    said = capsys.readouterr().out
    assert "differs from mnist/cnn_fc: recipe.lr 0.02 instead of 0.01" in said
    assert "uncommitted changes" in said
    (copy,) = (tmp_path / "out").rglob("*.json")
    assert grouped([FC], [json.loads(copy.read_text())])[0].verdict == "changed recipe"


def test_a_run_of_no_cell_is_refused(tmp_path, capsys):
    record = committed()
    del record["config"]["cell"]
    write_json(tmp_path / "x.json", record)
    said = refused(capsys, tmp_path / "x.json", out=tmp_path / "out")
    assert "names no published cell" in said and "spinal-train paper=CELL" in said


def test_what_is_no_record_is_refused(tmp_path, capsys):
    (tmp_path / "x.json").write_text('{"schema_version": 7}')
    assert "version is 7" in refused(capsys, tmp_path / "x.json", out=tmp_path / "out")
    assert "cannot be read" in refused(capsys, tmp_path / "y.json", out=tmp_path / "out")
