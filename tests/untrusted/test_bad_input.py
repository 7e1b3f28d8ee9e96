"""Bad input of every kind: refused in words that name it, or upgraded."""

import contextlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from made_records import committed, regression_record
from PIL import Image

from spinal_repro import versions
from spinal_repro.config import compose
from spinal_repro.data.decoding import read_image
from spinal_repro.data.kept import load_images, write_sum
from spinal_repro.data.photos import Photos
from spinal_repro.data.sources import SOURCES, Dataset, ImageSet, load_dataset
from spinal_repro.errors import UserError
from spinal_repro.preparation import Preparation
from spinal_repro.reading import read_file, read_json, read_yaml
from spinal_repro.record_shape import refuse_other_shapes
from spinal_repro.records import read_record, stored_config
from spinal_repro.results.cells import match

REFERENCES = "a0: &a0 [x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
)
MERGES = "a0: &a0 {k: v}\n" + "".join(
    f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}\n" for i in range(1, 12)
)


@pytest.mark.parametrize(
    "text",
    [
        REFERENCES,
        MERGES,
        "&a [*a]",
        "- " * 100_000,  # some parsers in C would crash
        "[" * 100_000,
        "a: 2020-13-45",
        "? [a]\n: b",
        "x" * (2**20 + 1),
        "a: \udcff",
    ],
    ids=["references", "merges", "circle", "deep", "flow", "date", "key", "large", "no utf-8"],
)
def test_yaml_that_would_never_end(tmp_path, text):
    """PyYAML refuses some of it first, other ones in each version."""
    path = tmp_path / "x.yaml"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=r"x\.yaml (cannot be read: |has more than .* bytes)"):
        read_yaml(path)


def test_yaml_may_nest_fifty_deep(tmp_path):
    path = tmp_path / "x.yaml"
    for deep, refused in ((50, False), (51, True)):
        path.write_text("[" * deep + "]" * deep)
        with pytest.raises(UserError) if refused else contextlib.nullcontext():
            read_yaml(path)


@pytest.mark.parametrize(
    "text", ["", "{", "NaN", "[1e999]", "[" * 100_000, '"\udcff"', "-Infinity"]
)
def test_json_that_is_none(tmp_path, text):
    path = tmp_path / "x.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=r"x\.json cannot be read"):
        read_json(path)


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="no regular file"):
        read_file(tmp_path / "pipe")
    for name in ("nowhere", "a\0b", "."):
        with pytest.raises(UserError, match="cannot be read"):
            read_file(tmp_path / name)
    os.mkfifo(tmp_path / "x.png")
    photos = Photos([tmp_path / "x.png"], torch.tensor([0]), 3)
    with pytest.raises(UserError, match=r"x\.png"):
        _ = photos.digests


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        (("seed",), -1, "seed is -1"),
        (("seed",), True, "seed is True"),
        (("identity",), "../x", "identity is '../x', not a name"),
        (("config", "protocol", "name"), "../../x", "protocol.name"),
        (("config", "recipe", "epochs"), 0, "epochs is 0"),
        (("config", "recipe", "stages"), [1], "stages is"),
        (("config",), 3, "config is 3, not a group"),
        (("test", "selected", "correct"), 10_001, "correct is above"),
        (("test", "last", "accuracy"), 1.5, "not a number from 0 to 1"),
        (("selection", "on"), "val", "selection.on is val"),
        (("counts", "head_parameters"), "many", "counts.head_parameters"),
        (("history",), [{"epoch": 1, "test_accuracy": "x"}], "history\\[0\\].test_accuracy"),
        (("environment", "device"), None, "environment.device is None"),
    ],
)
def test_records_with_values_that_no_run_has(tmp_path, where, value, message):
    record = committed()
    place = record
    for key in where[:-1]:
        place = place[key]
    place[where[-1]] = value
    path = tmp_path / "record.json"
    path.write_text(json.dumps(record))
    with pytest.raises(UserError, match=message):
        read_record(path)


@pytest.mark.parametrize("part", ["config", "test", "selection", "seed", "environment", "identity"])
def test_records_that_lack_what_results_are_made_of(part):
    record = committed()
    del record[part]
    with pytest.raises(UserError, match=f"it lacks {part}"):
        match([], [record])
    regression = regression_record()
    del regression["runs"][0]["seed"]
    with pytest.raises(UserError, match=r"it lacks runs\[0\].seed"):
        match([], [regression])


def test_every_committed_record_has_the_shape():
    folder = Path(__file__).parents[2] / "results/records"
    found = [json.loads(path.read_text()) for path in folder.rglob("*.json")]
    assert len(found) > 10
    for record in found:
        refuse_other_shapes(record, "a committed record")


