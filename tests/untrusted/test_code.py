"""Files that would run code the naive way, and do not here. Each test shows the naive way too."""

import contextlib
import hashlib
import logging
import pickle
import sys
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hydra.errors import HydraException
from omegaconf import OmegaConf
from safetensors.torch import save_file
from stopping import small
from torch import nn
from torchvision import datasets as tv

from spinal_repro.cli.train import main as train
from spinal_repro.config import compose, config_dir
from spinal_repro.data.cifar import read_batch
from spinal_repro.data.kept import load_images, write_sum
from spinal_repro.data.sources import load_dataset
from spinal_repro.errors import UserError
from spinal_repro.foreign import guarded
from spinal_repro.pretrained import load_pretrained, read_tensors
from spinal_repro.reading import read_yaml
from spinal_repro.records import stored_config
from spinal_repro.training.checkpoint import load_checkpoint
from spinal_repro.training.run import _prepare


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Is there once code from a file has run."""
    return tmp_path / "code-has-run"


def ran(trace: Path) -> bool:
    found = trace.exists()
    trace.unlink(missing_ok=True)
    return found


@pytest.mark.parametrize("new", [True, False], ids=["zip", "old"])
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin"])
def test_weights_with_code_in_them(tmp_path, trace, new, suffix):
    path = tmp_path / f"weights{suffix}"
    content = {"weight": torch.ones(2, 2), "bias": Evil(trace)}
    torch.save(content, path, _use_new_zipfile_serialization=new)
    torch.load(path, weights_only=False)
    assert ran(trace), "the naive way runs it"
    with pytest.raises(UserError, match=r"could run code.*safetensors"):
        read_tensors(path)
    assert not ran(trace)


def test_a_checkpoint_with_code_in_it(tmp_path, trace):
    path = tmp_path / "last.pt"
    torch.save({"model": Evil(trace), "optimizer": {}, "state": {}}, path)
    torch.load(path, weights_only=False)
    assert ran(trace), "the naive way runs it"
    trainer = _prepare(small(tmp_path), torch.device("cpu")).trainer
    with pytest.raises(UserError, match=r"last\.pt"):
        load_checkpoint(tmp_path, trainer)
    assert not ran(trace)


def test_a_batch_of_cifar_with_code_in_it(tmp_path, trace, monkeypatch):
    """Even where its sum is the one that is asked for."""
    folder = tmp_path / tv.CIFAR10.base_folder
    folder.mkdir()
    pixels = np.zeros((1, 3072), np.uint8)
    sums = {}
    for name in ("train", "test", "meta"):
        table = {"data": pixels, "labels": [Evil(trace)], "label_names": ["a"] * 10}
        (folder / name).write_bytes(pickle.dumps(table, protocol=2))
        sums[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()
    monkeypatch.setattr(tv.CIFAR10, "train_list", [["train", sums["train"]]])
    monkeypatch.setattr(tv.CIFAR10, "test_list", [["test", sums["test"]]])
    meta = {"filename": "meta", "key": "label_names", "md5": sums["meta"]}
    monkeypatch.setattr(tv.CIFAR10, "meta", meta)
    tv.CIFAR10(tmp_path)
    assert ran(trace), "torchvision's own class runs it"
    with pytest.raises(UserError, match="no file of CIFAR: it names "):
        load_dataset(compose(["dataset=cifar10"]).dataset, tmp_path)
    assert not ran(trace)


@pytest.mark.parametrize(
    "content",
    [
        b"cposix\nsystem\n(S'false'\ntR.",
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cnumpy\nload\n(S'x'\ntR.",
        b"cnumpy.core.multiarray\nfromfile\n(S'/etc/passwd'\ntR.",
        b"",
    ],
)
def test_pickles_that_name_other_things(content):
    with pytest.raises(ValueError):
        read_batch(content)


def test_a_place_in_a_table_of_two_thousand_million():
    """The unpickler in C would make that table, of 16 GB."""
    tracemalloc.start()
    assert read_batch(b"\x80\x02}r\xff\xff\xff\x7f.") == {}
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_kept_images_with_code_in_them(tmp_path, trace, capsys):
    path = tmp_path / "kept.npy"
    np.save(path, np.array([Evil(trace)], dtype=object), allow_pickle=True)
    np.load(path, allow_pickle=True)
    assert ran(trace), "the naive way runs it"
    write_sum(path, np.zeros((1,), np.uint8))
    assert load_images(path, (1,)) is None and not ran(trace)
    assert "decoding anew" in capsys.readouterr().err


def test_a_configuration_that_makes_objects(tmp_path, trace):
    path = tmp_path / "config.yaml"
    path.write_text(f"x: !!python/object/apply:pathlib.Path.touch [!!python/name:str '{trace}']\n")
    evil = f"!!python/object/apply:os.mkdir ['{trace}']"
    yaml.unsafe_load(evil)
    assert trace.is_dir(), "the naive way runs it"
    trace.rmdir()
    path.write_text(evil)
    with pytest.raises(UserError, match=r"config\.yaml cannot be read"):
        read_yaml(path)
    assert not trace.exists()


def in_process(monkeypatch, capsys, *arguments: str) -> str:
    """What ``spinal-train`` says on standard error; Hydra's logging is put back."""
    monkeypatch.setattr(sys, "argv", ["spinal-train", *arguments])
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        with pytest.raises(SystemExit) as stop:
            train()
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    assert stop.value.code == 2
    return str(capsys.readouterr().err)


