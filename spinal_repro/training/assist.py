"""What all processes of a run do alike, and what those do that leave writing to the first."""

from collections.abc import Callable
from pathlib import Path

from spinal_repro.training.checkpoint import Loaded, load_best, load_checkpoint
from spinal_repro.training.ending import Saver
from spinal_repro.training.evaluation import Evaluation
from spinal_repro.training.loop import State, evaluate_checked, fit
from spinal_repro.training.report import Setup


def continued(folder: Path, setup: Setup) -> tuple[State, Loaded | None]:
    """Where a run stands, and the checkpoint that says so; model and optimizer are put there.

    Raises:
        UserError: where the checkpoints cannot be read, processes do not see the same one, or the
            images or pretrained weights are others than those that the run began with.
    """
    trainer = setup.trainer
    loaded = load_checkpoint(folder, trainer, setup.made_of)
    state = State(trainer.recipe.lr) if loaded is None else loaded.state
    state.made_of = setup.made_of
    partway, ranks = state.partway, trainer.ranks
    ranks.agreed((state.epoch, partway and partway.step), f"how far {folder} is")
    if partway is not None and not ranks.first:  # the first goes on with the sums so far
        partway.losses.zero_()
        partway.correct.zero_()
        partway.random = {}
    return state, loaded


def test_both(
    folder: Path, setup: Setup, state: State, look: Callable[[], None] = lambda: None
) -> tuple[Evaluation, Evaluation] | None:
    """The test set with the last and with the best weights, which the model has afterwards.

    Returns:
        Both; None for a run that does not read the test set.

    Raises:
        NonFiniteLossError: where a loss is not finite; the model has the weights that gave it.
    """
    trainer, test = setup.trainer, setup.test
    if test is None:
        return None

    def final(epoch: int, which: str) -> Evaluation:
        name = f"the final test of the {which} weights (epoch {epoch})"
        return evaluate_checked(trainer, test, "test", epoch, name, look)

    last = final(state.epoch, "last")
    load_best(folder, state, trainer.model)
    selected = final(state.best_epoch, "best")
    _check_reload(state, selected)
    trainer.ranks.wait()  # all have read the best weights, which get their final name now
    return last, selected


def assist(folder: Path, setup: Setup, saver: Saver) -> None:
    """What every process but the first does: its share of the work, and nothing on disk.

    It comes to the same sums over processes, and the same waiting, as the first one does.
    """
    trainer = setup.trainer
    state, _ = continued(folder, setup)

    def on_epoch(state: State, is_best: bool) -> None:
        if is_best:
            state.best_sha256 = ""  # of the file before; the first process alone knows this one's
        saver.stop_here(state)

    def reload_best(state: State) -> None:
        load_best(folder, state, trainer.model)

    saver.stop.deferred = True
    fit(trainer, state, on_epoch, lambda *_: False, reload_best)
    test_both(folder, setup, state)


def _check_reload(state: State, selected: Evaluation) -> None:
    """The best weights, read back, must give the accuracy they were chosen for."""
    entry = state.history[state.best_epoch - 1]
    if "test_correct" in entry:
        assert entry["test_correct"] == selected.correct, (entry, selected.correct)
