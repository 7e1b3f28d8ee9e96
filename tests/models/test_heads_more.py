"""Progressive, linear, three-tap and hidden forms; order of layers, pre_logits and deepen."""

import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from spinal_repro.config.compose import compose
from spinal_repro.models.classifier import build_model
from spinal_repro.models.heads import (
    HEADS,
    Arch2Head,
    FCHead,
    ProgressiveSpinalHead,
    SpinalHead,
    SpinalHidden,
    SpinalStack,
)


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def multiplications(module, *shape):
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module.eval()(torch.zeros(1, *shape, device=next(module.parameters()).device))
    return counter.get_total_flops() // 2


def linears(module):
    return [m for m in module.modules() if isinstance(m, nn.Linear)]


# Progressive (recipes 7)


@pytest.mark.parametrize(
    ("features", "width", "classes", "norm", "expected"),
    [
        (784, 128, 10, True, (514_218, 512_672)),
        (256, 64, 10, False, (95_498, 95_232)),
        (256, 128, 62, False, (277_566, 276_992)),
        (256, 64, 10, True, (96_010, 95_232)),
        (2048, 1024, 250, False, (16_220_410, 16_216_064)),
        (2048, 200, 101, False, (2_166_949, 2_166_048)),
    ],
)
def test_progressive_has_the_sizes_of_its_scripts(features, width, classes, norm, expected):
    with torch.device("meta"):
        head = ProgressiveSpinalHead(features, classes, width=width, norm=norm)
    assert (parameters(head), multiplications(head, features)) == expected
    assert head.num_activations == 4 * width


@pytest.mark.parametrize(("layers", "norm"), [(1, False), (4, False), (6, True)])
def test_progressive_computes_the_definition(layers, norm):
    torch.manual_seed(0)
    head = ProgressiveSpinalHead(7, 3, width=5, layers=layers, norm=norm).double().eval()
    for layer in head.layers:  # batch norm that does something in evaluation
        for module in layer:
            if isinstance(module, nn.BatchNorm1d):
                module.running_mean.uniform_(-1, 1)
                module.running_var.uniform_(0.5, 2)
    x = torch.randn(4, 7, dtype=torch.float64)
    seen = x
    for layer in head.layers:
        (linear,) = linears(layer)
        z = functional.linear(seen, linear.weight, linear.bias)
        if norm:
            bn = layer[1]
            z = (z - bn.running_mean) / (bn.running_var + bn.eps).sqrt() * bn.weight + bn.bias
        seen = torch.cat([seen, z.clamp(min=0)], dim=1)
    expected = functional.linear(seen, head.output[-1].weight, head.output[-1].bias)
    torch.testing.assert_close(head(x), expected)
    torch.testing.assert_close(head(x, pre_logits=True), seen[:, 7:])


def test_progressive_draws_one_dropout_and_spares_the_first_layer():
    torch.manual_seed(0)
    head = ProgressiveSpinalHead(40, 3, width=5, dropout=0.5)
    inputs = []
    for linear in linears(head):
        linear.register_forward_hook(lambda module, args, out: inputs.append(args[0]))
    x = torch.randn(6, 40)
    head(x)
    assert torch.equal(inputs[0], x)
    dropped = inputs[1][:, :40]
    assert 0.3 < (dropped == 0).float().mean() < 0.7
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], 2 * x[kept])
    assert all(torch.equal(seen[:, :40], dropped) for seen in inputs[2:])
    assert len(inputs) == 5


def test_progressive_layer_dropout_stands_before_every_linear():
    head = ProgressiveSpinalHead(8, 3, width=5, dropout=0.0, layer_dropout=0.5, norm=True)
    for block in [*head.layers, head.output]:
        assert isinstance(block[0], nn.Dropout)
        assert block[0].p == 0.5
        assert isinstance(block[1], nn.Linear)
    assert len(head.dropout) == 0


# Order of layers (Q2)


def test_reused_layers_are_tied_and_leave_the_last_two_dead():
    torch.manual_seed(0)
    head = SpinalHead(8, 1, width=50, layers=6, activation="leaky_relu", order=(1, 2, 3, 4, 3, 4))
    x = torch.randn(5, 8)
    linear = [layer[0] for layer in head.layers]
    outputs, z = [], torch.empty(5, 0)
    for k, index in enumerate([0, 1, 2, 3, 2, 3]):
        part = x[:, :4] if k % 2 == 0 else x[:, 4:]
        z = functional.leaky_relu(linear[index](torch.cat([part, z], dim=1)))
        outputs.append(z)
    torch.testing.assert_close(head(x), head.output(torch.cat(outputs, dim=1)))
    head(x).sum().backward()
    dead = {name for name, p in head.named_parameters() if p.grad is None}
    assert dead == {f"layers.{k}.0.{kind}" for k in (4, 5) for kind in ("weight", "bias")}
    assert parameters(head) == 14_301
    assert sum(p.numel() for p in head.parameters() if p.grad is None) == 5_500


