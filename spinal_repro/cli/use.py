"""``spinal predict``, ``eval`` and ``export``: using a trained model."""

import argparse
import csv
import io
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

from spinal_repro.cli.spinal import RUN, command, count, new_file, option
from spinal_repro.data.catalog import PARTS
from spinal_repro.errors import UserError
from spinal_repro.io import printable, write_atomic
from spinal_repro.results.tables import FORMATS, Column, render

PNG, NPZ = (partial(new_file, suffix=suffix) for suffix in (".png", ".npz"))
EXPORTS = ("onnx", "torch_export", "safetensors")  # the keys of export.FORMATS, without torch
DEVICE = option("--device", default="auto", help="as runtime.device (default: auto)")
ROOT = option("--root", type=Path, help="data folder (default: that of the run)")
SPLIT = option("--split", choices=PARTS, default="test", help="default: test")
SHOWN_AS = option("--format", choices=(*FORMATS, "json"), default="table", help="default: table")
WITH = "runs of the same classes: probabilities are the mean over all runs"
HEADINGS = ("image_id", "label")
HEADED = "headings of the submission (default: image_id label)"
OTHER_DATA = "warning: images or split differ from those of the run"


@command(
    "predict",
    RUN,
    option("images", nargs="+", type=Path, help="image files, folders, CSV, npz or Parquet files"),
    option("--with", dest="others", nargs="+", type=Path, default=[], metavar="RUN", help=WITH),
    option("--flip", action="store_true", help="mean over each image and its mirror image"),
    option("--top", type=count, default=5, help="classes per file (default: 5)"),
    SHOWN_AS,
    option("--probabilities", type=new_file, metavar="CSV", help="also write a column per class"),
    option("--submission", type=new_file, metavar="CSV", help="also write one class per image"),
    option("--columns", nargs=2, default=HEADINGS, metavar=("ID", "LABEL"), help=HEADED),
    DEVICE,
)
def print_predictions(given: argparse.Namespace) -> None:
    """Classify image files with a finished run, or with several."""
    from spinal_repro.inference import find_images, load_ensemble, predict

    paths = find_images(given.images)
    trained, *others = load_ensemble([given.run, *given.others], given.device, given.flip)
    top = min(given.top, len(trained.classes))
    rows: list[dict[str, Any]] = []
    probabilities, submission, unreadable = [], [], []
    for path, answer in zip(paths, predict(trained, paths, *others), strict=True):
        if isinstance(answer, str):
            unreadable.append(f"{path}: {answer}")
            continue
        best = [
            {"class": trained.classes[index], "probability": probability}
            for probability, index in zip(*(t.tolist() for t in answer.topk(top)), strict=True)
        ]
        rows.append({"file": str(path), **best[0], "top": best})
        submission.append((path.name, best[0]["class"]))
        probabilities.append([str(path), *answer.tolist()])
    for place, head, lines in (
        (given.probabilities, ("file", *trained.classes), probabilities),
        (given.submission, given.columns, submission),
    ):
        if place is not None:
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerows([head, *lines])
            write_atomic(place, text.getvalue())
    if given.format == "json":
        print(json.dumps(rows, indent=1))
    else:
        for row in rows:
            others = row["top"][1:]
            row["next"] = ", ".join(f"{o['class']} {o['probability']:.4f}" for o in others)
        print(render(PREDICTION if top > 1 else PREDICTION[:-1], rows, given.format))
    if unreadable:
        listed = "".join(f"\n  {line}" for line in unreadable)
        raise UserError(f"{len(unreadable)} of {len(paths)} images cannot be read:{listed}")


SOFTMAX = "softmax of the logits, from 0 to 1, not calibrated"
PREDICTION = (
    Column("file", "File"),
    Column("class", "Class"),
    Column("probability", "Probability", SOFTMAX, "{:.4f}".format),
    Column("next", "Next", "the next most probable classes, with their probabilities"),
)


