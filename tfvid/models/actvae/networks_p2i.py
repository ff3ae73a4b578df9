"""Pose to image: the generator that moves a person from one pose to another, and its discriminator.

The generator is that of Zhu et al., "Progressive Pose Attention Transfer for Person Image
Generation", 2019, with a mask head and with batch norm conditioned on the action in the
decoder (ACT-VAE, arXiv 2108.05658). All maps are [N, H, W, C].
"""

import functools
import typing

import keras
from keras import ops

from tfvid.layers import one_image, winograd
from tfvid.layers.batch_norm import BatchNorm
from tfvid.layers.bound import BoundLayer

INIT_STDDEV = 0.02


class Frame(typing.NamedTuple):
    """What the generator gives.

    Attributes:
      image: [N, H, W, 3] in [-1, 1], painted pixels and those of the source mixed.
      mask: [N, H, W, 1], share of the painted ones.
    """

    image: typing.Any
    mask: typing.Any


def _normal(mean=0.0):
    return keras.initializers.RandomNormal(mean, INIT_STDDEV)


class Conv2D(BoundLayer):
    """Convolution with explicit padding on all four sides.

    Args:
      channels_in, channels_out: channels.
      size: side of the kernel.
      stride: of both axes.
      padding: pixels on each side; with stride 1 half the kernel.
      mode: "reflect" or "constant" (zeros).
      use_bias: add a bias, initially 0.
    """

    def __init__(self, channels_in, channels_out, size, stride=1, padding=0, mode="reflect", use_bias=True, name=None):
        super().__init__(name)
        self.stride, self.padding, self.mode = stride, padding, mode
        self.kernel = self.weight("kernel", (size, size, channels_in, channels_out), _normal())
        self.bias = self.weight("bias", (channels_out,), "zeros") if use_bias else None

    def call(self, x):
        """As in training; `bind` is for evaluation, where one kernel convolves many maps."""
        y = self.convolve(x, self.read(self.kernel))
        return y if self.bias is None else y + self.read(self.bias)

    def bind(self):
        convolve = self.bind_kernel(self.read(self.kernel))
        if self.bias is None:
            return convolve
        bias = self.read(self.bias)
        return lambda x: convolve(x) + bias

    def bind_kernel(self, kernel):
        """As `bind`, with a given kernel and without the bias."""
        if self.stride == self.padding == 1:
            convolve = winograd.BoundConv2D(kernel)
            return lambda x: convolve(x, self.mode == "reflect")
        return lambda x: self.convolve(x, kernel)

    def convolve(self, x, kernel):
        """The convolution with a given kernel, without the bias."""
        if self.stride == 1:
            return winograd.conv2d(x, kernel, "same" if self.mode == "constant" else self.mode)
        p = self.padding
        x = ops.pad(x, ((0, 0), (p, p), (p, p), (0, 0)), mode=self.mode)
        return one_image.conv2d(x, kernel, self.stride, "valid")


class DoublingConv2D(BoundLayer):
    """Transposed convolution 3x3 of stride 2, padding 1 and output padding 1: [N, H, W, C] -> [N, 2H, 2W, out]."""

    def __init__(self, channels_in, channels_out, name):
        super().__init__(name)
        self.kernel = self.weight("kernel", (3, 3, channels_out, channels_in), _normal())
        self.bias = self.weight("bias", (channels_out,), "zeros")

    def bind(self):
        kernel, bias = self.read(self.kernel), self.read(self.bias)

        def double(x):
            # "valid" gives 2H + 1 rows, of which PyTorch's padding drops the first.
            y = ops.conv_transpose(x, kernel, strides=2, padding="valid", data_format="channels_last")
            return y[:, 1:, 1:] + bias

        return double


def _batch_norm(channels, name):
    norm = BatchNorm(momentum=0.1, epsilon=1e-5, scale_initializer=_normal(1.0), name=name)
    norm.build((None, None, None, channels))
    return norm


class ConvNorm(BoundLayer):
    """Convolution, batch norm and, where asked for, ReLU."""

    def __init__(self, channels_in, channels_out, size, name, relu=True, **conv):
        super().__init__(name)
        self.relu = relu
        with self.scope():
            self.conv = Conv2D(channels_in, channels_out, size, name="conv", **conv)
            self.norm = _batch_norm(channels_out, "norm")

    def call(self, x, training, updates=1):
        if not training:
            return self.bind()(x)
        x = self.norm(self.conv(x), training=True, updates=updates)
        return ops.relu(x) if self.relu else x

    def bind(self):
        """The layer in evaluation."""
        kernel, offset = self.folded()
        convolve = self.conv.bind_kernel(kernel)
        return lambda x: self.activate(convolve(x) + offset)

    def folded(self):
        """(kernel, offset [out]) in evaluation: the norm is a part of the convolution."""
        norm, bias = self.norm, self.conv.bias
        factor = norm.scale * ops.rsqrt(norm.running_variance + norm.epsilon)
        mean = norm.running_mean if bias is None else norm.running_mean - bias
        return self.read(self.conv.kernel * factor), self.read(norm.shift - mean * factor)

    def activate(self, x):
        return ops.relu(x) if self.relu else x


