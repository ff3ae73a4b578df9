"""Winograd's convolutions against TensorFlow's own, values and gradients; where they are used and where not."""

import numpy as np
import pytest
import tensorflow as tf

from tfvid.layers import winograd, xla
from tfvid.serving.export import compiled_functions


def case(dtype, shape=(2, 6, 10, 5), out=7, taps=3):
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=shape), rng.normal(size=(taps, taps, shape[-1], out)) / (taps * np.sqrt(shape[-1]))
    return tf.constant(x, dtype), tf.constant(kernel, dtype)


def bordered(x, border, reflect):
    mode = "REFLECT" if reflect else "CONSTANT"
    return tf.pad(x, [[0, 0], [border, border], [border, border], [0, 0]], mode=mode)


@pytest.mark.parametrize("taps, side, size, border", [
    (3, 2, (6, 10), 0), (3, 2, (6, 10), 1), (3, 2, (6, 10), 2), (3, 4, (8, 12), 1), (3, 4, (10, 6), 0),
    (3, 4, (6, 10), 2), (5, 2, (6, 10), 2), (5, 2, (6, 10), 0), (5, 2, (6, 10), 4), (5, 2, (8, 10), 1),
    (5, 4, (8, 12), 2), (5, 4, (6, 10), 1),
])  # fmt: skip
@pytest.mark.parametrize("reflect", [False, True])
def test_values_and_gradients_in_float64(taps, side, size, border, reflect):
    x, kernel = case("float64", (2, *size, 5), taps=taps)
    upstream = None
    results = []
    for convolve in (
        lambda x, k: winograd.convolve(x, k, border, side, reflect),
        lambda x, k: tf.nn.conv2d(bordered(x, border, reflect), k, 1, "VALID"),
    ):
        with tf.GradientTape() as tape:
            tape.watch([x, kernel])
            y = convolve(x, kernel)
        if upstream is None:
            upstream = tf.random.stateless_normal(y.shape, [1, 2], dtype="float64")
        results.append([y, *tape.gradient(y, [x, kernel], upstream)])
    for ours, theirs in zip(*results):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)


