"""Time: the same step many times, unrolled or as a loop; batches of states."""

import keras
from keras import ops

# Steps up to which a rollout is unrolled: faster to run and, in training, leaner, but
# tracing grows with it.
UNROLL_LIMIT = 32


def rollout(step, carry, inputs, length, unroll=None):
    """Runs `step` `length` times.

    Args:
      step: (carry, inputs of a step) -> (outputs, carry); `carry` keeps its structure,
        shapes and types.
      carry: nested structure of tensors.
      inputs: nested structure of tensors [length, ...], time first; may be empty.
      length: Python integer.
      unroll: True, False, or None to decide by UNROLL_LIMIT.

    Returns:
      (outputs with a leading time axis, final carry); outputs are None for length 0.
    """
    if unroll is None:
        unroll = length <= UNROLL_LIMIT
    if unroll or length < 2:
        outputs = []
        for t in range(length):
            y, carry = step(carry, keras.tree.map_structure(lambda x: x[t], inputs))
            outputs.append(y)
        return stack(outputs), carry
    first, carry = step(carry, keras.tree.map_structure(lambda x: x[0], inputs))
    start = keras.tree.map_structure(
        lambda y: ops.concatenate([y[None], ops.zeros((length - 1, *ops.shape(y)), y.dtype)], axis=0), first
    )

    def body(t, carry, buffers):
        y, carry = step(carry, keras.tree.map_structure(lambda x: ops.take(x, t, axis=0), inputs))
        index = ops.reshape(t, (1, 1))
        buffers = keras.tree.map_structure(lambda b, v: ops.scatter_update(b, index, v[None]), buffers, y)
        return t + 1, carry, buffers

    one = ops.convert_to_tensor(1, "int32")
    _, carry, buffers = ops.while_loop(
        lambda t, *_: t < length, body, (one, carry, start), maximum_iterations=length - 1
    )
    return buffers, carry


def stack(outputs):
    """List of structures, one a step -> structure of tensors with a leading time axis; None for none."""
    if not outputs:
        return None
    return keras.tree.map_structure(lambda *steps: ops.stack(steps, axis=0), *outputs)


def repeat_batch(structure, times):
    """Every tensor `times` times along the batch axis, one copy after the other; None stays None."""
    if times == 1:
        return structure
    return keras.tree.map_structure(lambda x: None if x is None else ops.concatenate([x] * times, axis=0), structure)

