"""Bilinear sampling at given points, with the image's edge repeated outside it.

What `tfa.image.interpolate_bilinear` and `tfa.image.dense_image_warp` of
tensorflow-addons computed, in keras.ops and any float type.
"""

from keras import ops

from tfvid.layers.warps import flow_warp


def interpolate_bilinear(images, points):
    """Values of images at points.

    Args:
      images: [B, H, W, C].
      points: [B, N, 2], (y, x) in pixels; those outside are moved to the nearest edge.

    Returns:
      [B, N, C]; NaN where a point is.
    """
    height, width, channels = images.shape[1:]
    batch, count = ops.shape(images)[0], ops.shape(points)[1]
    y = ops.clip(points[..., 0], 0, height - 1)
    x = ops.clip(points[..., 1], 0, width - 1)
    top, left = ops.floor(y), ops.floor(x)
    wy, wx = (y - top)[..., None], (x - left)[..., None]
    # The points are within the image already, unless they are NaN, which is no index.
    top = ops.clip(ops.cast(top, "int32"), 0, height - 1)
    left = ops.clip(ops.cast(left, "int32"), 0, width - 1)
    flat = ops.reshape(images, (-1, channels))
    base = ops.reshape(ops.arange(batch, dtype="int32") * (height * width), (-1, 1))

    def corner(down, right):
        rows, columns = ops.minimum(top + down, height - 1), ops.minimum(left + right, width - 1)
        index = ops.reshape(base + rows * width + columns, (-1,))
        return ops.reshape(ops.take(flat, index, axis=0), (batch, count, channels))

    upper = corner(0, 0) * (1 - wx) + corner(0, 1) * wx
    lower = corner(1, 0) * (1 - wx) + corner(1, 1) * wx
    return upper * (1 - wy) + lower * wy


def dense_image_warp(images, flows):
    """Images sampled at (position - flow): where each pixel comes from.

    `flow_warp` is the same with the opposite sign, x before y, and several flows at once.

    Args:
      images: [B, H, W, C].
      flows: [B, H, W, 2], (dy, dx) in pixels.

    Returns:
      [B, H, W, C].
    """
    return flow_warp(images, -ops.flip(flows, axis=-1)[..., None])[:, :, :, 0]
