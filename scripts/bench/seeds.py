"""Several seeds on one device: a process for each, also under NVIDIA MPS, or one ensemble."""

import argparse
import dataclasses
import itertools
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import torch
from ensemble import Ensemble

from bench import cases
from bench.cases import Case, make_case
from bench.timing import clock, rates, ratio, take_turns
from spinal_repro.sweep.runner import usable_cores
from spinal_repro.training.device import keep_freed_memory
from spinal_repro.training.engine import Run, start_epoch

COUNTS = {"cnn": (1, 2, 4, 8), "vgg5": (1, 2, 4)}  # of seeds, by network
HEAD = "spinal"
PROCESSES, ENSEMBLE, MPS = "processes", "ensemble", "processes, MPS"
CONTROL = "nvidia-cuda-mps-control"
PATIENCE = 120.0  # seconds for a process to import PyTorch, build a model and answer
STEPS = 100  # in an epoch on a CPU; on CUDA an epoch is a whole one
Process: Any = multiprocessing.get_context("spawn").Process
Steps = Iterator[int]  # takes a step each time; yields its images
# the variables of its clients, and whether it has any
Server = tuple[dict[str, str], Callable[[], bool]]


class UnavailableError(Exception):
    """A way to train cannot be measured here."""


def seeds(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Measure training without evaluation, in images a second of all seeds.

    Numbers of seeds and ways to train them take turns. MPS follows, because only processes that
    were started under it can use it. On CUDA each step is a CUDA graph.
    """
    models = [model for model in COUNTS if model in given.models]
    alone: dict[str, list[float]] = {}  # seconds of an image in a single process, by network
    left = 3 * sum(len(COUNTS[model]) for model in models)
    for ways, server in (((PROCESSES, ENSEMBLE), _no_server), ((MPS,), _mps)):
        most = max((COUNTS[model][-1] for model in models), default=0)
        try:
            _seconds(given, left)  # starts no process if the time is up
            with (
                server(given.at) as (environment, in_use),
                Workers(most, given, environment) as workers,
            ):
                for model in models:
                    plan = list(itertools.product(ways, COUNTS[model]))
                    seconds = _seconds(given, left)
                    left -= len(plan)
                    rows = _compare(model, plan, workers, seconds, alone, given)
                    if not in_use():
                        raise UnavailableError("the processes did not use it")
                    for row in rows:
                        print(_line(row), flush=True)
                        yield row
        except UnavailableError as error:
            print(f"{' and '.join(ways)}: not measured: {error}", flush=True)


def _seconds(given: argparse.Namespace, left: int) -> float:
    """Seconds of each measurement, of which so many are ``left`` in each round.

    Raises `UnavailableError` if the time is up.
    """
    if given.minutes is None:
        return float(given.seconds)
    share = (given.deadline - time.monotonic()) / (max(left, 1) * (given.repeats + 1))
    if share <= 0:
        raise UnavailableError(f"the {given.minutes:g} minutes are over")
    return float(min(given.seconds, 0.4 * share))  # the rest starts processes and warms up


def _compare(
    model: str,
    plan: list[tuple[str, int]],
    workers: "Workers",
    seconds: float,
    alone: dict[str, list[float]],
    given: argparse.Namespace,
) -> list[dict[str, Any]]:
    """Measure a network in each way and with each number of seeds, in turn."""
    case = make_case(model, HEAD, given.precisions[0], given.at, given.data)
    contestants: dict[str, Callable[[], float]] = {}
    for way, count in plan:
        if way == ENSEMBLE:
            contestant = partial(_seconds_of_an_image, case, _together(case, count), seconds)
        else:
            contestant = partial(workers.seconds_of_an_image, model, count, seconds)
        contestants[f"{way} {count}"] = contestant
    measured = list(take_turns(contestants, given.repeats).values())
    alone.setdefault(model, measured[0])
    about = {"model": model, "head": HEAD, "precision": given.precisions[0], "images": case.source}
    return [
        {
            **about,
            "seeds": count,
            "way": way,
            "rate": rates(of_an_image),
            "to_one": ratio(alone[model], of_an_image),
        }
        for (way, count), of_an_image in zip(plan, measured, strict=True)
    ]


def _line(row: Mapping[str, Any]) -> str:
    rate, times = row["rate"]["median"], row["to_one"]
    spread = f"{times['median']:.2f} ({times['low']:.2f} to {times['high']:.2f})"
    return (
        f"{row['model']}, seeds: {row['seeds']}, {row['way']}: {rate:,.0f}/s, "
        f"{spread} times one process"
    )


def _seconds_of_an_image(case: Case, steps: Steps, at_least: float) -> float:
    with case.settings():
        images, started = 0, clock(case.device)
        while time.perf_counter() - started < at_least or not images:
            images += next(steps)
        return (clock(case.device) - started) / images


def _run(case: Case, seed: int) -> Run:
    """Build a run of a seed that never ends."""
    train, cuda = cases.SIZES[case.config.dataset.name][0], case.device.type == "cuda"
    config = dataclasses.replace(case.config, seed=seed)
    own = dataclasses.replace(case, config=config, graph=cuda)
    run = own.run(train if cuda else min(train, STEPS * case.batch_size))
    run.recipe = dataclasses.replace(run.recipe, epochs=sys.maxsize)
    return run


def _single(case: Case, seed: int) -> Steps:
    """Train as a run does."""
    run = _run(case, seed)
    for epoch in itertools.count(1):
        for step, batch in enumerate(start_epoch(run, epoch)):
            run.steps.take(run, step, batch)
            yield len(batch[0])


def _together(case: Case, count: int) -> Steps:
    """Train the seeds of an ensemble."""
    runs = [_run(case, seed) for seed in range(count)]
    ensemble = Ensemble(runs, graphed=case.device.type == "cuda")
    for epoch in itertools.count(1):
        for step, batch in enumerate(ensemble.start(epoch)):
            ensemble.take(step, batch)
            yield batch[1].numel()


class Workers:
    """Processes that train when they are told to, each its own seed.

    Args:
        environment: Variables that they set before they use the GPU.
    """

    def __init__(
        self, count: int, given: argparse.Namespace, environment: Mapping[str, str]
    ) -> None:
        self._threads = given.threads
        settings = (HEAD, given.precisions[0], given.at, given.data)
        pipes = [multiprocessing.Pipe() for _ in range(count)]
        self._workers = [
            (ours, Process(target=_work, args=(theirs, seed, settings, environment), daemon=True))
            for seed, (ours, theirs) in enumerate(pipes)
        ]

    def __enter__(self) -> "Workers":
        for _, process in self._workers:
            process.start()
        return self

    def __exit__(self, *_: object) -> None:
        for pipe, process in self._workers:
            with suppress(OSError):  # it may have ended
                pipe.send(None)
            process.join(10)

    def seconds_of_an_image(self, model: str, count: int, seconds: float) -> float:
        """Let so many processes train at once; their time for one image of any of them."""
        chosen = self._workers[:count]
        threads = self._threads or max(1, usable_cores() // count)
        try:
            for pipe, _ in chosen:
                pipe.send((model, threads, seconds))
            return 1 / sum(1 / self._answer(*worker) for worker in chosen)
        except (EOFError, OSError) as error:
            raise UnavailableError("a process has ended") from error

    def _answer(self, pipe: Any, process: Any) -> float:
        deadline = time.monotonic() + PATIENCE
        while not pipe.poll(1):
            if not process.is_alive() or time.monotonic() > deadline:
                raise UnavailableError("a process has ended, or does not answer")
        if isinstance(found := pipe.recv(), str):
            raise UnavailableError(found)
        return float(found)


def _work(pipe: Any, seed: int, settings: Any, environment: Mapping[str, str]) -> None:
    """Train until there is no more order; answer with the seconds of an image, or an error."""
    os.environ.update(environment)
    keep_freed_memory()
    known: dict[str, tuple[Case, Steps]] = {}
    while (order := pipe.recv()) is not None:
        model, threads, seconds = order
        torch.set_num_threads(threads)
        try:
            if model not in known:
                case = make_case(model, *settings)
                known[model] = case, _single(case, seed)
            pipe.send(_seconds_of_an_image(*known[model], seconds))
        except Exception as error:
            pipe.send(f"{type(error).__name__}: {error}")


@contextmanager
def _no_server(device: torch.device) -> Iterator[Server]:
    yield {}, lambda: True


@contextmanager
def _mps(device: torch.device) -> Iterator[Server]:
    """Run NVIDIA MPS with a folder of its own, and end it."""
    if device.type != "cuda" or shutil.which(CONTROL) is None:
        raise UnavailableError(f"it needs CUDA and {CONTROL} on the PATH")
    with tempfile.TemporaryDirectory() as folder:
        variables = {f"CUDA_MPS_{kind}_DIRECTORY": folder for kind in ("PIPE", "LOG")}

        def control(*options: str, order: str = "") -> str:
            done = subprocess.run(
                [CONTROL, *options], input=order, env={**os.environ, **variables},
                # a daemon may keep the pipe open
                stdout=subprocess.DEVNULL if options else subprocess.PIPE,
                text=True, timeout=30, check=True,
            )  # fmt: skip
            return (done.stdout or "").strip()

        before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # it ends the server too
        try:
            control("-d")
            yield variables, lambda: bool(control(order="get_server_list\n"))
        except (OSError, subprocess.SubprocessError) as error:
            raise UnavailableError(f"{CONTROL}: {error}") from error
        finally:
            with suppress(OSError, subprocess.SubprocessError):
                control(order="quit\n")
            signal.signal(signal.SIGTERM, before)
