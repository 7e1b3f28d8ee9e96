"""Tables of docs/speed.md, from measurements."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from spinal_repro.results.tables import Column, render

MARKER = re.compile(r"(<!-- benchmark: ([a-z_]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def fill(text: str, measured: Mapping[str, Any]) -> str:
    """Write the table of each part between ``<!-- benchmark: PART -->`` and ``<!-- end -->``.

    Columns without any value are left out.

    Args:
        measured: By part: ``rows``, and the ``machine``, ``settings`` and ``load`` of its
            measurement.
    """

    def table(found: re.Match[str]) -> str:
        part = found[2]
        if part not in measured:
            return f"{found[1]}Not measured yet.\n{found[3]}"
        rows = measured[part]["rows"]
        known = COLUMNS[part.removesuffix("_cuda")]
        columns = [c for c in known if any(row.get(c.key) is not None for row in rows)]
        body = render(columns, rows, "markdown")
        return f"{found[1]}{conditions(measured[part])}\n\n{body}\n{found[3]}"

    return MARKER.sub(table, text)


def conditions(part: Mapping[str, Any]) -> str:
    """Describe machine, versions, images and number of rounds in one line."""
    machine, settings, load = part["machine"], part["settings"], part["load"]
    commit = str(machine["git"]["commit"])[:8] + ("+" if machine["git"]["modified"] else "")
    images = " and ".join(sorted({row["images"] for row in part["rows"] if "images" in row}))
    return (
        f"{machine['device_name']}, {machine['cpu_count']} cores, {machine['threads']} threads, "
        f"PyTorch {machine['torch']}, commit {commit}{images and f'; {images} images'}; "
        f"medians of {settings['repeats']} rounds with lowest and highest; "
        f"load of the machine {load['before']:.1f} before and {load['after']:.1f} after."
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


_CASE = (Column("model", "Model"), Column("head", "Head"), Column("precision", "Precision"))
_US, _RATIO = _spread(0), _spread(2)
COLUMNS: dict[str, Sequence[Column]] = {
    "loops": (
        *_CASE,
        Column("graph", "Graph", "b and c with each step as one CUDA graph",
               lambda value: "yes"),
        Column("rates", "a", "images/s of the plain loop written from the recipes, in PyTorch's "
               "default precision",
               _of("reference")),
        Column("rates", "b", "images/s of the bare step on one batch that is ready", _of("bare")),
        Column("rates", "c", "images/s of our loop, data and augmentation included", _of("loop")),
        Column("loop_to_reference", "c/a", "", _RATIO),
        Column("loop_to_bare", "c/b", "", _RATIO),
        Column("whole_to_bare", "c/b, whole", "with evaluation and checkpoint of an epoch", _RATIO),
        Column("half_to_bare", "bf16 weights", "rate of the bare step with bf16 weights, but batch "
               "norm and optimizer in fp32, over b, whose weights are fp32", _RATIO),
        Column("rates", "Evaluation", "images/s", _of("evaluation")),
        Column("share_of_peak", "Of peak", "multiplications a second of c, over those of a large "
               "matrix product in the same precision, measured in the same process", _share),
        Column("run_seconds", "Run, s", "computed from the rates: 200 epochs of vgg5 with "
               "evaluations and checkpoints; 9.9 epochs of airbench, training alone",
               "{:,.1f}".format),
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
        Column("layout conversions", "Layout conversions", "cuDNN's kernels that change the memory "
               "layout; the other columns include them", _share),
    ),
    "seeds": (
        *_CASE,
        Column("seeds", "Seeds", "trained at once on one device"),
        Column("way", "Way", "a process for each seed, as with runtime.jobs, or "
               "scripts/ensemble.py"),
        Column("rate", "Images/s", "of all seeds, training alone", _spread(0)),
        Column("to_one", "Times one process", "", _RATIO),
    ),
    "commands": (Column("command", "Command"), Column("seconds", "Seconds", "", _RATIO)),
    "memory": (
        *_CASE,
        Column("megabytes", "MB", "most memory of the process, PyTorch and data set included",
               "{:,.0f}".format),
    ),
}  # fmt: skip
