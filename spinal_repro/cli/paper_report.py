"""Report of ``spinal paper run``: a table, and an archive with it and the records."""

import argparse
import io
import shlex
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from spinal_repro.config.schema import Config
from spinal_repro.io import clock, write_atomic
from spinal_repro.paper.timebox import Job, TimeBox
from spinal_repro.records.record import Record
from spinal_repro.records.store import RECORD
from spinal_repro.results.tables import Column, escape_markdown, render

ARCHIVE = "paper-run.zip"


@dataclass(kw_only=True)
class Run(Job):
    """A run with its configuration and folder, and its timing and record so far."""

    config: Config
    folder: Path
    timing: list[dict[str, Any]] = field(default_factory=list)
    record: Record | None = None

    def seconds(self) -> list[float]:
        """Return the seconds of training and evaluation of each epoch."""
        return [epoch["train_seconds"] + epoch["eval_seconds"] for epoch in self.timing]


class Report:
    """The table of all runs, and the archive with it and the records."""

    def __init__(self, box: TimeBox[Run], given: argparse.Namespace) -> None:
        from spinal_repro.records.provenance import describe_environment
        from spinal_repro.training.device import resolve_device
        from spinal_repro.training.outputs import selection_rule

        self._box, configs = box, [run.config for run in box.jobs]
        self.archive: Path = given.out or Path(configs[0].runs) / ARCHIVE
        self.machine = describe_environment(resolve_device(configs[0].runtime.device))
        self._precision = configs[0].runtime.on(self.machine["device"]).precision
        rules = {c.protocol.name: selection_rule(c.protocol, c.data.test) for c in configs}
        self._protocol = "; ".join(f"{name}: {rule}" for name, rule in rules.items())
        self._reduced = dict.fromkeys(why for config in configs for why in config.reduced_budget)
        options = [f"--seeds={','.join(map(str, given.seeds))}", f"--minutes={given.minutes:g}"]
        options += [f"--{key}={v}" for key in ("runs", "out") if (v := getattr(given, key))]
        self._command = shlex.join(["spinal", "paper", "run", *given.words, *options])

    def counts(self) -> Counter[str]:
        """Count runs that are ``done``, ``failed``, or ``left`` to the next command."""
        states = [run.state.partition(":")[0] for run in self._box.jobs]
        return Counter(state if state in ("done", "failed") else "left" for state in states)

    def outcome(self) -> list[str]:
        """Return the numbers of finished and failed runs, and the command that continues."""
        counts = self.counts()
        lines = [f"{counts['done']} of {counts.total()} runs finished, {counts['failed']} failed."]
        if counts["done"] < counts.total():
            lines.append(f"To continue: {self._command}")
        return lines

    def table(self, style: str) -> str:
        """Render one row for each run."""
        selected = f"on the test set, at the selected epoch. {self._protocol}"
        columns = (
            Column("cell", "Cell"),
            Column("seed", "Seed"),
            Column("epochs", "Epochs", "finished, of all"),
            Column("accuracy", "Accuracy %", selected, "{:.2f}".format),
            Column("rate", "Images/s", "in training, median over epochs", "{:,.0f}".format),
            Column("seconds", "Time", "training and evaluation of all its epochs so far", clock),
            Column("state", "State", "the time needed is estimated from epochs measured here"),
        )
        return render(columns, [self._row(run) for run in self._box.jobs], style)

    def _row(self, run: Run) -> dict[str, Any]:
        row: dict[str, Any] = {"cell": run.cell, "seed": run.seed, "state": run.state}
        row["epochs"] = f"{run.done}/{run.epochs}"
        if run.timing:
            row["rate"] = median(e["images_per_second"] for e in run.timing)
            row["seconds"] = sum(run.seconds())
        if run.record is not None:
            test = run.record.test  # None where it was not read
            row["accuracy"] = test and 100 * test.selected.accuracy
        elif not run.state.startswith("failed"):
            needs = self._box.needs(run)
            known = "not measured yet" if needs is None else f"needs about {needs / 60:.1f} min"
            row["state"] = f"{run.state or ('stopped' if run.done else 'not started')}: {known}"
        return row

    def write(self) -> None:
        """Replace the archive of summary and records."""
        facts = {
            "Protocol": self._protocol,
            "Device": f"{self.machine['device']}, {self.machine['device_name']}",
            "Precision": self._precision,
            "PyTorch": self.machine["torch"],
            "Reduced budget": "; ".join(self._reduced) or "none",
        }
        summary = ["# Runs of published cells", *(f"\n{line}" for line in self.outcome()), ""]
        summary += [f"- {key}: {escape_markdown(value)}" for key, value in facts.items()]
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("summary.md", "\n".join([*summary, "", self.table("markdown"), ""]))
            for run in self._box.jobs:
                if run.record is not None:
                    kind = f"{run.config.protocol.name}-{run.record.identity}"
                    name = f"records/{run.cell}-{kind}-s{run.seed}.json"
                    archive.write(run.folder / RECORD, name)
        self.archive.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(self.archive, buffer.getvalue())
