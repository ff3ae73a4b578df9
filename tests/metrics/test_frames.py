"""Frame metrics against tf.image, scikit-image, closed forms."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfvid.metrics import frames


def pair(seed=0, shape=(2, 3, 24, 31, 3), dtype="float64"):
    rng = np.random.default_rng(seed)
    a = rng.uniform(size=shape)
    return a.astype(dtype), np.clip(a + 0.2 * rng.normal(size=shape), 0, 1).astype(dtype)


def test_psnr_and_mse_closed_form():
    truth = np.zeros((2, 4, 4, 1))
    predicted = truth + np.array([0.1, 0.5])[:, None, None, None]
    np.testing.assert_allclose(frames.mse(predicted, truth), [0.01, 0.25])
    np.testing.assert_allclose(frames.psnr(predicted, truth), [20.0, -10 * np.log10(0.25)])


def test_psnr_of_identical_frames():
    truth = np.zeros((1, 4, 4, 1))
    assert np.isposinf(frames.psnr(truth, truth)[0])
    np.testing.assert_allclose(frames.psnr(truth, truth, floor=1e-10), [100.0])


def test_psnr_and_ssim_equal_tensorflow():
    a, b = pair(dtype="float32")
    flat = [x.reshape(-1, *x.shape[2:]) for x in (a, b)]
    np.testing.assert_allclose(np.ravel(frames.psnr(a, b)), tf.image.psnr(*flat, 1.0), rtol=1e-5)
    np.testing.assert_allclose(np.ravel(frames.ssim(a, b)), tf.image.ssim(*flat, 1.0), rtol=2e-5)


def test_ssim_variants_equal_scikit_image():
    metrics = pytest.importorskip("skimage.metrics")
    a, b = pair(1, (3, 20, 27, 3))
    uniform = [metrics.structural_similarity(x, y, data_range=1, channel_axis=-1) for x, y in zip(a, b)]
    gaussian = [
        metrics.structural_similarity(
            x, y, data_range=1, channel_axis=-1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        for x, y in zip(a, b)
    ]
    np.testing.assert_allclose(frames.ssim_uniform(a, b), uniform, rtol=1e-10)
    np.testing.assert_allclose(frames.ssim(a, b), gaussian, rtol=1e-10)


def test_ssim_is_one_for_identical_frames_and_below_for_others():
    a, b = pair(2)
    np.testing.assert_allclose(frames.ssim(a, a), 1.0)
    assert np.all(np.asarray(frames.ssim(a, b)) < 0.99)


def test_ssim_refuses_frames_smaller_than_its_window():
    a = np.zeros((1, 10, 20, 1))
    with pytest.raises(ValueError, match="Received: 10x20"):
        frames.ssim(a, a)


def test_downsampling_starts_at_384_pixels():
    a, b = pair(3, (1, 383, 384, 1))
    np.testing.assert_array_equal(frames.ssim(a, b, downsample=True), frames.ssim(a, b))
    a, b = pair(3, (1, 385, 386, 1))
    halved = [x[:, :384].reshape(1, 192, 2, 193, 2, 1).mean((2, 4)) for x in (a, b)]
    np.testing.assert_allclose(frames.ssim(a, b, downsample=True), frames.ssim(*halved), rtol=1e-10)


def test_motion_mask_and_masked_mse():
    truth = np.zeros((1, 2, 4, 4, 3))
    truth[0, 1, 0, 0] = [0.3, 0.0, 0.0]
    mask = np.asarray(frames.motion_mask(truth))
    assert mask.shape == (1, 2, 4, 4, 1)
    np.testing.assert_allclose(mask[0, :, 0, 0, 0], [0, 0.1])
    assert mask.sum() == pytest.approx(0.1)
    value = frames.masked_mse(truth + 0.5, truth, mask)
    np.testing.assert_allclose(value, [[0, 0.25 * 0.1 / 16]])


def test_cosine_similarity():
    a = [np.ones((1, 2, 2, 1)), np.array([1.0, 0.0]).reshape(1, 1, 2, 1)]
    b = [2 * a[0], np.array([0.0, 3.0]).reshape(1, 1, 2, 1)]
    np.testing.assert_allclose(frames.cosine_similarity(a, b), [0.5])


def test_float_type_is_kept():
    a, b = pair(dtype="float32")
    for metric in (frames.mse, frames.psnr, frames.ssim, frames.ssim_uniform):
        for dtype in ("float32", "float64"):
            value = metric(tf.constant(a, dtype), tf.constant(b, dtype))
            assert keras.ops.convert_to_numpy(value).dtype == dtype
