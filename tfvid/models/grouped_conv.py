"""Convolutions whose gradient takes little memory on a CPU, for `tfvid.layers.torch_conv.TorchConv2D`."""

import tensorflow as tf

PATCHES = 2**24  # elements of the patches of one image, made at once


def convolve(x, kernel, patches=PATCHES):
    """A convolution of stride 1 and equal size whose gradient is made for some input channels at a time.

    TensorFlow's kernels for a CPU write out the patches of an image, [H W, k k channels], for
    both gradients: 0.3 GB for 128 x 128 pixels of 512 channels. Those of a group of channels are
    independent of the others'.

    Args:
      x: [N, H, W, C]. kernel: [k, k, C, F], k odd.
      patches: the most elements of the patches made at once, if there is more than one channel in them.
    """
    height, width, channels = x.shape[1:]
    if None in (height, width):
        return tf.nn.conv2d(x, kernel, 1, "SAME")
    size, outputs = kernel.shape[0], kernel.shape[3]
    count = min(channels, -(-height * width * size * size * channels // patches))
    if count == 1:
        return tf.nn.conv2d(x, kernel, 1, "SAME")
    width_of_group = -(-channels // count)

    @tf.custom_gradient
    def grouped(x, kernel):
        def gradient(upstream):
            shared = {"out_backprop": upstream, "strides": [1, 1, 1, 1], "padding": "SAME"}
            of_x, of_kernel, before = [], [], [upstream]
            for start in range(0, channels, width_of_group):
                stop = min(start + width_of_group, channels)
                with tf.control_dependencies(before):  # one after another, and no slice in the forward pass
                    part = x[..., start:stop]
                    of_kernel.append(
                        tf.raw_ops.Conv2DBackpropFilter(
                            input=part, filter_sizes=[size, size, stop - start, outputs], **shared
                        )
                    )
                    sizes = tf.concat([tf.shape(x)[:3], [stop - start]], 0)
                with tf.control_dependencies(of_kernel[-1:]):
                    part = kernel[:, :, start:stop]
                    of_x.append(tf.raw_ops.Conv2DBackpropInput(input_sizes=sizes, filter=part, **shared))
                before = of_x[-1:]
            return tf.concat(of_x, -1), tf.concat(of_kernel, 2)

        return tf.nn.conv2d(x, kernel, 1, "SAME"), gradient

    return grouped(x, kernel)
