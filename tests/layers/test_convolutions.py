"""Fused convolutions against what they stand for."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfvid.layers import convolutions


def _random(*shape):
    return tf.constant(np.random.default_rng(0).normal(size=shape))


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("height, width", [(8, 6), (7, 9)])
def test_conv_pool_is_convolution_and_mean(size, height, width):
    x, kernel = _random(2, height, width, 3), _random(size, size, 3, 4)
    found = convolutions.conv_pool2d(x, convolutions.pooled_kernel(kernel))
    expected = tf.nn.avg_pool2d(tf.nn.conv2d(x, kernel, 1, "SAME"), 2, 2, "VALID")
    np.testing.assert_allclose(found[:, : height // 2, : width // 2], expected, atol=1e-12)


def test_upsampling_is_bilinear_with_dark_borders_and_convolution():
    x, kernel = _random(2, 4, 5, 3), _random(3, 3, 3, 2)
    taps = np.outer(convolutions.BILINEAR, convolutions.BILINEAR)[:, :, None, None] * np.eye(3)
    doubled = tf.nn.conv2d_transpose(x, taps, [2, 10, 12, 3], 2, "VALID")
    full = tf.nn.conv2d(tf.pad(doubled, ((0, 0), (2, 2), (2, 2), (0, 0))), kernel, 1, "VALID")
    found = convolutions.upsample_conv2d(x, convolutions.upsampling_kernel(kernel))
    np.testing.assert_allclose(found, full[:, 2:-2, 2:-2], atol=1e-12)


@pytest.mark.parametrize("kind, size, stride", [
    ("conv2d", 5, 1), ("conv2d", 3, 2), ("conv2d", 4, 2), ("conv_pool2d", 3, 1), ("conv_pool2d", 5, 1),
    ("upsample_conv2d", 3, 1), ("deconv2d", 3, 1),
])
@pytest.mark.parametrize("height, width", [(8, 6), (7, 9), (2, 3)])
def test_a_vector_is_constant_channels(kind, size, stride, height, width):
    with keras.name_scope(f"{kind}{size}{height}"):
        layer = convolutions.Conv2D(3, 4, size, kind, stride, vector=2)
        whole = convolutions.Conv2D(5, 4, size, kind, stride)
    for to, value in zip(whole.weights, layer.weights):
        to.assign(value)
    x, vector = tf.cast(_random(2, height, width, 3), tf.float32), tf.cast(_random(2, 2), tf.float32)
    expected = whole.bind()(convolutions.with_vector([x], vector))
    np.testing.assert_allclose(layer.bind()(x, vector), expected, atol=1e-5)


@pytest.mark.parametrize("sizes, taps, strides", [
    ((8, 8), 4, (2, 2)), ((7, 9), 4, (2, 2)), ((5, 6), 3, (1, 1)),
    ((6, 8, 8), 4, (1, 2, 2)), ((7, 8, 8), 4, (2, 2, 2)), ((4, 5, 5), 3, (1, 1, 1)),
])
def test_a_border_of_one_whatever_the_size(sizes, taps, strides):
    rank = len(sizes)
    x, kernel = _random(2, *sizes, 2), _random(*(taps,) * rank, 2, 3)
    padded = tf.pad(x, ((0, 0), *[(1, 1)] * rank, (0, 0)))
    expected = tf.nn.convolution(padded, kernel, strides, "VALID")
    np.testing.assert_allclose(convolutions.conv_border(x, kernel, strides), expected, atol=1e-11)


def test_another_kernel_size_cannot_be_doubled():
    with pytest.raises(ValueError, match="expected a 3x3 kernel"):
        convolutions.upsampling_kernel(_random(5, 5, 1, 1))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_leaky_relu_and_its_gradient(dtype):
    x = tf.constant([-1.0, 0.0, 2.0], dtype)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = convolutions.leaky_relu(x, 0.1)
        total = tf.reduce_sum(y * [3.0, 3.0, 5.0])
    np.testing.assert_array_equal(y, np.array([-0.1, 0.0, 2.0], dtype))
    np.testing.assert_allclose(tape.gradient(total, x), np.array([0.3, 0.3, 5.0], dtype), rtol=1e-7)
