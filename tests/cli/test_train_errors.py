"""Whatever a user gets wrong ends in one line and leaves no trace; more in test_messages.py."""

import pytest
import torch
from helpers.composing import composed

from spinal_repro.cli.train import check_overrides
from spinal_repro.errors import UserError


def assert_refused(ended, folder, named: str) -> None:
    """One line, which names the mistake or the nearest right word, and nothing written."""
    assert ended.code == 2 and ended.out == ""
    (line,) = ended.err.splitlines()
    assert line.startswith("spinal-train: ") and named in line
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    "words, named",
    [
        ("++modle=vgg5", "'model'"),
        ("+model=vgg5", "+model=vgg5"),
        ("model=efficientnet_bo", "'efficientnet_b"),
        ("head=nothing", "arch2, fc, linear, pretrained, progressive, spinal"),
        ("dataset=null", "'None'"),
        ("+head.widht=8 head=spinal", "'head.width'"),
        ("recipe.lr=0.1,0.2", "--multirun"),
        ("recipe.lr=[1", "'[1'"),
        ("mnist", "mnist"),
        ("--config-dir=nowhere dataset=digits", "nowhere"),
        ("runs=../file", "file"),
        ("-m runs=../file seed=0,1", "file"),
        ("--config-dir=../mine dataset=broken", "broken.yaml"),
        ("--config-dir=../mine dataset=typpo", "'typo'"),
        ("--config-dir=../mine dataset=typo", "'num_classes'"),
        ("--config-dir=../mine head=typo", "'width'"),
        ("recipe.epoch=1", "'recipe.epochs'"),
        ("recipe.optimizer=adamww", "'adamw'"),
        ("recipe.optimizer=adamw recipe.momentum=0.9", "recipe.momentum=0 with adamw"),
        ("recipe.optimizer=adam recipe.nesterov=true recipe.momentum=0", "recipe.nesterov=true"),
        ("recipe.optimizer=sgd recipe.nesterov=true recipe.momentum=0", "recipe.momentum"),
        ("recipe.backbone_lr_scale=0", "recipe.backbone_lr_scale"),
        ("recipe.backbone_lr_scale=0.1 model=flatten", "recipe.backbone_lr_scale"),
        ("recipe.backbone_lr_scale=0.1 model.freeze=backbone", "recipe.backbone_lr_scale"),
        ("recipe.clip_grad=0", "recipe.clip_grad"),
        ("recipe.ema=1", "recipe.ema"),
        ("recipe.patience=-1", "recipe.patience"),
        ("recipe.patience=2 'recipe.stages={2: 0.1}'", "recipe.stages"),
        ("recipe.mixup=-1", "recipe.mixup"),
        ("recipe.cutmix=a", "cutmix"),
        ("recipe.class_weights=balance", "recipe.class_weights"),
        ("recipe.sampler=random", "recipe.sampler"),
        ("runtime.precision=fp16", "runtime.precision"),
        ("dataset=folder model=timm recipe.prepare.eval.resize=128", "prepare.eval.crop=128"),
        ("seed=null", "seed"),
        ("seed=a", "seed"),
        ("recipe.epochs=0", "recipe.epochs"),
        ("'recipe.lr_rule={name: cosin}'", "'cosine'"),
        ("'recipe.lr_rule={name: cosine, warmup: 9}' recipe.epochs=9", "warmup"),
        ("'recipe.lr_rule={name: cosine, min_lr: 1}' recipe.lr=1", "min_lr"),
        (
            "'recipe.lr_rule={name: cosine, warmup: 2}' 'recipe.stages={3: 1}' recipe.epochs=4",
            "warmup",
        ),
        ("recipe.lr_rule=step", "lr_rule"),
        ("recipe.optimizer=nosuch", "'nosuch'"),
        ("'recipe.augment=[{name: rotation, degree: 3}]'", "'degrees'"),
        ("'recipe.augment=[{degrees: 3}]'", "needs a name"),
        ("recipe.augment=[3]", "recipe"),
        ("'recipe.stages={2: a}'", "stages"),
        ("recipe.prepare=3", "prepare"),
        ("model=torchvision model.name=resnet5", "'resnet5'"),
        ("model.freeze=all", "model.freeze"),
        ("head.hidden=[0]", "hidden"),
        ("head.dropout=[2]", "dropout"),
        ("dataset.source=nosuch", "'nosuch'"),
        ("'dataset.options={x: 1}'", "'x'"),
        ("dataset.num_classes=5", "5 outputs"),
        ("dataset.image_size=2", "2 px"),
        ("protocol.split_seed=-1", "split_seed"),
        ("runtime.device=cpu:1", "cpu:1"),
        ("recipe.batch_size=1 head.norm=true data.limit=20", "batch norm"),
    ],
)
def test_a_mistake_is_refused(call, here, words, named):
    mine = here.parent / "mine"
    for name, text in {
        "dataset/broken": "name: [mnist\n",
        "dataset/typo": "defaults: [digits, _self_]\nnum_clases: 3\n",
        "head/typo": "name: spinal\nwidht: 3\n",
    }.items():
        (mine / name).parent.mkdir(parents=True, exist_ok=True)
        (mine / f"{name}.yaml").write_text(text)
    (here.parent / "file").touch()
    assert_refused(call(f"spinal-train {words}"), here, named)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there(call, here):
    assert_refused(call("spinal-train runtime.device=cuda"), here, "runtime.device=auto")


