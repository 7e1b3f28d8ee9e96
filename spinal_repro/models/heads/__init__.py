"""Heads: features ``[N, D]`` to logits ``[N, C]``, independent of backbones and images.

D is ``in_features``, C is ``num_classes``; names of activations are the keys of `ACTIVATIONS`.
"""

from spinal_repro.models.heads.common import ACTIVATIONS, HEADS, PRETRAINED, FCHead
from spinal_repro.models.heads.spinal import (
    Arch2Head,
    ProgressiveSpinalHead,
    SpinalHead,
    SpinalHidden,
)

__all__ = [
    "ACTIVATIONS", "HEADS", "PRETRAINED", "Arch2Head", "FCHead", "ProgressiveSpinalHead",
    "SpinalHead", "SpinalHidden",
]  # fmt: skip
