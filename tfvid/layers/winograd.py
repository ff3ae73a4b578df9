"""3x3 and 5x5 convolutions by Winograd's minimal filtering on the CPU: F(2x2, 3x3), F(4x4, 3x3), F(2x2, 5x5), F(4x4, 5x5).

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015 (arXiv 1509.09308), section 4. Each block of
the output takes, a pair of channels, 16 multiplications instead of 36, 36 instead of 144 or 100, or 64 instead of 400:
the block of the input that it depends on and the kernel are transformed by a few additions, multiplied place by place
(a matrix product over the channels at each of the 16, 36 or 64 places), and the products are added up to the results.
It is the same convolution in real arithmetic. In float32 the root mean square error of 256 channels is 5e-7 of the
result's deviation for F(2x2, 3x3), 2e-6 for the next two and 4e-6 for the last (direct: 2e-7). The gradient of a kernel,
a sum over all pixels, is as exact as the direct one (both 1e-6 to 5e-6). In the gradients of a whole network that is
little: those of deterministic SAVP are 3.1e-4 from float64's, by direct convolutions 2.5e-4; those of VGG's perceptual
loss differ by 1.5e-4 from float64's either way.

The additions pass over every map several times, so the method wins only where they are compiled into few loops: the
functions here are XLA's. Within `xla.off()` every convolution is direct.
"""

import dataclasses
import functools
import math

import keras
import numpy as np
from keras import ops

from tfvid.layers import few_outputs, one_image, xla
from tfvid.layers.xla import tf

# Fewer channels, on either side, give the matrix products too little to win.
LEAST_CHANNELS = 64
# Of blocks in a batch (in one map, where the batch's size is not known while tracing): fewer, and transforming the
# kernel costs what is saved.
LEAST_BLOCKS = 64
# The same where the kernel is transformed once for many maps: fewer, and reading it takes the time.
LEAST_BLOCKS_BOUND = 16
# Of the direct convolution of one map: fewer are not worth the second that XLA takes to compile a shape.
LEAST_MULTIPLY_ADDS = 10**8
# Numbers in the transformed maps, of input and output together: of larger batches the memory counts for more.
MOST_PLACES = 2**25
# The same of the part of a batch whose gradient of the kernel is taken at once.
MOST_PLACES_OF_GRADIENT = 2**23

# Taps of a kernel's side -> results of a block's side, the best first.
_BLOCKS = {3: (4, 2), 5: (4, 2)}
# Places of a block's side -> points at which its polynomials are multiplied, infinity beside them. Those with the
# smallest error among those tried; with 2 in place of 1/2 that of six places is half as large again.
_POINTS = {4: (0, 1, -1), 6: (0, 1, -1, 0.5, -2), 8: (0, 1, -1, 0.5, -2, -0.5, 2)}
# Of TensorFlow's own convolutions.
_SAME = {"strides": [1, 1, 1, 1], "padding": "SAME"}


def paying_block(kernel, batch, height, width, least=LEAST_BLOCKS):
    """Side of the blocks for an output of this size; None where the method is not allowed or not faster.

    Args:
      kernel: [h, w, in, out].
      batch, height, width: of the output; None where not known while tracing.
      least: number of blocks that pays.
    """
    if not height or not width or not kernel_pays(kernel):
        return None
    if height * width * math.prod(kernel.shape) < LEAST_MULTIPLY_ADDS:
        return None
    taps, _, inputs, outputs = kernel.shape
    for m in _dividing(_BLOCKS[taps], height, width):
        count = (batch or 1) * height * width // m**2
        if count >= least and count * (m + taps - 1) ** 2 * (inputs + outputs) <= MOST_PLACES:
            return m
    return None


def kernel_pays(kernel):
    """What `paying_block` asks of the kernel and of the machine."""
    return (
        xla.allowed(kernel.dtype)
        and kernel.shape[0] == kernel.shape[1]
        and kernel.shape[0] in _BLOCKS
        and min(kernel.shape[2:]) >= LEAST_CHANNELS
    )


def _dividing(sides, height, width):
    return [m for m in sides if height % m == width % m == 0]


