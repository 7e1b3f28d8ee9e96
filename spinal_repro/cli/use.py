"""``spinal predict`` and ``spinal eval``: using a trained model."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spinal_repro.cli.tables import add_format
from spinal_repro.errors import UserError
from spinal_repro.io import printable
from spinal_repro.results.tables import Column, render


def add_parser(commands: Any) -> None:
    """Add both commands."""
    predict = commands.add_parser("predict", help="classify image files with a finished run")
    predict.add_argument("run", type=Path, help="folder of the run, see `spinal status`")
    predict.add_argument("images", nargs="+", type=Path, help="image files, or folders of them")
    predict.add_argument("--top", type=int, default=5, help="classes per file (default: 5)")
    predict.set_defaults(command=print_predictions)

    evaluate = commands.add_parser("eval", help="accuracy of a finished run, by class")
    evaluate.add_argument("run", type=Path, help="folder of the run, see `spinal status`")
    evaluate.add_argument("--split", choices=("train", "val", "test"), default="test")
    evaluate.add_argument("--root", help="folder of data sets (default: that of the run)")
    evaluate.add_argument(
        "--confusion", type=Path, metavar="PNG", help="also draw the confusion matrix"
    )
    evaluate.set_defaults(command=print_evaluation)

    add_format(predict, "json")
    add_format(evaluate)
    for command in (predict, evaluate):
        command.add_argument("--device", default="auto", help="as runtime.device (default: auto)")


def print_predictions(given: argparse.Namespace) -> None:
    """Print the most probable classes of images; after that, name the images with errors."""
    from spinal_repro.inference import find_images, load_run, predict

    if given.top < 1:
        raise UserError(f"--top must be 1 or more, got {given.top}")
    paths = find_images(given.images)
    trained = load_run(given.run, given.device)
    top = min(given.top, len(trained.classes))
    rows, unreadable = [], []
    for path, answer in zip(paths, predict(trained, paths), strict=True):
        if isinstance(answer, str):
            unreadable.append(f"{path}: {answer}")
            continue
        probabilities, indices = (found.tolist() for found in answer.topk(top))
        classes = [trained.classes[index] for index in indices]
        rows.append({"file": str(path), "top": list(zip(classes, probabilities, strict=True))})
    print(_predictions(rows, top, given.format))
    if unreadable:
        listed = "".join(f"\n  {line}" for line in unreadable)
        raise UserError(f"{len(unreadable)} of {len(paths)} images cannot be read:{listed}")


def _predictions(rows: Sequence[dict[str, Any]], top: int, style: str) -> str:
    for row in rows:
        row["class"], row["probability"] = row["top"][0]
    if style == "json":
        keys = ("class", "probability")
        entries = [
            {key: row[key] for key in ("file", *keys)}
            | {"top": [dict(zip(keys, pair, strict=True)) for pair in row["top"]]}
            for row in rows
        ]
        return json.dumps(entries, indent=1)
    columns = [
        Column("file", "File"),
        Column("class", "Class"),
        Column(
            "probability",
            "Probability %",
            "softmax of the logits, not calibrated",
            lambda value: f"{100 * value:.2f}",
        ),
    ]
    if top > 1:
        columns.append(Column("next", "Then", "the next most probable classes"))
    for row in rows:
        row["next"] = ", ".join(f"{name} {100 * p:.2f}" for name, p in row["top"][1:])
    return render(columns, rows, style)


def _check_picture(path: Path) -> None:
    """Check that a picture can be written, before the evaluation starts."""
    if path.suffix.lower() != ".png":
        raise UserError(f"--confusion draws a PNG: give a name that ends in .png, not {path}")
    if not path.resolve().parent.is_dir():
        raise UserError(f"there is no folder {path.resolve().parent} for --confusion")
    if path.is_dir():
        raise UserError(f"--confusion needs the name of a file: {path} is a folder")


def print_evaluation(given: argparse.Namespace) -> None:
    """Print the accuracy of a run's model on one split, and one row per class."""
    from spinal_repro.inference import evaluate, load_run, part_of
    from spinal_repro.records.statistics import binomial_interval
    from spinal_repro.results.confusion import COLUMNS, confusion, draw_confusion, per_class

    if given.confusion is not None:
        _check_picture(given.confusion)
    trained = load_run(given.run, given.device)
    batches, same = part_of(trained, given.split, given.root)
    if not same:
        print("warning: these are not the images of the run, or in another order", file=sys.stderr)
    result = evaluate(trained, batches)
    low, high = binomial_interval(result.correct, result.count)
    counts = confusion(
        batches.labels.cpu().numpy(), result.predictions.numpy(), len(trained.classes)
    )
    line = (
        f"{trained.config.dataset.title}, {given.split}: {100 * result.accuracy:.2f} % "
        f"({result.correct:,} of {result.count:,}), "
        f"95 % interval {100 * low:.2f} to {100 * high:.2f}"
    )
    print(printable(line), file=sys.stdout if given.format == "table" else sys.stderr)
    print(render(COLUMNS, per_class(counts, trained.classes), given.format))
    if given.confusion is not None:
        draw_confusion(counts, trained.classes, line.partition(",")[0], given.confusion)
        print(f"confusion matrix: {given.confusion}", file=sys.stderr)
