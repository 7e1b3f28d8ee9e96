"""Measuring the loop without making it wait for the device."""

import time
from collections.abc import Iterator
from typing import Any

import torch

from spinal_repro.data.loader import Batch


class Clock:
    """Takes times as CUDA events on CUDA, as `time.perf_counter` elsewhere."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def now(self) -> Any:
        """The moment when all work queued so far is done."""
        if self._device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record(torch.cuda.current_stream(self._device))
            return event
        if self._device.type == "mps":
            torch.mps.synchronize()
        return time.perf_counter()

    def seconds(self, first: Any, last: Any) -> float:
        """Seconds between two moments; on CUDA both must have been reached."""
        if self._device.type == "cuda":
            return float(first.elapsed_time(last)) / 1000
        return float(last - first)


class Timed:
    """An iterator over batches that adds up the seconds spent waiting for them."""

    def __init__(self, stream: Iterator[Batch]) -> None:
        self._stream, self.seconds = stream, 0.0

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        asked = time.perf_counter()
        batch = next(self._stream)
        self.seconds += time.perf_counter() - asked
        return batch
