"""Trackers: files read back with the real libraries; failures that do not stop a run."""

import importlib.util
import json
import socket
import struct
import time
from pathlib import Path

import pytest
from helpers.composing import composed
from helpers.interrupting import KillAt, Killed, interrupted

from spinal_repro.config.schema import Config
from spinal_repro.errors import UserError
from spinal_repro.records.store import read_records
from spinal_repro.trackers.libraries import TRACKERS
from spinal_repro.training.run import run
from spinal_repro.training.tracking import Tracking


def small(runs: Path, *overrides: str) -> Config:
    return composed(
        f"runs={runs}", "data.limit=50", "recipe.epochs=4", "runtime.progress=none",
        "runtime.device=cpu", "runtime.save_every=0", "model=flatten", "recipe=cnn", *overrides,
    )  # fmt: skip


def in_parts(monkeypatch, config: Config) -> dict:
    """The record of a run killed twice, the second time before tracker.json has epoch 3."""
    interrupted(config, KillAt(step=3))  # an epoch is a step
    remember = Tracking._remember

    def die_at_epoch_3(self):
        if self._memory["epoch"] == 3:
            raise Killed
        remember(self)

    with monkeypatch.context() as patch:
        patch.setattr(Tracking, "_remember", die_at_epoch_3)
        with pytest.raises(Killed):
            run(config)
    return run(config).record