@pytest.mark.parametrize("version", [999, "1", None, 1.0, True])
def test_another_version(version):
    with pytest.raises(UserError, match=r"schema version .*, expected 1"):
        versions.upgraded_record({"schema_version": version}, "a record")
    with pytest.raises(UserError, match=r"schema version .*, expected 1"):
        stored_config({**compose([]).to_dict(), "schema_version": version})


def test_an_older_version_is_upgraded_step_by_step_or_refused(monkeypatch):
    monkeypatch.setattr(versions, "CONFIG_VERSION", 3)
    monkeypatch.setattr(versions, "CONFIGS", {2: lambda c: {"seed": c.pop("sed") + 10, **c}})
    old = {**compose([]).to_dict(), "schema_version": 2}
    old["sed"] = old.pop("seed")
    assert stored_config(old).seed == 10
    with pytest.raises(UserError, match="has schema version 1, expected 3: it is older"):
        stored_config(compose([]).to_dict())
    monkeypatch.setitem(versions.CONFIGS, 1, lambda c: {"sed": c.pop("seed") + 1, **c})
    assert stored_config(compose([]).to_dict()).seed == 11


def noise(folder: Path, name: str, size: tuple[int, int]) -> Path:
    Image.new("L", size).save(folder / name)
    return folder / name


def test_images_that_would_fill_the_memory(tmp_path, monkeypatch):
    line = noise(tmp_path, "line.png", (1, 60_000))
    assert line.stat().st_size < 2000
    with pytest.raises(ValueError, match=r"1 x 60000 pixels would become 256 x 15,360,000"):
        read_image(line, 3, Preparation(resize=256, crop=224))
    assert read_image(line, 3, Preparation(resize=[8, 8])).shape == (3, 8, 8)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    bomb = noise(tmp_path, "bomb.png", (100, 100))
    with pytest.raises(Image.DecompressionBombError):
        read_image(bomb, 3, Preparation(resize=8, crop=8))


def test_pixels_of_unknown_range(tmp_path):
    Image.fromarray(np.full((9, 9), np.nan, np.float32)).save(tmp_path / "x.tif")
    with pytest.raises(ValueError, match="32 bits"):
        read_image(tmp_path / "x.tif", 3, Preparation(resize=8, crop=8))


@pytest.mark.parametrize("damage", ["pixel", "short", "no sum", "another sum"])
def test_kept_images_that_are_damaged_are_decoded_anew(tmp_path, damage, capsys):
    path, images = tmp_path / "kept.npy", np.arange(48, dtype=np.uint8).reshape(1, 3, 4, 4)
    np.save(path, images)
    write_sum(path, images)
    assert np.array_equal(load_images(path, images.shape), images)
    data = bytearray(path.read_bytes())
    data[-1] ^= damage == "pixel"
    path.write_bytes(data[: -1 if damage == "short" else None])
    if damage == "no sum":
        path.with_suffix(".json").unlink()
    elif damage == "another sum":
        write_sum(path, images + 1)
    assert load_images(path, images.shape) is None
    assert "decoding anew" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.full((4, 1, 28, 28), torch.nan), torch.arange(4), "pixels of torch.float32"),
        (torch.zeros(4, 1, 28, 28, dtype=torch.uint8), torch.arange(4.0), "labels of"),
        (torch.zeros(4, 1, 28, 28, dtype=torch.uint8), torch.arange(3), "3 labels for images"),
        (torch.zeros(0, 1, 28, 28, dtype=torch.uint8), torch.arange(0), "holds no images"),
    ],
)
def test_sources_that_give_something_else(images, labels, message, monkeypatch):
    import dataclasses

    part = ImageSet(images, labels)
    monkeypatch.setitem(SOURCES._items, "odd", lambda *given: Dataset(part, part))
    config = dataclasses.replace(compose([]).dataset, source="odd", train_size=None, test_size=None)
    with pytest.raises(UserError, match=message):
        load_dataset(config, "unused")


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    from spinal_repro.training.run import run

    runs = tmp_path_factory.mktemp("runs")
    small = ["recipe.epochs=1", "data.limit=60", "runtime.progress=none", "runtime.device=cpu"]
    return run(compose([f"runs={runs}", "model=flatten", "head=linear", *small])).folder


