"""One run from configuration to record: the files that it leaves, protocols."""

import csv
import dataclasses
import hashlib
import json

import numpy as np
import pytest
import torch
from helpers.variety import small
from safetensors.torch import load_file

from spinal_repro.config.validate import validate
from spinal_repro.data import sources
from spinal_repro.errors import UserError
from spinal_repro.models.classifier import build_model
from spinal_repro.records.check import check_record
from spinal_repro.records.compare import differences
from spinal_repro.records.correctness import unpack_correct
from spinal_repro.records.metrics import compute
from spinal_repro.records.statistics import binomial_interval
from spinal_repro.training.run import run
from spinal_repro.training.setup import build_run


@pytest.mark.parametrize("protocol", ["heldout", "paper"])
def test_what_a_run_leaves(tmp_path, protocol):
    config = small(tmp_path, f"protocol={protocol}", "head=spinal")
    outcome = run(config)
    folder, record = outcome.folder, outcome.record
    assert folder == config.run_dir and not outcome.was_done
    assert {path.name for path in folder.iterdir()} == {
        "config.yaml", "metrics.csv", "record.json", "status.json", "last.pt",
        "best.safetensors", "predictions.npz", "log.txt", ".lock",
    }  # fmt: skip

    assert validate(record.config) == config.portable()  # the record alone says what was run
    assert record.identity == config.identity() == config.portable().identity()
    assert str(tmp_path) not in (folder / "record.json").read_text()
    assert [entry["epoch"] for entry in record.history] == [1, 2, 3]
    with (folder / "metrics.csv").open() as file:
        losses = [float(row["train_loss"]) for row in csv.DictReader(file)]
    assert losses == [entry["train_loss"] for entry in record.history]
    assert json.loads((folder / "status.json").read_text())["state"] == "done"
    assert record.data["classes"] == list("0123456789")
    assert len(record.reduced_budget) == 1 and "96 images" in record.reduced_budget[0]

    # the selection contract
    selection, test = record.selection, record.test
    on, held = {"heldout": ("val", 96), "paper": ("test", 0)}[protocol]
    assert record.data["sizes"] == {"train": 96, "val": held, "test": 96}
    accuracies = [entry[f"{on}_accuracy"] for entry in record.history]
    assert (selection.on, selection.accuracy) == (on, max(accuracies))
    assert selection.epoch == 1 + accuracies.index(max(accuracies))
    if protocol == "paper":
        assert test.best_on_test.accuracy == test.selected.accuracy == max(accuracies)
        assert test.last.accuracy == accuracies[-1]
        assert "BEST ON TEST" in (folder / "log.txt").read_text()
    else:
        assert test.best_on_test is None
        assert not any("test_accuracy" in entry for entry in record.history)
    for found in (test.last, test.selected):
        assert found.accuracy == found.correct / found.count
        assert found.interval_95 == list(binomial_interval(found.correct, found.count))


def test_saved_weights_and_predictions_give_the_recorded_accuracy(tmp_path):
    """Load the safetensors into a fresh model and evaluate by hand."""
    config = small(tmp_path)
    folder, test = (outcome := run(config)).folder, outcome.record.test
    model = build_model(config.dataset, config.model, config.head, seed=99).eval()
    model.load_state_dict(load_file(folder / "best.safetensors"))
    batches = build_run(config, torch.device("cpu")).test
    with torch.inference_mode():
        predicted = torch.cat([model(images).argmax(1) for images, _ in batches.in_order()])
    kept = np.load(folder / "predictions.npz")
    assert np.array_equal(kept["selected"], predicted.numpy())
    for part, entry in {"last": test.last, "selected": test.selected}.items():
        right = kept[part] == batches.labels.numpy()
        assert int(right.sum()) == entry.correct
        assert np.array_equal(unpack_correct(entry.correct_bits, entry.count), right)
    assert np.array_equal(kept["labels"], batches.labels.numpy())
    assert kept["probabilities"].shape == (96, 10) and kept["probabilities"].dtype == np.float32
    found = compute(kept["labels"], kept["probabilities"])
    assert found.pop("accuracy") == test.selected.accuracy
    assert found == pytest.approx(test.selected.metrics)


def test_a_run_selected_by_another_metric(tmp_path):
    config = small(tmp_path, "head=spinal", "protocol.select_metric=macro_f1")
    folder, record = (outcome := run(config)).folder, outcome.record
    scores = [entry["val_macro_f1"] for entry in record.history]
    selection = record.selection
    assert selection.epoch == 1 + scores.index(max(scores))
    assert selection.accuracy == record.history[selection.epoch - 1]["val_accuracy"]
    assert selection.rule.startswith("highest macro_f1 on the validation part")
    log = (folder / "log.txt").read_text()
    assert f"macro F1 {scores[0]:.4f} (best in" in log and "selected on val by macro F1" in log
    assert check_record(record, lambda _: record.counts) == []
    other = 1 + scores.index(min(scores))
    wrong = dataclasses.replace(record, selection=dataclasses.replace(selection, epoch=other))
    assert f"epoch {selection.epoch} is the best" in check_record(wrong, lambda _: record.counts)[0]
    assert small(tmp_path, "head=spinal").run_dir != folder  # another run
    cell = small(tmp_path, "head=spinal").to_dict()
    assert "protocol.select_metric" in {d.key for d in differences(record.config, cell)}


