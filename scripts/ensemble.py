"""Trains the seeds of one configuration together, as one ensemble with stacked weights.

    python scripts/ensemble.py mnist/cnn_spinal8 --seeds 0-9
    python scripts/ensemble.py dataset=mnist model=cnn head=spinal --seeds 0-4 --runs ensembles

A step computes forward pass, loss and gradients of all seeds in one batched operation each
(``torch.vmap``), which fills a GPU better than small networks one by one; docs/sweeps.md says where
it pays. Each seed keeps its own initial weights, order of the images, augmentation, optimizer,
learning rate, best epoch and record, as in a run of its own. Two things differ from that run: sums
are rounded differently, and dropout draws other masks. So

- ``environment.ensemble`` in a record is the number of seeds that were trained together;
- runs go to their own folder (default: ensembles), and a record of a single run there is refused;
- checkpoints are in ``ensemble/`` in a run folder, where ``spinal-train`` does not look for them.

Finished seeds are skipped. The same command resumes the others from their checkpoints if these are
of the same epoch, else from the start. Recipes whose seeds would take different steps, or that
change the step itself, are refused.
"""

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from spinal_repro.cli.overrides import check_overrides
from spinal_repro.cli.paper_run import _seeds as seed_list
from spinal_repro.config.compose import compose
from spinal_repro.config.schema import Config
from spinal_repro.data.loader import Batch
from spinal_repro.errors import EXIT_INTERRUPTED, UserError, error_message
from spinal_repro.io import echo, run_lock, write_atomic
from spinal_repro.records.record import Record, read_record, write_record
from spinal_repro.records.store import RECORD, write_status
from spinal_repro.training import device as machine
from spinal_repro.training import outputs
from spinal_repro.training.callbacks import NonFiniteCheck, StopOnSignal
from spinal_repro.training.checkpoint import Checkpoint, Interrupted
from spinal_repro.training.engine import Run, Steps, end_epoch, start_epoch, training_loss
from spinal_repro.training.run import evaluate_on_test, reported_errors
from spinal_repro.training.setup import Setup, build_run, resolved

ENSEMBLE = "ensemble"  # key in a record's environment, and folder of a run's checkpoint


class Ensemble:
    """Runs of one configuration whose weights are slices of stacked ones ``[K, ...]``."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs, self.model = runs, runs[0].model
        models = [run.model for run in runs]
        self.parameters = _stacked([dict(model.named_parameters()) for model in models])
        self.buffers = _stacked([dict(model.named_buffers()) for model in models])
        for run in runs:
            run.steps = Steps()

    def start(self, epoch: int) -> Iterator[tuple[Batch, ...]]:
        """Start an epoch of all runs; return their batches, ``[K, ...]`` each."""
        streams = [start_epoch(run, epoch) for run in self.runs]
        self.losses = torch.stack([run.steps.losses for run in self.runs])
        self.correct = torch.stack([run.steps.correct for run in self.runs])
        for k, run in enumerate(self.runs):
            run.steps.losses, run.steps.correct = self.losses[k], self.correct[k]
        for batches in zip(*streams, strict=True):
            yield tuple(map(torch.stack, zip(*batches, strict=True)))

    def take(self, step: int, batch: Batch) -> None:
        """Train all runs, each on its own batch; the step counts from 0."""
        losses, correct = self.gradients(*batch)
        for run in self.runs:
            if run.recipe.clip_grad is not None:
                nn.utils.clip_grad_norm_(run.model.parameters(), run.recipe.clip_grad)
            run.optimizer.step()
        self.losses[:, step] = losses * batch[1].shape[1]
        self.correct += correct

    def gradients(self, *batch: Tensor) -> tuple[Tensor, Tensor]:
        """Compute gradients; return the mean loss and the correct images of each run ``[K]``."""
        trained = [p.grad for p in self.parameters.values() if p.grad is not None]
        torch._foreach_zero_(trained)  # in place: the gradients of the runs are slices of these
        one = torch.vmap(self._loss, randomness="different")
        losses, correct = one(self.parameters, self.buffers, *batch)
        losses.sum().backward()
        return losses.detach(), correct

    def _loss(
        self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], *batch: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Compute loss and correct images of one run; `torch.vmap` makes it that of all."""
        images, labels, *weights = batch
        with self.runs[0].autocast():
            output = functional_call(self.model, (parameters, buffers), (images,))
        smoothing = self.runs[0].recipe.label_smoothing
        logits, loss = training_loss(output, labels, smoothing, *weights)
        return loss, (logits.argmax(dim=1) == labels).sum()


