"""A convolution of one image in two strips is the plain one, with its gradients."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfvid.layers import one_image

SIZES = [  # height, width, kernel, strides
    (12, 9, (3, 3), 1), (14, 9, (3, 3), 1), (16, 12, (5, 3), 1), (16, 12, (4, 4), 2), (17, 11, (4, 4), 2),
    (18, 11, (5, 5), 2), (19, 11, (4, 4), 2), (15, 8, (3, 3), 2), (20, 9, (7, 7), 1), (17, 8, (6, 6), 1),
    (18, 8, (6, 6), 1), (24, 24, (3, 3), 3),
]  # fmt: skip


def _is_even(case):
    (height, _, kernel, strides), padding = case
    return one_image._along(height, kernel[0], strides, padding)[0] % 2 == 0


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize(("sizes", "padding"), filter(_is_even, itertools.product(SIZES, ("same", "valid"))))
def test_strips_have_the_result_and_the_gradients_of_the_whole(sizes, padding, eager):
    height, width, kernel, strides = sizes
    rng = np.random.default_rng(0)
    x, k = (tf.constant(rng.normal(size=s)) for s in ((1, height, width, 3), (*kernel, 3, 5)))

    def run(convolve):
        with tf.GradientTape() as tape:
            tape.watch([x, k])
            y = convolve(x, k, strides, padding)
            total = tf.reduce_sum(tf.sin(y))
        return y, *tape.gradient(total, [x, k])

    def plain(x, k, strides, padding):
        return tf.nn.conv2d(x, k, strides, padding.upper())

    wanted, found = ((run if eager else tf.function(run))(f) for f in (plain, one_image.convolve))
    for a, b in zip(wanted, found, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("shape", "kernel", "strides", "padding", "dtype"),
    [
        ((2, 64, 64, 32), (3, 3), 1, "same", "float32"),  # two images
        ((None, 64, 64, 32), (3, 3), 1, "same", "float32"),
        ((1, None, 64, 32), (3, 3), 1, "same", "float32"),
        ((1, 63, 64, 32), (3, 3), 1, "same", "float32"),  # an odd number of rows
        ((1, 64, 64, 32), (3, 3), 1, "same", "float64"),
        ((1, 64, 64, 32), (1, 1), 1, "same", "float32"),  # a matrix product already
        ((1, 8, 8, 32), (3, 3), 1, "same", "float32"),  # too little to compute
        ((1, 8, 640, 32), (5, 5), 1, "same", "float32"),  # a kernel taller than a strip
    ],
)
def test_all_else_stays_the_plain_convolution(shape, kernel, strides, padding, dtype):
    x = keras.KerasTensor(shape, dtype)
    assert not one_image.pays(x, keras.KerasTensor((*kernel, 32, 64), dtype), strides, padding)


def test_one_float32_image_pays():
    x, kernel = (keras.KerasTensor(shape, "float32") for shape in ((1, 64, 64, 32), (3, 3, 32, 64)))
    assert one_image.pays(x, kernel, 1, "same")


def test_a_convolution_is_cut_where_the_processor_asks_for_it(monkeypatch):
    x, k = tf.random.normal((1, 64, 64, 16)), tf.random.normal((3, 3, 16, 16))
    for cut in (False, True):
        monkeypatch.setattr(one_image, "by_patches", lambda cut=cut: cut)
        graph = tf.function(one_image.conv2d).get_concrete_function(x, k).graph
        assert any(op.type == "ConcatV2" for op in graph.get_operations()) == cut
        np.testing.assert_allclose(one_image.conv2d(x, k), tf.nn.conv2d(x, k, 1, "SAME"), rtol=1e-4, atol=1e-4)