def test_heldout_never_looks_at_the_test_set_while_training(tmp_path, monkeypatch):
    """With every test image replaced by noise, training and selection stay the same to the bit."""
    honest = run(small(tmp_path / "honest", "recipe.lr_rule={name: redraw}")).record
    real = sources.SOURCES["digits"]

    def spoiled(config, root, download):
        dataset = real(config, root, download)
        noise = torch.randint(0, 256, dataset.test.images.shape, dtype=torch.uint8)
        test = sources.ImageSet(noise, dataset.test.labels.roll(1))
        return dataclasses.replace(dataset, test=test)

    monkeypatch.setitem(sources.SOURCES._items, "digits", spoiled)
    other = run(small(tmp_path / "spoiled", "recipe.lr_rule={name: redraw}")).record
    assert other.history == honest.history
    assert other.selection == honest.selection
    assert other.test.selected != honest.test.selected
    assert other.data["test_hash"] != honest.data["test_hash"]


def test_watching_the_test_set_changes_nothing_but_what_is_written_down(tmp_path):
    plain = run(small(tmp_path, "head=spinal"))
    config = small(tmp_path, "head=spinal", "protocol.watch_test=true")
    watched = run(config)
    assert watched.folder != plain.folder
    for entry, same in zip(watched.record.history, plain.record.history, strict=True):
        seen = {key: entry.pop(key) for key in ("test_loss", "test_accuracy", "test_correct")}
        assert entry == same
        entry.update(seen)
    history, test, without = watched.record.history, watched.record.test, plain.record.test
    assert (test.last, test.selected) == (without.last, without.selected)
    assert test.last.correct == history[-1]["test_correct"]
    highest = max(entry["test_accuracy"] for entry in history)
    assert test.best_on_test.accuracy == highest >= test.selected.accuracy
    assert without.best_on_test is None
    assert "watched" in watched.record.selection.rule
    assert check_record(watched.record, lambda _: watched.record.counts) == []
    with pytest.raises(UserError, match="watch_test"):
        small(tmp_path, "protocol=paper", "protocol.watch_test=true")


def test_a_finished_run_is_reported_and_left_alone(tmp_path):
    """Settings that change no result, and the way a value is typed, make no other run."""
    first = run(small(tmp_path, "head=spinal", "head.dropout=0.0"))
    stamps = {path: path.stat().st_mtime_ns for path in first.folder.iterdir()}
    other = ("runtime.save_every=5", "runtime.debug=nonfinite", "runtime.deterministic=false")
    again = run(small(tmp_path, "head=spinal", "head.dropout=0", *other))
    assert again.was_done and again.record == first.record
    assert {path: path.stat().st_mtime_ns for path in first.folder.iterdir()} == stamps


def test_a_run_can_start_from_the_weights_of_another(tmp_path):
    cnn = ("model=cnn", "recipe.epochs=1")
    weights = run(small(tmp_path, *cnn)).folder / "best.safetensors"
    record = run(small(tmp_path, *cnn, "head=spinal", f"model.pretrained={weights}")).record
    backbone = [name for name in load_file(weights) if name.startswith("backbone.")]
    assert record.pretrained["matched"] == len(backbone) > 0
    assert record.pretrained["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    plain = run(small(tmp_path, *cnn, "head=spinal"))
    assert record.history[0] != plain.record.history[0]


def test_a_run_keeps_the_number_of_threads_that_it_began_with(tmp_path):
    folder = run(small(tmp_path, "recipe.epochs=1", "runtime.threads=2")).folder
    (folder / "record.json").unlink()
    torch.set_num_threads(1)
    again = run(small(tmp_path, "recipe.epochs=1", "runtime.threads=null"))
    assert again.record.environment["threads"] == 2


def test_batch_norm_and_a_batch_of_one(tmp_path):
    """A single image left over joins the batch before it; a batch size of one is refused."""
    joined = run(small(tmp_path, "model=vgg5", "recipe.batch_size=95", "recipe.epochs=1"))
    assert "has 96 images" in (joined.folder / "log.txt").read_text()
    resnet = ("model=torchvision", "model.name=resnet18", "head=linear", "recipe=sgd")
    for words in (["model=vgg5"], ["head=fc", "head.hidden=[8]", "head.norm=true"], resnet):
        with pytest.raises(UserError, match=r"batch_size=2"):
            run(small(tmp_path / "one", *words, "recipe.batch_size=1"))
    assert not (tmp_path / "one").exists()


def test_a_batch_of_one_is_refused_before_the_first_job_of_a_sweep(call, here):
    ended = call(
        "spinal-train -m dataset=digits model=cnn head=fc head.hidden=[8] head.norm=false,true "
        "recipe.batch_size=1 data.limit=20 recipe.epochs=1"
    )
    assert ended.code == 2 and "head.norm=True" in ended.err and not list(here.iterdir())


@pytest.mark.parametrize(
    "words",
    [  # the last map of the ResNet has one pixel; 33 and 65 images leave one over
        "data.limit=33 model=torchvision model.name=resnet18 head=linear recipe=sgd",
        "-m data.limit=65 model=flatten head=fc,spinal head.norm=true recipe=sgd",
    ],
)
def test_a_single_image_left_over_does_not_end_training(call, here, words):
    more = "recipe.batch_size=16 recipe.epochs=1 recipe.mean=[0.5] recipe.std=[0.5]"
    ended = call(f"spinal-train dataset=digits runtime.progress=lines {more} {words}")
    assert ended.code == 0, ended.err
    logs = [path.read_text() for path in here.glob("runs/*/*/*/log.txt")]
    assert len(logs) == 1 + ("-m" in words) and all("has 17 images" in log for log in logs)


def test_without_batch_norm_a_last_batch_of_one_stays(tmp_path):
    """So that no run changes that could be trained before."""
    folder = run(small(tmp_path, "recipe.batch_size=95", "recipe.epochs=1")).folder
    assert "joins the batch before it" not in (folder / "log.txt").read_text()
