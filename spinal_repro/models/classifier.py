"""A classifier is a backbone and a head."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spinal_repro.config.schema import Component, DatasetConfig
from spinal_repro.errors import UserError, one_of
from spinal_repro.models.backbones import load_backbones
from spinal_repro.models.heads import HEADS, PRETRAINED
from spinal_repro.models.pretrained import WeightReport, load_pretrained
from spinal_repro.seeds import stream_seed


class Classifier(nn.Module):
    """Images ``[N, C, H, W]`` to logits ``[N, num_outputs]``.

    A backbone with auxiliary outputs returns, in training mode, features and a list of auxiliary
    features; each of these has a classifier in ``aux_heads``, and forward returns logits and a
    list of auxiliary logits.
    """

    def __init__(
        self, backbone: nn.Module, head: nn.Module, aux_heads: Sequence[nn.Module] = ()
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.aux_heads = nn.ModuleList(aux_heads)
        self.weights: WeightReport | None = None  # of pretrained weights
        self.frozen = False
        self.of_features = False  # forward takes features [N, F, 1, 1] of the backbone, not images

    def freeze(self, frozen: bool) -> None:
        """Freeze or unfreeze the backbone; a frozen one also stays in evaluation mode."""
        self.frozen = frozen
        self.backbone.requires_grad_(not frozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> "Classifier":
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, list[Tensor]]:
        features = images.flatten(1) if self.of_features else self.backbone(images)
        if isinstance(features, tuple):
            features, aux = features
            pairs = zip(self.aux_heads, aux, strict=True)
            return self.head(features), [head(x) for head, x in pairs]
        return self.head(features)


def build_model(
    dataset: DatasetConfig,
    model: Component,
    head: Component,
    seed: int = 0,
    image_size: int | None = None,
    data_root: str | Path = ".",
    load_weights: bool = True,
) -> Classifier:
    """Build a classifier whose initial weights depend only on the seed.

    Backbone and head draw from separate streams, so the same seed gives every head the same
    backbone weights. The caller's random state does not change.

    Args:
        model: The backbone; its options may have ``pretrained``, ``freeze`` and ``zero_head_bias``
            (Linear biases of the head start at 0).
        image_size: Side of the images in pixels; None for that of the data set.
        load_weights: False leaves out the pretrained weights; else see `load_pretrained`.
    """
    options = ({"name": model.name} if model.kind else {}) | model.options
    size = image_size or dataset.image_size
    pretrained, freeze = options.pop("pretrained", None), options.pop("freeze", "none")
    zero_bias = options.pop("zero_head_bias", False)
    one_of("model.freeze", str(freeze), ("none", "backbone"))
    if not isinstance(zero_bias, bool):
        raise UserError(f"model.zero_head_bias must be true or false, got {zero_bias}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, "backbone"))
        body = load_backbones().build(model.kind or model.name, options, dataset.channels, size)
        torch.manual_seed(stream_seed(seed, "head"))
        top = _build_head(body, head, dataset.outputs, pretrained is not None)
        for linear in _linears(top) if zero_bias else ():
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)
        frozen = freeze == "backbone"
        aux_features = [] if frozen else getattr(body, "aux_features", [])
        aux_heads = [nn.Linear(inputs, dataset.outputs) for inputs in aux_features]
    classifier = Classifier(body, top, aux_heads)
    classifier.freeze(frozen)
    if pretrained is not None:
        net: Any = getattr(body, "net", None)
        if hasattr(net, "transform_input"):
            net.transform_input = True  # GoogLeNet and Inception v3 expect mean and std 0.5
        if load_weights:
            kept = top if head.name == PRETRAINED else None
            classifier.weights = load_pretrained(body, str(pretrained), data_root, kept)
    return classifier


def _build_head(body: nn.Module, head: Component, outputs: int, pretrained: bool) -> nn.Module:
    """Build a head, or take the network's own classifier for ``head=pretrained``."""
    own: nn.Module | None = vars(body).pop("classifier", None)  # freed, unless it is the head
    if head.name != PRETRAINED or not pretrained or own is None:
        return HEADS.build(head.name, head.options, body.num_features, outputs)
    found = _linears(own)[-1].out_features
    if found != outputs:
        raise UserError(f"the network's own classifier needs dataset.num_outputs={found}")
    return own


def _linears(module: nn.Module) -> list[nn.Linear]:
    return [layer for layer in module.modules() if isinstance(layer, nn.Linear)]


def build_blank(
    dataset: DatasetConfig, model: Component, head: Component, image_size: int
) -> Classifier:
    """Build on PyTorch's meta device, where weights take neither memory nor time."""
    build = functools.partial(
        build_model, dataset, model, head, image_size=image_size, load_weights=False
    )
    try:
        with torch.device("meta"):
            return build()
    except NotImplementedError:  # some backbones compute with values while they are built
        return build()
