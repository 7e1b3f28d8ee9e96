"""The training loss, and batches of mixed images."""

import random
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

AUX_WEIGHT = 0.3  # weight of the loss of an auxiliary output (GoogLeNet paper)
TINY = 1e-30  # instead of a sum of weights that is 0


def training_loss(
    output: Tensor | tuple[Tensor, list[Tensor]],
    labels: Tensor,
    label_smoothing: float,
    weights: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return logits ``[N, C]`` and cross-entropy; auxiliary logits in ``output`` also count.

    ``labels`` are classes ``[N]`` or their shares ``[N, C]``; ``weights`` ``[N]`` are of the mean.
    """
    logits, auxiliary = output if isinstance(output, tuple) else (output, [])
    reduction = "mean" if weights is None else "none"
    options: Any = {"label_smoothing": label_smoothing, "reduction": reduction}
    parts = [F.cross_entropy(part.float(), labels, **options) for part in (logits, *auxiliary)]
    if weights is not None:
        parts = [(part * weights).sum() / weights.sum().clamp(min=TINY) for part in parts]
    return logits, sum((AUX_WEIGHT * part for part in parts[1:]), parts[0])


def mixed(
    mixers: Sequence[Any],
    seed: int,
    images: Tensor,
    labels: Tensor,
    weights: Tensor | float = 1.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Mix the images of a batch by mixup or CutMix, with numbers drawn on the CPU.

    Returns images, shares of the classes ``[N, C]`` and weights.
    """
    soft = (F.one_hot(labels, mixers[0].num_classes).T * weights).T
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        images, soft = random.Random(seed).choice(mixers)(images, soft)
    total = soft.sum(dim=1)
    return images, soft / total.clamp(min=TINY).unsqueeze(1), total
