"""Loading weights: what fits is loaded and counted, all else is refused."""

import os
import pickle

import pytest
import torch
from safetensors.torch import save_file

from spinal_repro.config.schema import Component, DatasetConfig, RecipeConfig
from spinal_repro.errors import UserError
from spinal_repro.models.backbones import load_backbones
from spinal_repro.models.backbones.library import Published
from spinal_repro.models.classifier import build_model
from spinal_repro.models.pretrained import load_pretrained, read_tensors
from spinal_repro.training.setup import normalisation

pytestmark = pytest.mark.filterwarnings("ignore")
DATASET = DatasetConfig(
    name="x", title="x", source="x", num_classes=3, image_size=32, channels=3, train_size=1,
    test_size=1,
)  # fmt: skip
HEAD = Component("spinal", {"width": 8})


def resnet18():
    return load_backbones().build("torchvision", {"name": "resnet18"}, 3, 32)


@pytest.fixture(scope="module")
def whole():
    """The tensors of a whole network, classifier included, as its publisher would save them."""
    from torchvision import models

    with torch.random.fork_rng():
        torch.manual_seed(5)
        return models.resnet18().state_dict()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_is_loaded_and_counted(whole, tmp_path, suffix):
    path = tmp_path / f"resnet18{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": whole, "epoch": 3}, path)
    else:
        save_file(whole, path)
    model = build_model(
        DATASET, Component("resnet18", {"pretrained": str(path)}, "torchvision"), HEAD
    )
    report = model.weights
    assert (report.matched, report.missing) == (len(whole) - 2, [])
    assert sorted(report.unexpected) == ["fc.bias", "fc.weight"] and len(report.sha256) == 64
    assert "120 tensors matched, 0 missing, 2 unexpected" in str(report)
    for name, tensor in model.backbone.net.state_dict().items():
        assert torch.equal(tensor, whole[name]), name


def test_a_file_that_is_not_here_is_looked_for_in_the_data_folder(whole, tmp_path, monkeypatch):
    (tmp_path / "data" / "weights").mkdir(parents=True)
    save_file(whole, tmp_path / "data" / "weights" / "w.safetensors")
    monkeypatch.chdir(tmp_path)

    def build(name: str):
        component = Component("resnet18", {"pretrained": name}, "torchvision")
        return build_model(DATASET, component, HEAD, data_root="data").weights

    assert build("weights/w.safetensors").source == "weights/w.safetensors"
    with pytest.raises(UserError, match=r"neither here nor in the data folder data .*SPINAL_DATA"):
        build("weights/v.safetensors")
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "w.safetensors").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"w\.safetensors"):
        build("weights/w.safetensors")  # what is here comes first


def test_old_files_without_counters_are_taken(whole, tmp_path):
    old = {name: t for name, t in whole.items() if not name.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "old.pth")
    report = load_pretrained(resnet18(), str(tmp_path / "old.pth"))
    assert (report.matched, len(report.missing)) == (100, 20)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("layer1.0.conv1.weight"), "Missing .*layer1.0.conv1.weight"),
        (lambda t: t.update(strange=torch.ones(1)), "Unexpected .*strange"),
        (lambda t: t.update({"bn1.bias": torch.ones(3)}), "size mismatch for bn1.bias"),
        (lambda t: t.pop("fc.weight"), None),
    ],
)
def test_only_the_classifier_may_differ(whole, tmp_path, change, message):
    tensors = dict(whole)
    change(tensors)
    path = tmp_path / "changed.pth"
    torch.save(tensors, path)
    body = resnet18()
    if message is None:
        load_pretrained(body, str(path))
    else:
        with pytest.raises(UserError, match=message):
            load_pretrained(body, str(path))


class Attack:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (os.mkdir, (str(self.target),))


