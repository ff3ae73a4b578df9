"""MATLAB files against SciPy's writer."""

import io

import numpy as np
import pytest

from tfvid.data.mat_file import read_mat
from tfvid.data.records import DataError

scipy_io = pytest.importorskip("scipy.io")


def content(compress):
    """A file with the kinds of variables that Penn Action's labels have, and one that is left out."""
    rng = np.random.default_rng(0)
    values = {
        "action": "baseball_pitch",
        "x": rng.normal(size=(7, 13)),
        "visibility": rng.integers(0, 2, (7, 13)).astype(np.uint8),
        "nframes": np.array([[7]], np.uint8),
        "single": rng.normal(size=(2, 3, 4)).astype(np.float32),
        "structure": {"a": 1},
    }
    buffer = io.BytesIO()
    scipy_io.savemat(buffer, values, do_compression=compress)
    return values, buffer.getvalue()


@pytest.mark.parametrize("compress", [False, True])
def test_equals_what_was_written(compress):
    values, data = content(compress)
    found = read_mat(data, "labels.mat")
    assert sorted(found) == ["action", "nframes", "single", "visibility", "x"]
    assert found["action"] == "baseball_pitch"
    for name in ("x", "visibility", "nframes", "single"):
        np.testing.assert_array_equal(found[name], values[name])
        assert found[name].dtype == values[name].dtype


@pytest.mark.parametrize("damage", [lambda d: d[:100], lambda d: d[:-40], lambda d: d[:200] + b"\xff" * 60 + d[260:]])
def test_damage_is_one_line(damage):
    _, data = content(compress=False)
    with pytest.raises(DataError, match=r"^labels\.mat: "):
        read_mat(damage(data), "labels.mat")
