"""Distances between predictions and truth: pure functions, means over everything."""

from keras import ops

from tfvid.layers.bound import wide


def mean_absolute(difference):
    """Mean of |x|. Its gradient is written down: that of a mean is a map of one number, which TensorFlow keeps for ever."""

    @ops.custom_gradient
    def mean(x):
        def gradient(*args, upstream=None):
            dy = args[0] if upstream is None else upstream
            return ops.sign(x) * (dy / ops.cast(ops.size(x), dy.dtype))

        return ops.mean(ops.abs(x)), gradient

    return mean(difference)


def l1_loss(prediction, target):
    """Mean absolute difference."""
    return mean_absolute(wide(target) - wide(prediction))


def l2_loss(prediction, target):
    """Mean squared difference."""
    return ops.mean(ops.square(wide(target) - wide(prediction)))


def charbonnier_loss(difference, epsilon=1e-6):
    """Mean of sqrt(x^2 + epsilon^2), a smooth absolute value."""
    return ops.mean(ops.sqrt(ops.square(wide(difference)) + epsilon**2))


def cosine_distance(prediction, target):
    """Half the mean squared distance of the two directions along the last axis.

    Each is divided by its norm plus 1e-10; the norm's gradient at 0 is taken as 0.
    """
    difference = _direction(wide(prediction)) - _direction(wide(target))
    return 0.5 * ops.mean(ops.sum(ops.square(difference), axis=-1))


def _direction(x):
    squared = ops.sum(ops.square(x), axis=-1, keepdims=True)
    # sqrt has no gradient at 0: a feature vector may be exactly 0 after a rectifier.
    norm = ops.where(squared > 0, ops.sqrt(ops.where(squared > 0, squared, 1.0)), 0.0)
    return x / (norm + 1e-10)


def total_variation(flows):
    """Mean over positions of the absolute differences of neighbours, summed over components.

    Args:
      flows: [..., H, W, 2, K].

    Returns:
      scalar: vertical plus horizontal part, each a mean over its own positions.
    """
    flows = wide(flows)
    vertical = ops.abs(flows[..., 1:, :, :, :] - flows[..., :-1, :, :, :])
    horizontal = ops.abs(flows[..., :, 1:, :, :] - flows[..., :, :-1, :, :])
    return sum(ops.mean(ops.sum(d, axis=(-2, -1))) for d in (vertical, horizontal))
