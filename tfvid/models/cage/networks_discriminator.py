"""Patch discriminator of the autoencoders, as taming-transformers has it (Isola et al., 2017; Esser et al., 2021)."""

import keras
from keras import ops

from tfvid.layers.batch_norm import BatchNorm
from tfvid.layers.scoped import scoped
from tfvid.layers.torch_conv import TorchConv2D


def smallest_side(layers):
    """Pixels of an image's shorter side that give one patch: `layers` halvings, then two convolutions that take one each."""
    return 3 * 2**layers


class PatchDiscriminator(keras.layers.Layer):
    """Scores overlapping patches.

    Args:
      width: channels of the first layer; doubled up to 8 times.
      layers: convolutions of stride 2.

    Input: [N, H, W, 3] in [-1, 1]. Output: [N, h, w, 1], large for true frames.
    """

    @scoped
    def __init__(self, width=64, layers=3, name="discriminator"):
        super().__init__(name=name)
        self.first = _conv(3, width, 2, True, "first")
        self.convolutions, self.norms, channels = [], [], width
        for i in range(1, layers + 1):
            wider = width * min(2**i, 8)
            self.convolutions.append(_conv(channels, wider, 1 if i == layers else 2, False, f"conv_{i}"))
            norm = BatchNorm(name=f"norm_{i}")
            norm.build((None, None, None, wider))
            norm.scale.assign(1 + keras.initializers.RandomNormal(stddev=0.02)((wider,)))
            self.norms.append(norm)
            channels = wider
        self.last = _conv(channels, 1, 1, True, "last")
        self.built = True

    def call(self, x, training=False):
        x = _leaky(self.first(x))
        for convolution, norm in zip(self.convolutions, self.norms):
            x = _leaky(norm(convolution(x), training=training))
        return self.last(x)


def _conv(channels_in, channels_out, strides, use_bias, name):
    layer = TorchConv2D(channels_in, channels_out, 4, strides=strides, padding=1, use_bias=use_bias, name=name)
    layer.kernel.assign(keras.initializers.RandomNormal(stddev=0.02)(layer.kernel.shape))
    return layer


def _leaky(x):
    return ops.where(x > 0, x, 0.2 * x)
