"""Colour jitter of CLEVRER's training clips, step by step from uint8 to uint8 as the original's.

All arithmetic is float32: results are truncated to whole numbers after each step.
"""

from keras import ops

GREY = (0.2989, 0.587, 0.114)


def colour_jitter(images, u):
    """Changes brightness, contrast, saturation and hue, the same way in all frames of a clip.

    Args:
      images: [B, T, H, W, 3] whole numbers 0..255 as float32.
      u: [B, 4] uniform in [0, 1): brightness, contrast and saturation change by up to 10 %,
        the hue by up to a quarter of the circle.

    Returns:
      The same shape and type, whole numbers 0..255.
    """
    u = ops.cast(u, images.dtype)[:, :, None, None, None, None]  # one number for each clip
    images = blend(images, ops.zeros_like(images), 1 + (u[:, 0] - 0.5) / 5)
    mean = ops.mean(grey(images), axis=(2, 3, 4), keepdims=True)
    images = blend(images, mean, 1 + (u[:, 1] - 0.5) / 5)
    images = blend(images, grey(images), 1 + (u[:, 2] - 0.5) / 5)
    return shift_hue(images, (u[:, 3] - 0.5) / 2)


def grey(images):
    """[..., 3] -> [..., 1], truncated."""
    weighted = [images[..., i : i + 1] * weight for i, weight in enumerate(GREY)]
    return ops.floor(weighted[0] + weighted[1] + weighted[2])


def blend(images, other, factor):
    """factor * images + (1 - factor) * other, clipped and truncated."""
    return ops.floor(ops.clip(factor * images + (1 - factor) * other, 0, 255))


def shift_hue(images, amount):
    """The images with their hue (0..1 round the circle) moved by `amount`."""
    hue, saturation, value = _to_hsv(images / 255)
    hue = ops.mod(hue + amount, 1.0)
    sector = ops.floor(hue * 6)
    rest = hue * 6 - sector
    p, q, t = (ops.clip(value * x, 0, 1) for x in (1 - saturation, 1 - saturation * rest, 1 - saturation * (1 - rest)))
    sector = ops.mod(sector, 6.0)
    # Red, green and blue in each sixth of the circle.
    orders = ((value, t, p), (q, value, p), (p, value, t), (p, q, value), (t, p, value), (value, p, q))
    channels = []
    for channel in range(3):
        result = orders[0][channel]
        for i in range(1, 6):
            result = ops.where(sector == i, orders[i][channel], result)
        channels.append(result)
    return ops.floor(ops.concatenate(channels, axis=-1) * (256 - 0.001))


def _to_hsv(images):
    red, green, blue = (images[..., i : i + 1] for i in range(3))
    high, low = ops.max(images, axis=-1, keepdims=True), ops.min(images, axis=-1, keepdims=True)
    is_grey, spread = high == low, high - low
    saturation = spread / ops.where(is_grey, ops.ones_like(high), high)
    divisor = ops.where(is_grey, ops.ones_like(high), spread)
    r, g, b = ((high - c) / divisor for c in (red, green, blue))
    hue = ops.where(high == red, b - g, ops.where(high == green, 2 + r - b, 4 + g - r))
    return ops.mod(hue / 6 + 1, 1.0), saturation, high
