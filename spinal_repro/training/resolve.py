"""Resolves what a configuration leaves open, which gives the run its identity."""

import dataclasses
import functools
from pathlib import Path

from spinal_repro.config.schema import Config
from spinal_repro.data import preprocessing
from spinal_repro.data.folder import with_counts
from spinal_repro.data.photos import load_digests
from spinal_repro.data.sources import load_dataset
from spinal_repro.errors import UserError
from spinal_repro.io import checksum
from spinal_repro.models.heads import HEADS
from spinal_repro.models.pretrained import PUBLISHED, find_weights
from spinal_repro.records.record import read_record
from spinal_repro.records.store import RECORD
from spinal_repro.training.device import resolve_device

_HASHES: dict[str, dict[str, str]] = {}  # of the images of a sweep's runs, by their settings


def resolved(config: Config) -> Config:
    """Resolve device, precision, number of classes, types of options and hashes of inputs.

    The result has the identity of the run.
    """
    device = resolve_device(config.runtime.device)
    typed = HEADS.check(config.head.name, config.head.options)
    options = {key: typed[key] for key in config.head.options}  # dropout 0 and 0.0 are one run
    if config.dataset.source in ("folder", "table", "parquet"):
        load_digests(Path(config.runs) / preprocessing.CACHE)
    dataset, inputs = with_counts(config.dataset, Path(config.data.root))
    if (path := weights_file(config)) is not None:
        weights = _checksum(path, path.stat().st_mtime_ns)
        if weights != PUBLISHED.get(str(config.model.options["pretrained"])):
            inputs["weights"] = weights
    found = dataclasses.replace(
        config,
        dataset=dataset,
        data=dataclasses.replace(config.data, inputs=inputs),
        runtime=config.runtime.on(device.type),
        head=dataclasses.replace(config.head, options=options),
    )
    _check_finished(found)
    return found


def weights_file(config: Config) -> Path | None:
    """Find the file that ``model.pretrained`` names; None if it names no file."""
    source = config.model.options.get("pretrained")
    return find_weights(str(source), config.data.root) if source else None


@functools.cache
def _checksum(path: Path, _changed: int) -> str:
    """Compute the checksum of a file once for all jobs of a sweep."""
    return checksum(path)


def _check_finished(config: Config) -> None:
    """Refuse other images than those of a finished run, unless its identity covers them."""
    path, data = config.run_dir / RECORD, config.data
    if "images" in data.inputs or not path.is_file():
        return
    key = f"{config.dataset} {data.root} {data.test}"
    try:
        known = read_record(path).data
        if key not in _HASHES:
            dataset = load_dataset(config.dataset, data.root, test=data.test)
            _HASHES[key] = {"train_hash": dataset.train.hash, "test_hash": dataset.test.hash}
    except UserError:  # the images are not here any more, or the record is damaged
        return
    if not _HASHES[key].items() <= known.items():
        raise UserError(
            f"the images in {Path(data.root).resolve()} are not those of the finished run "
            f"{config.run_dir}; train on them in another folder of runs: runs=FOLDER"
        )
