"""Checkpoints of a run: ``last.pt`` to continue from, the one before it, and the best weights.

The best weights carry their epoch in the file name and are written before ``last.pt`` refers to
them; those that ``previous.pt`` refers to stay. So a run that is killed anywhere between two
writes finds a consistent pair, and one whose ``last.pt`` is damaged finds the pair before.
"""

import dataclasses
import hashlib
import io
import pickle
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.optim import Optimizer

from spinal_repro.errors import UserError
from spinal_repro.files import DamagedError, read_sealed, write_atomic, write_sealed
from spinal_repro.training.checkpoint_shape import (
    origin,
    read_state,
    refuse_other_tensors,
)
from spinal_repro.training.finite import FAILURE
from spinal_repro.training.loop import State, Trainer

LAST, PREVIOUS, DAMAGED, BEST = "last.pt", "previous.pt", "damaged.pt", "best.safetensors"
PLAIN = b"PK"  # how checkpoints began that had no checksum


@dataclass(frozen=True)
class Loaded:
    """What a run continues from.

    Attributes:
        state: Where it stands.
        path: The checkpoint.
        damaged: Why ``last.pt`` could not be used; empty if it could.
    """

    state: State
    path: Path
    damaged: str = ""


class BestWeights:
    """The best weights so far: a copy on the device until they are saved, then their file.

    Args:
        folder: Of the run.
        model: The model that is trained.
    """

    def __init__(self, folder: Path, model: nn.Module) -> None:
        self._folder, self._model = folder, model
        self.unsaved: dict[str, Tensor] = {}

    def keep(self) -> None:
        """Copy the model's weights, which are the best so far."""
        self.unsaved = {name: t.detach().clone() for name, t in self._model.state_dict().items()}

    def load(self, state: State) -> None:
        """Load the best weights into the model.

        Raises:
            UserError: where their file is missing or cannot be read.
        """
        if self.unsaved:
            self._model.load_state_dict(self.unsaved)
        else:
            load_best(self._folder, state, self._model)


def save_checkpoint(
    folder: Path,
    model: nn.Module,
    optimizer: Optimizer,
    state: State,
    best: Mapping[str, Tensor] | None = None,
) -> None:
    """Write the checkpoint of a run.

    Args:
        folder: Of the run.
        model: As it is now.
        optimizer: As it is now.
        state: Where the run stands.
        best: The best weights, where they have changed since the last checkpoint.
    """
    before = _best_before(folder)
    if best and state.best_epoch:  # a stage may have opened that forgets the best so far
        weights = _serialised(best)
        state.best_sha256 = hashlib.sha256(weights).hexdigest()
        write_atomic(_best_path(folder, state.best_epoch), weights)
    buffer = io.BytesIO()
    torch.save(
        {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "state": dataclasses.asdict(state),
        },
        buffer,
    )
    header = f"best {state.best_epoch:06d}\n".encode()
    write_sealed(folder / LAST, [header, buffer.getbuffer()], keep=folder / PREVIOUS)
    for path in folder.glob("best-*.safetensors"):
        if path not in (_best_path(folder, state.best_epoch), _best_path(folder, before)):
            path.unlink()


def load_checkpoint(
    folder: Path, trainer: Trainer, made_of: Mapping[str, str] | None = None
) -> Loaded | None:
    """Put model and optimizer where the run stopped, or a checkpoint earlier if that is damaged.

    A checkpoint counts as damaged, too, where the best weights that it refers to are, and where
    it says what this run cannot have written.

    Args:
        folder: Of the run.
        trainer: What it is trained with.
        made_of: Hashes of what it is trained on now; None where that does not matter.

    Returns:
        Where to continue; None where there is no checkpoint.

    Raises:
        UserError: where all checkpoints are damaged, or are those of another model or other data.
    """
    model, optimizer, damaged = trainer.model, trainer.optimizer, ""
    for path in (folder / LAST, folder / PREVIOUS):
        if not path.is_file():
            continue
        try:
            saved = _read(path)
            _check_fit(path, saved["model"], model)
            if made_of is not None:
                _check_origin(folder, origin(saved["state"]), made_of)
            refuse_other_tensors(saved, trainer)
            state = read_state(saved["state"], trainer)
            if state.best_epoch:
                _read_best(folder, state)
            # momentum and the like are the recipe's, whatever a file says
            own = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({**saved["optimizer"], "param_groups": own})
            model.load_state_dict(saved["model"])
            return Loaded(state, path, damaged)
        except UserError:
            raise
        except (DamagedError, RuntimeError, SafetensorError, pickle.UnpicklingError, EOFError,
                OSError, LookupError, AttributeError, TypeError, ValueError) as error:  # fmt: skip
            why = (str(error).splitlines() or [type(error).__name__])[0]
            damaged += f"{'; ' if damaged else ''}{path}: {why}"
    if damaged:
        raise UserError(
            f"the checkpoint cannot be read ({damaged}); delete the folder {folder} to start this "
            f"run anew"
        )
    return None


