"""Figures of the results. Nothing here touches matplotlib's global state."""

from spinal_repro.results.plots import cells, curve, summary

PLOTS = (
    curve.mnist_cnn_curve,
    cells.against_paper,
    cells.regression,
    cells.paired_differences,
    cells.accuracy_by_parameters,
    summary.summary,
)
