"""Exports a finished run's model and its card, after checking that both models agree."""

import contextlib
import importlib.util
import tempfile
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor

from spinal_repro.errors import UserError, error_message
from spinal_repro.export.card import CARD, Parity, describe, model_card
from spinal_repro.export.formats import FORMATS, Compute
from spinal_repro.inference import Trained, load_split

IMAGES, BATCH = 64, 24  # images compared; the first one alone, the others in batches
TOLERANCE = 1e-4  # relative to the largest logit, or to 1: kernels differ in rounding


def check_libraries(to: str) -> None:
    """Refuse a format whose libraries are not installed."""
    missing = [name for name in FORMATS[to].libraries if importlib.util.find_spec(name) is None]
    if missing:
        names = ", ".join(missing)
        raise UserError(f"--to {to} needs {names}: pip install 'spinal-repro[export]'")


def export_run(
    trained: Trained, to: str, out: Path, root: str | None = None
) -> tuple[Parity, bool]:
    """Write the model of a run in another format, verified on images of its test split.

    If anything fails, nothing is written. The run must be loaded on the CPU; without ``root`` its
    own data folder is read. Returns also whether the images compared are those of the run.
    """
    check_libraries(to)
    batches, same_data = load_split(trained, "test", root)
    batches.batch_size = IMAGES
    images = next(batches.in_order())[0].contiguous()
    form = FORMATS[to]
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=out) as name:
            folder = Path(name)
            _write(trained, to, images[:2], folder / form.file)
            parity = compare(trained.model, form.load(folder / form.file), images)
            if not parity.difference <= parity.allowed:
                raise UserError(
                    f"not exported: on {parity.images} test images the logits of the {to} model "
                    f"differ from the trained model's by up to {parity.difference:.3g} "
                    f"({parity.allowed:.3g} allowed); {parity.images - parity.agree} images get "
                    f"another class"
                )
            files = sorted(folder.iterdir())
            sums = {path.name: sha256(path.read_bytes()).hexdigest() for path in files}
            (folder / CARD).write_text(model_card(trained, to, parity, sums))
            _move(folder, out)
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error_message(error)}") from error
    finally:
        with contextlib.suppress(OSError):  # removes only an empty folder
            out.rmdir()
    return parity, same_data


def _write(trained: Trained, to: str, example: Tensor, path: Path) -> None:
    try:
        with torch.no_grad():
            FORMATS[to].write(trained.model, example, describe(trained), path)
    except OSError:
        raise
    except Exception as error:  # exporters raise many types of error
        first = (str(error).strip().splitlines() or [""])[0]
        why = f"{type(error).__name__}: {first}"
        raise UserError(f"this model cannot be written as {to} ({why})") from error


def compare(model: Compute, written: Compute, images: Tensor) -> Parity:
    """Compare two models on real, normalised images ``[N, C, H, W]``."""
    parts = [part for part in (images[:1], *images[1:].split(BATCH)) if len(part)]
    with torch.no_grad():
        expected = torch.cat([model(part) for part in parts])
        found = torch.cat([written(part) for part in parts])
    return Parity(
        images=len(images),
        difference=(expected - found).abs().max().item(),
        allowed=TOLERANCE * max(1.0, expected.abs().max().item()),
        agree=int((expected.argmax(1) == found.argmax(1)).sum()),
    )


def _move(folder: Path, out: Path) -> None:
    """Move the files, the card last: an old card never describes a new model."""
    mode = (folder / CARD).stat().st_mode  # some libraries write files that only the owner can read
    (out / CARD).unlink(missing_ok=True)
    for path in sorted(folder.iterdir(), key=lambda path: path.name == CARD):
        path.chmod(mode)
        path.replace(out / path.name)
