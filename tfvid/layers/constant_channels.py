"""Vectors as constant channels of a map, and what a convolution makes of them."""

from keras import ops


def tile(vector, like):
    """[B, S] -> [B, H, W, S] with the height and width of `like`."""
    shape = ops.shape(like)
    return ops.broadcast_to(vector[:, None, None, :], (shape[0], shape[1], shape[2], vector.shape[-1]))