class ActionNorm(BoundLayer):
    """Batch norm whose scale and shift come from the action.

    Variables: table [K, 2C], a row of scales (initially 1) and shifts (0) for each class.
    """

    def __init__(self, channels, num_actions, name):
        super().__init__(name)
        self.channels = channels
        with self.scope():
            self.norm = BatchNorm(momentum=0.001, epsilon=1e-5, affine=False, name="norm")
            self.norm.build((None, None, None, channels))
        self.table = self.weight("table", (num_actions, 2 * channels), self._initial_table)

    @staticmethod
    def _initial_table(shape, dtype=None):
        half = (shape[0], shape[1] // 2)
        return ops.concatenate([ops.ones(half, dtype), ops.zeros(half, dtype)], axis=-1)

    def call(self, x, onehot, training):
        scale, shift = ops.split(ops.matmul(onehot, self.read(self.table))[:, None, None], 2, axis=-1)
        return self.norm(x, training=training, scale=scale, shift=shift)


class Encoder(BoundLayer):
    """[N, H, W, channels] -> [N, H/4, W/4, 4 ngf]."""

    def __init__(self, channels, ngf, name):
        super().__init__(name)
        with self.scope():
            self.stages = [
                ConvNorm(channels, ngf, 7, padding=3, name="stage1"),
                ConvNorm(ngf, 2 * ngf, 3, stride=2, padding=1, mode="constant", name="stage2"),
                ConvNorm(2 * ngf, 4 * ngf, 3, stride=2, padding=1, mode="constant", name="stage3"),
            ]

    def call(self, x, training):
        for stage in self.stages:
            x = stage(x, training=training)
        return x

    def bind(self):
        """The encoder in evaluation, its first convolution cut into parts.

        The convolution of all channels is the sum of its parts, so that what is the same
        for many inputs need be convolved once.

        Returns:
          part: function (x [N, H, W, stop - start], (start, stop)) -> [N, H, W, ngf], the
            share of these input channels.
          finish: function of the sum of all parts: what follows.
        """
        first = self.stages[0]
        kernel, offset = first.folded()
        rest = [stage.bind() for stage in self.stages[1:]]

        def part(x, channels):
            return first.conv.convolve(x, kernel[:, :, channels[0] : channels[1]])

        def finish(x):
            x = first.activate(x + offset)
            for stage in rest:
                x = stage(x)
            return x

        return part, finish


class AttentionBlock(BoundLayer):
    """One step of the transfer: the pose stream says where the image stream changes.

    Args:
      channels: d, of the image stream.
      pose_channels: of the pose stream that comes in.
    """

    def __init__(self, channels, pose_channels, name):
        super().__init__(name)
        with self.scope():
            self.image1 = ConvNorm(channels, channels, 3, padding=1, name="image1")
            self.image2 = ConvNorm(channels, channels, 3, padding=1, relu=False, name="image2")
            self.pose1 = ConvNorm(pose_channels, pose_channels, 3, padding=1, name="pose1")
            self.pose2 = Conv2D(pose_channels, channels, 3, padding=1, name="pose2")

    def call(self, image, pose, training):
        """(image stream [N, h, w, d], pose stream [N, h, w, 2d])."""
        if not training:
            return self.bind()(image, pose)
        attention = self.pose2(self.pose1(pose, training=True))
        change = self.image2(self.image1(image, training=True), training=True)
        return self.attend(image, change, attention)

    def bind(self):
        """The block in evaluation."""
        pose1, pose2, image1, image2 = (layer.bind() for layer in (self.pose1, self.pose2, self.image1, self.image2))
        return lambda image, pose: self.attend(image, image2(image1(image)), pose2(pose1(pose)))

    @staticmethod
    def attend(image, change, attention):
        """The image changes where the pose stream says so."""
        image = image + change * ops.sigmoid(attention)
        return image, ops.concatenate([attention, image], axis=-1)


class Generator(BoundLayer):
    """Frame of a person in a target pose from a frame in a source pose.

    Args:
      num_joints: J.
      num_actions: K.
      ngf: channels of the first layer.
      blocks: attention blocks.

    Heights and widths must be multiples of 4.
    """

    def __init__(self, num_joints, num_actions, ngf, blocks, name="generator"):
        super().__init__(name)
        self.num_joints = num_joints
        with self.scope():
            self.image_encoder = Encoder(3, ngf, "image_encoder")
            self.pose_encoder = Encoder(2 * num_joints, ngf, "pose_encoder")
            self.blocks = [
                AttentionBlock(4 * ngf, 8 * ngf if i else 4 * ngf, f"block{i}") for i in range(blocks)
            ]
            self.up1 = DoublingConv2D(4 * ngf, 2 * ngf, "up1")
            self.up1_norm = ActionNorm(2 * ngf, num_actions, "up1_norm")
            self.up2 = DoublingConv2D(2 * ngf, ngf, "up2")
            self.up2_norm = ActionNorm(ngf, num_actions, "up2_norm")
            self.head = Conv2D(ngf, 4, 7, padding=3, name="head")

    def call(self, image, source_maps, target_maps, onehot, training):
        """One frame for each source.

        Args:
          image: [N, H, W, 3] in [-1, 1].
          source_maps, target_maps: [N, H, W, J].
          onehot: [N, K].
          training: True normalises with the batch's statistics.

        Returns:
          A `Frame`.
        """
        encoded = self.image_encoder(self._narrow(image), training=training)
        maps = ops.concatenate([source_maps, target_maps], axis=-1)
        pose = self.pose_encoder(self._narrow(maps), training=training)
        onehot = self._narrow(onehot)

        def normalize(norm, x):
            return norm(x, onehot, training=training)

        blocks = [functools.partial(block, training=training) for block in self.blocks]
        return self.decode(image, encoded, pose, blocks, (self.up1, self.up2, self.head), normalize)

    def bind(self):
        """Evaluation in two parts, weights read and norms folded once for all frames.

        Returns:
          encode: function (image [N, H, W, 3], source_maps [N, H, W, J]) -> what all frames of
            a clip share: (encoded image, source part of the pose stream).
          frame: function (image, encoded, target_maps [N, H, W, J], onehot [N, K]) -> `Frame`.
        """
        part, finish = self.pose_encoder.bind()
        blocks = [block.bind() for block in self.blocks]
        layers = [layer.bind() for layer in (self.up1, self.up2, self.head)]
        joints = self.num_joints

        def encode(image, source_maps):
            encoded = self.image_encoder(self._narrow(image), training=False)
            return encoded, part(self._narrow(source_maps), (0, joints))

        def frame(image, encoded, target_maps, onehot):
            features, source_part = encoded
            pose = finish(source_part + part(self._narrow(target_maps), (joints, 2 * joints)))
            onehot = self._narrow(onehot)

            def normalize(norm, x):
                return norm(x, onehot, training=False)

            return self.decode(image, features, pose, blocks, layers, normalize)

        return encode, frame

    def decode(self, image, features, pose, blocks, layers, normalize):
        """Attention blocks, doubling and mixing; returns a `Frame`."""
        for block in blocks:
            features, pose = block(features, pose)
        up1, up2, head = layers
        x = ops.relu(normalize(self.up1_norm, up1(features)))
        x = ops.relu(normalize(self.up2_norm, up2(x)))
        x = ops.cast(head(x), image.dtype)
        painted, mask = ops.tanh(x[..., :3]), ops.sigmoid(x[..., 3:])
        return Frame(painted * mask + image * (1 - mask), mask)

    def _narrow(self, x):
        """The type that the layers compute in."""
        return ops.cast(x, self.compute_dtype)


class Discriminator(BoundLayer):
    """Scores of a frame and its pose maps: a map of 8 ndf numbers at each of H/8 x W/8 places.

    The original has no head of one channel and does not see the action.
    """

    def __init__(self, channels, ndf, blocks, name="discriminator"):
        super().__init__(name)
        with self.scope():
            self.first = ConvNorm(channels, ndf, 7, padding=3, use_bias=False, name="first")
            self.down = [
                ConvNorm(
                    ndf * 2**i, ndf * 2 ** (i + 1), 3, stride=2, padding=1, mode="constant", use_bias=False,
                    name=f"down{i + 1}",
                )
                for i in range(3)
            ]
            same = {"size": 3, "padding": 1, "use_bias": False}
            self.residual = [
                (
                    ConvNorm(8 * ndf, 8 * ndf, name=f"residual{i}_1", **same),
                    ConvNorm(8 * ndf, 8 * ndf, name=f"residual{i}_2", relu=False, **same),
                )
                for i in range(blocks)
            ]

    def call(self, image, maps, training, updates=1):
        """Scores and features.

        Args:
          image: [N, H, W, 3] in [-1, 1].
          maps: [N, H, W, J], of the pose that the image should show.
          training: True normalises with the batch's statistics.
          updates: how often the running statistics move, where the original runs one
            batch several times.

        Returns:
          scores [N, H/8, W/8, 8 ndf], features: list of three.
        """
        mode = {"training": training, "updates": updates}
        x = ops.cast(ops.concatenate([image, maps], axis=-1), self.compute_dtype)
        x = self.first(x, **mode)
        features = []
        for layer in self.down:
            x = layer(x, **mode)
            features.append(x)
        for first, second in self.residual:
            x = x + second(first(x, **mode), **mode)
        return x, features
