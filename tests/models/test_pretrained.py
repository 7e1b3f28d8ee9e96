"""Loading weights: what fits is loaded and counted, everything else is refused."""

import dataclasses
import hashlib
import io
import os
import pickle
import shutil
from collections.abc import Iterator

import pytest
import torch
from helpers import mirror
from helpers.variety import small
from PIL import Image
from safetensors.torch import load_file, save_file
from torchvision import models

from spinal_repro.config.schema import Component, DatasetConfig, RecipeConfig
from spinal_repro.errors import UserError
from spinal_repro.export import load_safetensors
from spinal_repro.export.write import export_run
from spinal_repro.inference import evaluate, load_run, load_split, predict
from spinal_repro.io import checksum
from spinal_repro.models.backbones import load_backbones
from spinal_repro.models.classifier import build_model
from spinal_repro.models.counting import count
from spinal_repro.models.pretrained import load_pretrained, read_tensors
from spinal_repro.records.record import read_record
from spinal_repro.training.resolve import resolved
from spinal_repro.training.run import run
from spinal_repro.training.setup import normalisation

pytestmark = pytest.mark.filterwarnings("ignore")
DATASET = DatasetConfig(
    name="x", title="x", source="x", num_classes=3, image_size=32, channels=3, train_size=1,
    test_size=1,
)  # fmt: skip
HEAD = Component("spinal", {"width": 8})
NAME = "shufflenet_v2_x0_5"


def backbone(name=NAME):
    return load_backbones().build("torchvision", {"name": name}, 3, 32)


def build(model: Component, **options):
    return build_model(DATASET, model, HEAD, image_size=64, **options)


def pretrained(source: str, name=NAME, **options):
    return build(Component(name, {"pretrained": source}, "torchvision"), **options)


@pytest.fixture(scope="module")
def whole() -> dict[str, torch.Tensor]:
    """The tensors of a whole network, classifier included, as its publisher would save them."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return models.get_model(NAME).state_dict()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_is_loaded_and_counted(whole, tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": whole, "epoch": 3}, path)
    else:
        save_file(whole, path)
    model = pretrained(str(path))
    report = model.weights
    assert (report.matched, report.missing) == (len(whole) - 2, [])
    assert sorted(report.unexpected) == ["fc.bias", "fc.weight"]
    assert report.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    loaded = model.backbone.net.state_dict()
    assert all(torch.equal(tensor, whole[name]) for name, tensor in loaded.items())


def test_a_file_that_is_not_here_is_looked_for_in_the_data_folder(whole, tmp_path, monkeypatch):
    (tmp_path / "data" / "weights").mkdir(parents=True)
    save_file(whole, tmp_path / "data" / "weights" / "w.safetensors")
    monkeypatch.chdir(tmp_path)
    loaded = pretrained("weights/w.safetensors", data_root="data").weights
    assert loaded.source == "weights/w.safetensors"
    with pytest.raises(UserError, match="SPINAL_DATA"):
        pretrained("weights/v.safetensors", data_root="data")
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "w.safetensors").write_bytes(b"broken")
    with pytest.raises(UserError):
        pretrained("weights/w.safetensors", data_root="data")  # the one here is tried first


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("fc.weight"), None),
        (lambda t: [t.pop(n) for n in list(t) if n.endswith("num_batches_tracked")], None),
        (lambda t: t.pop("conv1.0.weight"), "conv1.0.weight"),
        (lambda t: t.update(strange=torch.ones(1)), "strange"),
        (lambda t: t.update({"conv1.1.bias": torch.ones(3)}), "conv1.1.bias"),
    ],
)
def test_only_the_classifier_and_counters_may_differ(whole, tmp_path, change, message):
    tensors, path = dict(whole), tmp_path / "changed.pth"
    change(tensors)
    torch.save(tensors, path)
    if message is None:
        load_pretrained(backbone(), str(path))
    else:
        with pytest.raises(UserError, match=message):
            load_pretrained(backbone(), str(path))


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


@pytest.mark.parametrize("name", ["x.pth", "x.safetensors"])
@pytest.mark.parametrize("content", [b"", b"hello", "a list"])
def test_files_without_named_tensors_are_refused(tmp_path, name, content):
    if content == "a list":
        torch.save([torch.ones(1)], tmp_path / name)
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=name):
        read_tensors(tmp_path / name)


def test_own_backbones_take_only_files():
    body = load_backbones().build("cifar_cnn", {}, 3, 32)
    with pytest.raises(UserError, match="no weights file"):
        load_pretrained(body, "IMAGENET1K_V1")
    with pytest.raises(UserError, match=r"recipe\.mean"):
        normalisation(RecipeConfig(mean=None, std=None), body)


@pytest.mark.parametrize("wrapper", ["", "module."])
@pytest.mark.parametrize("name", ["cifar_cnn", NAME])
def test_the_weights_of_a_run_are_taken(tmp_path, name, wrapper):
    """From its folder or its file; here also as a script saves it that wraps the classifier."""
    kind = None if name == "cifar_cnn" else "torchvision"
    first, path = build(Component(name, {}, kind)), tmp_path / "best.safetensors"
    save_file({wrapper + n: tensor for n, tensor in first.state_dict().items()}, path)
    for source in (path, tmp_path):
        second = build(Component(name, {"pretrained": str(source)}, kind), seed=1)
        saved, loaded = (m.backbone.state_dict() for m in (first, second))
        assert all(torch.equal(tensor, loaded[n]) for n, tensor in saved.items())
        assert second.weights.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        heads = {f"{wrapper}head.{n}" for n in first.head.state_dict()}
        assert set(second.weights.unexpected) == heads


def test_another_run_is_trained_from_the_weights_of_a_run(call, here):
    small = f"spinal-train model={NAME} data.limit=20 recipe.batch_size=5 recipe.epochs=1"
    assert call(f"{small} head=linear").code == 0
    (first,) = here.glob("runs/*/*/s0")
    for name in ("best.safetensors", "last.pt", "."):
        ended = call(f"{small} head=fc model.pretrained={first / name} runs={name}x")
        assert ended.code == 0 and "prefix backbone.net. removed from the names" in ended.out


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A run of the small CNN with a normalisation of its own."""
    mine = ("model=cnn", "recipe.mean=[0.3]", "recipe.std=[0.7]")
    return run(small(tmp_path_factory.mktemp("source"), *mine)).folder


