"""What the figures show. Nothing here touches matplotlib's global state."""

from spinal_repro.results.plots import cells, curve, summary
from spinal_repro.results.plots.common import Plot

PLOTS = (
    Plot(
        "mnist_cnn_curve",
        "MNIST CNN, epoch by epoch",
        "Test accuracy and loss after each epoch. Thin lines with open markers: the supplement's "
        "curve, read off the figure; thick lines with filled markers: ours. Bands: one standard "
        "deviation over runs. FC: circles, dashed; Spinal: squares, solid.",
        curve.curve,
    ),
    Plot(
        "against_paper",
        "Ours against the paper",
        "Our mean minus the published number for each cell that was run and has one, with the "
        "95 % interval of the mean over seeds (of one run: that of its finite test set). Open "
        "markers: a reduced budget or a changed recipe. Beside each: published, ours, the number "
        "of runs and the verdict.",
        cells.against_paper,
    ),
    Plot(
        "regression",
        "Regression, Table I",
        "The published metric, mean over seeds with its 95 % interval, beside the paper's single "
        "values (diamonds). Lower is better; the axis is logarithmic.",
        cells.regression,
    ),
    Plot(
        "paired_differences",
        "Spinal minus FC, seed by seed",
        "Each grey tick is one seed, trained with both heads on the same batches from the same "
        "backbone weights; squares are means with the 95 % interval of the paired difference. "
        "Open squares: a reduced budget or a changed recipe.",
        cells.paired_differences,
    ),
    Plot(
        "accuracy_by_parameters",
        "Accuracy against the size of the head",
        "Mean test accuracy with its 95 % interval against the parameters of the head, one panel "
        "a data set and backbone; diamonds are published numbers. Open markers: a reduced budget "
        "or a changed recipe.",
        cells.accuracy_by_parameters,
    ),
    Plot(
        "summary",
        "Best of SpinalNet against the state of the art of June 2020",
        "Error rates of the supplement's bar chart: the published best of SpinalNet (plain bars) "
        "and the state of the art that it names (hatched bars), and, as stars, our best "
        "mean of those networks that were run, which need not be the one that the bar stands for. "
        "Open stars: a reduced budget or a changed recipe. The labels are accuracies.",
        summary.summary,
    ),
)
