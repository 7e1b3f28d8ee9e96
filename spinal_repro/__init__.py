"""Reproduces the experiments of SpinalNet (arXiv 2007.03347) and checks its claims."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spinal_repro.models.heads import FCHead, ProgressiveSpinalHead, SpinalHead, SpinalHidden
    from spinal_repro.models.surgery import to_spinal

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
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from spinal_repro.models import heads, surgery

    return getattr(surgery if name == "to_spinal" else heads, name)
