"""``spinal params``: counts of models, without training or data."""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from spinal_repro.cli.spinal import FORMAT, command, new_file, option
from spinal_repro.config.compose import choices, compose
from spinal_repro.errors import UserError
from spinal_repro.io import write_json
from spinal_repro.paper.cells import load_cells
from spinal_repro.results.tables import Column, render

BASELINE = "fc"
# Default data set of each model for counting; all other models get photographs.
DATASETS = {
    "mnist": ("arch2", "cnn", "flatten", "lenet5", "vgg5"),
    "cifar10": (
        "cifar_cnn", "densenet", "resnet18_thin", "resnet34_thin", "tutorial_cnn",
        "tutorial_resnet", "vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn",
    ),
}  # fmt: skip
PHOTOGRAPHS = "hymenoptera"
# Networks for larger images; the auxiliary output of Inception v3 needs them.
IMAGE_SIZES = dict.fromkeys(("inception_v3", "inception_v4", "inception_resnet_v2"), 299)
TITLES = {"dataset": "Data set", "model": "Model", "head": "Head"}
OVERRIDES = "as for spinal-train, e.g. dataset=mnist model=cnn,vgg5 head=spinal"
CELLS = "count every published cell instead, as JSON"
OUT = "with --cells: the file to write (spinal tables reads results/counts.json)"


@command(
    "params",
    option("overrides", nargs="*", help=OVERRIDES),
    option("--cells", action="store_true", help=CELLS),
    option("--out", type=new_file, help=OUT),
    FORMAT,
)
def print_params(given: argparse.Namespace) -> None:
    """Count parameters, multiplications and activations, without training or data.

    Without model=... every model is counted, without head=... every head. Every row is compared
    with head=fc on the same model and data set; with paper=CELL, the cell with its FC cell.
    """
    if given.cells and given.overrides:
        raise UserError("--cells counts every cell; remove --cells or the overrides")
    if given.out is not None and not given.cells:
        raise UserError("--out is for the counts of the cells: spinal params --cells --out FILE")
    if given.cells:
        from spinal_repro.paper.sizes import count_cells

        counts, refused = count_cells(load_cells())
        if given.out is None:
            print(json.dumps(counts, indent=1))
        else:
            write_json(given.out, counts)
    else:
        from spinal_repro.results.sizes import COUNTS

        of_cells = any(override.startswith("paper=") for override in given.overrides)
        rows, refused = (cell_sizes if of_cells else sizes)(given.overrides)
        columns = [Column(key, title) for key, title in TITLES.items()]
        print(render([*columns, *COUNTS], rows, given.format))
    for name, why in refused.items():  # on stderr: standard output is the table alone
        print(f"not counted, {name}: {why}", file=sys.stderr)


def cell_sizes(overrides: Sequence[str]) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Count the cells of ``paper=CELL`` or ``paper=TABLE``, each against its FC cell."""
    from spinal_repro.cli.overrides import cells_of, check_overrides
    from spinal_repro.paper.sizes import count_model
    from spinal_repro.results.sizes import compare

    *_, named = (o.removeprefix("paper=") for o in overrides if o.startswith("paper="))
    cells = cells_of(named)
    rest = [o for o in overrides if not o.startswith("paper=")]
    check_overrides([f"paper={','.join(cells)}", *rest])
    plain = [o for o in rest if not o.lstrip("+~").startswith("head")]  # for the FC cell
    rows = []
    for name in cells:
        (cell,) = load_cells(name)
        fc, config = cell.counterpart, compose([f"paper={name}", *rest])
        base = count_model(compose([f"paper={fc}", *plain])) if fc else None
        titles = (config.dataset.name, config.model.label, config.head.name)
        rows.append(dict(zip(TITLES, titles, strict=True)) | compare(count_model(config), base))
    return rows, {}


def sizes(overrides: Sequence[str] = ()) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Count the models of all combinations of overrides; without ``dataset=`` as in `DATASETS`.

    Returns rows, and for heads with models that they do not fit the first reason.
    """
    from spinal_repro.cli.overrides import check_overrides
    from spinal_repro.paper.sizes import count_model
    from spinal_repro.results.sizes import compare

    check_overrides([o for o in overrides if o.partition("=")[0] in TITLES])
    named = {key: value for key, _, value in (o.partition("=") for o in overrides)}
    models = named["model"].split(",") if "model" in named else choices("model")
    heads = named["head"].split(",") if "head" in named else choices("head")
    rest = [o for o in overrides if o.partition("=")[0] not in TITLES]
    plain = [o for o in rest if not o.lstrip("+~").startswith("head.")]  # for the baseline
    rows: list[dict[str, Any]] = []
    refused: dict[str, dict[str, str]] = {}
    for model in models:
        usual = next((name for name, group in DATASETS.items() if model in group), PHOTOGRAPHS)
        dataset = named.get("dataset", usual)
        given = [f"model={model}", f"dataset={dataset}"]
        if "dataset" not in named and model in IMAGE_SIZES:
            given.append(f"dataset.image_size={IMAGE_SIZES[model]}")
        try:
            base = count_model(compose([*given, *plain, f"head={BASELINE}"]))
        except UserError as error:
            refused.setdefault("any head", {})[model] = str(error)
            continue
        for head in sorted(heads, key=lambda head: head != BASELINE):
            try:
                counts = count_model(compose([*given, *rest, f"head={head}"]))
            except UserError as error:
                refused.setdefault(head, {})[model] = str(error)
            else:
                row = {"dataset": dataset, "model": model, "head": head}
                rows.append(row | compare(counts, base))
    if not rows and refused:
        raise UserError(next(why for reasons in refused.values() for why in reasons.values()))
    return rows, {
        f"{head} with {', '.join(reasons)}": next(iter(reasons.values()))
        for head, reasons in refused.items()
    }
