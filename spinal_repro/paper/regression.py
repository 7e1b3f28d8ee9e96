"""The regression experiment of Table I, every seed and function of a net in one computation.

Eight standard-normal inputs, a target ``f(x) + 0.2 * U[0, 1)``, 1000 samples, Adam at 0.01,
batches of 64 and a last one of 40 (recipes 2.7). The parameters of the models of one net are
stacked along a leading dimension M = seeds x functions and trained together with
`torch.func.vmap`; as Adam works element by element and no loss depends on two models, each is
trained exactly as it would be alone.
"""

import functools
import multiprocessing
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, stack_module_state, vmap

from spinal_repro.errors import unknown
from spinal_repro.models.heads import FCHead, SpinalHead
from spinal_repro.records.provenance import describe_environment, git_revision
from spinal_repro.records.record import RegressionRecord, RegressionRun, RegressionSettings
from spinal_repro.seeds import stream_seed

INPUTS, SAMPLES, BATCH_SIZE, NOISE, LR = 8, 1000, 64, 0.2, 0.01

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sum": lambda x: x.sum(-1),
    "sin(sum)": lambda x: x.sum(-1).sin(),
    "product": lambda x: x.prod(-1),
    "sin(product)": lambda x: x.prod(-1).sin(),
}
NETS = ("normal", "spinal")
TARGETS = ("column", "square")
LAYERS = ("distinct", "reused")
TOGETHER = 9  # seeds in one computation: enough for long products, few enough for the caches


def make_net(net: str, layers: str = "distinct") -> nn.Module:
    """One network, with PyTorch's default initial weights.

    Args:
        net: ``normal`` (8-200-100-1) or ``spinal`` (six layers of 50), both with LeakyReLU(0.01).
        layers: ``distinct``, or ``reused`` as in the script, where layers 5 and 6 of the Spinal
            net are layers 3 and 4 again and 5,500 of its 14,301 parameters are dead (Q2).

    Raises:
        UserError: for an unknown name.
    """
    if layers not in LAYERS:
        raise unknown("value of layers", layers, LAYERS)
    if net == "normal":
        return FCHead(INPUTS, 1, hidden=(200, 100), activation="leaky_relu")
    if net == "spinal":
        order = (1, 2, 3, 4, 3, 4) if layers == "reused" else ()
        return SpinalHead(INPUTS, 1, width=50, layers=6, activation="leaky_relu", order=order)
    raise unknown("net", net, NETS)


@dataclass(frozen=True)
class Samples:
    """Data of all models: the same seed has the same inputs and noise for every function.

    Attributes:
        x: Inputs ``[M, N, 8]``.
        y: What is fitted, ``[M, N]``.
        extra: What the MSE against the whole target has in addition, ``[M]``.
    """

    x: Tensor
    y: Tensor
    extra: Tensor


def draw(seeds: Sequence[int], target: str, count: int = SAMPLES, part: int = 0) -> Samples:
    """Samples for every seed and function, seeds outermost.

    ``column`` gives each sample noise of its own, which is what Table I was made with.
    ``square`` is the committed code: noise of shape (N,) and a signal of shape (N, 1) broadcast
    to a target (N, N), in which every sample has the same N noise values (Q1). The mean square
    of ``p - f - n_j`` over j is ``(p - f - mean(n))^2 + var(n)``, so the fit is to ``f`` plus
    the mean noise, and the variance is added to the loss.

    Args:
        seeds: Seeds.
        target: ``column`` or ``square``.
        count: Number of samples N.
        part: 0 for the training samples, 1 for fresh ones.

    Raises:
        UserError: for an unknown target.
    """
    if target not in TARGETS:
        raise unknown("target", target, TARGETS)
    inputs, targets, extra = [], [], []
    for seed in seeds:
        generator = torch.Generator().manual_seed(stream_seed(seed, "samples", part))
        x = torch.randn(count, INPUTS, generator=generator)
        noise = NOISE * torch.rand(count, generator=generator)
        for function in FUNCTIONS.values():
            inputs.append(x)
            targets.append(function(x) + (noise if target == "column" else noise.mean()))
            spread = noise.var(correction=0)
            extra.append(torch.zeros(()) if target == "column" else spread)
    return Samples(torch.stack(inputs), torch.stack(targets), torch.stack(extra))


