"""Stick figures: stand-ins for frames where only poses are known.

They are real motion and synthetic pixels, and must be called so wherever results are shown.
"""

import colorsys

import cv2
import numpy as np

# Pairs of Penn Action's 13 joints; the neck is half-way between the shoulders.
LIMBS = ((1, 2), (1, 3), (3, 5), (2, 4), (4, 6), (1, 7), (2, 8), (7, 8), (7, 9), (9, 11), (8, 10), (10, 12))
HEAD, SHOULDERS = 0, (1, 2)
_SHIFT = 4  # fractional bits of OpenCV's coordinates


def background(size, rng):
    """uint8 [size, size, 3]: a smooth random picture, dull enough for limbs to stand out."""
    coarse = rng.uniform(60, 150, (4, 4, 3)).astype(np.float32)
    return cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC).clip(0, 255).astype(np.uint8)


def draw_figure(pose, canvas, coordinate_size=None):
    """Draws a pose over a copy of `canvas`.

    Args:
      pose: [13, 2] in network coordinates.
      canvas: uint8 [S, S, 3].
      coordinate_size: size of the square that the coordinates were divided by; default S.

    Returns:
      uint8 [S, S, 3].
    """
    size = canvas.shape[0]
    scale = size / (coordinate_size or size)
    points = (np.asarray(pose, np.float64) + 1) / 2 * (coordinate_size or size) * scale
    image = canvas.copy()
    thickness = max(1, round(size / 32))
    points = np.round(points * 2**_SHIFT).astype(int)
    for number, (a, b) in enumerate(LIMBS):
        _line(image, points[a], points[b], _colour(number), thickness)
    neck = (points[SHOULDERS[0]] + points[SHOULDERS[1]]) // 2
    _line(image, neck, points[HEAD], _colour(len(LIMBS)), thickness)
    radius = round(size / 18 * 2**_SHIFT)
    centre = tuple(int(v) for v in points[HEAD])
    cv2.circle(image, centre, radius, _colour(len(LIMBS) + 1), -1, cv2.LINE_AA, _SHIFT)
    return image


def draw_clip(poses, size, seed, coordinate_size=None):
    """uint8 [T, size, size, 3] of poses [T, 13, 2] over one background drawn from `seed`."""
    canvas = background(size, np.random.default_rng(seed))
    return np.stack([draw_figure(pose, canvas, coordinate_size) for pose in poses])


def _line(image, a, b, colour, thickness):
    cv2.line(image, tuple(map(int, a)), tuple(map(int, b)), colour, thickness, cv2.LINE_AA, _SHIFT)


def _colour(number):
    """Bright colours around the circle, one a limb."""
    rgb = colorsys.hsv_to_rgb(number / (len(LIMBS) + 2), 0.75, 1.0)
    return tuple(round(255 * v) for v in rgb)
