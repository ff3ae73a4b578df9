"""The blocks that CADDY's networks are made of.

Menapace et al., "Playable Video Generation", CVPR 2021, appendix; the reference is
willi-menapace/PlayableVideoGeneration. Images are [N, H, W, C]. Every block takes its
widths as arguments and builds all its weights in `build`.
"""

import keras
from keras import ops

from tfvid.layers.batch_norm import BatchNorm
from tfvid.layers.resize import upsample2
from tfvid.layers.torch_init import conv2d

SLOPE = 0.2  # of every LeakyReLU


def leaky_relu(x):
    """LeakyReLU in the float type of `x`."""
    if keras.backend.standardize_dtype(x.dtype) == "float64":  # TensorFlow's own keeps its slope in float32
        return ops.maximum(x, SLOPE * x)
    return ops.leaky_relu(x, SLOPE)


def average_pool(x, factor):
    """Mean of factor x factor blocks; what does not fill a block is left out."""
    if factor == 1:
        return x
    return ops.average_pool(x, factor, strides=factor, padding="valid")


class Block(keras.layers.Layer):
    """A layer whose parts are built from widths known in its constructor."""

    def _norm(self, channels, name, affine=True):
        """A batch norm, with the width that `build` needs."""
        norm = BatchNorm(affine=affine, name=name)
        norm.width = channels
        return norm

    @staticmethod
    def _build(layer, channels):
        """Builds a convolution or a norm within the caller's name scope."""
        layer.build((None, None, None, channels))


class Residual(Block):
    """Two 3x3 convolutions beside a shortcut.

    Args:
      channels_in, channels_out: widths.
      factor: of the average pooling after the first convolution.
      last_affine: learn scale and shift in the last norm (and the shortcut's).
      final_activation: LeakyReLU on the sum.
    """

    def __init__(self, channels_in, channels_out, factor=1, last_affine=True, final_activation=True, name=None):
        super().__init__(name=name)
        self.channels_in, self.channels_out = channels_in, channels_out
        self.factor, self.final_activation = factor, final_activation
        self.conv1 = conv2d(channels_in, channels_out, 3, use_bias=False, name="conv1")
        self.norm1 = self._norm(channels_out, "norm1")
        self.conv2 = conv2d(channels_out, channels_out, 3, use_bias=False, name="conv2")
        self.norm2 = self._norm(channels_out, "norm2", last_affine)
        self.shortcut = self.shortcut_norm = None
        if factor != 1 or channels_in != channels_out:
            self.shortcut = conv2d(channels_in, channels_out, 1, use_bias=False, name="shortcut")
            self.shortcut_norm = self._norm(channels_out, "shortcut_norm", last_affine)

    def build(self, input_shape=None):
        self._build(self.conv1, self.channels_in)
        self._build(self.norm1, self.channels_out)
        self._build(self.conv2, self.channels_out)
        self._build(self.norm2, self.channels_out)
        if self.shortcut is not None:
            self._build(self.shortcut, self.channels_in)
            self._build(self.shortcut_norm, self.channels_out)
        self.built = True

    def call(self, x, training):
        y = leaky_relu(self.norm1(average_pool(self.conv1(x), self.factor), training=training))
        y = self.norm2(self.conv2(y), training=training)
        if self.shortcut is not None:
            # A 1x1 convolution and a mean commute: pooling first does a quarter of the work.
            x = self.shortcut_norm(self.shortcut(average_pool(x, self.factor)), training=training)
        return leaky_relu(x + y) if self.final_activation else x + y


class Same(Block):
    """3x3 convolution, average pooling by `factor`, norm, LeakyReLU."""

    def __init__(self, channels_in, channels_out, factor=1, name=None):
        super().__init__(name=name)
        self.channels_in, self.channels_out, self.factor = channels_in, channels_out, factor
        self.conv = conv2d(channels_in, channels_out, 3, use_bias=False, name="conv")
        self.norm = self._norm(channels_out, "norm")

    def build(self, input_shape=None):
        self._build(self.conv, self.channels_in)
        self._build(self.norm, self.channels_out)
        self.built = True

    def call(self, x, training):
        return leaky_relu(self.norm(average_pool(self.conv(x), self.factor), training=training))


