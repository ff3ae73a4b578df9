"""3x3 convolutions by Winograd's minimal filtering, F(2x2, 3x3), on the CPU.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015 (arXiv 1509.09308), section 4.1. Each 2x2
block of the output takes 16 multiplications a pair of channels instead of 36: the 4x4 block of the input that it
depends on and the kernel are transformed by additions and halves, multiplied place by place (a matrix product over
the channels at each of the 16 places), and the 16 products are added up to the four results. It is the same
convolution in real arithmetic; in float32 the error is two to three times that of the direct one. (F(4x4, 3x3) saves
more and loses a decimal digit.)

The additions pass over every map several times, so the method wins only where they are compiled into few loops: the
functions here are XLA's, all else stays TensorFlow's. A graph that must run without XLA is traced within `direct()`.
"""

import contextlib
import math
import threading

import keras
from keras import ops

tf = None  # without it every convolution is direct
if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

# Fewer channels, on either side, give the matrix products too little to win.
LEAST_CHANNELS = 64
# Of 2x2 blocks in a batch (in one map, where the batch's size is not known while tracing): fewer, and transforming
# the kernel costs what is saved.
LEAST_BLOCKS = 64
# Of the direct convolution of one map: fewer are not worth the second that XLA takes to compile a shape.
LEAST_MULTIPLY_ADDS = 10**8

_state = threading.local()


@contextlib.contextmanager
def direct():
    """Context in which every convolution is traced, or run, as TensorFlow's own."""
    before = getattr(_state, "direct", False)
    _state.direct = True
    try:
        yield
    finally:
        _state.direct = before


def pays(kernel, batch, height, width):
    """Whether the method is allowed and faster for an output of this size and this kernel.

    Args:
      kernel: [h, w, in, out].
      batch, height, width: of the output; None where not known while tracing.
    """
    if not kernel_pays(kernel) or not height or not width or height % 2 or width % 2:
        return False
    blocks, multiply_adds = (batch or 1) * height * width // 4, height * width * math.prod(kernel.shape)
    return blocks >= LEAST_BLOCKS and multiply_adds >= LEAST_MULTIPLY_ADDS


def kernel_pays(kernel):
    """What `pays` asks of the kernel and of the machine: one CPU, as nothing else was measured."""
    return (
        tf is not None
        and not getattr(_state, "direct", False)
        and tuple(kernel.shape[:2]) == (3, 3)
        and min(kernel.shape[2:]) >= LEAST_CHANNELS
        and keras.backend.standardize_dtype(kernel.dtype) == "float32"
        and [device.device_type for device in tf.config.list_logical_devices()] == ["CPU"]
    )


def conv2d(x, kernel, padding="same"):
    """Convolution of stride 1, with gradients.

    Args:
      x: [N, H, W, in].
      kernel: [h, w, in, out].
      padding: "same" or "valid".

    Returns:
      [N, H, W, out], under "valid" less the border.
    """
    x, kernel = ops.convert_to_tensor(x), ops.convert_to_tensor(kernel)
    border = 1 if padding == "same" else 0
    if x.dtype == kernel.dtype and pays(kernel, *_output_size(x, border)):
        return convolve(x, kernel, border)
    return ops.conv(x, kernel, padding=padding, data_format="channels_last")


class Conv2D(keras.layers.Conv2D):
    """Keras' layer, by this method where it pays."""

    def convolution_op(self, inputs, kernel):
        plain = self.strides == self.dilation_rate == (1, 1) and self.groups == 1
        if plain and self.data_format == "channels_last":
            return conv2d(inputs, kernel, self.padding)
        return super().convolution_op(inputs, kernel)


