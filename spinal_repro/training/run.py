"""One run from its configuration to its record."""

import csv
import dataclasses
import io
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf

from spinal_repro.config import Config, RecipeConfig
from spinal_repro.data.augment import build_augmentations
from spinal_repro.data.loader import Batches
from spinal_repro.data.sources import Dataset, load_dataset
from spinal_repro.data.splits import Split, content_hash, make_split, num_shared
from spinal_repro.environment import (
    autocast,
    describe_environment,
    git_revision,
    has_bf16,
    resolve_device,
)
from spinal_repro.errors import UserError
from spinal_repro.files import write_atomic
from spinal_repro.heads import HEADS
from spinal_repro.model import Counts, build_model, count
from spinal_repro.pretrained import WeightReport
from spinal_repro.records import RECORD, describe, read_record, write_record, write_status
from spinal_repro.results.statistics import binomial_interval
from spinal_repro.seeds import STREAMS, stream_seed
from spinal_repro.training.checkpoint import finish, load_best, load_checkpoint, save_checkpoint
from spinal_repro.training.loop import Evaluation, State, Trainer, evaluate, fit
from spinal_repro.training.optim import LR_RULES, build_optimizer
from spinal_repro.training.progress import Progress, clock

SELECTION_RULES = {
    "val": "highest accuracy on the validation part, first on ties; test read once, after training",
    "test": "highest accuracy on the TEST set, first on ties (best-on-test, as published)",
}


@dataclass(frozen=True)
class Outcome:
    """What came of a run: its folder, its record and whether it had been finished before."""

    folder: Path
    record: dict[str, Any]
    was_done: bool


@dataclass(frozen=True)
class _Setup:
    """What a run trains with, and what its record says of it."""

    trainer: Trainer
    test: Batches
    counts: Counts
    weights: WeightReport | None
    data: dict[str, Any]


def run(config: Config) -> Outcome:
    """Train one configuration, or continue it, or report it if it is finished.

    Raises:
        UserError: for anything in configuration, data or folder that the user can mend.
    """
    device = resolve_device(config.runtime.device)
    runtime = dataclasses.replace(config.runtime, device=device.type)
    typed = HEADS.check(config.head.name, config.head.options)
    options = {key: typed[key] for key in config.head.options}  # dropout 0 and 0.0 are one run
    head = dataclasses.replace(config.head, options=options)
    config = dataclasses.replace(config, runtime=runtime, head=head)  # the real device's identity
    folder = config.run_dir
    if (folder / RECORD).is_file():
        return Outcome(folder, read_record(folder / RECORD), was_done=True)
    if runtime.threads is not None:
        torch.set_num_threads(runtime.threads)
    setup = _prepare(config, device)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(config.to_dict())))
    except OSError as error:
        raise UserError(f"the run folder {folder} cannot be written: {error}") from error
    try:
        record = _train(config, folder, setup, device)
    except BaseException as error:
        stopped = isinstance(error, KeyboardInterrupt)
        state = "interrupted" if stopped else "failed"
        epochs = describe(folder).get("epochs", "")
        write_status(folder, state, message=f"{type(error).__name__}: {error}", epochs=epochs)
        raise
    return Outcome(folder, record, was_done=False)


def _prepare(config: Config, device: torch.device) -> _Setup:
    """Build model, data and optimizer: whatever is wrong shows here, before training."""
    recipe = config.recipe
    model = build_model(config.dataset, config.model, config.head, config.seed)
    counts = count(model, config.dataset.channels, config.dataset.image_size)
    rule = dict(recipe.lr_rule)
    lr_rule = LR_RULES.build(str(rule.pop("name", "")), rule)
    augmentations = build_augmentations(recipe.augment)
    mean, std = normalisation(recipe, model.backbone)
    channels_last = torch.channels_last if config.runtime.channels_last else torch.preserve_format
    model.to(device=device, memory_format=channels_last)  # type: ignore[call-overload]
    optimizer = build_optimizer(recipe, model.parameters())

    dataset = load_dataset(config.dataset, config.data.root, config.data.download)
    split = make_split(
        dataset.train.labels.numpy(),
        dataset.test.labels.numpy(),
        val_fraction=config.protocol.val_fraction,
        seed=config.protocol.split_seed,
        limit=config.data.limit,
    )

    def batches(part: str, batch_size: int) -> Batches:
        return Batches(
            dataset.test if part == "test" else dataset.train,
            getattr(split, part),
            batch_size=batch_size,
            mean=mean,
            std=std,
            device=device,
            channels_last=config.runtime.channels_last,
        )

    test = batches("test", recipe.eval_batch_size)
    select_on = config.protocol.select_on
    trainer = Trainer(
        model=model,
        optimizer=optimizer,
        lr_rule=lr_rule,
        recipe=recipe,
        train=batches("train", recipe.batch_size),
        select=test if select_on == "test" else batches("val", recipe.eval_batch_size),
        select_on=select_on,
        augmentations=augmentations,
        autocast=autocast(device, config.runtime.precision),
        seed=config.seed,
    )
    if head_normalises(model.head) and trainer.train.num_images % recipe.batch_size == 1:
        raise UserError(
            f"the last of the batches of {recipe.batch_size} would hold a single image, which "
            f"batch norm cannot train on; use another recipe.batch_size"
        )
    about = {**_describe_data(dataset, split), "normalisation": {"mean": mean, "std": std}}
    return _Setup(trainer, test, counts, model.weights, about)


