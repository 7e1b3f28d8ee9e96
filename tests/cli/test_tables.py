"""spinal tables: written, checked, the same bytes every time, and never with torch."""

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
from spinal_repro.results.tables import escape_latex, escape_markdown
from spinal_repro.results.verdicts import RULES

ROOT = RECORDS.parent.parent


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A folder with the committed MNIST records and counts, and a README with a marker."""
    shutil.copytree(RECORDS / "mnist", tmp_path / "results" / "records" / "mnist")
    shutil.copy(RECORDS.parent / "counts.json", tmp_path / "results")
    marker = "# X\n<!-- table: mnist/cnn_fc mnist/cnn_spinal8 -->\nold\n<!-- end -->\nrest\n"
    (tmp_path / "README.md").write_text(marker)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def generated(folder: Path) -> dict[str, bytes]:
    files = [*folder.glob("results/tables/*"), folder / "results/README.md", folder / "README.md"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def exit_code(*arguments: str) -> int:
    try:
        main(["tables", *arguments])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def rows(folder: Path, table: str) -> list[dict[str, str]]:
    with (folder / "results" / "tables" / f"{table}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.xdist_group("paper")  # where the cells are composed
def test_the_committed_tables_are_what_the_committed_records_give(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert exit_code("--check") == 0


def test_everything_is_written_once_and_for_all(here, capsys):
    assert exit_code() == 0
    first = generated(here)
    names = [*table_titles(), "sizes", "pairs", "selection"]
    expected = {f"results/tables/{name}.{end}" for name in names for end in ("md", "csv", "tex")}
    assert set(first) == {*expected, "results/README.md", "README.md"}
    assert exit_code() == 0 and generated(here) == first
    assert exit_code("--check") == 0
    assert "are what the records give" in capsys.readouterr().out
    for content in first.values():
        assert content.endswith(b"\n") and b"\r" not in content


def as_published(found, cell):
    """The rows of a cell that ran under the paper's protocol."""
    return [row for row in found if (row["cell"], row["protocol"]) == (cell, "paper")]


def test_the_numbers_are_those_of_the_records(here):
    exit_code()
    (row,) = as_published(rows(here, "mnist"), "mnist/cnn_fc")
    records = [json.loads(path.read_text()) for path in sorted(here.glob("**/cnn_fc-paper-*.json"))]
    last = [100 * record["test"]["last"]["accuracy"] for record in records]
    assert float(row["mean"]) == pytest.approx(sum(last) / 5)
    assert (row["n"], row["verdict"], row["marks"]) == ("5", "reproduced", "")
    assert float(row["difference"]) == pytest.approx(float(row["mean"]) - float(row["published"]))
    (size,) = [row for row in rows(here, "sizes") if row["cell"] == "mnist/cnn_spinal8"]
    assert (size["head_parameters"], size["source"]) == ("8538", "records")
    assert float(size["head_multiplications_change"]) == pytest.approx(-48.606, abs=1e-3)
    (pair,) = as_published(rows(here, "pairs"), "mnist/cnn_spinal8")
    assert pair["counterpart"] == "mnist/cnn_fc" and float(pair["p"]) == 2 / 32
    (selection,) = as_published(rows(here, "selection"), "mnist/cnn_fc")
    assert float(selection["best_on_test"]) >= float(selection["last"])
    assert selection["by_validation"] == ""
    (held,) = [
        row
        for row in rows(here, "selection")
        if (row["cell"], row["protocol"]) == ("mnist/cnn_fc", "heldout")
    ]
    gain = float(held["best_on_test"]) - float(held["by_validation"])
    assert gain >= 0 and float(held["gain"]) == pytest.approx(gain)


def test_every_cell_has_a_row_and_every_column_its_definition(here):
    exit_code()
    for table in table_titles():
        cells = [cell.name for cell in load_cells(f"{table}/*")]
        assert list(dict.fromkeys(row["cell"] for row in rows(here, table))) == cells
    page = (here / "results/tables/mnist.md").read_text()
    for word in RULES:
        assert f"{word}: " in page
    for title in ("Paper", "Ours", "SD", "95 % from", "Diff", "Epochs", "Shown", "Marks"):
        assert f"\n- {title}: " in page
    assert "Margin here: 0.5 percentage points" in page


