"""Spectral norm: the largest singular value, gradients through it, and a vector that only its owner advances."""

import numpy as np
import tensorflow as tf

from tfvid.layers.bound import value_of
from tfvid.layers.spectral_norm import SpectralKernel, power_iteration


def test_iterations_find_the_largest_singular_value():
    kernel = tf.constant(np.random.default_rng(0).normal(size=(3, 3, 4, 5)))
    u = tf.ones([1, 5], tf.float64)
    for _ in range(200):
        sigma, u = power_iteration(kernel, u)
    expected = np.linalg.svd(np.reshape(kernel, (-1, 5)), compute_uv=False)[0]
    np.testing.assert_allclose(sigma, expected, rtol=1e-10)


def test_the_gradient_passes_through_the_vectors():
    rng = np.random.default_rng(1)
    kernel, u = rng.normal(size=(6, 3)), tf.constant(rng.normal(size=(1, 3)))

    def sigma(value):
        return power_iteration(tf.convert_to_tensor(value), u)[0]

    variable = tf.Variable(kernel)
    with tf.GradientTape() as tape:
        value = sigma(variable)
    gradient = tape.gradient(value, variable).numpy()
    moved = kernel.copy()
    moved[2, 1] += 1e-6
    np.testing.assert_allclose((sigma(moved) - sigma(kernel)) / 1e-6, gradient[2, 1], rtol=1e-4)


def test_a_forward_pass_leaves_the_stored_vector():
    layer = SpectralKernel((4, 3), "dense")
    before = np.asarray(layer.u)
    kernel, advanced = layer.normalized()
    np.testing.assert_array_equal(np.asarray(layer.u), before)
    assert np.abs(np.asarray(advanced) - before).max() > 0
    assert kernel.shape == (4, 3)


def test_a_value_read_before_an_assignment_stays():
    layer = SpectralKernel((4, 3), "dense")
    value = value_of(layer.u)
    before = value.numpy()
    layer.u.assign(layer.u + 1.0)
    np.testing.assert_array_equal(value, before)
