"""Discriminators with spectral norm: of a frame, of each frame of a clip, of a clip."""

from keras import ops

from tfvid.layers.bound import BoundLayer, value_of
from tfvid.layers.convolutions import conv_border, leaky_relu
from tfvid.layers.spectral_norm import SpectralKernel

# (name, kernel size, multiple of ndf, spatial stride, stride in time).
LAYERS = (
    ("sn_conv0_0", 3, 1, 1, 1),
    ("sn_conv0_1", 4, 2, 2, 1),
    ("sn_conv1_0", 3, 2, 1, 1),
    ("sn_conv1_1", 4, 4, 2, 1),
    ("sn_conv2_0", 3, 4, 1, 1),
    ("sn_conv2_1", 4, 8, 2, 2),
    ("sn_conv3_0", 3, 8, 1, 1),
)


class SpectralConv(BoundLayer):
    """Border of one zero, convolution with kernel / sigma, bias; over 2 or 3 axes.

    The bias of a 3-D one lies beside the scope of the kernel, as in the original:
    <name>/conv3d/{kernel,u}, <name>/bias; <name>/conv2d/{kernel,u,bias}.
    """

    def __init__(self, name, inputs, outputs, size, strides):
        super().__init__(name)
        rank = len(strides)
        self.strides, self.outputs = strides, outputs
        with self.scope():
            self.spectral = SpectralKernel((size,) * rank + (inputs, outputs), f"conv{rank}d", use_bias=rank == 2)
        self.own_bias = self.weight("bias", (outputs,), "zeros") if rank == 3 else None

    @property
    def bias(self):
        """The bias variable, wherever it lies."""
        return self.spectral.bias if self.own_bias is None else self.own_bias

    def bind(self, u=None):
        kernel, advanced = self.spectral.normalized(u)
        bias = self.read(self.bias)
        return (lambda x: conv_border(x, kernel, self.strides) + bias), advanced


class SpectralDense(BoundLayer):
    """x [B, in] -> [B, 1]: <name>/dense/{kernel,u,bias}."""

    def __init__(self, name, inputs):
        super().__init__(name)
        with self.scope():
            self.spectral = SpectralKernel((inputs, 1), "dense")

    def bind(self, u=None):
        kernel, advanced = self.spectral.normalized(u)
        bias = self.read(self.spectral.bias)
        return (lambda x: ops.matmul(x, kernel) + bias), advanced


