"""Report of ``spinal paper run``: a table, and an archive with the table and the records."""

import argparse
import io
import shlex
import zipfile
from collections import Counter
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from spinal_repro.io import clock, write_atomic
from spinal_repro.records.store import RECORD
from spinal_repro.results.tables import Column, escape_markdown, one_line, render

if TYPE_CHECKING:
    from spinal_repro.paper.timebox import Run, TimeBox

ARCHIVE = "paper-run.zip"


class Report:
    """The table of all runs, and the archive with it and the records."""

    def __init__(self, box: "TimeBox", given: argparse.Namespace) -> None:
        from spinal_repro.records.provenance import describe_environment
        from spinal_repro.training.device import resolve_device
        from spinal_repro.training.outputs import selection_rule

        self._box, configs = box, [run.config for run in box.runs]
        self.archive: Path = given.out or Path(configs[0].runs) / ARCHIVE
        machine = describe_environment(resolve_device(configs[0].runtime.device))
        rules = {c.protocol.name: selection_rule(c.protocol, c.data.test) for c in configs}
        self._protocol = "; ".join(f"{name}: {rule}" for name, rule in rules.items())
        reduced = dict.fromkeys(why for config in configs for why in config.reduced_budget)
        self._facts = {
            "Protocol": self._protocol,
            "Device": f"{machine['device']}, {machine['device_name']}",
            "Precision": configs[0].runtime.on(machine["device"]).precision,
            "PyTorch": machine["torch"],
            "Reduced budget": "; ".join(reduced) or "none",
        }
        options = [f"--seeds={','.join(map(str, given.seeds))}", f"--minutes={given.minutes:g}"]
        options += [f"--{key}={v}" for key in ("runs", "out") if (v := getattr(given, key))]
        self._command = shlex.join(["spinal", "paper", "run", *given.words, *options])

    def counts(self) -> Counter[str]:
        """Count runs that are ``done``, ``failed``, or ``left`` for the next command."""
        states = [run.state.partition(":")[0] for run in self._box.runs]
        return Counter(state if state in ("done", "failed") else "left" for state in states)

    def outcome(self) -> list[str]:
        """Return the numbers of finished and failed runs, and the command that resumes."""
        counts = self.counts()
        lines = [f"{counts['done']} of {counts.total()} runs finished, {counts['failed']} failed."]
        if counts["done"] < counts.total():
            lines.append(f"To resume: {self._command}")
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
            Column("state", "State", "times are estimated from epochs measured on this machine"),
        )
        return render(columns, [self._row(run) for run in self._box.runs], style)

    def _row(self, run: "Run") -> dict[str, Any]:
        row: dict[str, Any] = {"cell": run.cell, "seed": run.config.seed, "state": run.state}
        row["epochs"] = f"{run.done}/{run.config.recipe.epochs}"
        if run.timing:
            row["rate"] = median(e["images_per_second"] for e in run.timing)
            row["seconds"] = sum(e["train_seconds"] + e["eval_seconds"] for e in run.timing)
        if run.record is not None:
            test = run.record.test  # None where it was not read
            row["accuracy"] = test and 100 * test.selected.accuracy
        elif run.state.startswith("failed"):
            row["state"] = one_line(run.state)
        else:
            needs = self._box.needs(run)
            known = "not measured yet" if needs is None else f"needs about {needs / 60:.1f} min"
            row["state"] = f"{run.state or ('stopped' if run.done else 'not started')}: {known}"
        return row

    def write(self) -> None:
        """Replace the archive of summary and records."""
        summary = ["# Runs of published cells", *(f"\n{line}" for line in self.outcome()), ""]
        summary += [f"- {key}: {escape_markdown(value)}" for key, value in self._facts.items()]
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("summary.md", "\n".join([*summary, "", self.table("markdown"), ""]))
            for run in self._box.runs:
                if run.record is not None:
                    kind = f"{run.config.protocol.name}-{run.record.identity}"
                    name = f"records/{run.cell}-{kind}-s{run.config.seed}.json"
                    archive.write(run.folder / RECORD, name)
        self.archive.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(self.archive, buffer.getvalue())
