"""Activations that are made again for the gradient instead of being kept for it."""

import keras
import tensorflow as tf

from tfvid.layers.shared_function import shared_function


def recomputed(function, layers, inputs, constants=(), calls=1, parts=1):
    """`function(inputs, constants, calls)` in training, of which only what goes in is kept for the gradient.

    For the gradient everything is computed a second time, with the values that the
    variables of the layers had, and theirs are updated once only (Chen et al., "Training
    Deep Nets with Sublinear Memory Cost", 2016). Both passes are functions of the graph:
    the second can neither start before the gradient of the result is there nor be merged
    with the first.

    Where several replicas train at once nothing is recomputed: what synchronises them
    (statistics of the global batch) may not be in such a function.

    Args:
      function: from structures of tensors, and how many calls of the layers they are for,
        to one tensor. It reads no variable but those of `layers` and, beside `inputs`, no
        tensor with a gradient.
      layers: built Keras layers, whose variables it reads and may assign.
      inputs: structure of tensors [calls * N, ...] with gradients.
      constants: the same without gradients.
      calls: how many calls lie behind each other along the batch axis.
      parts: a divisor of `calls`: in how many equal parts they are computed, one after
        another in both passes, so that the activations of one part are there at a time.

    Returns:
      the results of all calls behind each other along the batch axis.
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync > 1:
        return function(inputs, constants, calls)

    def split(structure):
        pieces = [tf.split(x, parts) for x in tf.nest.flatten(structure)]
        return [tf.nest.pack_sequence_as(structure, [x[i] for x in pieces]) for i in range(parts)]

    trained = [v for layer in layers for v in layer.trainable_variables]
    others = [v for layer in layers for v in layer.non_trainable_variables]

    def run(inputs, constants, values, states):
        mapping = [*zip(trained, values), *zip(others, states)]
        with keras.StatelessScope(mapping) as scope:
            result = function(inputs, constants, calls // parts)
        return result, [scope.get_current_value(v) for v in others]

    def differentiate(inputs, constants, values, states, upstream):
        sources = [*tf.nest.flatten(inputs), *values]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(sources)
            result, _ = run(inputs, constants, values, states)
        return tape.gradient(result, sources, upstream)

    forward, backward = shared_function(run), shared_function(differentiate)
    values, state = ([tf.convert_to_tensor(v) for v in group] for group in (trained, others))
    fixed, states, results = [tf.stop_gradient(v) for v in values], [], []
    for part in zip(split(tf.nest.map_structure(tf.stop_gradient, inputs)), split(constants)):
        states.append(state)
        with tf.control_dependencies(results[-1:]):
            result, state = forward(*part, fixed, state)
        results.append(result)
    for variable, value in zip(others, state):
        variable.assign(value)
    results = _joined(results)

    @tf.custom_gradient
    def with_gradient(*sources):
        count = len(sources) - len(values)

        def gradient(upstream):
            inputs_of, upstreams = split(tf.nest.pack_sequence_as(inputs, sources[:count])), tf.split(upstream, parts)
            found = []
            for part in zip(inputs_of, split(constants), states, upstreams):
                x, fixed, state, dy = part
                with tf.control_dependencies([g for g in found[-1] if g is not None] if found else []):
                    found.append(backward(x, fixed, list(sources[count:]), state, dy))
            by_source = [[g for g in each if g is not None] for each in zip(*found)]
            of_values = [tf.add_n(each) if each else None for each in by_source[count:]]
            of_inputs = [_joined(each) if each else None for each in by_source[:count]]
            return (*of_inputs, *of_values)

        return tf.identity(results), gradient

    return with_gradient(*tf.nest.flatten(inputs), *values)


def _joined(parts):
    """[N, ...] tensors behind each other."""
    return parts[0] if len(parts) == 1 else tf.concat(parts, 0)
