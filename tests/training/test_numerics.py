"""Numbers that are none, deterministic operations, and the check against the CPU."""

import math
from types import SimpleNamespace

import pytest
import torch
from stopping import signal_at, small
from torch import nn

from spinal_repro.cli.spinal import main as spinal
from spinal_repro.environment import backend_settings
from spinal_repro.errors import UserError
from spinal_repro.files import read_json
from spinal_repro.model import build_model
from spinal_repro.training import assist, checkpoint, finite, loop, selfcheck
from spinal_repro.training import run as run_module
from spinal_repro.training.evaluation import evaluate
from spinal_repro.training.replay import replay
from spinal_repro.training.run import run
from spinal_repro.training.stop import Interrupted

CPU = torch.device("cpu")


def test_a_diverging_run_is_stopped_named_and_repeated(tmp_path, capsys):
    config = small(tmp_path, "recipe.optimizer=sgd", "recipe.lr=1e30")
    with pytest.raises(UserError, match=r"step \d of 3 in epoch 1 .*spinal replay") as stopped:
        run(config)
    failure = read_json(config.run_dir / "failure.json")
    assert failure["epoch"] == 1 and len(failure["images"]) == 32
    named = ", ".join(map(str, failure["images"][:8]))
    assert f"(training images {named}, ...)" in str(stopped.value)
    before = {path: path.read_bytes() for path in config.run_dir.iterdir()}

    found = replay(config.run_dir)
    assert found.epoch == 1 and found.step <= failure["step"]  # it looks more closely
    assert "inf" in found.what or "nan" in found.what
    spinal(["replay", str(config.run_dir)])
    printed = capsys.readouterr().out
    assert f"epoch 1, step {found.step}, learning rate 1e+30: {found.what}" in printed
    assert ", ".join(map(str, found.images)) in printed
    assert {path: path.read_bytes() for path in config.run_dir.iterdir()} == before


def test_a_gradient_that_is_none_is_named(tmp_path, monkeypatch):
    """Its own loss is fine; the message names its batch, and the replay says that it was it."""
    train, calls = loop.training_loss, []

    def training_loss(*given):
        logits, loss = train(*given)
        calls.append(1)
        if len(calls) == 2:
            loss.register_hook(lambda gradient: gradient * float("inf"))
        return logits, loss

    monkeypatch.setattr(loop, "training_loss", training_loss)
    config = small(tmp_path)
    with pytest.raises(UserError, match=r"the loss is nan at step 3 of 3 in epoch 1") as stopped:
        run(config)
    calls.clear()
    found = replay(config.run_dir)
    assert found.step == 2 and found.what.startswith("the gradient of")
    failure = read_json(config.run_dir / "failure.json")
    assert failure["images_of_step_before"] == found.images != failure["images"]
    named = ", ".join(map(str, found.images[:8]))
    assert f"or already in the gradient of step 2 (training images {named}, ...)" in str(
        stopped.value
    )


def test_replay_goes_on_from_the_checkpoint(tmp_path, monkeypatch):
    """The second epoch diverges; nothing is found where nothing is wrong."""
    config = small(tmp_path, "recipe.optimizer=sgd", "recipe.lr=0.01", "recipe.stages={2: 1e30}")
    with pytest.raises(UserError, match="in epoch 2"):
        run(config)
    assert replay(config.run_dir).epoch == 2
    fine = small(tmp_path)
    save, calls = run_module.save_checkpoint, []

    def stop(*given):
        save(*given)
        raise KeyboardInterrupt(calls)

    monkeypatch.setattr(run_module, "save_checkpoint", stop)
    with pytest.raises(KeyboardInterrupt):
        run(fine)
    assert replay(fine.run_dir) is None
    with pytest.raises(SystemExit):
        spinal(["replay", str(fine.run_dir)])
    with pytest.raises(UserError, match="is no run folder"):
        replay(tmp_path)


def test_the_images_named_are_those_of_the_batch(tmp_path):
    setup = run_module._prepare(small(tmp_path), CPU)
    batches = setup.trainer.train
    pixels = run_module.load_dataset(small(tmp_path).dataset, "data", False).train
    for step, (images, labels) in enumerate(batches.epoch(3, 2), 1):
        named = batches.images(3, 2, step)
        assert torch.equal(batches._normalise(pixels.images[named].float()), images)
        assert batches.labels_at(3, 2, step) == labels.tolist()
    assert step == 3


