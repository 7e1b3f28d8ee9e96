"""Resizing and batching of the splits of a data set."""

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spinal_repro.config.schema import Config, DatasetConfig, ProtocolConfig
from spinal_repro.data.catalog import PARTS, entry_for, find_entry
from spinal_repro.data.loader import Batches
from spinal_repro.data.photos import Photos
from spinal_repro.data.sources import Dataset, ImageSet
from spinal_repro.data.splits import Split, hold_out, k_folds, subset
from spinal_repro.errors import UserError

CACHE = ".cache"  # in the runs folder
DEVICE_SHARE = 0.4  # of a GPU's free memory that decoded photographs may use


def split_dataset(dataset: Dataset, protocol: ProtocolConfig, limit: int | None = None) -> Split:
    """Split a data set as the protocol says, with at most ``limit`` images per part.

    If the protocol has a validation part, it is the published one, else a stratified part of train.
    In cross-validation the test part is one fold of the images of all parts.
    """
    split = (_one_fold if protocol.folds else _published)(dataset, protocol, limit)
    drawn = {part: published_part(dataset, split, part).groups for part in PARTS}
    groups = {p: {*of[getattr(split, p)].tolist()} for p, of in drawn.items() if of is not None}
    for first, second in combinations(groups, 2):
        if shared := len(groups[first] & groups[second]):
            both = f"{shared} groups are both in {first} and in {second}"
            raise UserError(f"{both}; correct the columns group and split or fold")
    return split


def _one_fold(dataset: Dataset, protocol: ProtocolConfig, limit: int | None) -> Split:
    pool, folds, seed = dataset.pool, protocol.folds, protocol.split_seed
    labels, groups = pool.labels.numpy(), None if pool.groups is None else pool.groups.numpy()
    if pool.folds is None:
        drawn = k_folds(labels, groups, folds, seed)
    else:
        drawn = [np.flatnonzero(pool.folds.numpy() == fold) for fold in pool.folds.unique()]
        if len(drawn) != folds:
            raise UserError(f"the column fold has {len(drawn)} values; set protocol.folds to that")
    test = drawn[protocol.fold]
    train = np.setdiff1d(np.arange(len(labels)), test)
    val = train[:0]
    if protocol.val_fraction > 0:
        train, val = (train[i] for i in hold_out(pool.subset(train), protocol.val_fraction, seed))
    train, val, test = (subset(labels, part, limit, seed) for part in (train, val, test))
    return Split(train, val, test, pooled=True)


def _published(dataset: Dataset, protocol: ProtocolConfig, limit: int | None) -> Split:
    fraction, seed = protocol.val_fraction, protocol.split_seed
    of_train, of_test = dataset.train.labels.numpy(), dataset.test.labels.numpy()
    train, val, test = (np.arange(count) for count in (len(of_train), 0, len(of_test)))
    of_val, published = of_train, dataset.val if fraction > 0 else None
    if published is not None:
        of_val = published.labels.numpy()
        val = np.arange(len(of_val))
    elif fraction > 0:
        train, val = hold_out(dataset.train, fraction, seed)
    labels = zip((train, val, test), (of_train, of_val, of_test), strict=True)
    train, val, test = (subset(of, indices, limit, seed) for indices, of in labels)
    return Split(train, val, test, published_val=published is not None)


def published_part(dataset: Dataset, split: Split, part: str) -> ImageSet | Photos:
    """Return the published part that the split's ``train``, ``val`` or ``test`` indexes."""
    if split.pooled:
        return dataset.pool
    if part == "val" and dataset.val is not None and split.published_val:
        return dataset.val
    return dataset.test if part == "test" else dataset.train


def batches_of(
    config: Config,
    dataset: Dataset,
    split: Split,
    part: str,
    *,
    runs: Path,
    device: torch.device,
    training: bool = False,
    **options: Any,
) -> Batches:
    """Make the `Batches` of ``train``, ``val`` or ``test``; ``options`` are its other arguments.

    Photographs are resized once, into a cache file in the folder of runs; images in memory are
    resized with each batch. Preprocessing and batch size are those of evaluation or of training.
    """
    preprocessing, recipe = config.preprocessing("train" if training else "eval"), config.recipe
    options["batch_size"] = recipe.batch_size if training else recipe.eval_batch_size
    options["channels_last"] = config.runtime.channels_last
    options["outputs"] = config.dataset.test_outputs if part == "test" else None
    source, indices = published_part(dataset, split, part), getattr(split, part)
    if isinstance(source, Photos):
        parts = (p for p in PARTS if published_part(dataset, split, p) is source)
        used = np.unique(np.concatenate([getattr(split, p) for p in parts]))
        if len(used) < len(source):  # with data.limit the others are not decoded
            options["numbers"] = indices
            source, indices = source.subset(used), np.searchsorted(used, indices)
        options["shapes"] = source.shapes(preprocessing)
        decoded: Any = source.decode(preprocessing, runs / CACHE)
        if device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            if decoded.nbytes < DEVICE_SHARE * free:
                decoded = torch.from_numpy(decoded[:]).to(device)
        source = ImageSet(decoded, source.labels, source.weights)
    elif preprocessing.fit or preprocessing.pad or preprocessing.interpolation != "bilinear":
        raise UserError(
            "fit, pad and interpolation=bicubic in recipe.prepare work with image files only; the "
            "images of this data set are in memory and have one size: leave them out"
        )
    else:
        sides = preprocessing.resize or source.images.shape[-2:]
        height, width = (sides, sides) if isinstance(sides, int) else (sides[0], sides[-1])
        options |= {"resize": (height, width), "crop": preprocessing.size}
    return Batches(source, indices, device=device, **options)


def describe_data(config: DatasetConfig, dataset: Dataset, split: Split) -> dict[str, Any]:
    """Describe the data for the record: hashes, sizes, images shared between splits."""
    entry = entry_for(config)
    first = 0 if entry is None else config.label_offset - find_entry(entry.name).label_offset
    named = [*map(str, range(first)), *dataset.classes]  # EMNIST letters as published are 1 to 26
    digests = {}
    for part in PARTS:
        everything = published_part(dataset, split, part).digests
        digests[part] = [everything[index] for index in getattr(split, part)]
    trained_on = set(digests["train"])
    columns = {"features": list(dataset.features)} if dataset.features else {}
    return columns | {
        "train_hash": dataset.train.hash,
        "test_hash": dataset.test.hash,
        "split_hash": split.hash,
        "sizes": {part: len(of) for part, of in digests.items()},
        "classes": named if len(dataset.classes) == config.num_classes else [],
        "published_val": split.published_val,
        "test_images_also_in_train": sum(digest in trained_on for digest in digests["test"]),
        "val_images_also_in_train": sum(digest in trained_on for digest in digests["val"]),
    }
