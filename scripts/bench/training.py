"""Training: the plain loop, the bare step on one batch, and our loop; and augmentation alone.

On CUDA the bare step and our loop are measured a second time as a CUDA graph.
"""

import contextlib
import dataclasses
import resource
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from bench.cases import SIZES, Case
from bench.half import with_bf16_weights
from bench.peak import multiplications, product_rate
from bench.reference import plain_batches, plain_steps
from bench.timing import clock, rates, ratio, take_turns
from spinal_repro.errors import UserError
from spinal_repro.training import graph
from spinal_repro.training.callbacks import NonFiniteCheck, Progress, StopOnSignal
from spinal_repro.training.checkpoint import Checkpoint, Interrupted
from spinal_repro.training.engine import Callback, Run, fit, training_step
from spinal_repro.training.tracking import Tracking

BARE, REFERENCE, HALF = "bare", "reference", "bf16 weights"
# epochs of a whole run, whose time is computed from the rate: with evaluations and checkpoints,
# or of training alone, as https://github.com/KellerJordan/airbench counts it
RUNS = {"vgg5": (200, "whole"), "airbench": (9.9, "loop")}


def bare_step(case: Case, run: Run) -> Callable[[], None]:
    """Return our training step, with its counts, on one batch that is on the device."""
    images, labels = next(run.train.epoch(0, 1, run.augmentations))
    images = images.to(next(run.model.parameters()).dtype)
    losses = torch.zeros((), device=case.device)
    correct = torch.zeros((), dtype=torch.int64, device=case.device)
    run.model.train()

    def step() -> None:
        loss, hits = training_step(run, images, labels)
        losses.add_(loss)
        correct.add_(hits)

    if not case.graph:
        return step
    for group in run.optimizer.param_groups:
        group["capturable"] = True
    with case.settings():
        replay = graph.capture(step, case.device)

    def replayed(_kept: Any = step) -> None:  # the graph uses the tensors of the step
        replay()

    return replayed