def _stacked(tensors: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
    """Stack tensors of equal names; these, and their gradients, become slices of the stack."""
    found = {}
    for name, first in tensors[0].items():
        stack = torch.stack([of[name].detach() for of in tensors])
        if first.requires_grad:
            stack.requires_grad_()
            stack.grad = torch.zeros_like(stack)
        for k, of in enumerate(tensors):
            of[name].data = stack.detach()[k]
            of[name].grad = None if stack.grad is None else stack.grad[k]
        found[name] = stack
    return found


def fit(
    ensemble: Ensemble,
    checkpoints: Sequence[Checkpoint],
    stop: StopOnSignal,
    save_every: float | None,
    say: Callable[[str], None],
) -> None:
    """Train to the last epoch; after an epoch that is saved, the checkpoints of all runs are."""
    runs, device = ensemble.runs, ensemble.runs[0].train.device
    checks = [NonFiniteCheck() for _ in runs]
    for run, check in zip(runs, checks, strict=True):
        check.on_fit_start(run)
    saved = time.monotonic()
    while not runs[0].finished:
        began, waited = machine.timestamp(device), 0.0
        since = time.perf_counter()
        for step, batch in enumerate(ensemble.start(runs[0].state.epoch + 1)):
            waited += time.perf_counter() - since
            ensemble.take(step, batch)
            for run, check in zip(runs, checks, strict=True):
                check.on_step_end(run, step + 1, run.steps.losses, batch[1].shape[1])
            since = time.perf_counter()
        trained = machine.timestamp(device)
        for run, check in zip(runs, checks, strict=True):
            end_epoch(run, began, trained, waited, [check])
        say(_progress(runs))
        due = save_every is not None and time.monotonic() - saved >= save_every
        if due or stop.received or runs[0].finished:
            for run, checkpoint in zip(runs, checkpoints, strict=True):
                with _own_storage(run.model):
                    checkpoint.save(run)
            saved = time.monotonic()
        if stop.received and not runs[0].finished:
            after = f"stopped after epoch {runs[0].state.epoch}"
            raise Interrupted(f"{stop.received}: {after}; the same command resumes")


def _progress(runs: Sequence[Run]) -> str:
    on, epoch = runs[0].select_on, runs[0].state.epoch
    last, timing = [run.state.history[-1] for run in runs], runs[0].state.timing[-1]
    losses, accuracies = (
        sorted(scale * entry[key] for entry in last)
        for key, scale in (("train_loss", 1), (f"{on}_accuracy", 100))
    )
    return (
        f"epoch {epoch}/{runs[0].recipe.epochs}  loss {losses[0]:.4f} to {losses[-1]:.4f}  "
        f"{on} {accuracies[0]:.2f} to {accuracies[-1]:.2f} %  "
        f"{len(runs) * timing['images_per_second']:,.0f} images/s of {len(runs)} seeds"
    )


@contextmanager
def _own_storage(model: nn.Module) -> Iterator[None]:
    """Copy what `state_dict` returns: a file of a slice would contain the whole stack."""

    def copied(module: nn.Module, state: dict[str, Any], *_: object) -> None:
        state.update({name: tensor.clone() for name, tensor in state.items()})

    hook = model.register_state_dict_post_hook(copied)
    try:
        yield
    finally:
        hook.remove()


def refuse(config: Config) -> None:
    """Refuse settings whose steps are not one step for all seeds."""
    recipe, runtime = config.recipe, config.runtime
    keys = "mixup cutmix ema stages head_epochs patience cache_features"
    found = [f"recipe.{key}" for key in keys.split() if getattr(recipe, key)]
    found += ["runtime.compile"] * runtime.compile
    found += ["runtime.debug"] * (runtime.debug != "none")
    found += ["tracker"] * (config.tracker.name != "none")
    if found:
        raise UserError(
            f"an ensemble cannot be trained with {', '.join(found)}; leave that out, or train the "
            f"seeds one by one: spinal-train -m seed=0,1,2"
        )


def train(config: Config, seeds: Sequence[int]) -> list[Record]:
    """Train the seeds that are not finished together; return the records of all."""
    refuse(config)
    device = machine.resolve_device(config.runtime.device)
    configs = [resolved(dataclasses.replace(config, seed=seed)) for seed in seeds]
    left = [own for own in configs if not _is_done(own.run_dir)]
    if left:
        machine.keep_freed_memory()
        threads = machine.set_threads(config.runtime.threads, left[0].run_dir)
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
    return [read_record(own.run_dir / RECORD) for own in configs]


def _is_done(folder: Path) -> bool:
    if not (folder / RECORD).is_file():
        return False
    if ENSEMBLE not in read_record(folder / RECORD).environment:
        raise UserError(f"{folder} has the record of a single run; give another --runs")
    echo(f"already finished: {folder}")
    return True


def _train(configs: Sequence[Config], setups: Sequence[Setup], stop: StopOnSignal) -> None:
    """Fit, test, and write the records of runs whose folders are locked."""
    first, say = configs[0], echo if configs[0].runtime.progress != "none" else lambda line: None
    folders = [config.run_dir for config in configs]
    checkpoints = [
        Checkpoint(folder / ENSEMBLE, None, setup.inputs)
        for folder, setup in zip(folders, setups, strict=True)
    ]
    for checkpoint, setup in zip(checkpoints, setups, strict=True):
        checkpoint.restore(setup.run)
    if len({setup.run.state.epoch for setup in setups}) > 1:
        say("the checkpoints are of different epochs: all seeds start again")
        setups = [build_run(config, setups[0].run.train.device) for config in configs]
    for line in outputs.header_lines(first, folders[0], setups[0]):
        say(line)
    say(f"{len(configs)} seeds at once: {', '.join(str(config.seed) for config in configs)}")
    for config, folder in zip(configs, folders, strict=True):
        (folder / ENSEMBLE).mkdir(exist_ok=True)
        outputs.write_config(config, folder)
        write_status(folder, "running", epochs=f"{setups[0].run.state.epoch}/{first.recipe.epochs}")
    ensemble = Ensemble([setup.run for setup in setups])
    fit(ensemble, checkpoints, stop, first.runtime.save_every, say)
    for config, folder, setup in zip(configs, folders, setups, strict=True):
        tested = evaluate_on_test(setup)
        with _own_storage(setup.run.model):
            outputs.write_results(folder, setup, tested)
        write_atomic(folder / "metrics.csv", outputs.metrics_csv(setup.run.state))
        record = outputs.build_record(config, setup, tested)
        environment = {**record.environment, ENSEMBLE: len(configs)}
        record = dataclasses.replace(record, environment=environment)
        write_record(folder / RECORD, record)
        write_status(folder, "done", epochs=f"{len(record.history)}/{first.recipe.epochs}")
        say(f"seed {config.seed}: {outputs.summary(record, folder / RECORD)[0]}")


def main() -> None:
    """Train the seeds of the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("words", nargs="+", metavar="CELL_OR_OVERRIDE", help="as in spinal-train")
    parser.add_argument("--seeds", type=seed_list, required=True, help="e.g. 0-9 or 0,2,5")
    parser.add_argument("--runs", default="ensembles", help="folder of run folders (%(default)s)")
    given = parser.parse_args()
    words = [word if "=" in word else f"paper={word}" for word in given.words]
    try:
        for word in words:
            if word.lstrip("+").startswith(("seed=", "runs=")):
                raise UserError(f"{word}: use --seeds and --runs")
        check_overrides(words)
        train(dataclasses.replace(compose(words), runs=given.runs), given.seeds)
    except KeyboardInterrupt as error:
        echo(f"ensemble.py: {error or 'interrupted; the same command resumes'}", error=True)
        sys.exit(EXIT_INTERRUPTED)
    except (UserError, OSError) as error:
        echo(f"ensemble.py: {error_message(error)}", error=True)
        sys.exit(getattr(error, "exit_code", 1))


if __name__ == "__main__":
    main()