@command(
    "eval",
    RUN,
    SPLIT,
    ROOT,
    option("--confusion", type=PNG, metavar="PNG", help="also draw the confusion matrix"),
    SHOWN_AS,
    DEVICE,
)
def print_evaluation(given: argparse.Namespace) -> None:
    """Evaluate a finished run on one split: its metrics, and one row per class."""
    from spinal_repro.inference import evaluate, load_run, load_split
    from spinal_repro.records.metrics import compute, count_confusion, describe_metrics
    from spinal_repro.records.plots import draw_confusion
    from spinal_repro.records.statistics import binomial_interval
    from spinal_repro.results.confusion import COLUMNS, per_class

    trained = load_run(given.run, given.device)
    batches, same = load_split(trained, given.split, given.root)
    if not same:
        print(OTHER_DATA, file=sys.stderr)
    elif shared := trained.record.data.get(f"{given.split}_images_also_in_train"):
        both = f"{given.split} images that are also training images"
        print(f"warning: {both}: {shared:,}", file=sys.stderr)
    result = evaluate(trained, batches)
    low, high = binomial_interval(result.correct, result.count)
    metrics = compute(result.labels, result.probabilities)
    counts = count_confusion(result.labels, result.predictions.numpy(), len(trained.classes))
    here = given.root if given.root and not same else None
    title = f"Images in {here}" if here else trained.config.dataset.title
    line = (
        f"{title}, {given.split}: {100 * result.accuracy:.2f} % "
        f"({result.correct:,} of {result.count:,}), "
        f"95 % interval {100 * low:.2f} to {100 * high:.2f}"
    )
    rows = per_class(counts, trained.classes)
    for shown in (line, describe_metrics(metrics, trained.classes)):
        print(printable(shown), file=sys.stdout if given.format == "table" else sys.stderr)
    if given.format == "json":
        print(json.dumps({"images": result.count, "metrics": metrics, "classes": rows}, indent=1))
    else:
        print(render(COLUMNS, rows, given.format))
    if given.confusion is not None:
        draw_confusion(counts, trained.classes, line.partition(",")[0], given.confusion)
        print(f"confusion matrix: {given.confusion}", file=sys.stderr)


@command(
    "features",
    RUN,
    option("images", nargs="*", type=Path, help="image files, or folders; none: a split"),
    SPLIT,
    option("--to", type=NPZ, required=True, metavar="NPZ", help="file to write"),
    ROOT,
    DEVICE,
)
def print_features(given: argparse.Namespace) -> None:
    """Write what the head reads, a row for each image, for other classifiers."""
    from spinal_repro.inference import find_images, load_run
    from spinal_repro.inference.features import image_features, split_features, write_features

    paths = find_images(given.images) if given.images else []
    trained = load_run(given.run, given.device)
    if paths:
        arrays = image_features(trained, paths)
    else:
        arrays, same = split_features(trained, given.split, given.root)
        if not same:
            print(OTHER_DATA, file=sys.stderr)
    write_features(trained, arrays, given.to)
    count, width = arrays["features"].shape
    print(f"{given.to}: {count:,} images, {width:,} features; also {', '.join([*arrays][1:])}")


@command(
    "explain",
    RUN,
    option("image", type=Path, help="image file"),
    option("--class", dest="name", metavar="NAME", help="default: the predicted class"),
    option("--out", type=PNG, required=True, metavar="PNG", help="file to write"),
    DEVICE,
)
def print_explanation(given: argparse.Namespace) -> None:
    """Draw the regions of an image that speak for a class (Grad-CAM)."""
    from spinal_repro.inference import load_run
    from spinal_repro.inference.explain import draw_map, grad_cam

    trained = load_run(given.run, given.device)
    pixels, found, name = grad_cam(trained, given.image, given.name)
    draw_map(trained, pixels, found, given.out)
    print(f"{given.out}: class {printable(name)}")


@command(
    "export",
    RUN,
    option("--to", choices=EXPORTS, required=True),
    option("--out", type=Path, help="folder to write to (default: RUN/export/FORMAT)"),
    ROOT,
)
def print_export(given: argparse.Namespace) -> None:
    """Write a finished run's model for other programs, with a model card.

    The file is read back and compared with the trained model on images of the test part. If they
    differ, nothing is written.
    """
    from spinal_repro.export.card import CARD
    from spinal_repro.export.write import FORMATS, export_run
    from spinal_repro.inference import load_run

    out = given.out or given.run / "export" / given.to
    parity, same_data = export_run(load_run(given.run, "cpu"), given.to, out, given.root)
    if not same_data:
        print("warning: the images compared are not those of the run", file=sys.stderr)
    file = out / FORMATS[given.to].file
    print(
        f"{file}: {file.stat().st_size:,} bytes; on {parity.images} test images logits "
        f"differ from the trained model's by at most {parity.difference:.3g}, {parity.agree} "
        f"images get the same class"
    )
    print(f"model card: {out / CARD}")
