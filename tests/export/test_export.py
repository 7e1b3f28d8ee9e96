"""Exports: run with the libraries of others, equal to the model, described in a card."""

import dataclasses
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.composing import composed
from PIL import Image
from safetensors.torch import save_file

from spinal_repro.cli.spinal import main
from spinal_repro.cli.use import EXPORTS
from spinal_repro.errors import UserError
from spinal_repro.export import card as card_module
from spinal_repro.export import load_safetensors
from spinal_repro.export.card import CARD
from spinal_repro.export.write import FORMATS, IMAGES, compare, export_run
from spinal_repro.inference import load_run, load_split, predict
from spinal_repro.training.run import run

COMMON = ["runtime.progress=none", "runtime.device=cpu", "recipe.epochs=1", "head=spinal"]
CLASSES = ("<script>", "a|b", "`x` *y*")


def as_kind(mode, **options):
    """A function from pixels ``[H, W, 3]`` to a file of a kind, transparent at the left."""

    def encode(pixels):
        image = Image.fromarray(pixels)
        if mode.startswith("I"):
            image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 200)
        elif mode == "P":
            image = image.quantize(16)
        elif mode != "RGB":
            image.putalpha(
                Image.fromarray(np.linspace(0, 255, 35).astype(np.uint8)[None]).resize(image.size)
            )
            image = image.convert(mode)
        file = io.BytesIO()
        image.save(file, "PNG", **options)
        return file.getvalue()

    return encode


KINDS = (
    as_kind("RGB"),
    as_kind("RGBA"),
    as_kind("LA"),
    as_kind("I;16"),
    as_kind("P", transparency=3),
)


def converted(image, mode):
    """What the code of the card did before it read transparent and 16-bit images."""
    return image.convert(mode)


