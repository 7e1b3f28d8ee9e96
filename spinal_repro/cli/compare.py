"""``spinal compare``: trains heads on the same images and compares them, or compares runs."""

import argparse
import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from spinal_repro.cli.spinal import command, count, option
from spinal_repro.errors import UserError
from spinal_repro.io import echo
from spinal_repro.records.metrics import TITLES

SEEDS = 8  # enough to decide three comparisons
# settings that the command sets, and its option
OWN = {"head": "--heads", "seed": "--seeds", "paper": "spinal paper run"}
OWN |= dict.fromkeys(("protocol", "protocol.folds", "protocol.fold"), "--folds")
WORDS = "settings of spinal-train, or folders of finished runs"


@command(
    "compare",
    option("words", nargs="*", metavar="SETTING|RUN", help=WORDS),
    option("--heads", help="configs of head/ (default: linear,fc,spinal)"),
    option("--seeds", type=count, help=f"runs of each head (default: {SEEDS}; 1 with --folds)"),
    option("--folds", type=partial(count, least=2), help="cross-validation with so many folds"),
    option("--metric", choices=tuple(TITLES), default="accuracy", help="default: accuracy"),
    option("--out", type=Path, help="folder to write to (default: compare/DATASET-HASH)"),
)
def compare_heads(given: argparse.Namespace) -> None:
    """Answer whether a Spinal head helps: train heads on the same images and compare them.

    Trains what is missing, with the same seeds for each head, and writes one folder: report.html,
    table.md, table.csv, curves.png, a confusion matrix and the best weights of each head. With
    --heads fc, the hidden layer has as many parameters as the Spinal head, unless head.hidden
    or the configs give its width. A frozen backbone computes the features of each image once
    (recipe=features). With folders of finished runs instead of settings, compares those.
    """
    settings = [word for word in given.words if "=" in word and not Path(word).exists()]
    places = [Path(word) for word in given.words if word not in settings]
    if bool(settings) == bool(places):
        raise UserError("give settings, e.g. dataset=folder data.root=PHOTOS, or folders of runs")
    if places and (given.heads or given.seeds or given.folds):
        raise UserError("--heads, --seeds and --folds are for training; leave them out with runs")
    places = places or _train(given, settings)

    from spinal_repro.results.comparison import compare, group_runs, read_runs
    from spinal_repro.results.comparison_report import write_comparison

    groups = group_runs(read_runs(places))
    comparisons = compare(groups, given.metric)
    first, identities = groups[0].first, sorted(group.first.identity for group in groups)
    key = hashlib.sha256(" ".join([*identities, given.metric]).encode()).hexdigest()[:6]
    out = given.out or Path("compare") / f"{first.config['dataset']['name']}-{key}"
    echo(write_comparison(out, groups, comparisons, given.metric))
    echo(f"\n{out / 'report.html'}")
    for comparison in comparisons:
        echo(f"{comparison}.")


def _train(given: argparse.Namespace, settings: list[str]) -> list[Path]:
    from spinal_repro.cli.launch import JobError, run_jobs
    from spinal_repro.cli.overrides import check_overrides

    for setting in settings:
        key = setting.lstrip("+").partition("=")[0]
        if key in OWN:
            raise UserError(f"{setting}: use {OWN[key]} instead")
    heads = (given.heads or "linear,fc,spinal").split(",")
    if len(set(heads)) < 2:
        raise UserError("--heads needs two or more heads, separated by commas")
    if "model.freeze=backbone" in settings and not any(s.startswith("recipe=") for s in settings):
        settings = ["recipe=features", *settings]
    folds = ["protocol=kfold", f"protocol.folds={given.folds}"] if given.folds else []
    shared = [word for word in settings if not word.lstrip("+").startswith("head.")]
    for head in heads:
        check_overrides([*shared, *folds, f"head={head}"])
    chosen = [_head(head, [*settings, *folds], heads) for head in heads]
    if unused := set(settings) - set(shared).union(*chosen):
        raise UserError(f"{min(unused)}: none of the heads {', '.join(heads)} has this setting")
    fold_of = [[f"protocol.fold={fold}"] for fold in range(given.folds or 0)] or [[]]
    jobs = [
        (*shared, *folds, *own, *fold, f"seed={seed}")
        for seed in range(given.seeds or (1 if given.folds else SEEDS))
        for fold in fold_of
        for own in chosen
    ]
    try:
        return run_jobs(jobs, ())
    except JobError as error:
        raise UserError(f"{error}; correct this and run the same command again") from None


def _head(head: str, settings: Sequence[str], heads: Sequence[str]) -> list[str]:
    """Settings of a head; FC without a width gets as many parameters as the Spinal head.

    Each head takes those options that its config has; a linear head has no width.
    """
    from spinal_repro.config.compose import compose, find_choice
    from spinal_repro.models.classifier import build_blank
    from spinal_repro.training.resolve import resolved

    def own(name: str) -> list[str]:
        known = () if name == "linear" else find_choice("head", name)[1]
        keys = tuple(f"head.{key}=" for key in known)
        return [f"head={name}", *(word for word in settings if word.lstrip("+").startswith(keys))]

    found = own(head)
    shared = [word for word in settings if not word.lstrip("+").startswith("head.")]
    if head != "fc" or "spinal" not in heads or compose([*shared, *found]).head.options["hidden"]:
        return found
    config = resolved(compose([*shared, *own("spinal")]))
    model = build_blank(config.dataset, config.model, config.head, config.input_size)
    size = sum(weights.numel() for weights in model.head.parameters())
    inputs, outputs = int(model.backbone.num_features), config.dataset.outputs  # type: ignore[arg-type]
    width = max(1, round((size - outputs) / (inputs + 1 + outputs)))
    return [*found, f"head.hidden=[{width}]"]
