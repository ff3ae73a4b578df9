"""What is chained in a graph waits for what came before; other graphs, chains and devices do not."""

import tensorflow as tf

from tests.graphs import ancestors
from tfvid.layers import in_turn


def test_each_part_waits_for_the_last_one_of_its_chain():
    @tf.function
    def run(x):
        for chain, name in (("a", "first"), ("b", "other"), ("a", "second")):
            last = in_turn.last_of(chain)
            with tf.control_dependencies(last):
                y = tf.sin(x, name=name)
            last[:] = [y]
        with tf.device("/CPU:0"):
            return y + len(in_turn.last_of("a"))

    graph = run.get_concrete_function(tf.constant(0.0)).graph
    first, other, second = (graph.get_operation_by_name(name) for name in ("first", "other", "second"))
    assert first in ancestors(second)
    assert other not in ancestors(second) and first not in ancestors(other)
    assert float(run(tf.constant(0.0))) == 0.0  # on a device of its own the chain is empty


def test_eager_execution_keeps_nothing():
    last = in_turn.last_of("a")
    last[:] = [tf.constant(0.0)]
    assert in_turn.last_of("a") == []
