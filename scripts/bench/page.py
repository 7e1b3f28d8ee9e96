"""Tables of docs/speed.md, from measurements."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from spinal_repro.results.tables import Column, render

MARKER = re.compile(r"(<!-- benchmark: ([a-z]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def fill(text: str, measured: Mapping[str, Any]) -> str:
    """Write the table of each part between ``<!-- benchmark: PART -->`` and ``<!-- end -->``.

    Args:
        measured: By part: ``rows``, and the ``machine``, ``settings`` and ``load`` of its
            measurement.
    """

    def table(found: re.Match[str]) -> str:
        part = found[2]
        if part not in measured:
            return f"{found[1]}Not measured yet.\n{found[3]}"
        body = render(COLUMNS[part], measured[part]["rows"], "markdown")
        return f"{found[1]}{conditions(measured[part])}\n\n{body}\n{found[3]}"

    return MARKER.sub(table, text)


def conditions(part: Mapping[str, Any]) -> str:
    """Describe machine, versions and number of rounds in one line."""
    machine, settings, load = part["machine"], part["settings"], part["load"]
    commit = str(machine["git"]["commit"])[:8] + ("+" if machine["git"]["modified"] else "")
    return (
        f"{machine['device_name']}, {machine['cpu_count']} cores, {machine['threads']} threads, "
        f"PyTorch {machine['torch']}, commit {commit}; medians of {settings['repeats']} rounds "
        f"with lowest and highest; load of the machine {load['before']:.1f} before and "
        f"{load['after']:.1f} after."
    )


def _spread(digits: int) -> Callable[[Any], str]:
    def form(value: Any) -> str:
        low, middle, high = (value[key] for key in ("low", "median", "high"))
        return f"{middle:,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"

    return form


def _of(key: str) -> Callable[[Any], str]:
    """Show one of the rates of a row."""
    return lambda value: f"{value[key]['median']:,.0f}"


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


def _shares(value: Mapping[str, float]) -> str:
    return " / ".join(f"{100 * share:.1f}" for share in value.values())


_CASE = (Column("model", "Model"), Column("head", "Head"), Column("precision", "Precision"))
_US, _RATIO = _spread(0), _spread(2)
COLUMNS: dict[str, Sequence[Column]] = {
    "loops": (
        *_CASE,
        Column("rates", "a", "images/s of the plain loop written from the recipes, in PyTorch's "
               "default precision",
               _of("reference")),
        Column("rates", "b", "images/s of the bare step on one batch that is ready", _of("bare")),
        Column("rates", "c", "images/s of our loop, data and augmentation included", _of("loop")),
        Column("rates", "Evaluation", "images/s", _of("evaluation")),
        Column("loop_to_reference", "c/a", "", _RATIO),
        Column("loop_to_bare", "c/b", "", _spread(3)),
        Column("whole_to_bare", "c/b, whole", "with evaluation and checkpoint of an epoch",
               _spread(3)),
        Column("epoch", "Epoch", "shares of its time in percent: steps, making batches, "
               "evaluation, checkpoint", _shares),
        Column("images", "Images", "published ones, or noise of the same shape"),
    ),
    "augment": (
        Column("recipe", "Recipe"),
        Column("augmentation", "Augmentation"),
        Column("ours", "Ours, images/s", "", _spread(0)),
        Column("reference", "torchvision, images/s", "image by image, on PIL", _spread(0)),
        Column("ratio", "Ratio", "", _spread(1)),
    ),
    "scaling": (
        Column("varied", "Varied"),
        Column("width", "Width"),
        Column("layers", "Layers"),
        Column("batch", "Batch"),
        Column("classes", "Classes"),
        Column("spinal_us", "Spinal, us", "forward and backward on 512 features", _US),
        Column("fc_us", "FC, us", "one hidden layer of as many units", _US),
        Column("ratio", "Spinal/FC", "time of the one over the other", _RATIO),
    ),
    "profiles": (
        Column("case", "Model, head, precision"),
        *(Column(kind, kind.capitalize(), "", _share) for kind in (
            "convolutions", "batch norm", "pooling", "activations", "linear layers", "dropout",
            "optimizer", "casts and copies", "the rest")),
    ),
    "seeds": (
        *_CASE,
        Column("seeds", "Seeds", "trained at once on one device"),
        Column("way", "Way", "a process for each, as runtime.jobs has it, or scripts/ensemble.py"),
        Column("rate", "Images/s", "of all seeds, training alone", _spread(0)),
        Column("to_one", "To one", "over the images/s of one process", _RATIO),
    ),
    "commands": (Column("command", "Command"), Column("seconds", "Seconds", "", _RATIO)),
    "memory": (
        *_CASE,
        Column("megabytes", "MB", "most memory of the process, PyTorch and data set included",
               "{:,.0f}".format),
    ),
}  # fmt: skip
