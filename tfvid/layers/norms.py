"""Instance, layer and fixed batch norm with the epsilons and variable names of TensorFlow 1."""

import math

from keras import ops

from tfvid.layers.bound import BoundLayer, value_of, wide

# TensorFlow 1's fused batch norm, on which its instance norm was built, raises every
# epsilon to this; published weights were trained with it.
INSTANCE_EPSILON = 1.001e-5
LAYER_EPSILON = 1e-12
BATCH_EPSILON = 1e-3


def instance_norm(x, gamma, beta):
    """Norm over height and width of each sample and channel. x: [B, H, W, C]; gamma, beta: [C]."""
    return ops.cast(_affine_norm(wide(x), gamma, beta, (1, 2), INSTANCE_EPSILON), x.dtype)


def layer_norm(x, gamma, beta):
    """Norm over height, width and channels of each sample, affine per channel. x: [B, H, W, C]."""
    return ops.cast(_affine_norm(wide(x), gamma, beta, (1, 2, 3), LAYER_EPSILON), x.dtype)


def _affine_norm(x, gamma, beta, axes, epsilon):
    """(x - mean) / sqrt(variance + epsilon) * gamma + beta over `axes`; biased variance.

    The gradient is written out: what differentiation makes of the formula takes about
    twice the passes over the map, and these maps are what a rollout spends its time on
    between convolutions.
    """

    @ops.custom_gradient
    def norm(x, gamma, beta):
        centred = x - ops.mean(x, axis=axes, keepdims=True)
        inverse = ops.rsqrt(ops.mean(ops.square(centred), axis=axes, keepdims=True) + epsilon)

        def gradient(*args, upstream=None):
            dy = args[0] if upstream is None else upstream
            along = ops.sum(dy * centred, axis=(1, 2), keepdims=True)  # [B, 1, 1, C]
            total = ops.sum(dy, axis=(1, 2), keepdims=True)
            dgamma = ops.sum(along * inverse, axis=(0, 1, 2))
            dbeta = ops.sum(total, axis=(0, 1, 2))
            count = math.prod(centred.shape[a] for a in axes)
            slope, offset = along * gamma, total * gamma
            if 3 in axes:
                slope, offset = (ops.sum(v, axis=3, keepdims=True) for v in (slope, offset))
            scale = gamma * inverse
            dx = dy * scale - centred * (slope * inverse**3 / count) - offset * inverse / count
            return dx, dgamma, dbeta

        return centred * (inverse * gamma) + beta, gradient

    return norm(x, gamma, beta)


class Norm(BoundLayer):
    """`instance_norm` or `layer_norm` with its weights.

    Args:
      kind: "instance" or "layer".
      channels: size of gamma and beta.
      name: of the layer.
      beta: initial value of beta.
    """

    FUNCTIONS = {"instance": instance_norm, "layer": layer_norm}

    def __init__(self, kind, channels, name, beta=0.0):
        super().__init__(name)
        self.function = self.FUNCTIONS[kind]
        self.gamma = self.weight("gamma", (channels,), "ones")
        self.beta = self.weight("beta", (channels,), "ones" if beta else "zeros")

    def bind(self):
        gamma, beta = value_of(self.gamma), value_of(self.beta)
        return lambda x: self.function(x, gamma, beta)


class FixedBatchNorm(BoundLayer):
    """Batch norm that always uses its stored statistics, which nothing updates.

    That is what `tf.layers.batch_normalization` does when it is called without
    `training`, as the original SAVP calls it.
    """

    def __init__(self, channels, name="batch_normalization"):
        super().__init__(name)
        self.gamma = self.weight("gamma", (channels,), "ones")
        self.beta = self.weight("beta", (channels,), "zeros")
        self.moving_mean = self.weight("moving_mean", (channels,), "zeros", trainable=False)
        self.moving_variance = self.weight("moving_variance", (channels,), "ones", trainable=False)

    def bind(self):
        scale = value_of(self.gamma) * ops.rsqrt(value_of(self.moving_variance) + BATCH_EPSILON)
        offset = value_of(self.beta) - value_of(self.moving_mean) * scale
        return lambda x: ops.cast(wide(x) * scale + offset, x.dtype)


class Identity(BoundLayer):
    """No norm."""

    def bind(self):
        return lambda x: x


def norm_layer(kind, channels):
    """The layer for a hyper-parameter: "instance", "layer", "batch" or "none", named as in TensorFlow 1."""
    if kind == "none":
        return Identity("none")
    if kind == "batch":
        return FixedBatchNorm(channels)
    return Norm(kind, channels, {"instance": "InstanceNorm", "layer": "LayerNorm"}[kind])