class SpectralDiscriminator(BoundLayer):
    """Seven leaky convolutions and a dense layer: one logit for a frame or a clip.

    Args:
      name: "image", "images" (frames) or "video" (clips).
      shape: of the input without batch: (H, W, C) or (T, H, W, C).
      ndf: channels of the first layer.
    """

    def __init__(self, name, shape, ndf):
        super().__init__(name)
        *sizes, channels = shape
        with self.scope():
            self.convs = []
            for layer, kernel, width, stride, time_stride in LAYERS:
                strides = (stride,) * len(sizes) if len(sizes) == 2 else (time_stride, stride, stride)
                self.convs.append(SpectralConv(layer, channels, width * ndf, kernel, strides))
                channels = width * ndf
                sizes = [(n + 2 - kernel) // s + 1 for n, s in zip(sizes, strides)]
            features = channels
            for n in sizes:
                features *= n
            self.logits = SpectralDense("sn_fc4", features)

    @property
    def spectral_kernels(self):
        """Every SpectralKernel, in order."""
        return [layer.spectral for layer in (*self.convs, self.logits)]

    def bind(self, vectors=None):
        """Returns (judge, advanced vectors).

        Args:
          vectors: the u of each spectral kernel to start from; None: the stored ones.

        Returns:
          judge: [B, *shape] -> (logits [B, 1], list of the seven feature maps).
          list of the advanced u.
        """
        vectors = vectors or [None] * (len(self.convs) + 1)
        bound = [layer.bind(u) for layer, u in zip((*self.convs, self.logits), vectors)]
        functions, advanced = [f for f, _ in bound], [u for _, u in bound]

        def judge(x):
            x, features = ops.cast(x, self.compute_dtype), []
            for conv in functions[:-1]:
                x = leaky_relu(conv(x), 0.1)
                features.append(x)
            return functions[-1](ops.reshape(x, (ops.shape(x)[0], -1))), features

        return judge, advanced


class DiscriminatorSet(BoundLayer):
    """The discriminators that judge one rollout.

    Args:
      name: of the set.
      kinds: subset of ("image_sn", "images_sn", "video_sn").
      shape: (H, W, C) of a frame.
      hparams: SAVPHParams.
    """

    def __init__(self, name, kinds, shape, hparams):
        super().__init__(name)
        self.clip_length = hparams.clip_length
        with self.scope():
            self.nets = {kind: self._net(kind, shape, hparams) for kind in kinds}

    def _net(self, kind, shape, hparams):
        shape = (hparams.clip_length, *shape) if kind == "video_sn" else tuple(shape)
        return SpectralDiscriminator(kind.removesuffix("_sn"), shape, hparams.ndf)

    def vectors(self):
        """{kind: list of stored u}, to start several passes of one step from the same vectors."""
        return {k: [value_of(s.u) for s in net.spectral_kernels] for k, net in self.nets.items()}

    def assign_vectors(self, vectors):
        """Stores advanced vectors, {kind: list of u}."""
        for kind, net in self.nets.items():
            for spectral, u in zip(net.spectral_kernels, vectors[kind]):
                spectral.u.assign(u)

    def bind(self, vectors=None):
        """Returns (judge, advanced vectors).

        judge(videos, offsets, kinds): `videos` is a list of [B, T, H, W, C] of one shape,
        judged in one call by the discriminators `kinds`; `offsets` a list of {"t_sample":
        int32 [B] (for image_sn), "t_start": int32 [B] (for the others)}. Gives a list of
        {kind: (logits, features)}, one for each video: logits and
        features of image_sn are [B, ...], of images_sn [B, clip_length, ...], of
        video_sn [B, ...] and [B, time, ...].
        """
        bound = {kind: net.bind(vectors and vectors[kind]) for kind, net in self.nets.items()}

        def judge(videos, offsets, kinds):
            outputs = [{} for _ in videos]
            clips = _clips(videos, offsets, self.clip_length) if set(kinds) - {"image_sn"} else None
            for kind in kinds:
                net = bound[kind][0]
                x = _frames(videos, offsets) if kind == "image_sn" else clips
                logits, features = _per_frame(net, x) if kind == "images_sn" else net(x)
                parts = [ops.split(y, len(videos), axis=0) for y in (logits, *features)]
                for i, output in enumerate(outputs):
                    output[kind] = parts[0][i], [part[i] for part in parts[1:]]
            return outputs

        return judge, {kind: advanced for kind, (_, advanced) in bound.items()}


def _per_frame(net, clips):
    """Applies a net of frames to clips [B, t, H, W, C]; outputs lead with [B, t]."""
    length = clips.shape[1]
    logits, features = net(ops.reshape(clips, (-1, *clips.shape[2:])))
    shaped = [ops.reshape(y, (-1, length, *y.shape[1:])) for y in (logits, *features)]
    return shaped[0], shaped[1:]


def _frames(videos, offsets):
    """One frame of each video, all videos along the batch: [N B, H, W, C]."""
    return ops.concatenate([_take(v, o["t_sample"], 1)[:, 0] for v, o in zip(videos, offsets)], axis=0)


def _clips(videos, offsets, length):
    """One clip of each video, all videos along the batch: [N B, length, H, W, C]."""
    return ops.concatenate([_take(v, o["t_start"], length) for v, o in zip(videos, offsets)], axis=0)


def _take(video, start, length):
    """`length` frames of each video [B, T, H, W, C] from its own `start` [B]."""
    batch, frames = ops.shape(video)[0], video.shape[1]
    time = start[:, None] + ops.arange(length, dtype="int32")[None, :]
    index = ops.reshape(time + ops.arange(batch, dtype="int32")[:, None] * frames, (-1,))
    rows = ops.take(ops.reshape(video, (-1, *video.shape[2:])), index, axis=0)
    return ops.reshape(rows, (batch, length, *video.shape[2:]))
