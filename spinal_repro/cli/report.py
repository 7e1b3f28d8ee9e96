"""``spinal report`` and ``spinal claims``: the paper's claims and their verdicts."""

import argparse
from pathlib import Path
from typing import Any

from spinal_repro.cli.tables import RESULTS, add_format, add_inputs, read_index
from spinal_repro.errors import UserError
from spinal_repro.results.tables import render


def add_parser(commands: Any) -> None:
    """Add both commands."""
    report = commands.add_parser(
        "report", help="claims, tables and figures as one HTML file, from the records alone"
    )
    report.add_argument(
        "--out",
        type=Path,
        default=RESULTS / "index.html",
        help="the page (default: results/index.html); its figures also go into figures/ beside it",
    )
    report.set_defaults(command=write_report)
    claims = commands.add_parser("claims", help="the paper's sentences, each with a verdict")
    claims.set_defaults(command=print_claims)
    add_format(claims)
    for command in (report, claims):
        add_inputs(command)


def write_report(given: argparse.Namespace) -> None:
    """Write the page and its figures."""
    out: Path = given.out
    if not out.resolve().parent.is_dir():
        raise UserError(f"there is no folder {out.resolve().parent} for --out")
    from spinal_repro.io import write_atomic
    from spinal_repro.results import figures
    from spinal_repro.results.claims import judge, load_claims
    from spinal_repro.results.report import render as render_page

    index, _ = read_index(given.records, given.counts)
    judged = judge(load_claims(), index)
    drawn = list(figures.draw(index))
    page = render_page(index, judged, drawn)
    figures.write(drawn, out.parent / "figures")
    write_atomic(out, page)
    print(f"{out}: {len(judged)} claims, {len(index.cells)} cells, {len(drawn)} figures")


def print_claims(given: argparse.Namespace) -> None:
    """Print the claims with their verdicts."""
    from spinal_repro.results.claims import COLUMNS, judge, load_claims, rows

    index, _ = read_index(given.records, given.counts)
    print(render(COLUMNS, rows(judge(load_claims(), index)), given.format))
