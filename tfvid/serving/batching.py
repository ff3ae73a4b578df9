"""Signatures for a server that joins requests into batches.

TensorFlow Serving joins along the first axis of every input and refuses inputs without
axes, so that each clip must bring a seed of its own. Its video then depends on its own
inputs and seed alone, whatever other requests are in the batch.
"""

import tensorflow as tf


def with_seed_for_each_clip(function):
    """A signature whose `seed` is int64 [B] instead of a scalar; one without a scalar `seed` stays as it is.

    Clips run as batches of one, side by side as far as TensorFlow's threads allow: each
    gives what the scalar form gives for it alone.

    Args:
      function: a concrete function with named inputs and a dictionary of outputs.

    Returns:
      A concrete function.
    """
    specs = {s.name: s for s in tf.nest.flatten(function.structured_input_signature)}
    if "seed" not in specs or specs["seed"].shape.rank != 0:
        return function
    keys = sorted(k for k in specs if k != "seed")
    clip = [tf.TensorSpec([None, *specs[k].shape[1:]], specs[k].dtype, name=k) for k in keys]

    @tf.function(input_signature=[*clip, tf.TensorSpec([None], tf.int64, name="seed")], autograph=False)
    def serve(*values):
        def one(elements):
            named = {k: v[None] for k, v in zip(keys, elements[:-1])}
            outputs = function(**named, seed=elements[-1])
            return {k: v[0] for k, v in outputs.items()}

        outputs = {k: tf.TensorSpec(s.shape[1:], s.dtype) for k, s in function.structured_outputs.items()}
        return tf.map_fn(one, values, fn_output_signature=outputs, parallel_iterations=16)

    return serve.get_concrete_function()
