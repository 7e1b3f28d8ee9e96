"""Histories, weights and records of small runs are bit for bit those that were stored.

The last bits depend on the CPU and the version of PyTorch, so hashes are stored by both; on other
machines these tests are skipped. Store the hashes of this machine, with a commit that is right:

    PYTHONPATH=tests python tests/training/test_same_bits.py
"""

import hashlib
import io
import json
import platform
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.variety import VARIETY, Everything, small
from safetensors.torch import load_file
from torch import Tensor

from spinal_repro.models.backbones import BACKBONES
from spinal_repro.records.convert import to_plain
from spinal_repro.records.provenance import describe_environment
from spinal_repro.training.run import run

STORED = Path(__file__).with_name("same_bits.json")
SAME = ("history", "selection", "test", "counts")  # of a record


def machine() -> str:
    cpu = describe_environment(torch.device("cpu"))["cpu"]
    return f"{cpu}, {platform.machine()}, torch {torch.__version__.partition('+')[0]}"


def stored() -> dict[str, dict[str, str]]:
    return json.loads(STORED.read_text())


def tensors(named: Iterable[tuple[Any, Tensor]]) -> bytes:
    digest = hashlib.sha256()
    for name, tensor in sorted(named, key=lambda item: str(item[0])):
        digest.update(str(name).encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.digest()


def predicted_classes(path: Path) -> bytes:
    """The file as it was before it had labels and probabilities."""
    kept, buffer = np.load(path), io.BytesIO()
    np.savez_compressed(buffer, last=kept["last"], selected=kept["selected"])
    return buffer.getvalue()


def digest(runs: Path, *overrides: str) -> str:
    """Hash of the record, the best weights, the last weights and the optimizer's state."""
    outcome = run(small(runs, *overrides))
    stored, folder = to_plain(outcome.record), outcome.folder
    for part in ("last", "selected"):  # computed from the others; see tests/records/test_metrics.py
        del stored["test"][part]["metrics"]
    last = torch.load(folder / "last.pt", weights_only=True)
    state = last["optimizer"]["state"]
    found = hashlib.sha256(json.dumps([stored[key] for key in SAME], sort_keys=True).encode())
    found.update(predicted_classes(folder / "predictions.npz"))
    found.update(tensors(load_file(folder / "best.safetensors").items()))
    found.update(tensors(last["model"].items()))
    found.update(tensors(((i, key), t) for i, of in state.items() for key, t in of.items()))
    return found.hexdigest()[:16]


@pytest.mark.parametrize("name", VARIETY)
def test_same_bits(tmp_path, monkeypatch, name):
    known = stored().get(machine())
    if known is None:
        pytest.skip(f"no hashes are stored for {machine()}")
    monkeypatch.setitem(BACKBONES._items, "everything", Everything)
    assert digest(tmp_path, *VARIETY[name]) == known[name]


def test_every_run_of_the_list_is_stored():
    assert stored() and all(known.keys() == VARIETY.keys() for known in stored().values())


def main() -> None:
    torch.set_num_threads(1)
    BACKBONES._items["everything"] = Everything
    found = {}
    for name, overrides in VARIETY.items():
        with tempfile.TemporaryDirectory() as runs:
            found[name] = digest(Path(runs), *overrides)
    STORED.write_text(json.dumps({**stored(), machine(): found}, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