def test_distinct_layers_have_the_same_counts_and_none_dead():
    head = SpinalHead(8, 1, width=50, layers=6, activation="leaky_relu")
    head(torch.randn(5, 8)).sum().backward()
    assert all(p.grad is not None for p in head.parameters())
    assert (parameters(head), multiplications(head, 8)) == (14_301, 14_000)


@pytest.mark.parametrize(
    "order", [(1, 2, 3), (2, 2, 3, 4), (1, 1, 3, 4), (1, 2, 3, 5), (1, 2, 0, 4), (1, 2, 3, 4, 3)]
)
def test_orders_that_do_not_fit_are_refused(order):
    with pytest.raises(ValueError, match="order needs 4 numbers"):
        SpinalHead(8, 2, width=3, layers=4, order=order)


def test_order_and_shared_exclude_each_other():
    with pytest.raises(ValueError, match="one of shared and order"):
        SpinalHead(8, 2, width=3, layers=2, shared=True, order=(1, 2))


# pre_logits and deepen

DEEPENED = [
    (SpinalHead, {"splits": 2, "layers": 2}),
    (SpinalHead, {"splits": 3, "layers": 4, "norm": True, "dropout": 0.3}),
    (SpinalHead, {"splits": 1, "layers": 1, "shared": True}),
    (SpinalHead, {"splits": 4, "layers": 5, "shared": True}),
    (ProgressiveSpinalHead, {"layers": 2, "norm": True}),
]


@pytest.mark.parametrize(("kind", "options"), DEEPENED)
def test_pre_logits_are_what_the_output_layer_reads(kind, options):
    head = kind(12, 3, width=5, **options).eval()
    x = torch.randn(4, 12)
    outputs = head(x, pre_logits=True)
    assert outputs.shape == (4, 5 * options["layers"])
    read = torch.cat([x, outputs], dim=1) if kind is ProgressiveSpinalHead else outputs
    torch.testing.assert_close(head.output(read), head(x))


@pytest.mark.parametrize(("kind", "options"), DEEPENED)
def test_deepen_keeps_the_function_and_the_parameters(kind, options):
    torch.manual_seed(0)
    head = kind(12, 3, width=5, **options).double().eval()
    x = torch.randn(4, 12, dtype=torch.float64)
    before, old = head(x), dict(head.named_parameters())
    deep = options["layers"] + 3
    head.add_layers(3)
    torch.testing.assert_close(head(x), before, rtol=0, atol=1e-12)
    new = dict(head.named_parameters())
    replaced = [name for name in old if new[name] is not old[name]]
    assert replaced == [name for name in old if name.startswith("output") and "weight" in name]
    straight = kind(12, 3, width=5, **(options | {"layers": deep})).double()
    assert {n: p.shape for n, p in new.items()} == {
        n: p.shape for n, p in straight.named_parameters()
    }
    assert head.num_activations == straight.num_activations == head(x, pre_logits=True).shape[1]
    straight.load_state_dict(head.state_dict())  # and reads the same slices
    torch.testing.assert_close(straight.eval()(x), head(x))