def test_a_changed_record_fails_the_check(here, capsys):
    exit_code()
    path = here / "results/records/mnist" / path_of("fc").name
    record = json.loads(path.read_text())
    record["test"]["last"]["correct"] -= 100
    write_json(path, record)
    before = generated(here)
    assert exit_code("--check") == 1
    said = capsys.readouterr().err
    for name in ("results/README.md", "results/tables/mnist.csv", "'spinal tables'"):
        assert name in said
    assert "transfer.md" not in said and generated(here) == before


def test_a_reordered_or_doubled_record_changes_nothing(here):
    exit_code()
    before = generated(here)
    folder = here / "results/records"
    (folder / "a").mkdir()
    (third,) = folder.glob("mnist/cnn_fc-paper-*-s3.json")
    shutil.copy(third, folder / "a/copy.json")
    third.rename(folder / "z.json")
    assert exit_code("--check") == 0
    exit_code()
    assert generated(here) == before


def test_a_table_that_is_no_longer_made_is_noticed_and_removed(here):
    exit_code()
    tables = here / "results/tables"
    for suffix in ("md", "csv", "tex"):
        shutil.copy(tables / f"mnist.{suffix}", tables / f"gone.{suffix}")
    (tables / "mine.md").write_text("not generated")
    assert exit_code("--check") == 1
    exit_code()
    assert not list(tables.glob("gone.*")) and (tables / "mine.md").exists()


def test_runs_of_this_machine_are_added_and_reduced_ones_marked(here):
    for seed in (0, 5):
        folder = here / "runs" / "mnist-cnn-fc" / "paper-1" / f"s{seed}"
        folder.mkdir(parents=True)
        write_json(folder / "record.json", made(seed=seed, epochs=2, identity="11111111"))
        write_json(folder / "status.json", {"state": "done"})
    readme = (here / "README.md").read_bytes()
    assert exit_code("--runs", "--out", "my") == 0
    with (here / "my/tables/mnist.csv").open(newline="") as file:
        found = as_published(csv.DictReader(file), "mnist/cnn_fc")
    assert [(row["n"], row["verdict"]) for row in found] == [
        ("5", "reproduced"),
        ("2", "reduced budget"),
    ]
    assert "Your runs" not in (here / "my/README.md").read_text()
    assert found[1]["marks"] == "2 of 8 epochs" and found[1]["epochs"] == "2 of 8"
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
        (["--runs"], "committed records alone"),
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
    (here / "results/records/mnist" / path_of("fc").name).write_text("{")
    assert exit_code() == 2
    assert "s0.json cannot be read" in capsys.readouterr().err
    assert not (here / "results/tables").exists()


def test_tables_never_import_torch_nor_pandas(here):
    code = (
        "import sys\nfor name in ('torch', 'torchvision', 'pandas'): sys.modules[name] = None\n"
        "from spinal_repro.cli.spinal import main; main(['tables'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (here / "results/README.md").is_file()


@pytest.mark.parametrize("text", ["a|b", "<script>", "a*b*", "`x`", "[x](y)", "_a_", "\\", "a\nb"])
def test_markdown_shows_text_as_it_is(text):
    escaped = escape_markdown(text)
    assert "\n" not in escaped and "<" not in escaped
    for position, character in enumerate(escaped):
        if character in "|*`[]":
            assert escaped[position - 1] == "\\"


def test_names_stay_readable_in_markdown_and_are_escaped_in_latex():
    assert escape_markdown("mnist/cnn_spinal8") == "mnist/cnn_spinal8"
    assert escape_latex("50 % of a_b & {c} #1 $x^2$ ~\\") == (
        r"50 \% of a\_b \& \{c\} \#1 \$x\textasciicircum{}2\$ \textasciitilde{}"
        r"\textbackslash{}"
    )


def test_outside_a_checkout_runs_of_this_machine_are_enough(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(RECORDS / "curve", tmp_path / "runs")
    assert exit_code("--out", "my") == 2
    assert "no folder" in capsys.readouterr().err
    assert exit_code("--runs", "runs", "--out", "my") == 0
    with (tmp_path / "my" / "tables" / "curve.csv").open(newline="") as file:
        assert any(row["n"] not in ("", "0") for row in csv.DictReader(file))
