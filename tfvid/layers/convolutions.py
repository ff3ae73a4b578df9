"""Convolutions of the SAVP family: plain, with pooling, with up-sampling, transposed.

All take channels-last maps, pad with zeros ("same" as TensorFlow counts it) and keep
their kernels in TensorFlow 1's layouts.
"""

import keras
import numpy as np
from keras import ops

from tfvid.layers import one_image
from tfvid.layers.bound import BoundLayer, truncated_normal
from tfvid.layers.constant_channels import conv_constant, tile

# Taps of the bilinear doubling.
BILINEAR = np.array([0.25, 0.75, 0.75, 0.25])


def conv2d(x, kernel, stride=1, padding="same"):
    """x [B, H, W, in], kernel [kh, kw, in, out]."""
    return one_image.conv2d(x, kernel, stride, padding)


def pooled_kernel(kernel):
    """The (k+1)x(k+1) kernel whose strided convolution is a kxk convolution and 2x2 mean pooling."""
    padded = ops.pad(kernel, ((1, 1), (1, 1), (0, 0), (0, 0)))
    rows = padded[1:] + padded[:-1]
    return (rows[:, 1:] + rows[:, :-1]) * 0.25


def conv_pool2d(x, fused):
    """Convolution and 2x2 mean pooling, by `pooled_kernel`. x [B, H, W, in] -> [B, H/2, W/2, out]."""
    p = (fused.shape[0] - 1) // 2
    if x.shape[1] is not None and x.shape[2] is not None and x.shape[1] % 2 == 0 and x.shape[2] % 2 == 0:
        return conv2d(x, fused, stride=2)
    return conv2d(ops.pad(x, ((0, 0), (p, p), (p, p), (0, 0))), fused, stride=2, padding="valid")


def upsampling_taps(k):
    """[2, 3, k] weights: tap j of a k-tap kernel after bilinear doubling -> tap d of phase p before it.

    y[2r + p] = sum_d x[r + d - 1] sum_j kernel[j] bilinear[p - 2 (d - 1) + j - (k - 3) // 2],
    zeros outside the map, as the original pads (its borders get darker).
    """
    taps = np.zeros((2, 3, k))
    for p in range(2):
        for d in range(3):
            for j in range(k):
                q = p - 2 * (d - 1) + j - (k - 3) // 2
                if 0 <= q < 4:
                    taps[p, d, j] = BILINEAR[q]
    return taps


def upsampling_kernel(kernel):
    """[3, 3, in, out] -> [3, 3, in, 4 * out]: the four phases of doubling and convolution as one convolution."""
    if tuple(kernel.shape[:2]) != (3, 3):
        raise ValueError(f"expected a 3x3 kernel. Received: shape {tuple(kernel.shape)}")
    taps = ops.cast(ops.convert_to_tensor(upsampling_taps(3)), kernel.dtype)
    rows = ops.einsum("pdj,jkio->pdkio", taps, kernel)
    fused = ops.einsum("qek,pdkio->deipqo", taps, rows)
    return ops.reshape(fused, (3, 3, kernel.shape[2], 4 * kernel.shape[3]))


def upsample_conv2d(x, fused):
    """Bilinear doubling and 3x3 convolution, by `upsampling_kernel`. [B, H, W, in] -> [B, 2H, 2W, out]."""
    return upsampled(conv2d(x, fused))


def upsampled(phases):
    """[B, H, W, 4 * out], what a convolution with `upsampling_kernel` gives -> [B, 2H, 2W, out]."""
    return ops.depth_to_space(phases, 2, data_format="channels_last")


class Dense(BoundLayer):
    """x [..., in] -> [..., out]; variables kernel [in, out] and bias."""

    def __init__(self, inputs, outputs, name="dense", use_bias=True):
        super().__init__(name)
        self.kernel = self.weight("kernel", (inputs, outputs), truncated_normal())
        self.bias = self.weight("bias", (outputs,), "zeros") if use_bias else None

    def bind(self):
        kernel = self.read(self.kernel)
        if self.bias is None:
            return lambda x: ops.matmul(x, kernel)
        bias = self.read(self.bias)
        return lambda x: ops.matmul(x, kernel) + bias


