"""What a checkpoint is built like: types and ranges of everything in it, before it is used.

A right checksum says that a file is as somebody wrote it, not that this program did.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Adam

from spinal_repro.files import DamagedError
from spinal_repro.record_shape import NUMBER, SHARE, Kind, Spec, problems
from spinal_repro.training.loop import State, Trainer
from spinal_repro.training.partway import Partway


def _whole(least: int, most: int) -> Kind:
    return Kind(
        f"a whole number from {least} to {most}", lambda v: type(v) is int and least <= v <= most
    )


def _tensor(dtype: torch.dtype, shape: tuple[int, ...], least: float = -math.inf) -> Kind:
    def fits(value: Any) -> bool:
        return (
            isinstance(value, Tensor)
            and (value.dtype, value.shape, value.layout) == (dtype, shape, torch.strided)
            and all(stride or size < 2 for stride, size in zip(value.stride(), shape, strict=True))
            and not value.requires_grad
            and bool((torch.isfinite(value) & (value >= least)).all())
        )

    at_least = "" if least == -math.inf else f", {least} or more"
    return Kind(f"a tensor {list(shape)} of finite {dtype}{at_least}", fits)


def _generator(device: str) -> Kind:
    def fits(value: Any) -> bool:
        try:
            torch.Generator(device).set_state(value)
        except (RuntimeError, TypeError):
            return False
        return True

    return Kind(f"a state of a random generator on {device}", fits)


RATE = Kind("a finite number, 0 or more", lambda v: NUMBER.fits(v) and v >= 0)
SECONDS = Kind("a number of seconds", lambda v: NUMBER.fits(v) and v > 0)
SUM = Kind("a SHA-256", lambda v: isinstance(v, str) and len(v) in (0, 64))
TEXTS = Kind(
    "texts by name",
    lambda v: isinstance(v, dict) and all(isinstance(text, str) for text in (*v, *v.values())),
)
OTHER: dict[str, Any] = {"*": Kind("known", lambda v: False)}


def read_state(saved: Any, trainer: Trainer) -> State:
    """Where a run stands, out of a checkpoint of it.

    Args:
        saved: As read.
        trainer: What the run is trained with.

    Raises:
        DamagedError: naming the first parts that this run cannot have written.
    """
    _refuse(problems(saved, _spec(trainer), "", True))
    _refuse(_against_itself(saved, trainer))
    given = {**_given(saved), "timing": [_given(row) for row in saved["timing"]]}
    if "partway" in given:
        given["partway"] = Partway(**_given(given["partway"]))
    return State(**given)


def origin(saved: Any) -> dict[str, str]:
    """What the run of a checkpoint was trained on, as far as it says so in texts."""
    found = saved.get("made_of") if isinstance(saved, Mapping) else None
    return dict(found) if isinstance(found, dict) and TEXTS.fits(found) else {}


def refuse_other_tensors(saved: Mapping[str, Any], trainer: Trainer) -> None:
    """Refuse weights and an optimizer's memory that no run has; shapes of weights are another's.

    Args:
        saved: All of a checkpoint, whose weights have the names and shapes of this run.
        trainer: What the run is trained with.

    Raises:
        DamagedError: naming the first parts that this run cannot have written.
    """
    trained = {name for name, _ in trainer.model.named_parameters()}
    weights = trainer.model.state_dict()
    kinds = {n: _of(t) if n in trained else _like(t) for n, t in weights.items()}
    _refuse(problems(saved["model"], kinds, "model", True))
    _refuse(_optimizer_problems(saved["optimizer"]["state"], trainer))


def _refuse(wrong: Iterator[str]) -> None:
    if found := [what for what, _ in zip(wrong, range(3), strict=False)]:
        raise DamagedError("; ".join(found))


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is null, as what an older version did not write."""
    return {name: value for name, value in values.items() if value is not None}


def _like(tensor: Tensor) -> Kind:
    """A buffer, such as a mask of -inf: any numbers of that type."""
    return Kind(
        f"a tensor of {tensor.dtype}", lambda v: isinstance(v, Tensor) and v.dtype == tensor.dtype
    )