def conv2d(x, kernel, padding="same"):
    """Convolution of stride 1, with gradients; where the method does not pay, by `few_outputs` or direct.

    Args:
      x: [N, H, W, in].
      kernel: [h, w, in, out].
      padding: "same" (zeros), "reflect" (the map mirrored at its border) or "valid".

    Returns:
      [N, H, W, out], under "valid" less the border.
    """
    x, kernel = ops.convert_to_tensor(x), ops.convert_to_tensor(kernel)
    border = 0 if padding == "valid" else kernel.shape[0] // 2
    reflect = padding == "reflect"
    side = paying_block(kernel, *_output_size(x, kernel.shape[0], border)) if x.dtype == kernel.dtype else None
    if side is not None:
        return convolve(x, tf.convert_to_tensor(kernel), border, side, reflect)  # a variable in eager execution
    if reflect:
        x, padding = _mirrored(x, border), "valid"
    return few_outputs.conv2d(x, kernel, padding)


def _mirrored(x, border):
    return ops.pad(x, _paddings(border), mode="reflect")


class Conv2D(keras.layers.Conv2D):
    """Keras' layer, by this method where it pays."""

    def convolution_op(self, inputs, kernel):
        plain = self.strides == self.dilation_rate == (1, 1) and self.groups == 1
        if plain and self.data_format == "channels_last":
            return conv2d(inputs, kernel, self.padding)
        return super().convolution_op(inputs, kernel)


class BoundConv2D:
    """A convolution of stride 1 of many maps, with gradients: the kernel is transformed once, here.

    Args:
      kernel: [h, w, in, out], of odd sides.
    """

    def __init__(self, kernel):
        self.kernel, self._border = kernel, kernel.shape[0] // 2
        # A graph does not compute those that no map takes.
        self._sides = _BLOCKS[kernel.shape[0]] if kernel_pays(kernel) else ()
        self._transformed = self._transform(kernel)
        self._turned = self._transform(turned(kernel)) if self._sides else {}

    def _transform(self, kernel):
        return {side: _filtering(side, kernel.shape[0]).transform_kernel(kernel) for side in self._sides}

    def __call__(self, x, reflect=False):
        """x [N, H, W, in], on every side half a kernel of zeros or, with `reflect`, of the map mirrored there."""
        side = self._side(_output_size(x, self.kernel.shape[0], self._border), x.dtype)
        if side is not None:
            return convolve(x, self.kernel, self._border, side, reflect, self._transformed[side])
        if reflect:
            return one_image.conv2d(_mirrored(x, self._border), self.kernel, 1, "valid")
        return one_image.conv2d(x, self.kernel, 1, "same")

    def _side(self, size, dtype):
        return paying_block(self.kernel, *size, least=LEAST_BLOCKS_BOUND) if dtype == self.kernel.dtype else None

    def input_gradient(self, x, upstream):
        """The gradient to `x` of the convolution over zeros."""
        side = self._side(upstream.shape[:3], upstream.dtype)
        if side is None:
            return tf.raw_ops.Conv2DBackpropInput(
                input_sizes=tf.shape(x), filter=self.kernel, out_backprop=upstream, **_SAME
            )
        return _filtering(side, self.kernel.shape[0]).product(upstream, self._turned[side], self._border)

    def kernel_gradient(self, x, upstream):
        """The gradient to the kernel of the convolution over zeros."""
        side = self._side(upstream.shape[:3], upstream.dtype)
        if side is None:
            return tf.raw_ops.Conv2DBackpropFilter(
                input=x, filter_sizes=self.kernel.shape, out_backprop=upstream, **_SAME
            )
        return kernel_gradient(x, upstream, self._border, side)


