"""The heads against a plain loop over the paper's description, and against closed forms."""

import copy
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spinal_repro.models.classifier import Classifier
from spinal_repro.models.counting import count
from spinal_repro.models.heads import (
    Arch2Head,
    FCHead,
    ProgressiveSpinalHead,
    SpinalHead,
    SpinalHidden,
)

# Inputs that each layer reads: (inputs, splits, layers) -> slices (recipes 5).
SLICES = {
    (8, 2, 4): [[0, 1, 2, 3], [4, 5, 6, 7], [0, 1, 2, 3], [4, 5, 6, 7]],
    (10, 4, 6): [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9], [0, 1]],
    (11, 4, 4): [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 0]],
    (10, 3, 4): [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 0, 1]],
    (4, 1, 3): [[0, 1, 2, 3], [0, 1, 2, 3], [0, 1, 2, 3]],
}
STYLES = {
    "bare": {},
    "leaky": {"activation": "leaky_relu"},
    "linear-only": {"activation": "identity"},
    "drop-bn": {"dropout": 0.5, "norm": True},
}
ACTIVATIONS = {"relu": F.relu, "leaky_relu": F.leaky_relu, "identity": lambda z: z}


def linears(module: nn.Module) -> list[nn.Linear]:
    return [m for m in module.modules() if isinstance(m, nn.Linear)]


def sizes(head: nn.Module, features: int) -> tuple[int, int, int]:
    """Parameters, multiplications and activations of a head."""
    found = count(Classifier(nn.Flatten(), head), features, 1)
    return found["head_parameters"], found["head_multiplications"], found["head_activations"]


def with_real_norms(head: nn.Module) -> nn.Module:
    """In double precision, with batch norm that is not the identity."""
    for module in head.double().modules():
        if isinstance(module, nn.BatchNorm1d):
            for tensor in (module.weight, module.bias, module.running_mean):
                nn.init.normal_(tensor)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return head


def batch_norm(norm: nn.BatchNorm1d, z: Tensor) -> Tensor:
    running = norm.running_mean, norm.running_var
    return F.batch_norm(z, *running, norm.weight, norm.bias, norm.training)


def reference(head, x, slices, *, dropout=0.0, norm=False, activation="relu", shared=False):
    """The Spinal head written out, with the weights of ``head``."""
    fc, training = linears(head), head.training
    bn = [m for m in head.modules() if isinstance(m, nn.BatchNorm1d)]
    outputs: list[Tensor] = []
    for k, indices in enumerate(slices):
        z = x[:, indices] if k == 0 else torch.cat([x[:, indices], outputs[-1]], dim=1)
        which = min(k, 1) if shared else k
        z = F.dropout(z, dropout, training) @ fc[which].weight.T + fc[which].bias
        if norm:
            z = batch_norm(bn[which], z)
        outputs.append(ACTIVATIONS[activation](z))
    last = F.dropout(torch.cat(outputs, dim=1), dropout, training)
    return last @ fc[-1].weight.T + fc[-1].bias


def cyclic_slices(in_features: int, splits: int, layers: int) -> list[list[int]]:
    size = int(np.round(in_features / splits))
    return [[(k * size + i) % in_features for i in range(size)] for k in range(layers)]


CASES = [((12, 2, 6), style) for style in STYLES]
CASES += [(case, "drop-bn") for case in (*SLICES, (9, 1, 1), (6, 4, 33))]


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
@pytest.mark.parametrize(("case", "style"), CASES)
def test_layers_read_slices_and_the_layer_before(case, style, shared, training):
    """Outputs, and gradients of features and of every parameter, are those of the reference."""
    in_features, splits, layers = case
    torch.manual_seed(1)
    options = {"splits": splits, "shared": shared, **STYLES[style]}
    head = with_real_norms(SpinalHead(in_features, 3, width=4, layers=layers, **options))
    slices = cyclic_slices(in_features, splits, layers)
    assert slices == SLICES.get(case, slices)
    twin = copy.deepcopy(head.train(training))
    x = torch.randn(7, in_features, dtype=torch.float64, requires_grad=True)
    y = x.detach().clone().requires_grad_()
    torch.manual_seed(5)
    logits = head(x)
    torch.manual_seed(5)
    expected = reference(twin, y, slices, shared=shared, **STYLES[style])
    torch.testing.assert_close(logits, expected, rtol=1e-10, atol=1e-12)
    direction = torch.randn_like(logits)
    (logits * direction).sum().backward()
    (expected * direction).sum().backward()
    for ours, theirs in zip([x, *head.parameters()], [y, *twin.parameters()], strict=True):
        assert theirs.grad is not None
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-11)


