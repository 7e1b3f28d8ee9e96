"""One evaluation: a model over every image of a split, once."""

import math
from collections.abc import Callable, Sequence
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
    """Outcome on one split.

    Attributes:
        correct: Images right.
        count: Images seen.
        loss: Mean over them.
        predictions: Classes ``[N]``.
        spoiled: Where the loss is not finite, the batch that made it so: its first position in
            the split and the one after its last.
    """

    correct: int
    count: int
    loss: float
    predictions: Tensor
    spoiled: tuple[int, int] | None = None

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
    sums = [torch.zeros((), dtype=torch.float32, device=device)]  # of the loss, after each batch
    predictions = [batches.labels[:0]]  # a share may be empty
    for images, labels in batches.in_order():
        with autocast():
            logits = model(images)
        sums.append(sums[-1] + F.cross_entropy(logits.float(), labels, reduction="sum"))
        predictions.append(logits.argmax(dim=1))
        look()
    predicted = ranks.assembled(torch.cat(predictions), batches.num_images)
    assert len(predicted) == batches.num_images
    correct = int((predicted == batches.labels).sum())
    loss = ranks.total(sums[-1]).item() / len(predicted)
    spoiled = None if math.isfinite(loss) else _spoiled(sums, batches, ranks)
    return Evaluation(correct, len(predicted), loss, predicted.cpu(), spoiled)


def _spoiled(sums: Sequence[Tensor], batches: Batches, ranks: Ranks) -> tuple[int, int]:
    """The first batch, of any process, after which the sum is not finite.

    The last one where that is so for the sum over processes alone.
    """
    bad = (~torch.isfinite(torch.stack(list(sums)))).tolist()
    number = bad.index(True) if True in bad else len(bad) - 1
    mine = ranks.share(0, batches.num_images)
    start = mine.start + (number - 1) * batches.batch_size
    place = (start, min(start + batches.batch_size, mine.stop))
    found = ranks.gathered((True in bad, place))
    return next((place for met, place in found if met), found[-1][1])