TAKEN = ("recipe.mean=null", "recipe.std=null", "recipe.epochs=1")


def test_a_run_brings_its_weights_and_its_normalisation(source, tmp_path):
    """Also for a network of this project, another head and another number of classes."""
    words = (f"model.pretrained={source}", *TAKEN, "head=linear", "dataset.num_outputs=12")
    frozen = run(small(tmp_path, "model=cnn", "model.freeze=backbone", *words)).folder
    record = read_record(frozen / "record.json")
    assert record.data["normalisation"] == {"mean": [0.3], "std": [0.7]}
    weights = source / "best.safetensors"
    assert record.config["data"]["inputs"]["weights"] == checksum(weights)
    before, after = load_file(weights), load_file(frozen / "best.safetensors")
    assert {len(t) for n, t in after.items() if n.startswith("head.")} == {12}
    assert all(torch.equal(t, after[n]) for n, t in before.items() if n.startswith("backbone."))
    given = small(tmp_path, "model=cnn", *words, "recipe.mean=[0.5]", "recipe.std=[0.5]")
    record = read_record(run(given).folder / "record.json")
    assert record.data["normalisation"] == {"mean": [0.5], "std": [0.5]}


def test_other_weights_in_the_run_folder_are_another_run(source, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(source, copy)
    config = small(tmp_path, "model=cnn", f"model.pretrained={copy}", *TAKEN)
    before = resolved(config).identity()
    tensors = {n: t + 1 for n, t in load_file(source / "best.safetensors").items()}
    save_file(tensors, copy / "best.safetensors")
    assert resolved(config).identity() != before


def test_a_sweep_starts_from_a_run(source, call, here):
    ended = call(
        f"spinal-train -m dataset=digits data.limit=20 model=cnn head=fc,spinal recipe.epochs=1 "
        f"model.pretrained={source} recipe.mean=null recipe.std=null runtime.device=cpu"
    )
    assert ended.code == 0
    records = [read_record(path) for path in here.glob("runs/*/*/s0/record.json")]
    assert [r.data["normalisation"]["mean"] for r in records] == [[0.3], [0.3]]


def test_a_run_of_another_network_is_refused(source, tmp_path):
    config = small(tmp_path, "model=vgg5", f"model.pretrained={source}", *TAKEN)
    with pytest.raises(UserError, match=r"run of cnn.*vgg5"):
        run(config)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "model.", "net.", ""], ids=lambda prefix: prefix or "key"
)
def test_a_run_starts_from_the_weights_of_another_script(call, here, whole, prefix):
    tensors = {prefix + name: tensor for name, tensor in whole.items()}
    torch.save(tensors if prefix else {"model_state_dict": whole, "epoch": 1}, "w.pth")
    ended = call(
        f"spinal-train model={NAME} data.limit=10 recipe.batch_size=5 recipe.epochs=1 "
        "model.pretrained=w.pth"
    )
    assert ended.code == 0 and f"w.pth: {len(whole) - 2} tensors matched" in ended.out
    assert (f"prefix {prefix} removed" in ended.out) is bool(prefix)


