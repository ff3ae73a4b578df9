"""From layouts to frames: flow network, warping, SPADE generator (AG2Vid, section 3.3).

The generator is that of Park et al., "Semantic Image Synthesis with Spatially-Adaptive
Normalization", 2019; the flow network that of Wang et al., "Few-shot Video-to-Video
Synthesis", 2019.
"""

import re

import keras
from keras import ops

from tfvid.layers import convolutions
from tfvid.layers.batch_norm import BatchNorm
from tfvid.layers.sampling import interpolate_bilinear
from tfvid.layers.scoped import scoped
from tfvid.layers.torch_conv import TorchConv2D, TorchConvTranspose2D
from tfvid.models.ag2vid.layout import Layout, convolve_sum

SLOPE = 0.2
# Pixels of a map from which on the generator's blocks compute one call at a time: its activations take hundreds of
# megabytes.
LARGE = 128 * 128


def leaky_relu(x):
    """max(x, 0.2 x), whose derivative at 0 is 0.2, in the type of `x`."""
    return convolutions.leaky_relu(x, SLOPE)


def normalize_calls(norm, x, training, calls):
    """`norm` of each call's part of `x` [calls * B, H, W, C] by itself, one after another."""
    if calls == 1 or not training or isinstance(norm, InstanceNorm):
        return norm(x, training=training)
    return ops.concatenate([norm(part, training=training) for part in ops.split(x, calls)])


class InstanceNorm(keras.layers.Layer):
    """(x - mean) / sqrt(variance + 1e-5) of each channel of each image; nothing is learnt."""

    def call(self, x, training=False):
        dtype = x.dtype
        x = ops.cast(x, self.variable_dtype)  # statistics in bfloat16 would be far off
        mean, variance = ops.moments(x, (1, 2), keepdims=True)
        return ops.cast((x - mean) * ops.rsqrt(variance + 1e-5), dtype)


def make_norm(kind, channels, affine, name):
    """ "syncbatch" and "batch": batch norm; "instance": instance norm without affine."""
    if kind == "instance":
        return InstanceNorm(name=name)
    norm = BatchNorm(affine=affine, name=name)
    norm.build((None, None, None, channels))
    return norm


def parse_norm(text):
    """ "spectralsyncbatch" -> (True, "syncbatch"); ValueError for another kind."""
    match = re.fullmatch(r"(spectral)?(syncbatch|batch|instance)", text)
    if not match:
        raise ValueError(f"expected [spectral]syncbatch, batch or instance. Received: {text!r}")
    return bool(match[1]), match[2]


def parse_spade(text):
    """ "spectralspadesyncbatch3x3" -> (True, "syncbatch", 3)."""
    match = re.fullmatch(r"(spectral)?spade(syncbatch|batch|instance)(\d)x\3", text)
    if not match or int(match[3]) % 2 == 0:
        raise ValueError(f"expected [spectral]spade<syncbatch|batch|instance><k>x<k>, k odd. Received: {text!r}")
    return bool(match[1]), match[2], int(match[3])


def convolve_layouts(convolution, layouts, images, training, calls=1, images_first=False):
    """`convolution` over the channels [layout, ..., images], the layouts never rasterised.

    With `images_first` the channels are [images, layout, ...].
    """
    kernel, factor = convolution.normalized(training, calls, convolution.positions(images))
    # Slices next to each other, cut at once.
    widths = [layout.vectors.shape[-1] for layout in layouts]
    widths = [images.shape[-1], *widths] if images_first else [*widths, images.shape[-1]]
    parts = ops.split(kernel, [sum(widths[:i]) for i in range(1, len(widths))], axis=2)
    of_images = parts.pop(0 if images_first else -1)
    of_layouts = convolve_sum(layouts, parts, convolution.strides, convolution.padding)
    return convolution.finish(convolution.convolve(images, of_images) + of_layouts, factor)


