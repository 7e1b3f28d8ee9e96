"""Features of a frozen backbone, computed once."""

import statistics

import pytest
import torch
from helpers.composing import changed, composed
from torch import nn

from spinal_repro.data.features import fingerprint
from spinal_repro.training.run import run

WORDS = ("dataset=digits", "model=cnn", "model.freeze=backbone", "protocol=heldout")
SETTINGS = {
    "runtime.device": "cpu",
    "runtime.progress": "none",
    "recipe.epochs": 3,
    "recipe.augment": [],
}


def train(tmp_path, head, cached, **more):
    settings = {**SETTINGS, "runs": str(tmp_path), "recipe.cache_features": cached, **more}
    return run(changed(composed(*WORDS, f"head={head}"), settings))


def test_a_run_is_the_same_with_and_without_the_cache(tmp_path):
    for head in ("linear", "spinal"):
        plain, cached = (train(tmp_path, head, use).record for use in (False, True))
        assert cached.identity != plain.identity
        assert cached.test.last.correct == plain.test.last.correct
        for ours, theirs in zip(cached.history, plain.history, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-4)
    kept = list((tmp_path / ".cache").glob("features-*.safetensors"))
    assert len(kept) == 3  # of train, val and test, for both heads


def test_images_are_computed_once(tmp_path, monkeypatch):
    seen, forward = [], nn.Conv2d.forward

    def counted(layer, images):
        seen.append(len(images))
        return forward(layer, images)

    monkeypatch.setattr(nn.Conv2d, "forward", counted)
    train(tmp_path, "linear", True)
    images, layers = 1_438 + 359, 2
    assert sum(n for n in seen if n > 1) == layers * images  # one more for the counts of the model
    seen.clear()
    train(tmp_path, "fc", True)
    assert not [n for n in seen if n > 1]


def test_the_weights_of_a_run_take_images_again(tmp_path):
    from spinal_repro.inference import evaluate, load_run, load_split

    done = train(tmp_path, "linear", True)
    trained = load_run(done.folder, "cpu")
    batches, same = load_split(trained, "test")
    assert same and evaluate(trained, batches).correct == done.record.test.selected.correct


def test_a_fingerprint_follows_weights_and_settings():
    torch.manual_seed(0)
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    assert fingerprint("a", first) == fingerprint("a", first)
    assert len({fingerprint("a", first), fingerprint("b", first), fingerprint("a", second)}) == 3


@pytest.mark.parametrize(
    "settings", [("model.freeze=none",), ("recipe.augment=[{name: hflip, p: 0.5}]",)]
)
def test_images_that_change_are_refused(call, settings):
    words = ["spinal-train", *WORDS, "recipe.cache_features=true", "recipe.augment=[]", *settings]
    ended = call(*words)
    assert ended.code == 2 and "recipe.cache_features" in ended.err


@pytest.mark.slow
def test_a_linear_head_agrees_with_a_logistic_regression(tmp_path, real_data):
    from sklearn.linear_model import LogisticRegression

    from spinal_repro.inference import load_run
    from spinal_repro.inference.features import split_features

    weights = real_data / "weights" / "tf_efficientnet_lite0.pth"
    model = ["model=timm", "model.name=tf_efficientnet_lite0", f"model.pretrained={weights}"]
    words = ["dataset=hymenoptera", *model, "model.freeze=backbone", "recipe=features"]
    settings = {"data.root": str(real_data), "runs": str(tmp_path), "runtime.progress": "none"}
    done = [run(changed(composed(*words), {**settings, "seed": seed})) for seed in range(3)]
    ours = statistics.mean(outcome.record.test.selected.accuracy for outcome in done)
    trained = load_run(done[0].folder, "cpu")
    (train, _), (test, _) = (split_features(trained, part) for part in ("train", "test"))
    theirs = LogisticRegression(max_iter=3000).fit(train["features"], train["labels"])
    assert ours == pytest.approx(theirs.score(test["features"], test["labels"]), abs=0.01)
