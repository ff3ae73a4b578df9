"""IoU of boxes against areas computed by hand."""

import numpy as np

from tfvid.metrics import boxes

TRUTH = np.array([[[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0], [0.2, 0.2, 0.2, 0.2]]], np.float32)  # the last: empty
# Half of the first; a quarter of the second, as much again outside of the image; something for the empty slot.
PREDICTED = np.array([[[0.0, 0.0, 0.5, 0.25], [0.75, 0.75, 1.5, 1.5], [0.0, 0.0, 1.0, 1.0]]], np.float32)


def test_iou_of_what_lies_in_the_image():
    np.testing.assert_allclose(boxes.iou(PREDICTED, TRUTH), [[0.5, 0.25, 0.0]], rtol=1e-6)


def test_empty_slots_do_not_count():
    np.testing.assert_allclose(boxes.mean_iou(PREDICTED, TRUTH), [(0.5 + 0.25) / 2], rtol=1e-6)
    np.testing.assert_allclose(boxes.iou_above(PREDICTED, TRUTH, 0.3), [0.5], rtol=1e-6)
    np.testing.assert_allclose(boxes.iou_above(PREDICTED, TRUTH, 0.2), [1.0], rtol=1e-6)
    assert np.isnan(boxes.mean_iou(PREDICTED[:, 2:], TRUTH[:, 2:])).all()
