"""What is computed a second time for the gradient has the values and gradients of what is kept."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfvid import models
from tfvid.layers.batch_norm import BatchNorm
from tfvid.layers.torch_conv import TorchConv2D
from tfvid.models.recompute import recomputed

CALLS = 3


class Block(keras.layers.Layer):
    """Variables that train, those that a call advances, and one that nothing reads."""

    def __init__(self):
        super().__init__()
        self.convolution = TorchConv2D(4, 5, 3, padding=1, use_bias=False, spectral=True)
        self.norm = BatchNorm()
        self.norm.build((None, None, None, 5))
        self.unread = self.add_weight(name="unread", shape=(2,))
        self.built = True

    def call(self, x, offset, calls):
        parts = tf.split(self.convolution(x, training=True, calls=calls), calls)
        return tf.nn.relu(tf.concat([self.norm(y, training=True) for y in parts], 0) + offset)


def run(block, state, how, x, parts):
    """(how often the block was called, [result, gradients, variables afterwards])."""
    for v, value in zip(block.variables, state):
        v.assign(value)
    counts = []

    def function(inputs, constants, calls):
        counts.append(calls)
        return block(inputs["x"] * inputs["scale"], constants[0], calls=calls)

    inputs = {"x": x, "scale": tf.constant(np.linspace(1, 2, len(x))[:, None, None, None], x.dtype)}
    offset = tf.constant(np.linspace(-1, 1, x.shape[0] * 5).reshape(-1, 1, 1, 5), x.dtype)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        if how == "kept":
            y = function(inputs, [offset], CALLS)
        else:
            y = recomputed(function, [block], inputs, [offset], CALLS, parts)
        total = tf.reduce_sum(y**3)
    gradients = tape.gradient(total, [*inputs.values(), *(v.value for v in block.trainable_variables)])
    assert [g is None for g in gradients].count(True) == 1  # of `unread`
    return counts, [y, *(g for g in gradients if g is not None), *(tf.identity(v.value) for v in block.variables)]


@pytest.mark.parametrize("parts", [1, CALLS])
@pytest.mark.parametrize("wrap", [tf.function, lambda f: f], ids=["graph", "eager"])
def test_values_gradients_and_variables_are_those_of_what_is_kept(parts, wrap):
    rng = np.random.default_rng(0)
    x = tf.constant(rng.normal(size=(2 * CALLS, 6, 8, 4)))
    with models.float_policy("float64"):
        block = Block()
    state = [rng.normal(size=v.shape) ** 2 for v in block.variables]
    state[-1] = 7  # the count of batches
    results, counts = [], {}
    for how in ("kept", "recomputed"):
        counts[how], found = None, None

        def step(how=how):
            counts[how], found = run(block, state, how, x, parts)
            return found

        results.append([v.numpy() for v in wrap(step)()])
    for kept, found in zip(*results, strict=True):
        np.testing.assert_allclose(found, kept, rtol=1e-11, atol=1e-12)
    assert results[1][-1] == 7 + CALLS
    passes = 2 * (1 if wrap is tf.function else parts)  # a graph has one function of all parts
    assert counts == {"kept": [CALLS], "recomputed": [CALLS // parts] * passes}


def test_nothing_is_kept_between_the_passes_but_what_goes_in():
    with models.float_policy("float64"):
        block = Block()
    x = tf.random.stateless_normal([2 * CALLS, 6, 8, 4], [0, 0], dtype=tf.float64)

    state = [v.numpy() for v in block.variables]

    def step():
        return run(block, state, "recomputed", x, CALLS)[1]

    operations = tf.function(step).get_concrete_function().graph.get_operations()
    assert not [op for op in operations if "Conv2D" in op.type]  # all within functions
    passes = [op for op in operations if "PartitionedCall" in op.type]
    assert len(passes) == 2 * CALLS
    for forward in passes[:CALLS]:
        assert [v.shape for v in forward.outputs if v.shape.rank == 4] == [(2, 6, 8, 5)]
    for backward in passes[CALLS:]:  # it waits for the gradient of the result, and for the part before
        assert [v.shape for v in backward.inputs if v.shape.rank == 4].count((2, 6, 8, 5)) == 1
        assert backward.control_inputs or backward is passes[CALLS]
