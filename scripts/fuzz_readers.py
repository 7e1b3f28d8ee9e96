"""The readers that `fuzz` tries, each with good files and another decoder to agree with."""

import contextlib
import dataclasses
import functools
import io
import json
import math
import pickle
import shutil
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from fuzz import Reader
from fuzz_checkpoint import checkpoint
from PIL import Image
from safetensors.torch import save
from torch import nn

from spinal_repro.config import compose
from spinal_repro.data import archives, cifar, kept
from spinal_repro.data.decoding import read_image
from spinal_repro.data.sources import load_dataset
from spinal_repro.errors import UserError
from spinal_repro.preparation import Preparation
from spinal_repro.pretrained import read_tensors
from spinal_repro.reading import read_json, read_yaml
from spinal_repro.records import read_record, stored_config

RECORD = Path(__file__).parent.parent / "results/records/mnist/cnn_fc-paper-eb7f4acf-s0.json"
READERS: dict[str, Callable[[Path], Reader]] = {}


def _reader(name: str) -> Callable[[Callable[[Path], Reader]], Callable[[Path], Reader]]:
    def add(make: Callable[[Path], Reader]) -> Callable[[Path], Reader]:
        READERS[name] = make
        return make

    return add


def _from(path: Path, read: Callable[[Path], Any]) -> Callable[[bytes], Any]:
    """A reader of files as one of bytes."""

    def from_bytes(data: bytes) -> Any:
        path.write_bytes(data)
        return read(path)

    return from_bytes


def _reference_idx(data: bytes) -> np.ndarray:
    shape = struct.unpack(f">{data[3]}I", data[4 : 4 + 4 * data[3]])
    assert data[:3] == b"\0\0\x08", "the kind of the files that are damaged here"
    return np.frombuffer(data[4 + 4 * data[3] :], np.uint8).reshape(shape)


@_reader("idx")
def idx(folder: Path) -> Reader:
    """Images and labels of MNIST's format, one of them damaged, through `load_dataset`."""
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    files = {}
    for part in ("train", "t10k"):
        pixels = rng.integers(0, 256, (12, 28, 28), dtype=np.uint8)
        labels = np.arange(12, dtype=np.uint8) % 10
        files[f"{part}-images-idx3-ubyte"] = (
            b"\0\0\x08\x03" + struct.pack(">3I", *pixels.shape) + pixels.tobytes()
        )
        files[f"{part}-labels-idx1-ubyte"] = b"\0\0\x08\x01" + struct.pack(">I", 12) + bytes(labels)
    config = dataclasses.replace(compose(["dataset=mnist"]).dataset, train_size=12, test_size=12)
    for name, content in files.items():
        (raw / name).write_bytes(content)

    def read(data: bytes) -> Any:
        name = "train-images-idx3-ubyte" if len(data) > 1000 else "train-labels-idx1-ubyte"
        (raw / name).write_bytes(data)
        try:
            part = load_dataset(config, folder).train
        finally:
            (raw / name).write_bytes(files[name])
        return part.images[:, 0].numpy() if len(data) > 1000 else part.labels.numpy()

    def same(data: bytes, found: Any) -> bool:
        return np.array_equal(found, _reference_idx(data))

    samples = [files["train-images-idx3-ubyte"], files["train-labels-idx1-ubyte"]]
    return Reader("idx", samples, read, same, (UserError,))


@_reader("record")
def record(folder: Path) -> Reader:
    """A committed record."""
    path = folder / "record.json"

    def same(data: bytes, found: Any) -> bool:
        return found == json.loads(data)

    return Reader("record", [RECORD.read_bytes()], _from(path, read_record), same, (UserError,))


@_reader("config")
def config(folder: Path) -> Reader:
    """The ``config.yaml`` of a run folder."""
    path = folder / "config.yaml"
    samples = [
        yaml.safe_dump({"schema_version": 1, **compose(overrides).to_dict()}).encode()
        for overrides in ([], ["dataset=mnist", "model=vgg5", "head=spinal"])
    ]

    def read(path: Path) -> Any:
        return stored_config(read_yaml(path)).to_dict()

    def same(data: bytes, found: Any) -> bool:
        said = yaml.safe_load(data)
        said.pop("schema_version", None)
        return _says(said, found)

    return Reader("config", samples, _from(path, read), same, (UserError,))


def _says(said: Any, found: Any) -> bool:
    """Whether every setting that a file gives has its value, as the type that the schema has."""
    if isinstance(said, dict):
        optional = ("pretrained", "freeze", "output_dropout", "kind", "paper", "about")
        return isinstance(found, dict) and all(
            key in optional or _says(value, found.get(key, found.get(_key(key))))
            for key, value in said.items()
        )
    if isinstance(said, list):
        return len(said) == len(found) and all(map(_says, said, found))
    if isinstance(said, bool) or isinstance(found, bool):
        return _truth(said) is _truth(found)
    with contextlib.suppress(TypeError, ValueError):
        return said == found or float(said) == float(found) or str(said) == str(found)
    return str(said) == str(found)


def _truth(value: Any) -> Any:
    words = {"true": True, "1": True, "yes": True, "on": True, "y": True}
    words |= {"false": False, "0": False, "no": False, "off": False, "n": False}
    return words.get(str(value).lower(), value)


def _key(key: Any) -> Any:
    return int(key) if str(key).isdigit() else str(key)


def _weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3)).state_dict()


