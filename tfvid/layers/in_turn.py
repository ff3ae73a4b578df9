"""Parts of one graph that wait for each other where each takes much memory and fills all cores by itself."""

from tfvid.layers.xla import tf


def last_of(chain):
    """What the next part of a chain waits for: a list, which that part replaces by its own last tensor.

        last = last_of("slices")
        with tf.control_dependencies(last):
            result = ...
        last[:] = [result]

    Args:
      chain: its name. Each graph has its own, and each device in it: replicas do not wait for each other. In eager
        execution, which does one thing after another, the list is new and empty.
    """
    if tf.executing_eagerly():
        return []
    return tf.compat.v1.get_default_graph().get_collection_ref(f"tfvid_{chain}_{tf.no_op().device}")