def test_skipped_batches_leave_the_others_as_they_are(tmp_path):
    trainer = run_module._prepare(
        small(tmp_path, "recipe.augment=[{name: rotation, degrees: 10}]"), CPU
    ).trainer
    whole = list(trainer.train.epoch(0, 1, trainer.augmentations))
    for skip in range(4):
        rest = list(trainer.train.epoch(0, 1, trainer.augmentations, skip))
        assert len(rest) == 3 - skip
        for mine, other in zip(rest, whole[skip:], strict=True):
            assert torch.equal(mine[0], other[0]) and torch.equal(mine[1], other[1])


@pytest.mark.parametrize("where", ["weight", "buffer", "optimizer"])
def test_nothing_that_is_not_finite_is_ever_saved(tmp_path, monkeypatch, where):
    """Spoiled by the very last step, when no loss shows it any more."""
    config = small(tmp_path, "head=fc", "head.norm=true", "recipe.optimizer=adam")
    train, calls = loop.training_loss, []
    setup = {}
    prepare = run_module._prepare
    monkeypatch.setattr(
        run_module, "_prepare", lambda *given: setup.setdefault("it", prepare(*given))
    )

    def spoil(optimizer, *_):
        calls.append(1)
        if len(calls) == 3:
            model = setup["it"].trainer.model
            buffer = next(b for n, b in model.named_buffers() if "running_var" in n)
            tensor = {
                "weight": next(model.parameters()).data,
                "buffer": buffer,
                "optimizer": next(iter(optimizer.state.values()))["exp_avg_sq"],
            }[where]
            tensor.view(-1)[0] = float("inf")

    def training_loss(*given):
        if not calls:
            setup["it"].trainer.optimizer.register_step_post_hook(spoil)
        return train(*given)

    monkeypatch.setattr(loop, "training_loss", training_loss)
    with pytest.raises(UserError, match="is not finite at step 3 of 3 in epoch 1"):
        run(config)
    assert not (config.run_dir / "last.pt").exists()


def test_a_model_without_weights_is_finite():
    none = SimpleNamespace(state={})
    assert finite.finite_weights(nn.Identity(), none) == {}


# Evaluations

LINEAR = ["dataset=digits", "model=flatten", "head=linear", "recipe.batch_size=96"]  # a step each
OVERFLOWING = 57  # position in the test part: in its second batch of 40


def said_again(config) -> str:
    """What a run says that is stopped, the same each time, with nothing changed."""
    said, left = [], []
    for _ in range(2):
        with pytest.raises(UserError, match="To repeat that batch: spinal replay") as stopped:
            run(config)
        said.append(str(stopped.value))
        saved = config.run_dir / "last.pt"
        left.append(saved.read_bytes() if saved.exists() else b"")
    assert said[0] == said[1] and left[0] == left[1]
    return said[0]


@pytest.mark.parametrize(
    ("lr", "what"),
    [
        ("1e37", "the output of head"),
        ("1e35", "the loss is inf, of outputs that are finite"),  # their sum is not
    ],
)
@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_an_evaluation_that_is_not_finite_is_named_and_repeated(tmp_path, epoch, lr, what, capsys):
    """In the first of three epochs, in one between and in the last."""
    more = f"recipe.stages={{{epoch}: {lr}}}" if epoch > 1 else f"recipe.lr={lr}"
    config = small(tmp_path, *LINEAR, "recipe.optimizer=adam", more)
    where = f"the validation after epoch {epoch}"
    said = said_again(config)
    failure = read_json(config.run_dir / "failure.json")
    assert (failure["epoch"], failure["part"], failure["evaluation"]) == (epoch, "val", where)
    named = ", ".join(map(str, failure["images"][:8]))
    place = f"at batch {failure['step']} of 3 in {where} (validation images {named}, ...)"
    assert place in said
    assert not (config.run_dir / "record.json").exists()
    if epoch > 1:  # what is saved is the epoch before
        assert checkpoint._read(config.run_dir / "last.pt")["state"]["epoch"] == epoch - 1
        assert "inf" not in (config.run_dir / "metrics.csv").read_text()
    else:
        assert not (config.run_dir / "last.pt").exists()
    before = {path: path.read_bytes() for path in config.run_dir.iterdir()}

    found = replay(config.run_dir)
    assert found.what.startswith(what), found.what
    assert (found.evaluation, found.step, found.images) == (
        where, failure["step"], failure["images"]
    )  # fmt: skip
    spinal(["replay", str(config.run_dir)])
    printed = capsys.readouterr().out
    assert f"{where}, batch {found.step}: {found.what}\nvalidation images {named}" in printed
    assert {path: path.read_bytes() for path in config.run_dir.iterdir()} == before


