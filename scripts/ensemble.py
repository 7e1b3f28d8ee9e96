"""Trains the seeds of one configuration together, as an ensemble with stacked weights.

    python scripts/ensemble.py mnist/cnn_spinal8 runtime.graph=auto --seeds 0-9
    python scripts/ensemble.py dataset=mnist model=cnn head=spinal --seeds 0-4

A step computes losses and gradients of all seeds in one batched operation each (``torch.vmap``),
which uses a GPU better than one small network does; docs/sweeps.md says where it pays. Each seed
keeps its own initial weights, order of the images, augmentation, optimizer, learning rate, best
epoch and record, as in a run of its own. Two things differ from that run: sums are rounded
differently, and dropout draws other masks. Therefore ``runtime.ensemble``, the number of seeds,
makes it another run, which published results do not take.

Finished seeds are skipped. After an interruption the same command resumes from the checkpoints.
Recipes that need other steps, such as mixup, are refused.
"""

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from spinal_repro.cli.overrides import check_overrides, expand
from spinal_repro.cli.paper_run import seed_list
from spinal_repro.config.compose import compose
from spinal_repro.config.schema import Config
from spinal_repro.data.loader import Batch
from spinal_repro.errors import EXIT_INTERRUPTED, UserError, error_message
from spinal_repro.io import echo, run_lock
from spinal_repro.records.record import Record, read_record, write_record
from spinal_repro.records.store import RECORD, write_status
from spinal_repro.training import device as machine
from spinal_repro.training import outputs
from spinal_repro.training.callbacks import NonFiniteCheck, StopOnSignal
from spinal_repro.training.checkpoint import Checkpoint
from spinal_repro.training.engine import Run, Steps, end_epoch, start_epoch
from spinal_repro.training.graph import NotCapturableError, capture, kind_of, unchanged
from spinal_repro.training.loss import training_loss
from spinal_repro.training.resolve import resolved
from spinal_repro.training.run import evaluate_on_test, reported_errors
from spinal_repro.training.setup import Setup, build_run

ONE_BY_ONE = "train the seeds one by one: the same settings with spinal-train -m seed=0,1,2"
UNFIT = "mixup cutmix ema stages head_epochs patience cache_features"  # in recipes


