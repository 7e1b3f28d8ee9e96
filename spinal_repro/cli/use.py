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
    """Add both commands to those of ``spinal``."""
    predict = commands.add_parser("predict", help="classify image files with a finished run")
    predict.add_argument("run", type=Path, help="its folder, see `spinal status`")
    predict.add_argument("images", nargs="+", type=Path, help="image files, or folders of them")
    predict.add_argument("--top", type=int, default=5, help="classes shown a file (default: 5)")
    predict.set_defaults(command=print_predictions)

    evaluate = commands.add_parser("eval", help="accuracy of a finished run, class by class")
    evaluate.add_argument("run", type=Path, help="its folder, see `spinal status`")
    evaluate.add_argument("--split", choices=("train", "val", "test"), default="test")
    evaluate.add_argument("--root", help="where data sets lie (default: where they lay then)")
    evaluate.add_argument("--confusion", type=Path, metavar="PNG", help="also draw the confusion")
    evaluate.set_defaults(command=print_evaluation)

    add_format(predict, "json")
    add_format(evaluate)
    for command in (predict, evaluate):
        command.add_argument("--device", default="auto", help="as runtime.device (default: auto)")


def print_predictions(given: argparse.Namespace) -> None:
    """Print the classes that a run's model sees in images.

    Raises:
        UserError: where run or images are not there, and after the table where some of the
            images cannot be read.
    """
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
        shares, places = (found.tolist() for found in answer.topk(top))
        rows.append((str(path), [trained.classes[place] for place in places], shares))
    print(_predictions(rows, given.format))
    if unreadable:
        listed = "".join(f"\n  {line}" for line in unreadable)
        raise UserError(f"{len(unreadable)} of {len(paths)} images cannot be read:{listed}")


def _predictions(rows: Sequence[tuple[str, list[str], list[float]]], style: str) -> str:
    if style == "json":
        return json.dumps(
            [
                {
                    "file": file,
                    "class": names[0],
                    "probability": shares[0],
                    "top": [
                        {"class": n, "probability": p} for n, p in zip(names, shares, strict=True)
                    ],
                }
                for file, names, shares in rows
            ],
            indent=1,
        )
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
    top = max((len(names) for _, names, _ in rows), default=1)
    if top > 1:
        columns.append(Column("next", "Then", "the next most probable classes"))
    plain = [
        {
            "file": file,
            "class": names[0],
            "probability": shares[0],
            "next": ", ".join(
                f"{n} {100 * p:.2f}" for n, p in zip(names[1:], shares[1:], strict=True)
            ),
        }
        for file, names, shares in rows
    ]
    return render(columns, plain, style)


def _check_picture(path: Path) -> None:
    """See that a picture can be written, before anything is computed.

    Raises:
        UserError: where it could not, or would be of another kind than its name says.
    """
    if path.suffix.lower() != ".png":
        raise UserError(f"--confusion draws a PNG: give a name that ends in .png, not {path}")
    if not path.resolve().parent.is_dir():
        raise UserError(f"there is no folder {path.resolve().parent} for --confusion")
    if path.exists() and not path.is_file():
        raise UserError(f"--confusion needs a file, and {path} is none")


def print_evaluation(given: argparse.Namespace) -> None:
    """Print the accuracy of a run's model on one split, and a row a class.

    Raises:
        UserError: where the run or its data are not there.
    """
    from spinal_repro.inference import evaluate, load_run, part_of
    from spinal_repro.records.statistics import binomial_interval
    from spinal_repro.results.confusion import COLUMNS, confusion, draw_confusion, per_class

    if given.confusion is not None:
        _check_picture(given.confusion)
    trained = load_run(given.run, given.device)
    batches, same = part_of(trained, given.split, given.root)
    if not same:
        print("the data are not those of the run: other images, or another order", file=sys.stderr)
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
