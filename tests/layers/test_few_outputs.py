"""Convolutions of few outputs, two pixels a side at a time."""

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from tfvid.layers import few_outputs

KERNEL = (7, 7, 3, 2)


def _random(*shape):
    return tf.constant(np.random.default_rng(len(shape)).normal(size=shape))


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("shape", [KERNEL, (5, 5, 4, 8)])
def test_value_and_gradients_are_those_of_the_plain_convolution(padding, shape):
    image, kernel = _random(2, 10, 14, shape[2]), _random(*shape)
    assert few_outputs.pays(image, kernel, padding)
    results = []
    for convolve in (few_outputs.conv2d, lambda *args: ops.conv(*args[:2], padding=args[2])):
        with tf.GradientTape() as tape:
            tape.watch([image, kernel])
            y = convolve(image, kernel, padding)
            loss = tf.reduce_sum(tf.sin(y))
        results.append((y, *tape.gradient(loss, [image, kernel])))
    for found, expected in zip(*results):
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    "image, kernel, padding",
    [
        ((1, 9, 10, 3), KERNEL, "same"),
        ((1, 9, 10, 3), KERNEL, "valid"),  # gives 3 rows
        ((1, 10, 10, 3), (3, 3, 3, 2), "same"),
        ((1, 10, 10, 3), (7, 7, 3, 9), "same"),
    ],
)
def test_others_are_plain(image, kernel, padding):
    image, kernel = _random(*image), _random(*kernel)
    assert not few_outputs.pays(image, kernel, padding)
    expected = ops.conv(image, kernel, padding=padding)
    np.testing.assert_array_equal(few_outputs.conv2d(image, kernel, padding), expected)