def test_choices_of_ones_own_may_be_overridden_whichever_folder_has_them(tmp_path):
    for folder, setting in (("one", "width: 3"), ("two", "layers: 3")):
        (tmp_path / folder / "head").mkdir(parents=True)
        (tmp_path / folder / "head" / f"{folder}.yaml").write_text(f"name: spinal\n{setting}\n")
    folders = ["--config-dir", f"{tmp_path}/one", f"hydra.searchpath=[file://{tmp_path}/two]"]
    check_overrides([*folders, "head=one", "head.width=4"])
    check_overrides([*folders, "head=two", "head.layers=4"])
    with pytest.raises(UserError, match=r"'head\.layers'"):
        check_overrides([*folders, "head=two", "head.layer=4"])


@pytest.mark.parametrize(
    "words",
    [
        "-m dataset=glob(*mnist)",
        "dataset=mnist +dataset.num_outputs=62 +dataset.label_offset=1",
        "model=vgg5 ~recipe.lr_rule.power hydra.verbose=true",
        "dataset=mnist dataset.about={}",  # a mapping that only the chosen YAML has
    ],
)
def test_right_overrides_pass(words):
    check_overrides(words.split())


def test_explain_names_the_file_or_the_override_of_each_setting(call, here):
    (here / "head").mkdir()
    mine = here / "head" / "mine.yaml"
    mine.write_text("name: spinal\nwidth: 3\n")
    words = "dataset=fashion_mnist model=vgg5 head=mine recipe.lr=0.5"
    ended = call(f"spinal-train --explain --config-dir {here} {words}")
    assert (ended.code, ended.err) == (0, "")
    lines = [line.split() for line in ended.out.splitlines() if line]
    found = {line[0]: (line[1], line[-1]) for line in lines}
    assert found["recipe.lr"] == ("0.5", "recipe.lr=0.5") and found["data.root"][1] == "train.yaml"
    assert found["recipe.mean"] == ("[0.5]", "recipe/on/fashion_mnist_vgg5.yaml")
    assert found["recipe.batch_size"] == ("100", "recipe/vgg5.yaml")
    assert found["head.width"] == ("3", str(mine))
    assert len(found) > 50 and found["model.name"][0] == composed("model=vgg5").model.name
    assert not (here / "runs").exists()


def test_settings_may_stand_before_and_after_options(call, here):
    ended = call("spinal-train data.limit=7 --cfg job recipe.epochs=5 --package recipe model=vgg5")
    assert ended.code == 0 and "epochs: 5" in ended.out and "limit" not in ended.out


def test_help_names_every_choice_those_of_one_s_own_too(call, here):
    (here / "head").mkdir()
    (here / "head" / "mine.yaml").write_text("name: linear\n")
    ended = call(f"spinal-train --config-dir {here} --help")
    groups = dict(line.strip().split(": ", 1) for line in ended.out.splitlines() if ": " in line)
    assert "vgg5" in groups["model"].split(", ") and "mnist" in groups["dataset"].split(", ")
    assert "mine" in groups["head"].split(", ")
