"""Exports: read back with what others would use, equal to the model, described in a card."""

import dataclasses
import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from spinal_repro.cli.export import CHOICES
from spinal_repro.cli.spinal import main
from spinal_repro.config.compose import compose
from spinal_repro.errors import UserError
from spinal_repro.export import FORMATS, export_run, load_safetensors
from spinal_repro.export import formats as formats_module
from spinal_repro.export.card import CARD
from spinal_repro.export.parity import IMAGES, compare
from spinal_repro.inference import load_run, part_of, predict
from spinal_repro.training.run import run

pytestmark = pytest.mark.xdist_group("export")
COMMON = ["runtime.progress=none", "runtime.device=cpu", "recipe.epochs=1"]
CLASSES = ("<script>", "a|b", "`x` *y*")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on digits, with batch norm and dropout in its head."""
    torch.set_num_threads(1)
    runs = tmp_path_factory.mktemp("runs")
    head = ["head=spinal", "head.width=8", "head.norm=true", "head.dropout=0.5"]
    overrides = [f"runs={runs}", "data.limit=100", "protocol=paper", *COMMON, *head]
    return load_run(run(compose(overrides)).folder, "cpu")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """A run on colour photographs that are not square, with class names of all kinds."""
    root, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for number, name in enumerate(CLASSES):
        (root / name).mkdir()
        for index in range(10):
            pixels = random.normal(60 + 60 * number, 40, (50, 35, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{index}.png")
    overrides = [
        "dataset=folder", f"data.root={root}", f"runs={tmp_path_factory.mktemp('runs')}",
        "model=flatten", "head=spinal", "head.width=8", "dataset.image_size=16",
        "recipe.mean=[0.4,0.5,0.6]", "recipe.std=[0.2,0.3,0.4]", "recipe.prepare.eval.resize=20",
        "recipe.prepare.eval.crop=16", "recipe.prepare.eval.interpolation=bicubic", *COMMON,
    ]  # fmt: skip
    return root, load_run(run(compose(overrides)).folder, "cpu")


def need(to: str) -> None:
    for name in FORMATS[to].libraries:
        pytest.importorskip(name)


def text_of(path) -> dict[str, str]:
    """What an exported file says of itself, read by its own library."""
    if path.suffix == ".onnx":
        import onnx

        return {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    if path.suffix == ".pt2":
        text = dict.fromkeys(("preprocessing", "classes", "config", "run"), "")
        torch.export.load(path, extra_files=text)
        return text
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        return file.metadata()


@pytest.mark.parametrize("to", CHOICES)
def test_an_export_computes_what_the_model_computes(trained, tmp_path, monkeypatch, to):
    need(to)
    done = export_run(trained, to, tmp_path / "out")
    assert sorted(path.name for path in done.folder.iterdir()) == sorted(
        [FORMATS[to].file, "model_card.md"]
    )
    assert done.same_data and done.parity.images == done.parity.agree == IMAGES

    batches, _ = part_of(trained, "test")
    images = next(batches.in_order())[0].contiguous()
    written = FORMATS[to].load(done.file)
    for count in (1, 2, 5, 100):  # any number of images
        with torch.no_grad():
            expected, found = trained.model(images[:count]), written(images[:count])
        assert found.shape == (count, 10)
        torch.testing.assert_close(found.detach(), expected, atol=1e-4, rtol=0)

    text = text_of(done.file)
    assert json.loads(text["classes"]) == list("0123456789")
    prepare = json.loads(text["preprocessing"])
    assert prepare["mean"] == list(trained.mean) and prepare["size"] == 28
    assert json.loads(text["config"]) == trained.record.config

    card = (done.folder / "model_card.md").read_text()
    selected = trained.record.test.selected
    assert f"{100 * selected.accuracy:.2f} | {100 * selected.interval_95[0]:.2f}" in card
    assert "**BEST ON TEST" in card and "REDUCED BUDGET" in card and "CC BY 4.0" in card
    assert f"{trained.record.counts['total_parameters']:,} trainable parameters" in card
    Image.fromarray(np.arange(784, dtype=np.uint8).reshape(28, 28)).save(tmp_path / "image.png")
    check_code(card, done.folder, tmp_path / "image.png", trained, monkeypatch)


def check_code(card, folder, picture, trained, monkeypatch):
    """The code of a card, run as it stands beside the files, gives what `predict` gives."""
    monkeypatch.chdir(folder)
    (folder / "image.png").write_bytes(picture.read_bytes())
    names: dict[str, object] = {}
    blocks = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len(blocks) == 2 and len(blocks[1].splitlines()) == 3
    for block in blocks:
        exec(block, names)
    (expected,) = predict(trained, [picture])
    found = torch.as_tensor(names["logits"]).softmax(dim=1)[0]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_the_card_of_photographs(photographs, tmp_path, monkeypatch):
    root, trained = photographs
    done = export_run(trained, "safetensors", tmp_path)
    card = (tmp_path / "model_card.md").read_text()
    assert "<script>" not in card and "&lt;script&gt;" in card
    assert r"a\|b" in card and r"\`x\` \*y\*" in card
    assert "Resized to 20 px (bicubic" in card and "ask whoever made the images" in card
    assert "BEST ON TEST" not in card
    check_code(card, done.folder, root / CLASSES[1] / "3.png", trained, monkeypatch)


def test_a_model_that_differs_is_not_exported(trained, tmp_path, monkeypatch):
    honest = FORMATS["safetensors"]

    def off(path):
        model = honest.load(path)
        with torch.no_grad():
            next(model.parameters()).add_(0.01)
        return model

    monkeypatch.setitem(
        formats_module.FORMATS, "safetensors", dataclasses.replace(honest, load=off)
    )
    with pytest.raises(UserError, match="not exported: on 64 test images the safetensors model"):
        export_run(trained, "safetensors", tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_card_never_stands_beside_another_model(trained, tmp_path, monkeypatch):
    """Killed at any rename of a second export; and what is written is everybody's to read."""
    export_run(trained, "safetensors", tmp_path)
    model, card = tmp_path / "model.safetensors", tmp_path / CARD
    assert model.stat().st_mode == card.stat().st_mode
    replace, before = Path.replace, model.read_bytes()

    class Killed(BaseException):
        pass

    def die(self, target):
        if Path(target).parent == tmp_path:
            raise Killed
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", die)
    with pytest.raises(Killed):
        export_run(trained, "safetensors", tmp_path)
    assert model.read_bytes() == before and not card.exists()


