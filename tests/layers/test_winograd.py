"""Winograd's convolutions against TensorFlow's own, values and gradients; where they are used and where not."""

import numpy as np
import pytest
import tensorflow as tf

from tfvid.layers import winograd
from tfvid.serving.export import compiled_functions


def case(dtype, shape=(2, 6, 10, 5), out=7):
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=shape), rng.normal(size=(3, 3, shape[-1], out)) / np.sqrt(9 * shape[-1])
    return tf.constant(x, dtype), tf.constant(kernel, dtype)


def bordered(x, border, mode="CONSTANT"):
    return tf.pad(x, [[0, 0], [border, border], [border, border], [0, 0]], mode=mode)


@pytest.mark.parametrize("border", [0, 1, 2])
def test_values_and_gradients_in_float64(border):
    x, kernel = case("float64")
    upstream = tf.random.stateless_normal([2, 4 + 2 * border, 8 + 2 * border, 7], [1, 2], dtype="float64")
    results = []
    for convolve in (
        lambda x, k: winograd.convolve(x, k, border),
        lambda x, k: tf.nn.conv2d(bordered(x, border), k, 1, "VALID"),
    ):
        with tf.GradientTape() as tape:
            tape.watch([x, kernel])
            y = convolve(x, kernel)
        results.append([y, *tape.gradient(y, [x, kernel], upstream)])
    for ours, theirs in zip(*results):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)


def test_error_in_float32_is_a_few_of_the_direct_ones():
    x, kernel = case("float32", (1, 16, 16, 512), 512)
    exact = tf.nn.conv2d(tf.cast(x, "float64"), tf.cast(kernel, "float64"), 1, "SAME")

    def error(y):
        return float(tf.reduce_max(tf.abs(tf.cast(y, "float64") - exact)))

    assert winograd.pays(kernel, 1, 16, 16)
    ours, direct = error(winograd.conv2d(x, kernel)), error(tf.nn.conv2d(x, kernel, 1, "SAME"))
    assert ours < 1e-5 and ours < 6 * direct  # of values of deviation 1; 4.1e-6 and 1.5e-6 where measured


@pytest.mark.parametrize("mode", ["constant", "reflect"])
def test_bound_kernel_and_unknown_batch(mode):
    x, kernel = case("float32", (3, 16, 18, 256), 192)
    convolve = winograd.bound_conv2d(kernel)
    function = tf.function(
        lambda x: convolve(x, mode), input_signature=[tf.TensorSpec([None, 16, 18, 256])]
    ).get_concrete_function()
    assert compiled_functions(function)
    expected = tf.nn.conv2d(bordered(x, 1, mode), kernel, 1, "VALID")
    np.testing.assert_allclose(function(x), expected, rtol=0, atol=2e-5)


def test_used_where_it_pays():
    wide = tf.zeros([3, 3, 128, 128])
    assert winograd.pays(wide, None, 32, 32)
    assert winograd.pays(tf.zeros([3, 3, 512, 512]), 4, 8, 8)
    assert not winograd.pays(tf.zeros([3, 3, 512, 512]), None, 8, 8)  # the kernel would cost more than the map
    assert not winograd.pays(wide, None, 31, 32)
    assert not winograd.pays(wide, None, None, 32)
    assert not winograd.pays(wide, None, 8, 16)
    assert not winograd.pays(tf.zeros([3, 3, 32, 128]), None, 128, 128)
    assert not winograd.pays(tf.zeros([5, 5, 128, 128]), None, 32, 32)
    assert not winograd.pays(tf.cast(wide, "float64"), None, 32, 32)
    assert not winograd.pays(tf.cast(wide, "bfloat16"), None, 32, 32)
    with winograd.direct():
        assert not winograd.pays(wide, None, 32, 32)
        with winograd.direct():
            pass
        assert not winograd.pays(wide, None, 32, 32)


def test_layer():
    x, kernel = case("float32", (1, 32, 32, 128), 128)
    layer = winograd.Conv2D(128, 3, padding="same", use_bias=False)
    layer.build((None, None, None, 128))
    layer.kernel.assign(kernel)
    function = tf.function(layer)
    assert compiled_functions(function.get_concrete_function(x))
    np.testing.assert_allclose(function(x), tf.nn.conv2d(x, kernel, 1, "SAME"), rtol=0, atol=2e-5)
    with winograd.direct():
        assert not compiled_functions(tf.function(layer).get_concrete_function(x))
    strided = winograd.Conv2D(128, 3, strides=2, padding="same")
    assert not compiled_functions(tf.function(strided).get_concrete_function(x))
