"""Values that change with the training step: pure functions of a step tensor."""

import tensorflow as tf


def linear_ramp(step, start, end, dtype="float32"):
    """clip((step - start) / (end - start), 0, 1); a jump at `start` where both are equal."""
    step = tf.cast(step, dtype)
    if start == end:
        return tf.cast(step >= tf.cast(start, dtype), dtype)
    return tf.clip_by_value((step - start) / (end - start), 0.0, 1.0)


def piecewise(step, boundaries, factor, dtype="float32"):
    """factor ** (number of boundaries that `step` has passed); at a boundary still the old value."""
    passed = tf.reduce_sum(tf.cast(tf.cast(step, "int64") > tf.constant(boundaries, "int64"), dtype))
    return tf.pow(tf.constant(factor, dtype), passed)  # a cast would round the number to float32 first