class Ensemble:
    """Runs of one configuration whose weights are slices of stacked ones ``[K, ...]``."""

    def __init__(self, runs: Sequence[Run], graphed: bool = False) -> None:
        self.runs, self._graphed = runs, graphed
        self._replay: Callable[[], None] | None = None
        self._captured: list[Any] = []  # what the graph depends on, see `kind_of`
        models = [run.model for run in runs]
        self.parameters = _stacked([dict(model.named_parameters()) for model in models])
        self.buffers = _stacked([dict(model.named_buffers()) for model in models])
        self._link_gradients()
        for run in runs:
            run.steps = Steps()

    def _link_gradients(self) -> None:
        """Make the gradients of the runs slices of the stacked ones."""
        for k, run in enumerate(self.runs):
            for name, weights in run.model.named_parameters():
                stack = self.parameters[name]
                weights.grad = None if stack.grad is None else stack.grad[k]

    def start(self, epoch: int) -> Iterator[Batch]:
        """Start an epoch of all runs; return the stacked batches."""
        groups = [group for run in self.runs for group in run.optimizer.param_groups]
        rates = [group["lr"] for group in groups]
        streams = [start_epoch(run, epoch) for run in self.runs]
        if self._replay is not None and self._captured != [kind_of(run) for run in self.runs]:
            self._replay = None
        if self._replay is not None:  # the graph reads the rates from these tensors
            for group, rate in zip(groups, rates, strict=True):
                group["lr"] = rate.fill_(group["lr"])
        self.losses = torch.stack([run.steps.losses for run in self.runs])
        self.correct = torch.stack([run.steps.correct for run in self.runs])
        for k, run in enumerate(self.runs):
            run.steps.losses, run.steps.correct = self.losses[k], self.correct[k]
        for batches in zip(*streams, strict=True):
            yield tuple(map(torch.stack, zip(*batches, strict=True)))

    def take(self, step: int, batch: Batch) -> None:
        """Train each run on its own images; the step counts from 0."""
        if step == 0 and self._graphed and self._replay is None:
            self._capture(batch)
        if self._replay is None or batch[0].shape != self._batch[0].shape:
            losses, correct = self._step(batch)
        else:
            for ours, given in zip(self._batch, batch, strict=True):
                ours.copy_(given)
            self._replay()
            losses, correct = self._counts
        self.losses[:, step] = losses * batch[1].shape[1]
        self.correct += correct

    def _step(self, batch: Batch) -> tuple[Tensor, Tensor]:
        found = self.gradients(*batch)
        for run in self.runs:
            if run.recipe.clip_grad is not None:
                nn.utils.clip_grad_norm_(run.model.parameters(), run.recipe.clip_grad)
            run.optimizer.step()
        return found

    def gradients(self, *batch: Tensor) -> tuple[Tensor, Tensor]:
        """Compute gradients; return the mean loss and the correct images of each run ``[K]``."""
        gradients = [p.grad for p in self.parameters.values() if p.grad is not None]
        torch._foreach_zero_(gradients)  # in place, because the runs have slices of them
        of_all = torch.vmap(self._loss, randomness="different")
        try:
            losses, correct = of_all(self.parameters, self.buffers, *batch)
        except RuntimeError as error:
            if "vmap" not in str(error):
                raise
            reason = str(error).partition(". ")[0]
            raise UserError(f"this network cannot be stacked ({reason}); {ONE_BY_ONE}") from error
        losses.sum().backward()
        return losses.detach(), correct

    def _loss(
        self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], *batch: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Compute loss and correct images of one run."""
        run, (images, labels, *weights) = self.runs[0], batch
        with run.autocast():
            output = functional_call(run.model, (parameters, buffers), (images,))
        logits, loss = training_loss(output, labels, run.recipe.label_smoothing, *weights)
        return loss, (logits.argmax(dim=1) == labels).sum()

    def _capture(self, batch: Batch) -> None:
        """Capture a step; if that is impossible, train without graph."""
        device = batch[0].device
        self._batch = [part.clone() for part in batch]
        self._counts = self.losses.new_zeros(len(self.runs)), torch.zeros_like(self.correct)

        def step() -> None:
            for count, found in zip(self._counts, self._step(tuple(self._batch)), strict=True):
                count.copy_(found)

        with ExitStack() as stack:
            for run in self.runs:
                stack.enter_context(unchanged(run))
                _set_capturable(run, True)
            try:
                self._replay = capture(step, device)
            except NotCapturableError as error:
                echo(f"training without CUDA graph: {error}")
                self._graphed = False
                for run in self.runs:
                    _set_capturable(run, False)
        self._link_gradients()
        self._captured = [kind_of(run) for run in self.runs]


def _set_capturable(run: Run, capturable: bool) -> None:
    for group in run.optimizer.param_groups:
        rate = run.steps.learning_rate(run, group)
        tensor = torch.tensor(rate, device=run.train.device)
        group |= {"lr": tensor if capturable else rate, "capturable": capturable}


def _stacked(tensors: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Stack tensors of equal names, and make them slices of the stack."""
    found = {}
    for name, first in tensors[0].items():
        stack = torch.stack([of[name].detach() for of in tensors])
        for k, of in enumerate(tensors):
            of[name].data = stack[k]
        found[name] = stack.requires_grad_(first.requires_grad)
        stack.grad = torch.zeros_like(stack) if first.requires_grad else None
    return found


@contextmanager
def own_storage(model: nn.Module) -> Iterator[None]:
    """Copy the weights in `state_dict`: a file of a slice would contain the whole stack."""

    def copy(module: nn.Module, state: dict[str, Any], *_: object) -> None:
        state.update({name: tensor.clone() for name, tensor in state.items()})

    hook = model.register_state_dict_post_hook(copy)
    try:
        yield
    finally:
        hook.remove()


