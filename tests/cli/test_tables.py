"""spinal tables: written, checked, and the same bytes every time."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.made_records import RECORDS, made, path_of

from spinal_repro.cli.spinal import main
from spinal_repro.io import write_json
from spinal_repro.paper.cells import load_cells, table_titles
from spinal_repro.results.verdicts import RULES

ROOT = RECORDS.parent.parent
FIRST = f"results/records/mnist/{path_of('fc').name}"


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A folder with the committed MNIST records and counts, and a README with a marker."""
    shutil.copytree(RECORDS / "mnist", tmp_path / "results" / "records" / "mnist")
    shutil.copy(RECORDS.parent / "counts.json", tmp_path / "results")
    marker = "# X\n<!-- table: mnist/cnn_fc mnist/cnn_spinal8 -->\nold\n<!-- end -->\nrest\n"
    (tmp_path / "README.md").write_text(marker)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def made_tables(here) -> Path:
    """The same folder with its tables."""
    assert exit_code() == 0
    return here


def generated(folder: Path) -> dict[str, bytes]:
    files = [*folder.glob("results/tables/*"), folder / "results/README.md", folder / "README.md"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def exit_code(*arguments: str) -> int:
    try:
        main(["tables", *arguments])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def rows(folder: Path, table: str, cell: str = "", protocol: str = "") -> list[dict[str, str]]:
    """Rows of a table, those of one cell and protocol where these are named."""
    with (folder / "tables" / f"{table}.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    found = [row for row in found if cell in ("", row["cell"])]
    return [row for row in found if protocol in ("", row.get("protocol"))]


@pytest.mark.xdist_group("paper")  # where the cells are composed
def test_the_committed_tables_are_what_the_committed_records_give(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert exit_code("--check") == 0


def test_every_table_is_written_and_written_again_the_same(made_tables):
    first = generated(made_tables)
    names = [*table_titles(), "sizes", "pairs", "selection"]
    expected = {f"results/tables/{name}.{end}" for name in names for end in ("md", "csv", "tex")}
    assert set(first) == {*expected, "results/README.md", "README.md"}
    assert exit_code() == 0 and generated(made_tables) == first
    assert exit_code("--check") == 0
    for content in first.values():
        assert content.endswith(b"\n") and b"\r" not in content


def test_the_numbers_are_those_of_the_records(made_tables):
    results = made_tables / "results"
    (row,) = rows(results, "mnist", "mnist/cnn_fc", "paper")
    records = [json.loads(path.read_text()) for path in results.glob("**/cnn_fc-paper-*.json")]
    last = [100 * record["test"]["last"]["accuracy"] for record in records]
    assert float(row["mean"]) == pytest.approx(sum(last) / 5)
    assert (row["n"], row["verdict"], row["marks"]) == ("5", "reproduced", "")
    assert float(row["difference"]) == pytest.approx(float(row["mean"]) - float(row["published"]))
    (size,) = rows(results, "sizes", "mnist/cnn_spinal8")
    assert (size["head_parameters"], size["source"]) == ("8538", "records")
    assert float(size["head_multiplications_change"]) == pytest.approx(-48.606, abs=1e-3)
    (pair,) = rows(results, "pairs", "mnist/cnn_spinal8", "paper")
    assert pair["counterpart"] == "mnist/cnn_fc" and float(pair["p"]) == 2 / 32
    (selection,) = rows(results, "selection", "mnist/cnn_fc", "paper")
    assert float(selection["best_on_test"]) >= float(selection["last"])
    assert selection["by_validation"] == ""
    (held,) = rows(results, "selection", "mnist/cnn_fc", "heldout")
    gain = float(held["best_on_test"]) - float(held["by_validation"])
    assert gain >= 0 and float(held["gain"]) == pytest.approx(gain)


def test_every_cell_has_a_row_and_every_verdict_its_rule(made_tables):
    for table in table_titles():
        cells = [cell.name for cell in load_cells(f"{table}/*")]
        found = [row["cell"] for row in rows(made_tables / "results", table)]
        assert list(dict.fromkeys(found)) == cells
    page = (made_tables / "results/tables/mnist.md").read_text()
    assert all(f"{word}: " in page for word in RULES)
    assert "Margin here: 0.5 percentage points" in page


def test_a_changed_record_fails_the_check(made_tables, capsys):
    record = json.loads((made_tables / FIRST).read_text())
    record["test"]["last"]["correct"] -= 100
    write_json(made_tables / FIRST, record)
    before = generated(made_tables)
    assert exit_code("--check") == 1
    said = capsys.readouterr().err
    assert "results/README.md" in said and "results/tables/mnist.csv" in said
    assert "transfer.md" not in said and generated(made_tables) == before


def test_a_reordered_or_doubled_record_changes_nothing(made_tables):
    folder = made_tables / "results/records"
    shutil.copy(made_tables / FIRST, folder / "copy.json")
    (made_tables / FIRST).rename(folder / "z.json")
    assert exit_code("--check") == 0


def test_a_table_that_is_no_longer_made_is_noticed_and_removed(made_tables):
    tables = made_tables / "results/tables"
    for suffix in ("md", "csv", "tex"):
        shutil.copy(tables / f"mnist.{suffix}", tables / f"gone.{suffix}")
    (tables / "mine.md").write_text("not generated")
    assert exit_code("--check") == 1
    assert exit_code() == 0
    assert not list(tables.glob("gone.*")) and (tables / "mine.md").exists()


def test_runs_of_this_machine_are_added_and_reduced_ones_marked(here):
    for seed in (0, 5):
        folder = here / "runs" / "mnist-cnn-fc" / "paper-1" / f"s{seed}"
        folder.mkdir(parents=True)
        write_json(folder / "record.json", made(seed=seed, epochs=2, identity="11111111"))
        write_json(folder / "status.json", {"state": "done"})
    readme = (here / "README.md").read_bytes()
    assert exit_code("--runs", "--out", "my") == 0
    whole, reduced = rows(here / "my", "mnist", "mnist/cnn_fc", "paper")
    assert (whole["n"], whole["verdict"]) == ("5", "reproduced")
    assert (reduced["n"], reduced["verdict"]) == ("2", "reduced budget")
    assert reduced["marks"] == "2 of 8 epochs" and reduced["epochs"] == "2 of 8"
    assert "Your runs" not in (here / "my/README.md").read_text()
    assert (here / "README.md").read_bytes() == readme


def test_a_run_that_names_no_cell_is_listed_and_counts_for_none(here):
    exit_code("--out", "before")
    record = made(seed=5, correct=9123, identity="11111111")
    del record["config"]["cell"]
    write_json(here / "results/records/mnist/mine.json", record)
    exit_code("--out", "after")
    for path in (here / "before").rglob("*.*"):
        new = (here / "after" / path.relative_to(here / "before")).read_text()
        if path.name == "README.md":
            new, _, own = new.partition("\n## Your runs\n")
            assert "| mnist | cnn | fc | paper | cpu | 8 | 5 | 91.23 | 91.23 |" in own
        assert new == path.read_text()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--records", "nowhere"], "there is no folder nowhere"),
        (["--runs"], "--out my"),
        (["--runs", "nowhere", "--out", "my"], "there is no folder nowhere"),
        (["--out", "README.md"], "cannot be written"),
    ],
    ids=str,
)
def test_usage(here, capsys, arguments, message):
    assert exit_code(*arguments) == 2
    said = capsys.readouterr().err
    assert message in said and len(said.splitlines()) == 1


def test_broken_input_is_named(here, capsys):
    (here / "README.md").write_text("<!-- table: mnits/cnn_fc -->\n<!-- end -->\n")
    assert exit_code() == 2
    assert "mnits/cnn_fc" in capsys.readouterr().err
    (here / FIRST).write_text("{")
    assert exit_code() == 2
    assert "s0.json cannot be read" in capsys.readouterr().err
    assert not (here / "results/tables").exists()


def test_tables_never_import_torch(here):
    code = (
        "import sys; sys.modules['torch'] = sys.modules['torchvision'] = None\n"
        "from spinal_repro.cli.spinal import main; main(['tables'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (here / "results/README.md").is_file()


def test_outside_a_checkout_runs_of_this_machine_are_enough(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(RECORDS / "curve", tmp_path / "runs")
    assert exit_code("--out", "my") == 2
    assert exit_code("--runs", "runs", "--out", "my") == 0
    assert any(row["n"] not in ("", "0") for row in rows(tmp_path / "my", "curve"))