def train(*overrides: str):
    return load_run(run(composed("head.width=8", *COMMON, *overrides)).folder, "cpu")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on digits, with batch norm and dropout in its head."""
    torch.set_num_threads(1)
    runs = tmp_path_factory.mktemp("runs")
    head = ["head.norm=true", "head.dropout=0.5"]
    return train(f"runs={runs}", "data.limit=100", "protocol=paper", *head)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """A run on photographs of every kind that are not square, with class names of all kinds."""
    root, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for number, name in enumerate(CLASSES):
        (root / name).mkdir()
        for index in range(10):
            pixels = random.normal(60 + 60 * number, 40, (50, 35, 3)).clip(0, 255).astype(np.uint8)
            (root / name / f"{index}.png").write_bytes(KINDS[index % len(KINDS)](pixels))
    return root, train(
        "dataset=folder", f"data.root={root}", f"runs={tmp_path_factory.mktemp('runs')}",
        "model=flatten", "dataset.image_size=16", "recipe.mean=[0.4,0.5,0.6]",
        "recipe.std=[0.2,0.3,0.4]", "recipe.prepare.eval.resize=20",
        "recipe.prepare.eval.crop=16", "recipe.prepare.eval.interpolation=bicubic",
    )  # fmt: skip


def metadata(path: Path) -> dict[str, str]:
    """The text in an exported file, read by its own library."""
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


def check_code(card, folder, pictures, trained, monkeypatch):
    """The code of a card, run beside the files, computes what `predict` computes."""
    monkeypatch.chdir(folder)
    blocks = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len(blocks) == 2
    for picture, expected in zip(pictures, predict(trained, pictures), strict=True):
        (folder / "image.png").write_bytes(picture.read_bytes())
        names: dict[str, object] = {}
        exec("".join(blocks), names)
        found = torch.as_tensor(names["logits"]).softmax(dim=1)[0]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("to", EXPORTS)
def test_an_export_computes_what_the_model_computes(trained, tmp_path, monkeypatch, capsys, to):
    for name in FORMATS[to].libraries:
        pytest.importorskip(name)
    out = tmp_path / "out"
    main(["export", str(trained.folder), "--to", to, "--out", str(out)])
    assert f"on {IMAGES} test images" in capsys.readouterr().out  # which have no files
    file = out / FORMATS[to].file
    assert {path.name for path in out.iterdir()} == {file.name, CARD}
    assert file.stat().st_mode == (out / CARD).stat().st_mode

    images = next(load_split(trained, "test")[0].in_order())[0].contiguous()
    written = FORMATS[to].load(file)
    for count in (1, 2, 5, 100):  # any number of images
        with torch.no_grad():
            expected, found = trained.model(images[:count]), written(images[:count])
        torch.testing.assert_close(found.detach(), expected, atol=1e-4, rtol=0)

    text = metadata(file)
    assert json.loads(text["classes"]) == list("0123456789")
    assert json.loads(text["preprocessing"])["mean"] == list(trained.mean)
    assert json.loads(text["config"]) == trained.record.config

    card = (out / CARD).read_text()
    selected = trained.record.test.selected
    assert f"{100 * selected.accuracy:.2f} | {100 * selected.interval_95[0]:.2f}" in card
    assert "**BEST ON TEST" in card and "REDUCED BUDGET" in card and "CC BY 4.0" in card
    assert f"{trained.record.counts['total_parameters']:,} trainable parameters" in card
    Image.fromarray(np.arange(784, dtype=np.uint8).reshape(28, 28)).save(tmp_path / "image.png")
    check_code(card, out, [tmp_path / "image.png"], trained, monkeypatch)


def test_the_card_of_photographs(photographs, tmp_path, monkeypatch):
    root, trained = photographs
    export_run(trained, "safetensors", tmp_path)
    card = (tmp_path / CARD).read_text()
    assert "<script>" not in card and "&lt;script&gt;" in card
    assert r"a\|b" in card and r"\`x\` \*y\*" in card
    assert "resized to 20 px (bicubic" in card and "BEST ON TEST" not in card
    pictures = [root / CLASSES[1] / f"{index}.png" for index in range(len(KINDS))]
    modes = {Image.open(path).mode for path in pictures}
    assert {"RGB", "RGBA", "LA", "P"} < modes and len(modes) == len(KINDS)
    check_code(card, tmp_path, pictures, trained, monkeypatch)
    Image.new("I", (40, 40), 70_000).save(tmp_path / "32.tif")
    assert [isinstance(answer, str) for answer in predict(trained, [tmp_path / "32.tif"])] == [True]
    with pytest.raises(ValueError, match="32 bits"):
        card_module.read(str(tmp_path / "32.tif"), card_module.preprocessing(trained))


def test_code_that_reads_the_files_otherwise_is_not_exported(
    photographs, tmp_path, monkeypatch, capsys
):
    """The check goes from image files to logits, so it covers the card's preprocessing."""
    command = ["export", str(photographs[1].folder), "--to", "safetensors"]
    main([*command, "--out", str(tmp_path / "right")])
    assert "get the same class" in capsys.readouterr().out
    monkeypatch.setattr(card_module, "converted", converted)
    with pytest.raises(SystemExit, match="2"):
        main([*command, "--out", str(tmp_path / "wrong")])
    assert "not exported" in capsys.readouterr().err and not (tmp_path / "wrong").exists()


def off(path):
    model = load_safetensors(path)
    with torch.no_grad():
        next(model.parameters()).add_(0.01)
    return model


def full_disk(model, example, text, path):
    raise OSError(28, "No space left on device", str(path))


def not_supported(model, example, text, path):
    raise TypeError("no such operator")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"load": off}, "not exported"),
        ({"write": full_disk}, "No space left"),
        ({"write": not_supported}, "no such operator"),
        ({"libraries": ("no_such_library",)}, "no_such_library.*pip install"),
    ],
)
def test_nothing_is_written_if_an_export_fails(trained, tmp_path, monkeypatch, change, message):
    changed = dataclasses.replace(FORMATS["safetensors"], **change)
    monkeypatch.setitem(FORMATS, "safetensors", changed)
    with pytest.raises(UserError, match=message):
        export_run(trained, "safetensors", tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("change", [0.0, 1.0, torch.nan, torch.inf])
def test_parity_sees_any_difference_and_nan(trained, change):
    def other(images):
        logits = trained.model(images)
        logits[-1, 0] += change
        return logits

    images = torch.rand(40, 1, 28, 28)
    with torch.no_grad():
        found = compare(trained.model(images), other, images)
    assert (found.difference <= found.allowed) is (change == 0)


def test_refusals(trained, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for arguments in (["nowhere"], [str(trained.folder), "--out", str(tmp_path / "file")]):
        with pytest.raises(SystemExit, match="2"):
            main(["export", *arguments, "--to", "safetensors"])
        assert arguments[-1] in capsys.readouterr().err
    assert tuple(FORMATS) == EXPORTS
    save_file({"weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=r"other\.safetensors was not written"):
        load_safetensors(tmp_path / "other.safetensors")
