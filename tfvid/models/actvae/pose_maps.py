"""Poses as pictures: Gaussian maps for the networks, coloured views for people.

Poses are [..., J, 2], (x, y) in [-1, 1); see `tfvid.data.penn` for the scale.
"""

import numpy as np
from keras import ops

# Width of a joint's bump: exp(-(SHARPNESS * distance)^2), distance in units of half the image.
SHARPNESS = 14.3


def pose_maps(poses, height, width):
    """One Gaussian bump for each joint.

    The grid includes both ends while coordinates were divided by the size, so that a
    point lies up to one pixel off at the far border; trained weights expect it so.

    Args:
      poses: [N, J, 2].
      height, width: size of the maps.

    Returns:
      [N, height, width, J] in [0, 1].
    """
    rows = _bumps(poses[..., 1], height)  # [N, height, J]
    columns = _bumps(poses[..., 0], width)  # [N, width, J]
    return rows[:, :, None] * columns[:, None]


def _bumps(centres, size):
    grid = ops.linspace(-1.0, 1.0, size, dtype=centres.dtype)
    return ops.exp(-ops.square(SHARPNESS * (grid[None, :, None] - centres[:, None])))


def coloured_view(poses, colours, height, width):
    """Joints as coloured bumps on black.

    Args:
      poses: [..., J, 2].
      colours: [J, 3] in [0, 1].

    Returns:
      [..., height, width, 3] in [0, 1]: at each pixel and channel the brightest joint.
    """
    joints = poses.shape[-2]
    lead = ops.shape(poses)[:-2]
    maps = pose_maps(ops.reshape(poses, (-1, joints, 2)), height, width)
    colours = ops.cast(colours, maps.dtype)
    view = maps[..., 0:1] * colours[0]
    for k in range(1, joints):
        view = ops.maximum(view, maps[..., k : k + 1] * colours[k])
    return ops.reshape(view, (*lead, height, width, 3))


def pastel_colours(count, seed=0):
    """[count, 3] pastel colours in (0, 1), each far from those before it."""
    random = np.random.default_rng(seed)

    def draw(n):
        return (random.uniform(size=(n, 3)) + 0.9) / 1.9

    colours = draw(1)
    while len(colours) < count:
        candidates = draw(100)
        distance = np.abs(candidates[:, None] - colours[None]).sum(-1).min(1)
        colours = np.concatenate([colours, candidates[[distance.argmax()]]])
    return colours.astype(np.float32)
