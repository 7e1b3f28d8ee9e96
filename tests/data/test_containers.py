"""Images of a table, of arrays and of Parquet: trained on, evaluated and classified."""

import csv
import io
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.composing import changed, composed
from PIL import Image
from sklearn.datasets import load_digits, load_iris

from spinal_repro.config.preprocessing import Preprocessing
from spinal_repro.data.containers import read_unlabelled
from spinal_repro.data.folder import with_counts
from spinal_repro.data.photos import read_image
from spinal_repro.data.preprocessing import split_dataset
from spinal_repro.data.sources import Dataset, ImageSet, load_dataset
from spinal_repro.errors import UserError

DIGITS = load_digits()
PIXELS = (DIGITS.images * 255 / 16).round().astype(np.uint8)[:300]  # [N, 8, 8]
LABELS = DIGITS.target[:300]
TRAIN = (
    "spinal-train model=flatten head=linear recipe=sgd recipe.epochs=2 recipe.mean=[0.5] "
    "recipe.std=[0.5] runtime.device=cpu runtime.progress=none "
)


@pytest.fixture
def table(here):
    """A CSV of 60 digits by three writers, without suffixes."""
    (here / "scans").mkdir()
    rows = ["image_id,label,group,weight"]
    for index in range(60):
        Image.fromarray(PIXELS[index]).save(here / "scans" / f"{index:03}.png")
        rows.append(f"{index:03},{LABELS[index] % 3},writer {index // 6},{1 + index % 2}")
    (here / "labels.csv").write_text("\n".join(rows))
    return here


def parquet(path, indices, name=None):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    images = []
    for index in indices:
        content = io.BytesIO()
        Image.fromarray(PIXELS[index]).save(content, "PNG")
        images.append({"bytes": content.getvalue(), "path": f"{index}.png"})
    found = pa.table({"image": images, "label": LABELS[indices] % 3})
    about = {"info": {"features": {"label": {"names": ["zero", "one", "two"]}}}}
    path.parent.mkdir(exist_ok=True)
    pq.write_table(found.replace_schema_metadata({"huggingface": json.dumps(about)}), path)


def pixel_csv(path, indices, labelled=True):
    frame = pd.DataFrame(PIXELS[indices].reshape(len(indices), -1)).add_prefix("pixel")
    if labelled:
        frame.insert(0, "label", LABELS[indices])
    frame.to_csv(path, index=False)


def iris_csv(path, rows, names=("a", "b", "c", "d"), **more):
    iris = load_iris()
    frame = pd.DataFrame(iris.data[rows] * [1, 100, 1e-3, 1] + [0, 50, 0, 0], columns=list("abcd"))
    kinds = iris.target_names[iris.target[rows]]
    frame[list(names)].assign(constant=7, **{"class": kinds}, **more).to_csv(path, index=False)


def run_of(here):
    (record,) = here.glob("runs/*/*/s0/record.json")
    return record.parent, json.loads(record.read_text())


def used(call, here, settings, new, count):
    """Train, evaluate and classify; return the record and the predictions."""
    ended = call(TRAIN + settings)
    assert ended.code == 0, ended.err
    folder, record = run_of(here)
    accuracy = f"{100 * record['test']['selected']['accuracy']:.2f} %"
    ended = call(f"spinal eval {folder}")
    assert ended.code == 0 and accuracy in ended.out and "differ" not in ended.err, ended.err
    ended = call(f"spinal predict {folder} {new} --format csv --top 1")
    assert ended.code == 0, ended.err
    rows = list(csv.DictReader(io.StringIO(ended.out)))
    assert len(rows) == count
    return record, rows