@_reader("safetensors")
def safetensors(folder: Path) -> Reader:
    """Weights as safetensors."""
    path = folder / "weights.safetensors"
    read = functools.partial(_from, path)(read_tensors)

    def same(data: bytes, found: Any) -> bool:
        size = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + size])
        header.pop("__metadata__", None)
        for name, about in header.items():
            low, high = about["data_offsets"]
            tensor = found.pop(name)
            held = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
            if held != data[8 + size + low : 8 + size + high]:
                return False
            if list(tensor.shape) != about["shape"]:
                return False
        return not found

    return Reader("safetensors", [save(_weights())], read, same, (UserError,))


@_reader("pth")
def pth(folder: Path) -> Reader:
    """Weights as PyTorch saves them, new and old."""
    path = folder / "weights.pth"
    samples = []
    for new in (True, False):
        out = io.BytesIO()
        torch.save(_weights(), out, _use_new_zipfile_serialization=new)
        samples.append(out.getvalue())

    def same(data: bytes, found: Any) -> bool:
        if not all(isinstance(tensor, torch.Tensor) for tensor in found.values()):
            return False
        if zipfile.is_zipfile(io.BytesIO(data)):  # the older kind has no sums
            with zipfile.ZipFile(io.BytesIO(data)) as packed:
                return packed.testzip() is None
        return True

    return Reader("pth", samples, _from(path, read_tensors), same, (UserError,))


_reader("checkpoint")(checkpoint)


@_reader("cifar")
def cifar_batch(folder: Path) -> Reader:
    """A batch of CIFAR, had its sum agreed."""
    pixels = np.random.default_rng(0).integers(0, 256, (3, 3072), dtype=np.uint8)
    table = {"batch_label": "b", "labels": [1, 2, 3], "data": pixels, "filenames": ["a", "b", "c"]}
    samples = [pickle.dumps(table, protocol=2)]
    allowed = {"_reconstruct", "ndarray", "dtype", "encode"}

    class Reference(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            assert name in allowed
            return super().find_class(module, name)

    def read(data: bytes) -> Any:
        return cifar.images_and_labels(cifar.read_batch(data))

    def same(data: bytes, found: Any) -> bool:
        try:
            said = Reference(io.BytesIO(data), encoding="latin1").load()
            images = np.asarray(said["data"])
        except Exception:  # NumPy is stricter about what surrounds the pixels
            return True
        labels = said.get("labels", said.get("fine_labels"))
        pixels = found[0].reshape(len(found[0]), -1)
        return np.array_equal(pixels, images) and found[1].tolist() == list(labels)

    return Reader("cifar", samples, read, same, (ValueError,))


@_reader("image")
def image(folder: Path) -> Reader:
    """Photographs in the formats that are taken for images."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8))
    samples = []
    for kind, mode in (
        ("PNG", "RGB"), ("PNG", "P"), ("PNG", "LA"), ("JPEG", "RGB"), ("JPEG", "CMYK"),
        ("BMP", "RGB"), ("PPM", "RGB"), ("TIFF", "RGB"), ("WEBP", "RGB"),
    ):  # fmt: skip
        out = io.BytesIO()
        picture.convert(mode).save(out, kind)
        samples.append(out.getvalue())
    preparation = Preparation(resize=8, crop=8)

    def same(data: bytes, found: Any) -> bool:
        return found.shape == (3, 8, 8) and found.dtype == np.uint8

    def read(path: Path) -> Any:
        return read_image(path, 3, preparation)

    refusals = (OSError, ValueError, Image.DecompressionBombError)
    return Reader("image", samples, _from(folder / "image", read), same, refusals)


@_reader("kept")
def kept_images(folder: Path) -> Reader:
    """Decoded photographs kept beside the runs."""
    path, shape = folder / "kept.npy", (5, 3, 4, 4)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    np.save(path, images)
    kept.write_sum(path, images)

    def read(path: Path) -> Any:
        with contextlib.redirect_stderr(io.StringIO()):
            found = kept.load_images(path, shape)
        if found is None:
            raise UserError("decoded anew")
        return np.array(found)

    def same(data: bytes, found: Any) -> bool:
        return np.array_equal(found, images)

    return Reader("kept", [path.read_bytes()], _from(path, read), same, (UserError,))


@_reader("archive")
def archive(folder: Path) -> Reader:
    """Zip and tar archives; nothing may be written outside."""
    files = {"a/one.txt": b"1" * 300, "a/two.txt": bytes(range(256))}
    packed, tarred = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as out:
        for name, content in files.items():
            out.writestr(name, content)
    with tarfile.open(fileobj=tarred, mode="w:gz") as out_tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            out_tar.addfile(info, io.BytesIO(content))
    box = folder / "box"

    def read(path: Path) -> Any:
        shutil.rmtree(box, ignore_errors=True)
        box.mkdir()
        archives.unpack(path, box / "inside")
        return sorted(p.relative_to(box).parts[0] for p in box.rglob("*"))

    def same(data: bytes, found: Any) -> bool:
        return set(found) <= {"inside"}

    samples = [packed.getvalue(), tarred.getvalue()]
    return Reader("archive", samples, _from(folder / "packed", read), same, (UserError, OSError))


@_reader("counts")
def counts(folder: Path) -> Reader:
    """``results/counts.json``."""
    from spinal_repro.results.findings import read_counts

    whole = read_json(RECORD.parents[2] / "counts.json")
    sample = json.dumps(dict(list(whole.items())[:4])).encode()

    def same(data: bytes, found: Any) -> bool:
        return found == json.loads(data) and all(map(math.isfinite, _numbers(found)))

    return Reader("counts", [sample], _from(folder / "counts", read_counts), same, (UserError,))


def _numbers(found: Any) -> list[float]:
    return [value for table in found.values() for value in table.values()]