def test_parity_sees_any_difference_and_what_is_no_number(trained):
    batches, _ = part_of(trained, "test")
    batches.batch_size = 40
    assert compare(trained.model, trained.model, batches).difference == 0
    for change in (torch.nan, torch.inf, 1.0):

        def other(images, change=change):
            logits = trained.model(images)
            logits[-1, 0] += change
            return logits

        found = compare(trained.model, other, batches)
        assert not found.difference <= found.allowed


def test_a_model_that_cannot_be_written(trained, tmp_path):
    class Sorted(torch.nn.Module):
        def forward(self, images):
            return trained.model(images) if images.sum() > 0 else trained.model(-images)

    odd = dataclasses.replace(trained, model=Sorted())
    with pytest.raises(UserError, match="cannot be written as torch_export"):
        export_run(odd, "torch_export", tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_the_command(trained, tmp_path, capsys):
    main(["export", str(trained.folder), "--to", "safetensors"])
    assert "on 64 test images at most 0 from" in capsys.readouterr().out
    model = load_safetensors(trained.folder / "export/safetensors/model.safetensors")
    assert not model.training and tuple(FORMATS) == CHOICES


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "--to", "onnx"], "not the folder of a finished run"),
        (["{run}", "--to", "safetensors", "--out", "{file}"], "cannot be written"),
    ],
)
def test_refusals(trained, tmp_path, capsys, arguments, message):
    need("onnx")
    (tmp_path / "file").write_text("")
    places = {"run": trained.folder, "file": tmp_path / "file"}
    with pytest.raises(SystemExit, match="2"):
        main(["export", *(argument.format(**places) for argument in arguments)])
    assert message in capsys.readouterr().err


def test_a_missing_library_is_named(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"onnx, onnxscript, onnxruntime: pip install"):
        export_run(trained, "onnx", tmp_path)


def test_a_file_of_others_is_no_model(tmp_path):
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="not written by"):
        load_safetensors(tmp_path / "other.safetensors")


def test_a_program_is_written_whole_or_not_at_all(trained, tmp_path, monkeypatch):
    """Writing to a full disk itself, PyTorch ends the process."""

    def full(path, content):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(formats_module, "write_atomic", full)
    with pytest.raises(UserError, match="No space left on device"):
        export_run(trained, "torch_export", tmp_path / "out")
    assert not (tmp_path / "out").exists()
