"""Whatever a user gets wrong ends in one line that says what is right, and leaves no trace."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from spinal_repro.cli.train import EXIT_USAGE, check_overrides, main
from spinal_repro.config.compose import compose
from spinal_repro.errors import UserError

SCRIPT = Path(sys.executable).with_name("spinal-train")
# Run with torch and pandas made impossible to import, as if they were not installed.
WITHOUT_TORCH = """
import sys
for name in ("torch", "torchvision", "pandas", "sklearn"):
    sys.modules[name] = None
from spinal_repro.cli.train import main
sys.argv[0] = "spinal-train"
main()
"""

Result = tuple[int, str, str]


@pytest.fixture
def clean(tmp_path, monkeypatch) -> Path:
    """An empty working directory, and no settings from the environment."""
    folder = tmp_path / "cwd"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name in ("SPINAL_DATA", "SPINAL_RUNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # the command sets it; here it must not stay
    return folder


@pytest.fixture
def spinal_train(clean, monkeypatch, capsys) -> Callable[..., Result]:
    """Run the command in this process: exit code, standard output, standard error."""

    def run(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["spinal-train", *arguments])
        root = logging.getLogger()
        handlers, level = root.handlers[:], root.level
        try:
            with pytest.raises(SystemExit) as stop:
                main()
        finally:  # Hydra sets up logging onto the captured output
            root.handlers[:] = handlers
            root.setLevel(level)
        printed = capsys.readouterr()
        return int(stop.value.code or 0), printed.out, printed.err

    return run


def assert_one_message(result: Result, folder: Path, *named: str) -> None:
    code, out, err = result
    assert code != 0
    lines = err.splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("spinal-train: ")
    assert "Traceback" not in out + err
    for text in named:
        assert text in lines[0]
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    "arguments, named",
    [
        (["datset=mnist"], ["'datset'", "did you mean 'dataset'?"]),
        (["modle=vgg5"], ["'modle'", "did you mean 'model'?"]),
        (["++modle=vgg5"], ["'modle'", "did you mean 'model'?"]),
        (["+model=vgg5"], ["leave out the plus"]),
        (["model=vgg6"], ["no model 'vgg6'", "did you mean 'vgg"]),
        (["model=efficientnet_bo"], ["did you mean 'efficientnet_b"]),
        (["head=spinall"], ["no head 'spinall'", "did you mean 'spinal'?"]),
        (["head=nothing"], ["known: arch2, fc, linear, progressive, spinal"]),
        (["protocol=papr"], ["did you mean 'paper'?"]),
        (["dataset=null"], ["no dataset 'None'"]),
        (["head=spinal", "head.widht=8"], ["'head.widht'", "did you mean 'head.width'?"]),
        (["head.widht=8"], ["'head.widht'", "did you mean 'head.width'?"]),
        (["head.width=8"], ["head.width belongs to head=arch2, progressive or spinal"]),
        (["+head.widht=8", "head=spinal"], ["did you mean 'head.width'?"]),
        (["data.dir=x"], ["'data.dir'", "did you mean 'data.root'?"]),
        (["recipe.lr=abc"], ["lr", "'abc'"]),
        (["recipe.lr=0.1,0.2"], ["recipe.lr=0.1,0.2", "--multirun"]),
        (["recipe.epochs=-1"], ["recipe.epochs must be above 0, got -1"]),
        (["dataset=mnist", "+dataset.num_outputs=9"], ["num_outputs (9) is below"]),
        (["recipe.lr=[1"], ["'[1'"]),
        (["mnist"], ["mnist"]),
        (["--config-dir=nowhere", "dataset=digits"], ["nowhere"]),
        (["data.limit=10000000000000000000000"], ["data.limit must fit in 64 bits"]),
    ],
    ids=" ".join,
)
def test_mistakes_found_before_torch_is_needed(spinal_train, clean, arguments, named):
    assert_one_message(spinal_train(*arguments), clean, *named)


@pytest.mark.parametrize(
    "arguments, named",
    [
        (["head=spinal", "head.splits=640"], ["head 'spinal'", "empty slices", "splits=320"]),
        (["head=spinal", "head.shared=maybe"], ["head 'spinal'", "shared", "'maybe'"]),
        (["recipe.optimizer=sdg"], ["no optimizer 'sdg'", "did you mean 'sgd'?"]),
        (["recipe.augment=[{name: rotation}]"], ["augmentation 'rotation'", "degrees"]),
        (["dataset=mnist", "data.root=nowhere"], ["MNIST", "nowhere", "data.download=true"]),
    ],
    ids=" ".join,
)
def test_mistakes_found_before_training(spinal_train, clean, arguments, named):
    assert_one_message(spinal_train("runtime.device=cpu", *arguments), clean, *named)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there(spinal_train, clean):
    result = spinal_train("runtime.device=cuda")
    assert_one_message(result, clean, "runtime.device=cuda", "not available", "runtime.device=auto")


@pytest.mark.parametrize("arguments", [["runs=file"], ["-m", "runs=file", "seed=0,1"]], ids=str)
def test_a_runs_folder_that_cannot_be_one(spinal_train, tmp_path, clean, arguments):
    (tmp_path / "file").touch()
    arguments = [a.replace("runs=file", f"runs={tmp_path / 'file'}") for a in arguments]
    assert_one_message(spinal_train(*arguments), clean, f"{tmp_path / 'file'}")


def write_mnist(root: Path, cut: str) -> Path:
    """MNIST's four files with three blank images each; one lacks its last byte."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        images, labels = f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte"
        sizes = b"".join(size.to_bytes(4, "big") for size in (3, 28, 28))
        (raw / images).write_bytes(b"\0\0\x08\x03" + sizes + bytes(3 * 28 * 28))
        (raw / labels).write_bytes(b"\0\0\x08\x01" + sizes[:4] + bytes(3))
    (raw / cut).write_bytes((raw / cut).read_bytes()[:-1])
    return raw


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_a_truncated_file_is_named(spinal_train, tmp_path, clean, name):
    path = write_mnist(tmp_path / "data", name) / name
    result = spinal_train("dataset=mnist", f"data.root={tmp_path / 'data'}", "runtime.device=cpu")
    assert_one_message(result, clean, f"{name} is damaged", f"delete {path}")


