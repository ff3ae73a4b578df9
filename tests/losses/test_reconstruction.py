"""The gradient of a mean absolute value is that of TensorFlow, without a map of one number."""

import numpy as np
import pytest
import tensorflow as tf

from tfvid.losses.reconstruction import mean_absolute


def plain(x):
    return tf.reduce_mean(tf.abs(x))


def gradient_of(function, signature=None):
    @tf.function(input_signature=signature)
    def run(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = function(x)
            total = 3 * value
        return value, tape.gradient(total, x)

    return run


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("signature", [None, [None, 4, 5]])  # of known and of unknown size
def test_mean_absolute_and_its_gradient(signature, dtype):
    x = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(dtype)
    x[0, 0] = 0  # where the gradient is 0
    specs = signature and [tf.TensorSpec(signature, dtype)]
    wanted, found = (gradient_of(f, specs)(x) for f in (plain, mean_absolute))
    for a, b in zip(wanted, found, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-6 if dtype == "float32" else 1e-14)


def test_the_gradient_makes_no_map_of_one_number():
    x = tf.ones((3, 4, 5))
    types = [{op.type for op in gradient_of(f).get_concrete_function(x).graph.get_operations()} for f in (plain, mean_absolute)]
    assert "Tile" in types[0] and "Tile" not in types[1]
