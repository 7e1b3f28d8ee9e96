"""Details of a cell, which the report shows when its row is opened."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import yaml

from spinal_repro.records.record import Record
from spinal_repro.results import accuracy
from spinal_repro.results.findings import ResultsIndex
from spinal_repro.results.outcomes import ResultGroup, Run

if TYPE_CHECKING:
    from spinal_repro.paper.cells import Published

LEFT_OUT = ("runtime", "data", "seed", "runs", "cell")  # of a configuration: not the experiment


def describe_cell(result: ResultGroup, index: ResultsIndex) -> dict[str, Any]:
    """Describe a cell and one group of its equal runs, which may be empty.

    Returns:
        ``facts`` (name and text), ``published``, ``assumptions``, ``runs`` (texts by heading) and
        ``config`` (YAML, or empty).
    """
    cell = result.cell
    return {
        "facts": _facts(result, index),
        "published": [_published(entry) for entry in cell.published],
        "assumptions": list(cell.assumptions),
        "runs": [_run(result, run) for run in result.runs],
        "config": _config(result),
    }


def _facts(result: ResultGroup, index: ResultsIndex) -> list[tuple[str, str]]:
    cell, row = result.cell, accuracy.row(result)
    counts = index.counts.get(cell.name, ({}, ""))[0]
    facts = [
        ("Name", cell.name),
        ("Data set", cell.dataset),
        ("Backbone", cell.backbone),
        ("Head", cell.head),
        ("Compared with", cell.counterpart),
        ("Another reading of", cell.variant_of),
        ("Best of", ", ".join(cell.best_of)),
        ("Reference", _published(cell.reference) if cell.reference else None),
        ("Metric", row["rule"]),
        ("Epochs", row["epochs"]),
        ("Differences", row["marks"] if result.runs else None),
        ("Cannot be run here", cell.not_runnable),
        ("Command", None if cell.compose is None else f"spinal-train paper={cell.name}"),
        ("Size", _size(counts) if counts else None),
    ]
    return [(name, text) for name, text in facts if text]


def _size(counts: Mapping[str, int]) -> str:
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


def _run(result: ResultGroup, run: Run) -> dict[str, str]:
    number = accuracy.number(result.unit)
    git = run.record.git
    return {
        "Seed": str(run.seed),
        "Metric": number(run.value(result.reported_metric)),
        "Selected": number(run.selected),
        "Last": number(run.last),
        "Epochs": str(run.epochs),
        "Protocol": result.protocol,
        "Device": f"{run.device} {run.precision}",
        "PyTorch": str(run.record.environment.get("torch", "")),
        "Commit": str(git.get("commit") or "")[:10] + ("*" if git.get("modified") else ""),
        "Differences": "; ".join(map(str, run.differences)),
    }


def _config(result: ResultGroup) -> str:
    """The configuration of the runs as YAML; that of a regression cell also without runs."""
    record = result.runs[0].record if result.runs else None
    if isinstance(record, Record):
        config = {key: v for key, v in record.config.items() if key not in LEFT_OUT}
    elif result.cell.regression is not None:
        config = {"regression": result.cell.regression}
    else:
        return ""
    return yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=88)
