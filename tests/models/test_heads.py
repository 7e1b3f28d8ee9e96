"""The heads against a plain loop over the paper's description, and against closed forms."""

import copy
import re

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from spinal_repro.errors import UserError
from spinal_repro.models.heads import HEADS, FCHead, SpinalHead

# Which inputs each layer reads: (inputs, splits, layers) -> slices (recipes.md, section 5).
SLICES = {
    (8, 2, 4): [[0, 1, 2, 3], [4, 5, 6, 7], [0, 1, 2, 3], [4, 5, 6, 7]],
    (8, 4, 6): [[0, 1], [2, 3], [4, 5], [6, 7], [0, 1], [2, 3]],
    (10, 4, 6): [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9], [0, 1]],
    (11, 4, 4): [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 0]],
    (14, 4, 4): [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 0, 1]],
    (10, 3, 4): [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 0, 1]],
    (5, 2, 3): [[0, 1], [2, 3], [4, 0]],
    (4, 1, 3): [[0, 1, 2, 3], [0, 1, 2, 3], [0, 1, 2, 3]],
}
# Two rows of the same table and two more that never read some inputs, with the layers that would.
SKIPPING = {(8, 4, 2): 4, (10, 4, 4): 5, (11, 4, 3): 4, (10, 3, 2): 4}

STYLES = {
    "bare": {},
    "leaky": {"activation": "leaky_relu"},
    "linear-only": {"activation": "identity"},
    "drop": {"dropout": 0.1},
    "drop-bn": {"dropout": 0.5, "norm": True},
    "bn": {"norm": True},
}
ACTIVATIONS = {
    "relu": functional.relu,
    "leaky_relu": functional.leaky_relu,
    "identity": lambda z: z,
}


def linears(module: nn.Module) -> list[nn.Linear]:
    return [m for m in module.modules() if isinstance(m, nn.Linear)]


def norms(module: nn.Module) -> list[nn.BatchNorm1d]:
    return [m for m in module.modules() if isinstance(m, nn.BatchNorm1d)]


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def multiplications(head: nn.Module, in_features: int) -> int:
    """Counted by hooks on the Linear layers as they are called."""
    total = 0

    def add(layer: nn.Linear, _inputs: object, _output: object) -> None:
        nonlocal total
        total += layer.in_features * layer.out_features

    for layer in linears(head):
        layer.register_forward_hook(add)
    head.eval()(torch.zeros(1, in_features))
    return total


def batch_norm(norm: nn.BatchNorm1d, z: Tensor, training: bool) -> Tensor:
    mean = z.mean(0) if training else norm.running_mean
    var = z.var(0, correction=0) if training else norm.running_var
    return (z - mean) / torch.sqrt(var + norm.eps) * norm.weight + norm.bias


def reference(
    x: Tensor,
    fc: list[nn.Linear],
    bn: list[nn.BatchNorm1d],
    slices: list[list[int]],
    *,
    training: bool,
    dropout: float = 0.0,
    norm: bool = False,
    activation: str = "relu",
    shared: bool = False,
) -> Tensor:
    """The Spinal head written out: ``fc`` are its Linear layers, the output layer last."""
    outputs: list[Tensor] = []
    for k, indices in enumerate(slices):
        z = x[:, indices] if k == 0 else torch.cat([x[:, indices], outputs[-1]], dim=1)
        which = min(k, 1) if shared else k
        z = functional.dropout(z, dropout, training)
        z = z @ fc[which].weight.T + fc[which].bias
        if norm:
            z = batch_norm(bn[which], z, training)
        outputs.append(ACTIVATIONS[activation](z))
    last = functional.dropout(torch.cat(outputs, dim=1), dropout, training)
    return last @ fc[-1].weight.T + fc[-1].bias


def cyclic_slices(in_features: int, splits: int, layers: int) -> list[list[int]]:
    size = int(np.round(in_features / splits))
    return [[(k * size + i) % in_features for i in range(size)] for k in range(layers)]


def halves(in_features: int, layers: int) -> list[list[int]]:
    """A in odd layers, B in even ones (recipes.md, 1.1)."""
    half = in_features // 2
    a, b = list(range(half)), list(range(half, in_features))
    return [a if k % 2 == 1 else b for k in range(1, layers + 1)]


def make_head(in_features: int, num_classes: int, **options) -> SpinalHead:
    """A head in double precision with batch norm that is not the identity."""
    torch.manual_seed(1)
    head = SpinalHead(in_features, num_classes, **options).double()
    for norm in norms(head):
        for tensor in (norm.weight, norm.bias, norm.running_mean):
            nn.init.normal_(tensor)
        nn.init.uniform_(norm.running_var, 0.5, 2.0)
    return head


