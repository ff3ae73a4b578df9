"""PyTorch's convolutions: several calls at once are those calls one after another."""

import numpy as np
import pytest
import tensorflow as tf

from tfvid import models
from tfvid.layers.torch_conv import TorchConv2D, TorchConvTranspose2D

CALLS = 3
# fan_in 27 (kernel divided) against 9 positions (result divided) of a call by itself.
LAYERS = {
    "few pixels": (lambda: TorchConv2D(3, 5, 3, padding=1, spectral=True, name="layer"), (2, 3, 3, 3)),
    "many pixels": (lambda: TorchConv2D(3, 5, 3, strides=2, padding=1, spectral=True, name="layer"), (2, 16, 12, 3)),
    "without bias": (lambda: TorchConv2D(3, 5, 1, use_bias=False, spectral=True, name="layer"), (1, 4, 4, 3)),
    "transposed": (lambda: TorchConvTranspose2D(3, 5, spectral=True, name="layer"), (2, 4, 5, 3)),
    "without spectral norm": (lambda: TorchConv2D(3, 5, 3, padding=1, name="layer"), (2, 4, 4, 3)),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("training", [False, True])
def test_calls_at_once_are_calls_one_after_another(name, training):
    make, shape = LAYERS[name]
    rng = np.random.default_rng(0)
    x = tf.constant(rng.normal(size=(CALLS * shape[0], *shape[1:])))
    with models.float_policy("float64"):
        layer = make()
    for v in layer.weights:
        v.assign(rng.normal(size=v.shape))
    start = [v.numpy() for v in layer.weights]
    weights = None
    results = []
    for at_once in (False, True):
        for v, value in zip(layer.weights, start):
            v.assign(value)
        with tf.GradientTape() as tape:
            tape.watch(x)
            if at_once:
                y = layer(x, training=training, calls=CALLS)
            else:
                y = tf.concat([layer(part, training=training) for part in tf.split(x, CALLS)], 0)
            weights = rng.normal(size=y.shape) if weights is None else weights
            total = tf.reduce_sum(y * weights)
        variables = [v.value for v in layer.trainable_weights]
        results.append([y, *tape.gradient(total, [x, *variables]), *[v.numpy() for v in layer.weights]])
    for one, other in zip(*results):
        np.testing.assert_allclose(one, other, 1e-10, 1e-12)
    turned = [not np.array_equal(a, v.numpy()) for a, v in zip(start, layer.weights)]
    assert any(turned) == (training and layer.spectral)
