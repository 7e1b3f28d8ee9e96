"""Replacing the classifier of any network by a Spinal head."""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from spinal_repro.models.heads import SpinalHead
from spinal_repro.models.heads.common import is_activation

# the layers of a classifier, besides Linear and activations
OTHER_LAYERS = (nn.modules.dropout._DropoutNd, nn.BatchNorm1d, nn.LayerNorm, nn.Identity)

Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True)
class ClassifierLocation:
    """The position of a classifier in a network."""

    name: str  # of the module to replace, e.g. "fc" or "classifier"
    in_features: int
    start: int = 0  # if the module is a Sequential: index of its first layer to replace


def to_spinal(
    model: Model, num_classes: int, *, example: Tensor | None = None, **options: Any
) -> Model:
    """Replace the classifier of a model by a Spinal head, in place, and return the model.

    The classifier is found by running the model: it is the Linear whose output is that of the
    model, whatever its name. If that Linear ends a Sequential, all Linear layers, activations
    and dropouts that lead to it are replaced too: VGG loses its whole three-layer classifier, and
    the head reads the 25088 features of the convolutions (recipes 2.8). All other layers stay.

    Args:
        model: A network of torchvision, timm or your own; its output ``[N, C]`` must come
            directly from a Linear, otherwise ValueError.
        num_classes: Number of logits of the new head.
        example: Input for the search; None for one blank image of the model's own size (timm,
            vision transformers), or else of 224 px.
        **options: Arguments of `SpinalHead`, e.g. width, layers, splits, dropout.
    """
    if getattr(model, "aux_logits", False):
        raise ValueError("its auxiliary classifiers would stay; build it with aux_logits=False")
    location = find_classifier(model, example)
    head = SpinalHead(location.in_features, num_classes, **options)
    parameter = next(model.parameters())
    head.to(parameter.device, parameter.dtype).train(model.training)
    replace_classifier(model, location, head)
    if isinstance(getattr(model, "num_classes", None), int):  # timm keeps the number
        setattr(model, "num_classes", num_classes)  # noqa: B010 (a Module's attributes are typed)
    return model


def find_classifier(model: nn.Module, example: Tensor | None = None) -> ClassifierLocation:
    """Find the classifier that a head would replace; ValueError if there is none.

    A module that forward does not use is never found, whatever its name: the authors' VGG
    scripts put the head into ``.fc``, which VGG does not have (Q3).
    """
    calls, output = _linear_calls(model, _blank(model) if example is None else example)
    if not isinstance(output, Tensor):
        raise ValueError(f"the model returns a {type(output).__name__}, not a tensor of logits")
    found = [(name, x) for name, x, y in calls if y is output or _same_memory(y, output)]
    if not found:
        last = f"the last Linear called is '{calls[-1][0]}'" if calls else "it calls no Linear"
        raise ValueError(f"the model's output is not the output of a Linear; {last}")
    name, features = found[-1]
    if not name:
        raise ValueError("the model is a single Linear; use a SpinalHead instead of it")
    if features.dim() != 2:
        raise ValueError(f"'{name}' reads {list(features.shape)}; a head needs vectors, [N, D]")
    linear: Any = model.get_submodule(name)
    parent_name = name.rpartition(".")[0]
    parent = model.get_submodule(parent_name)
    if not isinstance(parent, nn.Sequential) or type(parent).forward is not nn.Sequential.forward:
        return ClassifierLocation(name, linear.in_features)
    start = max(i for i, layer in enumerate(parent) if layer is linear)
    for i in range(start - 1, -1, -1):
        if isinstance(parent[i], nn.Linear):
            start, linear = i, parent[i]
        elif not (is_activation(parent[i]) or isinstance(parent[i], OTHER_LAYERS)):
            break
    return ClassifierLocation(parent_name, linear.in_features, start)


def replace_classifier(
    model: nn.Module, location: ClassifierLocation, head: nn.Module
) -> nn.Module:
    """Put a head in place of the classifier at ``location``, and return the classifier."""
    old = model.get_submodule(location.name)
    if isinstance(old, nn.Sequential) and (location.start or not location.name):
        removed = nn.Sequential(OrderedDict([*old.named_children()][location.start :]))
        del old[location.start :]
        old.append(head)
        return removed
    model.set_submodule(location.name, head)
    return old


def _linear_calls(model: nn.Module, x: Tensor) -> tuple[list[tuple[str, Tensor, Tensor]], Any]:
    """Run the model; return name, input and output of every Linear, and the model's output."""
    calls: list[tuple[str, Tensor, Tensor]] = []
    names = {layer: name for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}

    def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:
        if module in names:
            calls.append((names[module], inputs[0], output))

    try:
        with evaluation_mode(model), register_module_forward_hook(keep):
            return calls, model(x)
    except RuntimeError as error:
        message = f"the model cannot be run on the example ({error}); give example="
        raise ValueError(message) from error


def _blank(model: nn.Module) -> Tensor:
    """A blank image of the size that a timm or torchvision model expects."""
    if (weight := next((p for p in model.parameters() if p.dim() == 4), None)) is None:
        raise ValueError("without a convolution the input size is unknown; give example=")
    settings = getattr(model, "pretrained_cfg", None) or {}
    side = getattr(model, "image_size", 224)  # torchvision's vision transformer has it
    _, *sides = settings.get("input_size") or (3, side, side)
    return weight.new_zeros(1, weight.shape[1], *sides)


def _same_memory(a: Tensor, b: Tensor) -> bool:
    """Whether one tensor is the other one, reshaped."""
    return a.numel() == b.numel() and a.data_ptr() == b.data_ptr() != 0


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Set evaluation mode without gradients; restore the mode of each module afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes.items():  # one by one: parts may be frozen
            module.training = training
