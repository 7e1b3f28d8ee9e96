"""A stand-in for CUDA graphs on the CPU: records the operations of a function and repeats them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from spinal_repro.training.graph import WARM_UP, NotCapturableError

WAITING = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)


class _Recorder(TorchDispatchMode):
    """Notes each operation with its tensors; other arguments keep their first value.

    As a CUDA graph, it keeps the memory of its results, but not that of the caller's tensors.
    """

    def __init__(self) -> None:
        super().__init__()
        self._made: dict[int, torch.UntypedStorage] = {}
        self.operations: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in WAITING:
            raise NotCapturableError(f"{func} waits for the device")
        given = args, kwargs or {}
        noted = tree_map_only(Tensor, self._noted, given)
        result = func(*args, **(kwargs or {}))
        known = _memory(given)
        self._made |= {k: kept for k, kept in _memory(result).items() if k not in known}
        self.operations.append((func, *noted, tree_map_only(Tensor, self._noted, result)))
        return result

    def _noted(self, tensor: Tensor) -> Any:
        return tensor if tensor.untyped_storage()._cdata in self._made else _Foreign(tensor)


class _Foreign:
    """A tensor whose memory the caller keeps."""

    def __init__(self, tensor: Tensor) -> None:
        self._memory = StorageWeakRef(tensor.untyped_storage())
        self._dtype = tensor.dtype
        self._place = tensor.storage_offset(), tensor.shape, tensor.stride()

    def tensor(self) -> Tensor:
        memory = torch.UntypedStorage._new_with_weak_ptr(self._memory.cdata)
        assert memory is not None, "the graph uses a tensor that does not exist any more"
        return torch.empty(0, dtype=self._dtype).set_(memory, *self._place)


def _memory(value: Any) -> dict[int, torch.UntypedStorage]:
    tensors = [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]
    return {t.untyped_storage()._cdata: t.untyped_storage() for t in tensors}


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
    args, kwargs, result = tree_map_only(_Foreign, _Foreign.tensor, (args, kwargs, result))
    aliases = [returned.alias_info for returned in func._schema.returns]
    if aliases and all(alias is not None and not alias.is_write for alias in aliases):
        return  # a view of its input, which has been written
    found = func(*args, **kwargs)
    for new, old, alias in zip(_listed(found), _listed(result), aliases, strict=True):
        if alias is None:
            for one, other in zip(_tensors(new), _tensors(old), strict=True):
                other.copy_(one)


def _listed(result: Any) -> list[Any]:
    if isinstance(result, tuple):
        return list(result)
    return [] if result is None else [result]


def _tensors(value: Any) -> list[Tensor]:
    values = value if isinstance(value, list) else [value]
    return [tensor for tensor in values if isinstance(tensor, Tensor)]
