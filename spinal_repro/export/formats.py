"""The formats: how a model is written, and how what was written computes again.

Every file carries text about itself: what the inputs must be, what the outputs mean and what was
trained. Inputs are called ``images`` (``[N, C, H, W]`` float32, normalised), outputs ``logits``.
"""

import dataclasses
import importlib.util
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from spinal_repro.errors import UserError
from spinal_repro.io import parse_json, write_atomic
from spinal_repro.models.classifier import build_model
from spinal_repro.models.pretrained import load_whole, read_tensors
from spinal_repro.records.record import stored_config

Compute = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        name: On the command line.
        file: What the model is called.
        write: ``(model, example images, text, path)``.
        load: From a path to a function from images to logits, by what other programs would use.
        usage: Lines that load it and compute, for people.
        libraries: What the extra ``export`` must have installed.
    """

    name: str
    file: str
    write: Callable[[nn.Module, Tensor, Mapping[str, str], Path], None]
    load: Callable[[Path], Compute]
    usage: str
    libraries: tuple[str, ...] = ()

    def check(self) -> None:
        """See that what it needs is installed.

        Raises:
            UserError: where it is not.
        """
        missing = [name for name in self.libraries if importlib.util.find_spec(name) is None]
        if missing:
            raise UserError(
                f"--to {self.name} needs {', '.join(missing)}: pip install 'spinal-repro[export]'"
            )


def _exported(model: nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch")
    return torch.export.export(model, (example,), dynamic_shapes=({0: batch},))


def _write_onnx(model: nn.Module, example: Tensor, text: Mapping[str, str], path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter about itself
        program = torch.onnx.export(
            _exported(model, example),
            input_names=["images"],
            output_names=["logits"],
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    program.model.metadata_props.update(text)
    program.save(path)


def _load_onnx(path: Path) -> Compute:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def compute(images: Tensor) -> Tensor:
        (logits,) = session.run(None, {"images": images.contiguous().numpy()})
        return torch.from_numpy(logits)

    return compute


def _write_program(model: nn.Module, example: Tensor, text: Mapping[str, str], path: Path) -> None:
    buffer = BytesIO()  # writing to a full disk itself, PyTorch ends the process
    torch.export.save(_exported(model, example), buffer, extra_files=dict(text))
    write_atomic(path, buffer.getvalue())


def _load_program(path: Path) -> Compute:
    compute: Compute = torch.export.load(path).module()
    return compute


def _write_tensors(model: nn.Module, example: Tensor, text: Mapping[str, str], path: Path) -> None:
    tensors = {name: t.detach().contiguous() for name, t in model.state_dict().items()}
    save_file(tensors, path, metadata=dict(text))


def load_safetensors(path: str | Path) -> nn.Module:
    """The model of an exported safetensors file, in evaluation mode.

    Args:
        path: A file that `spinal export --to safetensors` has written; it needs no run folder.

    Raises:
        UserError: where the file is another one, or damaged.
    """
    tensors = read_tensors(Path(path))
    with safe_open(path, framework="pt") as file:
        text = file.metadata() or {}
    if "config" not in text:
        raise UserError(f"{path} was not written by `spinal export --to safetensors`")
    config = stored_config(parse_json(text["config"], str(path)))
    bare = {key: v for key, v in config.model.options.items() if key != "pretrained"}
    component = dataclasses.replace(config.model, options=bare)
    model = build_model(config.dataset, component, config.head, image_size=config.input_size)
    load_whole(model, tensors, str(path))
    return model.eval()


FORMATS = {
    made.name: made
    for made in (
        Format(
            "onnx",
            "model.onnx",
            _write_onnx,
            _load_onnx,
            "import onnxruntime\n"
            'session = onnxruntime.InferenceSession("model.onnx")\n'
            '(logits,) = session.run(None, {"images": images})',
            ("onnx", "onnxscript", "onnxruntime"),
        ),
        Format(
            "torch_export",
            "model.pt2",
            _write_program,
            _load_program,
            "import torch\n"
            'model = torch.export.load("model.pt2").module()\n'
            "logits = model(torch.from_numpy(images)).detach().numpy()",
        ),
        Format(
            "safetensors",
            "model.safetensors",
            _write_tensors,
            load_safetensors,
            "import torch\n"
            "from spinal_repro.export import load_safetensors\n"
            'logits = load_safetensors("model.safetensors")(torch.from_numpy(images)).detach()',
        ),
    )
}
