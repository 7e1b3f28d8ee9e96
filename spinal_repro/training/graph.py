"""Training steps as one CUDA graph (``runtime.graph=auto``).

A step of a small network is hundreds of kernels, each of which takes less time to run than to
launch. A CUDA graph launches them all at once. https://docs.pytorch.org/docs/stable/notes/cuda.html
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from spinal_repro.data.loader import Batch
from spinal_repro.errors import UserError
from spinal_repro.training.engine import Run, Steps, training_step

WARM_UP = 3  # steps before the capture, in which cuDNN chooses its algorithms


class NotCapturableError(Exception):
    """A step waits for the GPU, so that no graph can hold it."""


def capture(step: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """Capture a function as a CUDA graph, and return the function that replays it.

    The function is called ``WARM_UP + 1`` times first. The capture does not run it. The caller must
    keep all tensors that the function uses: the graph has their addresses only.
    """
    stream, current = torch.cuda.Stream(device), torch.cuda.current_stream(device)
    stream.wait_stream(current)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            step()
        before = torch.cuda.get_sync_debug_mode()
        try:  # before the capture: after one that failed, dropout does not work any more
            with warnings.catch_warnings(action="ignore"):  # it is a prototype
                torch.cuda.set_sync_debug_mode("error")
            step()
        except RuntimeError as error:
            raise NotCapturableError(str(error).partition("\n")[0]) from error
        finally:
            torch.cuda.set_sync_debug_mode(before)
            current.wait_stream(stream)
        try:  # thread_local: other threads may pin memory meanwhile
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                step()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            raise UserError(
                f"no CUDA graph of a step ({reason}); use runtime.graph=none"
            ) from error
    return graph.replay


class GraphedSteps(Steps):
    """Replays one CUDA graph for all steps on batches of equal size.

    The graph is captured at the first step, and again if a layer is unfrozen, dropout is switched
    off or the optimizer is reset. Batches of another size, such as the last one, are trained on
    without it. Capturing changes neither weights nor random numbers, so that a resumed run, which
    captures again, is the same. If the step cannot be captured, all steps are taken without graph.
    """

    _replay: Callable[[], None] | None = None
    _captured: Any = None  # `kind_of` of the captured step
    _refused = False

    def start(self, run: Run) -> None:
        if self._replay is None or self._captured != kind_of(run):
            self._replay = None
            super().start(run)
            return
        for group in run.optimizer.param_groups:
            group["lr"].fill_(self.learning_rate(run, group))
        self._reset()

    def take(self, run: Run, step: int, batch: Batch) -> None:
        if step == 0 and self._replay is None and not self._refused:
            self._capture(run, batch)
        if self._replay is None or batch[0].shape != self._batch[0].shape:
            super().take(run, step, batch)
            return
        for ours, given in zip(self._batch, batch, strict=True):
            ours.copy_(given)
        self._replay()

    def _capture(self, run: Run, batch: Batch) -> None:
        device, optimizer = run.train.device, run.optimizer
        self._batch = [tensor.clone() for tensor in batch]
        self._steps = torch.arange(len(self.losses), device=device)
        self._position = torch.zeros_like(self._steps[:1])

        def step() -> None:
            loss, correct = training_step(run, *self._batch)
            self.losses.copy_(torch.where(self._steps == self._position, loss, self.losses))
            self.correct.add_(correct)
            self._position.add_(1).remainder_(len(self.losses))

        for group in optimizer.param_groups:
            group["lr"] = torch.tensor(group["lr"], device=device)
            group["capturable"] = True
        try:
            with unchanged(run):
                self._replay = capture(step, device)
        except NotCapturableError as error:
            self._refused = True
            self.note = f"training without CUDA graph: {error}"
            for group in optimizer.param_groups:
                group["capturable"] = False
            super().start(run)
            return
        self._captured = kind_of(run)
        self._reset()

    def _reset(self) -> None:
        for counts in (self.losses, self.correct, self._position):
            counts.zero_()


@contextmanager
def unchanged(run: Run) -> Iterator[None]:
    """Restore weights, optimizer and random numbers at the end."""
    device, state = run.train.device, run.optimizer.state
    models = [run.model, *([run.average] if run.average is not None else [])]
    tensors = [tensor for model in models for tensor in model.state_dict().values()]
    saved = [(tensor, tensor.clone()) for tensor in [*tensors, *_tensors(state)]]
    fresh = not state
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        run.optimizer.zero_grad()
        for tensor, value in saved:
            tensor.copy_(value)
        if fresh:  # momentum and averages of zeros are those of a new optimizer
            for tensor in _tensors(state):
                tensor.zero_()


def _tensors(state: Any) -> list[Tensor]:
    """The tensors of an optimizer's state."""
    return [t for own in state.values() for t in own.values() if isinstance(t, Tensor)]


def kind_of(run: Run) -> tuple[Any, ...]:
    """Describe what a graph depends on besides the values of tensors."""
    training = [module.training for module in run.model.modules()]
    trained = [weights.requires_grad for weights in run.model.parameters()]
    return training, trained, len(run.optimizer.state)