@pytest.mark.parametrize(("kind", "options"), DEEPENED)
def test_new_layers_learn(kind, options):
    torch.manual_seed(0)
    head = kind(12, 3, width=5, **options)
    old = {id(p) for p in head.layers.parameters()}
    head.add_layers(2)
    x, y = torch.randn(64, 12), torch.randint(3, (64,))
    optimizer = torch.optim.SGD(head.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        functional.cross_entropy(head(x), y).backward()
        optimizer.step()
    assert head.output[-1].weight[:, -10:].abs().max() > 0
    added = [p for p in head.layers.parameters() if id(p) not in old]
    assert all(p.grad.abs().max() > 0 for p in added if p.dim() == 2)
    assert all(module.training for module in head.modules())


def test_deepen_refuses_no_layers():
    with pytest.raises(ValueError, match="layers must lie between 1"):
        SpinalHead(8, 2).add_layers(0)


# SpinalHidden


@pytest.mark.parametrize("shape", [(), (6,), (2, 3)])
def test_hidden_keeps_leading_dimensions(shape):
    torch.manual_seed(0)
    layer = SpinalHidden(10, 12, layers=3, splits=2).eval()
    x = torch.randn(*shape, 10)
    out = layer(x)
    assert out.shape == (*shape, 12)
    single = torch.stack([layer(row) for row in x.reshape(-1, 10)])
    torch.testing.assert_close(out.reshape(-1, 12), single)


def test_hidden_is_a_stack_with_the_closed_form_of_a_head_without_output():
    layer = SpinalHidden(10, 12, layers=3, splits=2)
    h, w, n = 5, 4, 3
    assert parameters(layer) == h * w + w + (n - 1) * ((h + w) * w + w)
    stack = SpinalStack(10, width=4, layers=3)
    stack.load_state_dict(layer.state_dict())
    x = torch.randn(2, 10)
    assert torch.equal(stack(x), layer(x))


@pytest.mark.parametrize(("layers", "near"), [(5, "layers=4 or layers=6"), (100, "layers=12")])
def test_hidden_refuses_uneven_layers_and_names_near_ones(layers, near):
    with pytest.raises(ValueError, match=near):
        SpinalHidden(20, 12, layers=layers)


def test_hidden_takes_the_place_of_a_linear_in_a_transformer():
    from torchvision.models import VisionTransformer

    torch.manual_seed(0)
    model = VisionTransformer(8, 4, 1, 2, 16, 32, num_classes=3)
    mlp = model.encoder.layers[0].mlp
    mlp[0] = SpinalHidden(mlp[0].in_features, mlp[0].out_features, activation="gelu")
    out = model(torch.randn(2, 3, 8, 8))
    assert out.shape == (2, 3)
    nn.init.normal_(model.heads.head.weight)  # torchvision starts it at zero
    model(torch.randn(2, 3, 8, 8)).square().sum().backward()
    assert all(p.grad.abs().max() > 0 for p in mlp[0].parameters())


# Arch2 (recipes 2.2)


@pytest.mark.parametrize("width", [30, 50, 300])
def test_arch2_sizes(width):
    with torch.device("meta"):
        head = Arch2Head(784 + 1440 + 320, 10, width=width)
    w, taps = width, ((392, 10), (720, 8), (160, 8))
    stacks = sum(h * w + (n - 1) * (h + w) * w for h, n in taps)
    assert multiplications(head, 2544) == stacks + 26 * w * 50 + 50 * 10
    assert parameters(head) == stacks + 26 * w + 26 * w * 50 + 50 + 510
    assert head.num_activations == 26 * w + 50


def test_arch2_reads_each_tap_with_its_own_stack_raw_image_first():
    torch.manual_seed(0)
    head = Arch2Head(14, 3, width=4, taps=(6, 2, 6), layers=(3, 2, 4), hidden=5)
    x = torch.randn(2, 14)
    outputs = []
    for stack, tap in zip(head.stacks, (x[:, :6], x[:, 6:8], x[:, 8:]), strict=True):
        h, z = tap.shape[1] // 2, torch.empty(2, 0)
        for k, layer in enumerate(stack.layers):
            half = tap[:, :h] if k % 2 == 0 else tap[:, h:]
            z = functional.relu(layer[0](torch.cat([half, z], dim=1)))
            outputs.append(z)
    first, last = linears(head.output)
    torch.testing.assert_close(head(x), last(functional.relu(first(torch.cat(outputs, dim=1)))))


def test_arch2_refuses_features_that_are_no_taps():
    with pytest.raises(ValueError, match=r"320 features.*model=arch2"):
        Arch2Head(320, 10)


# Configuration, export, import


def test_linear_is_one_linear():
    config = compose(["dataset=mnist", "model=vgg5", "head=linear"])
    head = build_model(config.dataset, config.model, config.head).head
    assert [type(m) for m in head.layers] == [nn.Linear]
    assert parameters(head) == 256 * 10 + 10


def test_progressive_configuration_is_the_constructor_default():
    config = compose(["dataset=mnist", "model=cnn", "head=progressive"])
    assert HEADS.check("progressive", config.head.options) == HEADS.check("progressive", {})


EXPORTED = {
    "fc": lambda: FCHead(12, 3, hidden=(5,), dropout=(0.1, 0.2), norm=True),
    "spinal": lambda: SpinalHead(12, 3, width=5, layers=4, dropout=0.1, norm=True),
    "spinal, slices that wrap": lambda: SpinalHead(11, 3, width=5, layers=7, splits=4),
    "shared": lambda: SpinalHead(12, 3, width=5, layers=6, splits=3, shared=True),
    "order": lambda: SpinalHead(8, 1, width=5, layers=6, order=(1, 2, 3, 4, 3, 4)),
    "progressive": lambda: ProgressiveSpinalHead(12, 3, width=5),
    "arch2": lambda: Arch2Head(12, 3, width=5, taps=(6, 2, 4), layers=(3, 2, 2)),
    "hidden": lambda: SpinalHidden(12, 8, layers=4),
}


@pytest.mark.parametrize("name", EXPORTED)
def test_heads_export_with_any_batch_size(name):
    head = EXPORTED[name]().eval()
    features = getattr(head, "in_features", 12)
    example = (torch.randn(4, features),)
    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(head, example, dynamic_shapes=({0: batch},))
    x = torch.randn(7, features)
    torch.testing.assert_close(program.module()(x), head(x))


@pytest.mark.parametrize("name", EXPORTED)
def test_heads_compile_into_one_graph(name):
    head = EXPORTED[name]()
    x = torch.randn(4, getattr(head, "in_features", 12))
    compiled = torch.compile(head, fullgraph=True, backend="eager")
    torch.manual_seed(0)
    expected = head(x)
    torch.manual_seed(0)
    torch.testing.assert_close(compiled(x), expected)


def test_public_names_come_without_hydra():
    code = (
        "import sys, spinal_repro; assert 'torch' not in sys.modules\n"
        "from spinal_repro import SpinalHead, ProgressiveSpinalHead, SpinalHidden, to_spinal\n"
        "to_spinal; SpinalHead(8, 2), ProgressiveSpinalHead(8, 2), SpinalHidden(8, 8)\n"
        "print(sorted(m for m in sys.modules if m.split('.')[0] in ('hydra', 'torchvision')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
