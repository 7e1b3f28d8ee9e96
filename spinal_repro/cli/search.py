"""``spinal search``: hyperparameter search by validation accuracy."""

import argparse
import importlib.util
import shlex
from pathlib import Path

from spinal_repro.cli.spinal import command, natural, option
from spinal_repro.errors import UserError
from spinal_repro.io import echo

TAKE_OVER = "also repeat unfinished trials of other machines; none of these may be running"


@command(
    "search",
    option("overrides", nargs="*", help="of all trials, e.g. dataset=mnist recipe.epochs=3"),
    option("--space", default="default", help="name in configs/search, or YAML file"),
    option("--trials", type=natural, default=20, help="trials of the study (default: 20)"),
    option("--study", help="name of the study (default: DATASET-MODEL-HEAD-SPACE)"),
    option("--journal", type=Path, help="file (default: RUNS/.search/STUDY/journal.log)"),
    option("--take-over", action="store_true", help=TAKE_OVER),
)
def print_search(given: argparse.Namespace) -> None:
    """Search options by validation accuracy; the test set is never read.

    Processes and machines with the same --journal and --study share the trials. The same command
    continues a search, with the trials that were interrupted.
    """
    if importlib.util.find_spec("optuna") is None:
        raise UserError("a search needs Optuna: pip install 'spinal-repro[hpo]'")
    from spinal_repro.cli.overrides import check_overrides
    from spinal_repro.search.study import Study, load_space
    from spinal_repro.training.resolve import resolved

    space = load_space(given.space)
    fixed = ["runtime.progress=none", *space.fixed(given.overrides)]  # a later one wins
    check_overrides(fixed)
    config = resolved(space.check(fixed))
    label = f"{config.dataset.name}-{config.model.label}-{config.head.name}"
    name = given.study or f"{label}-{Path(given.space).stem}"
    journal = given.journal or Path(config.runs) / ".search" / name / "journal.log"
    study = Study(journal, name, space, fixed, config.data.inputs)
    echo(f"study {name} in {journal}")
    study.run(given.trials, echo, given.take_over)
    counts = ", ".join(f"{count} {state}" for state, count in study.counts.items())
    best = study.best
    if best is None or best.value is None:
        raise UserError(f"no trial of {name} has finished ({counts or 'there are no trials'})")
    print(
        f"\n{counts}; best: trial {best.number}, {100 * best.value:.2f} % of "
        f"{best.user_attrs['images']:,} validation images. Expect less on other images: it is the "
        f"best of many. The test set was not used. Train these options on several seeds, then "
        f"look at the test accuracy once:\n"
    )
    chosen = [f"{key}={value}" for key, value in best.user_attrs["values"].items()]
    ours = [o for o in fixed if not o.startswith(("runtime.progress=", "seed="))]
    print(shlex.join(["spinal-train", "-m", *ours, *chosen, "protocol=heldout", "seed=0,1,2"]))
