"""Outputs of a run: its record and other files, and the lines that it prints."""

import csv
import dataclasses
import io
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from omegaconf import OmegaConf
from safetensors.torch import save
from torch import Tensor

from spinal_repro.config.schema import Config, ProtocolConfig
from spinal_repro.io import clock, write_atomic
from spinal_repro.records.correctness import pack_correct
from spinal_repro.records.provenance import describe_environment, git_revision
from spinal_repro.records.record import (
    CONFIG_VERSION,
    Accuracy,
    Highest,
    Record,
    Selection,
    TestResult,
)
from spinal_repro.records.statistics import binomial_interval
from spinal_repro.seeds import STREAMS, stream_seed
from spinal_repro.training.device import has_bf16
from spinal_repro.training.engine import Evaluation, State
from spinal_repro.training.setup import Setup

BEST = "best.safetensors"
SELECTION_RULES = {
    "val": "highest accuracy on the validation part, first on ties",
    "test": "highest accuracy on the TEST set, first on ties (best-on-test, as published)",
}


def selection_rule(protocol: ProtocolConfig, test: bool = True) -> str:
    """Describe how the epoch is selected and how the test set is used."""
    rule = SELECTION_RULES[protocol.select_on]
    if protocol.select_on == "test":
        return rule
    if not test:
        return f"{rule}; test not used"
    read = "test watched each epoch, deciding nothing"
    return f"{rule}; {read if protocol.watch_test else 'test read once, after training'}"


def build_record(
    config: Config, setup: Setup, tested: tuple[Evaluation, Evaluation] | None
) -> Record:
    """Build the record of a finished run.

    Args:
        tested: Evaluations of the last and the selected weights on the test split; None without.
    """
    state, select_on = setup.run.state, config.protocol.select_on
    result = None
    if tested is not None:
        last, selected = (_accuracy(evaluation, setup) for evaluation in tested)
        watched = select_on == "test" or config.protocol.watch_test
        best = max(entry["test_accuracy"] for entry in state.history) if watched else 0.0
        result = TestResult(last, selected, Highest(best) if watched else None)
    train_seconds = sum(entry["train_seconds"] for entry in state.timing)
    return Record(
        run="/".join(config.run_dir.parts[-3:]),
        config=config.portable().to_dict(),
        identity=config.identity(),
        seed=config.seed,
        streams={stream: stream_seed(config.seed, stream) for stream in STREAMS},
        environment=describe_environment(setup.run.train.device),
        git=git_revision(),
        finished=time.strftime("%FT%TZ", time.gmtime()),
        data=setup.data,
        counts=setup.counts.to_dict(),
        pretrained=None if setup.weights is None else dataclasses.asdict(setup.weights),
        reduced_budget=config.reduced_budget,
        selection=Selection(
            on="test" if select_on == "test" else "val",
            rule=selection_rule(config.protocol, config.data.test),
            epoch=state.best_epoch,
            accuracy=state.history[state.best_epoch - 1][f"{select_on}_accuracy"],
        ),
        test=result,
        history=state.history,
        timing=state.timing,
        wall_seconds=train_seconds + sum(entry["eval_seconds"] for entry in state.timing),
        images_per_second=setup.run.train.num_images * len(state.timing) / train_seconds,
    )


def _accuracy(evaluation: Evaluation, setup: Setup) -> Accuracy:
    assert setup.test is not None
    right = evaluation.predictions == setup.test.labels.cpu()
    return Accuracy(
        accuracy=evaluation.accuracy,
        correct=evaluation.correct,
        count=evaluation.count,
        loss=evaluation.loss,
        interval_95=list(binomial_interval(evaluation.correct, evaluation.count)),
        correct_bits=pack_correct(right.numpy()),
    )


def metrics_csv(state: State) -> str:
    """Write history and timing as CSV, one row per epoch."""
    text = io.StringIO()
    rows = [{**h, **t} for h, t in zip(state.history, state.timing, strict=True)]
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write_config(config: Config, folder: Path) -> None:
    """Write ``config.yaml``."""
    stored = {"schema_version": CONFIG_VERSION, **config.to_dict()}
    text = OmegaConf.to_yaml(OmegaConf.create(stored))
    write_atomic(folder / "config.yaml", text)


def write_weights(folder: Path, weights: Mapping[str, Tensor]) -> None:
    """Write the best weights as ``best.safetensors``."""
    content = {name: tensor.cpu().contiguous() for name, tensor in weights.items()}
    write_atomic(folder / BEST, save(content))


def write_predictions(folder: Path, last: Evaluation, selected: Evaluation) -> None:
    """Write the predicted class of each test image, after the last and the selected epoch."""
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        last=last.predictions.numpy().astype(np.int16),
        selected=selected.predictions.numpy().astype(np.int16),
    )
    write_atomic(folder / "predictions.npz", buffer.getvalue())


def header_lines(config: Config, folder: Path, setup: Setup) -> list[str]:
    """Lines that are printed before training."""
    counts, sizes, epoch = setup.counts, setup.data["sizes"], setup.run.state.epoch
    device, precision = setup.run.train.device, config.runtime.precision
    lines = [
        f"{config.dataset.title}, model {config.model.label}, head {config.head.name}, "
        f"recipe {config.recipe.name}, seed {config.seed}, {device.type} {precision}",
        f"protocol {config.protocol.name}: {selection_rule(config.protocol, config.data.test)}",
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
    if precision == "bf16" and not has_bf16(device):
        lines.append(
            f"this {'GPU' if device.type == 'cuda' else 'CPU'} has no bf16 instructions: PyTorch "
            f"emulates them, more slowly than fp32"
        )
    if epoch:
        lines.append(f"resuming after epoch {epoch} from {folder}")
    return lines


def _accuracies(record: Record) -> str:
    selection, test = record.selection, record.test
    chosen = f"epoch {selection.epoch} of {len(record.history)} selected on {selection.on}"
    if test is None:
        return f"validation accuracy {100 * selection.accuracy:.2f} %, {chosen}; test not used"
    selected = test.selected
    low, high = selected.interval_95
    paper = " (BEST ON TEST)" if selection.on == "test" else ""
    return (
        f"test accuracy {100 * selected.accuracy:.2f} %{paper}, 95 % interval "
        f"{100 * low:.2f} to {100 * high:.2f} ({selected.correct:,} of {selected.count:,}), "
        f"{chosen}; last epoch {100 * test.last.accuracy:.2f} %"
    )


def summary(record: Record, path: Path) -> list[str]:
    """Lines printed about a finished run."""
    lines = [
        _accuracies(record),
        f"{record.counts['total_parameters']:,} parameters, "
        f"{record.counts['head_parameters']:,} in the head; "
        f"{clock(record.wall_seconds)} at {record.images_per_second:,.0f} images/s",
    ]
    if record.reduced_budget:
        lines.append(f"REDUCED BUDGET: {', '.join(record.reduced_budget)}")
    return [*lines, f"record: {path}"]
