"""Reproduces the experiments of SpinalNet (arXiv 2007.03347) and checks its claims."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spinal_repro.models.heads import FCHead as FCHead
    from spinal_repro.models.heads import ProgressiveSpinalHead as ProgressiveSpinalHead
    from spinal_repro.models.heads import SpinalHead as SpinalHead
    from spinal_repro.models.heads import SpinalHidden as SpinalHidden
    from spinal_repro.models.surgery import to_spinal as to_spinal

__version__ = "0.1.0"
__all__ = [
    "FCHead",
    "ProgressiveSpinalHead",
    "SpinalHead",
    "SpinalHidden",
    "__version__",
    "to_spinal",
]


def __getattr__(name: str) -> Any:
    """Load the public classes on first use: importing the package must not import torch."""
    if name in ("FCHead", "ProgressiveSpinalHead", "SpinalHead", "SpinalHidden"):
        from spinal_repro.models import heads

        return getattr(heads, name)
    if name == "to_spinal":
        from spinal_repro.models.surgery import to_spinal

        return to_spinal
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
