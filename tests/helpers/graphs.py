"""A stand-in for CUDA graphs on the CPU: records the operations of a function and repeats them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.weak import TensorWeakRef

from spinal_repro.training.graph import WARM_UP, NotCapturableError

WAITING = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)


class _Recorder(TorchDispatchMode):
    """Notes each operation with its tensors; other arguments keep their first value.

    As a CUDA graph, it keeps its own results alive, but not the tensors of its caller.
    """

    def __init__(self) -> None:
        super().__init__()
        self._made: dict[int, Tensor] = {}
        self.operations: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in WAITING:
            raise NotCapturableError(f"{func} waits for the device")
        given = self._noted((args, kwargs or {}))
        result = func(*args, **(kwargs or {}))
        tensors = [t for part in _listed(result) for t in _tensors(part)]
        passed = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        self._made |= {id(t): t for t in tensors if not any(t is other for other in passed)}
        self.operations.append((func, *given, self._noted(result)))
        return result

    def _noted(self, value: Any) -> Any:
        return tree_map_only(
            Tensor, lambda t: t if id(t) in self._made else TensorWeakRef(t), value
        )


def capture(step: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """As `spinal_repro.training.graph.capture`, but the capture runs the function once more."""
    assert device.type == "cpu"
    for _ in range(WARM_UP):
        step()
    with _Recorder() as recorder:
        step()

    def replay() -> None:
        with torch.no_grad():
            for operation in recorder.operations:
                _repeat(*operation)

    return replay


def _repeat(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
    """Run an operation again and write its results where the first ones are."""
    args, kwargs, result = tree_map_only(TensorWeakRef, _alive, (args, kwargs, result))
    aliases = [returned.alias_info for returned in func._schema.returns]
    if aliases and all(alias is not None and not alias.is_write for alias in aliases):
        return  # a view of its input, which has been written
    found = func(*args, **kwargs)
    for new, old, alias in zip(_listed(found), _listed(result), aliases, strict=True):
        if alias is None:
            for one, other in zip(_tensors(new), _tensors(old), strict=True):
                other.copy_(one)


def _alive(reference: Any) -> Tensor:
    tensor = reference()
    assert tensor is not None, "the graph uses a tensor that does not exist any more"
    return tensor


def _listed(result: Any) -> list[Any]:
    if isinstance(result, tuple):
        return list(result)
    return [] if result is None else [result]


def _tensors(value: Any) -> list[Tensor]:
    values = value if isinstance(value, list) else [value]
    return [tensor for tensor in values if isinstance(tensor, Tensor)]
