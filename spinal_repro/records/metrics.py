"""Metrics of a classifier from its labels and probabilities, by scikit-learn."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

TITLES = {  # of columns; all are from 0 to 1, kappa from -1 to 1
    "accuracy": "accuracy",
    "top5": "top-5 accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "kappa": "Cohen's kappa",
    "auc": "AUC",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
}


def compute(labels: "NDArray[Any]", probabilities: "NDArray[Any]") -> dict[str, float]:
    """Compute metrics of labels ``[N]`` and probabilities ``[N, C]``; undefined ones are omitted.

    ``auc`` is the area under the ROC curve, with more than two classes the mean of each class
    against the rest; it needs images of all classes. With two classes the second one is the
    positive one: ``sensitivity`` is its recall, ``specificity`` that of the first.
    """
    import numpy as np
    from sklearn import metrics

    outputs, predictions = probabilities.shape[1], probabilities.argmax(axis=1)
    classes, finite = np.unique(labels), np.isfinite(probabilities).all()
    recalls = metrics.recall_score(labels, predictions, labels=classes, average=None)
    found = {
        "accuracy": metrics.accuracy_score(labels, predictions),
        "balanced_accuracy": recalls.mean(),
        "macro_f1": metrics.f1_score(labels, predictions, average="macro", zero_division=0),
    }
    if len(np.union1d(labels, predictions)) > 1:
        found["kappa"] = metrics.cohen_kappa_score(labels, predictions)
    if outputs > 5 and finite:
        known = range(outputs)
        found["top5"] = metrics.top_k_accuracy_score(labels, probabilities, k=5, labels=known)
    if len(classes) == outputs and finite:
        scores = probabilities[:, 1] if outputs == 2 else probabilities
        found["auc"] = metrics.roc_auc_score(labels, scores, multi_class="ovr")
    if outputs == 2:
        names = ("specificity", "sensitivity")
        found |= {names[c]: recall for c, recall in zip(classes, recalls, strict=True)}
    return {name: float(found[name]) for name in TITLES if name in found}


def count_confusion(
    labels: "NDArray[Any]", predictions: "NDArray[Any]", outputs: int
) -> "NDArray[Any]":
    """Count images ``[outputs, outputs]``: rows are classes, columns predictions."""
    from sklearn.metrics import confusion_matrix

    return confusion_matrix(labels, predictions, labels=range(outputs))


def describe_metrics(found: Mapping[str, float]) -> str:
    """List metrics on one line, without the accuracy, which is shown with its interval."""
    return ", ".join(f"{TITLES[name]} {v:.4f}" for name, v in found.items() if name != "accuracy")