def normalisation(
    recipe: RecipeConfig, backbone: torch.nn.Module
) -> tuple[list[float], list[float]]:
    """The recipe's mean and std, or those that the backbone's weights expect (Q18).

    Raises:
        UserError: where neither gives any.
    """
    if recipe.mean is not None and recipe.std is not None:
        return recipe.mean, recipe.std
    if not hasattr(backbone, "mean"):
        raise UserError(
            "this model's weights expect no normalisation of their own; give recipe.mean and "
            "recipe.std, e.g. recipe.mean=[0.5] recipe.std=[0.5]"
        )
    return list(backbone.mean), list(backbone.std)  # type: ignore[arg-type]


def head_normalises(head: torch.nn.Module) -> bool:
    """Whether a head holds batch norm over feature vectors."""
    return any(isinstance(module, torch.nn.BatchNorm1d) for module in head.modules())


def _describe_data(dataset: Dataset, split: Split) -> dict[str, Any]:
    """What a record says of the data: versions, sizes and images that stand on both sides."""
    train, test = dataset.train.images.numpy(), dataset.test.images.numpy()
    return {
        "train_hash": content_hash(train, dataset.train.labels.numpy()),
        "test_hash": content_hash(test, dataset.test.labels.numpy()),
        "split_hash": split.hash,
        "sizes": split.sizes(),
        "test_images_also_in_train": num_shared(train[split.train], test[split.test]),
        "val_images_also_in_train": num_shared(train[split.train], train[split.val]),
    }


def _train(config: Config, folder: Path, setup: _Setup, device: torch.device) -> dict[str, Any]:
    """Fit, evaluate and write the record."""
    trainer, epochs = setup.trainer, config.recipe.epochs
    state = load_checkpoint(folder, trainer.model, trainer.optimizer) or State(config.recipe.lr)
    progress = Progress(
        folder / "log.txt",
        config.runtime.progress,
        epochs=epochs,
        done=state.epoch,
        images=trainer.train.num_images,
        select_on=trainer.select_on,
    )
    with progress:
        for line in _opening(config, folder, setup, state, device):
            progress.say(line)
        write_status(folder, "running", epochs=f"{state.epoch}/{epochs}")

        def on_epoch(state: State, is_best: bool) -> None:
            save_checkpoint(folder, trainer.model, trainer.optimizer, state, is_best)
            write_atomic(folder / "metrics.csv", _metrics_csv(state))
            write_status(folder, "running", epochs=f"{state.epoch}/{epochs}")
            progress.on_epoch(state)

        fit(trainer, state, on_epoch, progress.on_batch)
        last = evaluate(trainer.model, setup.test, trainer.autocast)
        load_best(folder, state, trainer.model)
        selected = evaluate(trainer.model, setup.test, trainer.autocast)
        _check_reload(state, selected)
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            last=last.predictions.numpy().astype(np.int16),
            selected=selected.predictions.numpy().astype(np.int16),
        )
        write_atomic(folder / "predictions.npz", buffer.getvalue())
        finish(folder, state)
        record = _record(config, setup, state, last, selected, device)
        path = write_record(folder, record)
        write_status(folder, "done", epochs=f"{epochs}/{epochs}")
        for line in summary(record, path):
            progress.say(line)
    return read_record(path)


def _check_reload(state: State, selected: Evaluation) -> None:
    """The best weights, read back, must give the accuracy they were chosen for."""
    entry = state.history[state.best_epoch - 1]
    if "test_correct" in entry:
        assert entry["test_correct"] == selected.correct, (entry, selected.correct)