def assert_equal_to_reference(
    head: SpinalHead, slices: list[list[int]], *, training: bool, shared: bool = False, **style
) -> None:
    """Outputs, and gradients of features and of every parameter."""
    twin = copy.deepcopy(head)
    head.train(training)
    features = torch.randn(7, head.in_features, dtype=torch.float64)
    x, y = (features.clone().requires_grad_() for _ in range(2))

    torch.manual_seed(5)
    logits = head(x)
    torch.manual_seed(5)
    expected = reference(
        y, linears(twin), norms(twin), slices, training=training, shared=shared, **style
    )

    torch.testing.assert_close(logits, expected, rtol=1e-10, atol=1e-12)
    direction = torch.randn_like(logits)
    (logits * direction).sum().backward()
    (expected * direction).sum().backward()
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-9, atol=1e-11)
    for (name, ours), theirs in zip(head.named_parameters(), twin.parameters(), strict=True):
        assert theirs.grad is not None, name
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-11, msg=name)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
@pytest.mark.parametrize("style", STYLES)
def test_halves_equal_the_papers_description(style, shared, training):
    head = make_head(12, 5, width=4, layers=6, shared=shared, **STYLES[style])
    assert_equal_to_reference(
        head, halves(12, 6), training=training, shared=shared, **STYLES[style]
    )


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
@pytest.mark.parametrize("in_features, splits, layers", [*SLICES, (9, 1, 1), (6, 4, 33)])
def test_any_splits_and_layers_equal_tiled_cyclic_slices(
    in_features, splits, layers, shared, training
):
    options = {"dropout": 0.3, "norm": True}
    head = make_head(
        in_features, 3, width=2, layers=layers, splits=splits, shared=shared, **options
    )
    slices = cyclic_slices(in_features, splits, layers)
    assert_equal_to_reference(head, slices, training=training, shared=shared, **options)


@pytest.mark.parametrize("in_features, splits, layers", SLICES)
def test_slice_table(in_features, splits, layers):
    """Layer k turns input i into 1 + i's place in its slice, and ignores the layer before."""
    head = SpinalHead(in_features, 1, width=1, layers=layers, splits=splits, activation="identity")
    size = round(in_features / splits)
    for layer in linears(head)[:-1]:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
        with torch.no_grad():
            layer.weight[0, :size] = torch.arange(1.0, size + 1)
    places = head(torch.eye(in_features), pre_logits=True).T  # [layers, inputs]
    read = [[0] * int(row.count_nonzero()) for row in places]
    for row, slice_read in zip(places, read, strict=True):
        for i in row.nonzero().flatten():
            slice_read[int(row[i]) - 1] = int(i)
    assert read == SLICES[in_features, splits, layers]


@pytest.mark.parametrize("in_features, splits, layers", SLICES)
def test_gradient_reaches_the_slices_of_the_layers_so_far(in_features, splits, layers):
    """Layer k knows slices 1..k and nothing else: its own, and the rest through layer k-1."""
    head = make_head(in_features, 1, width=3, layers=layers, splits=splits, activation="identity")
    for k in range(layers):
        x = torch.randn(1, in_features, dtype=torch.float64, requires_grad=True)
        head(x, pre_logits=True)[:, 3 * k : 3 * k + 3].sum().backward()
        seen = {i for part in SLICES[in_features, splits, layers][: k + 1] for i in part}
        assert set(x.grad[0].nonzero().flatten().tolist()) == seen


@pytest.mark.parametrize("in_features, splits, layers", SKIPPING)
def test_skipped_inputs_are_refused_with_layers_that_work(in_features, splits, layers):
    with pytest.raises(ValueError, match=r"never reach") as refused:
        SpinalHead(in_features, 3, width=2, layers=layers, splits=splits)
    named = int(re.search(r"use layers=(\d+)", str(refused.value))[1])
    assert named == SKIPPING[in_features, splits, layers]
    SpinalHead(in_features, 3, width=2, layers=named, splits=splits)
    with pytest.raises(ValueError, match="never reach"):
        SpinalHead(in_features, 3, width=2, layers=named - 1, splits=splits)


def test_refused_exactly_where_an_input_would_not_be_read():
    for in_features in range(1, 11):
        for splits in range(1, 2 * in_features + 2):
            for layers in range(1, 13):
                slices = cyclic_slices(in_features, splits, layers)
                complete = {i for part in slices for i in part} == set(range(in_features))
                try:
                    SpinalHead(in_features, 1, width=1, layers=layers, splits=splits)
                    accepted = True
                except ValueError:
                    accepted = False
                assert accepted == complete, (in_features, splits, layers)


@pytest.mark.parametrize("in_features, splits", [(3, 8), (320, 640), (1, 2)])
def test_empty_slices_are_refused_with_splits_that_work(in_features, splits):
    with pytest.raises(ValueError, match="empty slices") as refused:
        SpinalHead(in_features, 2, width=1, layers=splits, splits=splits)
    named = int(re.search(r"use splits=(\d+)", str(refused.value))[1])
    SpinalHead(in_features, 2, width=1, layers=named, splits=named)


