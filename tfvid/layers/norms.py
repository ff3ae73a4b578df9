"""Instance, layer and fixed batch norm with the epsilons and variable names of TensorFlow 1."""

from keras import ops

from tfvid.layers.bound import BoundLayer, value_of, wide

# TensorFlow 1's fused batch norm, on which its instance norm was built, raises every
# epsilon to this; published weights were trained with it.
INSTANCE_EPSILON = 1.001e-5
LAYER_EPSILON = 1e-12
BATCH_EPSILON = 1e-3


def standardize(x, axes, epsilon):
    """(x - mean) / sqrt(variance + epsilon) over `axes`, biased variance."""
    centred = x - ops.mean(x, axis=axes, keepdims=True)
    variance = ops.mean(ops.square(centred), axis=axes, keepdims=True)
    return centred * ops.rsqrt(variance + epsilon)


def instance_norm(x, gamma, beta):
    """Norm over height and width of each sample and channel. x: [B, H, W, C]; gamma, beta: [C]."""
    return ops.cast(standardize(wide(x), (1, 2), INSTANCE_EPSILON) * gamma + beta, x.dtype)


def layer_norm(x, gamma, beta):
    """Norm over height, width and channels of each sample, affine per channel. x: [B, H, W, C]."""
    return ops.cast(standardize(wide(x), (1, 2, 3), LAYER_EPSILON) * gamma + beta, x.dtype)


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