def test_tensorboard(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = small(tmp_path, "tracker=tensorboard")
    record = in_parts(monkeypatch, config)
    read = EventAccumulator(str(config.run_dir / "tensorboard"), {"images": 0, "tensors": 0})
    read.Reload()
    for name in ("train_loss", "val_accuracy"):
        told = [(event.step, event.value) for event in read.Scalars(name)]
        written = [(entry["epoch"], pytest.approx(entry[name])) for entry in record.history]
        assert told == written
    assert {"images_per_second", "lr", "train_accuracy", "val_loss"} <= set(read.Tags()["scalars"])
    (test,) = read.Scalars("test_accuracy_selected")
    assert (test.step, test.value) == (4, pytest.approx(record.test.selected.accuracy))
    (test,) = read.Scalars("test_macro_f1_selected")
    assert test.value == pytest.approx(record.test.selected.metrics["macro_f1"])
    (settings,) = read.Tensors("config/text_summary")
    assert b'"epochs": 4' in settings.tensor_proto.string_val[0]
    (kept,) = read.Tensors("record/text_summary")
    assert record.identity.encode() in kept.tensor_proto.string_val[0]
    (picture,) = read.Images("curves")
    assert min(picture.width, picture.height) > 300


def test_mlflow(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_DISABLE_TELEMETRY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    config = small(tmp_path / "runs", "tracker=mlflow", "tracker.experiment=tests")
    record = in_parts(monkeypatch, config)
    place = tmp_path / "runs/.mlflow"
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{place / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tests")
    (told,) = client.search_runs([experiment.experiment_id])
    assert told.info.status == "FINISHED" and told.info.run_name == record.run
    assert told.data.params["recipe.epochs"] == "4" and told.data.params["head.name"] == "fc"
    for name in ("train_loss", "val_accuracy"):
        points = client.get_metric_history(told.info.run_id, name)
        assert sorted((point.step, point.value) for point in points) == [
            (entry["epoch"], entry[name]) for entry in record.history
        ]
    assert told.data.metrics["test_accuracy_last"] == record.test.last.accuracy
    kept = place / "artifacts" / told.info.run_id / "artifacts"
    assert (kept / "record.json").read_bytes() == (config.run_dir / "record.json").read_bytes()
    assert (kept / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]  # nothing where one stands
    assert len(read_records([tmp_path / "runs"])) == 1  # the copy is no second run


def wandb_rows(path: Path) -> list:
    """The messages of an offline file: a LevelDB log behind seven bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, message, found = path.read_bytes(), 7, b"", []
    while place + 7 <= len(data):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        message += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            found.append(Record.FromString(message))
            message = b""
    return found


def test_wandb_offline(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    listener = socket.create_server(("127.0.0.1", 0))  # all network access
    listener.setblocking(False)
    for name in ("WANDB_BASE_URL", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{listener.getsockname()[1]}")
    for name in ("WANDB_MODE", "WANDB_ERROR_REPORTING", "WANDB_DIR", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    config = small(tmp_path, "tracker=wandb")
    interrupted(config, KillAt(step=3))
    time.sleep(1.1)  # wandb names its folders by the second
    record = run(config).record
    wandb.teardown()  # its service writes behind

    files = sorted(config.run_dir.glob("wandb/offline-run-*/*.wandb"))
    messages = [message for file in files for message in wandb_rows(file)]
    (name,) = {m.run.run_id for m in messages if m.WhichOneof("record_type") == "run"}
    memory = json.loads((config.run_dir / "tracker.json").read_text())
    assert memory == {"wandb": {"id": name, "epoch": 4}} and len(files) == 2
    rows = [
        {(item.key or item.nested_key[0]): json.loads(item.value_json) for item in m.history.item}
        for m in messages
        if m.WhichOneof("record_type") == "history"
    ]
    for figure in ("train_loss", "val_accuracy"):
        told = [(row["_step"], row[figure]) for row in rows if figure in row]
        assert told == [(entry["epoch"], entry[figure]) for entry in record.history]
    settings = {item.key for m in messages for item in m.run.config.update}
    assert {"recipe", "head", "dataset"} <= settings
    summary = [item for m in messages for item in m.summary.update]
    figures = {item.key or item.nested_key[0]: item.value_json for item in summary}
    assert json.loads(figures["test_accuracy_last"]) == record.test.last.accuracy
    (kept,) = config.run_dir.glob("wandb/offline-run-*/files/record.json")
    assert kept.read_bytes() == (config.run_dir / "record.json").read_bytes()
    assert list(config.run_dir.glob("wandb/offline-run-*/files/media/images/*.png"))
    assert len(read_records([tmp_path])) == 1
    with pytest.raises(BlockingIOError):  # nothing connected
        listener.accept()
    listener.close()


class Broken:
    """A tracker that fails in one of its calls and counts all of them."""

    library = "json"
    fails, calls = "", []

    def __getattr__(self, name):
        def call(*given):
            self.calls.append(name)
            if name == self.fails:
                raise OSError(28, "No space left on device")

        return call


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The record of the run without a tracker."""
    return run(small(tmp_path_factory.mktemp("plain"))).record


@pytest.mark.parametrize("fails", ["start", "artifact", "close"])
def test_a_failing_tracker_warns_once_and_never_stops_a_run(tmp_path, monkeypatch, plain, fails):
    monkeypatch.setattr(Broken, "fails", fails)
    monkeypatch.setattr(Broken, "calls", [])
    monkeypatch.setitem(TRACKERS._items, "tensorboard", Broken)
    outcome = run(small(tmp_path / "broken", "tracker=tensorboard"))
    for key in ("history", "test", "identity", "selection"):
        assert getattr(outcome.record, key) == getattr(plain, key)
    log = (outcome.folder / "log.txt").read_text()
    assert log.count("warning: tracker tensorboard failed (OSError") == 1
    assert Broken.calls.count(fails) == (2 if fails == "close" else 1)  # no call after a failure
    assert "tracker" not in outcome.record.config
    assert json.loads((outcome.folder / "status.json").read_text())["state"] == "done"


def test_a_missing_library_is_reported_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'spinal-repro\[wandb\]'"):
        run(small(tmp_path, "tracker=wandb"))
    assert not list(tmp_path.iterdir())


def test_a_tracker_does_not_change_the_identity_of_a_run(tmp_path):
    plain, tracked = small(tmp_path), small(tmp_path, "tracker=wandb", "tracker.project=x")
    assert tracked.run_dir == plain.run_dir and tracked.portable() == plain.portable()
