"""The MNIST CNN's training curves: the supplement's own, and those of our runs."""

from dataclasses import dataclass, field

from spinal_repro.paper.cells import curve, load_cells
from spinal_repro.records import statistics
from spinal_repro.results.findings import ResultsIndex
from spinal_repro.results.rules.epochs import curves

QUANTITIES = {"accuracy": ("mean accuracy %", "SD of accuracy"), "loss": ("mean loss", None)}


@dataclass
class Series:
    """Mean and standard deviation by epoch; an epoch may have no standard deviation.

    Attributes:
        mean: By epoch, from 1.
        sd: By epoch.
        n: Number of runs; None where it was not published.
    """

    mean: dict[int, float] = field(default_factory=dict)
    sd: dict[int, float] = field(default_factory=dict)
    n: int | None = None


def published_curves(quantity: str) -> dict[str, Series]:
    """The supplement's curves, read off the figure, by head.

    Args:
        quantity: ``accuracy`` (percent) or ``loss``.
    """
    wanted_mean, wanted_sd = QUANTITIES[quantity]
    heads = {cell.name: cell.head for cell in load_cells("curve")}
    found = {head: Series() for head in heads.values()}
    for row in curve():
        series = found[heads[row["cell"]]]
        if row["quantity"] == wanted_mean:
            series.mean[row["epoch"]] = row["value"]
        elif row["quantity"] == wanted_sd:
            series.sd[row["epoch"]] = row["value"]
    return found


def measured_curves(findings: ResultsIndex, quantity: str) -> dict[str, Series]:
    """Mean and standard deviation over our runs' seeds, by head; the longest curves there are.

    Args:
        findings: Everything known.
        quantity: ``accuracy`` (percent) or ``loss``.
    """
    found = {}
    for cell in load_cells("curve"):
        names = (cell.name, cell.shorter or cell.name)
        known = [curves(findings, name, quantity) for name in names if name in findings.cells]
        longest = max((len(c) for by_seed in known for c in by_seed.values()), default=0)
        if not longest:
            continue
        runs = next(r for by_seed in known if (r := _of_length(by_seed, longest)))
        by_epoch = dict(enumerate(zip(*runs, strict=True), 1))
        several = len(runs) > 1
        found[cell.head] = Series(
            {epoch: statistics.mean(values) for epoch, values in by_epoch.items()},
            {e: statistics.deviation(v) for e, v in by_epoch.items()} if several else {},
            len(runs),
        )
    return found


def _of_length(by_seed: dict[int, tuple[float, ...]], length: int) -> list[tuple[float, ...]]:
    return [curve for curve in by_seed.values() if len(curve) == length]
