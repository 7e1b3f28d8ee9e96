"""``spinal export``: a trained model for other programs."""

import argparse
import sys
from pathlib import Path
from typing import Any

CHOICES = ("onnx", "torch_export", "safetensors")  # the keys of export.FORMATS, without torch


def add_parser(commands: Any) -> None:
    """Add the command to those of ``spinal``."""
    export = commands.add_parser(
        "export",
        help="write a finished run's model for other programs, with a model card",
        epilog="The file is read back and compared with the trained model on images of the test "
        "part. If they differ, nothing is written.",
    )
    export.add_argument("run", type=Path, help="run folder, see `spinal status`")
    export.add_argument("--to", choices=CHOICES, required=True)
    export.add_argument("--out", type=Path, help="folder to write to (default: RUN/export/FORMAT)")
    export.add_argument("--root", help="data folder (default: that of the run)")
    export.set_defaults(command=print_export)


def print_export(given: argparse.Namespace) -> None:
    """Export a run and print the result."""
    from spinal_repro.export import FORMATS, check_libraries, export_run
    from spinal_repro.inference import load_run

    check_libraries(given.to)  # before anything is loaded
    trained = load_run(given.run, "cpu")
    out = given.out or given.run / "export" / given.to
    parity, same_data = export_run(trained, given.to, out, given.root)
    if not same_data:
        print("warning: compared on other images than those of the run", file=sys.stderr)
    file = out / FORMATS[given.to].file
    print(
        f"{file}: {file.stat().st_size:,} bytes; on {parity.images} test images logits "
        f"differ from the trained model's by at most {parity.difference:.3g}, {parity.agree} "
        f"images get the same class"
    )
    print(f"model card: {out / 'model_card.md'}")
