"""The regression experiment of Table I, all seeds and functions of a net in one computation.

Eight standard normal inputs, a target ``f(x) + 0.2 * U[0, 1)``, 1000 samples, Adam at 0.01,
batches of 64 and a last one of 40 (recipes 2.7). Models of one net are stacked along a leading
dimension M = seeds x functions and trained together with `torch.func.vmap`: Adam works element by
element and no loss depends on two models, so training together changes nothing.
"""

import functools
import multiprocessing
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, stack_module_state, vmap
from tqdm import tqdm

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
Rows = list[dict[str, Any]]
TOGETHER = 9  # seeds trained together: large matrix products that still fit the cache


def make_net(net: str, layers: str = "distinct") -> nn.Module:
    """Build ``normal`` (8-200-100-1) or ``spinal`` (six layers of 50), with LeakyReLU(0.01).

    With ``reused`` layers, as in the script, layers 5 and 6 of the Spinal net are 3 and 4 again,
    and 5,500 of its 14,301 parameters are dead (Q2).
    """
    if net == "normal":
        return FCHead(INPUTS, 1, hidden=(200, 100), activation="leaky_relu")
    order = (1, 2, 3, 4, 3, 4) if layers == "reused" else ()
    return SpinalHead(INPUTS, 1, width=50, layers=6, activation="leaky_relu", order=order)


@dataclass(frozen=True)
class Samples:
    """Samples of all models; one seed has the same inputs and noise for every function."""

    x: Tensor  # inputs [M, N, 8]
    y: Tensor  # targets [M, N]
    extra: Tensor  # MSE against the whole target minus MSE against y, [M]


def draw(seeds: Sequence[int], target: str, count: int = SAMPLES, part: int = 0) -> Samples:
    """Draw samples for every seed and function, seeds outermost.

    ``column`` gives each sample its own noise, as for Table I. ``square`` is the committed code:
    noise (N,) and signal (N, 1) broadcast to a target (N, N), so every sample has the same N
    noise values (Q1). The mean square of ``p - f - n_j`` over j is
    ``(p - f - mean(n))^2 + var(n)``: the fit is to ``f`` plus the mean noise, and the variance is
    added to the loss. Part 0 are the training samples, part 1 fresh ones.
    """
    inputs, targets, extra = [], [], []
    for seed in seeds:
        generator = torch.Generator().manual_seed(stream_seed(seed, "samples", part))
        x = torch.randn(count, INPUTS, generator=generator)
        noise = NOISE * torch.rand(count, generator=generator)
        for function in FUNCTIONS.values():
            inputs.append(x)
            targets.append(function(x) + (noise if target == "column" else noise.mean()))
            extra.append(noise.var(correction=0) if target == "square" else torch.zeros(()))
    return Samples(torch.stack(inputs), torch.stack(targets), torch.stack(extra))


class Ensemble:
    """Networks of one kind, one for each seed and function; one seed gives the same weights.

    ``predict`` maps ``parameters`` ``[M, ...]`` and inputs ``[M, N, 8]`` to outputs ``[M, N]``.
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
        """Return the mean square error of each network, ``[M]``."""
        predicted = self.predict(self.parameters, samples.x)
        return (predicted - samples.y).square().mean(-1) + samples.extra

    def train_epoch(self, samples: Samples, epoch: int) -> Tensor:
        """Train one epoch, in an order that depends on seed and epoch alone.

        Returns the loss of each network on the last mini-batch, before its step, ``[M]``.
        """
        orders = []
        for seed in self.seeds:
            generator = torch.Generator().manual_seed(stream_seed(seed, "order", epoch))
            orders.append(torch.randperm(samples.y.shape[1], generator=generator))
        index = torch.stack(orders).repeat_interleave(len(FUNCTIONS), 0)
        x = samples.x.gather(1, index.unsqueeze(-1).expand_as(samples.x))
        y = samples.y.gather(1, index)
        losses = torch.empty(0)
        for batch, wanted in zip(x.split(BATCH_SIZE, 1), y.split(BATCH_SIZE, 1), strict=True):
            gradients, losses = self._gradients(self.parameters, batch, wanted)
            for name, parameter in self.parameters.items():
                parameter.grad = gradients[name]
            self.optimizer.step()
        return losses + samples.extra


def regression(
    net: str,
    seeds: Sequence[int],
    *,
    epochs: int = 200,
    checkpoints: Sequence[int] = (100, 200),
    target: str = "column",
    layers: str = "distinct",
) -> Rows:
    """Train one net on every function with every seed; measure at checkpoints and the end.

    Both nets see the same samples in the same order. Fresh samples, as many as for training, always
    have independent noise: with either target the best possible error on them is
    0.2^2 / 12 = 0.0033.

    Returns:
        One row for each seed, function and checkpoint: ``published_metric`` (minimum over the
        epochs so far of the loss on an epoch's last mini-batch; Q23), ``train_mse`` and
        ``fresh_mse`` at that epoch, ``fresh_variance`` of the fresh target.
    """
    samples, fresh = draw(seeds, target), draw(seeds, "column", part=1)
    ensemble = Ensemble(net, seeds, layers)
    models = [(seed, function) for seed in seeds for function in FUNCTIONS]
    lowest = torch.full((len(models),), torch.inf)
    rows: Rows = []
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
        for i, (seed, function) in enumerate(models):
            row = {"net": net, "function": function, "epochs": epoch, "seed": seed}
            rows.append(row | {name: float(values[i]) for name, values in columns.items()})
    return rows


def regressions(seeds: Sequence[int], *, jobs: int = 1, **settings: Any) -> Rows:
    """Train both nets in ``jobs`` processes of one thread; return the rows of `regression`."""
    size = min(TOGETHER, -(-len(seeds) // jobs))
    parts = [seeds[start : start + size] for start in range(0, len(seeds), size)]
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads can hang
    rows: Rows = []
    bar = tqdm(total=len(seeds) * len(NETS), unit="net", disable=None)
    with bar, ProcessPoolExecutor(jobs, context, _start_worker) as pool:
        train = functools.partial(regression, **settings)
        trained = {pool.submit(train, net, part): part for part in parts for net in NETS}
        for future in as_completed(trained):
            rows += future.result()
            bar.update(len(trained[future]))
    rows.sort(key=lambda r: (r["net"], r["epochs"], r["seed"]))  # functions are in order
    return rows


def _start_worker() -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a traceback


def regression_record(
    settings: Mapping[str, Any], runs: Rows, summary: Rows, seconds: float
) -> RegressionRecord:
    """Build the record of `regressions`; for the summary see `results.regression`."""
    cpu = torch.device("cpu")
    made = describe_environment(cpu), git_revision(), time.strftime("%FT%TZ", time.gmtime())
    trained = [RegressionRun(**row) for row in runs]
    return RegressionRecord(RegressionSettings(**settings), *made, seconds, summary, trained)
