"""Convolutions in PyTorch's form: explicit padding on both sides, optional spectral normalisation.

`torch.nn.utils.spectral_norm` (Miyato et al., "Spectral Normalization for Generative
Adversarial Networks", 2018): the stored kernel stays raw; each call in training runs one
power iteration and moves the stored u and v; u and v are constants of the gradient.

What several calls would compute one after another can be one call: with `calls` > 1 the
inputs of all lie behind each other along the batch axis, and each is divided by the
singular value of its own turn.
"""

import keras
import numpy as np
from keras import ops

from tfvid.layers.convolutions import conv_border
from tfvid.layers.torch_init import uniform

EPSILON = 1e-12


def l2_normalize(x):
    """x / max(|x|, 1e-12) of a vector."""
    return x / ops.maximum(ops.sqrt(ops.sum(ops.square(x))), EPSILON)


def scale_calls(x, factor):
    """[calls * N, ...] times [calls] or [1]: each call's N rows by its own factor, which is not zero.

    The gradient is read off the result, so that x need not be kept beside it.
    """
    calls = factor.shape[0]

    def by_call(x):
        return ops.reshape(x, (calls, -1, *x.shape[1:]))

    def scaled(x, factor):
        factor = ops.reshape(ops.cast(factor, x.dtype), (calls,) + (1,) * len(x.shape))
        return ops.reshape(by_call(x) * factor, (-1, *x.shape[1:]))

    @ops.custom_gradient
    def scale(x, factor):
        y = scaled(x, factor)

        def gradient(*args, upstream=None):
            dy = args[0] if upstream is None else upstream
            products = by_call(ops.cast(dy, factor.dtype) * ops.cast(y, factor.dtype))
            return scaled(dy, factor), ops.sum(products, axis=tuple(range(1, len(products.shape)))) / factor

        return y, gradient

    return scale(x, factor)


