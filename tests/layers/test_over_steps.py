"""Kernels' gradients taken for several time steps together, against those of each step."""

import numpy as np
import pytest
import tensorflow as tf

from tfvid.layers import over_steps
from tfvid.layers.over_steps import KernelGradients, convolution
from tfvid.layers.shared_function import shared_function


def unrolled(steps, dtype, put_off, shape=(2, 8, 12, 4), skipped=(), dropped=()):
    """(gradients of the kernels and of the first map, the graph) of a little recurrent network."""
    rng = np.random.default_rng(0)
    kernels = [tf.Variable(rng.normal(size=(5, 5, shape[-1], shape[-1])) / 10, dtype=dtype) for _ in range(2)]
    start = tf.constant(rng.normal(size=shape), dtype)

    @tf.function(autograph=False)
    def gradients(x):
        collected = KernelGradients(steps)
        with tf.GradientTape() as tape:
            tape.watch(x)
            with collected.collecting(put_off):
                bound = [convolution(k * 1.5) for k in kernels]

            def step(x, both, drop):
                y = tf.tanh(bound[0](x)) + x
                return bound[1](y) if both else (y, drop and bound[1](y))[0]

            step = collected.shared(step) if put_off else shared_function(step)
            y, outputs = x, []
            for t in range(steps):
                y = step(y, t not in (*skipped, *dropped), t in dropped)
                outputs.append(tf.reduce_sum(tf.sin(y)))
            total = tf.add_n(outputs)
        return tape.gradient(total, [*kernels, x])

    function = gradients.get_concrete_function(start)
    return function(start), function.graph


def count(graph, kind):
    """How many operations of a type, those of called functions included."""
    found = 0
    for op in graph.get_operations():
        found += op.type == kind
        if op.type in ("PartitionedCall", "StatefulPartitionedCall"):
            found += count(graph._get_function(op.get_attr("f").name).graph, kind)
    return found


@pytest.mark.parametrize("steps, skipped, dropped", [
    (1, (), ()), (5, (), ()), (8, (), ()), (8, (0, 5), ()), (7, (6,), ()), (8, (), (2, 7)), (7, (), (6,)),
])  # fmt: skip
def test_gradients_are_those_of_each_step(steps, skipped, dropped):
    ours, _ = unrolled(steps, "float64", True, skipped=skipped, dropped=dropped)
    theirs, _ = unrolled(steps, "float64", False, skipped=skipped, dropped=dropped)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11 * float(tf.reduce_max(tf.abs(b))))


@pytest.mark.parametrize("way", ["skipped", "dropped"])
def test_a_kernel_of_no_result(way):
    (_, unused, _), _ = unrolled(3, "float64", True, **{way: (0, 1, 2)})
    assert unused is None or not np.any(unused)


def test_one_convolution_for_several_steps():
    steps = 2 * over_steps.GROUP + 1
    for put_off, expected in ((True, 2 * 3), (False, 2 * steps)):
        _, graph = unrolled(steps, "float64", put_off)
        assert count(graph, "Conv2DBackpropFilter") == expected


def test_by_winograds_method():
    ours, graph = unrolled(3, "float32", True, shape=(2, 16, 16, 160))
    theirs, _ = unrolled(3, "float32", False, shape=(2, 16, 16, 160))
    assert not count(graph, "Conv2D") and not count(graph, "Conv2DBackpropInput")
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-4 * float(tf.reduce_max(tf.abs(b))))


def test_eager_execution_stays_as_it_is():
    kernel, x = tf.ones([3, 3, 2, 2]), tf.ones([1, 4, 4, 2])
    collected = KernelGradients(1)
    with collected.collecting():
        convolve = convolution(kernel)
    step = collected.shared(convolve)
    for _ in range(2):  # more calls than announced: nothing is collected
        np.testing.assert_array_equal(step(x), tf.nn.conv2d(x, kernel, 1, "SAME"))