def compare_loops(
    cases: list[Case], at_least: float, repeats: int, epoch_seconds: float | None = None
) -> list[dict[str, Any]]:
    """Compare one network and head at every precision, contestants in turn.

    A case that cannot be captured as a CUDA graph is left out.

    Args:
        cases: They differ in precision and ``graph`` only.
        at_least: About the seconds of each contestant in a round.
        epoch_seconds: Seconds of our loop in each round, if other than ``at_least``.

    Returns:
        A row for each case. Rates are images a second: ``loop`` without evaluation and
        checkpoint, ``whole`` with their share of an epoch of the whole data set. ``epoch`` has
        the shares of such an epoch: ``batches`` is the time of making batches, ``steps`` the
        rest of training (in which a GPU may still make batches). ``multiplications`` are those
        of an image in training, and ``peak`` those a second of a large matrix product.
    """
    first = cases[0]
    device, batch = first.device, first.batch_size
    contestants: dict[str, Callable[[], float]] = {}
    details: dict[str, dict[str, list[float]]] = {}
    captured: list[tuple[str, Case]] = []
    for case in cases:
        key = f"{case.config.runtime.precision}{' graph' if case.graph else ''}"
        try:
            step = bare_step(case, case.run(batch))
        except (graph.NotCapturableError, UserError) as error:
            print(f"{case.name}: no CUDA graph: {error}")
            continue
        captured.append((key, case))
        with case.settings():
            for _ in range(2):
                step()
            started = clock(device)
            step()
            seconds = clock(device) - started
        # with few steps, work done once an epoch would count too much
        least = 4 if at_least >= 1 else 1
        steps = [max(least, int(s / seconds)) for s in (at_least, epoch_seconds or at_least)]
        details[key] = {"batches": [], "evaluation": [], "checkpoint": []}
        contestants[f"{BARE} {key}"] = _bare(case, step, steps[0])
        contestants[f"loop {key}"] = _loop(case, steps[1], details[key])
        if key == "bf16 graph":
            step = bare_step(case, with_bf16_weights(case.run(batch)))
            contestants[HALF] = _bare(case, step, steps[0])
    contestants[REFERENCE] = _plain(first, at_least)
    measured = take_turns(contestants, repeats)
    rows = []
    for key, case in captured:
        bare, loop = measured[f"{BARE} {key}"], measured[f"loop {key}"]
        parts = {name: values[1:] for name, values in details[key].items()}
        epoch = _of_an_epoch(case, loop, parts)
        whole = [sum(seconds) for seconds in zip(*epoch.values(), strict=True)]
        seconds_of = {
            REFERENCE: measured[REFERENCE],
            BARE: bare,
            "loop": loop,
            "whole": whole,
            "evaluation": parts["evaluation"],
        }
        speeds = {name: rates(values) for name, values in seconds_of.items()}
        rows.append(
            {
                "model": case.config.model.name,
                "head": case.config.head.name,
                "precision": case.config.runtime.precision,
                **({"graph": True} if case.graph else {}),
                "batch": batch,
                "images": case.source,
                "rates": speeds,
                **computed(case, {name: speed["median"] for name, speed in speeds.items()}),
                "checkpoint_seconds": sorted(parts["checkpoint"])[len(whole) // 2],
                "epoch": {name: sum(values) / sum(whole) for name, values in epoch.items()},
                "loop_to_reference": ratio(measured[REFERENCE], loop),
                "loop_to_bare": ratio(bare, loop),
                "whole_to_bare": ratio(bare, whole),
                **({"half_to_bare": ratio(bare, measured[HALF])} if key == "bf16 graph" else {}),
            }
        )
    return rows


def computed(case: Case, speeds: dict[str, float]) -> dict[str, Any]:
    """Compute from rates the share of the machine's peak, and the seconds of a run in `RUNS`."""
    operations = multiplications(case)
    peak = product_rate(case.device, case.config.runtime.precision)
    found = {
        "multiplications": operations,
        "peak": peak,
        "share_of_peak": operations * speeds["loop"] / peak,
    }
    if (model := case.config.model.name) in RUNS:
        epochs, kind = RUNS[model]
        found["run_seconds"] = epochs * SIZES[case.config.dataset.name][0] / speeds[kind]
    return found


def _of_an_epoch(
    case: Case, loop: list[float], parts: dict[str, list[float]]
) -> dict[str, list[float]]:
    """Return seconds for each image in an epoch of the whole data set, by part and round."""
    train, test = SIZES[case.config.dataset.name]
    every = case.config.runtime.save_every or 0.0
    evaluation = [seconds * test / train for seconds in parts["evaluation"]]
    epochs = [train * (a + b) for a, b in zip(loop, evaluation, strict=True)]
    saves = [min(1.0, seconds / every) if every else 1.0 for seconds in epochs]
    written = zip(parts["checkpoint"], saves, strict=True)
    return {
        "steps": [a - b for a, b in zip(loop, parts["batches"], strict=True)],
        "batches": parts["batches"],
        "evaluation": evaluation,
        "checkpoint": [seconds * share / train for seconds, share in written],
    }


def _bare(case: Case, step: Callable[[], None], steps: int) -> Any:
    def contestant() -> float:
        with case.settings():
            started = clock(case.device)
            for _ in range(steps):
                step()
            return (clock(case.device) - started) / (steps * case.batch_size)

    return contestant


class _TimedCheckpoint(Checkpoint):
    """Measures the seconds of the last save."""

    seconds = 0.0

    def save(self, run: Run) -> None:
        started = clock(run.train.device)
        super().save(run)
        self.seconds = clock(run.train.device) - started


class _OneEpoch(Callback):
    """Stops a run after the epoch."""

    def on_epoch_end(self, run: Run, is_best: bool) -> None:
        run.stop = "one epoch"


def _loop(case: Case, steps: int, details: dict[str, list[float]]) -> Any:
    """Return a contestant that trains one more epoch of so many steps in our loop."""
    train, _ = SIZES[case.config.dataset.name]
    images = min(steps * case.batch_size, train)
    run = case.run(images)

    def contestant() -> float:
        with case.settings():
            written = one_epoch(case, run)
        timing = run.state.timing[-1]
        seconds = float(timing["train_seconds"]) / images
        details["batches"].append(timing["data_share"] * seconds)
        details["evaluation"].append(timing["eval_seconds"] / run.select.num_images)
        details["checkpoint"].append(written)
        return seconds

    return contestant


def one_epoch(case: Case, run: Run) -> float:
    """Train the next epoch with the callbacks of a run, as if more followed.

    Returns:
        Seconds of its checkpoint.
    """
    run.recipe = dataclasses.replace(run.recipe, epochs=run.state.epoch + 2)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoint = _TimedCheckpoint(folder, None, {})
        with (
            contextlib.suppress(Interrupted),
            Progress(folder / "log.txt", "none") as progress,
            Tracking(case.config, folder, print) as tracking,
            StopOnSignal() as stop,
        ):
            fit(run, [NonFiniteCheck(), progress, tracking, _OneEpoch(), stop, checkpoint])
    if stop.received:
        raise KeyboardInterrupt(stop.received)
    run.stop = ""
    return checkpoint.seconds


def _plain(case: Case, at_least: float) -> Any:
    stream = plain_steps(case)

    def contestant() -> float:
        return _for_a_while(stream, at_least, case.device)

    return contestant


def _for_a_while(stream: Iterator[int], at_least: float, device: torch.device) -> float:
    """Return the seconds of one image."""
    images, started = 0, clock(device)
    while True:
        images += next(stream)
        seconds = clock(device) - started
        if seconds >= at_least:
            return seconds / images


def compare_augmentation(case: Case, at_least: float, repeats: int) -> dict[str, Any]:
    """Compare making batches with torchvision's transforms of single images."""
    steps = max(2, int(2000 * at_least / case.batch_size))
    run, epoch = case.run(min(steps * case.batch_size, 60000)), 0

    def ours() -> float:
        nonlocal epoch
        epoch += 1
        started = clock(case.device)
        for _ in run.train.epoch(0, epoch, run.augmentations):
            pass
        return (clock(case.device) - started) / run.train.num_images

    plain = (len(labels) for _, labels in plain_batches(case))
    measured = take_turns(
        {"ours": ours, REFERENCE: lambda: _for_a_while(plain, at_least, case.device)}, repeats
    )
    names = [entry["name"] for entry in case.config.recipe.augment]
    return {
        "recipe": case.config.recipe.name,
        "augmentation": ", ".join(names) or "none",
        "ours": rates(measured["ours"]),
        REFERENCE: rates(measured[REFERENCE]),
        "ratio": ratio(measured[REFERENCE], measured["ours"]),
    }


def peak_memory(case: Case, steps: int) -> float:
    """Return the peak memory of this process, or of the GPU, in MB after some steps."""
    with case.settings():
        one_epoch(case, case.run(steps * case.batch_size))
    if case.device.type == "cuda":
        return torch.cuda.max_memory_allocated(case.device) / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
