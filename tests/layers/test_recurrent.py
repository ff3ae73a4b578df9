"""Recurrent cells: a state of None is one of zeros, and the TensorFlow 1 form of the gates."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfvid.layers.conv_recurrent import ConvGRUCell, ConvLSTMCell
from tfvid.layers.recurrent import GRUCell, LSTMCell


@pytest.mark.parametrize("cell_class, states", [(ConvLSTMCell, 2), (ConvGRUCell, 1)])
@pytest.mark.parametrize("tile", [True, False])
@pytest.mark.parametrize("norm", ["instance", "layer", "none"])
def test_no_state_is_a_state_of_zeros(cell_class, states, tile, norm):
    keras.utils.set_random_seed(0)
    step = cell_class(3, 4, vector=2, tile=tile, norm=norm).bind()
    rng = np.random.default_rng(0)
    x, v = tf.constant(rng.normal(size=(2, 6, 5, 3)), tf.float32), tf.constant(rng.normal(size=(2, 2)), tf.float32)
    y, state = step(x, v, None)
    zeros, expected = step(x, v, (tf.zeros([2, 6, 5, 4]),) * states)
    np.testing.assert_allclose(y, zeros, atol=1e-5)
    for found, value in zip(state, expected, strict=True):
        np.testing.assert_allclose(found, value, atol=1e-5)


def test_lstm_equals_keras_with_its_order_of_gates():
    keras.utils.set_random_seed(0)
    cell, reference = LSTMCell(3, 4), keras.layers.LSTMCell(4)
    reference.build((None, 3))
    kernel = np.split(np.asarray(cell.kernel), 4, axis=1)  # i, j, f, o
    joined = np.concatenate([kernel[i] for i in (0, 2, 1, 3)], axis=1)  # Keras: i, f, c, o
    bias = np.concatenate([np.zeros(4), np.ones(4), np.zeros(8)])
    reference.set_weights([joined[:3], joined[3:], bias])
    rng = np.random.default_rng(1)
    x, c, h = (tf.constant(rng.normal(size=(2, n)), tf.float32) for n in (3, 4, 4))
    y, (new_c, new_h) = cell.bind()(x, (c, h))
    expected, (expected_h, expected_c) = reference(x, (h, c))
    np.testing.assert_allclose(y, expected, atol=1e-6)
    np.testing.assert_allclose(new_c, expected_c, atol=1e-6)
    np.testing.assert_allclose(new_h, expected_h, atol=1e-6)


def test_gru_starts_from_zeros():
    cell = GRUCell(3, 4).bind()
    x = tf.ones([2, 3])
    np.testing.assert_allclose(cell(x, None)[0], cell(x, (tf.zeros([2, 4]),))[0])
