"""From a finished run to a folder with the model and its card; nothing is left of a failure."""

import contextlib
import hashlib
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from spinal_repro.errors import UserError
from spinal_repro.export.card import CARD, describe, model_card
from spinal_repro.export.formats import FORMATS
from spinal_repro.export.parity import BATCH, Parity, compare
from spinal_repro.inference import Trained, part_of
from spinal_repro.io import fsync_directory, fsync_file, write_atomic


@dataclass(frozen=True)
class Exported:
    """A model written: its folder, the model's file, and how near it is."""

    folder: Path
    file: Path
    parity: Parity
    same_data: bool


def export_run(trained: Trained, to: str, out: Path, root: str | None = None) -> Exported:
    """Write the model of a run in another format, checked on images of its test part.

    Args:
        trained: A run, loaded on the CPU.
        to: A name in `FORMATS`.
        out: The folder to write to; made if it is not there.
        root: Where data sets lie now; as then unless given.

    Raises:
        UserError: where libraries or data are missing, the model cannot be written in this format,
            or what was written computes something else.
    """
    form = FORMATS[to]
    form.check()
    if trained.record.test is None:
        raise UserError(
            f"{trained.folder} was trained without a test part, so nobody knows how good it is; "
            f"train it with data.test=true"
        )
    batches, same = part_of(trained, "test", root)
    batches.batch_size = BATCH
    try:
        out.mkdir(parents=True, exist_ok=True)
        place = Path(tempfile.mkdtemp(prefix=".export-", dir=out))
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error}") from error
    try:
        path = place / form.file
        example = next(batches.in_order())[0][:2].contiguous()
        try:
            with torch.no_grad():
                form.write(trained.model, example, describe(trained), path)
        except Exception as error:
            lines = str(error).strip().splitlines() or [""]
            raise UserError(
                f"this model cannot be written as {to} ({type(error).__name__}: {lines[0]})"
            ) from error
        parity = compare(trained.model, form.load(path), batches)
        if not parity.difference <= parity.allowed:
            raise UserError(
                f"not exported: on {parity.images} test images the {to} model differs from the "
                f"trained one by up to {parity.difference:.3g} in a logit, {parity.allowed:.3g} is "
                f"allowed, and {parity.images - parity.agree} get another class"
            )
        sums = {found.name: _sha256(found) for found in sorted(place.iterdir())}
        write_atomic(place / CARD, model_card(trained, form, parity, sums))
        _move(place, out)
    finally:
        shutil.rmtree(place, ignore_errors=True)
        with contextlib.suppress(OSError):  # holds something, as it should
            out.rmdir()
    return Exported(out, out / form.file, parity, same)


def _move(place: Path, out: Path) -> None:
    """Give everything its name once it is on disk; a card never stands beside another model."""
    mode = (place / CARD).stat().st_mode  # some libraries write what nobody else may read
    for found in place.iterdir():
        found.chmod(mode)
        fsync_file(found)
    (out / CARD).unlink(missing_ok=True)
    for found in sorted(place.iterdir(), key=lambda path: path.name == CARD):
        found.replace(out / found.name)
    fsync_directory(out)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
