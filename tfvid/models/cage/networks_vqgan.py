"""The VQGAN autoencoder of latent diffusion (Esser et al. 2021; Rombach et al. 2022)."""

import dataclasses

import keras
from keras import ops

from tfvid.layers.scoped import scoped
from tfvid.layers.torch_conv import TorchConv2D
from tfvid.models.cage.quantizer import Quantizer


@dataclasses.dataclass(frozen=True)
class VQGANConfig:
    """Shape of a VQGAN; the fields are those of its published configurations."""

    embed_dim: int = 8
    n_embed: int = 16384
    z_channels: int = 8
    resolution: int = 256
    ch: int = 128
    ch_mult: tuple = (1, 1, 2, 2, 4)
    num_res_blocks: int = 2
    attn_resolutions: tuple = (16,)
    in_channels: int = 3
    out_ch: int = 3


CONFIGS = {
    "f8": VQGANConfig(4, 16384, 4, 256, 128, (1, 2, 2, 4), 2, (32,)),
    # The nominal resolution is 64, so that attention is at the third level only.
    "f8_small": VQGANConfig(4, 16384, 4, 64, 128, (1, 2, 2, 4), 2, (16,)),
    "f16": VQGANConfig(8, 16384, 8, 256, 128, (1, 1, 2, 2, 4), 2, (16,)),
}


def swish(x):
    """x * sigmoid(x)."""
    return x * ops.sigmoid(x)


def group_norm(channels, name, groups=32):
    """A built group normalisation with epsilon 1e-6."""
    layer = keras.layers.GroupNormalization(groups=groups, epsilon=1e-6, name=name)
    layer.build((None, None, None, channels))
    return layer


def conv(channels_in, channels_out, size, name, strides=1):
    """A "same" convolution with PyTorch's padding."""
    return TorchConv2D(channels_in, channels_out, size, strides=strides, padding=size // 2, name=name)


class ResnetBlock(keras.layers.Layer):
    """Norm, swish, convolution, twice; a 1x1 shortcut where the width changes."""

    @scoped
    def __init__(self, channels_in, channels_out, name=None):
        super().__init__(name=name)
        self.norm1, self.norm2 = group_norm(channels_in, "norm1"), group_norm(channels_out, "norm2")
        self.conv1 = conv(channels_in, channels_out, 3, "conv1")
        self.conv2 = conv(channels_out, channels_out, 3, "conv2")
        self.shortcut = None if channels_in == channels_out else conv(channels_in, channels_out, 1, "shortcut")
        self.built = True

    def call(self, x):
        y = self.conv1(swish(self.norm1(x)))
        y = self.conv2(swish(self.norm2(y)))
        return (x if self.shortcut is None else self.shortcut(x)) + y


class AttentionBlock(keras.layers.Layer):
    """Single-head attention over all positions, added to the input."""

    @scoped
    def __init__(self, channels, name=None):
        super().__init__(name=name)
        self.norm = group_norm(channels, "norm")
        self.q, self.k, self.v, self.out = (conv(channels, channels, 1, part) for part in ("q", "k", "v", "out"))
        self.built = True

    def call(self, x):
        _, height, width, channels = x.shape
        y = self.norm(x)
        q, k, v = (ops.reshape(layer(y), (-1, height * width, channels)) for layer in (self.q, self.k, self.v))
        weights = ops.softmax(ops.matmul(q, ops.swapaxes(k, 1, 2)) * channels**-0.5, axis=-1)
        return x + self.out(ops.reshape(ops.matmul(weights, v), (-1, height, width, channels)))


class Middle(keras.layers.Layer):
    """Residual block, attention, residual block."""

    @scoped
    def __init__(self, channels, name=None):
        super().__init__(name=name)
        self.block_1, self.block_2 = (
            ResnetBlock(channels, channels, "block_1"),
            ResnetBlock(channels, channels, "block_2"),
        )
        self.attn_1 = AttentionBlock(channels, "attn_1")
        self.built = True

    def call(self, x):
        return self.block_2(self.attn_1(self.block_1(x)))


class Encoder(keras.layers.Layer):
    """[N, H, W, 3] -> [N, H / f, W / f, z_channels]."""

    @scoped
    def __init__(self, config, name="encoder"):
        super().__init__(name=name)
        c, levels = config, len(config.ch_mult)
        self.conv_in = conv(c.in_channels, c.ch, 3, "conv_in")
        self.blocks, self.attentions, self.downsamples = [], [], []
        channels, resolution = c.ch, c.resolution
        for i, mult in enumerate(c.ch_mult):
            blocks, attentions = [], []
            for j in range(c.num_res_blocks):
                blocks.append(ResnetBlock(channels, c.ch * mult, name=f"down_{i}_block_{j}"))
                channels = c.ch * mult
                if resolution in c.attn_resolutions:
                    attentions.append(AttentionBlock(channels, name=f"down_{i}_attn_{j}"))
            self.blocks.append(blocks)
            self.attentions.append(attentions)
            if i < levels - 1:
                self.downsamples.append(TorchConv2D(channels, channels, 3, strides=2, name=f"down_{i}_downsample"))
                resolution //= 2
        self.mid = Middle(channels, name="mid")
        self.norm_out = group_norm(channels, "norm_out")
        self.conv_out = conv(channels, c.z_channels, 3, "conv_out")
        self.built = True

    def call(self, x):
        x = self.conv_in(x)
        for i, blocks in enumerate(self.blocks):
            for j, block in enumerate(blocks):
                x = block(x)
                if self.attentions[i]:
                    x = self.attentions[i][j](x)
            if i < len(self.downsamples):
                x = self.downsamples[i](ops.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0))))
        return self.conv_out(swish(self.norm_out(self.mid(x))))


