"""Decoded photographs on disk: a damaged file is decoded again."""

import numpy as np
import pytest

from spinal_repro.data.kept import load_images, write_sum


@pytest.mark.parametrize("damage", ["pixel", "short", "no sum", "another sum", "pickle"])
def test_damaged_files_are_decoded_again(tmp_path, damage, capsys):
    path, images = tmp_path / "kept.npy", np.arange(48, dtype=np.uint8).reshape(1, 3, 4, 4)
    np.save(path, images)
    write_sum(path, images)
    assert np.array_equal(load_images(path, images.shape), images)
    data = bytearray(path.read_bytes())
    data[-1] ^= damage == "pixel"
    path.write_bytes(data[: -1 if damage == "short" else None])
    if damage == "no sum":
        path.with_suffix(".json").unlink()
    elif damage == "another sum":
        write_sum(path, images + 1)
    elif damage == "pickle":
        np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    assert load_images(path, images.shape) is None
    assert capsys.readouterr().err
