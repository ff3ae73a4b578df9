"""Resizing against TensorFlow's (float32) and its own definition (float64)."""

import numpy as np
import pytest
import tensorflow as tf

from tfvid.layers.resize import reduce_bilinear, resize_bilinear, upsample2


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(2, 8, 12, 3)).astype("float32")


def test_upsample2_is_the_half_pixel_resize(x):
    np.testing.assert_allclose(upsample2(x), tf.image.resize(x, (16, 24)), atol=1e-6)


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_reduce_is_the_half_pixel_resize(x, factor):
    np.testing.assert_allclose(
        reduce_bilinear(x, factor), tf.image.resize(x, (8 // factor, 12 // factor)), atol=1e-6
    )


@pytest.mark.parametrize("size", [(5, 7), (16, 9), (3, 30), (8, 12)])
def test_any_size_is_the_half_pixel_resize(x, size):
    # tf.image.resize rounds its positions to float32.
    np.testing.assert_allclose(resize_bilinear(x, size), tf.image.resize(x, size), atol=1e-5)


def test_align_corners_keeps_corners_and_spaces_evenly():
    x = np.arange(4.0).reshape(1, 4, 1, 1)
    np.testing.assert_allclose(
        np.ravel(resize_bilinear(x, (7, 1), align_corners=True)), [0, 0.5, 1, 1.5, 2, 2.5, 3], atol=1e-12
    )


def test_float64_stays(x):
    for y in (upsample2(x.astype("float64")), resize_bilinear(x.astype("float64"), (5, 5))):
        assert y.dtype == tf.float64
