"""A classifier is a backbone and a head; its size is counted, never typed."""

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from spinal_repro.backbones import load_backbones
from spinal_repro.config import Component, DatasetConfig
from spinal_repro.heads import HEADS
from spinal_repro.seeds import stream_seed


class Classifier(nn.Module):
    """Images ``[N, C, H, W]`` to logits ``[N, num_outputs]``."""

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        """Images to logits."""
        logits: Tensor = self.head(self.backbone(images))
        return logits


def build_model(
    dataset: DatasetConfig, model: Component, head: Component, seed: int = 0
) -> Classifier:
    """Build a classifier with initial weights that depend on the seed alone.

    Backbone and head draw from streams of their own, so the same seed gives every head the same
    backbone weights, and the caller's random state is left as it was.

    Raises:
        UserError: for unknown names, options or impossible values.
    """
    load_backbones()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, "backbone"))
        body = load_backbones().build(
            model.name, model.options, dataset.channels, dataset.image_size
        )
        torch.manual_seed(stream_seed(seed, "head"))
        top = HEADS.build(head.name, head.options, body.num_features, dataset.outputs)
    return Classifier(body, top)


@dataclass(frozen=True)
class Counts:
    """Size of a classifier for one image.

    Parameters are trainable ones. Multiplications are those of linear layers and convolutions
    as executed (a layer called k times counts k times). Activations are hidden units computed
    in the head; logits do not count.
    """

    body_parameters: int
    head_parameters: int
    total_parameters: int
    head_multiplications: int
    total_multiplications: int
    head_activations: int

    def to_dict(self) -> dict[str, int]:
        """Plain dictionary, for records."""
        return dataclasses.asdict(self)


def count(classifier: Classifier, channels: int, image_size: int) -> Counts:
    """Count a classifier by running one blank image through it in evaluation mode."""

    def parameters(module: nn.Module) -> int:
        return sum(p.numel() for p in module.parameters() if p.requires_grad)

    def multiplications(module: nn.Module, x: Tensor) -> tuple[int, Tensor]:
        with FlopCounterMode(display=False) as counter:
            y = module(x)
        return counter.get_total_flops() // 2, y  # torch counts a multiply-add as two

    device = next(classifier.parameters()).device
    modes = [(module, module.training) for module in classifier.modules()]
    classifier.eval()
    with torch.no_grad():
        image = torch.zeros(1, channels, image_size, image_size, device=device)
        body_mult, features = multiplications(classifier.backbone, image)
        head_mult, _ = multiplications(classifier.head, features)
    for module, training in modes:  # one by one: parts may have been frozen
        module.training = training
    body, head = parameters(classifier.backbone), parameters(classifier.head)
    return Counts(
        body_parameters=body,
        head_parameters=head,
        total_parameters=body + head,
        head_multiplications=head_mult,
        total_multiplications=body_mult + head_mult,
        head_activations=int(classifier.head.num_activations),  # type: ignore[arg-type]
    )