def test_layer_outputs_are_concatenated_in_layer_order():
    head = make_head(6, 4, width=2, layers=4)
    x = torch.randn(5, 6, dtype=torch.float64)
    slices, z, expected = halves(6, 4), None, []
    for layer, part in zip(linears(head)[:-1], slices, strict=True):
        z = torch.relu(layer(x[:, part] if z is None else torch.cat([x[:, part], z], dim=1)))
        expected.append(z)
    torch.testing.assert_close(head(x, pre_logits=True), torch.cat(expected, dim=1))


@pytest.mark.parametrize("shared", [False, True])
def test_identity_activation_makes_the_head_an_affine_map(shared):
    torch.manual_seed(0)
    x, y = torch.randn(2, 9, 10, dtype=torch.float64)

    def defect(activation: str) -> float:
        head = make_head(10, 3, width=5, layers=4, activation=activation, shared=shared).eval()
        mixed = head(0.3 * x + 0.7 * y) - 0.3 * head(x) - 0.7 * head(y)
        return mixed.abs().max().item()

    assert defect("identity") < 1e-12
    assert defect("relu") > 1e-3


def test_shared_weights_are_the_unshared_head_with_one_layer_copied():
    shared = make_head(12, 3, width=4, layers=5, splits=3, shared=True, norm=True).eval()
    own = make_head(12, 3, width=4, layers=5, splits=3, norm=True).eval()
    for k, layer in enumerate(own.layers):
        layer.load_state_dict(shared.layers[min(k, 1)].state_dict())
    own.output.load_state_dict(shared.output.state_dict())
    x = torch.randn(4, 12, dtype=torch.float64)
    torch.testing.assert_close(shared(x), own(x), rtol=0, atol=0)


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize(
    "half, width, layers, classes",
    [(160, 8, 6, 10), (160, 10, 6, 10), (128, 128, 4, 62), (128, 128, 4, 10), (5, 3, 2, 1)],
)
def test_closed_forms_of_the_halves(half, width, layers, classes, norm):
    """Parameters, multiplications and activations of recipes.md, 1.1."""
    head = SpinalHead(2 * half, classes, width=width, layers=layers, norm=norm)
    h, w, n, c = half, width, layers, classes
    expected = h * w + w + (n - 1) * ((h + w) * w + w) + n * w * c + c + (2 * n * w if norm else 0)
    assert parameters(head) == expected
    assert multiplications(head, 2 * h) == h * w + (n - 1) * (h + w) * w + n * w * c
    assert head.num_activations == n * w


@pytest.mark.parametrize(
    "inputs, splits, width, layers, classes, published",
    [  # parameters shared, unshared, and multiplications: the table of recipes.md, section 6
        (2048, 8, 20, 8, 10, (12_290, 45_530, 45_360)),
        (1024, 8, 10, 8, 10, (3_490, 11_830, 11_740)),
        (1024, 8, 100, 8, 10, (43_810, 181_210, 180_400)),
        (11, 4, 3, 7, 2, None),
        (6, 1, 3, 1, 2, None),
    ],
)
def test_closed_forms_with_and_without_shared_weights(
    inputs, splits, width, layers, classes, published
):
    s, w, k, o = round(inputs / splits), width, layers, classes
    one, later, output = s * w + w, (s + w) * w + w, k * w * o + o
    options = {"width": w, "layers": k, "splits": splits}
    tied, own = (SpinalHead(inputs, o, **options, shared=flag) for flag in (True, False))
    assert parameters(tied) == one + (later if k > 1 else 0) + output
    assert parameters(own) == one + (k - 1) * later + output
    expected = s * w + (k - 1) * (s + w) * w + k * w * o
    assert multiplications(tied, inputs) == multiplications(own, inputs) == expected
    if published is not None:
        assert (parameters(tied), parameters(own), expected) == published


def fc_reference(name: str) -> tuple[dict, nn.Sequential]:
    """Options of an FC head and the same written out."""
    if name == "cnn":
        options = {"hidden": (50,), "dropout": (0.0, 0.5)}
        layers = [nn.Linear(320, 50), nn.ReLU(), nn.Dropout(0.5), nn.Linear(50, 10)]
    elif name == "vgg5":
        options = {"hidden": (512,), "dropout": (0.5, 0.5), "norm": True}
        layers = [nn.Dropout(0.5), nn.Linear(320, 512), nn.BatchNorm1d(512), nn.ReLU()]
        layers += [nn.Dropout(0.5), nn.Linear(512, 10)]
    elif name == "two hidden":
        options = {"hidden": [7, 5], "activation": "tanh"}
        layers = [nn.Linear(320, 7), nn.Tanh(), nn.Linear(7, 5), nn.Tanh(), nn.Linear(5, 10)]
    else:
        options = {"hidden": ()}
        layers = [nn.Linear(320, 10)]
    return options, nn.Sequential(*layers)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("name", ["cnn", "vgg5", "two hidden", "linear"])
