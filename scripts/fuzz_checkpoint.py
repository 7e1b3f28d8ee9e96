"""The reader of checkpoints for `fuzz`: damaged ones, and sealed ones that say something wrong."""

import contextlib
import copy
import dataclasses
import hashlib
import io
import json
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from fuzz import Reader
from kill_test import same as alike

from spinal_repro.config import compose
from spinal_repro.errors import UserError
from spinal_repro.training.checkpoint import load_checkpoint, save_checkpoint
from spinal_repro.training.loop import State, Trainer, fit
from spinal_repro.training.report import metrics_csv
from spinal_repro.training.run import _prepare

SMALL = [
    "dataset=digits", "model=flatten", "head=linear", "recipe.optimizer=adam", "recipe.epochs=3",
    "recipe.batch_size=8", "recipe.lr_rule={name: divide}", "data.limit=20", "runtime.device=cpu",
]  # fmt: skip
ODD = (
    None, True, -1, 0, 1, 2, 3, 7, 99, 2**31, 2**63, 10**400, -0.5, 1.5, 1e308, math.nan, math.inf,
    -math.inf, "", "x", "\x1b[2J", b"x", [], [1], {}, {"x": 1}, {5: "x"}, (1, 2), 1j,
    torch.tensor(1), torch.tensor(-1.0), torch.tensor(math.nan), torch.zeros(3),
    torch.zeros(3, dtype=torch.uint8), torch.zeros(2, 2), torch.zeros(0), torch.zeros(1).expand(3),
    torch.eye(2).to_sparse(), torch.ones(3, requires_grad=True),
)  # fmt: skip


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where everything in nested groups and lists is, those themselves included."""
    if place:
        yield place
    keys = value if isinstance(value, dict) else range(len(value) if isinstance(value, list) else 0)
    for key in keys:
        yield from places(value[key], (*place, key))


def changed(value: Any, chance: random.Random) -> Any:
    """Another value for one that is right, often of its own kind."""
    if chance.random() < 0.4:
        return copy.deepcopy(chance.choice(ODD))
    if isinstance(value, torch.Tensor):
        return _changed_tensor(value, chance)
    if isinstance(value, list):
        return chance.choice((value[:-1], value + value[-1:], value[::-1], dict(enumerate(value))))
    if isinstance(value, dict):
        keys = [key for key in value if chance.random() < 0.7]
        return {**{key: value[key] for key in keys}, **({"more": 1} if len(keys) % 2 else {})}
    if isinstance(value, bool | int | float):
        return chance.choice((-value, value + 1, value - 1, value * 1e6, float(value), str(value)))
    return value[:-1] if isinstance(value, str) else None


def _changed_tensor(value: torch.Tensor, chance: random.Random) -> torch.Tensor:
    kind = chance.randrange(7)
    if kind == 0:
        return value.reshape(-1)[:-1].clone()
    if kind == 1:
        return value.to(chance.choice((torch.float64, torch.int64, torch.uint8, torch.bool)))
    if kind == 2:
        return value[None].clone()
    if kind == 3:
        return value.new_zeros([1] * value.dim()).expand(value.shape)
    other = value.clone().contiguous()
    if other.numel():
        odd = [0, -1, 255, 10**6, *([math.nan, math.inf, 1e38] * value.is_floating_point())]
        found = chance.choice(odd) % 256 if value.dtype == torch.uint8 else chance.choice(odd)
        other.view(-1)[chance.randrange(other.numel())] = found
    return other


class _Stop(Exception):  # noqa: N818  # no error: where the sample is taken
    pass


def _sample(place: Path, trainer: Trainer, begun: Any, epochs: int, step: int) -> bytes:
    """The checkpoint of a run that was stopped there; its best weights stay."""
    trainer.model.load_state_dict(begun)
    trainer.optimizer.state.clear()
    state, steps = State(trainer.recipe.lr, made_of={"images": "x"}), 0

    def on_epoch(state: State, is_best: bool) -> None:
        save_checkpoint(place, trainer.model, trainer.optimizer, state, trainer.model.state_dict())
        if state.epoch == epochs and not step:
            raise _Stop

    def on_batch(count: int, running: Any) -> bool:
        nonlocal steps
        steps += count > 0
        return bool(step) and steps == epochs * len(trainer.train) + step

    def save(state: State) -> None:
        save_checkpoint(place, trainer.model, trainer.optimizer, state)
        raise _Stop

    with contextlib.suppress(_Stop):
        fit(trainer, state, on_epoch, on_batch, lambda state: None, save)
    (place / "previous.pt").unlink(missing_ok=True)
    return (place / "last.pt").read_bytes()


def said_by(data: bytes) -> dict[str, Any]:
    """What a checkpoint says, read without the program."""
    if data[:2] != b"PK":
        seal, _, data = data.partition(b"\n")
        assert seal == b"sha256 " + hashlib.sha256(data).hexdigest().encode()
        data = data.partition(b"\n")[2]
    return dict(torch.load(io.BytesIO(data), weights_only=True))


def invariants(state: State, trainer: Trainer) -> bool:
    """Whether this run can stand so."""
    rows = [*state.history, *state.timing]
    numbers = [state.lr, *(value for row in rows for value in row.values())]
    right = [row["val_correct"] for row in state.history]
    best = state.best_epoch
    partway = state.partway
    return (
        0 <= state.epoch <= trainer.recipe.epochs
        and len(state.history) == len(state.timing) == state.epoch
        and all(type(value) in (int, float) and math.isfinite(value) for value in numbers)
        and best <= state.epoch
        and (not right or (right[best - 1] == max(right) == state.best_correct))
        and (
            partway is None
            or (
                state.epoch < trainer.recipe.epochs
                and 0 <= partway.step <= len(trainer.train) == len(partway.losses)
                and 0 <= partway.correct <= trainer.train.num_images
                and torch.isfinite(partway.losses).all().item()
            )
        )
    )


def checkpoint(folder: Path) -> Reader:
    """``last.pt`` of a run folder; what is continued from is what it says, and can be gone on from.

    Half of the inputs have one or two values inside changed, and are sealed again.
    """
    place = folder / "run"
    place.mkdir()
    trainer = _prepare(compose([*SMALL, f"runs={folder}/runs"]), torch.device("cpu")).trainer
    model, optimizer = trainer.model, trainer.optimizer
    begun = copy.deepcopy(model.state_dict())
    samples, best = [], {}
    for epochs, step in ((1, 2), (2, 0), (3, 0)):
        samples.append(_sample(place, trainer, begun, epochs, step))
        best |= {path: path.read_bytes() for path in place.glob("best-*")}
        (place / "last.pt").unlink()
    for path, content in best.items():  # a later sample has removed those of an earlier one
        path.write_bytes(content)

    def crafted(chance: random.Random) -> bytes:
        said = said_by(chance.choice(samples))
        for _ in range(chance.choice((1, 1, 1, 2))):
            part = chance.choice(("state", "state", "state", "model", "optimizer"))
            *way, last = chance.choice(list(places({part: said[part]})))
            inside = said
            for key in way:
                inside = inside[key]
            inside[last] = changed(inside[last], chance)
            if not isinstance(said[part], dict):
                break
        out = io.BytesIO()
        torch.save(said, out)
        content = b"best 000001\n" + out.getvalue()
        return b"sha256 " + hashlib.sha256(content).hexdigest().encode() + b"\n" + content

    def read(data: bytes) -> Any:
        (place / "last.pt").write_bytes(data)
        optimizer.state.clear()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
        found = load_checkpoint(place, trainer)
        assert found is not None
        read = copy.deepcopy(
            (found.state, model.state_dict(), dict(enumerate(optimizer.state.values())))
        )
        fit(trainer, found.state, lambda *_: None, lambda *_: None, lambda state: None)
        metrics_csv(found.state)
        json.dumps(dataclasses.asdict(found.state), allow_nan=False)
        return read

    def same(data: bytes, found: Any) -> bool:
        state, weights, memory = found
        said = said_by(data)
        # null is as good as not there
        given = {name: value for name, value in said["state"].items() if value is not None}
        given["timing"] = [
            {k: v for k, v in row.items() if v is not None} for row in given["timing"]
        ]
        shown = {name: dataclasses.asdict(state)[name] for name in given}
        if isinstance(given.get("partway"), dict):
            given["partway"] = {k: v for k, v in given["partway"].items() if v is not None}
            shown["partway"] = {name: shown["partway"][name] for name in given["partway"]}
        return (
            alike(shown, given)
            and alike(dict(weights), dict(said["model"]))
            and alike([*memory.values()], [*said["optimizer"]["state"].values()])
            and invariants(state, trainer)
        )

    return Reader("checkpoint", samples, read, same, (UserError,), crafted)
