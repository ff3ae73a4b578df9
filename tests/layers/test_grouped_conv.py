"""A convolution whose gradient is made in groups of channels has the gradient of the plain one."""

import numpy as np
import pytest
import tensorflow as tf

from tests.graphs import ancestors
from tfvid.layers import grouped_conv
from tfvid.layers.torch_conv import scale_calls


@pytest.mark.parametrize("patches", [1, 3 * 8 * 6 * 9, 10**6])  # groups of 1, of 3 (and a rest of 1) and of all 7 channels
def test_grouped_convolution_has_the_gradients_of_the_plain_one(patches):
    rng = np.random.default_rng(0)
    x, kernel, upstream = (tf.constant(rng.normal(size=s)) for s in ((2, 8, 6, 7), (3, 3, 7, 5), (2, 8, 6, 5)))

    @tf.function
    def run(convolve):
        with tf.GradientTape() as tape:
            tape.watch([x, kernel])
            y = convolve(x, kernel)
        return y, *tape.gradient(y, [x, kernel], upstream)

    wanted = run(lambda x, kernel: tf.nn.conv2d(x, kernel, 1, "SAME"))
    found = run(lambda x, kernel: grouped_conv.convolve(x, kernel, patches))
    for a, b in zip(wanted, found, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-12, atol=1e-12)


def test_gradients_of_several_in_one_graph_wait_for_each_other():
    x, kernel = tf.ones([1, 4, 4, 2]), tf.ones([3, 3, 2, 2])

    @tf.function
    def run(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = grouped_conv.convolve(x, kernel) + grouped_conv.convolve(2 * x, kernel)
        return tape.gradient(y, x)

    operations = run.get_concrete_function(x).graph.get_operations()
    first, second = (op for op in operations if op.type == "Conv2DBackpropInput")
    assert first in ancestors(second)


@pytest.mark.parametrize("calls", [1, 3])
def test_scale_calls_has_the_gradients_of_a_product(calls):
    rng = np.random.default_rng(0)
    x, factor, upstream = (tf.constant(rng.normal(size=s)) for s in ((6, 2, 3, 4), (calls,), (6, 2, 3, 4)))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([x, factor])
        y = scale_calls(x, factor)
        product = x * tf.repeat(factor, 6 // calls)[:, None, None, None]
    np.testing.assert_allclose(y, product, rtol=1e-14)
    for source in (x, factor):
        found, wanted = (tape.gradient(v, source, upstream) for v in (y, product))
        np.testing.assert_allclose(found, wanted, rtol=1e-12)