def fit(
    ensemble: Ensemble,
    checkpoints: Sequence[Checkpoint],
    stop: StopOnSignal,
    save_every: float | None,
    say: Callable[[str], None],
) -> None:
    """Train to the last epoch; checkpoints of all runs are written after the same epochs."""
    runs, device = ensemble.runs, ensemble.runs[0].train.device
    checks, saved = [NonFiniteCheck() for _ in runs], time.monotonic()
    for run, check in zip(runs, checks, strict=True):
        check.on_fit_start(run)
    while not runs[0].finished:
        began, waited, since = machine.timestamp(device), 0.0, time.perf_counter()
        for step, batch in enumerate(ensemble.start(runs[0].state.epoch + 1)):
            waited += time.perf_counter() - since
            ensemble.take(step, batch)
            for run, check in zip(runs, checks, strict=True):
                with named(run):
                    check.on_step_end(run, step + 1, run.steps.losses, batch[1].shape[1])
            runs[0].stop = stop.received
            checkpoints[0].on_step_end(runs[0])  # stops if the last epoch is saved
            since = time.perf_counter()
        trained = machine.timestamp(device)
        for run, check in zip(runs, checks, strict=True):
            with named(run):
                end_epoch(run, began, trained, waited, [check])
        say(_progress(runs))
        due = save_every is not None and time.monotonic() - saved >= save_every
        if due or stop.received or runs[0].finished:
            for run, checkpoint in zip(runs, checkpoints, strict=True):
                with own_storage(run.model):
                    checkpoint.save(run)
            saved = time.monotonic()
        if stop.received and not runs[0].finished:
            runs[0].stop = stop.received
            checkpoints[0].stop(runs[0])


@contextmanager
def named(run: Run) -> Iterator[None]:
    """Name the seed in an error."""
    try:
        yield
    except UserError as error:
        raise UserError(f"seed {run.seed}: {error} (spinal-train, seed={run.seed})") from None


def _progress(runs: Sequence[Run]) -> str:
    on, (state, *_) = runs[0].select_on, [run.state for run in runs]
    accuracies = [100 * run.state.history[-1][f"{on}_accuracy"] for run in runs]
    rate = len(runs) * state.timing[-1]["images_per_second"]
    return (
        f"epoch {state.epoch}/{runs[0].recipe.epochs}  {on} {min(accuracies):.2f} to "
        f"{max(accuracies):.2f} %  {rate:,.0f} images/s of {len(runs)} seeds"
    )


def train(config: Config, seeds: Sequence[int]) -> list[Record]:
    """Train the seeds that are not finished together; return the records of all."""
    refuse(config, seeds)
    runtime = dataclasses.replace(config.runtime, ensemble=len(seeds))
    device = machine.resolve_device(runtime.device)
    configs = [resolved(dataclasses.replace(config, runtime=runtime, seed=seed)) for seed in seeds]
    left = [own for own in configs if not (own.run_dir / RECORD).is_file()]
    if left:
        machine.keep_freed_memory()
        threads = machine.set_threads(runtime.threads, left[0].run_dir)
        runtime = dataclasses.replace(left[0].runtime, threads=threads)
        left = [dataclasses.replace(own, runtime=runtime) for own in left]
        with ExitStack() as stack:
            for own in left:
                stack.enter_context(reported_errors(own.run_dir, runtime.deterministic))
            settings = device, runtime.precision, runtime.deterministic
            stack.enter_context(machine.backend_settings(*settings))
            setups = [build_run(own, device) for own in left]
            for own in left:
                stack.enter_context(run_lock(own.run_dir))
            _train(left, setups, stack.enter_context(StopOnSignal()))
    records = [read_record(own.run_dir / RECORD) for own in configs]
    for own, record in zip(configs, records, strict=True):
        done = "" if own.seed in {config.seed for config in left} else "already finished: "
        path = own.run_dir / RECORD
        echo(f"{done}seed {own.seed}: {outputs.summary(record, path)[0]}; record: {path}")
    return records


