"""CAGE's own VQVAE, used for CLEVRER: residual blocks with average pooling, one attention."""

import keras
from keras import ops

from tfvid.layers.batch_norm import BatchNorm
from tfvid.layers.scoped import scoped
from tfvid.layers.torch_conv import TorchConv2D
from tfvid.models.cage.networks_regressor import MultiHeadAttention
from tfvid.models.cage.networks_vqgan import conv, group_norm, swish
from tfvid.models.cage.quantizer import Quantizer


def leaky_relu(x):
    """max(x, 0.2 x) in the type of `x`."""
    return ops.where(x > 0, x, 0.2 * x)


class ResidualBlock(keras.layers.Layer):
    """Convolution, pooling by `factor`, norm, activation, convolution, norm; shortcut; activation."""

    @scoped
    def __init__(self, channels_in, channels_out, factor=1, groups=32, name=None):
        super().__init__(name=name)
        self.factor = factor
        self.conv1 = TorchConv2D(channels_in, channels_out, 3, padding=1, use_bias=False, name="conv1")
        self.conv2 = TorchConv2D(channels_out, channels_out, 3, padding=1, use_bias=False, name="conv2")
        self.norm1, self.norm2 = group_norm(channels_out, "norm1", groups), group_norm(channels_out, "norm2", groups)
        self.shortcut = self.shortcut_norm = None
        if factor != 1 or channels_in != channels_out:
            self.shortcut = TorchConv2D(channels_in, channels_out, 1, use_bias=False, name="shortcut")
            self.shortcut_norm = group_norm(channels_out, "shortcut_norm", groups)
        self.built = True

    def call(self, x):
        y = leaky_relu(self.norm1(self._pool(self.conv1(x))))
        y = self.norm2(self.conv2(y))
        if self.shortcut is not None:
            x = self.shortcut_norm(self._pool(self.shortcut(x)))
        return leaky_relu(x + y)

    def _pool(self, x):
        return x if self.factor == 1 else ops.average_pool(x, self.factor, strides=self.factor, padding="valid")


class AttentionResidual(keras.layers.Layer):
    """x + attention(norm(x)) over all positions, one head."""

    @scoped
    def __init__(self, channels, groups=32, name=None):
        super().__init__(name=name)
        self.norm = group_norm(channels, "norm", groups)
        self.attention = MultiHeadAttention(channels, 1, name="attention")
        self.built = True

    def call(self, x):
        _, height, width, channels = x.shape
        y = ops.reshape(self.norm(x), (-1, height * width, channels))
        y = self.attention.attend(*self.attention.project(y, (0, 1, 2)))
        return x + ops.reshape(y, (-1, height, width, channels))


class UpBlock(keras.layers.Layer):
    """Nearest x2, convolution without bias, batch norm, activation."""

    @scoped
    def __init__(self, channels_in, channels_out, name=None):
        super().__init__(name=name)
        self.conv = TorchConv2D(channels_in, channels_out, 3, padding=1, use_bias=False, name="conv")
        self.norm = BatchNorm(name="norm")
        self.norm.build((None, None, None, channels_out))
        self.built = True

    def call(self, x, training=False):
        x = self.conv(ops.repeat(ops.repeat(x, 2, axis=1), 2, axis=2))
        return leaky_relu(self.norm(x, training=training))


class VQVAE(keras.layers.Layer):
    """Autoencoder with a factor of 8 whose latents are those before quantisation.

    Args:
      latent_channels: c. num_codes: size of the codebook.
      width: channels after the first convolution (32); the deepest has 8 times as many.
      decoder_width: channels of the decoder's deepest layer (256).
      groups: of the group norms.
    """

    @scoped
    def __init__(self, latent_channels=4, num_codes=8192, width=32, decoder_width=256, groups=32, name="autoencoder"):
        super().__init__(name=name)
        self.latent_channels, self.factor = latent_channels, 8
        widths = [width * 2**i for i in range(4)]
        self.conv_in = conv(3, widths[0], 3, "encoder_conv_in")
        self.down = [
            ResidualBlock(a, b, 2, groups, name=f"encoder_down_{i}") for i, (a, b) in enumerate(zip(widths, widths[1:]))
        ]
        deep = widths[-1]
        self.before, self.after = (
            ResidualBlock(deep, deep, 1, groups, name=f"encoder_{n}") for n in ("before", "after")
        )
        self.attention = AttentionResidual(deep, groups, name="encoder_attention")
        self.norm_out = group_norm(deep, "encoder_norm_out", groups)
        self.conv_out = conv(deep, latent_channels, 3, "encoder_conv_out")
        self.quantizer = Quantizer(num_codes, latent_channels, name="quantizer")
        self._build_decoder(latent_channels, decoder_width, groups)
        self.built = True

    def _build_decoder(self, latent_channels, deep, groups):
        self.decoder_in = conv(latent_channels, deep, 3, "decoder_conv_in")
        self.decoder_before, self.decoder_after = (
            ResidualBlock(deep, deep, 1, groups, name=f"decoder_{n}") for n in ("before", "after")
        )
        self.decoder_attention = AttentionResidual(deep, groups, name="decoder_attention")
        widths = [deep // 2**i for i in range(4)]
        self.up_residuals = [
            ResidualBlock(a, b, 1, groups, name=f"decoder_up_{i}_residual")
            for i, (a, b) in enumerate(zip(widths, widths[1:]))
        ]
        self.up_blocks = [UpBlock(b, b, name=f"decoder_up_{i}") for i, b in enumerate(widths[1:])]
        self.decoder_norm = group_norm(widths[-1], "decoder_norm_out", groups)
        self.decoder_out = conv(widths[-1], 3, 3, "decoder_conv_out")

    def encode(self, images, training=False):
        """[N, H, W, 3] in [-1, 1] -> latents [N, H / 8, W / 8, c], not quantised."""
        x = self.conv_in(images)
        for block in self.down:
            x = block(x)
        x = self.after(self.attention(self.before(x)))
        return self.conv_out(swish(self.norm_out(x)))

    def decode(self, latents, quantize=True, training=False):
        """Latents -> [N, H, W, 3] in [-1, 1]."""
        if quantize:
            latents = self.quantizer(latents)[0]
        x = self.decoder_in(latents)
        x = self.decoder_after(self.decoder_attention(self.decoder_before(x)))
        for residual, up in zip(self.up_residuals, self.up_blocks):
            x = up(residual(x), training=training)
        return ops.tanh(self.decoder_out(swish(self.decoder_norm(x))))

    def call(self, images, training=False):
        """Returns the reconstruction and the quantiser's loss."""
        latents, loss = self.quantizer(self.encode(images))
        return self.decode(latents, quantize=False, training=training), loss