def _of(tensor: Tensor, least: float = -math.inf) -> Kind:
    return _tensor(tensor.dtype, tuple(tensor.shape), least)


def _spec(trainer: Trainer) -> Spec:
    """The table of a run; what may be missing is what older versions do not have."""
    epochs, steps = trainer.recipe.epochs, len(trainer.train)
    parts = {trainer.select_on: trainer.select}
    if trainer.watch is not None:
        parts["test"] = trainer.watch
    figures: dict[str, Any] = {}
    for part, batches in parts.items():
        figures[f"{part}_loss"], figures[f"{part}_accuracy"] = NUMBER, SHARE
        figures[f"{part}_correct"] = _whole(0, batches.num_images)
    device = trainer.train.device.type
    generators = {
        kind: _generator(kind) for kind in ("cpu", "cuda", "mps") if kind in (device, "cpu")
    }
    return {
        "lr": RATE,
        "epoch": _whole(0, epochs),
        "best_epoch": _whole(0, epochs),
        "best_correct": _whole(0, trainer.select.num_images),
        "history": [
            {
                "epoch": _whole(1, epochs),
                "lr": RATE,
                "train_loss": NUMBER,
                "train_accuracy": SHARE,
                **figures,
                **OTHER,
            }
        ],
        "timing": [
            {
                "epoch": _whole(1, epochs),
                "train_seconds": SECONDS,
                "eval_seconds": RATE,
                "images_per_second": RATE,
                "data_share?": RATE,
                "processes?": _whole(1, 2**31),
                **OTHER,
            }
        ],
        "partway?": {
            "losses": _tensor(torch.float32, (steps,)),
            "correct": _tensor(torch.int64, (), 0),
            "step": _whole(0, steps),
            "random": {**generators, **OTHER},
            "seconds": RATE,
            "waited?": RATE,
            **OTHER,
        },
        "best_sha256?": SUM,
        "made_of?": TEXTS,
        **OTHER,
    }


def _against_itself(saved: Mapping[str, Any], trainer: Trainer) -> Iterator[str]:
    """What is wrong although each part could be right."""
    epoch, partway, history = saved["epoch"], saved.get("partway"), saved["history"]
    for name in ("history", "timing"):
        if [row["epoch"] for row in saved[name]] != list(range(1, epoch + 1)):
            yield f"{name} is not that of {epoch} epochs"
            return
    # the first of the best epochs, of those that count (see `open_epoch`)
    begun, since = epoch + (partway is not None), 1
    if trainer.recipe.best_of_last_stage:
        since = max((e for e in trainer.recipe.stages if e <= begun), default=1)
    right = [row[f"{trainer.select_on}_correct"] for row in history[since - 1 :]]
    best = (since + right.index(max(right)), max(right)) if right else (0, 0)
    if best != (saved["best_epoch"], saved["best_correct"]):
        yield f"best_epoch is {saved['best_epoch']}, and the best of history is {best[0]}"
    if partway is None:
        return
    if epoch == trainer.recipe.epochs:
        yield "partway is that of an epoch after the last"
    if partway["losses"][partway["step"] :].any():
        yield "partway.losses has some of steps to come"
    seen = min(partway["step"] * trainer.train.batch_size, trainer.train.num_images)
    if partway["correct"] > seen:
        yield f"partway.correct is above the {seen} images seen"


def _optimizer_problems(saved: Any, trainer: Trainer) -> Iterator[str]:
    """Of what an optimizer remembers; parameters that it has not met yet, or forgot, have none."""
    optimizer = trainer.optimizer
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for number, memory in saved.items():
        where = f"optimizer.state[{number!r}]"
        if type(number) is not int or not 0 <= number < len(parameters):
            yield f"{where} is of no parameter"
            continue
        own = parameters[number].detach()
        spec: Spec = {"momentum_buffer?": _of(own), **OTHER}
        if isinstance(optimizer, Adam):
            step = _tensor(torch.float32, (), 1)
            spec = {"step": step, "exp_avg": _of(own), "exp_avg_sq": _of(own, 0), **OTHER}
        yield from problems(memory, spec, where, True)