@keras.saving.register_keras_serializable(package="tfvid")
class TorchConv2D(keras.layers.Layer):
    """2-D convolution with zero padding on both sides; its variables exist from the constructor on.

    Args:
      channels_in, channels_out: channels.
      kernel_size: side of the kernel.
      strides: of both axes.
      padding: zeros added on each side.
      use_bias: add a bias.
      spectral: divide the kernel by its largest singular value.

    Input: [N, H, W, channels_in]. Output: [N, h, w, channels_out].
    """

    def __init__(
        self, channels_in, channels_out, kernel_size, strides=1, padding=0, use_bias=True, spectral=False, name=None
    ):
        super().__init__(name=name)
        self.strides, self.padding, self.spectral = strides, padding, spectral
        # Function (x, kernel) that takes the place of a convolution of stride 1 and equal size, for its gradient.
        self.same_convolution = None
        self.channels_out = channels_out
        self._add_kernel(channels_in, kernel_size)
        fan_in = channels_in * kernel_size**2
        self.bias = None
        if use_bias:
            self.bias = self.add_weight(name="bias", shape=(channels_out,), initializer=uniform(fan_in))
        if spectral:
            # Random unit vectors in the original; here one unit direction that the
            # iterations of `warm_up` turn towards the leading singular vectors.
            self.u = self._vector("u", channels_out)
            self.v = self._vector("v", fan_in)
        self.built = True

    def _add_kernel(self, channels_in, size):
        self.kernel = self.add_weight(
            name="kernel",
            shape=(size, size, channels_in, self.channels_out),
            initializer=uniform(channels_in * size * size),
        )

    def _vector(self, name, size):
        return self.add_weight(
            name=name,
            shape=(size,),
            trainable=False,
            autocast=False,
            aggregation="only_first_replica",
            initializer=keras.initializers.RandomNormal(stddev=size**-0.5),
        )

    def kernel_matrix(self):
        """[fan_in, channels_out], rows in the order of the stored v."""
        return ops.reshape(self.kernel, (-1, self.channels_out))

    def normalized(self, training, calls=1, positions=None):
        """What a call convolves with, and what it multiplies the result by; in training it advances u and v.

        Args:
          training: one power iteration a call.
          calls: how many calls' inputs are convolved at once.
          positions: of the output, the pixels of one image; None where not known.

        Returns:
          kernel [k, k, channels_in, channels_out], factor [calls], [1] or None. A
          convolution is linear, so that the singular value may divide its kernel or its
          result: the kernel where one serves all and is the smaller of the two.
        """
        kernel = ops.convert_to_tensor(self.kernel)
        if not self.spectral:
            return kernel, None
        sigma = self._singular_values(calls, training)
        fan_in = self.v.shape[0]
        if sigma.shape[0] > 1 or (positions is not None and fan_in > positions):
            return kernel, 1 / sigma
        return kernel / ops.cast(sigma[0], kernel.dtype), None

    def _singular_values(self, calls, training):
        """The largest singular value at each call's turn; [1] outside training, where u and v stay."""
        matrix = ops.cast(self.kernel_matrix(), self.variable_dtype)
        frozen, us, vs = ops.stop_gradient(matrix), [], []
        for _ in range(calls if training else 1):
            u, v = ops.convert_to_tensor(self.u), ops.convert_to_tensor(self.v)
            if training:
                v = l2_normalize(ops.squeeze(ops.matmul(frozen, ops.expand_dims(u, 1)), 1))
                u = l2_normalize(ops.squeeze(ops.matmul(ops.expand_dims(v, 0), frozen), 0))
                self.u.assign(u)
                self.v.assign(v)
            us.append(u)
            vs.append(v)
        # One product for all turns, so that the gradient is one sum of outer products.
        return ops.sum(ops.stack(vs, axis=1) * ops.matmul(matrix, ops.stack(us, axis=1)), axis=0)

    def warm_up(self, count=15):
        """Iterates u and v from the present kernel, so that an untrained model is sound in evaluation."""
        if self.spectral:
            # In NumPy: a model has hundreds of small products to make before it starts.
            matrix, u, v = (ops.convert_to_numpy(x) for x in (self.kernel_matrix(), self.u, self.v))
            for _ in range(count):
                v = matrix @ u
                v /= max(np.linalg.norm(v), EPSILON)
                u = v @ matrix
                u /= max(np.linalg.norm(u), EPSILON)
            self.u.assign(u)
            self.v.assign(v)

    def convolve(self, x, kernel):
        """The convolution with a given kernel, without the bias."""
        kernel = ops.cast(kernel, x.dtype)
        if self.same_convolution is not None and self.strides == 1 and 2 * self.padding == kernel.shape[0] - 1:
            return self.same_convolution(x, kernel)
        return conv_border(x, kernel, (self.strides, self.strides), self.padding)

    def call(self, x, training=False, calls=1):
        kernel, factor = self.normalized(training, calls, self.positions(x))
        return self.finish(self.convolve(x, kernel), factor)

    def positions(self, x):
        """Pixels of the output of one image, or None where they are not known."""
        height, width = x.shape[1:3]
        if height is None or width is None:
            return None
        sides = [(n + 2 * self.padding - self.kernel.shape[0]) // self.strides + 1 for n in (height, width)]
        return sides[0] * sides[1]

    def finish(self, y, factor):
        """Multiplies each call's part of `y` by its factor, if any, and adds the bias."""
        if factor is not None:
            y = scale_calls(y, factor)
        return y if self.bias is None else y + ops.cast(self.bias, y.dtype)


@keras.saving.register_keras_serializable(package="tfvid")
class TorchConvTranspose2D(TorchConv2D):
    """Transposed convolution k3 s2 p1 with output_padding 1: [N, H, W, C] -> [N, 2H, 2W, channels_out].

    The kernel is kept as [k, k, channels_out, channels_in], as Keras has it. The spectral
    norm is over the output channels, with v in (k_y, k_x, channels_in) order.
    """

    def __init__(self, channels_in, channels_out, use_bias=True, spectral=False, name=None):
        super().__init__(channels_in, channels_out, 3, strides=2, use_bias=use_bias, spectral=spectral, name=name)

    def _add_kernel(self, channels_in, size):
        # PyTorch counts the fan-in of a transposed convolution on its output channels.
        self.kernel = self.add_weight(
            name="kernel",
            shape=(size, size, self.channels_out, channels_in),
            initializer=uniform(self.channels_out * size * size),
        )

    def kernel_matrix(self):
        return ops.reshape(ops.transpose(self.kernel, (0, 1, 3, 2)), (-1, self.channels_out))

    def positions(self, x):
        height, width = x.shape[1:3]
        return None if height is None or width is None else 4 * height * width

    def convolve(self, x, kernel):
        # "valid" gives 2H+1 rows; PyTorch's padding of 1 drops the first one.
        return ops.conv_transpose(x, ops.cast(kernel, x.dtype), strides=2, padding="valid")[:, 1:, 1:]
