"""Reading idx files, against torchvision, which reads them too."""

import numpy as np
import pytest
import torch
from idx_files import idx_bytes
from torchvision import datasets as tv

from spinal_repro.config import compose
from spinal_repro.data.idx import EMNIST_SPLITS
from spinal_repro.data.idx_files import check_idx, read_idx
from spinal_repro.data.sources import load_dataset


@pytest.mark.parametrize("dtype", ["uint8", "int32"])
@pytest.mark.parametrize("shape", [(5,), (3, 8), (2, 4, 6)], ids=str)
def test_an_array_comes_back(dtype, shape, tmp_path):
    array = np.random.default_rng(0).integers(0, 250, shape).astype(dtype) * 3
    path = tmp_path / "some-idx"
    path.write_bytes(idx_bytes(array))
    found = read_idx(path)
    assert check_idx(path) == shape and found.dtype == dtype and found.dtype.isnative
    np.testing.assert_array_equal(found, array)


def test_emnist_has_the_splits_that_torchvision_has():
    assert set(EMNIST_SPLITS) == set(tv.EMNIST.splits)


def test_mnist_is_what_torchvision_reads(real_data):
    ours = load_dataset(compose(["dataset=mnist"]).dataset, real_data)
    for part, train in ((ours.train, True), (ours.test, False)):
        theirs = tv.MNIST(real_data, train=train)
        assert torch.equal(part.images[:, 0], theirs.data)
        assert torch.equal(part.labels, theirs.targets)
