"""What trains can be used: every family of backbones on every kind of images."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spinal_repro.records.store import run_folders

FAMILIES = {  # with the sides in pixels that suit the network
    "own": "model=cnn dataset.image_size=28",
    "own, for colour": "model=cifar_cnn dataset.image_size=32",
    "history": "model=lenet5 dataset.image_size=32",
    "torchvision": "model=torchvision model.name=resnet18 recipe=sgd dataset.image_size=32",
    "timm": "model=timm model.name=test_resnet recipe=sgd dataset.image_size=32",
}
DATA = {
    "digits": "dataset=digits data.limit=20",
    "grey folder": "dataset=folder data.root=L",
    "grey folder, one channel": "dataset=folder data.root=L dataset.channels=1",
    "colour folder": "dataset=folder data.root=RGB",
}
PAIRS = [
    ("own", "digits"),
    ("own, for colour", "colour folder"),
    ("history", "grey folder, one channel"),
    ("torchvision", "digits"),
    ("timm", "grey folder"),
    ("timm", "colour folder"),
]


@pytest.fixture
def pictures(here) -> list[Path]:
    """Folders of grey and colour images in two classes of ten."""
    random = np.random.default_rng(0)
    for mode, shape in (("L", (40, 34)), ("RGB", (40, 34, 3))):
        for name in ("a", "b"):
            (here / mode / name).mkdir(parents=True)
            for number in range(10):
                image = Image.fromarray(random.integers(0, 255, shape, np.uint8))
                image.save(here / mode / name / f"{number}.png")
    return [here / mode / "a" / "0.png" for mode in ("L", "RGB")]


def test_every_family_and_kind_of_data_is_in_a_pair():
    families, data = zip(*PAIRS, strict=True)
    assert set(families) == set(FAMILIES) and set(data) == set(DATA)


@pytest.mark.parametrize(("family", "data"), PAIRS)
def test_what_trains_can_be_used(call, here, pictures, family, data):
    words = f"{FAMILIES[family]} {DATA[data]} recipe.epochs=1 recipe.batch_size=7 head=fc"
    ended = call(f"spinal-train {words} runtime.device=cpu runtime.progress=none")
    assert ended.code == 0, ended.err
    (run,) = run_folders(here / "runs")
    ended = call(f"spinal eval {run} --format csv")
    assert ended.code == 0 and ended.err.startswith(("Optical digits", "Images in "))
    ended = call("spinal", "predict", str(run), *map(str, pictures), "--format", "csv")
    assert ended.code == 0 and len(ended.out.splitlines()) == 1 + len(pictures)
    # for a library's network the export is traced; for the others a copy of the weights will do
    traced = (family, data) in (("torchvision", "digits"), ("timm", "grey folder"))
    to = "torch_export" if traced else "safetensors"
    ended = call(f"spinal export {run} --to {to}")
    assert ended.code == 0, ended.err
    assert "model_card.md" in ended.out and (run / "export" / to / "model_card.md").is_file()
