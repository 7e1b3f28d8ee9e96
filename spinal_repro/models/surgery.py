"""A Spinal head in the place of another network's classifier."""

import itertools
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from spinal_repro.models.heads import SpinalHead

# What may stand between the Linear layers of a classifier and goes with them.
BETWEEN = (nn.modules.dropout._DropoutNd, nn.BatchNorm1d, nn.LayerNorm, nn.Identity)
ACTIVATION_MODULE = nn.ReLU.__module__

Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True)
class ClassifierLocation:
    """Where a classifier stands in a network.

    Attributes:
        name: The module that a head replaces, e.g. ``"fc"`` or ``"classifier"``.
        in_features: Number of features that arrive there.
        start: Where ``name`` is a Sequential: its first position that belongs to the classifier.
    """

    name: str
    in_features: int
    start: int = 0


def to_spinal(
    model: Model, num_classes: int, *, example: Tensor | None = None, **options: Any
) -> Model:
    """Replace the classifier of a torchvision or timm model by a Spinal head, in place.

    The classifier is found by running the model: it is the Linear whose output is the model's
    output, whatever its name. Where that Linear ends a Sequential, all Linear layers, activations
    and dropouts that lead to it go as well: of VGG's three-layer classifier nothing is left, and
    the head reads the 25088 features of the convolutions (recipes 2.8). What stands before the
    first of these Linear layers stays. The backbone's weights are not touched.

    Args:
        model: Any network whose output ``[N, C]`` comes straight from a Linear.
        num_classes: Number of logits of the new head.
        example: Input for the search; default: one blank image of the size the model names
            (timm), or of 224 px.
        **options: Keyword arguments of `SpinalHead`: width, layers, splits, dropout, norm,
            activation, shared.

    Returns:
        The same model.

    Raises:
        ValueError: where no such Linear exists, and as `SpinalHead`.
    """
    slot = find_classifier(model, example)
    head = SpinalHead(slot.in_features, num_classes, **options)
    place = next(model.parameters())
    head.to(place.device, place.dtype).train(model.training)
    old = model.get_submodule(slot.name)
    if isinstance(old, nn.Sequential) and (slot.start or not slot.name):
        del old[slot.start :]
        old.append(head)
    else:
        parent, _, attribute = slot.name.rpartition(".")
        setattr(model.get_submodule(parent), attribute, head)
    if isinstance(getattr(model, "num_classes", None), int):  # timm keeps the number
        setattr(model, "num_classes", num_classes)  # noqa: B010 (a Module's attributes are typed)
    return model


def find_classifier(model: nn.Module, example: Tensor | None = None) -> ClassifierLocation:
    """Find what a head would replace; the model stays as it was.

    A module that forward does not use is never found, whatever its name: the authors' VGG
    scripts put the head into ``.fc``, which VGG does not have (Q3).

    Args:
        model: A network.
        example: Input for one forward pass; default as in `to_spinal`.

    Raises:
        ValueError: where the output is not that of a Linear, or the model has auxiliary outputs.
    """
    if getattr(model, "aux_logits", False):
        raise ValueError(
            "the model has auxiliary classifiers for training, which would keep their old number "
            "of classes; build it with aux_logits=False"
        )
    calls, output = _linear_calls(model, example)
    if not isinstance(output, Tensor):
        raise ValueError(f"the model returns a {type(output).__name__}, not a tensor of logits")
    found = [(name, x) for name, x, y in calls if y is output or _same_memory(y, output)]
    if not found:
        last = f"the last Linear called is '{calls[-1][0]}'" if calls else "it calls no Linear"
        raise ValueError(f"the model's output is not the output of a Linear; {last}")
    name, features = found[-1]
    if not name:
        raise ValueError("the model is a single Linear; build a SpinalHead in its place")
    if features.dim() != 2:
        raise ValueError(
            f"'{name}' reads {list(features.shape)}; a head needs one vector an image, [N, D]"
        )
    return _expand_to_classifier(model, name)


def _linear_calls(
    model: nn.Module, example: Tensor | None
) -> tuple[list[tuple[str, Tensor, Tensor]], Any]:
    """Every call of a Linear in one forward pass: name, input, output; and the model's output."""
    calls: list[tuple[str, Tensor, Tensor]] = []
    modes = {module: module.training for module in model.modules()}
    handles = [
        module.register_forward_hook(
            lambda _, inputs, output, name=name: calls.append((name, inputs[0], output))
        )
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
    ]
    try:
        model.eval()
        with torch.no_grad():
            output = model(_blank(model) if example is None else example)
    except RuntimeError as error:
        raise ValueError(f"the model cannot be run on the example ({error}); give example=") from (
            error
        )
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode
    return calls, output


def _blank(model: nn.Module) -> Tensor:
    """A blank image of the size that a timm or torchvision model expects."""
    weight = next((p for p in model.parameters() if p.dim() == 4), None)
    if weight is None:
        raise ValueError("no convolution tells the size of the model's input; give example=")
    settings = getattr(model, "pretrained_cfg", None) or {}
    side = getattr(model, "image_size", 224)  # torchvision's vision transformer
    shape = settings.get("input_size") or (weight.shape[1], side, side)
    if shape[0] != weight.shape[1]:  # timm.create_model(in_chans=...) leaves the entry alone
        shape = (weight.shape[1], *shape[1:])
    return torch.zeros(1, *shape, device=weight.device, dtype=weight.dtype)


def _same_memory(a: Tensor, b: Tensor) -> bool:
    """Whether one is the other, reshaped."""
    return a.numel() == b.numel() and a.data_ptr() == b.data_ptr() != 0


def _expand_to_classifier(model: nn.Module, name: str) -> ClassifierLocation:
    """From the last Linear to the whole classifier, where a Sequential shows what that is."""
    linear = model.get_submodule(name)
    assert isinstance(linear, nn.Linear)
    parent_name, _, key = name.rpartition(".")
    parent = model.get_submodule(parent_name)
    if type(parent).forward is not nn.Sequential.forward:
        return ClassifierLocation(name, linear.in_features)
    children = list(parent.named_children())
    end = next(i for i, (child, _) in enumerate(children) if child == key)
    run = itertools.takewhile(lambda i: _belongs(children[i][1]), range(end, -1, -1))
    start = min(i for i in run if isinstance(children[i][1], nn.Linear))
    first = children[start][1]
    assert isinstance(first, nn.Linear)
    return ClassifierLocation(parent_name, first.in_features, start)


def _belongs(module: nn.Module) -> bool:
    """Whether a module can be part of a classifier: Linear, activation, dropout, norm."""
    if isinstance(module, (nn.Linear, *BETWEEN)):
        return True
    return type(module).__module__ == ACTIVATION_MODULE and not list(module.parameters())
