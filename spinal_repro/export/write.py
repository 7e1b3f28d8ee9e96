"""Exports a finished run's model and its card, after checking that both agree with the run.

Every file has metadata: preprocessing, classes and configuration. Inputs are called ``images``
(``[N, C, H, W]`` float32, normalised), outputs ``logits``.
"""

import contextlib
import importlib.util
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from spinal_repro.data.photos import Photos
from spinal_repro.data.preprocessing import published_part
from spinal_repro.errors import UserError, error_message
from spinal_repro.export.card import CARD, Parity, describe, model_card, preprocessing, read
from spinal_repro.inference import Trained, build_trained, find_split, read_logits
from spinal_repro.io import parse_json, write_atomic
from spinal_repro.models.pretrained import read_tensors
from spinal_repro.records.record import stored_config

IMAGES, BATCH = 64, 24  # images compared; the first one alone, the others in batches
TOLERANCE = 1e-4  # relative to the largest logit, or to 1: kernels differ in rounding
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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # internal warnings of the exporter
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


def export_run(
    trained: Trained, to: str, out: Path, root: Path | None = None
) -> tuple[Parity, bool]:
    """Write the model of a run in another format, verified on image files of its test split.

    The trained model reads them as `predict` does, the written one by the code of the card. If
    anything fails, nothing is written. The run must be loaded on the CPU; without ``root`` its own
    data folder is read. Returns also whether the images compared are those of the run.
    """
    form = FORMATS[to]
    if missing := [name for name in form.libraries if importlib.util.find_spec(name) is None]:
        names = ", ".join(missing)
        raise UserError(f"--to {to} needs {names}: pip install 'spinal-repro[export]'")
    expected, images, same_data = _test_images(trained, root)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=out) as name:
            folder = Path(name)
            _write(trained, to, images[:2], folder / form.file)
            parity = compare(expected, form.load(folder / form.file), images)
            if not parity.difference <= parity.allowed:
                raise UserError(
                    f"not exported: on {parity.images} test images the logits differ from the "
                    f"trained model's by up to {parity.difference:.3g} ({parity.allowed:.3g} "
                    f"allowed); {parity.images - parity.agree} images get another class"
                )
            files = sorted(folder.iterdir())
            sums = {path.name: sha256(path.read_bytes()).hexdigest() for path in files}
            card = folder / CARD
            card.write_text(model_card(trained, to, parity, sums))
            (out / CARD).unlink(missing_ok=True)  # an old card never describes a new model
            for path in (*files, card):
                path.chmod(card.stat().st_mode)  # some libraries write files for the owner alone
                path.replace(out / path.name)
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error_message(error)}") from error
    finally:
        with contextlib.suppress(OSError):  # removes only an empty folder
            out.rmdir()
    return parity, same_data


def _test_images(trained: Trained, root: Path | None) -> tuple[Tensor, Tensor, bool]:
    """Read image files of the test split; images without files are written to PNG files first.

    Returns logits of the trained model ``[N, C]``, the same images ``[N, C, H, W]`` read by the
    code of the card, and whether the data are those of the run.
    """
    dataset, split, same_data = find_split(trained, "test", root)
    if dataset.features:
        raise UserError("a run on columns of numbers cannot be exported: it does not read images")
    part = published_part(dataset, split, "test").subset(split.test[:IMAGES])
    prepare = preprocessing(trained)
    paths: list[Any]
    with tempfile.TemporaryDirectory() as folder:
        if isinstance(part, Photos):
            paths = list(part.paths)
        else:
            paths = [Path(folder, f"{index}.png") for index in range(len(part))]
            upright = (2, 1, 0) if prepare["transpose"] else (1, 2, 0)
            for path, pixels in zip(paths, part.images, strict=True):
                Image.fromarray(pixels.permute(upright).squeeze(-1).numpy()).save(path)
        runtime = replace(trained.config.runtime, precision="fp32")  # that of the written model
        exact = replace(trained, config=replace(trained.config, runtime=runtime))
        expected = read_logits(exact, paths)
        images = np.concatenate([read(path.open("rb"), prepare) for path in paths])
    return expected, torch.from_numpy(images), same_data


def _write(trained: Trained, to: str, example: Tensor, path: Path) -> None:
    try:
        with torch.no_grad():
            FORMATS[to].write(trained.model, example, describe(trained), path)
    except OSError:
        raise
    except Exception as error:  # exporters raise many types of error
        why = f"{type(error).__name__}: {str(error).strip()}".splitlines()[0]
        raise UserError(f"this model cannot be written as {to} ({why})") from error


def compare(expected: Tensor, written: Compute, images: Tensor) -> Parity:
    """Compare logits ``[N, C]`` with those of a written model on real images ``[N, C, H, W]``."""
    parts = [part for part in (images[:1], *images[1:].split(BATCH)) if len(part)]
    with torch.no_grad():
        found = torch.cat([written(part) for part in parts])
    return Parity(
        images=len(images),
        difference=(expected - found).abs().max().item(),
        allowed=TOLERANCE * max(1.0, expected.abs().max().item()),
        agree=int((expected.argmax(1) == found.argmax(1)).sum()),
    )