def nearest_resize(x, height, width):
    """Nearest resize that takes index floor(i * in / out): the top-left pixel of each cell."""
    rows, columns = x.shape[1:3]
    if (rows, columns) == (height, width):
        return x
    if rows % height == 0 and columns % width == 0:
        return x[:, :: rows // height, :: columns // width]
    for axis, source, size in ((1, rows, height), (2, columns, width)):
        if source != size:
            x = ops.take(x, [i * source // size for i in range(size)], axis=axis)
    return x


def keep(function, layers, inputs, constants=(), calls=1, parts=1):
    """What stands in for `tfvid.models.recompute.recomputed` where activations are kept."""
    return function(inputs, constants, calls)


class Pyramid:
    """A map at several sizes, as `nearest_resize` gives them, each taken from the next larger one if it can be.

    The corner of each cell is the corner of its corner, so that where sizes divide each
    other this is the same map, and its gradient need not be spread to full size each time.
    """

    def __init__(self, x):
        self._maps = {tuple(x.shape[1:3]): x}
        height, width = x.shape[1:3]
        while height % 2 == 0 and width % 2 == 0:
            smaller = nearest_resize(self._maps[height, width], height // 2, width // 2)
            height, width = height // 2, width // 2
            self._maps[height, width] = smaller
        self._whole = x

    def at(self, height, width):
        if (height, width) not in self._maps:
            self._maps[height, width] = nearest_resize(self._whole, height, width)
        return self._maps[height, width]


def double(x):
    """Nearest x2 up-sampling."""
    return ops.repeat(ops.repeat(x, 2, axis=1), 2, axis=2)


def resample(image, flow, align_corners=False):
    """Backward warp: bilinear, clamped to the image.

    Args:
      image: [B, H, W, C].
      flow: [B, H, W, 2] in pixels, x first.
      align_corners: False keeps the original's mismatch of grids, by which a flow of
        zero is a slight zoom and blur that the flow network learns to undo; True
        makes a flow of zero the identity.

    Returns:
      [B, H, W, C]; NaN where the flow is.
    """
    height, width = image.shape[1:3]
    x = _source(flow[..., 0], width, (1, 1, width), align_corners)
    y = _source(flow[..., 1], height, (1, height, 1), align_corners)
    points = ops.reshape(ops.stack([y, x], axis=-1), (-1, height * width, 2))
    return ops.reshape(interpolate_bilinear(image, points), (-1, height, width, image.shape[-1]))


def _source(flow, size, shape, align_corners):
    """Source coordinate along one axis; no gradient where it is clamped."""
    index = ops.reshape(ops.arange(size, dtype=flow.dtype), shape)
    if align_corners:
        source = index + flow
    else:
        # In this order, so that coordinates that are whole numbers round as the original's do.
        grid = (index / (size - 1) * 2 - 1) + flow / ((size - 1.0) / 2.0)
        source = ((grid + 1) * size - 1) / 2
    inside = ops.logical_and(source > 0, source < size - 1)
    return ops.where(inside, source, ops.stop_gradient(ops.clip(source, 0, size - 1)))


class ConvNorm(keras.layers.Layer):
    """Convolution without bias, norm, leaky ReLU."""

    @scoped
    def __init__(self, channels_in, channels_out, norm, strides=1, transposed=False, name=None):
        super().__init__(name=name)
        spectral, kind = norm
        if transposed:
            self.convolution = TorchConvTranspose2D(
                channels_in, channels_out, use_bias=False, spectral=spectral, name="convolution"
            )
        else:
            self.convolution = TorchConv2D(
                channels_in,
                channels_out,
                3,
                strides=strides,
                padding=1,
                use_bias=False,
                spectral=spectral,
                name="convolution",
            )
        self.norm = make_norm(kind, channels_out, True, "norm")
        self.built = True

    def call(self, x, training, layouts=(), calls=1):
        if layouts:
            x = convolve_layouts(self.convolution, layouts, x, training, calls)
        else:
            x = self.convolution(x, training=training, calls=calls)
        return leaky_relu(normalize_calls(self.norm, x, training, calls))


class FlowResidual(keras.layers.Layer):
    """x + conv(act(norm(conv(act(norm(x))))))."""

    @scoped
    def __init__(self, channels, norm, name=None):
        super().__init__(name=name)
        spectral, kind = norm
        self.norms = [make_norm(kind, channels, True, f"norm_{i}") for i in range(2)]
        self.convolutions = [
            TorchConv2D(channels, channels, 3, padding=1, spectral=spectral, name=f"convolution_{i}") for i in range(2)
        ]
        self.built = True

    def call(self, x, training, calls=1):
        y = x
        for norm, convolution in zip(self.norms, self.convolutions):
            y = leaky_relu(normalize_calls(norm, y, training, calls))
            y = convolution(y, training=training, calls=calls)
        return x + y


class FlowNetwork(keras.layers.Layer):
    """Predicts the flow from the previous frames to the next.

    Args:
      channels_in: n layouts' channels and (n-1) frames' 3.
      width: nff, channels of the first layer.
      num_downsamplings, num_blocks: depth.
      multiplier: pixels that an output of 1 stands for.
      norm: "spectralsyncbatch", "spectralinstance", ...
      transposed: up-sample by transposed convolutions.
    """

    @scoped
    def __init__(
        self,
        channels_in,
        *,
        width=32,
        num_downsamplings=3,
        num_blocks=6,
        multiplier=20.0,
        norm="spectralsyncbatch",
        transposed=False,
        name=None,
    ):
        super().__init__(name=name)
        norm = parse_norm(norm)
        widths = [min(1024, width * 2**i) for i in range(num_downsamplings + 1)]
        self.multiplier, self.transposed = multiplier, transposed
        self.down = [ConvNorm(channels_in, widths[0], norm, name="down_0")]
        for i in range(num_downsamplings):
            self.down.append(ConvNorm(widths[i], widths[i + 1], norm, strides=2, name=f"down_{i + 1}"))
        self.blocks = [FlowResidual(widths[-1], norm, name=f"block_{i}") for i in range(num_blocks)]
        self.up = []
        for i in reversed(range(num_downsamplings)):
            self.up.append(ConvNorm(widths[i + 1], widths[i], norm, transposed=transposed, name=f"up_{i}"))
        self.flow_head = TorchConv2D(widths[0], 2, 3, padding=1, name="flow_head")
        self.weight_head = TorchConv2D(widths[0], 1, 3, padding=1, name="weight_head")
        self.built = True

    def call(self, frames, training, layouts=(), calls=1):
        """Returns the flow [B, H, W, 2] in pixels; `layouts` come before `frames` in the channels."""
        return self.heads(frames, training, layouts, calls, with_weight=False)[0]

    def heads(self, frames, training, layouts=(), calls=1, with_weight=True):
        """(flow, weight [B, H, W, 1] in (0, 1)); the model never uses the weight."""
        x = self.down[0](frames, training=training, layouts=layouts, calls=calls)
        for layer in [*self.down[1:], *self.blocks]:
            x = layer(x, training=training, calls=calls)
        for layer in self.up:
            x = layer(x if self.transposed else double(x), training=training, calls=calls)
        flow = self.flow_head(x) * self.multiplier
        return flow, ops.sigmoid(self.weight_head(x)) if with_weight else None


class Spade(keras.layers.Layer):
    """Parameters of one spatially-adaptive normalisation (Park et al. 2019, section 3)."""

    @scoped
    def __init__(self, channels, condition_channels, kind, kernel_size, name=None):
        super().__init__(name=name)
        padding = kernel_size // 2
        self.norm = make_norm(kind, channels, False, "norm")
        self.shared = TorchConv2D(condition_channels, 128, kernel_size, padding=padding, name="shared")
        self.gamma = TorchConv2D(128, channels, kernel_size, padding=padding, name="gamma")
        self.beta = TorchConv2D(128, channels, kernel_size, padding=padding, name="beta")
        self.built = True

    def call(self, x, hidden, training, calls=1):
        """Normalises `x` [B, h, w, channels]; `hidden` is ReLU(shared(condition)) at its size."""
        # Gamma and beta see the same map: one convolution of twice the width.
        kernel = ops.concatenate([self.gamma.kernel, self.beta.kernel], axis=-1)
        both = self.gamma.convolve(hidden, kernel) + ops.concatenate([self.gamma.bias, self.beta.bias])
        gamma, beta = ops.split(both, 2, axis=-1)
        return normalize_calls(self.norm, x, training, calls) * (1 + gamma) + beta


def shared_maps(spades, condition):
    """ReLU(shared convolution) of several SPADEs on one condition, as one convolution."""
    kernel = ops.concatenate([s.shared.kernel for s in spades], axis=-1)
    bias = ops.concatenate([s.shared.bias for s in spades])
    maps = ops.split(spades[0].shared.convolve(condition, kernel) + bias, len(spades), axis=-1)
    return [ops.relu(m) for m in maps]  # cut before: the gradients of the activation and of what follows keep one map


class SpadeBlock(keras.layers.Layer):
    """Residual block whose norms are conditioned; a learnt shortcut where the width changes."""

    @scoped
    def __init__(self, channels_in, channels_out, condition_channels, norm, name=None):
        super().__init__(name=name)
        spectral, kind, kernel_size = parse_spade(norm)
        middle = min(channels_in, channels_out)

        def spade(channels, name):
            return Spade(channels, condition_channels, kind, kernel_size, name=name)

        self.norm_0, self.norm_1 = spade(channels_in, "norm_0"), spade(middle, "norm_1")
        self.conv_0 = TorchConv2D(channels_in, middle, 3, padding=1, spectral=spectral, name="conv_0")
        self.conv_1 = TorchConv2D(middle, channels_out, 3, padding=1, spectral=spectral, name="conv_1")
        self.norm_s = self.conv_s = None
        if channels_in != channels_out:
            self.norm_s = spade(channels_in, "norm_s")
            self.conv_s = TorchConv2D(channels_in, channels_out, 1, use_bias=False, spectral=spectral, name="conv_s")
        self.built = True

    def call(self, x, condition, training, calls=1):
        """`condition` is the map at the size of `x`, or larger."""
        mode = {"training": training, "calls": calls}
        condition = nearest_resize(condition, *x.shape[1:3])
        spades = [s for s in (self.norm_0, self.norm_1, self.norm_s) if s is not None]
        maps = shared_maps(spades, condition)
        shortcut = x
        if self.conv_s is not None:
            shortcut = self.conv_s(self.norm_s(x, maps[2], **mode), **mode)
        y = self.conv_0(leaky_relu(self.norm_0(x, maps[0], **mode)), **mode)
        y = self.conv_1(leaky_relu(self.norm_1(y, maps[1], **mode)), **mode)
        return shortcut + y


# Up-sampling of the generator -> log2 of its whole factor.
UPSAMPLINGS = {"normal": 5, "more": 6, "most": 7}


def first_size(width, upsampling, aspect_ratio):
    """(rows, columns) of the generator's first map for frames of this width; frames are 2^5, 2^6 or 2^7 times that."""
    columns = width // 2 ** UPSAMPLINGS[upsampling]
    return round(columns / aspect_ratio), columns


class SpadeGenerator(keras.layers.Layer):
    """Draws a frame in [-1, 1] from a map of the frame's size.

    Args:
      condition_channels: of the map.
      width: ngf.
      upsampling: "normal", "more" or "most"; the size must be divisible by 2^5, 2^6, 2^7.
      norm: "spectralspadesyncbatch3x3", ...
      aspect_ratio: width / height of the first, smallest map.
    """

    @scoped
    def __init__(
        self,
        condition_channels,
        *,
        width=64,
        upsampling="normal",
        norm="spectralspadesyncbatch3x3",
        aspect_ratio=1.0,
        name=None,
    ):
        super().__init__(name=name)
        self.upsampling, self.aspect_ratio = upsampling, aspect_ratio
        f = width
        self.first = TorchConv2D(condition_channels, 16 * f, 3, padding=1, name="first")
        sizes = {
            "head_0": (16 * f, 16 * f),
            "G_middle_0": (16 * f, 16 * f),
            "G_middle_1": (16 * f, 16 * f),
            "up_0": (16 * f, 8 * f),
            "up_1": (8 * f, 4 * f),
            "up_2": (4 * f, 2 * f),
            "up_3": (2 * f, f),
        }
        if upsampling == "most":
            sizes["up_4"] = (f, f // 2)
        self.blocks = {
            name: SpadeBlock(*channels, condition_channels, norm, name=name) for name, channels in sizes.items()
        }
        last = f // 2 if upsampling == "most" else f
        self.to_rgb = TorchConv2D(last, 3, 3, padding=1, name="to_rgb")
        self.built = True

    def call(self, condition, training, calls=1, run=keep):
        """`run` calls each block: `keep`, or `tfvid.models.recompute.recomputed`."""
        rows, columns = first_size(condition.shape[2], self.upsampling, self.aspect_ratio)
        conditions = Pyramid(condition)
        x = self.first(conditions.at(rows, columns))
        for name, block in self.blocks.items():
            if name == "G_middle_0" or name.startswith("up_") or (name == "G_middle_1" and self.upsampling != "normal"):
                rows, columns = 2 * rows, 2 * columns

            def draw(inputs, _, calls, block=block, rows=rows):
                x, condition = inputs
                return block(x if x.shape[1] == rows else double(x), condition, training=training, calls=calls)

            parts = calls if rows * columns >= LARGE else 1
            x = run(draw, [block], (x, conditions.at(rows, columns)), calls=calls, parts=parts)
        return run(lambda inputs, *_: ops.tanh(self.to_rgb(leaky_relu(inputs[0]))), [self.to_rgb], (x,))


class VideoGenerator(keras.layers.Layer):
    """One frame from layouts and previous frames: flow, warp, residual.

    Args:
      layout_channels: L, channels of one layout.
      num_frames: n, layouts that a frame sees (its own and n-1 before).
      condition_channels: sem, width of the map that conditions the generator.
      flow: keyword arguments of FlowNetwork. generator: of SpadeGenerator.
      align_corners: of `resample`.
    """

    @scoped
    def __init__(
        self,
        layout_channels,
        num_frames,
        condition_channels,
        *,
        flow,
        generator,
        align_corners=False,
        flow_norm="spectralsyncbatch",
        name=None,
    ):
        # Frames, flows and source coordinates stay as wide as they come.
        super().__init__(name=name, autocast=False)
        self.align_corners = align_corners
        self.run = keep  # in training; `tfvid.models.recompute.recomputed` takes less memory
        seen = num_frames * layout_channels
        self.flow = FlowNetwork(seen + 3 * (num_frames - 1), norm=flow_norm, name="flow", **flow)
        # In the original this layer is a spectral one with batch norm whatever the options.
        self.condition = ConvNorm(seen + 3, condition_channels, (True, "syncbatch"), name="condition")
        self.generator = SpadeGenerator(condition_channels, name="generator", **generator)
        self.built = True

    def call(self, layouts, previous, training, calls=1):
        """Draws the next frame, or those of several calls at once.

        Args:
          layouts: n Layouts, oldest first, the last one that of the frame to draw.
          previous: [B, H, W, 3 (n-1)] previous frames, oldest first.
          training: normalise by the batch and advance the spectral norms.
          calls: how many frames are drawn at once, which takes that all previous frames are
            known. Every batch axis is then calls * B; statistics and spectral norms are
            those of calls one after another.

        Returns:
          frame [B, H, W, 3], flow [B, H, W, 2] in pixels, warped [B, H, W, 3].
        """
        run = self.run if training else keep
        vectors, ramps = zip(*((layout.vectors, layout[1:]) for layout in layouts))
        everything = {"constants": ramps, "calls": calls, "parts": calls}

        def through(network):
            def function(inputs, ramps, calls):
                images, vectors = inputs
                layouts = [Layout(v, *r) for v, r in zip(vectors, ramps)]
                return network(images, training=training, layouts=layouts, calls=calls)

            return function

        flow = run(through(self.flow), [self.flow], (previous, vectors), **everything)
        flow = ops.cast(flow, previous.dtype)
        warped = resample(previous[..., -3:], flow, self.align_corners)
        condition = run(through(self.condition), [self.condition], (warped, vectors), **everything)
        residual = ops.cast(self.generator(condition, training=training, calls=calls, run=run), warped.dtype)
        return residual + warped, flow, warped
