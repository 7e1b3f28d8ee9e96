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
from spinal_repro.paper import cells
from spinal_repro.results.verdicts import RULES

FIRST = f"results/records/mnist/{path_of('fc').name}"


def tables(*arguments: str) -> int:
    """The exit code of the command."""
    try:
        main(["tables", *arguments])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """A folder with the committed MNIST records, counts, a README with a marker, and tables."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(RECORDS / "mnist", folder / "results" / "records" / "mnist")
    shutil.copy(RECORDS.parent / "counts.json", folder / "results")
    marker = "# X\n<!-- table: mnist/cnn_fc mnist/cnn_spinal8 -->\nold\n<!-- end -->\nrest\n"
    (folder / "README.md").write_text(marker)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert tables() == 0
    return folder


@pytest.fixture
def checkout(written, here) -> Path:
    """A copy of that folder."""
    shutil.copytree(written, here, dirs_exist_ok=True)
    return here


def generated(folder: Path) -> dict[str, bytes]:
    files = [*folder.glob("results/tables/*"), folder / "results/README.md", folder / "README.md"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def rows(folder: Path, table: str, cell: str = "", protocol: str = "") -> list[dict[str, str]]:
    """Rows of a table, those of one cell and protocol where these are named."""
    with (folder / "tables" / f"{table}.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    found = [row for row in found if cell in ("", row["cell"])]
    return [row for row in found if protocol in ("", row.get("protocol"))]


def test_every_table_is_written_and_written_again_the_same(checkout):
    first = generated(checkout)
    names = [*cells.tables(), "sizes", "pairs", "joint", "selection"]
    expected = {f"results/tables/{name}.{end}" for name in names for end in ("md", "csv", "tex")}
    assert set(first) == {*expected, "results/README.md", "README.md"}
    assert "old" not in (checkout / "README.md").read_text()
    assert tables() == 0 and generated(checkout) == first
    assert tables("--check") == 0


def test_the_numbers_are_those_of_the_records(written):
    results = written / "results"
    (row,) = rows(results, "mnist", "mnist/cnn_fc", "paper")
    records = [json.loads(path.read_text()) for path in results.glob("**/cnn_fc-paper-*.json")]
    last = [100 * record["test"]["last"]["accuracy"] for record in records]
    assert float(row["mean"]) == pytest.approx(sum(last) / len(last))
    assert (row["n"], row["marks"]) == (str(len(last)), "")
    assert row["margin"] == "0.135, half of the claimed 0.27"
    (size,) = rows(results, "sizes", "mnist/cnn_spinal8")
    assert (size["head_parameters"], size["source"]) == ("8538", "records")
    (pair,) = rows(results, "pairs", "mnist/cnn_spinal8", "paper")
    assert pair["counterpart"] == "mnist/cnn_fc" and float(pair["claimed"]) == 0.27
    (held,) = rows(results, "selection", "mnist/cnn_fc", "heldout")
    gain = float(held["best_on_test"]) - float(held["by_validation"])
    assert gain >= 0 and float(held["gain"]) == pytest.approx(gain, abs=2e-5)


def test_every_cell_has_a_row_and_every_verdict_its_rule(written):
    for table in cells.tables():
        names = [cell.name for cell in cells.load_cells(f"{table}/*")]
        found = [row["cell"] for row in rows(written / "results", table)]
        assert list(dict.fromkeys(found)) == names
    page = (written / "results/tables/mnist.md").read_text()
    assert all(f"{word}: " in page for word in RULES)


def test_a_changed_record_fails_the_check(checkout, capsys):
    record = json.loads((checkout / FIRST).read_text())
    record["test"]["last"]["correct"] -= 100
    write_json(checkout / FIRST, record)
    before = generated(checkout)
    assert tables("--check") == 1
    said = capsys.readouterr().err
    assert "results/README.md" in said and "results/tables/mnist.csv" in said
    assert "transfer.md" not in said and generated(checkout) == before


def test_a_reordered_or_doubled_record_changes_nothing(checkout):
    folder = checkout / "results/records"
    shutil.copy(checkout / FIRST, folder / "copy.json")
    (checkout / FIRST).rename(folder / "z.json")
    assert tables("--check") == 0


def test_a_table_that_is_no_longer_made_is_noticed_and_removed(checkout):
    folder = checkout / "results/tables"
    for suffix in ("md", "csv", "tex"):
        shutil.copy(folder / f"mnist.{suffix}", folder / f"gone.{suffix}")
    (folder / "mine.md").write_text("not generated")
    assert tables("--check") == 1
    assert tables() == 0
    assert not list(folder.glob("gone.*")) and (folder / "mine.md").exists()


def test_runs_of_this_machine_are_added_but_for_reduced_ones(checkout):
    for seed, epochs in ((50, 8), (51, 2)):
        folder = checkout / "runs" / "mnist-cnn-fc" / "paper-1" / f"s{seed}"
        folder.mkdir(parents=True)
        write_json(folder / "record.json", made(seed=seed, epochs=epochs))
        write_json(folder / "status.json", {"state": "done"})
    readme = (checkout / "README.md").read_bytes()
    assert tables("--runs", "--out", "my") == 0
    folders = checkout / "results", checkout / "my"
    (before,), (after,) = (rows(out, "mnist", "mnist/cnn_fc", "paper") for out in folders)
    assert int(after["n"]) == int(before["n"]) + 1 and after["epochs"] == "8 of 8"
    assert "Your runs" not in (checkout / "my/README.md").read_text()
    assert (checkout / "README.md").read_bytes() == readme


def test_a_run_that_names_no_cell_is_listed_and_counts_for_none(checkout):
    tables("--out", "before")
    record = made(seed=5, correct=9123, identity="11111111")
    del record["config"]["cell"]
    record["reduced_budget"] = ["2 of 8 epochs"]
    write_json(checkout / "results/records/mnist/mine.json", record)
    tables("--out", "after")
    for path in (checkout / "before").rglob("*.*"):
        new = (checkout / "after" / path.relative_to(checkout / "before")).read_text()
        if path.name == "README.md":
            new, _, own = new.partition("\n## Your runs\n")
            assert (
                "| mnist | cnn | fc | paper | cpu | 8 | 5 | 91.23 | 91.23 | 2 of 8 epochs |" in own
            )
        assert new == path.read_text()


@pytest.mark.parametrize(
    "arguments, named",
    [
        (["--runs"], "--out"),
        (["--runs", "nowhere", "--out", "my"], "nowhere"),
        (["--out", "README.md"], "README.md"),
    ],
)
def test_usage(checkout, capsys, arguments, named):
    before = generated(checkout)
    assert tables(*arguments) == 2
    said = capsys.readouterr().err
    assert named in said and len(said.splitlines()) == 1
    assert generated(checkout) == before and not (checkout / "my").exists()


def test_tables_never_import_torch(checkout):
    code = (
        "import sys; from spinal_repro.cli.spinal import main; main(['tables'])\n"
        "print({'torch', 'torchvision'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ["set()"], done.stderr
    assert (checkout / "results/README.md").is_file()


def test_outside_a_checkout_runs_of_this_machine_are_enough(here):
    shutil.copytree(RECORDS / "curve", here / "runs")
    assert tables("--out", "my") == 2
    assert tables("--runs", "runs", "--out", "my") == 0
    assert any(row["n"] not in ("", "0") for row in rows(here / "my", "curve"))
