"""Interleaved timing: variants alternate, so that load on the machine affects all of them."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

Contestant = Callable[[], float]  # returns the seconds of one unit of work


def clock(device: torch.device) -> float:
    """Return the time in seconds, after waiting for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def take_turns(contestants: Mapping[str, Contestant], repeats: int) -> dict[str, list[float]]:
    """Return the seconds of each contestant in each round; the first round is a warm-up."""
    measured: dict[str, list[float]] = {name: [] for name in contestants}
    for round_number in range(repeats + 1):
        for name, contestant in contestants.items():
            seconds = contestant()
            if round_number:
                measured[name].append(seconds)
    return measured


def spread(values: list[float]) -> dict[str, float]:
    """Return median, lowest and highest value."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def rates(seconds: list[float]) -> dict[str, float]:
    """Convert seconds to units per second."""
    return spread([1 / value for value in seconds])


def ratio(slower: list[float], faster: list[float]) -> dict[str, float]:
    """Return the speed of ``faster`` over that of ``slower``, in each round."""
    return spread([s / f for s, f in zip(slower, faster, strict=True)])


def repeated(work: Callable[[], Any], device: torch.device, at_least: float) -> Contestant:
    """Return a contestant that repeats ``work`` and returns its seconds."""
    work()
    started = clock(device)
    work()
    times = max(1, int(at_least / max(clock(device) - started, 1e-9)))

    def contestant() -> float:
        started = clock(device)
        for _ in range(times):
            work()
        return (clock(device) - started) / times

    return contestant
