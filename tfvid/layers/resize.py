"""Bilinear resizing that keeps the float type (`keras.ops.image.resize` returns float32).

Images are [N, H, W, C].
"""

import math

import keras
from keras import ops


def upsample2(x):
    """Bilinear x2 with half-pixel centres: each output is 3/4 of its pixel and 1/4 of the next; edges repeat.

    Equals PyTorch's `interpolate(scale_factor=2, mode="bilinear", align_corners=False)`.
    """
    if keras.backend.standardize_dtype(x.dtype) != "float64":  # one kernel, ten times as fast
        return ops.image.resize(x, (2 * x.shape[1], 2 * x.shape[2]), "bilinear", data_format="channels_last")
    return _double(_double(x, 1), 2)


def _double(x, axis):
    size = x.shape[axis]
    before = ops.concatenate([ops.take(x, [0], axis=axis), _span(x, axis, 0, size - 1)], axis=axis)
    after = ops.concatenate([_span(x, axis, 1, size), ops.take(x, [size - 1], axis=axis)], axis=axis)
    pairs = ops.stack([0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after], axis=axis + 1)
    shape = list(ops.shape(x))
    shape[axis] = 2 * size
    return ops.reshape(pairs, shape)


def _span(x, axis, start, end):
    return x[:, start:end] if axis == 1 else x[:, :, start:end]


def reduce_bilinear(x, factor):
    """Bilinear reduction by a whole factor, half-pixel centres, no antialias.

    An even factor averages the central 2x2 of each block, an odd one takes its centre.
    """
    if factor == 1:
        return x
    height, width, channels = x.shape[1:]
    if height % factor or width % factor:
        return resize_bilinear(x, (height // factor, width // factor))
    blocks = ops.reshape(x, (-1, height // factor, factor, width // factor, factor, channels))
    low, high = (factor - 1) // 2, factor // 2
    rows = blocks[:, :, low] if low == high else (blocks[:, :, low] + blocks[:, :, high]) * 0.5
    columns = rows[:, :, :, low] if low == high else (rows[:, :, :, low] + rows[:, :, :, high]) * 0.5
    return columns


def resize_bilinear(x, size, align_corners=False):
    """Bilinear resize to (height, width) without antialias, as PyTorch's `interpolate`.

    Args:
      x: [N, H, W, C] with static H and W.
      size: (height, width) of the result.
      align_corners: True maps corner pixels onto each other; False has half-pixel
        centres (TensorFlow's `tf.image.resize`).
    """
    for axis, target in ((1, size[0]), (2, size[1])):
        if x.shape[axis] != target:
            x = _resize_axis(x, axis, x.shape[axis], target, align_corners)
    return x


def _resize_axis(x, axis, source, target, align_corners):
    low, high, weights = [], [], []
    for i in range(target):
        if align_corners:
            position = i * (source - 1) / (target - 1) if target > 1 else 0.0
        else:
            position = max((i + 0.5) * source / target - 0.5, 0.0)
        first = min(math.floor(position), source - 1)
        low.append(first)
        high.append(min(first + 1, source - 1))
        weights.append(position - first)
    shape = [1, 1, 1, 1]
    shape[axis] = target
    weight = ops.reshape(ops.convert_to_tensor(weights, dtype=x.dtype), shape)
    return ops.take(x, low, axis=axis) * (1 - weight) + ops.take(x, high, axis=axis) * weight