def refuse(config: Config, seeds: Sequence[int]) -> None:
    """Refuse settings with which the seeds do not share one step."""
    if len(seeds) < 2:
        raise UserError("an ensemble needs two or more seeds; train one with spinal-train")
    recipe, runtime = config.recipe, config.runtime
    found = [f"recipe.{key}" for key in UNFIT.split() if getattr(recipe, key)]
    found += ["runtime.compile"] * runtime.compile
    found += ["runtime.debug"] * (runtime.debug != "none")
    found += ["tracker"] * (config.tracker.name != "none")
    if found:
        raise UserError(
            f"an ensemble cannot be trained with {', '.join(found)}; leave this out, or "
            f"{ONE_BY_ONE}"
        )


def _train(configs: Sequence[Config], setups: Sequence[Setup], stop: StopOnSignal) -> None:
    """Fit, test, and write the records of runs whose folders are locked."""
    first, runtime = configs[0], configs[0].runtime
    say = echo if runtime.progress != "none" else lambda line: None
    checkpoints = []
    for config, setup in zip(configs, setups, strict=True):
        checkpoints.append(Checkpoint(config.run_dir, None, setup.inputs))
        checkpoints[-1].restore(setup.run)
    epochs = {setup.run.state.epoch for setup in setups}
    if len(configs) < runtime.ensemble and epochs != {first.recipe.epochs}:
        raise UserError(
            f"some of these seeds are finished, in an ensemble of {runtime.ensemble} others; name "
            f"{runtime.ensemble} seeds that are not, or another folder: runs=DIR"
        )
    if len(epochs) > 1:
        say("the checkpoints are of different epochs: all seeds start again")
        setups = [build_run(config, setups[0].run.train.device) for config in configs]
        checkpoints = [
            Checkpoint(config.run_dir, None, setup.inputs)
            for config, setup in zip(configs, setups, strict=True)
        ]
    for config in configs:
        outputs.write_config(config, config.run_dir)
        done = f"{setups[0].run.state.epoch}/{config.recipe.epochs}"
        write_status(config.run_dir, "running", epochs=done)
    for line in outputs.header_lines(first, first.run_dir, setups[0]):
        say(line)
    say(f"trained together: seeds {', '.join(str(config.seed) for config in configs)}")
    ensemble = Ensemble([setup.run for setup in setups], runtime.graph == "auto")
    fit(ensemble, checkpoints, stop, runtime.save_every, say)
    for config, setup in zip(configs, setups, strict=True):
        folder, tested = config.run_dir, evaluate_on_test(setup)
        outputs.write_results(folder, setup, tested)
        record = outputs.build_record(config, setup, tested)
        write_record(folder / RECORD, record)
        write_status(folder, "done", epochs=f"{len(record.history)}/{config.recipe.epochs}")


def main() -> None:
    """Train the seeds of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="+", metavar="CELL_OR_OVERRIDE", help="as in spinal-train")
    parser.add_argument("--seeds", type=seed_list, required=True, help="e.g. 0-9 or 0,2,5")
    given = parser.parse_intermixed_args()
    words = [word if "=" in word else f"paper={word}" for word in given.words]
    try:
        if len([word for word in words if word.startswith("paper=")]) > 1:
            raise UserError("give one cell: an ensemble has one configuration")
        for word in words:
            if word.lstrip("+").startswith("seed="):
                raise UserError(f"{word}: use --seeds")
        words = expand(words, sweeping=False)
        check_overrides(words)
        train(compose(words), given.seeds)
    except KeyboardInterrupt as error:
        message = str(error) or "interrupted; the same command resumes"
        echo(f"ensemble.py: {message}", error=True)
        sys.exit(EXIT_INTERRUPTED)
    except (UserError, OSError) as error:
        echo(f"ensemble.py: {error_message(error)}", error=True)
        sys.exit(getattr(error, "exit_code", 1))


if __name__ == "__main__":
    main()
