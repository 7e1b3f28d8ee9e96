"""The table of the regression experiment, beside Table I of the paper."""

from collections.abc import Mapping, Sequence
from typing import Any

from spinal_repro.paper.cells import load_cells
from spinal_repro.results.tables import Column

UNIT = 1e-3


def published() -> dict[tuple[str, str, int], float]:
    """The 16 numbers of Table I, by net, function and epochs, as mean square errors."""
    found = {}
    for cell in load_cells("regression"):
        assert cell.regression is not None and cell.result.value is not None, cell.name
        key = cell.regression["net"], cell.regression["function"], cell.regression["epochs"]
        found[key] = cell.result.value * UNIT
    return found


def summarise(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Summarise the rows of `regressions`: one for each function, number of epochs and net."""
    from pandas import Categorical, DataFrame, Series

    frame = DataFrame(rows)
    for key in ("function", "net"):  # in order of appearance, not alphabetical
        frame[key] = Categorical(frame[key], frame[key].unique())
    metric = "published_metric"
    seeds = frame.groupby(["function", "epochs", "seed"], observed=True)[metric]
    frame["lower"] = frame[metric] < seeds.transform("max")
    groups = frame.groupby(["function", "epochs", "net"], observed=True)
    summary = groups.agg(
        metric_median=(metric, "median"),
        metric_q1=(metric, lambda values: values.quantile(0.25)),
        metric_q3=(metric, lambda values: values.quantile(0.75)),
        lower=("lower", "sum"),
        seeds=("seed", "size"),
        **{key: (key, "median") for key in ("train_mse", "fresh_mse", "fresh_variance")},
    )
    table = published()
    known = [table.get((net, function, epochs)) for function, epochs, net in summary.index]
    summary.insert(0, "published", Series(known, summary.index, dtype=object))
    return summary.reset_index().to_dict("records")  # type: ignore[return-value]


def _milli(value: float) -> str:
    return f"{value / UNIT:.3f}" if value < 100 * UNIT else f"{value / UNIT:.0f}"


COLUMNS = (
    Column("function", "Function"),
    Column("epochs", "Epochs"),
    Column("net", "Net", "normal is 8-200-100-1, spinal six layers of 50; both LeakyReLU"),
    Column("published", "Table I", "published lowest last-batch MSE; all errors in 1e-3", _milli),
    Column("metric_median", "Metric", "lowest last-batch MSE so far, median over seeds", _milli),
    Column("metric_q1", "Q1", "lower quartile of Metric over seeds", _milli),
    Column("metric_q3", "Q3", "upper quartile of Metric over seeds", _milli),
    Column("lower", "Lower", "seeds in which Metric is lower than the other net's"),
    Column("seeds", "Seeds", "number of seeds; samples and their order are the same for both nets"),
    Column("train_mse", "Train", "MSE on all 1000 training samples at that epoch; median", _milli),
    Column("fresh_mse", "Fresh", "MSE on 1000 new samples; median, 3.333 at best (noise)", _milli),
    Column("fresh_variance", "Variance", "variance of their targets, in 1e-3; median", _milli),
)
