"""Warps that leave, shift or sample an image."""

import numpy as np
import pytest
import tensorflow as tf

from tfvid.layers import sampling, warps
from tfvid.serving.export import compiled_functions


def _image(batch=2, height=6, width=7, channels=3):
    return tf.constant(np.random.default_rng(0).uniform(size=(batch, height, width, channels)))


def test_the_identity_kernel_changes_nothing():
    image = _image()
    kernel = np.broadcast_to(warps.identity_kernel((5, 3))[None, :, :, None], (2, 5, 3, 1))
    np.testing.assert_allclose(warps.cdna_warp(image, tf.constant(kernel))[:, :, :, 0], image, atol=1e-12)
    np.testing.assert_allclose(warps.identity_kernel((4, 4)).sum(), 1)


def test_one_kernel_a_pixel_equals_one_a_sample_where_they_agree():
    image, kernels = _image(), tf.constant(np.random.default_rng(1).normal(size=(2, 4, 5, 2)))
    per_pixel = tf.broadcast_to(kernels[:, None, None], (2, 6, 7, 4, 5, 2))
    for mode in ("symmetric", "constant"):
        found = warps.dna_warp(image, per_pixel, mode=mode)
        np.testing.assert_allclose(found, warps.cdna_warp(image, kernels, mode=mode), atol=1e-10)


def test_cdna_gradients_equal_those_of_one_tap_at_a_time():
    image, kernels = _image(), tf.constant(np.random.default_rng(1).normal(size=(2, 3, 3, 2)))

    def by_taps(image, kernels):
        taps = warps.patches(image, (3, 3))
        return tf.einsum("bijhwc,bijn->bhwnc", taps, kernels)

    results = []
    for warp in (warps.cdna_warp, by_taps):
        with tf.GradientTape() as tape:
            tape.watch([image, kernels])
            loss = tf.reduce_sum(tf.sin(warp(image, kernels)))
        results.append(tape.gradient(loss, [image, kernels]))
    for found, expected in zip(*results):
        np.testing.assert_allclose(found, expected, atol=1e-10)


def test_cdna_takes_any_batch_size_in_a_graph():
    signature = [tf.TensorSpec([None, 6, 7, 3], tf.float64), tf.TensorSpec([None, 5, 5, 4], tf.float64)]
    function = tf.function(warps.cdna_warp, input_signature=signature)
    for batch in (1, 3):
        assert function(_image(batch), tf.ones([batch, 5, 5, 4], tf.float64)).shape == (batch, 6, 7, 4, 3)


@pytest.mark.parametrize("warp, shape", [(warps.cdna_warp, (2, 5, 5, 3)), (warps.flow_warp, (2, 64, 64, 2, 3))])
def test_compiled_warps_and_their_gradients_are_the_plain_ones(warp, shape):
    random = np.random.default_rng(0)
    image = tf.constant(random.uniform(size=(2, 64, 64, 3)), tf.float32)
    given = tf.constant(random.normal(size=shape), tf.float32)

    def value_and_gradients(image, given):
        with tf.GradientTape() as tape:
            tape.watch([image, given])
            result = warp(image, given)
            loss = tf.reduce_sum(tf.square(result))
        return result, *tape.gradient(loss, [image, given])

    in_graph = tf.function(value_and_gradients)
    names = compiled_functions(in_graph.get_concrete_function(image, given))
    assert any("warp_gradient" in name for name in names)
    for found, expected in zip(in_graph(image, given), value_and_gradients(image, given)):
        np.testing.assert_allclose(found, expected, atol=2e-6 * np.abs(expected).max())


def test_a_whole_flow_shifts_and_clamps():
    image = _image()
    flows = np.zeros((2, 6, 7, 2, 1))
    flows[..., 0, :], flows[..., 1, :] = 2, -1  # from two to the right, one above
    found = warps.flow_warp(image, tf.constant(flows))[:, :, :, 0]
    rows, columns = np.clip(np.arange(6) - 1, 0, 5), np.clip(np.arange(7) + 2, 0, 6)
    np.testing.assert_allclose(found, image.numpy()[:, rows][:, :, columns], atol=1e-12)


def test_half_a_pixel_is_the_mean():
    image = _image()
    flows = np.zeros((2, 6, 7, 2, 1))
    flows[..., 0, :] = 0.5
    found = warps.flow_warp(image, tf.constant(flows))[:, :, :-1, 0]
    np.testing.assert_allclose(found, (image[:, :, :-1] + image[:, :, 1:]) / 2, atol=1e-12)


def test_normalized_kernels_are_positive_and_sum_to_one():
    kernels = warps.normalize_kernels(tf.constant(np.random.default_rng(0).normal(size=(2, 5, 5, 3))), (1, 2))
    assert np.all(kernels > 0)
    np.testing.assert_allclose(tf.reduce_sum(kernels, axis=(1, 2)), np.ones((2, 3)), atol=1e-12)


def test_a_point_that_is_no_number_gives_no_number():
    points = tf.constant([[[1.0, 2.0], [np.nan, 1.0], [-9.0, np.inf]]], tf.float64)
    found = sampling.interpolate_bilinear(_image(batch=1), points)[0]
    assert np.isnan(found[1]).all()
    np.testing.assert_allclose(found[0], _image(batch=1)[0, 1, 2])
    np.testing.assert_allclose(found[2], _image(batch=1)[0, 0, 6])
