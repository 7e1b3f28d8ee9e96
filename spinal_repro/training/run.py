"""One run from its configuration to its record."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from spinal_repro.data.augment import build_augmentations
from spinal_repro.data.folder import counted
from spinal_repro.data.loader import Batches
from spinal_repro.data.prepare import batches_of, split_dataset
from spinal_repro.data.sources import load_dataset
from spinal_repro.environment import autocast, backend_settings, compile_model, resolve_device
from spinal_repro.errors import UserError
from spinal_repro.files import write_atomic
from spinal_repro.heads import HEADS
from spinal_repro.memory import keep_freed_memory
from spinal_repro.model import build_model, count
from spinal_repro.records import RECORD, describe, read_record, write_record, write_status
from spinal_repro.schema import Config, RecipeConfig
from spinal_repro.trackers import Tracking, check_tracker
from spinal_repro.training import distributed
from spinal_repro.training.assist import assist, continued, test_both
from spinal_repro.training.checkpoint import BestWeights, finish, save_checkpoint, tidy
from spinal_repro.training.distributed import ALONE, Ranks
from spinal_repro.training.ending import Saver, explain, warnings
from spinal_repro.training.lock import RunLock
from spinal_repro.training.loop import State, Trainer, fit
from spinal_repro.training.optim import LR_RULES, build_optimizer
from spinal_repro.training.progress import Progress
from spinal_repro.training.report import (
    Setup,
    build_record,
    describe_data,
    metrics_csv,
    opening,
    summary,
    write_config,
    write_predictions,
)
from spinal_repro.training.selfcheck import self_check
from spinal_repro.training.stop import AT_ONCE, Stop
from spinal_repro.training.threads import begun_with, fastest_threads, settle_threads, with_threads


@dataclass(frozen=True)
class Outcome:
    """What came of a run: its folder, its record and whether it had been finished before."""

    folder: Path
    record: dict[str, Any]
    was_done: bool


def run(
    config: Config,
    deadline: float | None = None,
    on_epoch: Callable[[State], float | None] | None = None,
) -> Outcome:
    """Train one configuration, or continue it, or report it if it is finished.

    Under ``torchrun`` every process calls this, and all have the same outcome.

    Args:
        config: What to run.
        deadline: When to stop with a checkpoint, as `time.monotonic` counts; None for never.
        on_epoch: Called after each epoch; returns the deadline from then on.

    Raises:
        UserError: for anything in configuration, data or folder that the user can mend.
        Interrupted: where it was stopped, by a signal or at the deadline, and has saved.
    """
    with Stop(deadline, on_epoch) as stop:
        device = distributed.own_device(resolve_device(config.runtime.device))
        with distributed.joined(device) as ranks:
            return _run(resolved(config), device, ranks, stop)


def _run(config: Config, device: torch.device, ranks: Ranks, stop: Stop) -> Outcome:
    folder = config.run_dir
    if ranks.agreed((folder / RECORD).is_file(), f"whether {folder} is finished"):
        tidy(folder)  # a kill may have come between
        return Outcome(folder, read_record(folder / RECORD), was_done=True)
    keep_freed_memory()
    config = settle_threads(config, folder)
    check_tracker(config.tracker)
    with (
        backend_settings(device, config.runtime.precision, config.runtime.deterministic),
        RunLock(folder, ranks.first) as lock,
    ):
        try:
            with ranks.together():
                if lock.held:
                    write_status(folder, "running", epochs=describe(folder).get("epochs", ""))
                with ranks.first_goes_first():  # what is missing is downloaded and decoded once
                    setup = _prepare(config, device, ranks)
                    if config.runtime.threads == "auto":
                        config = with_threads(config, fastest_threads(setup.trainer))
                    lock.take()
                if any(ranks.gathered((folder / RECORD).is_file())):  # finished by others meanwhile
                    return Outcome(folder, read_record(folder / RECORD), was_done=True)
                saver = Saver(stop, config.runtime.save_every, ranks)
                if ranks.first:
                    _train(config, folder, setup, device, saver, lock)
                else:
                    assist(folder, setup, saver)
                ranks.wait()
        except BaseException as error:
            said = explain(stop.meant(error), folder, lock, config.runtime.deterministic)
            if said is error:
                raise
            raise said from error
    return Outcome(folder, read_record(folder / RECORD), was_done=False)


def resolved(config: Config) -> Config:
    """The same with device, precision and classes as they are here, and typed options.

    The identity of a run is that of its resolved configuration.

    Raises:
        UserError: for a device, a head or a folder of images that is not there, or a precision
            that the device does not have.
    """
    device = resolve_device(config.runtime.device)
    typed = HEADS.check(config.head.name, config.head.options)
    options = {key: typed[key] for key in config.head.options}  # dropout 0 and 0.0 are one run
    return dataclasses.replace(
        config,
        dataset=counted(config.dataset, Path(config.data.root)),
        runtime=config.runtime.on(device.type),
        head=dataclasses.replace(config.head, options=options),
    )


def _prepare(config: Config, device: torch.device, ranks: Ranks = ALONE) -> Setup:
    """Build model, data and optimizer: whatever is wrong shows here, before training."""
    recipe = config.recipe
    model = build_model(
        config.dataset,
        config.model,
        config.head,
        config.seed,
        image_size=config.input_size,
        data_root=config.data.root,
    )
    counts = count(model, config.dataset.channels, config.input_size)
    rule = dict(recipe.lr_rule)
    lr_rule = LR_RULES.build(str(rule.pop("name", "")), rule)
    augmentations = build_augmentations(recipe.augment)
    mean, std = normalisation(recipe, model.backbone)
    channels_last = torch.channels_last if config.runtime.channels_last else torch.preserve_format
    model.to(device=device, memory_format=channels_last)  # type: ignore[call-overload]
    optimizer = build_optimizer(recipe, model.parameters())
    if config.runtime.compile:
        compile_model(model, device)

    data = config.data
    dataset = load_dataset(config.dataset, data.root, data.download, data.test)
    split = split_dataset(dataset, config.protocol, config.data.limit)

    def batches(part: str, batch_size: int) -> Batches:
        return batches_of(
            dataset,
            split,
            part,
            preparation=config.preparation("train" if part == "train" else "eval"),
            runs=Path(config.runs),
            batch_size=batch_size,
            mean=mean,
            std=std,
            device=device,
            channels_last=config.runtime.channels_last,
            share=ranks.share,
        )

    test = batches("test", recipe.eval_batch_size) if data.test else None
    select_on = config.protocol.select_on
    select = batches("val", recipe.eval_batch_size) if select_on == "val" else test
    assert select is not None  # a protocol that selects on the test part reads it
    trainer = Trainer(
        model=model,
        optimizer=optimizer,
        lr_rule=lr_rule,
        recipe=recipe,
        train=batches("train", recipe.batch_size),
        select=select,
        select_on=select_on,
        watch=test if config.protocol.watch_test else None,
        augmentations=augmentations,
        autocast=autocast(device, config.runtime.precision),
        seed=config.seed,
        ranks=ranks,
    )
    ranks.check(config, model, trainer.train)
    size = trainer.train.size
    for augmentation in augmentations:
        size = augmentation.size_after(size)
    if size != config.input_size:
        raise UserError(
            f"recipe {recipe.name} trains on images of {size} px and evaluates on "
            f"{config.input_size} px; see recipe.prepare and recipe.augment"
        )
    if head_normalises(model.head) and trainer.train.num_images % recipe.batch_size == 1:
        raise UserError(
            f"the last of the batches of {recipe.batch_size} would hold a single image, which "
            f"batch norm cannot train on; use another recipe.batch_size"
        )
    about = {
        **describe_data(config.dataset, dataset, split),
        "normalisation": {"mean": mean, "std": std},
    }
    return Setup(trainer, test, counts, model.weights, about)


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


def _train(
    config: Config, folder: Path, setup: Setup, device: torch.device, saver: Saver, lock: RunLock
) -> None:
    """Fit, evaluate and write the record."""
    threads = (begun_with(folder), config.runtime.threads)
    write_config(config, folder)
    trainer, epochs = setup.trainer, config.recipe.epochs
    state, loaded = continued(folder, setup)
    progress = Progress(
        folder / "log.txt",
        config.runtime.progress,
        epochs=epochs,
        done=state.epoch,
        images=trainer.train.num_images,
        select_on=trainer.select_on,
    )
    with progress, Tracking(config, folder, progress.say) as tracking:
        for line in opening(config, folder, setup, state, device):
            progress.say(line)
        for line in warnings(folder, loaded, lock, threads):
            progress.warn(line)
        if checked := self_check(config, trainer.model, device):
            progress.say(checked)
        if state.partway is not None:
            progress.on_batch(state.partway.step * config.recipe.batch_size, None)
        write_status(folder, "running", epochs=f"{state.epoch}/{epochs}")

        best = BestWeights(folder, trainer.model)

        def checkpoint(state: State) -> None:
            lock.check()
            save_checkpoint(folder, trainer.model, trainer.optimizer, state, best.unsaved)
            best.unsaved = {}
            write_atomic(folder / "metrics.csv", metrics_csv(state))
            write_status(folder, "running", epochs=f"{state.epoch}/{epochs}")
            saver.saved()

        def on_epoch(state: State, is_best: bool) -> None:
            if is_best:
                best.keep()
            progress.on_epoch(state)
            saver.stop.epoch_ended(state)
            due = state.epoch == epochs or saver.due_after_epoch()
            if due:
                checkpoint(state)
            tracking.on_epoch(state.history, state.timing)
            if due:  # only after a checkpoint, so that no epoch is lost
                saver.stop_here(state)

        def on_batch(count: int, running: dict[str, float] | None) -> bool:
            progress.on_batch(count, running)
            return saver.due()

        def save(state: State) -> None:
            if asked := saver.stop.signalled:
                progress.warn(f"{asked}: saving; one more, after {AT_ONCE:g} s, ends this at once")
            checkpoint(state)
            saver.stop_here(state)

        def look() -> None:
            if saver.due():
                saver.stop_here(state)

        saver.stop.deferred = True
        fit(trainer, state, on_epoch, on_batch, best.load, save)
        tested = test_both(folder, setup, state, look)
        lock.check()
        if tested is not None:
            write_predictions(folder, *tested)
        write_atomic(folder / "metrics.csv", metrics_csv(state))  # a kill may have spared it
        finish(folder, state)
        record = build_record(config, setup, state, tested, device)
        path = write_record(folder, record)
        tidy(folder)
        tracking.finish(record, path)
        write_status(folder, "done", epochs=f"{epochs}/{epochs}")
        for line in summary(record, path):
            progress.say(line)
