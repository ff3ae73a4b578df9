"""Frame metrics: pure functions of images in [0, 1], one value for each frame.

Every function takes `predicted` and `truth` of the same shape [..., H, W, C] and float
type and returns [...]: leading axes (sample, batch, time) are kept, whatever they are.
"""

import math

import numpy as np
from keras import ops


def mse(predicted, truth):
    """Mean squared error of each frame; 0 is best."""
    return ops.mean(ops.square(predicted - truth), axis=(-3, -2, -1))


def psnr(predicted, truth, floor=0.0, epsilon=0.0):
    """Peak signal-to-noise ratio in decibels for the peak 1: -10 log10(mse); larger is better.

    Args:
      floor: smallest mean squared error counted. 0: identical frames give infinity, as
        `tf.image.psnr`; 1e-10: they give 100 dB.
      epsilon: added to the mean squared error (1e-8 in Playable Video Generation's evaluation).
    """
    error = ops.maximum(mse(predicted, truth), floor) + epsilon
    return -10 / math.log(10) * ops.log(error)


def ssim(predicted, truth, downsample=False):
    """Structural similarity as `tf.image.ssim` and piq compute it; in [-1, 1], larger is better.

    Gaussian window of 11x11 pixels with deviation 1.5, only where it fits (VALID), K1 =
    0.01, K2 = 0.03, data range 1, population covariance; mean over positions and channels.

    Args:
      downsample: first average-pool by round(min(H, W) / 256) where that is above 1, as
        piq does and Playable Video Generation's evaluation with it; nothing changes below
        384 pixels.

    Raises:
      ValueError: a side is shorter than the window.
    """
    if downsample:
        predicted, truth = _downsampled(predicted), _downsampled(truth)
    return _windowed_ssim(predicted, truth, gaussian_window(11, 1.5), sample_covariance=False)


def ssim_uniform(predicted, truth):
    """Structural similarity with scikit-image's defaults; in [-1, 1], larger is better.

    `skimage.metrics.structural_similarity(data_range=1, channel_axis=-1)`: uniform window
    of 7x7, sample covariance, borders of 3 pixels left out. Papers that used scikit-image
    report this variant; its values are not comparable with those of `ssim`.
    """
    return _windowed_ssim(predicted, truth, np.full(7, 1 / 7), sample_covariance=True)


def gaussian_window(size, sigma):
    """Weights of a Gaussian at integer offsets from the centre, normalised; [size] float64."""
    offsets = np.arange(size) - (size - 1) / 2
    weights = np.exp(-0.5 * np.square(offsets / sigma))
    return weights / weights.sum()


def _windowed_ssim(predicted, truth, window, sample_covariance):
    height, width = truth.shape[-3], truth.shape[-2]
    if min(height, width) < len(window):
        raise ValueError(f"SSIM expects sides of at least {len(window)} pixels. Received: {height}x{width}")
    dtype = truth.dtype
    down = ops.convert_to_tensor(_band_matrix(height, window), dtype)  # [h, H]
    across = ops.convert_to_tensor(_band_matrix(width, window).T, dtype)  # [W, w]

    def local_mean(x):  # [..., C, H, W] -> [..., C, h, w]
        # Two products with band matrices: exact, and much faster than a convolution of one channel.
        return ops.matmul(ops.matmul(down, x), across)

    x, y = ops.moveaxis(predicted, -1, -3), ops.moveaxis(truth, -1, -3)  # [..., C, H, W]
    mean_x, mean_y = local_mean(x), local_mean(y)
    product, squares = mean_x * mean_y, ops.square(mean_x) + ops.square(mean_y)
    size = len(window) ** 2
    factor = size / (size - 1) if sample_covariance else 1.0
    covariance = factor * (local_mean(x * y) - product)
    variances = factor * (local_mean(ops.square(x) + ops.square(y)) - squares)
    c1, c2 = 0.01**2, 0.03**2
    similarity = (2 * product + c1) * (2 * covariance + c2) / ((squares + c1) * (variances + c2))
    return ops.mean(similarity, axis=(-3, -2, -1))


def _band_matrix(size, window):
    """[size - len(window) + 1, size]: row i holds the window from column i on."""
    rows = size - len(window) + 1
    matrix = np.zeros((rows, size))
    for i in range(rows):
        matrix[i, i : i + len(window)] = window
    return matrix


def _downsampled(images):
    factor = round(min(images.shape[-3], images.shape[-2]) / 256)
    if factor <= 1:
        return images
    height, width = images.shape[-3] // factor, images.shape[-2] // factor
    leading, channels = ops.shape(images)[:-3], images.shape[-1]
    images = images[..., : height * factor, : width * factor, :]
    return ops.mean(ops.reshape(images, (*leading, height, factor, width, factor, channels)), axis=(-4, -2))


def motion_mask(truth):
    """Where the true clip moves: |x_t - x_{t-1}|, mean over channels; the first frame is 0.

    Args:
      truth: [..., T, H, W, C] in [0, 1].

    Returns:
      [..., T, H, W, 1] in [0, 1].
    """
    change = ops.mean(ops.abs(truth[..., 1:, :, :, :] - truth[..., :-1, :, :, :]), axis=-1, keepdims=True)
    return ops.concatenate([ops.zeros_like(truth[..., :1, :, :, :1]), change], axis=-4)


def masked_mse(predicted, truth, mask):
    """Mean over all elements of a frame of squared error times mask; 0 is best.

    With `motion_mask`: the motion-masked error of Playable Video Generation. The mean is
    over all pixels, not over those of the mask.
    """
    return ops.mean(ops.square(predicted - truth) * mask, axis=(-3, -2, -1))


def cosine_similarity(features, others, epsilon=1e-8):
    """Cosine between the flattened features of two frames, mean over the levels.

    Args:
      features, others: lists of [N, h, w, C], one for each level of a network.

    Returns:
      [N] in [-1, 1]; 1 is best.
    """
    values = []
    for a, b in zip(features, others, strict=True):
        dot = ops.sum(a * b, axis=(1, 2, 3))
        norms = ops.sqrt(ops.sum(ops.square(a), axis=(1, 2, 3)) * ops.sum(ops.square(b), axis=(1, 2, 3)))
        values.append(dot / ops.maximum(norms, epsilon))
    return sum(values) / len(values)
