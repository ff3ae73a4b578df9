"""Convolutions with their batch norm folded in: what frozen feature networks are made of."""

import keras
import numpy as np
from keras import ops


class FoldedConv(keras.layers.Layer):
    """Convolution, bias, ReLU; at inference a batch norm is a factor and a bias of the convolution.

    Args:
      filters: output channels.
      kernel: size of each axis, 2 or 3 of them.
      strides: of each axis.
      padding: "valid" or "same" (TensorFlow's rule; for odd kernels and stride 1 also PyTorch's).
      activation: whether a ReLU follows.
    """

    def __init__(self, filters, kernel, strides=None, padding="same", activation=True, **kwargs):
        super().__init__(**kwargs)
        self.filters, self.kernel_size = filters, tuple(kernel)
        self.strides = tuple(strides or (1,) * len(self.kernel_size))
        self.padding, self.activation = padding, activation

    def build(self, input_shape):
        self.kernel = self.add_weight(
            shape=(*self.kernel_size, input_shape[-1], self.filters), name="kernel", trainable=False
        )
        self.bias = self.add_weight(shape=(self.filters,), initializer="zeros", name="bias", trainable=False)
        self.built = True

    def call(self, x):
        x = ops.conv(x, ops.cast(self.kernel, x.dtype), self.strides, self.padding) + ops.cast(self.bias, x.dtype)
        return ops.relu(x) if self.activation else x

    def assign(self, weight, bias=None, norm=None):
        """Sets the folded kernel and bias.

        Args:
          weight: PyTorch layout [out, in, ...].
          bias: [out] or None.
          norm: (gamma or None, beta, mean, variance, epsilon) of the batch norm, or None.
        """
        kernel = np.moveaxis(np.asarray(weight, np.float64), (0, 1), (-1, -2))
        bias = np.zeros(self.filters) if bias is None else np.asarray(bias, np.float64)
        if norm is not None:
            gamma, beta, mean, variance, epsilon = norm
            factor = (1.0 if gamma is None else np.asarray(gamma, np.float64)) / np.sqrt(
                np.asarray(variance, np.float64) + epsilon
            )
            kernel, bias = kernel * factor, beta + (bias - mean) * factor
        if kernel.shape != tuple(self.kernel.shape):
            raise ValueError(f"{self.name}: expected {tuple(self.kernel.shape)}, received {kernel.shape}")
        self.kernel.assign(kernel)
        self.bias.assign(bias)


def torch_norm(state, name, epsilon):
    """The batch norm `name` of a state dict as `FoldedConv.assign` wants it; KeyError where parts are missing."""
    parts = [_array(state, f"{name}.{part}") for part in ("weight", "bias", "running_mean", "running_var")]
    return (*parts, epsilon)


def torch_weight(state, name):
    """The array called `name`; KeyError says that it is missing."""
    return _array(state, name)


def _array(state, name):
    if name not in state:
        raise KeyError(f"expected {name} in the state dict")
    return np.asarray(state[name])
