"""The body of an unrolled loop as one function of the graph."""

from tfvid.layers.xla import tf


def shared_function(step):
    """`step` as a tf.function that stays a function in the graph.

    An unrolled loop calls it at every time step. It is traced and differentiated once, and
    TensorFlow optimises the one function, not a copy for each call: the first training step
    of a recurrent model takes half the time, and the others as long as before.

    Args:
      step: function from nested structures of tensors to such; it changes no variable.
        In eager execution it stays as it is.
    """
    if tf.executing_eagerly():
        return step
    return tf.function(step, autograph=False, experimental_attributes={"_noinline": True})
