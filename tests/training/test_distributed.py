"""One training on several processes is the training of one; torchrun is the real one (gloo)."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from stopping import signal_at
from torch import nn

from spinal_repro.cli.train import _main
from spinal_repro.config import compose
from spinal_repro.data.augment import build_augmentations
from spinal_repro.data.loader import Batches
from spinal_repro.data.sources import ImageSet
from spinal_repro.errors import EXIT_USAGE, UserError
from spinal_repro.records import describe
from spinal_repro.training import checkpoint
from spinal_repro.training import run as run_module
from spinal_repro.training.distributed import ALONE, Ranks, own_device
from spinal_repro.training.evaluation import evaluate
from spinal_repro.training.loop import training_loss
from spinal_repro.training.replay import replay
from spinal_repro.training.run import run
from spinal_repro.training.stop import Interrupted

CPU = torch.device("cpu")
TOLD = Path(__file__).parents[1] / "told_job.py"
LONGEST = 1800  # seconds that a busy machine may take
TOLERANCE = 1e-5  # of losses that should be near 2.3: sums in another order


def batches(count: int, batch_size: int, ranks: Ranks = ALONE) -> Batches:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 1, 8, 8), dtype=torch.uint8, generator=generator)
    return Batches(
        ImageSet(pixels, torch.arange(count) % 7),
        np.arange(count),
        batch_size=batch_size,
        mean=[0.5],
        std=[0.5],
        device=CPU,
        share=ranks.share,
    )


@pytest.mark.parametrize("world", [1, 2, 3, 8])
@pytest.mark.parametrize("size", [0, 1, 2, 7, 64, 1001])
def test_shares_are_disjoint_and_whole(world, size):
    shares = [range(100, 100 + size)[:0]]
    for rank in range(world):
        part = Ranks(rank, world).share(100, 100 + size)
        shares.append(range(part.start, part.stop))
    assert [position for share in shares for position in share] == list(range(100, 100 + size))
    sizes = [len(share) for share in shares[1:]]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(("count", "batch_size", "world"), [(26, 5, 2), (23, 5, 4), (10, 2, 3)])
def test_the_parts_of_a_batch_are_the_batch(count, batch_size, world):
    """Same order, same augmentation, to the bit; an empty share makes one image that counts 0."""
    augment = build_augmentations([{"name": "rotation", "degrees": 20}])
    whole = list(batches(count, batch_size).epoch(3, 2, augment))
    parts = [batches(count, batch_size, Ranks(rank, world)) for rank in range(world)]
    epochs = [list(part.epoch(3, 2, augment)) for part in parts]
    for step, (images, labels) in enumerate(whole):
        sizes = [part.sizes(step) for part in parts]
        assert {total for _, total in sizes} == {len(labels)}
        made = [(epoch[step], mine) for epoch, (mine, _) in zip(epochs, sizes, strict=True)]
        assert all(len(batch[1]) == max(mine, 1) for batch, mine in made)
        for place, expected in enumerate((images, labels)):
            found = [batch[place][:mine] for batch, mine in made]
            assert torch.equal(torch.cat(found), expected)
    seen = [labels for part in parts for _, labels in part.in_order()]
    assert torch.equal(torch.cat(seen), parts[0].labels)


@pytest.mark.parametrize("world", [2, 3, 7])
def test_the_mean_of_weighted_gradients_is_that_of_the_whole_batch(world):
    """Where shares are unequal or empty, too (5 images on 7 processes)."""
    torch.manual_seed(0)
    model = nn.Linear(64, 7).double()
    made = [batches(5, 5, Ranks(rank, world)) for rank in range(world)]

    def gradient(images: torch.Tensor, labels: torch.Tensor, weighted) -> torch.Tensor:
        model.zero_grad()
        weighted(training_loss(model(images.flatten(1).double()), labels, 0.1)[1]).backward()
        return model.weight.grad.clone()

    (whole,) = batches(5, 5).epoch(0, 1)
    expected = gradient(*whole, lambda loss: loss)
    total = torch.zeros_like(expected)
    for rank, part in enumerate(made):
        (batch,) = part.epoch(0, 1)
        total += gradient(
            *batch, lambda loss, r=rank, p=part: Ranks(r, world).weighted(loss, *p.sizes(0))
        )
    assert torch.allclose(total / world, expected, rtol=1e-6)


def test_batch_norm_is_refused_where_its_statistics_would_be_local():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    config, made = compose([]), batches(9, 4)
    with pytest.raises(UserError, match="batch norm"):
        Ranks(0, 2).check(config, model, made)
    made.device = torch.device("cuda")
    with pytest.raises(UserError, match=r"holds 1 images, fewer than the 2 processes"):
        Ranks(0, 2).check(config, model, made)
    Ranks(0, 2).check(config, model[0], made)
    ALONE.check(config, model, made)


@pytest.mark.parametrize("key", ["recipe.head_epochs=1", "runtime.compile=true"])
def test_what_is_for_one_process_alone_is_refused(key):
    config, made = compose([key]), batches(8, 4)
    with pytest.raises(UserError, match=f"{key.partition('=')[0]} is for one process alone"):
        Ranks(0, 2).check(config, nn.Linear(2, 2), made)
    ALONE.check(config, nn.Linear(2, 2), made)


def test_what_does_not_go_with_torchrun(monkeypatch, capsys):
    for key, value in {"TORCHELASTIC_RUN_ID": "x", "RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert _main(["-m", "seed=0,1"]) == EXIT_USAGE
    assert "(process 1): torchrun is for one training" in capsys.readouterr().err
    assert own_device(CPU) == CPU
    with pytest.raises(UserError, match="one device for several processes"):
        own_device(torch.device("cuda", 0))


# 201 images in batches of 25: the last batch has one image, so one share of it is empty;
# 201 test images in eval batches of 70: neither the batches nor the set can be halved
SETTINGS = [
    "model=lenet5", "head=spinal", "head.width=32", "recipe.epochs=6",
    "recipe.batch_size=25", "recipe.eval_batch_size=70", "recipe.lr=0.05",
    "recipe.augment=[{name: rotation, degrees: 10}]", "data.limit=201", "runtime.device=cpu",
    "runtime.threads=1", "runtime.progress=lines",
]  # fmt: skip


def torchrun(runs: Path, *more: str, what: str = "") -> tuple[int, str]:
    """Train on two processes; for ``what`` goes wrong see `told_job`."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    script = [str(TOLD), what] if what else ["-m", "spinal_repro.cli.train"]
    done = subprocess.run(
        [*command, "--local-addr=127.0.0.1", *script, f"runs={runs}", *SETTINGS, *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=LONGEST,
    )
    return done.returncode, done.stdout


def test_killed_on_two_continued_on_one_finished_on_two(tmp_path, monkeypatch):
    """The loss curve is that of one process, and every test image is counted once."""
    config = compose([f"runs={tmp_path / 'parts'}", *SETTINGS])
    folder = config.run_dir
    code, output = torchrun(tmp_path / "parts", what="kill")
    assert code != 0, output
    assert describe(folder)["state"] in ("failed", "stopped")
    assert checkpoint._read(folder / "last.pt")["state"]["epoch"] == 2

    with monkeypatch.context() as patch:
        signal_at(patch, "train", [9 + 4])  # steps of 9 an epoch
        with pytest.raises(Interrupted):
            run(config)
    code, output = torchrun(tmp_path / "parts")
    assert code == 0, output
    assert "continuing after epoch 3 and 4 of 9 steps" in output
    assert output.count("2 processes share each batch of 25") == 1  # the first alone speaks

    parts = json.loads((folder / "record.json").read_text())
    whole = run(compose([f"runs={tmp_path / 'whole'}", *SETTINGS])).record
    processes = [entry["processes"] for entry in parts["timing"]]
    assert processes == [2, 2, 1, 2, 2, 2]
    assert parts["environment"]["processes"] == 2 and whole["environment"]["processes"] == 1
    assert parts["identity"] == whole["identity"]
    for mine, other in zip(parts["history"], whole["history"], strict=True):
        for key in ("train_loss", "val_loss"):
            assert math.isclose(mine[key], other[key], rel_tol=TOLERANCE), (key, mine, other)
    assert parts["test"]["selected"]["count"] == parts["test"]["last"]["count"] == 201

    # with the very weights: the predictions of two processes are those of one, in order
    setup = run_module._prepare(config, CPU)
    checkpoint.load_best(folder, run_module.State(0.0), setup.trainer.model)
    alone = evaluate(setup.trainer.model, setup.test, setup.trainer.autocast)
    predictions = np.load(folder / "predictions.npz")["selected"]
    assert np.array_equal(predictions, alone.predictions.numpy())
    assert parts["test"]["selected"]["correct"] == alone.correct


def test_torchrun_told_to_end_stops_all_after_the_epoch_and_goes_on(tmp_path):
    """SIGTERM to torchrun, which passes it on: nothing is lost, also with a later best epoch."""
    slower = "recipe.lr=0.005"  # with which every epoch is better than the one before
    folder = compose([f"runs={tmp_path}", *SETTINGS, slower]).run_dir
    code, output = torchrun(tmp_path, slower, what="term")
    assert code != 0 and describe(folder)["state"] == "interrupted", output
    assert checkpoint._read(folder / "last.pt")["state"]["epoch"] == 2
    said = "SIGTERM: stopped after epoch 2; the same command continues"
    assert f"spinal-train: {said}" in output and f"(process 1): {said}" in output
    assert "lost another one" not in output

    code, output = torchrun(tmp_path, slower)
    assert code == 0, output
    record = json.loads((folder / "record.json").read_text())
    assert record["selection"]["epoch"] > 2, "the best weights were made after the stop"


def test_an_evaluation_that_is_not_finite_ends_both(tmp_path):
    """Both say the same of it, issued again as well; one process repeats it."""
    more = ["model=flatten", "recipe.batch_size=201", "recipe.optimizer=adam", "recipe.lr=1e37"]
    folder = compose([f"runs={tmp_path}", *SETTINGS, *more]).run_dir
    said = "the loss is nan at batch 1 of 3 in the validation after epoch 1 (validation images"
    for _ in range(2):
        code, output = torchrun(tmp_path, *more)
        assert code != 0 and output.count(said) == 2, output
        assert "ValueError" not in output and "lost another one" not in output
        assert not (folder / "last.pt").exists()
    found = replay(folder)
    assert found.images == json.loads((folder / "failure.json").read_text())["images"]
    assert found.what.startswith("the output of head")
