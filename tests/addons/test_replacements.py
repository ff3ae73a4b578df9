"""What stands in for tensorflow-addons and tensorflow-io; the table is in README.md.

The values of tensorflow-addons itself are in tests/parity/addons.py; here is what these
values do not show, and the pieces of tensorflow-io.
"""

import pathlib
import re

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.parity import addons
from tfvid.data import video_files
from tfvid.layers.sampling import dense_image_warp, interpolate_bilinear

ROOT = pathlib.Path(__file__).resolve().parents[2]


def images(dtype="float32"):
    return np.random.default_rng(0).uniform(0, 1, (2, 5, 6, 3)).astype(dtype)


def test_sampling_at_pixel_centres_gives_the_pixels():
    grid = np.stack(np.meshgrid(np.arange(5.0), np.arange(6.0), indexing="ij"), -1).reshape(1, 30, 2)
    points = np.repeat(grid, 2, axis=0).astype("float32")
    np.testing.assert_array_equal(interpolate_bilinear(images(), points), images().reshape(2, 30, 3))


def test_points_outside_take_the_nearest_edge():
    points = np.array([[[-3.0, 2.0], [9.0, 9.0], [1.0, -0.5]]] * 2, "float32")
    expected = images()[:, [0, 4, 1], [2, 5, 0]]
    np.testing.assert_array_equal(interpolate_bilinear(images(), points), expected)


def test_warp_by_whole_pixels_is_a_shift():
    flow = np.broadcast_to(np.array([1.0, -2.0], "float32"), (2, 5, 6, 2))
    warped = np.array(dense_image_warp(images(), flow))
    np.testing.assert_array_equal(warped[:, 1:, :-2], images()[:, :-1, 2:])
    np.testing.assert_array_equal(warped[:, 0], warped[:, 1])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_warp_samples_the_interpolation_and_keeps_the_type(dtype):
    flow = np.random.default_rng(1).normal(0, 2, (2, 5, 6, 2)).astype(dtype)
    position = np.stack(np.meshgrid(np.arange(5.0), np.arange(6.0), indexing="ij"), -1)
    points = (position - flow).reshape(2, 30, 2).astype(dtype)
    warped = dense_image_warp(images(dtype), flow)
    assert warped.dtype == dtype
    expected = keras.ops.reshape(interpolate_bilinear(images(dtype), points), (2, 5, 6, 3))
    np.testing.assert_allclose(warped, expected, atol=1e-5 if dtype == "float32" else 1e-13)


def test_hdf5_is_read_in_parts(tmp_path):
    """Instead of tfio.IODataset.from_hdf5: a slice reads its chunks only, inside any tf.data generator."""
    frames = np.random.default_rng(0).integers(0, 256, (7, 4, 4, 3), dtype="uint8")
    with h5py.File(tmp_path / "x.h5", "w") as f:
        f.create_dataset("frames", data=frames, chunks=(1, 4, 4, 3))

    def clips():
        with h5py.File(tmp_path / "x.h5") as f:
            for start in range(0, 6, 3):
                yield f["frames"][start : start + 3]

    dataset = tf.data.Dataset.from_generator(clips, output_signature=tf.TensorSpec([3, 4, 4, 3], tf.uint8))
    np.testing.assert_array_equal(np.concatenate(list(dataset.as_numpy_iterator())), frames[:6])


def test_video_files_are_decoded(tmp_path):
    """Instead of tfio.experimental.ffmpeg.decode_video: frames in order, colours within the codec's loss."""
    ramp = np.linspace(20, 230, 8).astype("uint8")
    frames = np.zeros([8, 32, 48, 3], "uint8") + ramp[:, None, None, None]
    path = str(tmp_path / "x.mp4")
    video_files.write_mp4(path, frames, 8)
    read = video_files.read_video(path)[0]
    assert read.shape == frames.shape and read.dtype == np.uint8
    assert np.abs(read.mean(axis=(1, 2, 3)) - ramp).max() < 4


def test_readme_has_a_row_for_every_piece_that_is_compared():
    table = (ROOT / "README.md").read_text().split("## What replaces", 1)[1].split("\n## ", 1)[0]
    for piece in addons.CHECKS:
        assert re.search(rf"`tests/parity/addons\.py`[^|]*`check_{piece}`", table), piece
    named = re.findall(r"`(test_\w+)`", table)
    assert named and all(name in globals() for name in named)