@pytest.mark.parametrize("key", ["model_state_dict", "state_dict", "model", "net", None])
@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "net.", "module.encoder."])
def test_files_of_other_scripts_are_loaded_as_those_of_the_publisher(whole, tmp_path, key, prefix):
    tensors = {prefix + name: tensor for name, tensor in whole.items()}
    optimizer = torch.optim.Adam([torch.ones(1, requires_grad=True)]).state_dict()
    saved = {"epoch": 3, "optimizer": optimizer, key: tensors} if key else tensors
    torch.save(saved, tmp_path / "w.pth.tar")
    model = pretrained(str(tmp_path / "w.pth.tar"))
    assert all(torch.equal(t, whole[name]) for name, t in model.backbone.net.state_dict().items())
    assert model.weights.matched == len(whole) - 2
    assert sorted(model.weights.unexpected) == ["fc.bias", "fc.weight"]
    assert f"prefix {prefix} removed" in str(model.weights)
    assert all(
        torch.equal(t, whole[f"fc.{n}"])
        for n, t in own(str(tmp_path / "w.pth.tar")).head.state_dict().items()
    )


def test_of_two_networks_in_one_file_none_is_chosen(whole, tmp_path):
    both = {f"{which}.{name}": t for which in ("query", "key") for name, t in whole.items()}
    torch.save(both, tmp_path / "w.pth")
    with pytest.raises(UserError, match="does not fit"):
        load_pretrained(backbone(), str(tmp_path / "w.pth"))


def own(source: str | None, name=NAME, kind="torchvision", outputs=1000, **options):
    dataset = dataclasses.replace(DATASET, num_outputs=outputs)
    model = Component(name, {} if source is None else {"pretrained": source}, kind)
    return build_model(dataset, model, Component("pretrained", {}), image_size=64, **options)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("torchvision", NAME),  # fc
        ("torchvision", "mobilenet_v3_small"),  # a classifier of two Linear layers
        ("torchvision", "convnext_tiny"),  # the last layer of a classifier
        ("timm", "convnext_atto"),  # head.fc
    ],
)
def test_the_networks_own_classifier_is_kept_with_its_weights(tmp_path, kind, name):
    torch.manual_seed(5)
    library = pytest.importorskip("timm").create_model if kind == "timm" else models.get_model
    network, path = library(name).eval(), tmp_path / "weights.pth"
    torch.save(network.state_dict(), path)
    model, images = own(str(path), name, kind).eval(), torch.rand(2, 3, 64, 64)
    assert torch.equal(model(images), network(images))
    report = model.weights
    assert (report.matched, report.unexpected) == (len(network.state_dict()), [])
    again = own(str(path), name, kind, load_weights=False, seed=1).eval()
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(images), model(images))
    save_file(model.state_dict(), tmp_path / "best.safetensors")  # as a run does
    assert torch.equal(
        own(str(tmp_path / "best.safetensors"), name, kind).eval()(images), again(images)
    )


def test_what_the_committed_scripts_train():
    """Recipes 2.8 (Q3): VGG-19 with batch norm and its own 1000-way classifier."""
    with torch.device("meta"):
        model = own("IMAGENET1K_V1", "vgg19_bn", load_weights=False)
    found = count(model, 3, 64)
    assert (found["total_parameters"], found["head_activations"]) == (143_678_248, 2 * 4096)


@pytest.mark.parametrize(
    ("source", "name", "kind", "outputs", "message"),
    [
        (None, NAME, "torchvision", 1000, r"model\.pretrained"),
        ("w.pth", "cifar_cnn", None, 1000, "torchvision or timm"),
        ("w.pth", "deit_tiny_distilled_patch16_224", "timm", 1000, "torchvision or timm"),
        ("w.pth", NAME, "torchvision", None, r"dataset\.num_outputs=1000"),
    ],
)
def test_a_classifier_that_cannot_be_kept_is_refused(source, name, kind, outputs, message):
    with torch.device("meta"), pytest.raises(UserError, match=message):
        own(source, name, kind, outputs)


def test_a_file_without_the_classifier_is_refused_for_keeping_it(whole, tmp_path):
    path = tmp_path / "changed.pth"
    torch.save({name: t for name, t in whole.items() if name != "fc.bias"}, path)
    with pytest.raises(UserError, match=r"head=pretrained"):
        own(str(path))


