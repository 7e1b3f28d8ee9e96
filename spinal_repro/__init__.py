"""Reproduces the experiments of SpinalNet (arXiv 2007.03347) and checks its claims."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spinal_repro.heads import FCHead as FCHead
    from spinal_repro.heads import SpinalHead as SpinalHead

__version__ = "0.1.0"
__all__ = ["FCHead", "SpinalHead", "__version__"]


def __getattr__(name: str) -> Any:
    """Load the public classes on first use: importing the package must not import torch."""
    if name in ("FCHead", "SpinalHead"):
        from spinal_repro import heads

        return getattr(heads, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
