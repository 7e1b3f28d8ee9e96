"""Weights of training images, and an epoch in which all classes are equally likely."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from helpers.composing import composed
from sklearn.utils.class_weight import compute_sample_weight

from spinal_repro.data.loader import Batches, training_weights
from spinal_repro.data.preprocessing import batches_of, split_dataset
from spinal_repro.data.sources import ImageSet, load_dataset

CPU = torch.device("cpu")


def skewed():
    """The digits with few images of the higher classes."""
    dataset = load_dataset(composed().dataset, "unused")
    labels = dataset.train.labels.numpy()
    kept = [np.flatnonzero(labels == digit)[: 100 - 10 * digit] for digit in range(10)]
    return dataclasses.replace(dataset, train=dataset.train.subset(np.sort(np.concatenate(kept))))


def part_of(dataset, part="train", *overrides):
    config = composed(*overrides)
    split = split_dataset(dataset, config.protocol)
    options = {"runs": None, "device": CPU, "mean": [0.5], "std": [0.5]}
    if part == "train":
        options |= training_weights(config.recipe, dataset.train, split.train)
    return batches_of(config, dataset, split, part, training=part == "train", **options), split


def weighted(dataset, weights):
    """The data set with weights of its training images, as a source may give them."""
    train = copy.copy(dataset.train)
    object.__setattr__(train, "weights", weights)
    return dataclasses.replace(dataset, train=train)


def by_image(batches, epoch=1):
    """The weight of each image of an epoch, by its number."""
    stream = list(batches.epoch(0, epoch))
    numbers = [n for step in range(len(stream)) for n in batches.images(0, epoch, step + 1)]
    return dict(zip(numbers, torch.cat([weights for *_, weights in stream]).tolist(), strict=True))


def test_without_options_there_are_no_weights():
    batches, _ = part_of(skewed())
    assert all(len(batch) == 2 for batch in batches.epoch(0, 1))


def test_balanced_classes_have_the_weights_of_scikit_learn():
    dataset = skewed()
    batches, split = part_of(dataset, "train", "recipe.class_weights=balanced")
    expected = compute_sample_weight("balanced", dataset.train.labels[split.train])
    assert by_image(batches) == pytest.approx(dict(zip(split.train, expected, strict=True)))


def test_a_class_without_images_changes_no_weight():
    dataset = skewed()
    few = dataclasses.replace(dataset, train=dataset.train.subset(dataset.train.labels.numpy() > 3))
    batches, split = part_of(few, "train", "recipe.class_weights=balanced")
    expected = compute_sample_weight("balanced", few.train.labels[split.train])
    assert by_image(batches) == pytest.approx(dict(zip(split.train, expected, strict=True)))


@pytest.mark.parametrize("overrides", [[], ["recipe.class_weights=balanced"]])
def test_images_may_have_weights_of_their_own(overrides):
    dataset = skewed()
    given = torch.rand(len(dataset.train))
    batches, split = part_of(weighted(dataset, given), "train", *overrides)
    expected = given[torch.from_numpy(split.train)].numpy()
    if overrides:
        balanced = compute_sample_weight("balanced", dataset.train.labels[split.train])
        expected = expected * balanced
    assert by_image(batches) == pytest.approx(dict(zip(split.train, expected, strict=True)))


def test_evaluation_knows_no_weights():
    dataset = weighted(skewed(), torch.rand(len(skewed().train)))
    batches, _ = part_of(dataset, "val", "recipe.class_weights=balanced")
    assert all(len(batch) == 2 for batch in batches.in_order())


def test_a_balanced_sampler_draws_all_classes_alike():
    dataset = skewed()
    batches, split = part_of(dataset, "train", "recipe.sampler=balanced")
    labels = torch.cat([labels for e in range(1, 21) for _, labels in batches.epoch(0, e)])
    assert len(labels) == 20 * len(split.train)
    error = (0.1 * 0.9 / len(labels)) ** 0.5
    share = torch.bincount(labels, minlength=10) / len(labels)
    assert ((share - 0.1).abs() < 5 * error).all()
    natural = torch.bincount(dataset.train.labels) / len(dataset.train)
    assert ((natural - 0.1).abs() > 5 * error).any()


def test_the_images_of_a_balanced_step_are_named():
    """Also with only some of the images in memory, and drawn ahead."""
    images = ImageSet(torch.arange(200).to(torch.uint8).view(-1, 1, 1, 1), torch.arange(200) // 150)
    shares = 1 / torch.bincount(images.labels)[images.labels]
    options = {"batch_size": 32, "mean": [0.0], "std": [1 / 255], "device": CPU, "shares": shares}
    batches = Batches(images, np.arange(200), numbers=np.arange(200) * 3, **options)
    for epoch in (1, 2):
        for step, (pixels, labels) in enumerate(batches.epoch(0, epoch, draw_next=epoch == 1)):
            numbers = batches.images(0, epoch, step + 1)
            assert [n // 3 for n in numbers] == pixels.flatten().round().int().tolist()
            assert labels.tolist() == [n // 3 // 150 for n in numbers]
    assert batches.images(0, 1, 1) != batches.images(0, 2, 1) != batches.images(1, 2, 1)
