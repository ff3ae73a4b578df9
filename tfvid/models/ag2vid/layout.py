"""Layouts: boxes with vectors, rasterised or convolved without ever being rasterised.

A layout is a sum over objects of vector * ramp_y * ramp_x (Bar et al., "Compositional Video
Synthesis with Action Graphs", 2021; closed form of the original's rasterisation). The
masks are separable, so a convolution over a layout is three small contractions and the
[H, W, C] map, half of the original's work, is never made.
"""

import typing

from keras import ops


class Layout(typing.NamedTuple):
    """Vectors placed in an image; objects that are left out have ramps of zero.

    Attributes:
      vectors: [B, O, C].
      rows: [B, O, H], the weight of each row.
      columns: [B, O, W], the weight of each column.
    """

    vectors: typing.Any
    rows: typing.Any
    columns: typing.Any


def make_layout(vectors, boxes, present, height, width):
    """Places vectors at boxes.

    Args:
      vectors: [B, O, C].
      boxes: [B, O, 4], x0, y0, w, h in fractions of the image. A box that is all zero,
        or without width or height, contributes nothing (the original gives NaN for
        the latter).
      present: [B, O] boolean; objects to place.
      height, width: size in pixels.

    Each box has a soft border of 1/7 of its size; overlaps add up.
    """
    x0, y0, w, h = (boxes[..., i] for i in range(4))
    solid = ops.logical_and(ops.not_equal(w, 0), ops.not_equal(h, 0))
    used = ops.cast(ops.logical_and(solid, present), boxes.dtype)
    one = ops.ones_like(w)
    w, h = ops.where(solid, w, one), ops.where(solid, h, one)
    return Layout(vectors, _ramp(y0, h, height) * used[..., None], _ramp(x0, w, width) * used[..., None])


def _ramp(start, extent, size):
    """[B, O] -> [B, O, size]: 1 inside, falling to 0 over 1/7 of the extent outside."""
    position = ops.arange(size, dtype=start.dtype) / (size - 1)
    p = 7 * (position - start[..., None]) / extent[..., None]
    return ops.clip(ops.minimum(1 + p, 8 - p), 0, 1)


def concat_layouts(layouts):
    """Layouts behind each other along the batch axis."""
    return Layout(*(ops.concatenate(parts) for parts in zip(*layouts)))


def rasterize(layout):
    """[B, H, W, C]: the map that the layout stands for."""
    return ops.einsum("boy,box,boc->byxc", layout.rows, layout.columns, layout.vectors)


def halve_layout(layout):
    """The layout after 3x3 average pooling with stride 2 that does not count the padding: it stays separable."""
    return Layout(layout.vectors, _halve(layout.rows), _halve(layout.columns))


def _halve(ramp):
    total = ops.sum(_windows(ramp, 3, 2, 1), axis=-1)
    return total / ops.sum(_windows(ops.ones_like(ramp[:1, :1]), 3, 2, 1), axis=-1)


def convolve_sum(layouts, kernels, strides=1, padding=1):
    """Equals the sum of `conv(rasterize(layout), kernel)` over the layouts, with `padding` zeros on each side.

    All of them are one contraction: added map by map, TensorFlow would keep a map of zeros to add them in.

    Args:
      layouts: of equal size, each with vectors of its own number C of channels.
      kernels: one [k, k, C, F] for each layout.
      strides, padding: of the convolutions.

    Returns:
      [B, h, w, F].
    """
    size = kernels[0].shape[0]
    columns = _windows(ops.concatenate([x.columns for x in layouts], axis=1), size, strides, padding)  # [B, O, w, k]
    rows = _windows(ops.concatenate([x.rows for x in layouts], axis=1), size, strides, padding)  # [B, O, h, k]
    placed = [ops.einsum("boc,ijcf->boijf", x.vectors, kernel) for x, kernel in zip(layouts, kernels)]
    across = ops.einsum("boxj,boijf->boixf", columns, ops.concatenate(placed, axis=1))  # [B, O, k, w, F]
    return ops.einsum("boyi,boixf->byxf", rows, across)


def _windows(ramp, size, strides, padding):
    """[B, O, S] -> [B, O, s, size]: what each kernel tap sees along one axis."""
    padded = ops.pad(ramp, ((0, 0), (0, 0), (padding, padding)))
    count = (padded.shape[-1] - size) // strides + 1
    taps = [padded[..., i : i + strides * (count - 1) + 1 : strides] for i in range(size)]
    return ops.stack(taps, axis=-1)