class Decoder(keras.layers.Layer):
    """[N, h, w, z_channels] -> [N, h * f, w * f, 3]; not bounded."""

    @scoped
    def __init__(self, config, name="decoder"):
        super().__init__(name=name)
        c, levels = config, len(config.ch_mult)
        channels = c.ch * c.ch_mult[-1]
        resolution = c.resolution // 2 ** (levels - 1)
        self.conv_in = conv(c.z_channels, channels, 3, "conv_in")
        self.mid = Middle(channels, name="mid")
        # Lists run from level 0, the highest resolution, as the original's names do.
        self.blocks, self.attentions, self.upsamples = [], [], []
        for i in reversed(range(levels)):
            blocks, attentions = [], []
            for j in range(c.num_res_blocks + 1):
                blocks.append(ResnetBlock(channels, c.ch * c.ch_mult[i], name=f"up_{i}_block_{j}"))
                channels = c.ch * c.ch_mult[i]
                if resolution in c.attn_resolutions:
                    attentions.append(AttentionBlock(channels, name=f"up_{i}_attn_{j}"))
            self.blocks.insert(0, blocks)
            self.attentions.insert(0, attentions)
            self.upsamples.insert(0, conv(channels, channels, 3, f"up_{i}_upsample") if i > 0 else None)
            resolution *= 2
        self.norm_out = group_norm(channels, "norm_out")
        self.conv_out = conv(channels, c.out_ch, 3, "conv_out")
        self.built = True

    def call(self, z):
        x = self.mid(self.conv_in(z))
        for i in reversed(range(len(self.blocks))):
            for j, block in enumerate(self.blocks[i]):
                x = block(x)
                if self.attentions[i]:
                    x = self.attentions[i][j](x)
            if self.upsamples[i] is not None:
                x = self.upsamples[i](ops.repeat(ops.repeat(x, 2, axis=1), 2, axis=2))
        return self.conv_out(swish(self.norm_out(x)))


class VQGAN(keras.layers.Layer):
    """Autoencoder whose latents are those before quantisation.

    Args:
      config: a VQGANConfig.
    """

    @scoped
    def __init__(self, config, name="autoencoder"):
        super().__init__(name=name)
        self.config = config
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.quantizer = Quantizer(config.n_embed, config.embed_dim, name="quantizer")
        self.quant_conv = conv(config.z_channels, config.embed_dim, 1, "quant_conv")
        self.post_quant_conv = conv(config.embed_dim, config.z_channels, 1, "post_quant_conv")
        self.built = True

    @property
    def factor(self):
        """Pixels a latent position."""
        return 2 ** (len(self.config.ch_mult) - 1)

    @property
    def latent_channels(self):
        """c."""
        return self.config.embed_dim

    def encode(self, images, training=False):
        """[N, H, W, 3] in [-1, 1] -> latents [N, H / f, W / f, c], not quantised."""
        return self.quant_conv(self.encoder(images))

    def decode(self, latents, quantize=True, training=False):
        """Latents -> [N, H, W, 3], about [-1, 1]."""
        if quantize:
            latents = self.quantizer(latents)[0]
        return self.decoder(self.post_quant_conv(latents))

    def call(self, images, training=False):
        """Returns the reconstruction and the quantiser's loss."""
        latents, loss = self.quantizer(self.encode(images))
        return self.decode(latents, quantize=False), loss