class Up(Block):
    """Up-sampling x2, 3x3 convolution, norm, LeakyReLU.

    Args:
      channels_in, channels_out: widths.
      late: up-sample last instead of first.
      mode: "bilinear" (half-pixel centres) or "nearest".
    """

    def __init__(self, channels_in, channels_out, late=False, mode="bilinear", name=None):
        super().__init__(name=name)
        self.channels_in, self.channels_out, self.late, self.mode = channels_in, channels_out, late, mode
        self.conv = conv2d(channels_in, channels_out, 3, use_bias=False, name="conv")
        self.norm = self._norm(channels_out, "norm")

    def build(self, input_shape=None):
        self._build(self.conv, self.channels_in)
        self._build(self.norm, self.channels_out)
        self.built = True

    def _resize(self, x):
        if self.mode == "nearest":
            return ops.repeat(ops.repeat(x, 2, axis=1), 2, axis=2)
        return upsample2(x)

    def call(self, x, training):
        x = x if self.late else self._resize(x)
        x = leaky_relu(self.norm(self.conv(x), training=training))
        return self._resize(x) if self.late else x


class Final(Block):
    """A convolution to RGB and tanh: an image in [-1, 1]."""

    def __init__(self, channels_in, channels_out=3, kernel_size=3, name=None):
        super().__init__(name=name)
        self.channels_in = channels_in
        self.conv = conv2d(channels_in, channels_out, kernel_size, name="conv")

    def build(self, input_shape=None):
        self._build(self.conv, self.channels_in)
        self.built = True

    def call(self, x):
        return ops.tanh(self.conv(x))


class ConvLSTM(Block):
    """A convolutional LSTM that starts from learnt maps.

    The four gates (input, forget, output, cell, in this order) are one convolution. No
    peepholes, no offset of the forget gate.

    Args:
      channels_in: channels of all inputs together, without the hidden state.
      channels: of the hidden state and of the cell.
      size: (height, width) of the maps.
    """

    def __init__(self, channels_in, channels, size, name=None):
        super().__init__(name=name)
        self.channels_in, self.channels, self.size = channels_in, channels, tuple(size)
        self.gates = conv2d(channels_in + channels, 4 * channels, 3, name="gates")

    def build(self, input_shape=None):
        shape = (*self.size, self.channels)
        self.initial_hidden = self.add_weight(name="initial_hidden", shape=shape, initializer="zeros", autocast=False)
        self.initial_cell = self.add_weight(name="initial_cell", shape=shape, initializer="zeros", autocast=False)
        self._build(self.gates, self.channels_in + self.channels)
        self.built = True

    def initial_memory(self, batch_size):
        """(hidden, cell), each [B, h, w, C]: the learnt maps for every element of the batch."""
        repeat = (batch_size, 1, 1, 1)
        return tuple(
            ops.cast(ops.tile(ops.expand_dims(ops.convert_to_tensor(m), 0), repeat), self.compute_dtype)
            for m in (self.initial_hidden, self.initial_cell)
        )

    def call(self, inputs, memory):
        """One step.

        Args:
          inputs: list of maps [B, h, w, C] and vectors [B, n]; vectors are tiled over space.
          memory: (hidden, cell).

        Returns:
          The next (hidden, cell).
        """
        hidden, cell = memory
        into, keep, out, candidate = ops.split(self.gates(join([*inputs, hidden])), 4, axis=-1)
        cell = ops.sigmoid(keep) * cell + ops.sigmoid(into) * ops.tanh(candidate)
        return ops.sigmoid(out) * ops.tanh(cell), cell


def join(inputs):
    """Concatenates maps [B, h, w, C] and vectors [B, n], the latter repeated over space.

    The size is that of the first map.
    """
    size = next(x.shape[1:3] for x in inputs if len(x.shape) == 4)
    return ops.concatenate([x if len(x.shape) == 4 else tiled(x, size) for x in inputs], axis=-1)


def tiled(vectors, size):
    """[B, n] -> [B, height, width, n]."""
    return ops.tile(ops.expand_dims(vectors, (1, 2)), (1, *size, 1))