def test_a_table_of_image_files(table, call):
    Image.new("L", (8, 5), 99).save("scans/000.png")
    settings = "dataset=table data.table=labels.csv data.root=scans dataset.image_size=8"
    settings += " recipe.prepare.train.pad=true recipe.prepare.eval.pad=true"
    shutil.copy("labels.csv", "scans/new.csv")  # paths beside the CSV are found too
    record, rows = used(call, table, settings, "scans/new.csv", 60)
    assert record["data"]["classes"] == ["0", "1", "2"]
    assert sum(record["data"]["sizes"].values()) == 60
    assert record["config"]["dataset"]["name"] == "table_labels"
    assert str(table) not in json.dumps(record["config"])
    folder, _ = run_of(table)
    ended = call(f"spinal export {folder} --to safetensors")
    assert ended.code == 0 and "get the same class" in ended.out, ended.err
    assert rows[0]["file"].endswith("new.csv/000") and {row["class"] for row in rows} <= {*"012"}
    call(f"spinal predict {folder} scans/new.csv --submission s.csv")
    submission = pd.read_csv("s.csv", dtype=str)  # the ids of the table, without a suffix
    assert list(submission.image_id) == list(pd.read_csv("labels.csv", dtype=str).image_id)
    assert list(submission.label) == [row["class"] for row in rows]


def test_arrays_as_in_medmnist(here, call):
    parts = {"train": range(200), "val": range(200, 250), "test": range(250, 300)}
    arrays = {f"{part}_images": PIXELS[list(at)] for part, at in parts.items()}
    labels = {f"{part}_labels": LABELS[list(at)][:, None] for part, at in parts.items()}
    np.savez("a.npz", **arrays, **labels)
    np.savez("new.npz", x=PIXELS[250:])
    settings = "dataset=npz data.file=a.npz recipe.epochs=8"
    record, rows = used(call, here, settings, "new.npz", 50)
    assert record["data"]["sizes"] == {"train": 200, "val": 50, "test": 50}
    right = sum(row["class"] == str(LABELS[250 + i]) for i, row in enumerate(rows))
    assert right == record["test"]["selected"]["correct"] > 25
    folder, _ = run_of(here)
    np.savez("other.npz", images=PIXELS[250:280], labels=LABELS[250:280])
    ended = call(f"spinal eval {folder} --root other.npz")
    assert ended.code == 0 and "of 30)" in ended.out
    np.savez("a.npz", **{**arrays, "train_images": 255 - arrays["train_images"]}, **labels)
    ended = call(f"spinal eval {folder}")
    assert ended.code == 2 and "have changed since the run" in ended.err


def test_a_csv_of_pixels(here, call):
    pixel_csv("train.csv", np.arange(250))
    pixel_csv("test.csv", np.arange(250, 300), labelled=False)
    record, _ = used(call, here, "dataset=csv data.file=train.csv", "test.csv", 50)
    assert record["config"]["dataset"]["image_size"] == 8 and "features" not in record["data"]
    assert record["data"]["normalisation"] == {"mean": [0.5], "std": [0.5]}