RECIPE = "# @package _global_\ndefaults: [/recipe/cnn@recipe]\nhydra:\n  hydra_logging:\n"
HANDLER = "    handlers: {{evil: {{class: logging.FileHandler, filename: {trace}}}}}\n"


def test_a_folder_of_configuration_that_sets_up_hydra(tmp_path, trace, monkeypatch, capsys):
    """Hydra calls what its settings name: here a handler of logging, which makes a file."""
    from hydra import main as hydra_main

    (tmp_path / "own" / "recipe").mkdir(parents=True)
    text = RECIPE + HANDLER.format(trace=trace)
    (tmp_path / "own" / "recipe" / "good_looking.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    arguments = ["--config-dir", str(tmp_path / "own"), "recipe=good_looking"]
    monkeypatch.setattr(sys, "argv", ["naive", *arguments])
    where = str(config_dir().resolve())
    handlers = logging.getLogger().handlers[:]
    with contextlib.suppress(SystemExit):
        hydra_main(version_base="1.3", config_path=where, config_name="train")(lambda c: None)()
    logging.getLogger().handlers[:] = handlers
    assert ran(trace), "the naive way does as the file says"
    assert "settings of Hydra's own" in in_process(monkeypatch, capsys, *arguments)
    assert not ran(trace)


EVIL = "# @package hydra\ncallbacks: {{x: {{_target_: logging.FileHandler, filename: {trace}}}}}\n"
BARE = "{{_target_: logging.FileHandler, filename: {trace}}}\n"
RECIPE_X = ["dataset=digits", "recipe=x", "recipe.epochs=1", "data.limit=96"]
SHIPPED = ["dataset=digits", "recipe=cnn", "recipe.epochs=1", "data.limit=96"]
TWO = ["-m", "dataset=digits", "recipe=cnn,x", "recipe.epochs=1", "data.limit=96"]


@pytest.mark.parametrize(
    ("files", "arguments"),
    [
        pytest.param({"recipe/x": EVIL}, RECIPE_X, id="package"),
        pytest.param(
            {"recipe/x": "# @package _global_.hydra.callbacks\nx: " + BARE}, RECIPE_X, id="below"
        ),
        pytest.param({"recipe/x": RECIPE + HANDLER}, RECIPE_X, id="key"),
        pytest.param({"recipe/x": "# @package hydra.callbacks.x\n" + BARE}, RECIPE_X, id="deep"),
        pytest.param(
            {"recipe/x": "# @package _global_\nhydra: ${{evil}}\nevil: {{x: 1}}\n"},
            RECIPE_X,
            id="reference",
        ),
        pytest.param(
            {"recipe/x": "defaults: [cnn, /model/y@_global_.hydra.callbacks.x]\n", "model/y": BARE},
            RECIPE_X,
            id="package in defaults",
        ),
        pytest.param(
            {"recipe/x": "# @package _global_\ndefaults: [/recipe/cnn@hydra.callbacks.x]\n"},
            RECIPE_X,
            id="shipped file there",
        ),
        pytest.param({"../stuff/x": EVIL, "recipe": "../stuff"}, RECIPE_X, id="linked folder"),
        pytest.param({"hydra/stuff/x": EVIL, "recipe": "hydra/stuff"}, RECIPE_X, id="link inside"),
        pytest.param(
            {"../evil": EVIL, "recipe/x": "defaults: [cnn, ../../evil]\n"}, RECIPE_X, id="up"
        ),
        pytest.param(
            {"../evil": EVIL, "recipe/x": "defaults: [cnn, /../evil]\n"}, RECIPE_X, id="root, up"
        ),
        pytest.param(
            {"../evil": EVIL, "recipe/x": "defaults: [cnn, /recipe: ../../evil]\n"},
            RECIPE_X,
            id="group, up",
        ),
        pytest.param(
            {
                "hydra/evil": EVIL,
                "recipe/x": "defaults: [cnn, /recipe: '../hy${{oc.decode:dra}}/evil']\n",
            },
            RECIPE_X,
            id="put together",
        ),
        pytest.param(
            {"../evil": EVIL, "recipe/x": "defaults: [cnn, /{folder}/../evil]\n"},
            RECIPE_X,
            id="absolute, up",
        ),
        pytest.param(
            {"../evil": EVIL, "recipe/x": "defaults: [cnn, /{folder.parent}/evil]\n"},
            RECIPE_X,
            id="absolute",
        ),
        pytest.param(
            {"hydra/launcher/basic": "_target_: logging.FileHandler\n"}, SHIPPED, id="Hydra's own"
        ),
        pytest.param({"hydra/launcher/processes": BARE}, ["-m", *SHIPPED], id="in place of ours"),
        pytest.param({"recipe/x": EVIL}, TWO, id="one of two jobs"),
        pytest.param({"recipe/x": EVIL}, [*RECIPE_X, "--cfg=job"], id="shown"),
    ],
)
@pytest.mark.parametrize("given", ["--config-dir={}", "hydra.searchpath=[{}]"])
def test_every_way_to_hydras_settings(
    tmp_path_factory, trace, files, arguments, given, monkeypatch, capsys
):
    """Text is written into a file, a bare name is where a link leads."""
    folder = tmp_path_factory.mktemp("own") / "conf"  # no name with "hydra" in it
    for name, text in files.items():
        path = folder / (f"{name}.yaml" if "\n" in text else name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if "\n" in text:
            path.write_text(text.format(trace=trace, folder=folder))
        else:
            path.symlink_to(text)
    monkeypatch.chdir(folder.parent)
    words = sorted([given.format(folder), *arguments], key=lambda word: word[0] != "-")
    said = in_process(monkeypatch, capsys, *words)
    assert "settings of Hydra's own" in said or "leads out of its folder" in said
    assert not trace.exists()


@pytest.mark.parametrize(
    "text",
    [
        "# @package _global_\ndefaults: [{override /hydra/job_logging: disabled}]\n",
        "defaults: [{override /hydra/launcher: processes}]\n",
        "defaults: [cnn, /model/cnn@hydra.callbacks.x]\n",
        "hydra: {job_logging: {}}\n",
    ],
)
def test_what_does_not_reach_hydras_settings_changes_nothing(tmp_path, text):
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir

    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe" / "x.yaml").write_text(text)
    search = f"hydra.searchpath=[{tmp_path}]"

    def settings(*overrides: str) -> dict:
        config = hydra_compose("train", [search, *overrides], return_hydra_config=True)
        plain = OmegaConf.to_container(config.hydra, resolve=False)
        return {k: v for k, v in plain.items() if k not in ("runtime", "overrides", "job")}

    with guarded(), initialize_config_dir(str(config_dir().resolve()), version_base="1.3"):
        plain = settings()
        with contextlib.suppress(HydraException):
            assert settings("recipe=x") == plain


def test_a_launcher_of_ones_own_that_is_asked_for(tmp_path):
    """With files of its own below ``hydra/``, which came along with it."""
    own = {"mine": "defaults: [base]\n", "base": "defaults: [site]\n", "site": "queue: x\n"}
    (tmp_path / "hydra" / "launcher").mkdir(parents=True)
    for name, text in own.items():
        (tmp_path / "hydra" / "launcher" / f"{name}.yaml").write_text(text)
    assert compose(["hydra/launcher=mine"], extra_dir=tmp_path) == compose([])


@pytest.mark.parametrize("option", ["--config-path=x", "-cn=x", "--experimental-rerun=x.pickle"])
def test_another_configuration_altogether(option, monkeypatch, capsys):
    assert "would replace this program's" in in_process(monkeypatch, capsys, option)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recipe": {"_target_": "os.system"}}, "no option of recipe '_target_'"),
        ({"dataset": {"options": {"_target_": "os.system"}}}, "no option of the data set digits"),
        ({"model": {"_target_": "os.system"}}, "no option of model 'cnn' '_target_'"),
        ({"head": {"_target_": "os.system", "_args_": ["x"]}}, "no option of head 'fc' '_target_'"),
        ({"recipe": {"augment": [{"_target_": "os.system"}]}}, "recipe.augment needs a name"),
        ({"recipe": {"lr_rule": {"name": "constant", "_target_": "x"}}}, "'_target_'"),
        ({"_target_": "os.system"}, "no configuration key '_target_'"),
        ({"hydra": {"run": {"dir": "/"}}}, "settings of Hydra's"),
        ({"dataset": {"name": "../../x"}}, r"dataset\.name must be made of letters"),
        ({"model": {"name": "hf_hub:somebody/model", "kind": "timm"}}, r"model\.name must be made"),
        ({"protocol": {"name": "a/b"}}, r"protocol\.name must be made of letters"),
    ],
)
def test_configurations_that_name_code_or_lead_outside(tmp_path, change, message):
    from spinal_repro.training.run import run

    stored = compose(["recipe.epochs=1", "data.limit=100"]).to_dict() | {"runs": str(tmp_path)}
    for group, settings in change.items():
        merged = isinstance(settings, dict)
        stored[group] = {**stored.get(group, {}), **settings} if merged else settings
    with pytest.raises(UserError, match=message):
        run(stored_config(stored))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_that_are_not_finite(tmp_path, value, suffix):
    model = nn.Sequential(nn.Linear(3, 2))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    bad = {"0.weight": torch.ones(2, 3), "0.bias": torch.zeros(2)}
    bad["0.weight"][0, 1] = value
    path = tmp_path / f"weights{suffix}"
    save_file(bad, path) if suffix == ".safetensors" else torch.save(bad, path)
    with pytest.raises(UserError, match=r"1 of the 6 values of '0\.weight'"):
        load_pretrained(model, str(path))
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in before)


def test_weights_that_unpack_to_more_than_they_are(tmp_path):
    path, packed = tmp_path / "weights.pth", tmp_path / "packed.pth"
    torch.save({"weight": torch.zeros(1_000_000)}, path)
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as out:
        for name in whole.namelist():
            out.writestr(name, whole.read(name))
    assert packed.stat().st_size < path.stat().st_size / 100
    with pytest.raises(UserError, match="unpacks to 4,"):
        read_tensors(packed)
    assert read_tensors(path)["weight"].shape == (1_000_000,)


def test_weights_with_one_bit_wrong(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"weight": torch.ones(1000)}, path)
    data = bytearray(path.read_bytes())
    data[data.index(b"\0\0\x80\x3f" * 10) + 2] ^= 1
    path.write_bytes(data)
    naive = torch.load(path, weights_only=True)["weight"]
    assert int((naive != 1).sum()) == 1, "PyTorch does not look at the sums"
    with pytest.raises(UserError, match="is damaged: the sum of"):
        read_tensors(path)
