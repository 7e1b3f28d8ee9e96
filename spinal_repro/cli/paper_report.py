"""What ``spinal paper run`` says of its runs: a table, and an archive with it and the records."""

import argparse
import io
import shlex
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from spinal_repro.config.schema import Config
from spinal_repro.io import write_atomic
from spinal_repro.paper.timebox import Job, TimeBox
from spinal_repro.records.record import Record
from spinal_repro.records.store import RECORD
from spinal_repro.results.tables import Column, escape_markdown, render

ARCHIVE = "paper-run.zip"


@dataclass(kw_only=True)
class Run(Job):
    """A run with its configuration and folder, and the timing and record that it has so far."""

    config: Config
    folder: Path
    timing: list[dict[str, Any]] = field(default_factory=list)
    record: Record | None = None


class Report:
    """The table of all runs, and the archive with it and the records."""

    def __init__(self, box: TimeBox[Run], given: argparse.Namespace) -> None:
        from spinal_repro.records.provenance import describe_environment
        from spinal_repro.training.device import resolve_device
        from spinal_repro.training.outputs import selection_rule

        self._box = box
        configs = [run.config for run in box.jobs]
        self.archive: Path = given.out or Path(configs[0].runs) / ARCHIVE
        machine = describe_environment(resolve_device(configs[0].runtime.device))
        self.device_name = machine["device_name"]
        rules = {c.protocol.name: selection_rule(c.protocol, c.data.test) for c in configs}
        self._protocol = "; ".join(f"{name}: {rule}" for name, rule in rules.items())
        reduced = dict.fromkeys(reason for config in configs for reason in config.reduced_budget)
        self._facts = {
            "Protocol": self._protocol,
            "Device": f"{machine['device']}, {self.device_name}",
            "Precision": configs[0].runtime.on(machine["device"]).precision,
            "PyTorch": machine["torch"],
            "Reduced budget": "; ".join(reduced) or "none",
        }
        options = [f"--seeds={','.join(map(str, given.seeds))}", f"--minutes={given.minutes:g}"]
        options += [f"--{key}={v}" for key in ("runs", "out") if (v := getattr(given, key))]
        self._command = shlex.join(["spinal", "paper", "run", *given.words, *options])

    @property
    def failed(self) -> int:
        """Runs that failed."""
        return sum(run.state.startswith("failed") for run in self._box.jobs)

    @property
    def left(self) -> int:
        """Runs that the same command continues or starts."""
        return sum(run.state != "done" for run in self._box.jobs) - self.failed

    @property
    def standing(self) -> list[str]:
        """How many runs are finished, and the command that continues the others."""
        count = len(self._box.jobs)
        text = f"{count - self.left - self.failed} of {count} runs finished, {self.failed} failed."
        return [text, f"To continue: {self._command}"] if self.left or self.failed else [text]

    def table(self, style: str) -> str:
        """One row a run, with what each column means."""
        from spinal_repro.io import clock

        selected = f"on the test set, at the selected epoch. {self._protocol}"
        columns = (
            Column("cell", "Cell"),
            Column("seed", "Seed"),
            Column("epochs", "Epochs", "finished, of all"),
            Column("accuracy", "Accuracy %", selected, "{:.2f}".format),
            Column("rate", "Images/s", "in training, median over epochs", "{:,.0f}".format),
            Column("seconds", "Time", "training and evaluation of all its epochs so far", clock),
            Column("state", "State", "what it needs is estimated from epochs measured here"),
        )
        return render(columns, [self._row(run) for run in self._box.jobs], style)

    def _row(self, run: Run) -> dict[str, Any]:
        row: dict[str, Any] = {"cell": run.cell, "seed": run.seed, "state": run.state}
        row["epochs"] = f"{run.done}/{run.epochs}"
        if run.timing:
            row["rate"] = median(e["images_per_second"] for e in run.timing)
            row["seconds"] = sum(e["train_seconds"] + e["eval_seconds"] for e in run.timing)
        if run.record is not None:
            test = run.record.test  # None where it was not read
            row["accuracy"] = test and 100 * test.selected.accuracy
        elif not run.state.startswith("failed"):
            needs = self._box.needs(run)
            known = "not measured yet" if needs is None else f"needs about {needs / 60:.1f} min"
            row["state"] = f"{run.state or ('stopped' if run.done else 'not started')}: {known}"
        return row

    def write(self) -> None:
        """Write the archive as things stand."""
        facts = [f"- {key}: {escape_markdown(value)}" for key, value in self._facts.items()]
        lines = ["# Runs of published cells", *(f"\n{line}" for line in self.standing)]
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            text = "\n".join([*lines, "", *facts, "", self.table("markdown"), ""])
            archive.writestr("summary.md", text)
            for run in self._box.jobs:
                if run.record is not None:
                    kind = f"{run.config.protocol.name}-{run.record.identity}"
                    name = f"records/{run.cell}-{kind}-s{run.seed}.json"
                    archive.write(run.folder / RECORD, name)
        self.archive.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(self.archive, buffer.getvalue())