class Conv2D(BoundLayer):
    """A convolution of any kind below; variables kernel and bias under the kind's name.

    Bound, it takes a map and, with `vector`, the vector [B, S] that the map is followed by as S constant channels.

    Args:
      inputs, outputs: channels.
      size: of the kernel.
      kind: "conv2d", "conv_pool2d" (halves the map), "upsample_conv2d" or "deconv2d"
        (double it).
      stride: of "conv2d".
      padding: "same", or "one" for a border of one zero and then "valid".
      vector: size of the vector, 0 for none; not with padding "one".
    """

    def __init__(self, inputs, outputs, size, kind="conv2d", stride=1, padding="same", vector=0):
        super().__init__(kind)
        self.kind, self.stride, self.padding, self.inputs = kind, stride, padding, inputs
        channels = (outputs, inputs + vector) if kind == "deconv2d" else (inputs + vector, outputs)
        self.kernel = self.weight("kernel", (size, size, *channels), truncated_normal())
        self.bias = self.weight("bias", (outputs,), "zeros")

    def bind(self):
        kernel, bias = self.read(self.kernel), self.read(self.bias)
        if self.kind == "deconv2d":

            def convolve(x, vector=None):
                x = with_vector([x], vector)
                return ops.conv_transpose(x, kernel, 2, "same", data_format="channels_last") + bias

            return convolve
        if self.padding == "one":
            return lambda x: conv_border(x, kernel, (self.stride, self.stride)) + bias
        fused, stride, border, convolve = {
            "conv2d": lambda: (kernel, self.stride, None, lambda x, kernel: conv2d(x, kernel, self.stride)),
            "conv_pool2d": lambda: (pooled_kernel(kernel), 2, kernel.shape[0] // 2, conv_pool2d),
            "upsample_conv2d": lambda: (upsampling_kernel(kernel), 1, None, conv2d),
        }[self.kind]()
        of_map, of_vector = fused[:, :, : self.inputs], fused[:, :, self.inputs :]

        def apply(x, vector=None):
            y = convolve(x, of_map)
            if vector is not None:
                y = y + conv_constant(vector, of_vector, x.shape[1:3], y.shape[1:3], stride, border)
            return (upsampled(y) if self.kind == "upsample_conv2d" else y) + bias

        return apply


def with_vector(maps, vector):
    """concat(maps, the vector as constant channels); either may be missing. maps: list of [B, H, W, *]."""
    parts = list(maps) if vector is None else [*maps, tile(vector, maps[0])]
    return parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=-1)


def activation(kind):
    """The function called "relu" or "elu"."""
    return {"relu": ops.relu, "elu": ops.elu}[kind]


def leaky_relu(x, slope):
    """max(slope * x, x), generic in the float type; slope above zero.

    The gradient is read off the result, whose sign is that of x: x need not be kept, and TensorFlow computes the
    activation within the convolution before it.
    """
    double = keras.backend.standardize_dtype(x.dtype) == "float64"  # TensorFlow's own keeps its slope in float32

    @ops.custom_gradient
    def activate(x):
        y = ops.maximum(x * slope, x) if double else ops.leaky_relu(x, slope)

        def gradient(*args, upstream=None):
            dy = args[0] if upstream is None else upstream
            return ops.where(y > 0, dy, dy * slope)

        return y, gradient

    return activate(x)


def conv_border(x, kernel, strides, border=1):
    """Convolution over a border of zeros on every side. x [B, *sizes, in], kernel [*sizes, in, out]."""
    sizes, taps = x.shape[1:-1], kernel.shape[:-2]
    padding = "same" if all(_same_is_border(n, k, s, border) for n, k, s in zip(sizes, taps, strides)) else "valid"
    if border and padding == "valid":
        x = ops.pad(x, ((0, 0), *[(border, border)] * len(taps), (0, 0)))
    if len(sizes) == 2 and strides[0] == strides[1]:
        return one_image.conv2d(x, kernel, strides[0], padding)
    return ops.conv(x, kernel, strides, padding, data_format="channels_last")


def _same_is_border(size, taps, stride, border):
    """Whether "same" padding is `border` zeros on each side, which saves a copy of the map.

    Not for a map smaller than the kernel: there oneDNN's gradient of a 3-D bfloat16 kernel
    is garbage under "same" padding (TensorFlow 2.21, CPU; seen at 2 frames and 3 taps).
    """
    if size is None or size < taps:
        return False
    return (-(-size // stride) - 1) * stride + taps - size == 2 * border
