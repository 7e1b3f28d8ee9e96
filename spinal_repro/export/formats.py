"""The formats: how to write a model and how to run the file.

Every file has metadata: preprocessing, classes and configuration. Inputs are called
``images`` (``[N, C, H, W]`` float32, normalised), outputs ``logits``.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from spinal_repro.errors import UserError
from spinal_repro.inference import build_trained
from spinal_repro.io import parse_json, write_atomic
from spinal_repro.models.pretrained import read_tensors
from spinal_repro.records.record import stored_config

Compute = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Format:
    """One format: the file's name, how to write and run it, and the libraries it needs."""

    file: str
    write: Callable[[nn.Module, Tensor, Mapping[str, str], Path], None]  # model, example, metadata
    load: Callable[[Path], Compute]  # as another program would
    libraries: tuple[str, ...] = ()


def _exported(model: nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    shapes = ({0: torch.export.Dim("batch")},)
    return torch.export.export(model, (example,), dynamic_shapes=shapes)


def _write_onnx(model: nn.Module, example: Tensor, text: Mapping[str, str], path: Path) -> None:
    names: dict[str, Any] = {"input_names": ["images"], "output_names": ["logits"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # internal warnings of the exporter
        program = torch.onnx.export(_exported(model, example), **names, dynamo=True, verbose=False)
    assert program is not None
    program.model.metadata_props.update(text)
    program.save(path)


def _load_onnx(path: Path) -> Compute:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def _write_program(model: nn.Module, example: Tensor, text: Mapping[str, str], path: Path) -> None:
    buffer = BytesIO()  # PyTorch aborts the process if it writes to a full disk itself
    torch.export.save(_exported(model, example), buffer, extra_files=dict(text))
    write_atomic(path, buffer.getvalue())


def _write_tensors(model: nn.Module, example: Tensor, text: Mapping[str, str], path: Path) -> None:
    tensors = {name: t.detach().contiguous() for name, t in model.state_dict().items()}
    save_file(tensors, path, metadata=dict(text))


def load_safetensors(path: str | Path) -> nn.Module:
    """Build the model of a file of `spinal export --to safetensors`, in evaluation mode."""
    tensors = read_tensors(Path(path))
    with safe_open(path, framework="pt") as file:
        text = file.metadata() or {}
    if "config" not in text:
        raise UserError(f"{path} was not written by `spinal export --to safetensors`")
    config = stored_config(parse_json(text["config"], str(path)))
    return build_trained(config, tensors, str(path))


FORMATS = {
    "onnx": Format("model.onnx", _write_onnx, _load_onnx, ("onnx", "onnxscript", "onnxruntime")),
    "torch_export": Format(
        "model.pt2", _write_program, lambda path: torch.export.load(path).module()
    ),
    "safetensors": Format("model.safetensors", _write_tensors, load_safetensors),
}
