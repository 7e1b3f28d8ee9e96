"""Features: what the head of a trained model reads, for other classifiers."""

from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spinal_repro.data.photos import Photos, Row
from spinal_repro.data.preprocessing import published_part
from spinal_repro.inference import Trained, find_split, prepare_split, read_logits
from spinal_repro.io import write_atomic
from spinal_repro.training.device import autocast, backend_settings

Arrays = dict[str, Any]


def split_features(trained: Trained, part: str, root: Path | None = None) -> tuple[Arrays, bool]:
    """Compute the features ``[N, F]`` and labels of a split.

    Returns also whether the images are those of the run; see `find_split`.
    """
    dataset, split, same = found = find_split(trained, part, root)
    batches = prepare_split(trained, found, part, root)
    device, runtime = trained.device, trained.config.runtime
    backbone: Any = trained.model.backbone
    settings = backend_settings(device, runtime.precision, runtime.deterministic)
    with torch.inference_mode(), settings, autocast(device, runtime.precision)():
        features = [backbone(images).float().cpu() for images, _ in batches.in_order()]
    arrays = {"features": torch.cat(features).numpy(), "labels": batches.labels.cpu().numpy()}
    source = published_part(dataset, split, part)
    if isinstance(source, Photos):
        arrays["files"] = np.array([str(source.paths[i]) for i in getattr(split, part)])
    return arrays, same


def image_features(trained: Trained, paths: Sequence[Path | Row]) -> Arrays:
    """Compute the features ``[N, F]`` of image files, which must all be readable."""
    backbone: Any = trained.model.backbone
    features = read_logits(replace(trained, model=backbone), paths)
    return {"features": features.numpy(), "files": np.array([*map(str, paths)])}


def write_features(trained: Trained, arrays: Arrays, path: Path) -> None:
    """Write features with the names of the classes as ``.npz``."""
    buffer = BytesIO()
    np.savez_compressed(buffer, classes=np.array(trained.classes), **arrays)
    write_atomic(path, buffer.getvalue())