def test_refused_exactly_where_an_input_would_not_be_read():
    """The message names the least number of layers or the most splits that work."""

    def build(in_features, splits, layers):
        return SpinalHead(in_features, 1, width=1, layers=layers, splits=splits)

    for in_features in range(1, 6):
        for splits in range(1, 2 * in_features + 2):
            for layers in range(1, 7):
                slices = cyclic_slices(in_features, splits, layers)
                if {i for part in slices for i in part} == set(range(in_features)):
                    build(in_features, splits, layers)
                    continue
                with pytest.raises(ValueError) as refused:
                    build(in_features, splits, layers)
                key, number = re.search(r"use (layers|splits)=(\d+)", str(refused.value)).groups()
                named = {"splits": splits, "layers": 99} | {key: int(number)}
                build(in_features, **named)
                worse = named[key] - 1 if key == "layers" else 2 * named[key]
                with pytest.raises(ValueError):
                    build(in_features, **(named | {key: worse}))


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(
    "half, width, layers, classes", [(160, 8, 6, 10), (128, 128, 4, 62), (5, 3, 2, 1)]
)
def test_closed_forms_of_the_halves(half, width, layers, classes, style):
    """Parameters, multiplications and activations (recipes 1.1); linear-only has none (1.2)."""
    head = SpinalHead(2 * half, classes, width=width, layers=layers, **STYLES[style])
    h, w, n, c = half, width, layers, classes
    products = h * w + (n - 1) * (h + w) * w + n * w * c
    parameters = products + n * w + c + (2 * n * w if style == "drop-bn" else 0)
    units = 0 if style == "linear-only" else n * w
    assert sizes(head, 2 * h) == (parameters, products, units)


@pytest.mark.parametrize(
    "inputs, width, published",  # parameters shared, unshared, and multiplications (recipes 6)
    [(2048, 20, (12_290, 45_530, 45_360)), (1024, 100, (43_810, 181_210, 180_400))],
)
def test_shared_layers_count_once_as_parameters_and_at_each_call_as_multiplications(
    inputs, width, published
):
    options = {"width": width, "layers": 8, "splits": 8}
    shared, own = (SpinalHead(inputs, 10, **options, shared=flag) for flag in (True, False))
    (fewer, *same), (more, *also) = sizes(shared, inputs), sizes(own, inputs)
    assert (fewer, more, same[0]) == published and same == also


@pytest.mark.parametrize(
    ("options", "layers"),
    [
        (
            {"hidden": (50,), "dropout": (0.0, 0.5)},
            [nn.Linear(320, 50), nn.ReLU(), nn.Dropout(0.5), nn.Linear(50, 10)],
        ),
        (
            {"hidden": [7, 5], "dropout": (0.5, 0.2, 0.1), "norm": True, "activation": "tanh"},
            [
                nn.Dropout(0.5), nn.Linear(320, 7), nn.BatchNorm1d(7), nn.Tanh(),
                nn.Dropout(0.2), nn.Linear(7, 5), nn.BatchNorm1d(5), nn.Tanh(),
                nn.Dropout(0.1), nn.Linear(5, 10),
            ],
        ),
        ({"hidden": ()}, [nn.Linear(320, 10)]),
    ],
)  # fmt: skip
def test_fc_head_layouts(options, layers):
    head = FCHead(320, 10, **options)
    assert list(map(repr, head.layers)) == list(map(repr, layers))
    assert sizes(head, 320)[2] == sum(options["hidden"])


