"""Outputs of a run: its record and other files, and the lines that it prints."""

import dataclasses
import io
import time
from contextlib import suppress
from pathlib import Path
from textwrap import shorten

import numpy as np
import pandas as pd
from omegaconf import OmegaConf
from safetensors.torch import save

from spinal_repro.config.schema import Config, ProtocolConfig
from spinal_repro.data.folder import describe_left_out
from spinal_repro.errors import UserError
from spinal_repro.io import clock, printable, read_yaml, write_atomic
from spinal_repro.records import plots
from spinal_repro.records.correctness import pack_correct
from spinal_repro.records.metrics import TITLES, compute, count_confusion, describe_metrics
from spinal_repro.records.provenance import describe_environment, git_revision
from spinal_repro.records.record import (
    CONFIG_VERSION,
    Accuracy,
    Highest,
    Record,
    Selection,
    TestResult,
    class_names,
)
from spinal_repro.records.statistics import binomial_interval
from spinal_repro.seeds import STREAMS, stream_seed
from spinal_repro.training.device import has_bf16
from spinal_repro.training.engine import State
from spinal_repro.training.evaluation import Evaluation
from spinal_repro.training.setup import Setup

SELECTION_RULES = {
    "val": "highest {} on the validation part, first on ties",
    "test": "highest {} on the TEST set, first on ties (best-on-test, as published)",
}
Tested = tuple[Evaluation, Evaluation]  # the last and the best weights, on the test split


def selection_rule(protocol: ProtocolConfig, test: bool = True) -> str:
    """Describe how the epoch is selected and how the test set is used."""
    rule = SELECTION_RULES[protocol.select_on].format(protocol.select_metric)
    use = "test read once, after training"
    if protocol.watch_test:
        use = "test watched each epoch, deciding nothing"
    if protocol.select_on == "val":
        rule += f"; {use if test else 'test not used'}"
    if protocol.folds:
        rule += (
            f"; test is fold {protocol.fold} (from 0) of {protocol.folds} of all images: runs of "
            f"other folds share training images, so that their results are not independent"
        )
    return rule


def build_record(config: Config, setup: Setup, tested: Tested | None) -> Record:
    """Build the record of a finished run; ``tested`` is None without a test split."""
    run, state, select_on = setup.run, setup.run.state, config.protocol.select_on
    result = None
    if tested is not None:
        last, selected = (_accuracy(evaluation) for evaluation in tested)
        watched = select_on == "test" or config.protocol.watch_test
        best = max(entry["test_accuracy"] for entry in state.history) if watched else 0.0
        result = TestResult(last, selected, Highest(best) if watched else None)
    train_seconds = sum(entry["train_seconds"] for entry in state.timing)
    weights = run.model.weights
    return Record(
        run="/".join(config.run_dir.parts[-3:]),
        config=config.portable().to_dict(),
        identity=config.identity(),
        seed=config.seed,
        streams={stream: stream_seed(config.seed, stream) for stream in STREAMS},
        environment=describe_environment(run.train.device),
        git=git_revision(),
        finished=time.strftime("%FT%TZ", time.gmtime()),
        data=setup.data,
        counts=setup.counts,
        pretrained=None if weights is None else dataclasses.asdict(weights),
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
        images_per_second=run.train.num_images * len(state.timing) / train_seconds,
    )


def _accuracy(evaluation: Evaluation) -> Accuracy:
    metrics = compute(evaluation.labels, evaluation.probabilities)
    del metrics["accuracy"]
    return Accuracy(
        accuracy=evaluation.accuracy,
        correct=evaluation.correct,
        count=evaluation.count,
        loss=evaluation.loss,
        interval_95=list(binomial_interval(evaluation.correct, evaluation.count)),
        correct_bits=pack_correct(evaluation.predictions.numpy() == evaluation.labels),
        metrics=metrics,
    )


def metrics_csv(state: State) -> str:
    """Write history and timing as CSV, one row per epoch."""
    rows = [h | t for h, t in zip(state.history, state.timing, strict=True)]
    return pd.DataFrame(rows).to_csv(index=False, na_rep="nan", lineterminator="\n")


def write_config(config: Config, folder: Path) -> None:
    """Write ``config.yaml``."""
    stored = {"schema_version": CONFIG_VERSION, **config.to_dict()}
    write_atomic(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(stored)))


def write_results(folder: Path, setup: Setup, tested: Tested | None) -> None:
    """Write the best weights, and predictions and labels of the test images."""
    weights = {name: tensor.cpu().contiguous() for name, tensor in setup.run.best.items()}
    write_atomic(folder / "best.safetensors", save(weights))
    if tested is not None:
        buffer = io.BytesIO()
        last, selected = (found.predictions.numpy().astype(np.int16) for found in tested)
        labels = np.asarray(tested[1].labels, np.int16)
        probabilities = np.asarray(tested[1].probabilities, np.float32)
        np.savez_compressed(
            buffer, last=last, selected=selected, labels=labels, probabilities=probabilities
        )
        write_atomic(folder / "predictions.npz", buffer.getvalue())


def draw_plots(config: Config, folder: Path, setup: Setup, tested: Tested | None) -> None:
    """Draw ``curves.png`` and, with a test split, ``confusion.png``."""
    title = f"{'/'.join(config.run_dir.parts[-3:])}, seed {config.seed}"
    plots.draw_curves(setup.run.state.history, title, folder / plots.CURVES)
    if tested is not None:
        found, classes = tested[1], class_names(setup.data, config.dataset.outputs)
        counts = count_confusion(found.labels, found.predictions.numpy(), len(classes))
        title = f"{config.dataset.title}, test"
        plots.draw_confusion(counts, classes, title, folder / plots.CONFUSION)


