"""Multiply-adds counted from the graph equal those counted by hand."""

import tensorflow as tf

from tfvid.benchmarking.operations import count, count_run
from tfvid.layers import winograd


def concrete(function, *shapes):
    return tf.function(function).get_concrete_function(*(tf.TensorSpec(s) for s in shapes))


def test_convolution_and_its_gradients():
    kernel = tf.Variable(tf.zeros([3, 3, 4, 8]))

    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.reduce_sum(tf.nn.conv2d(x, kernel, 2, "SAME") ** 2)
        return tape.gradient(y, [x, kernel.value()])

    forward = 2 * 5 * 6 * 8 * (3 * 3 * 4)
    kinds = count(concrete(lambda x: tf.nn.conv2d(x, kernel, 2, "SAME"), [2, 10, 12, 4])).by_kind
    assert kinds == {"Conv2D": forward}
    # y's gradient needs the forward pass; with respect to x as many again.
    kinds = count(concrete(step, [2, 10, 12, 4])).by_kind
    assert kinds["Conv2D"] == forward and kinds["Conv2DBackpropInput"] == forward


def test_gradient_of_a_kernel_and_three_dimensions():
    kernel = tf.Variable(tf.zeros([2, 3, 3, 4, 8]))

    def step(x):
        with tf.GradientTape() as tape:
            y = tf.reduce_sum(tf.nn.conv3d(x, kernel, [1, 1, 1, 1, 1], "SAME") ** 2)
        return tape.gradient(y, kernel)

    forward = 1 * 5 * 6 * 7 * 8 * (2 * 3 * 3 * 4)
    kinds = count(concrete(step, [1, 5, 6, 7, 4])).by_kind
    assert kinds == {"Conv3D": forward, "Conv3DBackpropFilterV2": forward}


def test_matrix_products():
    assert count(concrete(tf.matmul, [3, 5], [5, 7])).multiply_adds == 3 * 5 * 7
    transposed = count(concrete(lambda a, b: tf.matmul(a, b, transpose_a=True), [2, 5, 3], [2, 5, 7]))
    assert transposed.multiply_adds == 2 * 3 * 5 * 7
    einsum = count(concrete(lambda a, b: tf.einsum("bij,jk->bik", a, b), [2, 5, 3], [3, 7]))
    assert einsum.multiply_adds == 2 * 5 * 3 * 7


def test_called_functions_and_loops():
    inner = tf.function(lambda x: tf.matmul(x, x))

    def loop(x):
        return tf.while_loop(lambda i, x: i < 4, lambda i, x: (i + 1, inner(x)), [0, x], maximum_iterations=4)[1]

    counted = count(concrete(loop, [3, 3]))
    assert counted.multiply_adds == 4 * 27 and counted.loops == 0
    endless = count(concrete(lambda x: tf.while_loop(lambda x: x[0, 0] < 4, lambda x: (inner(x),), [x])[0], [3, 3]))
    assert endless.multiply_adds == 27 and endless.loops == 1


def test_unknown_shapes_are_told():
    counted = count(concrete(tf.matmul, [None, 5], [5, 7]))
    assert counted.multiply_adds == 0 and counted.unknown == {"MatMul": 1}


def test_a_run_is_counted_where_a_graph_does_not_know_its_shapes():
    kernel = tf.ones([3, 3, 4, 4])

    @tf.function
    def video(x, copies, turns):
        x = tf.tile(x, [copies, 1, 1, 1])
        x = tf.while_loop(lambda t, x: t < turns, lambda t, x: (t + 1, tf.nn.conv2d(x, kernel, 1, "SAME")), (0, x))[1]
        return tf.matmul(x[:, 0, 0], x[:, 0, 0], transpose_b=True)

    kinds = count_run(lambda: video(tf.ones([1, 5, 6, 4]), tf.constant(2), tf.constant(3))).by_kind
    assert kinds == {"Conv2D": 3 * 2 * 5 * 6 * 4 * (3 * 3 * 4), "MatMul": 2 * 2 * 4}
    assert not tf.config.functions_run_eagerly()


def test_winograd_counts_as_the_direct_convolution():
    kernel = tf.zeros([3, 3, 128, 128])
    expected = 2 * 32 * 32 * 9 * 128 * 128
    function = concrete(lambda x: winograd.conv2d(x, kernel), [2, 32, 32, 128])
    assert count(function).by_kind == {"Conv2D": expected}
    assert count_run(lambda: winograd.conv2d(tf.zeros([2, 32, 32, 128]), kernel)).by_kind == {"Conv2D": expected}
    bound = winograd.BoundConv2D(kernel)
    assert count(concrete(bound, [2, 32, 32, 128])).by_kind == {"Conv2D": expected}

    def gradients(x):
        with tf.GradientTape() as tape:
            tape.watch([x, kernel])
            y = winograd.conv2d(x, kernel)
        return tape.gradient(y, [x, kernel])

    assert count(concrete(gradients, [2, 32, 32, 128])).by_kind == {"Conv2D": 2 * expected}
