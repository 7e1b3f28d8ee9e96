"""``spinal report`` and ``spinal claims``: the paper's sentences and what became of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spinal_repro.cli.tables import COUNTS, RECORDS, RESULTS
from spinal_repro.errors import UserError
from spinal_repro.results.tables import FORMATS, render


def add_parser(commands: Any) -> None:
    """Add both commands to the parser of ``spinal``."""
    report = commands.add_parser(
        "report", help="claims, tables and figures as one HTML file, from the records alone"
    )
    report.add_argument(
        "--out",
        type=Path,
        default=RESULTS / "index.html",
        help="the page (default: results/index.html); its figures also go into figures/ beside it",
    )
    report.set_defaults(command=lambda given: write_report(given.out, given.records, given.counts))

    claims = commands.add_parser("claims", help="the paper's sentences, each with a verdict")
    claims.add_argument("--format", choices=FORMATS, default="table", help="default: table")
    claims.set_defaults(
        command=lambda given: print_claims(given.records, given.counts, given.format)
    )

    for command in (report, claims):
        command.add_argument(
            "--records",
            type=Path,
            nargs="+",
            default=[RECORDS],
            metavar="DIR",
            help=f"folders of records or runs (default: {RECORDS})",
        )
        command.add_argument(
            "--counts",
            type=Path,
            default=COUNTS,
            metavar="FILE",
            help=f"sizes of the cells' models, of spinal params --cells (default: {COUNTS})",
        )


def write_report(out: Path, records: Sequence[Path], counts: Path) -> None:
    """Write the page and its figures.

    Args:
        out: Where the page goes; its folder must be there.
        records: Folders of records.
        counts: Sizes of the cells' models; need not be there.

    Raises:
        UserError: where a folder is not there, or matplotlib is not installed.
    """
    if not out.resolve().parent.is_dir():
        raise UserError(f"there is no folder {out.resolve().parent} for --out")
    from spinal_repro.io import write_atomic
    from spinal_repro.results import figures
    from spinal_repro.results.report import render as render_page

    findings, judged = _judged(records, counts)
    drawn = list(figures.draw(findings))
    page = render_page(findings, judged, drawn)
    figures.write(drawn, out.parent / "figures")
    write_atomic(out, page)
    print(f"{out}: {len(judged)} claims, {len(findings.cells)} cells, {len(drawn)} figures")


def print_claims(records: Sequence[Path], counts: Path, style: str) -> None:
    """Print the claims with their verdicts.

    Args:
        records: Folders of records.
        counts: Sizes of the cells' models; need not be there.
        style: One of `FORMATS`.

    Raises:
        UserError: where a folder is not there.
    """
    from spinal_repro.results.claims import COLUMNS, rows

    _, judged = _judged(records, counts)
    print(render(COLUMNS, rows(judged), style))


def _judged(folders: Sequence[Path], counts: Path) -> Any:
    """ResultsIndex from folders of records, and the claims decided by them."""
    from spinal_repro.records.store import read_records
    from spinal_repro.results.claims import judge, load_claims
    from spinal_repro.results.findings import build_index

    findings = build_index(read_records(folders), counts)
    return findings, judge(load_claims(), findings)
