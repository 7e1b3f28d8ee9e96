"""A finished run used from its folder: the accuracy of its record, the classes of its images."""

import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from spinal_repro.config.compose import compose
from spinal_repro.data.sources import load_dataset
from spinal_repro.errors import UserError
from spinal_repro.inference import load_run, load_split, predict
from spinal_repro.training.evaluation import evaluate
from spinal_repro.training.run import run

COLOURS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200)}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Noisy plain photographs of three colours, in two sizes, without parts."""
    root = tmp_path_factory.mktemp("colours")
    random = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (root / name).mkdir()
        for index in range(20):
            shape = ((30, 40, 3), (50, 35, 3))[index % 2]
            pixels = np.clip(random.normal(colour, 40, shape), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{index}.png")
    return root


def train(photographs, runs, *overrides):
    """Train a run on them."""
    torch.set_num_threads(1)
    words = [
        "dataset=folder", f"data.root={photographs}", f"runs={runs}", "dataset.image_size=16",
        "recipe.epochs=3", "recipe.mean=[0.5]", "recipe.std=[0.25]", "runtime.progress=none",
        "runtime.device=cpu",
    ]  # fmt: skip
    return run(compose([*words, *overrides])).folder


@pytest.fixture(scope="module")
def trained_folder(photographs, tmp_path_factory):
    overrides = ("model=flatten", "head=spinal", "head.width=8")
    return train(photographs, tmp_path_factory.mktemp("runs"), *overrides)


@pytest.fixture(scope="module")
def other_folder(photographs, tmp_path_factory):
    """Another model, which reads images of another size."""
    overrides = ("model=cifar_cnn", "dataset.image_size=32", "head=linear", "recipe.epochs=1")
    return train(photographs, tmp_path_factory.mktemp("others"), *overrides)


def test_the_folder_alone_gives_the_recorded_accuracy_and_files_the_same(
    trained_folder, photographs
):
    trained = load_run(trained_folder)
    assert list(trained.classes) == sorted(COLOURS)
    assert trained.config.dataset.name.startswith("folder_colours")
    batches, same = load_split(trained, "test")
    result = evaluate(trained.model, batches, torch.no_grad)
    selected = trained.record.test.selected
    assert same and (result.correct, result.count) == (selected.correct, selected.count)
    val, _ = load_split(trained, "val")
    assert evaluate(trained.model, val, torch.no_grad).accuracy == pytest.approx(
        trained.record.selection.accuracy
    )
    paths = load_dataset(trained.config.dataset, photographs).test.paths
    answers = list(predict(trained, paths))
    assert all(abs(answer.sum() - 1) < 1e-5 for answer in answers)
    assert [int(answer.argmax()) for answer in answers] == result.predictions.tolist()


def test_a_run_on_own_images_leaves_plots(trained_folder):
    for name in ("curves.png", "confusion.png"):
        with Image.open(trained_folder / name) as image:
            assert image.format == "PNG" and min(image.size) > 300


def test_predict_command(trained_folder, here, call):
    """An unreadable image does not hide the others."""
    Image.new("RGB", (40, 40), COLOURS["red"]).save("one.png")
    command = f"spinal predict {trained_folder} one.png"
    (entry,) = json.loads(call(f"{command} --format json").out)
    assert entry["class"] == "red" and len(entry["top"]) == 3
    assert sum(c["probability"] for c in entry["top"]) == pytest.approx(1, abs=1e-5)
    _, row = call(f"{command} --format csv").out.splitlines()
    shares = [float(share) for share in re.findall(r"\d\.\d+", row)]  # of all three classes
    assert len(shares) == 3 and sum(shares) == pytest.approx(1, abs=1e-3)
    (here / "b.png").write_bytes(b"no image")
    ended = call(f"spinal predict {trained_folder} . --format csv --top 1")
    head, row = ended.out.splitlines()
    assert head == "file,class,probability" and row.startswith("one.png,red,")
    assert ended.code == 2 and "b.png" in ended.err


def test_an_ensemble_answers_the_mean_of_its_probabilities(
    trained_folder, other_folder, photographs, here, call
):
    (here / "z.png").write_bytes(b"no image")
    paths = [*sorted((photographs / "red").iterdir())[:4], here / "z.png"]
    runs = [load_run(folder, "cpu") for folder in (trained_folder, other_folder)]
    first, second = (list(predict(trained, paths))[:4] for trained in runs)
    ended = call(
        f"spinal predict {trained_folder} {' '.join(map(str, paths))} --with {other_folder} "
        "--probabilities p.csv --submission s.csv --format json"
    )
    assert ended.code == 2 and "z.png" in ended.err
    table = pd.read_csv("p.csv")
    assert list(table) == ["file", *sorted(COLOURS)]
    assert list(table.file) == [str(path) for path in paths[:4]]
    expected = (torch.stack(first) + torch.stack(second)) / 2
    assert np.allclose(table[sorted(COLOURS)], expected, atol=1e-6)
    assert not np.allclose(torch.stack(first), torch.stack(second), atol=1e-2)
    submission = pd.read_csv("s.csv")
    assert list(submission) == ["image_id", "label"]
    assert list(submission.image_id) == [path.name for path in paths[:4]]
    assert list(submission.label) == list(table[sorted(COLOURS)].idxmax(axis=1))
    answers = json.loads(ended.out)
    assert [answer["class"] for answer in answers] == list(submission.label)
    call(f"spinal predict {trained_folder} {paths[0]} --submission s.csv --columns Id Category")
    assert Path("s.csv").read_text().splitlines()[0] == "Id,Category"


def test_runs_of_other_classes_are_no_ensemble(trained_folder, photographs, here, call):
    shutil.copytree(photographs, here / "other")
    (here / "other/red").rename(here / "other/violet")
    folder = train(here / "other", here / "runs", "model=flatten", "head=linear")
    image = photographs / "red/0.png"
    ended = call(f"spinal predict {trained_folder} {image} --with {folder} --submission s.csv")
    assert ended.code == 2 and "violet" in ended.err and not Path("s.csv").exists()


def test_flips_are_averaged(trained_folder, here, call):
    """The mean over an image and its mirror image, which is the same for both."""
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    pixels[:, :8] //= 4
    Image.fromarray(pixels).save("a.png")
    Image.fromarray(pixels[:, ::-1]).save("b.png")
    paths = [Path("a.png"), Path("b.png")]
    plain = torch.stack(list(predict(load_run(trained_folder, "cpu"), paths)))
    flipped = torch.stack(list(predict(load_run(trained_folder, "cpu", flip=True), paths)))
    assert not torch.allclose(plain[0], plain[1], atol=1e-3)
    assert torch.allclose(flipped, plain.mean(dim=0).expand(2, -1), atol=1e-6)
    (answer,) = json.loads(call(f"spinal predict {trained_folder} a.png --flip --format json").out)
    assert answer["probability"] == pytest.approx(float(flipped[0].max()), abs=1e-6)


def test_features_are_what_the_head_reads(other_folder, photographs, here, call):
    assert call(f"spinal features {other_folder} --split val --to val.npz").code == 0
    trained = load_run(other_folder, "cpu")
    batches, _ = load_split(trained, "val")
    saved = np.load("val.npz")
    assert set(saved) == {"features", "labels", "files", "classes"}
    assert saved["labels"].tolist() == batches.labels.tolist()
    assert saved["classes"].tolist() == sorted(COLOURS)
    named = [Path(file).parent.name for file in saved["files"]]
    assert named == [sorted(COLOURS)[label] for label in saved["labels"]]
    with torch.no_grad():
        head = trained.model.head(torch.from_numpy(saved["features"]))
        whole = torch.cat([trained.model(images) for images, _ in batches.in_order()])
        assert torch.allclose(head, whole, atol=1e-5)
        ended = call(f"spinal features {other_folder} {photographs}/red --to files.npz")
        assert ended.code == 0 and "20 images" in ended.out
        saved = np.load("files.npz")
        head = trained.model.head(torch.from_numpy(saved["features"])).softmax(dim=1)
        paths = [Path(file) for file in saved["files"]]
        assert torch.allclose(head, torch.stack(list(predict(trained, paths))), atol=1e-5)


def test_features_of_an_unreadable_image_are_refused(other_folder, here, call):
    (here / "b.png").write_bytes(b"no image")
    ended = call(f"spinal features {other_folder} b.png --to b.npz")
    assert ended.code == 2 and "b.png" in ended.err and not Path("b.npz").exists()


def test_grad_cam(other_folder, photographs, here, call, monkeypatch):
    pytest.importorskip("captum")
    from spinal_repro.inference.explain import grad_cam

    image, trained = photographs / "red/0.png", load_run(other_folder, "cpu")
    pixels, found, name = grad_cam(trained, image)
    (answer,) = predict(trained, [image])
    assert name == trained.classes[int(answer.argmax())]
    assert found.shape == pixels.shape[1:] == (32, 32)
    assert np.isfinite(found).all() and found.min() >= 0
    maps = [grad_cam(trained, image, of)[1] for of in COLOURS]
    assert max(of.max() - of.min() for of in maps) > 0
    ended = call(f"spinal explain {other_folder} {image} --class blue --out map.png")
    assert ended.code == 0 and "blue" in ended.out
    with Image.open("map.png") as drawn:
        assert drawn.size == (224, 224)
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    ended = call(f"spinal explain {other_folder} {image} --out no.png")
    assert ended.code == 2 and "spinal-repro[explain]" in ended.err
    assert not Path("no.png").exists()


def test_grad_cam_of_a_linear_model_of_its_maps(other_folder, photographs):
    """The mean of a map as the logit: its gradient is 1 / pixels, so Grad-CAM is the map."""
    pytest.importorskip("captum")
    from spinal_repro.inference.explain import grad_cam

    maps = torch.nn.Conv2d(3, 1, 1, bias=False)
    torch.nn.init.constant_(maps.weight, 0.5)
    model = torch.nn.Sequential(
        maps, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(1, 3)
    )
    torch.nn.init.constant_(model[3].weight, 1)
    trained = replace(load_run(other_folder, "cpu"), model=model.eval(), mean=[0.0], std=[1.0])
    pixels, found, _ = grad_cam(trained, photographs / "red/0.png", "red")
    expected = pixels.astype(np.float32).sum(axis=0) / 255 / 2 / found.size
    assert np.allclose(found, expected, atol=1e-7)


def test_eval_command(trained_folder, photographs, here, call):
    """It says when the images are not those of the run."""
    out = call(f"spinal eval {trained_folder} --confusion confusion.png").out
    record = json.loads((trained_folder / "record.json").read_text())
    assert f"{100 * record['test']['selected']['accuracy']:.2f} %" in out.splitlines()[0]
    assert all(name in out for name in COLOURS)
    metrics = record["test"]["selected"]["metrics"]
    assert metrics.keys() == {"balanced_accuracy", "macro_f1", "kappa", "auc"}
    assert f"macro F1 {metrics['macro_f1']:.4f}, " in out.splitlines()[1]
    ended = call(f"spinal eval {trained_folder} --format json")
    found = json.loads(ended.out)
    assert found["metrics"] == pytest.approx(
        metrics | {"accuracy": record["test"]["selected"]["accuracy"]}
    )
    assert found["images"] == 12 and [c["class"] for c in found["classes"]] == sorted(COLOURS)
    assert "macro F1" in ended.err
    row = call(f"spinal status {trained_folder.parents[2]} --metrics --format csv").out
    assert row.splitlines()[0].endswith("balanced_accuracy,macro_f1,kappa,auc")
    assert f",{metrics['auc']}" in row and "auc" not in call("spinal status runs").out
    with Image.open("confusion.png") as image:
        assert min(image.size) > 300
    shutil.copytree(photographs, here / "colours")
    Image.new("RGB", (30, 30), "white").save("colours/red/0.png")
    ended = call(f"spinal eval {trained_folder} --root colours")
    assert "differ from those of the run" in ended.err


def test_eval_of_new_images(trained_folder, photographs, here, call):
    """Other numbers, missing classes and a test part alone are fine; foreign classes are not."""

    def evaluate(folder):
        return call(f"spinal eval {trained_folder} --root {folder} --format csv")

    for name, count in (("red", 7), ("green", 3)):
        (here / "some" / name).mkdir(parents=True)
        for path in sorted((photographs / name).iterdir())[:count]:
            shutil.copy(path, here / "some" / name)
    ended = evaluate("some")
    assert ended.code == 0 and "of 10)" in ended.err
    images = {row.split(",")[0]: row.split(",")[1] for row in ended.out.splitlines()[1:]}
    assert images == {"red": "7", "green": "3"}
    (here / "part").mkdir()
    (here / "some").rename(here / "part/test")
    assert "of 10)" in evaluate("part").err
    (here / "part/test/red").rename(here / "part/test/crimson")
    ended = evaluate("part")
    assert ended.code == 2 and "crimson" in ended.err and not ended.out
    (here / "empty").mkdir()
    ended = evaluate("empty")
    assert ended.code == 2 and f"{here / 'empty'} has no images" in ended.err
    moved = here / "moved"
    shutil.copytree(photographs, moved)
    assert "differ" not in evaluate(moved).err, "the run's own images elsewhere are its split"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("predict nowhere empty", "no images"),
        ("predict nowhere missing.png", "missing.png"),
        ("eval nowhere", "finished run"),
        ("eval {run} --root nowhere", r"data\.root"),
        ("eval {run} --confusion no/where.png", "no folder"),
        ("eval {run} --confusion x.weird", "x.weird"),
        ("eval {run} --confusion empty.png", "empty.png"),
        ("predict {run} one.png --top 0", "1 or more"),
        ("predict {run} one.png --device tpu", "tpu"),
        ("predict {run} one.png --submission no/where.csv", "no folder"),
        ("predict {run} one.png --probabilities empty", "is a folder"),
        ("predict {run} one.png --with nowhere", "finished run"),
        ("features {run} --to features.csv", "npz"),
        ("explain {run} one.png --out map.png", "feature maps"),
        ("explain {run} one.png --out map.png --class violet", "violet"),
        ("explain {run} missing.png --out map.png", "missing.png"),
        ("features {run} missing.png --to f.npz", "missing.png"),
    ],
)
def test_refusals(trained_folder, here, call, words, named):
    for name in ("empty", "empty.png"):
        (here / name).mkdir()
    Image.new("RGB", (40, 40)).save("one.png")
    ended = call(f"spinal {words.format(run=trained_folder)}")
    assert ended.code == 2 and re.search(named, ended.err)


def edit_config(old: str, new: str):
    def edit(folder: Path) -> None:
        path = folder / "config.yaml"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    return edit


def edit_weights(change):
    def edit(folder: Path) -> None:
        path = folder / "best.safetensors"
        save_file(change({name: t.clone() for name, t in load_file(path).items()}), path)

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (edit_config("lr: ", "lr: 1"), "is not the configuration of"),
        (edit_config("recipe:", "recipe"), r"config\.yaml"),
        (edit_config("schema_version: 1", "schema_version: 2"), r"config\.yaml.*version"),
        (edit_weights(lambda w: {name: t[:-1] for name, t in w.items()}), r"best\.safetensors"),
        (edit_weights(lambda w: {}), r"best\.safetensors"),
        (edit_weights(lambda w: {**w, "more": torch.ones(1)}), r"best\.safetensors"),
    ],
)
def test_files_that_do_not_belong_together(trained_folder, tmp_path, edit, message):
    folder = tmp_path / "run"
    shutil.copytree(trained_folder, folder)
    edit(folder)
    with pytest.raises(UserError, match=message) as error:
        load_run(folder, "cpu")
    assert len(str(error.value).splitlines()) == 1


def test_weights_may_lack_the_counters_of_batch_norm(tmp_path):
    """As other tools write them; evaluation does not need the counters."""
    overrides = ["head=fc", "head.hidden=[8]", "head.norm=true", "recipe.epochs=1", "data.limit=60"]
    folder = run(compose([f"runs={tmp_path}", "runtime.progress=none", *overrides])).folder
    path = folder / "best.safetensors"
    tensors = load_file(path)
    lacking = {  # copies: what is read may lie in the file that is written over
        k: v.clone() for k, v in tensors.items() if not k.endswith("num_batches_tracked")
    }
    assert len(lacking) < len(tensors)
    save_file(lacking, path)
    model = load_run(folder, "cpu").model
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in lacking.items())