IMPOSSIBLE = [
    (SpinalHead, {"in_features": 0}), (SpinalHead, {"num_classes": -1}), (SpinalHead, {"width": 0}),
    (SpinalHead, {"layers": 0}), (SpinalHead, {"splits": -1}), (SpinalHead, {"splits": 9}),
    (SpinalHead, {"dropout": 1.0}), (SpinalHead, {"dropout": float("nan")}),
    (SpinalHead, {"output_dropout": -0.1}), (SpinalHead, {"activation": "relo"}),
    (SpinalHead, {"order": (1, 2, 3)}), (SpinalHead, {"order": (2, 2, 3, 4)}),
    (SpinalHead, {"order": (1, 1, 3, 4)}), (SpinalHead, {"order": (1, 2, 3, 5)}),
    (SpinalHead, {"order": (1, 2, 3, 4), "shared": True}),
    (FCHead, {"hidden": (0,)}), (FCHead, {"hidden": (5,), "dropout": (0.5,)}),
    (FCHead, {"dropout": (1.5,)}), (FCHead, {"activation": "relo"}),
    (ProgressiveSpinalHead, {"layer_dropout": 1.0}), (Arch2Head, {"taps": (4, 4)}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "options"), IMPOSSIBLE)
def test_impossible_arguments_are_refused(kind, options):
    with pytest.raises(ValueError):
        kind(**({"in_features": 8, "num_classes": 3} | options))


def test_the_output_layer_may_have_its_own_dropout():
    head = SpinalHead(8, 3, width=4, layers=2, dropout=0.2, output_dropout=0.5)
    assert [m.p for m in head.modules() if isinstance(m, nn.Dropout)] == [0.2, 0.2, 0.5]


@pytest.mark.parametrize(
    ("features", "width", "classes", "norm", "expected"),
    [
        (784, 128, 10, True, (514_218, 512_672, 512)),
        (2048, 1024, 250, False, (16_220_410, 16_216_064, 4096)),
    ],
)
def test_progressive_has_the_sizes_of_its_scripts(features, width, classes, norm, expected):
    with torch.device("meta"):
        head = ProgressiveSpinalHead(features, classes, width=width, norm=norm)
    assert sizes(head, features) == expected


@pytest.mark.parametrize(("layers", "norm"), [(1, False), (4, False), (6, True)])
def test_progressive_computes_the_definition(layers, norm):
    torch.manual_seed(0)
    head = with_real_norms(ProgressiveSpinalHead(7, 3, width=5, layers=layers, norm=norm)).eval()
    x = read = torch.randn(4, 7, dtype=torch.float64)
    for layer in head.layers:
        z = F.linear(read, layer[0].weight, layer[0].bias)
        z = batch_norm(layer[1], z) if norm else z
        read = torch.cat([read, z.clamp(min=0)], dim=1)
    torch.testing.assert_close(head(x), F.linear(read, *head.output[-1].parameters()))
    torch.testing.assert_close(head(x, pre_logits=True), read[:, 7:])


def test_progressive_shares_one_dropout_mask_from_the_second_layer_on():
    torch.manual_seed(0)
    head = ProgressiveSpinalHead(40, 3, width=5, dropout=0.5)
    inputs = []
    for linear in linears(head):
        linear.register_forward_hook(lambda module, args, out: inputs.append(args[0]))
    x = torch.randn(6, 40)
    head(x)
    assert torch.equal(inputs[0], x) and len(inputs) == 5
    dropped = inputs[1][:, :40]
    kept = dropped != 0
    assert 0.3 < kept.float().mean() < 0.7
    torch.testing.assert_close(dropped[kept], 2 * x[kept])
    assert all(torch.equal(read[:, :40], dropped) for read in inputs[2:])


def test_reused_layers_share_weights_and_the_last_two_are_never_used():
    """Q2: the regression script's six layers."""
    torch.manual_seed(0)
    head = SpinalHead(8, 1, width=50, layers=6, order=(1, 2, 3, 4, 3, 4))
    x, outputs, z = torch.randn(5, 8), [], torch.empty(5, 0)
    for k, index in enumerate([0, 1, 2, 3, 2, 3]):
        part = x[:, :4] if k % 2 == 0 else x[:, 4:]
        z = F.relu(head.layers[index][0](torch.cat([part, z], dim=1)))
        outputs.append(z)
    torch.testing.assert_close(head(x), head.output(torch.cat(outputs, dim=1)))
    head(x).sum().backward()
    unused = {name: p.numel() for name, p in head.named_parameters() if p.grad is None}
    assert set(unused) == {f"layers.{k}.0.{kind}" for k in (4, 5) for kind in ("weight", "bias")}
    assert sum(unused.values()) == 5_500
    assert sizes(head, 8) == (14_301, 14_000, 300)