def kernel_gradient(x, upstream, border, side, reflect=False):
    """[taps, taps, in, out]: the gradient to the kernel, for a few images at a time where N is known.

    Args:
      x: [N, H, W, in].
      upstream: [N, H', W', out], the gradient of the result.
      border: zeros on each side of the map.
      side: of the blocks.
      reflect: the map mirrored in place of the zeros.
    """
    batch, height, width, outputs = upstream.shape
    taps = x.shape[1] + 2 * border - height + 1
    gradient = _filtering(side, taps).kernel_gradient
    if batch is None:
        return gradient(x, upstream, border, reflect)
    places = height * width // side**2 * (side + taps - 1) ** 2 * (x.shape[3] + outputs)
    count = min(batch, -(-batch * places // MOST_PLACES_OF_GRADIENT))
    parts = zip(*(tf.split(v, _shares(batch, count)) for v in (x, upstream)))
    return tf.add_n([gradient(*part, border, reflect) for part in parts])


def _shares(total, count):
    """`total` in `count` parts, as equal as possible."""
    return [total // count + (i < total % count) for i in range(count)]


def turned(kernel):
    """The kernel of the transposed convolution: turned by half a circle, its channels swapped."""
    return ops.transpose(ops.flip(kernel, (0, 1)), (0, 1, 3, 2))


def convolve(x, kernel, border, side=2, reflect=False, transformed=None):
    """The method itself, with a gradient of the same kind.

    Args:
      x: [N, H, W, in].
      kernel: [3, 3, in, out] or [5, 5, in, out].
      border: zeros on each side, fewer than the kernel's taps.
      side: of the output's blocks, which must divide its height and width.
      reflect: the map mirrored at its border in place of the zeros.
      transformed: the kernel for such blocks, if it is there. Otherwise it is transformed with the convolution: by
        itself TensorFlow would do so early, for all maps of an unrolled graph, and keep the results.

    Returns:
      [N, H', W', out], the sides longer by 2 border less the taps and 1.
    """
    filtering = _filtering(side, kernel.shape[0])

    @tf.custom_gradient
    def convolve(x, kernel):
        def gradient(dy):
            of_x = filtering.input_gradient(dy, kernel, border, reflect)
            return of_x, kernel_gradient(x, dy, border, side, reflect)

        if transformed is None:
            return filtering.convolution(x, kernel, border, reflect), gradient
        return filtering.product(x, transformed, border, reflect), gradient

    return convolve(x, kernel)


def _paddings(border):
    """As TensorFlow takes them, of maps with `border` more on every side."""
    return [[0, 0], [border, border], [border, border], [0, 0]]


def _output_size(x, taps, border):
    """(N, H, W) of the output; None what is not known."""
    return (x.shape[0], *(None if n is None else n + 2 * border - taps + 1 for n in x.shape[1:3]))


@functools.cache
def _filtering(side, taps):
    return Filtering(side, taps)


@dataclasses.dataclass(frozen=True)
class Filtering:
    """F(side x side, taps x taps)."""

    side: int
    taps: int

    @functools.cached_property
    def matrices(self):
        """(A^T, G, B^T) of the paper, float64, by Toom and Cook's interpolation.

        The polynomials are multiplied by their values at the points and, at infinity, by their leading coefficients.
        """
        places = self.side + self.taps - 1
        points = _POINTS[places]

        def values(count):
            finite = [[float(p) ** j for j in range(count)] for p in points]
            return np.array([*finite, [0.0] * (count - 1) + [1.0]])

        others = [[q for q in points if q != p] for p in points]
        # Lagrange's polynomials, lowest coefficient first, their denominators moved to G.
        interpolation = [[*np.poly(roots)[::-1], 0.0] for roots in others] + [np.poly(points)[::-1]]
        scale = [math.prod(p - q for q in roots) for p, roots in zip(points, others)] + [1.0]
        return values(self.side).T, values(self.taps) / np.array(scale)[:, None], np.array(interpolation)

    @functools.cached_property
    def transform_kernel(self):
        """[taps, taps, in, out] -> [places, in, out]; one matrix product, which needs no compiling."""

        def transform(kernel):
            _, g, _ = self.matrices
            matrix = tf.constant(np.kron(g, g), kernel.dtype)
            places = tf.matmul(matrix, tf.reshape(kernel, [self.taps**2, -1]))
            return tf.reshape(places, [-1, *kernel.shape[2:]])

        transform.__name__ = "winograd_kernel"
        return tf.function(transform, autograph=False)

    @functools.cached_property
    def product(self):
        """(x [N, H, W, in], kernel [places, in, out], border, reflect) -> [N, H', W', out], compiled."""

        def product(x, kernel, border, reflect=False):
            m, n = self.side, self.side + self.taps - 1
            output, _, _ = self.matrices
            height, width = (size + 2 * border - self.taps + 1 for size in x.shape[1:3])
            blocks = self._transform_map(x, border, reflect)
            products = tf.reshape(tf.matmul(blocks, kernel), [n, n, -1, height // m, width // m, kernel.shape[-1]])
            rows = tf.stack(_combine(output, tf.unstack(products)))
            y = tf.stack(_combine(output, tf.unstack(rows, axis=1)), axis=1)  # [m, m, N, H / m, W / m, out]
            return tf.reshape(tf.transpose(y, [2, 3, 0, 4, 1, 5]), [-1, height, width, kernel.shape[-1]])

        product.__name__ = self._name
        return xla.compiled(product)

    def _transform_map(self, x, border, reflect):
        """[N, H, W, in] -> [places, blocks, in]."""
        m, n = self.side, self.side + self.taps - 1
        _, _, block = self.matrices
        if border:
            x = tf.pad(x, _paddings(border), "REFLECT" if reflect else "CONSTANT")
        height, width = x.shape[1] - self.taps + 1, x.shape[2] - self.taps + 1
        # Rows, then columns: in one expression XLA would compute every row once for each column.
        rows = tf.stack(_combine(block, [x[:, i : i + height - m + 1 : m] for i in range(n)]))
        places = _combine(block, [rows[:, :, :, i : i + width - m + 1 : m] for i in range(n)])
        return tf.reshape(tf.stack(places, axis=1), [n * n, -1, x.shape[3]])

    @functools.cached_property
    def kernel_gradient(self):
        """(x [N, H, W, in], gradient of the result [N, H', W', out], border, reflect) -> [taps, taps, in, out]."""

        def kernel_gradient(x, upstream, border, reflect):
            m, n = self.side, self.side + self.taps - 1
            output, g, _ = self.matrices
            rows = tf.stack(_combine(output.T, [upstream[:, i::m] for i in range(m)]))
            places = _combine(output.T, [rows[:, :, :, i::m] for i in range(m)])
            of_results = tf.reshape(tf.stack(places, axis=1), [n * n, -1, upstream.shape[3]])
            products = tf.matmul(self._transform_map(x, border, reflect), of_results, transpose_a=True)
            matrix = tf.constant(np.kron(g, g).T, x.dtype)
            taps = tf.matmul(matrix, tf.reshape(products, [n * n, -1]))
            return tf.reshape(taps, [self.taps, self.taps, x.shape[3], upstream.shape[3]])

        kernel_gradient.__name__ = f"{self._name}_kernel_gradient"
        return xla.compiled(kernel_gradient)

    @functools.cached_property
    def convolution(self):
        """As `product`, of the kernel [taps, taps, in, out] itself."""

        def convolution(x, kernel, border, reflect=False):
            return self.product(x, self.transform_kernel(kernel), border, reflect)

        convolution.__name__ = self._name
        return xla.compiled(convolution)

    def input_gradient(self, upstream, kernel, border, reflect):
        """(gradient of the result [N, H', W', out], kernel [taps, taps, in, out], border, reflect) -> [N, H, W, in]."""
        if reflect:
            return self._gradient_of_mirrored(upstream, kernel, border)
        with tf.control_dependencies([upstream]):  # early, the kernels of a whole network would be turned and kept
            kernel = turned(tf.identity(kernel))
        # The compiled function of forward passes: a second one would be compiled for every shape.
        return self._of_any_size(self.convolution, upstream, kernel, self.taps - 1 - border)

    @functools.cached_property
    def _gradient_of_mirrored(self):
        def gradient(upstream, kernel, border):
            kernel = self.transform_kernel(turned(kernel))
            y = self._of_any_size(self.product, upstream, kernel, self.taps - 1)
            return tf.raw_ops.MirrorPadGrad(input=y, paddings=_paddings(border), mode="REFLECT")

        gradient.__name__ = self._name
        return xla.compiled(gradient)

    def _of_any_size(self, convolve, x, kernel, border):
        """convolve(x, kernel, border), whose result need not have whole blocks."""
        height, width = (size + 2 * border - self.taps + 1 for size in x.shape[1:3])
        rest = -height % self.side, -width % self.side
        if not any(rest):
            return convolve(x, kernel, border)
        x = tf.pad(x, [[0, 0], [0, rest[0]], [0, rest[1]], [0, 0]])
        return convolve(x, kernel, border)[:, :height, :width]

    @property
    def _name(self):
        """Of a function in a graph; `tfvid.benchmarking.operations` knows it, and "winograd_kernel"."""
        return f"winograd_{self.taps}x{self.taps}"


def _combine(matrix, parts):
    """The matrix' rows times the list of tensors."""
    # One constant for each factor, as a graph is slow to add to.
    factors = {c: tf.constant(c, parts[0].dtype) for c in set(matrix.flat) - {0, 1, -1}}

    def times(factor, x):
        return x if factor == 1 else -x if factor == -1 else x * factors[factor]

    return [_sum([times(c, part) for c, part in zip(row, parts) if c]) for row in matrix]


def _sum(terms):
    return functools.reduce(lambda a, b: a + b, terms)
