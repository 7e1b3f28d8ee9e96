"""Export of trained models to files for other programs, verified, with a model card."""

from spinal_repro.export.write import load_safetensors

__all__ = ["load_safetensors"]
