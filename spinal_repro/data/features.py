"""Features of a frozen backbone, computed once for all heads and seeds (``recipe.cache_features``).

Without augmentation a frozen backbone gives an image the same features in every epoch.
"""

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import nn

from spinal_repro.data.loader import Batches
from spinal_repro.io import write_atomic

Autocast = Callable[[], AbstractContextManager[Any]]  # makes contexts, see `training.device`


def fingerprint(*parts: Any) -> str:
    """Hash (16 hex digits) of settings, and of the weights of modules among them."""
    digest = hashlib.sha256()
    for part in parts:
        tensors = part.state_dict() if isinstance(part, nn.Module) else {str(part): None}
        for name, tensor in tensors.items():
            digest.update(name.encode())
            if tensor is not None:
                digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


@torch.inference_mode()
def cached(batches: Batches, backbone: nn.Module, autocast: Autocast, path: Path) -> Batches:
    """Batches of features ``[N, F, 1, 1]`` instead of images, read from ``path`` if it exists.

    Everything that decides the features must be in its name, see `fingerprint`.
    """
    if path.is_file():
        features = load_file(path)["features"]
    else:
        backbone.eval()
        with autocast():
            found = [backbone(images).float() for images, _ in batches.in_order()]
        features = torch.cat(found)[:, :, None, None].cpu()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, save({"features": features.contiguous()}))
    return batches.of_features(features)