# Largest error of a result of deviation 1, measured: 4.5e-6 (3 taps, side 2), 1.6e-5 (side 4), 2.2e-5 (5 taps, side 2),
# 2.3e-5 (side 4); of the direct convolution 1.7e-6.
@pytest.mark.parametrize("taps, side, most, ratio", [(3, 2, 8e-6, 6), (3, 4, 3e-5, 18), (5, 2, 4e-5, 26), (5, 4, 5e-5, 28)])
def test_error_in_float32(taps, side, most, ratio):
    x, kernel = case("float32", (1, 16, 16, 512), 512, taps)
    exact = tf.nn.conv2d(tf.cast(x, "float64"), tf.cast(kernel, "float64"), 1, "SAME")

    def error(y):
        return float(tf.reduce_max(tf.abs(tf.cast(y, "float64") - exact)))

    ours, direct = error(winograd.convolve(x, kernel, taps // 2, side)), error(tf.nn.conv2d(x, kernel, 1, "SAME"))
    assert ours < most and ours < ratio * direct


def test_kernel_gradient_in_parts(monkeypatch):
    x, kernel = case("float64", (5, 8, 8, 3), taps=5)
    upstream = tf.random.stateless_normal([5, 8, 8, 7], [1, 2], dtype="float64")
    expected = tf.raw_ops.Conv2DBackpropFilter(
        input=x, filter_sizes=kernel.shape, out_backprop=upstream, strides=[1, 1, 1, 1], padding="SAME"
    )
    for most in (1, 2 * 4 * 64 * 10, 2**23):  # one image, two, all at once
        monkeypatch.setattr(winograd, "MOST_PLACES_OF_GRADIENT", most)
        np.testing.assert_allclose(winograd.kernel_gradient(x, upstream, 2, 4), expected, rtol=0, atol=1e-11)


# Root mean square error against the result's deviation, measured: 1.9e-6 (3 taps), 4.7e-6 (5 taps); direct: 1.8e-6.
@pytest.mark.parametrize("taps, most", [(3, 3e-6), (5, 7e-6)])
def test_error_of_kernel_gradient_in_float32(taps, most):
    x, _ = case("float32", (4, 32, 32, 64))
    upstream, _ = case("float32", (4, 32, 32, 128))

    def direct(x, upstream):
        return tf.raw_ops.Conv2DBackpropFilter(
            input=x, filter_sizes=[taps, taps, 64, 128], out_backprop=upstream, strides=[1, 1, 1, 1], padding="SAME"
        )

    exact = direct(*(tf.cast(v, "float64") for v in (x, upstream)))
    difference = tf.cast(winograd.kernel_gradient(x, upstream, taps // 2, 4), "float64") - exact
    assert float(tf.norm(difference) / tf.norm(exact)) < most


@pytest.mark.parametrize("reflect", [False, True])
def test_bound_kernel_and_unknown_batch(reflect):
    x, kernel = case("float32", (3, 16, 18, 256), 192)
    convolve = winograd.BoundConv2D(kernel)
    function = tf.function(
        lambda x: convolve(x, reflect), input_signature=[tf.TensorSpec([None, 16, 18, 256])]
    ).get_concrete_function()
    assert compiled_functions(function)
    expected = tf.nn.conv2d(bordered(x, 1, reflect), kernel, 1, "VALID")
    np.testing.assert_allclose(function(x), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("size", [(16, 18), (15, 18)])  # by the method, and too odd for it
def test_mirrored_border(size):
    x, kernel = case("float32", (2, *size, 256), 192)
    expected = tf.nn.conv2d(bordered(x, 1, True), kernel, 1, "VALID")
    for convolve in (winograd.BoundConv2D(kernel), lambda x, reflect: winograd.conv2d(x, kernel, "reflect")):
        np.testing.assert_allclose(convolve(x, True), expected, rtol=0, atol=2e-5)


def test_used_where_it_pays():
    block = winograd.paying_block
    wide, deep, five = tf.zeros([3, 3, 128, 128]), tf.zeros([3, 3, 512, 512]), tf.zeros([5, 5, 256, 512])
    assert block(wide, None, 32, 32) == 4
    assert block(wide, None, 34, 32) == 2
    assert block(deep, 4, 8, 8) == 2
    assert block(deep, None, 8, 8) is None  # the kernel would cost more than the map
    assert block(deep, None, 8, 8, least=winograd.LEAST_BLOCKS_BOUND) == 2
    assert block(five, None, 8, 8, least=winograd.LEAST_BLOCKS_BOUND) == 2
    assert block(five, None, 8, 8) is None
    assert block(wide, None, 31, 32) is None
    assert block(wide, None, None, 32) is None
    assert block(wide, None, 8, 16) is None
    assert block(tf.zeros([3, 3, 32, 128]), None, 128, 128) is None
    assert block(tf.zeros([7, 7, 128, 128]), None, 32, 32) is None
    assert block(tf.cast(wide, "float64"), None, 32, 32) is None
    assert block(tf.cast(wide, "bfloat16"), None, 32, 32) is None
    with xla.off():
        assert block(wide, None, 32, 32) is None
        with xla.off():
            pass
        assert block(wide, None, 32, 32) is None


def test_layer():
    x, kernel = case("float32", (1, 32, 32, 128), 128)
    layer = winograd.Conv2D(128, 3, padding="same", use_bias=False)
    layer.build((None, None, None, 128))
    layer.kernel.assign(kernel)
    function = tf.function(layer)
    assert compiled_functions(function.get_concrete_function(x))
    for call in (function, layer):  # traced, and in eager execution
        np.testing.assert_allclose(call(x), tf.nn.conv2d(x, kernel, 1, "SAME"), rtol=0, atol=2e-5)
    with xla.off():
        assert not compiled_functions(tf.function(layer).get_concrete_function(x))
    strided = winograd.Conv2D(128, 3, strides=2, padding="same")
    assert not compiled_functions(tf.function(strided).get_concrete_function(x))