@pytest.mark.parametrize("shape", [(), (6,), (2, 3)])
def test_hidden_is_a_head_without_output_that_keeps_leading_dimensions(shape):
    torch.manual_seed(0)
    layer, stack = SpinalHidden(10, 12, layers=3), SpinalHead(10, 0, width=4, layers=3)
    stack.load_state_dict(layer.state_dict())
    x = torch.randn(*shape, 10)
    out = layer(x)
    assert out.shape == (*shape, 12)
    torch.testing.assert_close(out.reshape(-1, 12), stack(x.reshape(-1, 10)))


def test_hidden_refuses_uneven_layers():
    with pytest.raises(ValueError, match="layers=5 does not divide 12"):
        SpinalHidden(20, 12, layers=5)


@pytest.mark.parametrize("width", [30, 300])
def test_arch2_sizes(width):
    with torch.device("meta"):
        head = Arch2Head(784 + 1440 + 320, 10, width=width)
    w, taps = width, ((392, 10), (720, 8), (160, 8))
    stacks = sum(h * w + (n - 1) * (h + w) * w for h, n in taps)
    products = stacks + 26 * w * 50 + 50 * 10
    assert sizes(head, 2544) == (products + 26 * w + 50 + 10, products, 26 * w + 50)


@pytest.mark.parametrize("layers", [(3, 2, 4), (0, 2, 4)])
def test_arch2_reads_each_tap_with_its_own_stack_in_order(layers):
    torch.manual_seed(0)
    head = Arch2Head(14, 3, width=4, taps=(6, 2, 6), layers=layers, hidden=5)
    x = torch.randn(2, 14)
    taps = (x[:, :6], x[:, 6:8], x[:, 8:])[-len(head.stacks) :]
    assert [len(stack.order) for stack in head.stacks] == [n for n in layers if n]
    outputs = [stack(tap) for stack, tap in zip(head.stacks, taps, strict=True)]
    torch.testing.assert_close(head(x), head.output(torch.cat(outputs, dim=1)))


EXPORTED = {
    "slices that wrap": lambda: SpinalHead(11, 3, width=5, layers=7, splits=4, norm=True),
    "shared": lambda: SpinalHead(12, 3, width=5, layers=6, splits=3, shared=True, dropout=0.1),
    "order": lambda: SpinalHead(8, 1, width=5, layers=6, order=(1, 2, 3, 4, 3, 4)),
    "progressive": lambda: ProgressiveSpinalHead(12, 3, width=5),
    "arch2": lambda: Arch2Head(12, 3, width=5, taps=(6, 2, 4), layers=(3, 2, 2)),
    "hidden": lambda: SpinalHidden(12, 8, layers=4),
}


@pytest.mark.parametrize("name", EXPORTED)
def test_heads_compile_into_one_graph_and_export_with_any_batch_size(name):
    head = EXPORTED[name]()
    x = torch.randn(7, getattr(head, "in_features", 12))
    compiled = torch.compile(head, fullgraph=True, backend="eager")
    torch.manual_seed(0)
    expected = head(x)
    torch.manual_seed(0)
    torch.testing.assert_close(compiled(x), expected)
    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(head.eval(), (x[:4],), dynamic_shapes=({0: batch},))
    torch.testing.assert_close(program.module()(x), head(x))


def test_public_names_come_without_hydra_and_torchvision():
    code = (
        "import sys, spinal_repro; assert 'torch' not in sys.modules\n"
        "from spinal_repro import SpinalHead, ProgressiveSpinalHead, SpinalHidden, to_spinal\n"
        "to_spinal; SpinalHead(8, 2), ProgressiveSpinalHead(8, 2), SpinalHidden(8, 8)\n"
        "assert not {m.split('.')[0] for m in sys.modules} & {'hydra', 'torchvision'}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
