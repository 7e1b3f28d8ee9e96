"""``spinal export``: a trained model for other programs."""

import argparse
import sys
from pathlib import Path
from typing import Any

CHOICES = ("onnx", "torch_export", "safetensors")  # the names of export.FORMATS, without torch


def add_parser(commands: Any) -> None:
    """Add the command to those of ``spinal``."""
    export = commands.add_parser(
        "export",
        help="write a finished run's model for other programs, with a model card",
        epilog="What was written is read back and compared with the trained model on images of "
        "the test part; where they differ, nothing is written.",
    )
    export.add_argument("run", type=Path, help="its folder, see `spinal status`")
    export.add_argument("--to", choices=CHOICES, required=True)
    export.add_argument("--out", type=Path, help="folder to write to (default: RUN/export/FORMAT)")
    export.add_argument("--root", help="where data sets lie (default: where they lay then)")
    export.set_defaults(command=print_export)


def print_export(given: argparse.Namespace) -> None:
    """Export a run and say what came of it.

    Raises:
        UserError: as `export_run`.
    """
    from spinal_repro.export import FORMATS, export_run
    from spinal_repro.inference import load_run

    FORMATS[given.to].check()  # before anything is loaded
    trained = load_run(given.run, "cpu")
    out = given.out or given.run / "export" / given.to
    done = export_run(trained, given.to, out, given.root)
    if not done.same_data:
        print("compared on other images than those of the run", file=sys.stderr)
    parity = done.parity
    print(
        f"{done.file}: {done.file.stat().st_size:,} bytes; on {parity.images} test images at most "
        f"{parity.difference:.3g} from the trained model, {parity.agree} with the same class"
    )
    print(f"model card: {done.folder / 'model_card.md'}")
