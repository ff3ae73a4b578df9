"""BatchNorm against its definition; PyTorch's own numbers are in the parity cases."""

import keras
import numpy as np
import pytest

from tfvid.layers.batch_norm import BatchNorm


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(2.0, 3.0, (3, 4, 5, 2))


def test_running_variance_is_unbiased(x):
    norm = BatchNorm(dtype="float64")
    y = norm(x, training=True)
    np.testing.assert_allclose(norm.running_mean, 0.1 * x.mean((0, 1, 2)))
    np.testing.assert_allclose(norm.running_variance, 0.9 + 0.1 * x.var((0, 1, 2), ddof=1))
    expected = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-5)
    np.testing.assert_allclose(y, expected, atol=1e-12)
    assert int(norm.num_batches_tracked) == 1


def test_evaluation_uses_running_statistics_and_leaves_them(x):
    norm = BatchNorm(dtype="float64")
    norm(x, training=True)
    mean, variance = norm.running_mean.numpy(), norm.running_variance.numpy()
    np.testing.assert_allclose(norm(x, training=False), (x - mean) / np.sqrt(variance + 1e-5), atol=1e-12)
    np.testing.assert_array_equal(norm.running_mean, mean)


def test_given_scale_and_shift_replace_the_learnt_ones(x):
    norm = BatchNorm(affine=False, dtype="float64")
    plain = norm(x, training=True)
    scale, shift = np.full((3, 1, 1, 2), 2.0), np.full((3, 1, 1, 2), 5.0)
    np.testing.assert_allclose(norm(x, training=True, scale=scale, shift=shift), 2 * np.array(plain) + 5, atol=1e-12)
    assert not norm.trainable_variables


def test_bfloat16_keeps_float32_statistics(x):
    norm = BatchNorm(dtype="mixed_bfloat16")
    y = norm(x.astype("float32"), training=True)
    assert keras.backend.standardize_dtype(y.dtype) == "bfloat16"
    np.testing.assert_allclose(norm.running_mean, 0.1 * x.mean((0, 1, 2)), rtol=2e-2)
    assert keras.backend.standardize_dtype(norm.running_mean.dtype) == "float32"


@pytest.mark.parametrize("affine", [True, False])
def test_the_fused_kernel_is_the_same_function(x, affine):
    import tensorflow as tf

    from tfvid.models.fused_norm import fused_batch_norm

    x = tf.constant(x, tf.float32)
    plain, fused = BatchNorm(affine=affine), BatchNorm(affine=affine)
    fused.fused = fused_batch_norm
    for training in (True, True, False):
        results = []
        for norm in (plain, fused):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = norm(x, training=training)
                total = tf.reduce_sum(y * tf.sin(x))
            results.append((y, tape.gradient(total, x)))
        for a, b in zip(*results):
            np.testing.assert_allclose(a, b, atol=2e-5)
    for a, b in zip(plain.weights, fused.weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
    assert fused_batch_norm(tf.cast(x, tf.float64), *[None] * 4, 1e-5, 0.1, True) is None


@pytest.mark.parametrize("fused", [True, False])
def test_several_updates_of_one_batch_are_that_many_calls(x, fused):
    from tfvid.models.fused_norm import fused_batch_norm

    x = x.astype("float32")
    once, twice = BatchNorm(), BatchNorm()
    if fused:
        once.fused = twice.fused = fused_batch_norm
    once(x, training=True)
    once(x, training=True)
    twice(x, training=True, updates=2)
    for a, b in zip(once.weights, twice.weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
