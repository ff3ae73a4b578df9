"""Crops and their inverses: scaling and shifting of images and feature grids (CAGE, section 3.3).

Coordinates are float32 in a fixed order of operations, whatever the precision of the rest:
nearest neighbours can lie on exact ties, and float64 would pick others.
"""

from keras import ops


def transform(images, window, size=None, inverse=False, nearest=False):
    """Samples images at scale * position + shift.

    Args:
      images: [N, H, W, C].
      window: [N, 4] scales (x, y) and shifts (x, y) in units of half the image.
      size: (height, width) of the result; default: that of `images`.
      inverse: apply the inverse transform.
      nearest: nearest neighbour (half to even) with zeros outside; otherwise bilinear
        with the border repeated.
    """
    height, width = images.shape[1:3]
    rows, columns = size or (height, width)
    window = ops.cast(window, "float32")
    scale, shift = window[:, :2], window[:, 2:]
    if inverse:
        scale, shift = 1 / (scale + 1e-9), -shift / (scale + 1e-9)
    x = _pixels(columns, width, scale[:, 0], shift[:, 0])  # [N, columns]
    y = _pixels(rows, height, scale[:, 1], shift[:, 1])  # [N, rows]
    return _nearest(images, y, x) if nearest else _bilinear(images, y, x)


def _pixels(count, size, scale, shift):
    positions = (2 * ops.arange(count, dtype="float32") + 1) / count - 1
    source = scale[:, None] * positions + shift[:, None]
    return ((source + 1) * size - 1) / 2


def _take(images, y, x):
    """images[n, y[n], x[n]] for row indices [N, h] and column indices [N, w]."""
    images = ops.take_along_axis(images, y[:, :, None, None], axis=1)
    return ops.take_along_axis(images, x[:, None, :, None], axis=2)


def _nearest(images, y, x):
    y, x = ops.round(y), ops.round(x)
    inside_y = ops.logical_and(y >= 0, y <= images.shape[1] - 1)
    inside_x = ops.logical_and(x >= 0, x <= images.shape[2] - 1)
    inside = ops.cast(ops.logical_and(inside_y[:, :, None], inside_x[:, None, :]), images.dtype)[..., None]
    y = ops.cast(ops.clip(y, 0, images.shape[1] - 1), "int32")
    x = ops.cast(ops.clip(x, 0, images.shape[2] - 1), "int32")
    return _take(images, y, x) * inside


def _bilinear(images, y, x):
    y = ops.clip(y, 0, images.shape[1] - 1)
    x = ops.clip(x, 0, images.shape[2] - 1)
    y0, x0 = ops.floor(y), ops.floor(x)
    wy = ops.cast(y - y0, images.dtype)[:, :, None, None]
    wx = ops.cast(x - x0, images.dtype)[:, None, :, None]
    y0, x0 = ops.cast(y0, "int32"), ops.cast(x0, "int32")
    y1, x1 = ops.minimum(y0 + 1, images.shape[1] - 1), ops.minimum(x0 + 1, images.shape[2] - 1)
    top = _take(images, y0, x0) * (1 - wx) + _take(images, y0, x1) * wx
    bottom = _take(images, y1, x0) * (1 - wx) + _take(images, y1, x1) * wx
    return top * (1 - wy) + bottom * wy