@pytest.mark.parametrize("write", [torch.save, lambda x, path: path.write_bytes(pickle.dumps(x))])
def test_a_crafted_pickle_is_refused_and_not_run(tmp_path, write):
    path, target = tmp_path / "evil.pth", tmp_path / "made"
    write({"conv1.weight": Attack(target)}, path)
    with pytest.raises(UserError, match=r"evil\.pth"):
        read_tensors(path)
    assert not target.exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.pth", None, "there is no file"),
        ("text.pth", b"hello", r"text\.pth"),
        ("text.safetensors", b"hello", r"text\.safetensors: "),
        ("empty.pth", b"", r"empty\.pth: "),
    ],
)
def test_damaged_files(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_tensors(path)


def test_a_list_of_tensors_is_no_table(tmp_path):
    torch.save([torch.ones(1)], tmp_path / "list.pth")
    with pytest.raises(UserError, match="state_dict"):
        read_tensors(tmp_path / "list.pth")


def test_published_weights_bring_their_normalisation(whole):
    body = resnet18()
    body.fetch = lambda name: Published(dict(whole), [0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    assert load_pretrained(body, "IMAGENET1K_V1").sha256 is None
    recipe = RecipeConfig(mean=None, std=None)
    assert normalisation(recipe, body) == ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    assert normalisation(RecipeConfig(mean=[0.5], std=[0.2]), body) == ([0.5], [0.2])


@pytest.mark.parametrize(
    ("kind", "name", "tag", "near"),
    [
        ("torchvision", "resnet18", "IMAGENET1K_V2", "IMAGENET1K_V1"),
        ("torchvision", "wide_resnet101_2", "DEFAULT", "IMAGENET1K_V1"),  # Q27
        ("timm", "resnet18", "a1_in2k", "a1_in1k"),
    ],
)
def test_names_of_weights_are_exact(kind, name, tag, near):
    with torch.device("meta"):
        body = load_backbones().build(kind, {"name": name}, 3, 32)
    with pytest.raises(UserError, match=near):
        load_pretrained(body, tag)


def test_own_backbones_take_files_alone(tmp_path):
    body = load_backbones().build("cifar_cnn", {}, 3, 32)
    with pytest.raises(UserError, match="give a file"):
        load_pretrained(body, "IMAGENET1K_V1")
    with pytest.raises(UserError, match=r"recipe\.mean"):
        normalisation(RecipeConfig(mean=None, std=None), body)


def test_the_weights_of_a_run_are_taken(tmp_path):
    first = build_model(DATASET, Component("cifar_cnn", {}), HEAD, seed=1)
    path = tmp_path / "best.safetensors"
    save_file(first.state_dict(), path)
    second = build_model(DATASET, Component("cifar_cnn", {"pretrained": str(path)}), HEAD)
    for a, b in zip(first.backbone.parameters(), second.backbone.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_frozen_backbone_stays_as_it_is():
    model = build_model(DATASET, Component("cifar_cnn", {"freeze": "backbone"}), HEAD)
    before = {name: tensor.clone() for name, tensor in model.backbone.state_dict().items()}
    model.train()
    assert model.head.training and not any(m.training for m in model.backbone.modules())
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    model(torch.rand(4, 3, 32, 32)).square().sum().backward()
    optimizer.step()
    assert all(torch.equal(t, before[n]) for n, t in model.backbone.state_dict().items())
    assert all(p.grad is not None for p in model.head.parameters())
    with pytest.raises(UserError, match="did you mean 'backbone'"):
        build_model(DATASET, Component("cifar_cnn", {"freeze": "backbones"}), HEAD)


def test_real_weights(real_data):
    path = real_data / "weights" / "tf_efficientnet_lite0.pth"
    if not path.is_file():
        pytest.skip(f"there is no {path}")
    body = load_backbones().build("timm", {"name": "tf_efficientnet_lite0"}, 3, 32)
    report = load_pretrained(body, str(path))
    assert (report.matched, report.missing) == (294, [])
    assert report.unexpected == ["classifier.weight", "classifier.bias"]
    assert body.mean == [0.5, 0.5, 0.5]