def test_a_csv_of_features_is_standardised_by_the_training_part(here, call):
    iris_csv("iris.csv", np.arange(150))
    iris_csv("new.csv", np.arange(0, 150, 3), names="dbca", more=1)
    settings = (
        "dataset=csv data.file=iris.csv recipe.epochs=20 recipe.batch_size=8 recipe.mean=null"
    )
    settings += " recipe.std=null"
    record, rows = used(call, here, settings, "new.csv", 50)
    assert record["data"]["features"] == ["a", "b", "c", "constant", "d"]
    dataset = load_dataset(
        changed(composed("dataset=csv"), {"dataset.file": "iris.csv"}).dataset, here
    )
    split = split_dataset(dataset, composed().protocol)
    values = dataset.train.images[split.train].flatten(1).double().numpy()
    mean = np.array(record["data"]["normalisation"]["mean"]) * 255
    std = np.array(record["data"]["normalisation"]["std"]) * 255
    assert mean == pytest.approx(values.mean(0))
    assert std == pytest.approx(np.where(values.std(0) > 0, values.std(0), 1))
    names = load_iris().target_names
    right = sum(row["class"] == names[i // 17] for i, row in enumerate(rows) if i % 17 < 16)
    assert right > 35 and record["test"]["selected"]["accuracy"] > 0.8
    assert "model=flatten" in call("spinal-train dataset=csv data.file=iris.csv").err
    iris_csv("few.csv", np.arange(5), names="ab")
    folder, _ = run_of(here)
    assert "columns c, d" in call(f"spinal predict {folder} few.csv").err
    assert call(f"spinal eval {folder} --root few.csv").code == 2
    Image.new("L", (8, 8)).save("image.png")
    assert "columns a, b" in call(f"spinal predict {folder} image.png").err


def test_parquet_of_hugging_face(here, call):
    for part, at in {"train": (0, 100), "validation": (100, 120), "test": (120, 150)}.items():
        parquet(here / "hf" / f"{part}-00000-of-00001.parquet", np.arange(*at))
    parquet(here / "new.parquet", np.arange(120, 150))
    settings = "dataset=parquet data.file=hf dataset.image_size=8"
    record, rows = used(call, here, settings, "new.parquet", 30)
    assert record["data"]["sizes"] == {"train": 100, "val": 20, "test": 30}
    assert record["data"]["classes"] == ["zero", "one", "two"]
    named = ["zero", "one", "two"]
    right = sum(row["class"] == named[LABELS[120 + i] % 3] for i, row in enumerate(rows))
    assert right == record["test"]["selected"]["correct"]
    assert rows[0]["file"].endswith("new.parquet/120.png")
    folder, _ = run_of(here)
    ended = call(f"spinal export {folder} --to safetensors")
    assert ended.code == 0 and "30 images get the same class" in ended.out, ended.err


# What is read


def configured(source, file, **settings):
    config = composed(f"dataset={source}")
    return changed(config, {"dataset.file": str(file), **settings}).dataset


def loaded(source, file, root="."):
    return load_dataset(configured(source, file), root)


def test_groups_weights_and_the_columns_of_a_table(table):
    dataset = loaded("table", "labels.csv", "scans")
    assert len(dataset.train) + len(dataset.test) == 60
    assert not {*dataset.train.groups.tolist()} & {*dataset.test.groups.tolist()}
    numbers = [int(path.stem) for path in dataset.train.paths]
    assert dataset.train.labels.tolist() == [LABELS[n] % 3 for n in numbers]
    assert dataset.train.weights.tolist() == [1 + n % 2 for n in numbers]
    split = split_dataset(dataset, composed().protocol)
    parts = [{*dataset.train.groups[of].tolist()} for of in (split.train, split.val)]
    assert all(parts) and not parts[0] & parts[1]


def test_the_identity_covers_images_labels_and_columns_but_no_path(table):
    def contents(file):
        return with_counts(configured("table", file), table / "scans")[1]

    first = contents("labels.csv")
    shutil.copy("labels.csv", "scans/labels.csv")
    assert contents("scans/labels.csv") == first
    text = (table / "labels.csv").read_text()
    for old, new in (("000,0,", "000,1,"), ("writer 1,", "writer 2,"), (",2\n", ",3\n")):
        (table / "labels.csv").write_text(text.replace(old, new))
        assert contents("labels.csv") != first
    one, two = (composed("dataset=table", f"data.table={name}") for name in ("a.csv", "b.csv"))
    assert one.dataset.file != two.dataset.file and one.identity() == two.identity()


@pytest.mark.parametrize("length", [0, 20, 300])
def test_a_damaged_file_of_arrays(here, length):
    np.savez("a.npz", x=PIXELS)
    (here / "a.npz").write_bytes((here / "a.npz").read_bytes()[:length])
    with pytest.raises(UserError, match="cannot be read as npz"):
        read_unlabelled(here / "a.npz")


def test_labels_that_are_true_or_false(here):
    (here / "a.csv").write_text("label,a,b\n" + "True,1,2\nFalse,3,4\n" * 5)
    assert loaded("csv", "a.csv").classes == ["False", "True"]


def test_classes_are_sorted_numbers_as_numbers(here):
    labels = ["10", "9", "2", "10"] * 3
    np.savez("a.npz", x=PIXELS[:12], y=np.array(labels).astype(float))
    assert loaded("npz", "a.npz").classes == ["2", "9", "10"]
    np.savez("a.npz", x=PIXELS[:12], y=np.array([f"{label}a" for label in labels]))
    assert loaded("npz", "a.npz").classes == ["10a", "2a", "9a"]


@pytest.mark.parametrize(
    ("array", "channels"),
    [
        (np.full((4, 8, 8), 65535, np.uint16), 1),
        (np.ones((4, 8, 8)), 1),
        (np.full((4, 8, 8, 3), 255), 3),
        (np.full((4, 3, 8, 8), 255, np.uint8), 3),
        (np.ones((4, 8, 8, 1), bool), 1),
    ],
)
def test_arrays_of_many_types(here, array, channels):
    np.savez("a.npz", x_train=array, y_train=[0, 1, 0, 1], x_test=array, y_test=[0, 1, 0, 1])
    images = loaded("npz", "a.npz").test.images
    assert images.shape == (4, channels, 8, 8) and (images == 255).all()


def test_sixteen_bits_are_scaled_by_one_rule(here):
    """An npz and an image file give the same pixels."""
    deep = (PIXELS[0].astype(np.uint16) * 257).clip(0, 65535)
    deep[0, 0] = 300  # 300 // 257 is 1
    Image.fromarray(deep).save("a.png")
    Image.fromarray(deep).save("a.tif")
    np.savez("a.npz", x=deep[None])
    (row,) = read_unlabelled(here / "a.npz")
    for file in (here / "a.png", here / "a.tif", row):
        pixels = read_image(file, 1, Preprocessing())
        assert pixels[0, 0, 0] == 1 and (pixels[0, 1:] == PIXELS[0, 1:]).all()


def test_padding_keeps_proportions(here):
    Image.new("L", (40, 20), 255).save(here / "a.png")
    found = read_image(here / "a.png", 1, Preprocessing(resize=20, crop=20, pad=True))
    assert found.shape == (1, 20, 20)
    assert found[0, 7:13].min() == 255 and found[0, :4].max() == found[0, 16:].max() == 0


# Cross-validation


def folds_of(dataset, folds, **settings):
    settings = {"protocol.folds": folds, **settings}
    config = composed("protocol=kfold")
    fold = range(folds)
    return [
        split_dataset(dataset, changed(config, {**settings, "protocol.fold": k}).protocol)
        for k in fold
    ]


def test_every_image_is_tested_once_and_classes_are_balanced():
    dataset = load_dataset(composed().dataset, "")
    splits = folds_of(dataset, 5)
    labels = dataset.pool.labels.numpy()
    assert len(labels) == 1797
    assert sorted(np.concatenate([s.test for s in splits])) == list(range(1797))
    for split in splits:
        assert sorted([*split.train, *split.val, *split.test]) == list(range(1797))
    counts = np.array([np.bincount(labels[split.test]) for split in splits])
    assert (counts.max(0) - counts.min(0) <= 1).all()
    assert len({split.hash for split in splits}) == 5


def test_groups_never_straddle_and_folds_of_the_user_are_taken():
    labels = torch.arange(120) % 3
    groups = torch.arange(120) // 5
    images = ImageSet(torch.zeros(120, 1, 8, 8, dtype=torch.uint8), labels, groups=groups)
    dataset = Dataset(images.subset(np.arange(80)), images.subset(np.arange(80, 120)))
    splits = folds_of(dataset, 4)
    assert sorted(np.concatenate([s.test for s in splits])) == list(range(120))
    for split in splits:
        parts = [{*groups[getattr(split, p)].tolist()} for p in ("train", "val", "test")]
        assert all(parts) and sum(map(len, parts)) == 24
    given = ImageSet(images.images, labels, folds=torch.arange(120) % 4)
    splits = folds_of(Dataset(given, given.subset(np.arange(0))), 4)
    assert [s.test.tolist() for s in splits] == [list(range(k, 120, 4)) for k in range(4)]
    with pytest.raises(UserError, match="fold has 4 values"):
        folds_of(Dataset(given, given.subset(np.arange(0))), 3)
    torn = ImageSet(images.images, labels, groups=groups, folds=torch.arange(120) % 4)
    with pytest.raises(UserError, match="both in train and in test"):
        folds_of(Dataset(torn, torn.subset(np.arange(0))), 4)


def test_a_fold_of_a_table_is_trained_on(table, call):
    settings = "dataset=table data.table=labels.csv data.root=scans dataset.image_size=8"
    shutil.copy("labels.csv", "scans/new.csv")
    settings += " protocol=kfold protocol.fold=2"
    record, _ = used(call, table, settings, "scans/new.csv", 60)
    assert sum(record["data"]["sizes"].values()) == 60
    assert "fold 2 (from 0) of 5" in record["selection"]["rule"]
    assert "not independent" in record["selection"]["rule"]


@pytest.mark.parametrize(
    "settings",
    ["protocol.fold=5", "protocol.folds=1", "data.test=false", "protocol=heldout protocol.fold=1"],
)
def test_folds_out_of_range(call, here, settings):
    ended = call(f"{TRAIN} dataset=digits protocol=kfold {settings}")
    assert ended.code == 2 and "protocol.fold" in ended.err and not list(here.iterdir())


# Bad input


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,label\n000,1\n", "name the column path"),
        ("path,kind\n000,1\n", "call them label or"),
        ("path,label\n000,1\n999,2\n", "1 of 2 files .* 999; put the table into"),
        ("path,label\n000,1\n000,2\n", "lists 000 twice"),
        ("path,label\n000,1\n001,\n", "column label is empty in row 2"),
        ("path,label\n000,1\n001,1\n", "1 classes, expected two or more"),
        ("path,label\n000,1\ntwin,2\n", "twin may be twin.jpg or twin.png"),
        (
            "path,label,split\n000,1,train\n001,2,train\n002,3,test\n",
            "split train has: 3",
        ),
        ("path,label,split\n000,1,train\n001,2,later\n", "split 'later'"),
        ("path,label,weight\n000,1,1\n001,2,-1\n", "weight must be"),
        ("path,label,group\n000,1,a\n001,2,a\n002,1,a\n003,2,a\n", "single group"),
    ],
)
def test_tables_that_are_refused(table, text, message):
    for name in ("twin.jpg", "twin.png"):
        Image.new("L", (8, 8)).save(table / "scans" / name)
    (table / "labels.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        loaded("table", "labels.csv", "scans")


def test_groups_in_two_parts_are_refused(table):
    rows = ["path,label,group,split"]
    rows += [f"{i:03},{i % 2},{i % 5},{'train' if i < 40 else 'test'}" for i in range(60)]
    (table / "labels.csv").write_text("\n".join(rows))
    dataset = loaded("table", "labels.csv", "scans")
    with pytest.raises(UserError, match="4 groups are both in train and in test"):
        split_dataset(dataset, composed().protocol)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": PIXELS[:4], "y": np.eye(4)}, "several labels per image"),
        ({"x": PIXELS[:4], "y": [0, 1]}, "one class for each of 4 images"),
        ({"z": PIXELS[:4]}, "has arrays z"),
        ({"x": PIXELS[:4]}, "no labels"),
        ({"x": PIXELS[:4] - 7.5, "y": [0, 1, 0, 1]}, "neither 0 to 255"),
        ({"x": PIXELS[:4, :6], "y": [0, 1, 0, 1]}, "square"),
    ],
)
def test_arrays_that_are_refused(here, arrays, message):
    np.savez("a.npz", **arrays)
    with pytest.raises(UserError, match=message):
        loaded("npz", "a.npz")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n3,4\n", "no labels"),
        ("label,a,b\nx,1,2\ny,,4\n", "column a has empty cells"),
        ("label,a,b\nx,1,red\ny,2,blue\n", r"not numbers: \['b'\]"),
        ("", "cannot be read as CSV"),
    ],
)
def test_columns_that_are_refused(here, text, message):
    (here / "a.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        loaded("csv", "a.csv")


@pytest.mark.parametrize("source", ["table", "npz", "csv", "parquet"])
def test_files_that_are_missing_or_damaged(call, here, source):
    key = "data.table" if source == "table" else "data.file"
    ended = call(f"{TRAIN} dataset={source}")
    assert ended.code == 2 and f"{key}=FILE" in ended.err
    ended = call(f"{TRAIN} dataset={source} {key}=none.file")
    assert ended.code == 2 and "there is no file none.file" in ended.err
    (here / "bad").write_bytes(b"\xff\x00\x01")
    ended = call(f"{TRAIN} dataset={source} {key}=bad")
    assert ended.code == 2 and "cannot be read" in ended.err
