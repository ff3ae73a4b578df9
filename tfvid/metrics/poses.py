"""Metrics of poses: [..., J, 2] joint positions (x, y), in any unit; a factor makes them pixels."""

from keras import ops


def joint_errors(predicted, truth, scale=1.0):
    """Euclidean distance of each joint times `scale`; [..., J, 2] -> [..., J]."""
    return scale * ops.sqrt(ops.sum(ops.square(predicted - truth), axis=-1))


def mean_joint_error(predicted, truth, visible=None, scale=1.0):
    """Mean distance over the annotated joints; 0 is best. [..., J, 2] -> [...].

    Args:
      visible: [..., J], 1 where the true joint is annotated; None: all are.
      scale: pixels for each unit of the poses.
    """
    return _mean(joint_errors(predicted, truth, scale), visible)


def correct_keypoints(predicted, truth, threshold, visible=None, scale=1.0):
    """Share of annotated joints nearer than `threshold` (after `scale`); in [0, 1]."""
    errors = joint_errors(predicted, truth, scale)
    return _mean(ops.cast(errors < threshold, errors.dtype), visible)


def average_pairwise_distance(poses):
    """Mean L2 distance between all pairs of samples: the diversity of a stochastic pose model.

    Args:
      poses: [S, B, T, J, 2]; a sample is one vector of T * J * 2 numbers.

    Returns:
      [B] in the unit of the poses; 0 for one sample.
    """
    samples, batch = poses.shape[0], ops.shape(poses)[1]
    flat = ops.reshape(poses, (samples, batch, -1))
    total = ops.zeros_like(flat[0, :, 0])
    for i in range(samples - 1):
        total += ops.sum(ops.sqrt(ops.sum(ops.square(flat[i + 1 :] - flat[i]), axis=-1)), axis=0)
    return total / max(samples * (samples - 1) / 2, 1)


def _mean(values, visible):
    if visible is None:
        return ops.mean(values, axis=-1)
    visible = ops.cast(visible, values.dtype)
    return ops.sum(values * visible, axis=-1) / ops.sum(visible, axis=-1)
