"""Norms: values, written-out gradients, and the narrow float type."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfvid.layers import norms


def _plain(x, gamma, beta, axes, epsilon):
    mean, variance = tf.nn.moments(x, axes, keepdims=True)
    return (x - mean) * tf.math.rsqrt(variance + epsilon) * gamma + beta


@pytest.mark.parametrize(
    "function, axes, epsilon",
    [(norms.instance_norm, (1, 2), norms.INSTANCE_EPSILON), (norms.layer_norm, (1, 2, 3), norms.LAYER_EPSILON)],
)
def test_values_and_gradients_equal_the_formula(function, axes, epsilon):
    rng = np.random.default_rng(0)
    shapes = ((2, 5, 6, 3), (3,), (3,), (2, 5, 6, 3))
    x, gamma, beta, weights = (tf.constant(rng.normal(size=shape)) for shape in shapes)
    results = []
    for norm in (function, lambda *args: _plain(*args, axes, epsilon)):
        with tf.GradientTape() as tape:
            tape.watch([x, gamma, beta])
            y = norm(x, gamma, beta)
            loss = tf.reduce_sum(y * weights)
        results.append([y, *tape.gradient(loss, [x, gamma, beta])])
    for found, expected in zip(*results):
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


def test_equal_to_keras_group_normalization():
    x = np.random.default_rng(1).normal(size=(2, 4, 4, 6)).astype("float32")
    instance = keras.layers.GroupNormalization(groups=-1, epsilon=norms.INSTANCE_EPSILON)(x)
    np.testing.assert_allclose(norms.instance_norm(tf.constant(x), tf.ones(6), tf.zeros(6)), instance, atol=1e-5)


def test_a_narrow_type_is_normed_in_float32():
    x = 100 + np.random.default_rng(2).normal(size=(1, 8, 8, 2)).astype("float32")
    narrow = tf.cast(x, tf.bfloat16)
    found = norms.instance_norm(narrow, tf.ones(2), tf.zeros(2))
    expected = norms.instance_norm(tf.cast(narrow, tf.float32), tf.ones(2), tf.zeros(2))
    assert found.dtype == tf.bfloat16
    np.testing.assert_allclose(tf.cast(found, tf.float32), expected, atol=0.02)


def test_batch_norm_never_learns_statistics():
    layer = norms.norm_layer("batch", 3)
    x = tf.constant(np.random.default_rng(3).normal(5, 2, size=(2, 4, 4, 3)), tf.float32)
    np.testing.assert_allclose(layer.bind()(x), x / np.sqrt(1 + 1e-3), rtol=1e-6)
    assert [v.path.rsplit("/", 1)[1] for v in layer.non_trainable_variables] == ["moving_mean", "moving_variance"]