def _record(
    config: Config,
    setup: _Setup,
    state: State,
    last: Evaluation,
    selected: Evaluation,
    device: torch.device,
) -> dict[str, Any]:
    """The record of a finished run; accuracies are shares in [0, 1]."""

    def accuracy(evaluation: Evaluation) -> dict[str, Any]:
        low, high = binomial_interval(evaluation.correct, evaluation.count)
        return {
            "accuracy": evaluation.accuracy,
            "correct": evaluation.correct,
            "count": evaluation.count,
            "loss": evaluation.loss,
            "interval_95": [low, high],
        }

    select_on = config.protocol.select_on
    trained = sum(entry["train_seconds"] for entry in state.timing)
    record = {
        "run": "/".join(config.run_dir.parts[-3:]),
        "config": config.portable().to_dict(),
        "identity": config.identity(),
        "seed": config.seed,
        "streams": {stream: stream_seed(config.seed, stream) for stream in STREAMS},
        "environment": describe_environment(device),
        "git": git_revision(),
        "finished": time.strftime("%FT%TZ", time.gmtime()),
        "data": setup.data,
        "counts": setup.counts.to_dict(),
        "pretrained": None if setup.weights is None else dataclasses.asdict(setup.weights),
        "reduced_budget": config.reduced_budget,
        "selection": {
            "on": select_on,
            "rule": SELECTION_RULES[select_on],
            "epoch": state.best_epoch,
            "accuracy": state.history[state.best_epoch - 1][f"{select_on}_accuracy"],
        },
        "test": {"last": accuracy(last), "selected": accuracy(selected)},
        "history": state.history,
        "timing": state.timing,
        "wall_seconds": trained + sum(entry["eval_seconds"] for entry in state.timing),
        "images_per_second": setup.trainer.train.num_images * len(state.timing) / trained,
    }
    if select_on == "test":
        best = max(entry["test_accuracy"] for entry in state.history)
        record["test"]["best_on_test"] = {"accuracy": best}
    return record


def _metrics_csv(state: State) -> str:
    """The history and timing as CSV, one row an epoch."""
    text = io.StringIO()
    rows = [{**h, **t} for h, t in zip(state.history, state.timing, strict=True)]
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _opening(
    config: Config, folder: Path, setup: _Setup, state: State, device: torch.device
) -> list[str]:
    """What is said before training."""
    counts, sizes = setup.counts, setup.data["sizes"]
    lines = [
        f"{config.dataset.title}, model {config.model.label}, head {config.head.name}, "
        f"recipe {config.recipe.name}, seed {config.seed}, "
        f"{device.type} {config.runtime.precision}",
        f"protocol {config.protocol.name}: {SELECTION_RULES[config.protocol.select_on]}",
        f"images: {sizes['train']:,} train, {sizes['val']:,} val, {sizes['test']:,} test",
        f"parameters: {counts.body_parameters:,} body + {counts.head_parameters:,} head = "
        f"{counts.total_parameters:,}; multiplications: {counts.head_multiplications:,} in the "
        f"head, {counts.total_multiplications:,} in all; "
        f"{counts.head_activations:,} hidden units in the head",
    ]
    if setup.weights is not None:
        lines.append(str(setup.weights))
    if config.reduced_budget:
        lines.append(f"REDUCED BUDGET: {', '.join(config.reduced_budget)}")
    if config.runtime.precision == "bf16" and not has_bf16(device):
        lines.append("this processor has no bf16 arithmetic: PyTorch emulates it, far below fp32")
    if state.epoch:
        lines.append(f"continuing after epoch {state.epoch} from {folder}")
    return lines


def summary(record: dict[str, Any], path: Path) -> list[str]:
    """What is said of a finished run."""
    selected, last, selection = (
        record["test"]["selected"],
        record["test"]["last"],
        record["selection"],
    )
    low, high = selected["interval_95"]
    paper = " (BEST ON TEST)" if selection["on"] == "test" else ""
    lines = [
        f"test accuracy {100 * selected['accuracy']:.2f} %{paper}, 95 % interval "
        f"{100 * low:.2f} to {100 * high:.2f} ({selected['correct']:,} of {selected['count']:,}), "
        f"epoch {selection['epoch']} of {len(record['history'])} selected on {selection['on']}; "
        f"last epoch {100 * last['accuracy']:.2f} %",
        f"{record['counts']['total_parameters']:,} parameters, "
        f"{record['counts']['head_parameters']:,} in the head; "
        f"{clock(record['wall_seconds'])} at {record['images_per_second']:,.0f} images/s",
    ]
    if record["reduced_budget"]:
        lines.append(f"REDUCED BUDGET: {', '.join(record['reduced_budget'])}")
    return [*lines, f"record: {path}"]
