"""The folder that ``spinal compare`` writes: page, tables, plots and the best weights."""

import base64
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spinal_repro.io import write_atomic
from spinal_repro.records import plots
from spinal_repro.records.metrics import count_confusion
from spinal_repro.records.record import class_names
from spinal_repro.results import comparison_tables as compared
from spinal_repro.results.comparison import Comparison, Group
from spinal_repro.results.report import template
from spinal_repro.results.tables import escape_markdown, render

COLOURS = ("#0072B2", "#D55E00", "#000000", "#56B4E9", "#009E73", "#CC79A7")  # Okabe and Ito
STYLES = ("-", "--", ":", "-.")


def write_comparison(
    out: Path, groups: Sequence[Group], comparisons: Sequence[Comparison], metric: str
) -> str:
    """Write ``report.html``, ``table.md``, ``table.csv``, plots and weights; return the tables."""
    out.mkdir(parents=True, exist_ok=True)
    first = groups[0].first
    title = f"{first.config['dataset']['title']}: comparison of heads"
    rows = [compared.group_row(group, metric) for group in groups]
    tables: list[tuple[Any, Any]] = [(compared.group_columns(rows, metric), rows)]
    if comparisons:
        rows = list(map(compared.comparison_row, comparisons))
        tables.append((compared.COMPARISON_COLUMNS, rows))
    rules = [compared.CAVEAT] if groups[0].folds else [compared.RULE] if comparisons else []
    notes = [*rules, *_conditions(groups)]
    texts = {style: [render(*table, style) for table in tables] for style in ("markdown", "csv")}
    lines = [f"# {escape_markdown(title)}"]
    lines += [f"**{escape_markdown(str(comparison))}**" for comparison in comparisons[-1:]]
    lines += [*texts["markdown"], *(f"- {escape_markdown(note)}" for note in notes)]
    write_atomic(out / "table.md", "\n\n".join(lines) + "\n")
    write_atomic(out / "table.csv", "\n\n".join(texts["csv"]) + "\n")

    _draw_curves(groups, out / "curves.png")
    pictures = [("Curves", "curves.png")]
    names: list[str] = []
    for group in groups:
        name = re.sub(r"[^A-Za-z0-9]+", "-", group.label).strip("-").lower()[:80]
        names.append(f"{name}-{len(names) + 1}" if name in names else name)
        name = names[-1]
        shutil.copyfile(group.best.folder / "best.safetensors", out / f"{name}.safetensors")
        dataset = group.first.config["dataset"]
        outputs = dataset.get("num_outputs") or dataset["num_classes"]
        classes = class_names(group.first.data, outputs)
        if (counts := _counts(group, outputs)) is not None:
            file = f"confusion-{name}.png"
            plots.draw_confusion(counts, classes, f"{group.label}, all runs", out / file)
            pictures.append((f"Confusion matrix, {group.label}", file))
    page = template("comparison.html").render(
        title=title,
        sentences=[str(comparison) for comparison in reversed(comparisons)],
        tables=tables,
        notes=notes,
        pictures=[(n, f, base64.b64encode((out / f).read_bytes()).decode()) for n, f in pictures],
        groups=groups,
    )
    write_atomic(out / "report.html", page)
    return "\n\n".join([*(render(*table, "table") for table in tables), *notes])


def _conditions(groups: Sequence[Group]) -> list[str]:
    """How the runs were trained, and what limits the answer."""
    record = groups[0].first
    assert record.test is not None
    sizes, selected = record.data["sizes"], record.selection.rule.partition("; test is fold")[0]
    shared = record.data["test_images_also_in_train"]
    reduced = sorted({why for group in groups for why in group.first.reduced_budget})
    found = [
        f"{sizes['train']:,} training, {sizes['val']:,} validation and {sizes['test']:,} test "
        f"images. One test image is {100 / record.test.selected.count:.2f} points",
        f"Epoch of each run: {selected}",
    ]
    found += [f"REDUCED BUDGET: {why}" for why in reduced]
    return found + [f"{shared:,} test images are also training images"] * bool(shared)


def _draw_curves(groups: Sequence[Group], path: Path) -> None:
    """Plot training loss and accuracy on the selecting part: mean and range over the runs."""
    figure = plots.new_figure(6, 6.5)
    on = groups[0].first.selection.on
    panels = figure.subplots(2, 1, sharex=True)
    shown = (("train_loss", 1, "training loss"), (f"{on}_accuracy", 100, f"accuracy on {on}, %"))
    for panel, (key, scale, label) in zip(panels, shown, strict=True):
        for number, group in enumerate(groups):
            histories = [run.record.history for run in group.runs.values()]
            epochs = min(map(len, histories))
            values = scale * np.array([[e[key] for e in h[:epochs]] for h in histories])
            x, colour = np.arange(1, epochs + 1), COLOURS[number % len(COLOURS)]
            style, name = STYLES[number % len(STYLES)], plots.plain(group.label)
            panel.plot(x, values.mean(axis=0), style, color=colour, label=name, marker=".")
            panel.fill_between(x, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.15)
        panel.set_ylabel(label)
        panel.grid(alpha=0.3)
    panels[1].set_xlabel("epoch")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    plots.save(figure, path)


def _counts(group: Group, outputs: int) -> Any:
    """Confusion matrix summed over the runs; None for runs that do not keep the labels."""
    total: Any = 0
    for run in group.runs.values():
        with np.load(run.folder / "predictions.npz") as stored:
            if "labels" not in stored:
                return None
            total = total + count_confusion(stored["labels"], stored["selected"], outputs)
    return total
