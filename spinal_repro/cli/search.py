"""``spinal search``: options chosen on the held-out part."""

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

from spinal_repro.errors import EXIT_INTERRUPTED, UserError
from spinal_repro.io import echo


def add_parser(commands: Any) -> None:
    """Add the command to those of ``spinal``."""
    search = commands.add_parser(
        "search",
        help="search options by validation accuracy; the test set is never read",
        epilog="Give several processes or machines the same --journal and --study, and they share "
        "the trials. The same command continues a search; what was cut off is issued again.",
    )
    search.add_argument(
        "overrides", nargs="*", help="of every trial, e.g. dataset=mnist model=cnn recipe.epochs=3"
    )
    search.add_argument(
        "--space",
        default="default",
        help="what is tried: a name in configs/search, or a YAML file (default: default)",
    )
    search.add_argument("--trials", type=int, default=20, help="of the study (default: 20)")
    search.add_argument("--study", help="its name (default: DATASET-MODEL-HEAD-SPACE)")
    search.add_argument(
        "--journal", type=Path, help="its file (default: RUNS/.search/STUDY/journal.log)"
    )
    search.add_argument(
        "--take-over",
        action="store_true",
        help="also issue again what other machines have left unfinished: none of them may be "
        "running",
    )
    search.set_defaults(command=print_search)


def print_search(given: argparse.Namespace) -> None:
    """Search, then print the best options as a command.

    Raises:
        UserError: for a space or overrides that are not valid, and where no trial succeeded.
    """
    if given.trials < 0:
        raise UserError(f"--trials must be 0 or more, got {given.trials}")
    from spinal_repro.search import Study, load_space

    space = load_space(given.space)
    fixed = space.fixed(given.overrides)
    if not any(override.startswith("runtime.progress=") for override in fixed):
        fixed.append("runtime.progress=none")
    config = space.check(fixed)
    label = f"{config.dataset.name}-{config.model.label}-{config.head.name}"
    name = given.study or f"{label}-{Path(given.space).stem}"
    journal = given.journal or Path(config.runs) / ".search" / name / "journal.log"
    study = Study(journal, name, space, fixed)
    echo(f"study {name} in {journal}")
    try:
        study.run(given.trials, echo, given.take_over)
    except KeyboardInterrupt:
        echo("interrupted; the same command continues from the last checkpoint", error=True)
        sys.exit(EXIT_INTERRUPTED)
    counts = ", ".join(f"{count} {state}" for state, count in study.counts.items())
    best = study.best
    if best is None:
        raise UserError(f"no trial of {name} has finished ({counts or 'there are none'})")
    print(
        f"\n{counts}; best: trial {best.number} with {100 * best.accuracy:.2f} % of "
        f"{best.images:,} validation images. It was chosen for that, so expect less; the test set "
        f"was not read. Train it on several seeds, then look at the test set once:\n"
    )
    chosen = [f"{key}={value}" for key, value in best.values.items()]
    ours = [o for o in fixed if not o.startswith(("runtime.progress=", "seed="))]
    print(shlex.join(["spinal-train", "-m", *ours, *chosen, "protocol=heldout", "seed=0,1,2"]))
