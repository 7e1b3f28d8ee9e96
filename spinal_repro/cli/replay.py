"""``spinal replay``: repeat the batch at which a run stopped with a number that is none."""

import argparse
from pathlib import Path
from typing import Any

from spinal_repro.errors import UserError


def add_parser(commands: Any) -> None:
    """Add the command to those of ``spinal``."""
    replay = commands.add_parser(
        "replay",
        help="repeat the batch at which a run's loss became infinite or NaN",
        description="Train on from the last checkpoint, or test where all is trained, without "
        "writing anything, and name the first module, gradient or weight that is not finite, "
        "with the images of its batch.",
    )
    replay.add_argument("run", type=Path, help="its folder, see `spinal status`")
    replay.set_defaults(command=print_replay)


def print_replay(given: argparse.Namespace) -> None:
    """Print what is first not finite.

    Raises:
        UserError: where it is no run folder, or everything is finite this time.
    """
    from spinal_repro.training.finite import KINDS
    from spinal_repro.training.replay import replay

    found = replay(given.run)
    if found is None:
        raise UserError(
            "every loss, gradient and weight is finite this time: the cause was the machine or an "
            "older version of the code; issue the command of the run again"
        )
    place = f"epoch {found.epoch}, step {found.step}, learning rate {found.lr:.3g}"
    if found.evaluation:
        place = f"{found.evaluation}, batch {found.step}"
    print(f"{place}: {found.what}")
    print(f"{KINDS[found.part]} images {', '.join(map(str, found.images))}")
    print(f"of classes {', '.join(map(str, found.labels))}")