def test_a_run_that_keeps_the_classifier_is_used_like_any_other(whole, tmp_path):
    """Labels 0 to 9 among 1000 outputs, the rest named by their numbers."""
    path = tmp_path / "weights.pth"
    torch.save(whole, path)
    words = [f"model={NAME}", f"model.pretrained={path}", "head=pretrained"]
    trained = load_run(run(small(tmp_path, *words, "dataset.num_outputs=1000")).folder, "cpu")
    assert list(trained.classes) == [str(number) for number in range(1000)]
    batches, same = load_split(trained, "test")
    assert same and evaluate(trained, batches).correct == trained.record.test.selected.correct
    Image.new("L", (28, 28)).save(tmp_path / "black.png")
    (answer,) = predict(trained, [tmp_path / "black.png"])
    assert answer.shape == (1000,)
    export_run(trained, "safetensors", tmp_path / "out")
    exported = load_safetensors(tmp_path / "out" / "model.safetensors")
    images = torch.rand(3, 1, 28, 28)
    assert torch.equal(exported(images), trained.model(images))


def test_googlenet_computes_the_same_when_a_run_is_loaded_again(tmp_path):
    """With pretrained weights it converts its inputs; so it must without loading them."""
    path = tmp_path / "googlenet.pth"
    torch.save(models.googlenet(init_weights=False).state_dict(), path)
    trained = pretrained(str(path), "googlenet").eval()
    again = pretrained(str(path), "googlenet", load_weights=False).eval()
    scratch = build(Component("googlenet", {}, "torchvision")).eval()
    images = torch.rand(2, 3, 64, 64)
    assert again.weights is None and not torch.equal(again(images), trained(images))
    for model in (again, scratch):
        model.load_state_dict(trained.state_dict())
    assert torch.equal(again(images), trained(images))
    assert not torch.equal(scratch(images), trained(images))


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_weights_of_auxiliary_outputs_are_left_out_without_them(tmp_path, name):
    path, whole = tmp_path / f"{name}.pth", models.get_model(name, init_weights=False).state_dict()
    torch.save(whole, path)
    body = load_backbones().build("torchvision", {"name": name, "aux": False}, 3, 96)
    report = load_pretrained(body, str(path))
    assert report.missing == [] and report.matched == len(body.net.state_dict())
    assert {n.lower()[:3] for n in report.unexpected} == {"aux", "fc."}


def test_real_weights(real_data):
    path = real_data / "weights" / "tf_efficientnet_lite0.pth"
    if not path.is_file():
        pytest.skip(f"there is no {path}")
    body = load_backbones().build("timm", {"name": "tf_efficientnet_lite0"}, 3, 32)
    report = load_pretrained(body, str(path))
    assert (report.matched, report.missing) == (294, [])
    assert report.unexpected == ["classifier.weight", "classifier.bias"]
    assert body.mean == [0.5, 0.5, 0.5]


@pytest.fixture
def server(whole, tmp_path, monkeypatch) -> Iterator[mirror.Mirror]:
    """The weights behind the name IMAGENET1K_V1, with the checksum that torchvision verifies."""
    buffer = io.BytesIO()
    torch.save(whole, buffer)
    name = f"{NAME}-{mirror.sha256(buffer.getvalue())[:8]}.pth"
    entry = models.ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1
    before = torch.hub.get_dir()
    torch.hub.set_dir(tmp_path / "torch")
    with mirror.serving() as made:
        made.files[name] = buffer.getvalue()
        published = dataclasses.replace(entry.value, url=f"{made.url}{name}")
        monkeypatch.setattr(entry, "_value_", published)
        yield made
    torch.hub.set_dir(before)


def test_named_weights_are_downloaded_once_and_bring_their_normalisation(server, whole):
    built = pretrained("IMAGENET1K_V1")
    assert (built.weights.source, built.weights.sha256) == ("IMAGENET1K_V1", None)
    loaded = built.backbone.net.state_dict()
    assert all(torch.equal(tensor, whole[name]) for name, tensor in loaded.items())
    expected = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    assert normalisation(RecipeConfig(mean=None, std=None), built.backbone) == expected
    of_recipe = {"mean": [0.5], "std": [0.2]}
    assert normalisation(RecipeConfig(**of_recipe), built.backbone) == of_recipe
    pretrained("IMAGENET1K_V1")
    assert len(server.asked) == 1  # the second time from torch's cache


@pytest.mark.parametrize("wrong", ["bytes", "status"])
def test_a_download_that_fails_is_not_kept_and_points_to_a_file(server, wrong):
    ((name, good),) = server.files.items()
    if wrong == "bytes":
        server.files[name] = good[:-1] + b"x"
    else:
        server.status[name] = [503]
    with pytest.raises(UserError, match=r"model\.pretrained"):
        pretrained("IMAGENET1K_V1")
    server.files[name] = good
    assert pretrained("IMAGENET1K_V1").weights is not None


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
