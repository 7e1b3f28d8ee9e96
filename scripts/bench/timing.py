"""Interleaved, repeated timing: contestants take turns, so that a busy minute hits them all."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

Contestant = Callable[[], float]  # does some work and returns seconds for one unit of it


def clock(device: torch.device) -> float:
    """Seconds, once everything asked of the device has been done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def take_turns(contestants: Mapping[str, Contestant], repeats: int) -> dict[str, list[float]]:
    """Seconds a unit of each contestant in every round; one round before is thrown away."""
    measured: dict[str, list[float]] = {name: [] for name in contestants}
    for round_number in range(repeats + 1):
        for name, contestant in contestants.items():
            seconds = contestant()
            if round_number:
                measured[name].append(seconds)
    return measured


def spread(values: list[float]) -> dict[str, float]:
    """Median with the lowest and the highest value."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def rates(seconds: list[float]) -> dict[str, float]:
    """Units a second."""
    return spread([1 / value for value in seconds])


def ratio(slower: list[float], faster: list[float]) -> dict[str, float]:
    """How many times the speed of ``slower`` ``faster`` has, round by round."""
    return spread([s / f for s, f in zip(slower, faster, strict=True)])


def repeated(work: Callable[[], Any], device: torch.device, at_least: float) -> Contestant:
    """A contestant that does ``work`` again and again for a while: seconds for one time."""
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
