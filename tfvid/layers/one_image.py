"""Convolutions of a batch of one, where oneDNN runs on a processor without AVX-512.

There it convolves a single image by way of the patches of all of it: at a half to a quarter of its speed and in the
memory of as many maps as the kernel has taps. The same image in two strips of rows, a batch of two, it convolves
directly. Gradients do not gain and are the plain convolution's. Rounding aside nothing changes.
"""

import functools
import math
import os

import keras
from keras import ops

from tfvid.layers import xla
from tfvid.layers.xla import tf

# Of the convolution: fewer take no longer than cutting the image.
LEAST_MULTIPLY_ADDS = 5 * 10**6


def conv2d(x, kernel, strides=1, padding="same"):
    """A convolution, in strips where that pays.

    Args:
      x: [N, H, W, in].
      kernel: [kh, kw, in, out].
      strides: of both axes.
      padding: "same" or "valid".

    Returns:
      [N, h, w, out].
    """
    if pays(x, kernel, strides, padding) and by_patches():
        return convolve(x, kernel, strides, padding)
    return ops.conv(x, kernel, strides=strides, padding=padding, data_format="channels_last")


def pays(x, kernel, strides, padding):
    """Whether it is one float32 image, of a known size, with an even number of rows of results and enough to compute."""
    if x.shape[0] != 1 or None in x.shape or min(kernel.shape[:2]) == 1:
        return False
    if {keras.backend.standardize_dtype(v.dtype) for v in (x, kernel)} != {"float32"}:
        return False
    height, width = (_along(*axis, strides, padding)[0] for axis in zip(x.shape[1:3], kernel.shape))
    enough = height * width * math.prod(kernel.shape) >= LEAST_MULTIPLY_ADDS
    return enough and height % 2 == 0 and 2 * kernel.shape[0] <= x.shape[1]


@functools.cache
def by_patches():
    """Whether convolutions are oneDNN's, on the one CPU there is, and that is of the kind above."""
    if os.environ.get("TF_ENABLE_ONEDNN_OPTS") != "1" or not xla.on_cpu() or not os.path.exists("/proc/cpuinfo"):
        return False
    with open("/proc/cpuinfo") as f:
        known = next((line for line in f if line.startswith("flags")), "").split()
    return "avx2" in known and "avx512f" not in known


def convolve(x, kernel, strides=1, padding="same"):
    """The method itself; `pays` says what it takes."""
    height, width = x.shape[1:3]
    rows, above, below = _along(height, kernel.shape[0], strides, padding)
    columns, left, right = _along(width, kernel.shape[1], strides, padding)
    down = rows // 2 * strides  # from the first row that a strip depends on to the other strip's
    tall = down - strides + kernel.shape[0]
    options = {"strides": [1, strides, strides, 1], "padding": padding.upper()}

    @tf.custom_gradient
    def run(x, kernel):
        first, second = x[:, : tall - above], x[:, down - above : down - above + tall]
        strips = [_zeros(above, x), first, second, _zeros(below, x)]
        strips = tf.reshape(tf.concat([s for s in strips if s is not None], 1), [2, tall, *x.shape[2:]])
        y = tf.nn.conv2d(strips, kernel, strides, [[0, 0], [0, 0], [left, right], [0, 0]])

        def gradient(dy):
            of_x = tf.raw_ops.Conv2DBackpropInput(input_sizes=x.shape, filter=kernel, out_backprop=dy, **options)
            of_kernel = tf.raw_ops.Conv2DBackpropFilter(
                input=x, filter_sizes=kernel.shape, out_backprop=dy, **options
            )
            return of_x, of_kernel

        return tf.reshape(y, [1, rows, columns, kernel.shape[-1]]), gradient

    return run(tf.convert_to_tensor(x), tf.convert_to_tensor(kernel))


def _along(size, taps, stride, padding):
    """(results, zeros before, zeros behind) of one axis."""
    if padding == "valid":
        return (size - taps) // stride + 1, 0, 0
    count = -(-size // stride)
    zeros = max((count - 1) * stride + taps - size, 0)
    return count, zeros // 2, zeros - zeros // 2


def _zeros(rows, like):
    return tf.zeros([1, rows, *like.shape[2:]], like.dtype) if rows else None
