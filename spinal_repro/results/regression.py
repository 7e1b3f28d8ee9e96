"""The table of the regression experiment, beside Table I of the paper."""

from collections.abc import Mapping, Sequence
from statistics import median, quantiles
from typing import Any

from spinal_repro.paper.cells import load_cells
from spinal_repro.results.tables import Column

UNIT = 1e-3


def published() -> dict[tuple[str, str, int], float]:
    """The 16 numbers of Table I, by net, function and epochs, as mean square errors."""
    found = {}
    for cell in load_cells("regression"):
        assert cell.regression is not None and cell.published[0].value is not None, cell.name
        key = cell.regression["net"], cell.regression["function"], cell.regression["epochs"]
        found[key] = cell.published[0].value * UNIT
    return found


def summarise(
    rows: Sequence[Mapping[str, Any]], table: Mapping[tuple[str, str, int], float]
) -> list[dict[str, Any]]:
    """One row for each function, number of epochs and net.

    Args:
        rows: What `spinal_repro.paper.regression.regression` gives, both nets together.
        table: The published numbers; cells that are not in it have None.
    """
    order = list(dict.fromkeys((r["function"], r["epochs"]) for r in rows))
    order.sort(key=lambda cell: [r["function"] for r in rows].index(cell[0]))
    summary = []
    for function, epochs in order:
        by_net: dict[str, dict[int, Mapping[str, Any]]] = {}
        for row in rows:
            if (row["function"], row["epochs"]) == (function, epochs):
                by_net.setdefault(row["net"], {})[row["seed"]] = row
        for net, runs in by_net.items():
            metric = {seed: run["published_metric"] for seed, run in runs.items()}
            others = [
                other[seed]["published_metric"] > metric[seed]
                for name, other in by_net.items()
                for seed in metric
                if name != net and seed in other
            ]
            values = [*metric.values()] * (2 if len(metric) == 1 else 1)
            low, _, high = quantiles(values, n=4, method="inclusive")
            summary.append(
                {
                    "function": function,
                    "epochs": epochs,
                    "net": net,
                    "published": table.get((net, function, epochs)),
                    "metric_median": median(metric.values()),
                    "metric_q1": low,
                    "metric_q3": high,
                    "lower": sum(others) if others else None,
                    "seeds": len(runs),
                    "train_mse": median(run["train_mse"] for run in runs.values()),
                    "fresh_mse": median(run["fresh_mse"] for run in runs.values()),
                    "fresh_variance": median(run["fresh_variance"] for run in runs.values()),
                }
            )
    return summary


def _milli(value: float) -> str:
    return f"{value / UNIT:.3f}" if value < 100 * UNIT else f"{value / UNIT:.0f}"


COLUMNS = (
    Column("function", "Function"),
    Column("epochs", "Epochs"),
    Column("net", "Net", "normal is 8-200-100-1, spinal six layers of 50; both LeakyReLU"),
    Column("published", "Table I", "published minimum of the last batch's MSE", _milli),
    Column(
        "metric_median",
        "Metric",
        "the published metric measured: minimum over the epochs so far of the MSE of the last "
        "mini-batch (40 training samples) of an epoch; median over seeds",
        _milli,
    ),
    Column("metric_q1", "Q1", "lower quartile of Metric over seeds", _milli),
    Column("metric_q3", "Q3", "upper quartile of Metric over seeds", _milli),
    Column("lower", "Lower", "seeds in which Metric is lower than the other net's"),
    Column("seeds", "Seeds", "number of seeds; samples and their order are the same for both nets"),
    Column("train_mse", "Train", "MSE on all 1000 training samples at that epoch; median", _milli),
    Column(
        "fresh_mse",
        "Fresh",
        "MSE on 1000 fresh samples, noise included (0.2^2/12 = 3.333 at best); median",
        _milli,
    ),
    Column(
        "fresh_variance",
        "Variance",
        "variance of the fresh target, the MSE of its mean; median. Errors and variances "
        "are in units of 1e-3",
        _milli,
    ),
)
