"""Published data sets as they are, where they lie at hand."""

import pytest
import torch

from spinal_repro.config.compose import compose
from spinal_repro.config.preprocessing import Preprocessing
from spinal_repro.data.sources import load_dataset


def skip_without(folder):
    if not folder.is_dir():
        pytest.skip(f"there is no {folder}")


def test_hymenoptera(real_data, tmp_path):
    skip_without(real_data / "hymenoptera_data")
    dataset = load_dataset(compose(["dataset=hymenoptera", "model=torchvision"]).dataset, real_data)
    assert (len(dataset.train), len(dataset.test)) == (244, 153)
    assert set(dataset.train.labels.tolist()) == {0, 1}
    images = dataset.train.prepared(Preprocessing(resize=32, crop=32), tmp_path)
    grey = images.gather(torch.arange(244)).float().std(dim=1).mean(dim=(1, 2)) < 1
    assert grey.float().mean() < 0.05  # photographs have colours
