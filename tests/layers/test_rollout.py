"""Loops over time: unrolled and as a while loop, and batches of states."""

import numpy as np
import tensorflow as tf

from tfvid.layers.rollout import repeat_batch, rollout


def _step(carry, inputs):
    carry = {"x": carry["x"] * 0.5 + inputs["u"]}
    return {"y": carry["x"] * 2}, carry


def test_the_loop_equals_the_unrolled_steps():
    u = tf.constant(np.random.default_rng(0).normal(size=(6, 2, 3)))
    start = {"x": tf.zeros([2, 3], tf.float64)}
    unrolled, last = rollout(_step, start, {"u": u}, 6, unroll=True)

    @tf.function
    def looped():
        return rollout(_step, start, {"u": u}, 6, unroll=False)

    outputs, carry = looped()
    np.testing.assert_allclose(outputs["y"], unrolled["y"], rtol=1e-12)
    np.testing.assert_allclose(carry["x"], last["x"], rtol=1e-12)


def test_no_steps_leave_the_carry():
    outputs, carry = rollout(_step, {"x": tf.ones([1])}, {}, 0)
    assert outputs is None and float(carry["x"][0]) == 1


def test_repeating_keeps_none():
    repeated = repeat_batch({"a": tf.constant([[1.0], [2.0]]), "b": None}, 2)
    assert repeated["b"] is None
    np.testing.assert_array_equal(repeated["a"][:, 0], [1, 2, 1, 2])
