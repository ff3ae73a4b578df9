"""Metrics of bounding boxes (x0, y0, x1, y1), normalised to [0, 1]."""

from keras import ops


def iou(predicted, truth):
    """Intersection over union of each pair of boxes, in [0, 1]; 1 is best.

    Both are clamped to the image first. Two boxes without area have the value 0.

    Args:
      predicted, truth: [..., 4].

    Returns:
      [...].
    """
    a, b = ops.clip(predicted, 0, 1), ops.clip(truth, 0, 1)
    low = ops.maximum(a[..., :2], b[..., :2])
    high = ops.minimum(a[..., 2:], b[..., 2:])
    intersection = _area(ops.concatenate([low, high], axis=-1))
    union = _area(a) + _area(b) - intersection
    return ops.where(union > 0, intersection / ops.where(union > 0, union, ops.ones_like(union)), 0.0)


def mean_iou(predicted, truth):
    """Mean IoU over the object slots that hold a true box; [..., O, 4] -> [...].

    An empty slot is a box without area. Frames without any object give NaN, which the
    evaluation leaves out of its means.
    """
    return _mean_of_present(iou(predicted, truth), truth)


def iou_above(predicted, truth, limit):
    """Share of the object slots that hold a true box whose IoU is above `limit`; as `mean_iou`."""
    return _mean_of_present(ops.cast(iou(predicted, truth) > limit, truth.dtype), truth)


def _mean_of_present(values, truth):
    present = ops.cast(_area(truth) > 0, truth.dtype)
    return ops.sum(values * present, axis=-1) / ops.sum(present, axis=-1)


def _area(boxes):
    sides = ops.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    return sides[..., 0] * sides[..., 1]
