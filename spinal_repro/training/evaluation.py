"""One evaluation: a model over every image of a split, once."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spinal_repro.data.loader import Batches
from spinal_repro.training.distributed import ALONE, Ranks


@dataclass(frozen=True)
class Evaluation:
    """Outcome on one split: images right, images seen, mean loss, predicted classes ``[N]``."""

    correct: int
    count: int
    loss: float
    predictions: Tensor

    @property
    def accuracy(self) -> float:
        """Share of images right, in [0, 1]."""
        return self.correct / self.count


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    batches: Batches,
    autocast: Callable[[], AbstractContextManager[Any]],
    ranks: Ranks = ALONE,
    look: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Run a model over every image of a split once, in evaluation mode.

    Args:
        model: To evaluate.
        batches: Of the split.
        autocast: Context for the arithmetic.
        ranks: Of several processes, each takes its share of the images, and all have the whole
            result.
        look: Called after each batch.
    """
    model.eval()
    device = batches.device
    loss = torch.zeros((), dtype=torch.float32, device=device)
    predictions = [batches.labels[:0]]  # a share may be empty
    for images, labels in batches.in_order():
        with autocast():
            logits = model(images)
        loss += F.cross_entropy(logits.float(), labels, reduction="sum")
        predictions.append(logits.argmax(dim=1))
        look()
    predicted = ranks.assembled(torch.cat(predictions), batches.num_images)
    assert len(predicted) == batches.num_images
    correct, loss = int((predicted == batches.labels).sum()), ranks.total(loss)
    return Evaluation(correct, len(predicted), loss.item() / len(predicted), predicted.cpu())
