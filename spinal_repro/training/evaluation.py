"""Evaluation of a model on one part of a data set."""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spinal_repro.data.features import Autocast
from spinal_repro.data.loader import Batches
from spinal_repro.records.metrics import compute


@dataclass(frozen=True)
class Evaluation:
    """Result on one split of ``count`` images."""

    correct: int
    count: int
    loss: float  # mean over the images
    predictions: Tensor  # classes [N], on the CPU
    labels: Any = None  # int64 [N], and
    probabilities: Any = None  # float64 [N, C], NumPy arrays; None unless `evaluate` keeps them

    @property
    def accuracy(self) -> float:
        return self.correct / self.count

    def score(self, metric: str) -> float:
        """Compute one metric; NaN if it is undefined, as it is if the loss is not finite."""
        if metric == "accuracy":
            return self.accuracy
        return compute(self.labels, self.probabilities).get(metric, math.nan)

    def metrics(self, split: str) -> dict[str, Any]:
        """The entries of an epoch's history."""
        found = {"loss": self.loss, "accuracy": self.accuracy, "correct": self.correct}
        return {f"{split}_{name}": value for name, value in found.items()}


@torch.inference_mode()
def evaluate(
    model: nn.Module, batches: Batches, autocast: Autocast, keep: bool = False
) -> Evaluation:
    """Evaluate on every image of a split once, and ``keep`` labels and probabilities."""
    model.eval()
    total = torch.zeros((), device=batches.device)
    predictions, kept = [], []
    for images, labels in batches.in_order():
        with autocast():
            logits = model(images)[:, : batches.outputs]
        total = total + F.cross_entropy(logits.float(), labels, reduction="sum")
        predictions.append(logits.argmax(dim=1))
        if keep:
            kept.append(logits.float())
    predicted, count = torch.cat(predictions), batches.num_images
    assert len(predicted) == count
    correct = int((predicted == batches.labels).sum())
    result = Evaluation(correct, count, total.item() / count, predicted.cpu())
    if not keep:
        return result
    # float64 keeps the order of the logits
    probabilities = torch.cat(kept).cpu().double().softmax(dim=1).numpy()
    return replace(result, labels=batches.labels.cpu().numpy(), probabilities=probabilities)
