"""Gradients in FC and Spinal stacks, against two layers computed by hand."""

import pytest
import torch
from torch import nn

from spinal_repro.config.compose import compose
from spinal_repro.models.heads import FCHead, SpinalHead
from spinal_repro.paper.gradients import FIXED, fc_width, gradients, measure, watch
from spinal_repro.records.record import load_record
from spinal_repro.training.resolve import resolved
from spinal_repro.training.setup import build_run


@pytest.mark.parametrize(
    ("head", "weights", "first"),
    [
        (FCHead(1, 1, hidden=[1, 1]), ([[2.0]], [[3.0]], [[0.5]]), 0.5 * 3),
        # the output reads both layers: 4 from the first one directly
        (SpinalHead(2, 1, width=1, layers=2), ([[2.0]], [[1.0, 3.0]], [[4.0, 0.5]]), 4 + 0.5 * 3),
    ],
)
def test_two_layers_by_hand(head, weights, first):
    """Of two samples the second turns the first layer's ReLU off."""
    layers = [m for m in head.modules() if isinstance(m, nn.Linear)]
    for layer, weight in zip(layers, weights, strict=True):
        layer.weight.data, layer.bias.data = torch.tensor(weight), torch.tensor([1.5])
    norms, x = watch(layers[:-1]), torch.tensor([[1.0], [-1.0]])
    for scale in (1.0, 2.0):
        (scale * head(x.expand(2, getattr(head, "in_features", 1)))).sum().backward()
    last = 0.5 * 2**0.5
    expected = torch.tensor([[first, 2 * first], [last, 2 * last]])
    torch.testing.assert_close(torch.tensor(norms), expected)


def test_the_width_that_makes_the_multiplications_equal():
    for depth, width in ((1, 5), (4, 16), (30, 46)):
        exact = 784 * width + (depth - 1) * width**2 + width * 10
        assert {fc_width(794, depth, exact + more) for more in (-100, 0, 100)} == {width}


def test_in_an_epoch_of_one_step_the_mean_is_the_first_step():
    config = compose(["dataset=digits", "recipe.batch_size=2000", "head=spinal", *FIXED])
    for init in ("default", "he"):
        run = build_run(resolved(config), torch.device("cpu")).run
        start, epoch = measure(run, init)
        assert start == epoch and len(start) == 4 and min(start) > 0


def test_command_prints_what_its_record_says(call, here):
    command = "spinal gradients --dataset digits --seeds 2 --depths 2 9 --out x.json"
    lines = call(command).out.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        f"{depth} layers {when}"
        for depth in (2, 9)
        for when in ("at the first step", "over the first epoch")
    ]
    record = load_record(here / "x.json")
    assert len(record.runs) == 2 * 2 * 2
    for spinal, fc in zip(record.runs[::2], record.runs[1::2], strict=True):
        assert (spinal.net, fc.net, spinal.seed) == ("spinal", "fc", fc.seed)
        assert fc.multiplications == pytest.approx(spinal.multiplications, rel=0.05)
    again = gradients("digits", 1, [2], "default").runs
    assert again == [run for run in record.runs if (run.depth, run.seed) == (2, 0)]
    assert gradients("digits", 1, [2], "he").runs != again


@pytest.mark.parametrize("words", ["--depths 1", "--dataset digts", "--init zero"])
def test_command_refuses(words, call, here):
    ended = call(f"spinal gradients --seeds 1 --out x.json {words}")
    assert ended.code == 2 and not list(here.iterdir())