def set_aside(folder: Path) -> None:
    """Give a damaged ``last.pt`` another name, lest it become the previous one."""
    if (folder / LAST).is_file():
        (folder / LAST).replace(folder / DAMAGED)


def load_best(folder: Path, state: State, model: nn.Module) -> None:
    """Load the best weights into a model.

    Raises:
        UserError: where they are missing or cannot be read.
    """
    try:
        model.load_state_dict(_read_best(folder, state))
    except (OSError, SafetensorError, RuntimeError, DamagedError) as e:
        raise UserError(
            f"the best weights of {folder} cannot be read ({str(e).splitlines()[0]}); "
            f"delete the folder to start this run anew"
        ) from e


def finish(folder: Path, state: State) -> Path:
    """Give the best weights their final name."""
    final, current = folder / BEST, _best_path(folder, state.best_epoch)
    if current.is_file():
        current.replace(final)
    return final


def tidy(folder: Path) -> None:
    """Remove what nobody needs once there is a record."""
    others = (folder / name for name in (PREVIOUS, DAMAGED, FAILURE))
    for path in (*others, *folder.glob("best-*.safetensors")):
        with suppress(OSError):  # it is no matter if it stays
            path.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        plain = file.read(len(PLAIN)) == PLAIN
    content = memoryview(path.read_bytes()) if plain else read_sealed(path)
    start = 0 if plain else bytes(content[:20]).index(b"\n") + 1
    saved = torch.load(io.BytesIO(content[start:]), map_location="cpu", weights_only=True)
    return dict(saved)


def _check_fit(path: Path, saved: Mapping[str, Tensor], model: nn.Module) -> None:
    """Refuse the checkpoint of another model, which is no damage.

    Raises:
        UserError: naming the first weight that differs.
    """
    wanted = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: list(tensor.shape) for name, tensor in saved.items()}
    for name in {**wanted, **found}:
        if wanted.get(name) != found.get(name):
            there, here = (str(shapes.get(name, "not there")) for shapes in (found, wanted))
            raise UserError(
                f"the checkpoint {path} is that of another model: {name} is {there} in it and "
                f"{here} in this run (another number of classes, or another architecture); "
                f"delete the folder {path.parent} to start this run anew"
            )


def _check_origin(folder: Path, then: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Refuse to go on with other data, which is no damage either.

    Raises:
        UserError: naming what is another.
    """
    changed = [what for what in then if then[what] != now.get(what)]
    if changed:
        raise UserError(
            f"the {' and the '.join(changed)} are others than those that the run in {folder} began "
            f"with; put those back, or delete the folder to start this run anew"
        )


def _best_path(folder: Path, epoch: int) -> Path:
    return folder / f"best-{epoch:04d}.safetensors"


def _best_before(folder: Path) -> int:
    """The epoch of the best weights that the checkpoint before refers to; 0 where unknown."""
    path = folder / LAST if (folder / LAST).is_file() else folder / PREVIOUS
    try:
        with path.open("rb") as file:
            file.readline(100)
            word, _, epoch = file.readline(100).partition(b" ")
        return int(epoch) if word == b"best" else 0
    except (OSError, ValueError):
        return 0


def _read_best(folder: Path, state: State) -> dict[str, Tensor]:
    """The best weights.

    Raises:
        DamagedError: where they are not those that were written.
        OSError: where they are missing.
        SafetensorError: where they cannot be read.
    """
    path = _best_path(folder, state.best_epoch)
    if not path.is_file():  # killed after `finish`, before the record was written
        path = folder / BEST
    if state.best_sha256:  # a run that an older version began has none
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != state.best_sha256:
            raise DamagedError(f"the checksum of {path.name} does not match")
    return load_file(path)


def _serialised(weights: Mapping[str, Tensor]) -> bytes:
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()})
