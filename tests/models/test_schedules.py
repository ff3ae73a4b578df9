"""Values that change with the step."""

import numpy as np
import tensorflow as tf

from tfvid.models.schedules import linear_ramp, piecewise


def test_linear_ramp_is_flat_outside_and_straight_inside():
    values = [float(linear_ramp(tf.constant(s, tf.int64), 10, 20)) for s in (0, 10, 11, 15, 20, 1000)]
    np.testing.assert_allclose(values, [0, 0, 0.1, 0.5, 1, 1], rtol=1e-6)
    assert linear_ramp(3, 0, 10, "float64").dtype == tf.float64


def test_linear_ramp_without_length_is_a_jump_at_its_start():
    assert [float(linear_ramp(s, 5, 5)) for s in (4, 5, 6)] == [0, 1, 1]


def test_piecewise_changes_after_each_boundary():
    values = [float(piecewise(tf.constant(s, tf.int64), [10, 20], 0.1)) for s in (0, 10, 11, 20, 21)]
    np.testing.assert_allclose(values, [1, 1, 0.1, 0.1, 0.01], rtol=1e-6)
    assert float(piecewise(5, [], 0.1)) == 1
