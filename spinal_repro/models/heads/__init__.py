"""Heads: features ``[N, D]`` to logits ``[N, C]``, independent of backbones and images.

D is ``in_features``, C is ``num_classes``; names of activations are the keys of `ACTIVATIONS`.

`SpinalHead` is one class for every variant of the paper: the number of splits and layers,
dropout, batch norm, activation and weight sharing are arguments. `FCHead` is the paper's
baseline. `SpinalHidden` replaces a hidden Linear of any network.
"""

from spinal_repro.models.heads.arch2 import Arch2Head
from spinal_repro.models.heads.common import ACTIVATIONS, HEADS, PRETRAINED
from spinal_repro.models.heads.fc import FCHead
from spinal_repro.models.heads.progressive import ProgressiveSpinalHead
from spinal_repro.models.heads.spinal import SpinalHead, SpinalHidden, SpinalStack

__all__ = [
    "ACTIVATIONS", "HEADS", "PRETRAINED", "Arch2Head", "FCHead", "ProgressiveSpinalHead",
    "SpinalHead", "SpinalHidden", "SpinalStack",
]  # fmt: skip
