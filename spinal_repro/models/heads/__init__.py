"""Heads: features ``[N, D]`` to logits ``[N, C]``. They know nothing of backbones or images.

`SpinalHead` is one class for every variant of the paper: number of splits and layers, dropout,
batch norm, activation and weight sharing are arguments. `FCHead` is what the paper compares it
with. `SpinalHidden` is the same stack of layers in the place of a hidden Linear.
"""

from spinal_repro.models.heads.arch2 import Arch2Head
from spinal_repro.models.heads.common import ACTIVATIONS, HEADS
from spinal_repro.models.heads.fc import FCHead
from spinal_repro.models.heads.hidden import SpinalHidden
from spinal_repro.models.heads.progressive import ProgressiveSpinalHead
from spinal_repro.models.heads.spinal import SpinalHead, SpinalStack

__all__ = [
    "ACTIVATIONS",
    "HEADS",
    "Arch2Head",
    "FCHead",
    "ProgressiveSpinalHead",
    "SpinalHead",
    "SpinalHidden",
    "SpinalStack",
]
