"""Convolutions whose gradient takes little memory on a CPU, for `tfvid.layers.torch_conv.TorchConv2D`."""

from tfvid.layers import in_turn, one_image
from tfvid.layers.xla import tf

PATCHES = 2**24  # elements of what is made of a map at once


def convolve(x, kernel, patches=PATCHES):
    """A convolution of stride 1 and equal size whose gradient is made for some input channels at a time.

    TensorFlow's kernels for a CPU write out the patches of an image, [H W, k k channels]: 0.3 GB for 128 x 128 pixels
    of 512 channels, for both gradients; oneDNN's, that do not, take three times as long for the kernel's on processors
    without AVX-512. Here the gradient of a kernel is one matrix product a tap, over all pixels, and the gradient of the
    map is TensorFlow's; both for a group of channels, as those of one are independent of the others'. In a graph the
    gradients of all such convolutions wait for each other.

    Args:
      x: [N, H, W, C]. kernel: [k, k, C, F], k odd.
      patches: the most elements of the patches of one image, and of a group's map, that are made at once if there is
        more than one channel in them.
    """
    height, width, channels = x.shape[1:]
    if None in (height, width):
        return one_image.conv2d(x, kernel)
    size = kernel.shape[0]
    elements = height * width * channels * max(size * size, x.shape[0] or 1)
    count = min(channels, -(-elements // patches))
    width_of_group = -(-channels // count)

    @tf.custom_gradient
    def grouped(x, kernel):
        def gradient(upstream):
            last = in_turn.last_of("grouped_conv")
            of_x, of_kernel, before = [], [], [upstream, *last]
            for start in range(0, channels, width_of_group):
                stop = min(start + width_of_group, channels)
                with tf.control_dependencies(before):  # one after another, and no slice in the forward pass
                    part = x[..., start:stop]
                    of_kernel.append(kernel_gradient(part, upstream, size))
                    sizes = tf.concat([tf.shape(x)[:3], [stop - start]], 0)
                with tf.control_dependencies(of_kernel[-1:]):
                    part = kernel[:, :, start:stop]
                    of_x.append(
                        tf.raw_ops.Conv2DBackpropInput(
                            input_sizes=sizes, filter=part, out_backprop=upstream, strides=[1, 1, 1, 1], padding="SAME"
                        )
                    )
                before = of_x[-1:]
            last[:] = before
            return tf.concat(of_x, -1), tf.concat(of_kernel, 2)

        return one_image.conv2d(x, kernel), gradient

    return grouped(x, kernel)


def kernel_gradient(x, upstream, size):
    """The gradient to a kernel of `size` taps a side, one tap after another: [N, H, W, C], [N, H, W, F] -> [k, k, C, F]."""
    height, width, channels = x.shape[1:]
    border, outputs = size // 2, upstream.shape[3]
    padded = tf.pad(x, [[0, 0], [border, border], [border, border], [0, 0]])
    flat, taps = tf.reshape(upstream, [-1, outputs]), []
    # One constant for all taps, as a graph of many nodes takes memory.
    seen_size, pixels = tf.constant([-1, height, width, channels]), tf.constant([-1, channels])
    for i in range(size):
        for j in range(size):
            with tf.control_dependencies(taps[-1:]):
                seen = tf.slice(padded, [0, i, j, 0], seen_size)
            taps.append(tf.matmul(tf.reshape(seen, pixels), flat, transpose_a=True))
    return tf.reshape(tf.stack(taps), [size, size, channels, outputs])
