"""Warps of images: convolution kernels per image (cdna) or per pixel (dna), and flow fields."""

import keras
import numpy as np
from keras import ops

from tfvid.layers import xla

# Of an image: fewer are not worth the second that XLA takes to compile a shape.
LEAST_PIXELS = 64 * 64


def identity_kernel(size):
    """[kh, kw] with 1 at the centre of an odd side, shared by the two middle taps of an even one."""

    def taps(k):
        line = np.zeros(k)
        line[(k - 1) // 2 : k // 2 + 1] = 1
        return line / line.sum()

    return np.outer(taps(size[0]), taps(size[1]))


def normalize_kernels(kernels, axes):
    """Positive kernels of sum 1: (relu(k - 1e-12) + 1e-12) / sum over `axes`."""
    kernels = ops.relu(kernels - 1e-12) + 1e-12
    return kernels / ops.sum(kernels, axis=axes, keepdims=True)


def pad_for_kernel(images, size, rate=(1, 1), mode="symmetric"):
    """Pads for a kernel of `size`, the smaller half on top and left: mirrored edges, or zeros ("constant")."""
    pads = [(0, 0)]
    for k, r in zip(size, rate):
        total = (k - 1) * r
        pads.append((total // 2, total - total // 2))
    return ops.pad(images, (*pads, (0, 0)), mode=mode)


def patches(images, size, rate=(1, 1), mode="symmetric"):
    """The images shifted under each tap of a kernel: [B, kh, kw, H, W, C]."""
    height, width = images.shape[1], images.shape[2]
    padded = pad_for_kernel(images, size, rate, mode)
    # Rows first, then columns: kh + kw slices in place of kh * kw.
    rows = ops.stack([padded[:, i * rate[0] : i * rate[0] + height] for i in range(size[0])], axis=1)
    return ops.stack([rows[:, :, :, j * rate[1] : j * rate[1] + width] for j in range(size[1])], axis=2)


def _compiled(warp, images, *tensors, **options):
    """Calls the warp; in the graph of a large image XLA compiles it and its gradient, which then take a fifth of the time."""
    height, width = images.shape[1:3]
    pays = height and width and height * width >= LEAST_PIXELS
    if pays and xla.allowed(images.dtype) and not xla.tf.executing_eagerly():
        return xla.compiled_with_gradient(warp, images, *tensors, **options)
    return warp(images, *tensors, **options)


def cdna_warp(images, kernels, rate=(1, 1), mode="symmetric"):
    """Correlates each image with kernels of its own, shared by its channels.

    Args:
      images: [B, H, W, C].
      kernels: [B, kh, kw, N].
      rate: dilation (rows, columns).
      mode: what lies outside the image, see `pad_for_kernel`.

    Returns:
      [B, H, W, N, C].
    """
    return _compiled(_cdna_warp, images, kernels, rate=rate, mode=mode)


def _cdna_warp(images, kernels, rate, mode):
    batch, height, width, channels = ops.shape(images)
    kh, kw, n = kernels.shape[1:]
    taps = ops.reshape(patches(images, (kh, kw), rate, mode), (batch, kh * kw, height * width * channels))
    warped = ops.matmul(ops.transpose(ops.reshape(kernels, (batch, kh * kw, n)), (0, 2, 1)), taps)
    return ops.transpose(ops.reshape(warped, (batch, n, height, width, channels)), (0, 2, 3, 1, 4))


def dna_warp(images, kernels, rate=(1, 1), mode="symmetric"):
    """Correlates every pixel with kernels of its own.

    Args:
      images: [B, H, W, C].
      kernels: [B, H, W, kh, kw, N].
      rate: dilation (rows, columns).
      mode: what lies outside the image, see `pad_for_kernel`.

    Returns:
      [B, H, W, N, C].
    """
    kh, kw = kernels.shape[3:5]
    total = None
    taps = patches(images, (kh, kw), rate, mode)
    for i in range(kh):
        for j in range(kw):
            term = kernels[:, :, :, i, j, :, None] * taps[:, i, j, :, :, None, :]
            total = term if total is None else total + term
    return total


def flow_warp(images, flows):
    """Samples images at (x + flow_x, y + flow_y), bilinearly.

    The corners floor(f) and floor(f) + 1 are clamped to the image each by itself; the
    weights are those of the unclamped position.

    Args:
      images: [B, H, W, C].
      flows: [B, H, W, 2, K], x before y, in pixels.

    Returns:
      [B, H, W, K, C].
    """
    return _compiled(_flow_warp, images, flows)


def _flow_warp(images, flows):
    height, width, channels = images.shape[1:]
    batch, k = ops.shape(images)[0], flows.shape[-1]
    # Plain offsets from the pixel lose nothing; absolute positions would lose a few bits.
    dx, dy = flows[:, :, :, 0, :], flows[:, :, :, 1, :]  # [B, H, W, K]
    x0, y0 = ops.floor(dx), ops.floor(dy)
    wx, wy = (dx - x0)[..., None], (dy - y0)[..., None]
    columns = ops.cast(x0, "int32") + ops.arange(width, dtype="int32")[None, None, :, None]
    rows = ops.cast(y0, "int32") + ops.arange(height, dtype="int32")[None, :, None, None]
    flat = ops.reshape(images, (-1, channels))
    base = ops.reshape(ops.arange(batch, dtype="int32") * (height * width), (-1, 1, 1, 1))

    def corner(down, right):
        y, x = ops.clip(rows + down, 0, height - 1), ops.clip(columns + right, 0, width - 1)
        index = ops.reshape(base + y * width + x, (-1,))
        return ops.reshape(ops.take(flat, index, axis=0), (batch, height, width, k, channels))

    top = corner(0, 0) * (1 - wx) + corner(0, 1) * wx
    bottom = corner(1, 0) * (1 - wx) + corner(1, 1) * wx
    return top * (1 - wy) + bottom * wy


def flow_to_rgb(flows, axes=None):
    """Colours of a flow: hue = direction, value = magnitude scaled to [0, 1].

    Args:
      flows: [..., 2], x before y.
      axes: over which the smallest and largest magnitude are taken; None: all.

    Returns:
      [..., 3] in [0, 1].
    """
    x, y = flows[..., 0], flows[..., 1]
    hue = (ops.arctan2(y, x) + np.pi) / (2 * np.pi)
    magnitude = ops.sqrt(x * x + y * y)
    low, high = ops.min(magnitude, axis=axes, keepdims=True), ops.max(magnitude, axis=axes, keepdims=True)
    value = (magnitude - low) / ops.maximum(high - low, keras.config.epsilon())
    # Hue to RGB at full saturation: each channel is a trapezoid of the hue's angle.
    angle = hue * 6
    red = ops.clip(ops.abs(angle - 3) - 1, 0, 1)
    green = ops.clip(2 - ops.abs(angle - 2), 0, 1)
    blue = ops.clip(2 - ops.abs(angle - 4), 0, 1)
    return ops.stack([red, green, blue], axis=-1) * value[..., None]