@pytest.mark.parametrize(
    ("more", "where"),
    [
        ("protocol=heldout", "the final test of the last weights (epoch 3)"),
        ("protocol.watch_test=true", "the watched test after epoch 1"),
        ("protocol=paper", "the test after epoch 1"),
    ],
)
def test_a_test_image_that_overflows(tmp_path, monkeypatch, more, where):
    """Everything else is finite, so that the final test is the first to meet it."""
    prepare = run_module._prepare

    def spoiled(*given):
        setup = prepare(*given)
        setup.test._pixels = setup.test._pixels.float()
        setup.test._pixels[OVERFLOWING] = math.inf
        return setup

    monkeypatch.setattr(run_module, "_prepare", spoiled)
    config = small(tmp_path, *LINEAR, more)
    assert f"at batch 2 of 3 in {where} (test images" in said_again(config)
    test = prepare(config, CPU).test
    found = replay(config.run_dir)
    assert found.what.startswith("the output of backbone") and found.evaluation == where
    assert found.images == read_json(config.run_dir / "failure.json")["images"]
    assert found.images == test.images_at(40, 80) and len(set(found.images)) == 40
    assert found.labels == test.labels[40:80].tolist() and found.part == "test"
    assert not (config.run_dir / "predictions.npz").exists()

    monkeypatch.setattr(run_module, "_prepare", prepare)  # the machine is mended
    assert replay(config.run_dir) is None
    assert run(config).record["test"]["last"]["count"] == 96
    assert not (config.run_dir / "failure.json").exists()
    with pytest.raises(UserError, match="nothing to repeat: it is finished"):
        replay(config.run_dir)


def test_the_best_weights_alone_fail_the_final_test(tmp_path, monkeypatch):
    load = assist.load_best

    def spoiled(folder, state, model):
        load(folder, state, model)
        for parameter in model.parameters():
            parameter.data.fill_(3e38)

    monkeypatch.setattr(assist, "load_best", spoiled)
    config = small(tmp_path, *LINEAR)
    said = said_again(config)
    found = replay(config.run_dir)
    assert found.evaluation == f"the final test of the best weights (epoch {found.epoch})"
    assert f"at batch 1 of 3 in {found.evaluation}" in said and found.step == 1


def test_a_run_saved_inside_an_evaluation_that_is_not_finite(tmp_path, monkeypatch):
    """It was stopped before the loss was looked at; the epoch's training is not repeated."""
    config = small(tmp_path, *LINEAR, "recipe.optimizer=adam", "recipe.lr=1e37")
    with monkeypatch.context() as patch:
        signal_at(patch, "look", [1])
        with pytest.raises(Interrupted, match=r"after step 1 of 1 in epoch 1"):
            run(config)
    assert "in the validation after epoch 1" in said_again(config)
    assert replay(config.run_dir).evaluation == "the validation after epoch 1"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("right", [True, False])
def test_which_logits_are_refused(tmp_path, value, right):
    """All that are not finite but one: -inf for another class is an answer, "never this one"."""
    batches = run_module._prepare(small(tmp_path, *LINEAR), CPU).trainer.select
    spoilt = 45
    labels = iter(batches.labels.split(batches.batch_size))
    done = []

    class Given(nn.Module):
        def forward(self, images):
            logits = nn.functional.one_hot(next(labels), 10).float()
            place = spoilt - sum(done)
            if 0 <= place < len(images):
                own = int(logits[place].argmax())
                logits[place, own if right else own - 1] = value
            done.append(len(images))
            return logits

    found = evaluate(Given(), batches, torch.no_grad)
    if value == -math.inf and not right:
        assert found.accuracy == 1 and math.isfinite(found.loss) and found.spoiled is None
        finite.check_evaluation(found, batches, "val", 1, "it")
        return
    assert found.spoiled == (40, 80) and not math.isfinite(found.loss)
    with pytest.raises(finite.NonFiniteLossError, match="at batch 2 of 3 in it"):
        finite.check_evaluation(found, batches, "val", 1, "it")


