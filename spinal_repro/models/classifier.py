"""A classifier is a backbone and a head; its size is counted, never typed."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from spinal_repro.config.schema import Component, DatasetConfig
from spinal_repro.errors import unknown
from spinal_repro.models.backbones import load_backbones
from spinal_repro.models.counting import MultiplicationCounter
from spinal_repro.models.heads import HEADS
from spinal_repro.models.pretrained import WeightReport, load_pretrained
from spinal_repro.seeds import stream_seed

FREEZE = ("none", "backbone")


class Classifier(nn.Module):
    """Images ``[N, C, H, W]`` to logits ``[N, num_outputs]``.

    Args:
        backbone: Images to features; with auxiliary outputs it gives, in training mode, features
            and a list of auxiliary features.
        head: Features to logits.
        aux_heads: A classifier for each auxiliary output.
        frozen: Train the head alone, see `freeze`.

    Attributes:
        weights: What came of loading pretrained weights; None where there are none.
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: nn.Module,
        aux_heads: Sequence[nn.Module] = (),
        *,
        frozen: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.aux_heads = nn.ModuleList(aux_heads)
        self.weights: WeightReport | None = None
        self.freeze(frozen)

    def freeze(self, frozen: bool) -> None:
        """Train the head alone, or everything from here on.

        A frozen backbone also stays in evaluation mode, so that its batch norm and dropout are
        those of evaluation.
        """
        self.frozen = frozen
        self.backbone.requires_grad_(not frozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> "Classifier":
        """Training mode, for all but a frozen backbone."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, list[Tensor]]:
        """Images to logits; in training with auxiliary outputs also a list of their logits."""
        features = self.backbone(images)
        if isinstance(features, tuple):
            features, aux = features
            pairs = zip(self.aux_heads, aux, strict=True)
            return self.head(features), [head(x) for head, x in pairs]
        logits: Tensor = self.head(features)
        return logits


def build_model(
    dataset: DatasetConfig,
    model: Component,
    head: Component,
    seed: int = 0,
    image_size: int | None = None,
    data_root: str | Path = ".",
) -> Classifier:
    """Build a classifier with initial weights that depend on the seed alone.

    The network sees images of ``image_size`` px; those of the data set unless given. A weights
    file that is not there is looked for under ``data_root``.

    Backbone and head draw from streams of their own, so the same seed gives every head the same
    backbone weights, and the caller's random state is left as it was.

    Raises:
        UserError: for unknown names, options or impossible values.
    """
    options = dict(model.arguments)
    size = image_size or dataset.image_size
    pretrained, freeze = options.pop("pretrained", None), options.pop("freeze", "none")
    if freeze not in FREEZE:
        raise unknown("value of model.freeze", str(freeze), FREEZE)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, "backbone"))
        body = load_backbones().build(model.registered, options, dataset.channels, size)
        torch.manual_seed(stream_seed(seed, "head"))
        top = HEADS.build(head.name, head.options, body.num_features, dataset.outputs)
        frozen = freeze == "backbone"
        sizes = [] if frozen else getattr(body, "aux_features", [])
        aux_heads = [nn.Linear(size, dataset.outputs) for size in sizes]
    classifier = Classifier(body, top, aux_heads, frozen=frozen)
    if pretrained is not None:
        classifier.weights = load_pretrained(body, str(pretrained), Path(data_root))
    return classifier


@dataclass(frozen=True)
class Counts:
    """Size of a classifier for one image.

    Parameters are trainable ones. Multiplications are those of linear layers and convolutions
    as executed (a layer called k times counts k times). Activations are hidden units computed
    in the head; logits do not count. Auxiliary outputs exist in training only and do not count.
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
        with MultiplicationCounter() as counter:
            y = module(x)
        return counter.total, y

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
    body -= sum(parameters(module) for module in getattr(classifier.backbone, "aux_modules", ()))
    return Counts(
        body_parameters=body,
        head_parameters=head,
        total_parameters=body + head,
        head_multiplications=head_mult,
        total_multiplications=body_mult + head_mult,
        head_activations=int(classifier.head.num_activations),  # type: ignore[arg-type]
    )