def edited(folder: Path, change: str) -> str:
    """Change one file of a run folder; returns what the message must say."""
    from safetensors.torch import load_file, save_file

    record = json.loads((folder / "record.json").read_text())
    config = (folder / "config.yaml").read_text()
    weights = load_file(folder / "best.safetensors")
    name = next(iter(weights))
    if change == "classes":
        record["data"]["classes"] = ["a"] * 11
    elif change == "std":
        record["data"]["normalisation"]["std"] = [0.0]
    elif change == "small std":  # 0 in float32
        record["data"]["normalisation"]["std"] = [1e-300]
    elif change == "large mean":
        record["data"]["normalisation"]["mean"] = [10**400]
    elif change == "no std":
        del record["data"]["normalisation"]
    elif change == "other run":
        config = config.replace("lr: ", "lr: 1")
    elif change == "outputs":
        weights = {key: tensor[:-1] for key, tensor in weights.items()}
    elif change == "nan":
        weights[name][..., 0] = torch.nan
    elif change == "too large for float32":
        weights[name] = weights[name].double() * 1e300
    elif change == "float8 nan":
        weights[name] = torch.full_like(weights[name], torch.nan).to(torch.float8_e4m3fn)
    elif change in ("complex64", "int64", "bool"):
        weights[name] = weights[name].to(getattr(torch, change))
    elif change == "no tensors":
        weights = {}
    elif change == "one tensor more":
        weights["more"] = torch.ones(1)
    elif change == "version":
        config = config.replace("schema_version: 1", "schema_version: 2")
    elif change == "reference":
        config = config.replace("title: ", "title: ${oc.env:HOME} ")
    elif change == "hydra":
        config += "hydra: {run: {dir: /}}\n"
    (folder / "record.json").write_text(json.dumps(record))
    (folder / "config.yaml").write_text(config)
    try:
        weights = {key: tensor.contiguous() for key, tensor in weights.items()}
        save_file(weights, folder / "best.safetensors")
    except KeyError as error:
        pytest.skip(f"this version of safetensors writes no {error}")
    return {
        "classes": "names 11 classes",
        "std": "std in .* must be above 0",
        "no std": "does not say the mean",
        "other run": "is not the configuration of",
        "small std": "std in .* must be what float32 holds",
        "large mean": "mean in .* must be what float32 holds",
        "outputs": r"do not fit .*weight' is \[9, 784\] real numbers in them and \[10, 784\]",
        "no tensors": "do not fit .* is not there in them and",
        "one tensor more": "do not fit .*'more' is .* in them and not there in the model",
        "complex64": f"do not fit .*'{name}' is .* complex64 numbers in them",
        "int64": f"do not fit .*'{name}' is .* whole numbers in them",
        "bool": f"do not fit .*'{name}' is .* bool numbers in them",
        "too large for float32": f"NaN or infinities: .*'{name}', as float32",
        "float8 nan": f"NaN or infinities: .*'{name}'",
        "nan": f"NaN or infinities: .*'{name}'",
        "version": "a newer spinal_repro wrote it",
        "reference": "refers to something else",
        "hydra": "settings of Hydra's",
    }[change]


@pytest.mark.parametrize(
    "change",
    ["classes", "std", "small std", "large mean", "no std", "other run", "outputs", "no tensors",
     "one tensor more", "nan", "too large for float32", "float8 nan", "complex64", "int64", "bool",
     "version", "reference", "hydra"],
)  # fmt: skip
def test_a_run_folder_whose_files_do_not_belong_together(finished, tmp_path, change):
    from spinal_repro.inference import load_run

    assert load_run(finished, "cpu").classes
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    message = edited(copy, change)
    with pytest.raises(UserError, match=message):
        load_run(copy, "cpu")


@pytest.mark.parametrize("reader", ["run", "export", "pretrained"])
def test_weights_that_are_a_pipe(finished, tmp_path, reader):
    from spinal_repro.export import load_safetensors
    from spinal_repro.inference import load_run
    from spinal_repro.pretrained import read_tensors

    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    path = copy / "best.safetensors"
    path.unlink()
    os.mkfifo(path)
    read = {"run": lambda p: load_run(p.parent, "cpu"), "export": load_safetensors}
    with pytest.raises(UserError, match=r"there is no file .*best"):
        read.get(reader, read_tensors)(path)


def test_a_model_that_computes_infinities_says_nothing(finished, tmp_path):
    """Every weight is finite, what they add up to is not."""
    from safetensors.torch import load_file, save_file

    from spinal_repro.inference import evaluate, load_run, part_of, predict

    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    path = copy / "best.safetensors"
    save_file({k: torch.full_like(t, 3e38) for k, t in load_file(path).items()}, path)
    trained = load_run(copy, "cpu")
    Image.new("L", (28, 28), 255).save(tmp_path / "white.png")
    with pytest.raises(UserError, match="computes NaN or infinities"):
        list(predict(trained, [tmp_path / "white.png"]))
    with pytest.raises(UserError, match="computes NaN or infinities"):
        evaluate(trained, part_of(trained, "test")[0])
