"""What the report shows of a cell when its row is opened."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import yaml

from spinal_repro.results import accuracy
from spinal_repro.results.accuracy import decimals
from spinal_repro.results.findings import ResultsIndex
from spinal_repro.results.outcomes import ResultGroup, Run

if TYPE_CHECKING:
    from spinal_repro.paper.cells import Cell, Published

RUN_TITLES = (
    "Seed", "Shown", "Selected", "Last", "Epochs", "Protocol", "Device", "PyTorch", "Commit",
    "Marks",
)  # fmt: skip
LEFT_OUT = ("runtime", "data", "seed", "runs", "cell")  # of a configuration: not the experiment


def describe_cell(result: ResultGroup, findings: ResultsIndex) -> dict[str, Any]:
    """Everything about a cell and one group of its equal runs.

    Args:
        result: The runs; may be none.
        findings: For the counts.

    Returns:
        ``title``, ``facts`` (name and text), ``published``, ``assumptions``, ``run_titles``,
        ``runs`` (texts, in the order of the titles) and ``config`` (YAML, or empty).
    """
    cell = result.cell
    return {
        "title": cell.title,
        "facts": _facts(result, findings),
        "published": [_published(entry) for entry in cell.published],
        "assumptions": list(cell.assumptions),
        "run_titles": RUN_TITLES,
        "runs": [_run(result, run) for run in result.runs],
        "config": _config(cell),
    }


def _facts(result: ResultGroup, findings: ResultsIndex) -> list[tuple[str, str]]:
    cell, row = result.cell, accuracy.row(result)
    counts = findings.counts.get(cell.name, ({}, ""))[0]
    facts = [
        ("Name", cell.name),
        ("Data set", cell.dataset),
        ("Backbone", cell.backbone),
        ("Head", cell.head),
        ("Compared with", cell.counterpart),
        ("Another reading of", cell.variant_of),
        ("Best of", ", ".join(cell.best_of)),
        ("Reference", _published(cell.reference) if cell.reference else None),
        ("Shown", row["rule"]),
        ("Epochs", row["epochs"]),
        ("Changed", "; ".join(map(str, result.differences))),
        ("Cannot be run here", cell.not_runnable),
        ("Command", None if cell.compose is None else f"spinal-train paper={cell.name}"),
        ("Size", _size(counts)),
    ]
    return [(name, text) for name, text in facts if text]


def _size(counts: Mapping[str, int]) -> str | None:
    if not counts:
        return None
    return (
        f"head {counts['head_parameters']:,} parameters, {counts['head_multiplications']:,} "
        f"multiplications; whole network {counts['total_parameters']:,} and "
        f"{counts['total_multiplications']:,}"
    )


def _published(entry: "Published") -> str:
    value = "number not found" if entry.value is None else f"{entry.value:g} {entry.unit}"
    epochs = "" if entry.epochs is None else f", {entry.epochs} epochs"
    source = f"; {entry.source}" if entry.source else ""
    return f"{value} ({entry.metric}, {entry.selection}{epochs}; {entry.confidence}{source})"


def _run(result: ResultGroup, run: Run) -> list[str]:
    digits = decimals(result.unit)
    git = run.record.git
    revision = str(git.get("commit", ""))[:10] + ("*" if git.get("modified") else "")
    return [
        str(run.seed),
        f"{run.value(result.reported_metric):.{digits}f}",
        f"{run.selected:.{digits}f}",
        f"{run.last:.{digits}f}",
        str(run.epochs),
        result.protocol,
        f"{run.device} {run.precision}",
        str(run.record.environment.get("torch", "")),
        revision,
        "; ".join(map(str, run.differences)),
    ]


def _config(cell: "Cell") -> str:
    """The configuration as YAML; that of ``spinal regression`` where it is one of its cells."""
    if cell.config is None:
        return "" if cell.regression is None else _yaml({"regression": cell.regression})
    return _yaml({key: value for key, value in cell.config.items() if key not in LEFT_OUT})


def _yaml(value: dict[str, Any]) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=88)