@pytest.mark.parametrize(
    "arguments, named",
    [
        (["dataset=broken"], ["broken.yaml"]),
        (["dataset=typo"], ["'num_clases'", "did you mean 'num_classes'?"]),
        (["head=typo"], ["'widht'", "did you mean 'width'?"]),
        (["dataset=typpo"], ["did you mean 'typo'?"]),
    ],
    ids=" ".join,
)
def test_mistakes_in_yaml_of_ones_own(spinal_train, tmp_path, clean, arguments, named):
    for group in ("dataset", "head"):
        (tmp_path / "mine" / group).mkdir(parents=True)
    (tmp_path / "mine" / "dataset" / "broken.yaml").write_text("name: [mnist\n")
    (tmp_path / "mine" / "dataset" / "typo.yaml").write_text(
        "defaults: [digits, _self_]\nnum_clases: 3\n"
    )
    (tmp_path / "mine" / "head" / "typo.yaml").write_text("name: spinal\nwidht: 3\n")
    result = spinal_train("--config-dir", str(tmp_path / "mine"), *arguments)
    assert_one_message(result, clean, *named)


def test_choices_of_ones_own_may_be_overridden_whichever_folder_has_them(tmp_path, clean):
    for folder, setting in (("one", "width: 3"), ("two", "layers: 3")):
        (tmp_path / folder / "head").mkdir(parents=True)
        (tmp_path / folder / "head" / f"{folder}.yaml").write_text(f"name: spinal\n{setting}\n")
    folders = ["--config-dir", f"{tmp_path}/one", f"hydra.searchpath=[file://{tmp_path}/two]"]
    check_overrides([*folders, "head=one", "head.width=4"])
    check_overrides([*folders, "head=two", "head.layers=4"])
    with pytest.raises(UserError, match=r"did you mean 'head\.layers'"):
        check_overrides([*folders, "head=two", "head.layer=4"])


@pytest.mark.parametrize(
    "arguments",
    [
        ["dataset=mnist", "model=vgg5", "head=spinal", "head.width=4", "seed=3"],
        ["-m", "head=fc,spinal", "seed=range(0,3)"],
        ["-m", "dataset=glob(*mnist)"],
        ["dataset=emnist_digits", "dataset.options.split=digits"],
        ["dataset=mnist", "+dataset.num_outputs=62", "+dataset.label_offset=1"],
        ["recipe.lr_rule={name: redraw, power: 5}", "recipe.augment=[]"],
        ["model=vgg5", "~recipe.lr_rule.power", "hydra.verbose=true"],
    ],
    ids=" ".join,
)
def test_right_overrides_pass(clean, arguments):
    check_overrides(arguments)