def test_fc_head_layouts(name, training):
    options, twin = fc_reference(name)
    head = FCHead(320, 10, **options)
    assert parameters(head) == parameters(twin)
    for ours, theirs in zip(head.parameters(), twin.parameters(), strict=True):
        theirs.data.copy_(ours.data)
    x = torch.randn(6, 320)
    head.train(training)
    twin.train(training)
    torch.manual_seed(3)
    logits = head(x)
    torch.manual_seed(3)
    torch.testing.assert_close(logits, twin(x), rtol=0, atol=0)
    assert head.num_activations == sum(options["hidden"])


@pytest.mark.parametrize("value", [0, -1])
@pytest.mark.parametrize("name", ["in_features", "num_classes", "width", "layers", "splits"])
def test_spinal_counts_below_one_are_refused(name, value):
    given = {"in_features": 8, "num_classes": 2, "width": 3, "layers": 2, "splits": 2, name: value}
    with pytest.raises(
        ValueError, match=f"{name} must (be 1 or more|lie between 1 and 1000), got {value}"
    ):
        SpinalHead(given.pop("in_features"), given.pop("num_classes"), **given)


@pytest.mark.parametrize("value", [0, -1])
def test_fc_counts_below_one_are_refused(value):
    with pytest.raises(ValueError, match=f"in_features must be 1 or more, got {value}"):
        FCHead(value, 2)
    with pytest.raises(ValueError, match=f"num_classes must be 1 or more, got {value}"):
        FCHead(8, value)
    with pytest.raises(ValueError, match=f"hidden must be 1 or more, got {value}"):
        FCHead(8, 2, hidden=(4, value))


@pytest.mark.parametrize("p", [-0.1, 1.0, 1.5, float("nan")])
def test_probabilities_out_of_range_are_refused(p):
    with pytest.raises(ValueError, match=r"dropout must lie in \[0, 1\)"):
        SpinalHead(8, 2, dropout=p)
    with pytest.raises(ValueError, match=r"dropout must lie in \[0, 1\)"):
        FCHead(8, 2, hidden=(4,), dropout=(0.5, p))


@pytest.mark.parametrize("dropout", [(0.5,), (0.5, 0.5, 0.5)])
def test_fc_head_needs_one_probability_before_each_linear(dropout):
    with pytest.raises(ValueError, match="before each of the 2 Linear layers"):
        FCHead(8, 2, hidden=(4,), dropout=dropout)


def test_unknown_activation_names_the_nearest():
    for build in (
        lambda: SpinalHead(8, 2, activation="rellu"),
        lambda: FCHead(8, 2, activation="rellu"),
        lambda: FCHead(8, 2, hidden=(), activation="rellu"),
    ):
        with pytest.raises(UserError, match=r"no activation 'rellu'; did you mean 'relu'\?"):
            build()


def test_no_dropout_draws_no_random_numbers():
    for head in (SpinalHead(8, 2), FCHead(8, 2, hidden=(4,), dropout=(0.0, 0.0))):
        before = torch.get_rng_state()
        head.train()(torch.zeros(3, 8))
        assert torch.equal(torch.get_rng_state(), before)


def test_heads_are_registered_under_their_names():
    assert isinstance(HEADS.build("spinal", {"layers": 2}, 8, 3), SpinalHead)
    assert isinstance(HEADS.build("fc", {"hidden": [4]}, 8, 3), FCHead)
    with pytest.raises(UserError, match=r"no head 'spinall'; did you mean 'spinal'\?"):
        HEADS.build("spinall", {}, 8, 3)
    with pytest.raises(UserError, match="head 'spinal': 1 layers read"):
        HEADS.build("spinal", {"layers": 1}, 8, 3)


def test_the_output_layer_of_a_spinal_head_may_have_a_dropout_of_its_own():
    head = SpinalHead(8, 3, width=4, layers=2, output_dropout=0.5)
    assert [m.p for m in head.modules() if isinstance(m, nn.Dropout)] == [0.5]
    assert isinstance(head.output[0], nn.Dropout)
    none = SpinalHead(8, 3, width=4, layers=2, dropout=0.5, output_dropout=0.0)
    assert len(none.output) == 1 and isinstance(none.layers[0][0], nn.Dropout)
    same = SpinalHead(8, 3, width=4, layers=2, dropout=0.5)
    assert [m.p for m in same.modules() if isinstance(m, nn.Dropout)] == [0.5] * 3
    with pytest.raises(ValueError, match="output_dropout"):
        SpinalHead(8, 3, output_dropout=1.0)
