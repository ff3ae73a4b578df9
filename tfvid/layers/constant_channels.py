"""Vectors as constant channels of a map, and what a convolution makes of them."""

import numpy as np
from keras import ops


def tile(vector, like):
    """[B, S] -> [B, H, W, S] with the height and width of `like`."""
    shape = ops.shape(like)
    return ops.broadcast_to(vector[:, None, None, :], (shape[0], shape[1], shape[2], vector.shape[-1]))


def conv_constant(vector, kernel, size, outputs, stride=1, border=None):
    """What a zero-padded convolution makes of constant channels, without making them: two matrix products.

    A tap of the kernel adds the same to every pixel of the result from which it reaches the map.

    Args:
      vector: [B, S].
      kernel: [kh, kw, S, out].
      size: (H, W) of the map that the channels would fill.
      outputs: (H', W') of the result.
      stride: of the convolution.
      border: zeros above and left of the map; None: as TensorFlow's "same" padding has them.

    Returns:
      [B, H', W', out].
    """
    kh, kw, channels, width = kernel.shape
    rows, columns = (_reach(n, m, k, stride, border) for n, m, k in zip(size, outputs, (kh, kw)))
    reach = np.einsum("hi,wj->hwij", rows, columns).reshape(-1, kh * kw)
    kernel = ops.reshape(ops.transpose(kernel, (2, 0, 1, 3)), (channels, kh * kw * width))
    of_taps = ops.reshape(ops.matmul(vector, kernel), (-1, kh * kw, width))
    of_pixels = ops.matmul(ops.cast(ops.convert_to_tensor(reach), of_taps.dtype), of_taps)
    return ops.reshape(of_pixels, (-1, *outputs, width))


def _reach(size, outputs, taps, stride, border):
    """[outputs, taps] of ones and zeros: from where a tap reaches the map, along one axis."""
    if border is None:
        border = max((outputs - 1) * stride + taps - size, 0) // 2
    at = np.arange(outputs)[:, None] * stride + np.arange(taps) - border
    return ((at >= 0) & (at < size)).astype("float32")