def test_a_sweep_names_every_job_that_cannot_be_run(spinal_train):
    code, _, err = spinal_train("-m", "recipe.epochs=-1,-2,3")
    assert code == EXIT_USAGE
    assert "no job was started" in err and "Traceback" not in err
    assert "recipe.epochs=-1: " in err and "recipe.epochs=-2: " in err
    assert "recipe.epochs=3" not in err


def test_a_sweep_with_a_typo_starts_nothing(spinal_train, clean):
    assert_one_message(spinal_train("-m", "head=fc,spinall", "seed=0,1"), clean, "'spinal'")


# The command as installed


def test_a_sweep_of_nothing_is_no_success(spinal_train):
    code, _, err = spinal_train("-m", "seed=range(0)")
    assert code == 2 and err == (
        "spinal-train: this sweep has no runs: one of its lists or ranges is empty\n"
    )


def in_a_process(command: list[str], folder: Path) -> Result:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SPINAL_", "HYDRA_"))}
    done = subprocess.run(command, cwd=folder, env=kept, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def test_the_installed_command(clean):
    if not SCRIPT.exists():
        pytest.skip(f"{SCRIPT.name} is not installed beside this Python")
    result = in_a_process([str(SCRIPT), "datset=mnist"], clean)
    assert_one_message(result, clean, "did you mean 'dataset'?")
    assert result[0] == EXIT_USAGE


@pytest.mark.parametrize(
    "argument, message", [("recipe.lr=abc", "'abc'"), ("recipe.epochs=-1", "got -1")]
)
def test_a_configuration_is_checked_without_torch(clean, argument, message):
    result = in_a_process([sys.executable, "-c", WITHOUT_TORCH, argument], clean)
    assert_one_message(result, clean, message)


def test_explain_names_the_file_or_the_override_of_each_setting(spinal_train, tmp_path, clean):
    (tmp_path / "head").mkdir()
    (tmp_path / "head" / "mine.yaml").write_text("name: spinal\nwidth: 3\n")
    words = ["dataset=fashion_mnist", "model=vgg5", "head=mine", "recipe.lr=0.5", "seed=3"]
    code, out, err = spinal_train("--explain", "--config-dir", str(tmp_path), *words)
    assert (code, err) == (0, "")
    lines = [line.split() for line in out.splitlines() if line]
    found = {line[0]: (line[1], line[-1]) for line in lines}
    assert found["recipe.lr"] == ("0.5", "recipe.lr=0.5") and found["seed"] == ("3", "seed=3")
    assert found["recipe.mean"] == ("[0.5]", "recipe/on/fashion_mnist_vgg5.yaml")
    assert found["recipe.batch_size"] == ("100", "recipe/vgg5.yaml")
    assert found["head.width"] == ("3", str(tmp_path / "head" / "mine.yaml"))
    assert found["data.root"] == ("data", "train.yaml")
    config = compose(words, tmp_path)
    assert len(found) > 50 and found["model.name"][0] == config.model.name
    assert list(clean.iterdir()) == []


@pytest.mark.parametrize(
    "arguments, shown",
    [
        (["--help"], ["dataset: ", "kmnist", "head: arch2, fc, linear", "recipe:"]),
        (["--cfg", "job", "head=spinal", "model=vgg5"], ["width: 128", "name: vgg5", "seed: 0"]),
    ],
    ids=" ".join,
)
def test_help_and_configuration_are_shown_without_torch(clean, arguments, shown):
    code, out, err = in_a_process([sys.executable, "-c", WITHOUT_TORCH, *arguments], clean)
    assert (code, err) == (0, "")
    for text in shown:
        assert text in out
    assert list(clean.iterdir()) == []


def test_importing_the_commands_imports_nothing_heavy(clean):
    code = (
        "import sys, spinal_repro.cli.train, spinal_repro.cli.spinal\n"
        "heavy = ('torch', 'torchvision', 'pandas', 'sklearn', 'numpy', 'matplotlib')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    assert in_a_process([sys.executable, "-c", code], clean) == (0, "[]\n", "")
