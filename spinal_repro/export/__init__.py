"""Export of trained models to files for other programs, verified, with a model card."""

from spinal_repro.export.formats import FORMATS, load_safetensors
from spinal_repro.export.write import check_libraries, export_run

__all__ = ["FORMATS", "check_libraries", "export_run", "load_safetensors"]