# Deterministic operations


class Unpooling(nn.Module):
    """Has no deterministic implementation in PyTorch, on any device."""

    def forward(self, images):
        pooled, where = nn.functional.max_pool2d(images, 2, return_indices=True)
        return images + nn.functional.max_unpool2d(pooled, where, 2)


def test_deterministic_is_kept_or_refused(tmp_path, monkeypatch):
    seen = []
    prepare = run_module._prepare

    def watch(*given):
        seen.append(torch.are_deterministic_algorithms_enabled())
        setup = prepare(*given)
        setup.trainer.model.backbone = nn.Sequential(Unpooling(), setup.trainer.model.backbone)
        return setup

    monkeypatch.setattr(run_module, "_prepare", watch)
    with pytest.raises(UserError, match=r"deterministic=true cannot be kept: .*=false"):
        run(small(tmp_path, "runtime.deterministic=true"))
    assert seen == [True] and not torch.are_deterministic_algorithms_enabled()


def test_deterministic_on_mps_is_refused():
    with (
        pytest.raises(UserError, match="not supported by PyTorch on mps"),
        backend_settings(torch.device("mps"), "fp32", deterministic=True),
    ):
        pass
    with backend_settings(torch.device("mps"), "fp32"):
        assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
@pytest.mark.parametrize("deterministic", [False, True])
def test_backend_settings_hold_for_a_run_and_are_restored(precision, deterministic):
    """TF32 is off in fp32 alone; cuDNN chooses the fastest algorithm unless it must not."""
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32
    with backend_settings(torch.device("cuda"), precision, deterministic):
        assert cudnn.allow_tf32 is (precision != "fp32")
        assert (cudnn.benchmark, cudnn.deterministic) == (not deterministic, deterministic)
        assert torch.are_deterministic_algorithms_enabled() is deterministic
    assert (cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32) == before
    assert not torch.are_deterministic_algorithms_enabled()


def test_only_deterministic_changes_the_identity(tmp_path):
    plain = small(tmp_path).identity()
    assert small(tmp_path, "runtime.deterministic=false").identity() == plain
    assert small(tmp_path, "runtime.deterministic=true").identity() != plain
    for free in ("runtime.save_every=5", "runtime.self_check=false"):
        assert small(tmp_path, free).identity() == plain


# The self-check


def test_bf16_is_compared_with_fp32(tmp_path):
    config = small(tmp_path, "runtime.precision=bf16", "recipe.epochs=1", "data.limit=32")
    before = run(config)
    assert "self-check: one step on cpu in bf16" in (before.folder / "log.txt").read_text()
    other = small(
        tmp_path / "b", "runtime.precision=bf16", "recipe.epochs=1", "data.limit=32",
        "runtime.self_check=false",
    )  # fmt: skip
    assert run(other).record["history"] == before.record["history"]  # it has changed nothing
    assert "self-check" not in (other.run_dir / "log.txt").read_text()


def test_the_cpu_in_fp32_is_not_compared_with_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(selfcheck, "one_step", None)  # calling it would fail
    config = small(tmp_path)
    model = build_model(config.dataset, config.model, config.head)
    assert selfcheck.self_check(config, model, CPU) == ""


class Faulty(nn.Module):
    """Wrong in bf16 only: by a factor, in its gradient, or altogether."""

    def __init__(self, inner, fault):
        super().__init__()
        self.inner, self.fault = inner, fault

    def forward(self, images):
        out = self.inner(images)
        if not torch.is_autocast_enabled("cpu"):
            return out
        wrong = {"factor": 3 * out, "gradient": 2 * out.detach() - out, "nan": out * float("nan")}
        return wrong[self.fault]


@pytest.mark.parametrize("fault", ["factor", "gradient", "nan"])
def test_what_computes_nonsense_is_refused(tmp_path, fault):
    config = small(tmp_path, "runtime.precision=bf16", "head=spinal")
    model = build_model(config.dataset, config.model, config.head)
    assert "self-check: " in selfcheck.self_check(config, model, CPU)
    with pytest.raises(UserError, match=r"self-check failed.*runtime\.precision=fp32"):
        selfcheck.self_check(config, Faulty(model, fault), CPU)
