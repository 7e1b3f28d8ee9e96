"""Checkpoints of a run: ``last.pt`` to continue from and the best weights as safetensors.

The best weights carry their epoch in the file name and are written before ``last.pt`` refers to
them, so a run that is killed anywhere between two writes finds a consistent pair.
"""

import dataclasses
import io
import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.optim import Optimizer

from spinal_repro.errors import UserError
from spinal_repro.files import write_atomic
from spinal_repro.training.loop import State


def save_checkpoint(
    folder: Path, model: nn.Module, optimizer: Optimizer, state: State, is_best: bool
) -> None:
    """Write where a run stands, and its weights if they are the best so far."""
    if is_best:
        write_atomic(_best_path(folder, state.best_epoch), _weights(model))
    buffer = io.BytesIO()
    torch.save(
        {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "state": dataclasses.asdict(state),
        },
        buffer,
    )
    write_atomic(folder / "last.pt", buffer.getvalue())
    for path in folder.glob("best-*.safetensors"):
        if path != _best_path(folder, state.best_epoch):
            path.unlink()


def load_checkpoint(folder: Path, model: nn.Module, optimizer: Optimizer) -> State | None:
    """Put model and optimizer where the run stopped.

    Returns:
        The state to continue from; None where there is no checkpoint.

    Raises:
        UserError: where the checkpoint cannot be read.
    """
    path = folder / "last.pt"
    if not path.is_file():
        return None
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        return State(**saved["state"])
    except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, TypeError, ValueError) as e:
        raise UserError(
            f"the checkpoint {path} cannot be read ({str(e).splitlines()[0]}); "
            f"delete the folder {folder} to start this run anew"
        ) from e


def load_best(folder: Path, state: State, model: nn.Module) -> None:
    """Load the best weights into a model.

    Raises:
        UserError: where they are missing or cannot be read.
    """
    path = _best_path(folder, state.best_epoch)
    if not path.is_file():  # killed after `finish`, before the record was written
        path = folder / "best.safetensors"
    try:
        model.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as e:
        raise UserError(
            f"the best weights {path} cannot be read ({str(e).splitlines()[0]}); "
            f"delete the folder {folder} to start this run anew"
        ) from e


def finish(folder: Path, state: State) -> Path:
    """Give the best weights their final name."""
    final, current = folder / "best.safetensors", _best_path(folder, state.best_epoch)
    if current.is_file():
        current.replace(final)
    return final


def _best_path(folder: Path, epoch: int) -> Path:
    return folder / f"best-{epoch:04d}.safetensors"


def _weights(model: nn.Module) -> bytes:
    tensors: dict[str, Tensor] = {
        name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()
    }
    return save(tensors)