class Ensemble:
    """Equal networks side by side, one for each seed and function.

    Networks of one seed start from the same weights, whatever the function.

    Attributes:
        parameters: By name in the module, each ``[M, ...]``.
        predict: Parameters and inputs ``[M, N, 8]`` to outputs ``[M, N]``.
    """

    def __init__(self, net: str, seeds: Sequence[int], layers: str = "distinct") -> None:
        nets = []
        for seed in seeds:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(stream_seed(seed, "head"))
                nets.append(make_net(net, layers))
        self.seeds = list(seeds)
        stacked, _ = stack_module_state([net for net in nets for _ in FUNCTIONS])
        self.parameters = {name: values.detach() for name, values in stacked.items()}

        def predict(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
            predicted: Tensor = functional_call(nets[0], parameters, (x,))
            return predicted.squeeze(-1)

        def error(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
            return (predict(parameters, x) - y).square().mean()

        self.predict = vmap(predict)
        self._gradients = vmap(grad_and_value(error))
        self.optimizer = torch.optim.Adam(self.parameters.values(), lr=LR, fused=True)

    def mse(self, samples: Samples) -> Tensor:
        """Mean square error of each network, ``[M]``."""
        predicted = self.predict(self.parameters, samples.x)
        return (predicted - samples.y).square().mean(-1) + samples.extra

    def train_epoch(self, samples: Samples, epoch: int) -> Tensor:
        """One pass over shuffled samples; the order depends on seed and epoch alone.

        Args:
            samples: Training samples.
            epoch: Counted from 1.

        Returns:
            The loss of each network on the last mini-batch, before its step, ``[M]``.
        """
        index = self.order(epoch, samples.y.shape[1])
        x = samples.x.gather(1, index.unsqueeze(-1).expand_as(samples.x))
        y = samples.y.gather(1, index)
        losses = torch.empty(0)
        for part, wanted in zip(x.split(BATCH_SIZE, 1), y.split(BATCH_SIZE, 1), strict=True):
            gradients, losses = self._gradients(self.parameters, part, wanted)
            for name, parameter in self.parameters.items():
                parameter.grad = gradients[name]
            self.optimizer.step()
        return losses + samples.extra

    def order(self, epoch: int, count: int) -> Tensor:
        """The order of the samples in an epoch, ``[M, N]``: one for each seed."""
        orders = []
        for seed in self.seeds:
            generator = torch.Generator().manual_seed(stream_seed(seed, "order", epoch))
            orders.append(torch.randperm(count, generator=generator))
        return torch.stack(orders).repeat_interleave(len(FUNCTIONS), 0)


def regression(
    net: str,
    seeds: Sequence[int],
    *,
    epochs: int = 200,
    checkpoints: Sequence[int] = (100, 200),
    target: str = "column",
    layers: str = "distinct",
) -> list[dict[str, Any]]:
    """Train one net on every function with every seed.

    Fresh samples, as many as for training, always have noise of their own: with either target
    the best possible network has an error of 0.2^2 / 12 = 0.0033 on them.

    Args:
        net: ``normal`` or ``spinal``.
        seeds: Seeds; both nets see the same samples in the same order.
        epochs: How long to train.
        checkpoints: Epochs at which to measure, besides the last one.
        target: ``column`` or ``square`` (Q1).
        layers: ``distinct`` or ``reused`` (Q2).

    Returns:
        One row for each seed, function and checkpoint: ``published_metric`` (the minimum over
        the epochs so far of the loss on the last mini-batch of an epoch; Q23), ``train_mse`` and
        ``fresh_mse`` at that epoch, ``fresh_variance`` of the fresh target.
    """
    samples, fresh = draw(seeds, target), draw(seeds, "column", part=1)
    ensemble = Ensemble(net, seeds, layers)
    cells = [(seed, function) for seed in seeds for function in FUNCTIONS]
    lowest = torch.full((len(cells),), torch.inf)
    rows: list[dict[str, Any]] = []
    for epoch in range(1, epochs + 1):
        lowest = torch.minimum(lowest, ensemble.train_epoch(samples, epoch))
        if epoch not in checkpoints and epoch != epochs:
            continue
        columns = {
            "published_metric": lowest,
            "train_mse": ensemble.mse(samples),
            "fresh_mse": ensemble.mse(fresh),
            "fresh_variance": fresh.y.var(1),
        }
        for i, (seed, function) in enumerate(cells):
            row = {"net": net, "function": function, "epochs": epoch, "seed": seed}
            rows.append(row | {name: float(values[i]) for name, values in columns.items()})
    return rows


def regressions(
    seeds: Sequence[int],
    *,
    jobs: int = 1,
    on_part: Callable[[int], object] = lambda trained: None,
    **settings: Any,
) -> list[dict[str, Any]]:
    """Both nets, their seeds shared out among processes with one thread each.

    Args:
        seeds: Seeds.
        jobs: How many processes.
        on_part: Called with the number of nets trained, whenever some are.
        settings: Of `regression`.

    Returns:
        The rows of `regression`, in the same order however many processes there are.
    """
    size = min(TOGETHER, -(-len(seeds) // jobs))
    parts = [seeds[start : start + size] for start in range(0, len(seeds), size)]
    context = multiprocessing.get_context("spawn")  # forks do not get along with threads
    rows: list[dict[str, Any]] = []
    with ProcessPoolExecutor(jobs, context, torch.set_num_threads, (1,)) as pool:
        train = functools.partial(regression, **settings)
        trained = {pool.submit(train, net, part): part for part in parts for net in NETS}
        for future in as_completed(trained):
            rows += future.result()
            on_part(len(trained[future]))
    nets, functions = list(NETS), list(FUNCTIONS)
    return sorted(
        rows,
        key=lambda row: (
            nets.index(row["net"]),
            row["epochs"],
            row["seed"],
            functions.index(row["function"]),
        ),
    )


def regression_record(
    settings: Mapping[str, Any],
    runs: Sequence[Mapping[str, Any]],
    summary: Sequence[Mapping[str, Any]],
    seconds: float,
) -> RegressionRecord:
    """The record of both nets' runs, as one document.

    Args:
        settings: ``seeds`` (how many, from 0), ``epochs``, ``target`` and ``layers``.
        runs: The rows of `regression` for both nets.
        summary: Their table, see `results.regression`.
        seconds: How long it all took.
    """
    return RegressionRecord(
        settings=RegressionSettings(**settings),
        environment=describe_environment(torch.device("cpu")),
        git=git_revision(),
        finished=time.strftime("%FT%TZ", time.gmtime()),
        seconds=seconds,
        summary=[dict(row) for row in summary],
        runs=[RegressionRun(**row) for row in runs],
    )