def header_lines(config: Config, folder: Path, setup: Setup) -> list[str]:
    """Lines that are printed before training; ``folder`` has the checkpoint."""
    run, sizes = setup.run, setup.data["sizes"]
    device, precision = run.train.device.type, config.runtime.precision
    graph = ", steps as a CUDA graph" if config.runtime.graph == "auto" else ""
    lines = [
        f"{config.dataset.title}, model {config.model.label}, head {config.head.name}, "
        f"recipe {config.recipe.name}, seed {config.seed}, {device} {precision}{graph}",
        f"protocol {config.protocol.name}: {selection_rule(config.protocol, config.data.test)}",
        f"images: {sizes['train']:,} train, {sizes['val']:,} val, {sizes['test']:,} test; input "
        f"{config.dataset.channels} x {config.input_size} x {config.input_size}",
        *data_lines(config, folder, setup),
        "parameters: {body_parameters:,} body + {head_parameters:,} head = {total_parameters:,}; "
        "multiplications: {head_multiplications:,} in the head, {total_multiplications:,} in all; "
        "{head_activations:,} hidden units in the head".format(**setup.counts),
    ]
    if run.model.weights is not None:
        lines.append(str(run.model.weights))
    if config.reduced_budget:
        lines.append(f"REDUCED BUDGET: {', '.join(config.reduced_budget)}")
    if precision == "bf16" and not has_bf16(run.train.device):
        lines.append(
            f"this {'GPU' if device == 'cuda' else 'CPU'} has no bf16 instructions: PyTorch "
            f"emulates them, more slowly than fp32"
        )
    if run.state.epoch:
        own = folder == config.run_dir
        line = "resuming after epoch {} from {}" if own else "continuing the {} epochs of {}"
        lines.append(line.format(run.state.epoch, folder))
    return lines


def data_lines(config: Config, folder: Path, setup: Setup) -> list[str]:
    """Lines about the classes, and about anything that is unusual in the data."""
    train, data = setup.run.train, setup.data
    classes, (_, counts) = config.dataset.num_classes or 0, train.labels.unique(return_counts=True)
    fewest = int(counts.min()) if len(counts) >= classes else 0
    names = shorten(", ".join(data["classes"]), 80, placeholder=" ...")
    lines = [
        f"{classes:,} classes{f' ({printable(names)})' * bool(names)}: "
        f"{fewest:,} to {int(counts.max()):,} training images each"
    ]
    if left_out := describe_left_out(setup.left_out):
        lines.append(left_out)
    for part in ("test", "val"):
        if shared := data[f"{part}_images_also_in_train"]:
            lines.append(f"warning: {part} images that are also training images: {shared:,}")
    if (largest := max(train.sizes)) > train.batch_size:
        joined = "the last image of an epoch joins the batch before it"
        lines.append(f"{joined}, which has {largest} images")
    return lines + changed_inputs(config, folder)


def changed_inputs(config: Config, folder: Path) -> list[str]:
    """Name the inputs that differ from those of the last run of the same settings."""
    plain, inputs = config.to_dict(), config.data.inputs
    found = folder.parents[1].glob(f"*/{folder.name}/config.yaml") if inputs else ()
    for path in sorted(found, key=lambda path: path.stat().st_mtime, reverse=True):
        with suppress(UserError, KeyError, TypeError):  # a damaged file affects no other run
            earlier = read_yaml(path)
            changed = [n for n, hash in inputs.items() if earlier["data"]["inputs"][n] != hash]
            same = all(earlier[k] == plain[k] for k in ("model", "head", "recipe", "protocol"))
            if changed and same:
                others = " and ".join(changed).replace("images", "images, labels or classes")
                return [f"a new run: other {others} than in {path.parent}"]
    return []


def summary(record: Record, path: Path) -> list[str]:
    """Lines printed about a finished run; the first has its accuracy."""
    on, test = record.selection.on, record.test
    chosen = f"epoch {record.selection.epoch} of {len(record.history)} selected on {on}"
    if (metric := record.config["protocol"].get("select_metric", "accuracy")) != "accuracy":
        value = record.history[record.selection.epoch - 1][f"{on}_{metric}"]
        chosen += f" by {TITLES[metric]} {value:.4f}"
    if test is None:
        accuracy = 100 * record.selection.accuracy
        first = f"validation accuracy {accuracy:.2f} %, {chosen}; test not used"
    else:
        found, paper = test.selected, " (BEST ON TEST)" if on == "test" else ""
        low, high = found.interval_95
        first = (
            f"test accuracy {100 * found.accuracy:.2f} %{paper}, 95 % interval "
            f"{100 * low:.2f} to {100 * high:.2f} ({found.correct:,} of {found.count:,}), "
            f"{chosen}; last epoch {100 * test.last.accuracy:.2f} %"
        )
    counts, speed = record.counts, f"{record.images_per_second:,.0f} images/s"
    lines = [
        first,
        f"{counts['total_parameters']:,} parameters, {counts['head_parameters']:,} in the head; "
        f"{clock(record.wall_seconds)} at {speed}",
    ]
    if test is not None and test.selected.metrics:
        names = class_names(record.data, 2)
        lines.insert(1, f"test: {printable(describe_metrics(test.selected.metrics, names))}")
    if (done := len(record.history)) < record.epochs:
        lines.append(f"stopped after epoch {done} by recipe.patience")
    if record.reduced_budget:
        lines.append(f"REDUCED BUDGET: {', '.join(record.reduced_budget)}")
    return [*lines, f"record: {path}"]