def bound_conv2d(kernel):
    """Convolution of stride 1 for many maps: the kernel is transformed once, here.

    Args:
      kernel: [h, w, in, out].

    Returns:
      Function (x [N, H, W, in], mode), which pads every side with one pixel, by `mode`: "constant" (zeros) or
      "reflect".
    """
    transformed = transform_kernel(kernel) if kernel_pays(kernel) else None

    def convolve(x, mode="constant"):
        if transformed is not None and x.dtype == transformed.dtype and pays(kernel, *x.shape[:3]):
            return winograd_product(x, transformed, 1, mode)
        x = ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode=mode)
        return ops.conv(x, kernel, padding="valid", data_format="channels_last")

    return convolve


def convolve(x, kernel, border):
    """The method itself, with a gradient of the same kind.

    Args:
      x: [N, H, W, in].
      kernel: [3, 3, in, out].
      border: zeros on each side, 0 to 2; H - 2 + 2 border and the same of W must be even.

    Returns:
      [N, H - 2 + 2 border, W - 2 + 2 border, out].
    """

    @tf.custom_gradient
    def convolve(x, kernel):
        def gradient(dy):
            # The transposed convolution: each kernel turned by half a circle, its channels swapped.
            turned = tf.transpose(tf.reverse(kernel, [0, 1]), [0, 1, 3, 2])
            padding = [[0, 0], [border, border], [border, border], [0, 0]]
            of_kernel = tf.raw_ops.Conv2DBackpropFilter(
                input=tf.pad(x, padding), filter_sizes=tf.shape(kernel), out_backprop=dy, strides=[1, 1, 1, 1],
                padding="VALID",
            )  # fmt: skip
            return winograd_convolution(dy, turned, 2 - border), of_kernel

        return winograd_convolution(x, kernel, border), gradient

    return convolve(x, kernel)


def _output_size(x, border):
    """(N, H, W) of the output; None what is not known."""
    return (x.shape[0], *(None if n is None else n - 2 + 2 * border for n in x.shape[1:3]))


def _compiled(function):
    """As a function that XLA compiles, once for each shape."""
    return function if tf is None else tf.function(function, jit_compile=True, autograph=False)


@_compiled
def transform_kernel(kernel):
    """[3, 3, in, out] -> [16, in, out]."""
    rows = _kernel_rows(*tf.unstack(kernel))
    return tf.stack([place for row in rows for place in _kernel_rows(*tf.unstack(row))])


def _kernel_rows(a, b, c):
    """G of the paper."""
    return a, (a + b + c) * 0.5, (a - b + c) * 0.5, c


@_compiled
def winograd_convolution(x, kernel, border):
    """See `convolve`; `tfvid.benchmarking.operations` knows it, and the next, by name."""
    return winograd_product(x, transform_kernel(kernel), border, "constant")


@_compiled
def winograd_product(x, transformed, border, mode):
    """The same with a transformed kernel [16, in, out], over a border of a kind (see tf.pad)."""
    if border:
        x = tf.pad(x, [[0, 0], [border, border], [border, border], [0, 0]], mode=mode)
    height, width, channels = x.shape[1] - 2, x.shape[2] - 2, transformed.shape[-1]
    blocks = tf.stack(
        [
            place
            for row in _input_rows(*(x[:, i : i + height - 1 : 2] for i in range(4)))
            for place in _input_rows(*(row[:, :, i : i + width - 1 : 2] for i in range(4)))
        ]
    )  # [16, N, H / 2, W / 2, in]
    products = tf.matmul(tf.reshape(blocks, [16, -1, x.shape[3]]), transformed)
    products = tf.unstack(tf.reshape(products, [4, 4, -1, height // 2, width // 2, channels]))
    rows = [tf.stack(_output_rows(*tf.unstack(row)), axis=3) for row in _output_rows(*products)]
    return tf.reshape(tf.stack(rows, axis=2), [-1, height, width, channels])


def _input_rows(a, b, c, d):
    """B^T of the paper."""
    return a - c, b + c, c - b, b - d


def _output_rows(a, b, c, d):
    """A^T of the paper."""
    return a + b + c, b - c - d
