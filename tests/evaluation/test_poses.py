"""Models that predict poses: their metrics, visible joints, pixels."""

import numpy as np
import pytest

from tfvid.evaluation import step_metrics


class Poses:
    """A model whose poses are in [-1, 1] of a frame of 128 pixels."""

    POSE_PIXELS = 64.0


def prepared_metrics(clip, context, names):
    metrics, skipped = step_metrics.build(names, step_metrics.options_for(Poses()))
    assert not skipped
    return {name: (m, m.prepared(clip, context)) for name, m in metrics.items()}


def test_errors_are_pixels_of_the_annotated_joints():
    truth = np.zeros((1, 3, 2, 2), "float32")
    predicted = np.zeros((1, 2, 2, 2), "float32")
    predicted[0, 0, 0] = [0.06, 0.08]  # 0.1 units: 6.4 pixels
    predicted[0, 1, 1] = [1.0, 0.0]  # hidden in the second step
    visible = np.array([[[1, 1], [1, 1], [1, 0]]], "float32")
    found = prepared_metrics(
        {"poses": truth, "pose_visible": visible}, 1, ["pose_error", "pck_05", "pck_10"]
    )
    error, prepared = found["pose_error"]
    np.testing.assert_allclose(error.compare(prepared, predicted), [[3.2, 0]], atol=1e-5)
    assert "pixels" in error.doc and not error.higher_is_better
    metric, prepared = found["pck_10"]
    np.testing.assert_allclose(metric.compare(prepared, predicted), [[1, 1]])
    predicted[0, 0, 0] *= 1.01  # just beyond 5 % of the side
    metric, prepared = found["pck_05"]
    np.testing.assert_allclose(metric.compare(prepared, predicted), [[0.5, 1]])


def test_without_annotation_flags_every_joint_counts():
    truth, predicted = np.zeros((1, 2, 4, 2), "float32"), np.full((1, 1, 4, 2), 0.3, "float32")
    metric, prepared = prepared_metrics({"poses": truth}, 1, ["pose_error"])["pose_error"]
    np.testing.assert_allclose(metric.compare(prepared, predicted), [[64 * 0.3 * np.sqrt(2)]], rtol=1e-6)


def test_defaults_follow_the_outputs():
    assert step_metrics.choose([], {"poses"}) == ["pose_error", "pck_05", "pck_10"]
    assert step_metrics.choose([], {"images"}) == ["psnr", "ssim", "mse", "lpips"]
    with pytest.raises(ValueError, match="box_iou compares boxes"):
        step_metrics.choose(["box_iou"], {"poses"})
