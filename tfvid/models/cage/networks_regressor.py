"""The vector-field regressor of CAGE: a transformer over the latents of a few frames.

Davtyan et al., "CAGE: Unsupervised Visual Composition and Animation for Controllable Video
Generation", AAAI 2025. Axes: b batch, l frames, n grid positions (row-major), m kept
positions, D width. Noise is an argument: `order` for the positions that training keeps,
`drop` for dropout.
"""

import math

import keras
from keras import ops

from tfvid.layers import torch_init
from tfvid.layers.scoped import scoped
from tfvid.layers.torch_conv import TorchConv2D


def no_drop(name, x):
    """The dropout of evaluation."""
    return x


def linear(channels_in, channels_out, name, use_bias=True):
    """A built linear layer with PyTorch's initial values."""
    uniform = torch_init.uniform
    layer = keras.layers.Dense(
        channels_out,
        use_bias=use_bias,
        kernel_initializer=uniform(channels_in),
        bias_initializer=uniform(channels_in),
        name=name,
    )
    layer.build((None, channels_in))
    return layer


def layer_norm(channels, name, epsilon=1e-5):
    """A built layer normalisation over the last axis."""
    layer = keras.layers.LayerNormalization(epsilon=epsilon, name=name)
    layer.build((None, channels))
    return layer


def gelu(x):
    """x * Phi(x), exactly."""
    return ops.gelu(x, approximate=False)


def split_heads(x, heads):
    """[..., n, heads * d] -> [..., heads, n, d]."""
    x = ops.reshape(x, (*ops.shape(x)[:-1], heads, x.shape[-1] // heads))
    return ops.swapaxes(x, -3, -2)


def merge_heads(x):
    """[..., heads, n, d] -> [..., n, heads * d]."""
    x = ops.swapaxes(x, -3, -2)
    return ops.reshape(x, (*ops.shape(x)[:-2], x.shape[-2] * x.shape[-1]))


def attend(q, k, v, scale, drop=lambda x: x, bias=None):
    """softmax(q k^T * scale + bias) v, in the softmax' own precision."""
    logits = ops.matmul(q * scale, ops.swapaxes(k, -1, -2))
    if bias is not None:
        logits = logits + bias
    return ops.matmul(drop(ops.softmax(logits, axis=-1)), v)


def time_embedding(t, dim):
    """[...] times in [0, 1] -> [..., dim]: cosines, then sines, of 200 t / 10000^(i / (dim // 2))."""
    half = dim // 2
    frequencies = ops.exp(ops.arange(half, dtype=t.dtype) * (-math.log(10000) / half))
    angles = 200 * t[..., None] * frequencies
    parts = [ops.cos(angles), ops.sin(angles)]
    if dim % 2:
        parts.append(ops.zeros_like(angles[..., :1]))
    return ops.concatenate(parts, axis=-1)


class GridEmbedding(keras.layers.Layer):
    """Learnt embeddings of rows and columns: position (i, j) is [column j, row i]."""

    SIZE = 512

    @scoped
    def __init__(self, dim, name=None):
        super().__init__(name=name)

        def table(name):
            # U(-1, 1), as the original draws them.
            return self.add_weight(
                name=name, shape=(self.SIZE, dim // 2), initializer=keras.initializers.RandomUniform(-1, 1)
            )

        self.rows, self.columns = table("rows"), table("columns")
        self.built = True

    def grid(self, height, width):
        """[height * width, D]."""
        columns = ops.broadcast_to(self.columns[None, :width], (height, width, self.columns.shape[1]))
        rows = ops.broadcast_to(self.rows[:height, None], (height, width, self.rows.shape[1]))
        return ops.reshape(ops.concatenate([columns, rows], axis=-1), (height * width, -1))


class FeedForward(keras.layers.Layer):
    """Linear, GELU, linear."""

    @scoped
    def __init__(self, dim, hidden, name=None):
        super().__init__(name=name)
        self.first, self.second = linear(dim, hidden, "first"), linear(hidden, dim, "second")
        self.built = True

    def call(self, x):
        return self.second(gelu(self.first(x)))


class TimedLayer(keras.layers.Layer):
    """Self-attention with a time term, then a feed-forward network; no output projection.

    The scale is 1 / sqrt(D), not of a head's width (as in the original). The time term
    is shared by all heads and tokens of a frame.
    """

    @scoped
    def __init__(self, dim, heads, hidden, name=None):
        super().__init__(name=name)
        self.dim, self.heads = dim, heads
        self.norm_1, self.norm_2 = layer_norm(dim, "norm_1"), layer_norm(dim, "norm_2")
        self.qkv = linear(dim, 3 * dim, "qkv", use_bias=False)
        self.time_qkv = linear(dim, 3 * (dim // heads), "time_qkv", use_bias=False)
        self.feed_forward = FeedForward(dim, hidden, name="feed_forward")
        self.built = True

    def timed_qkv(self, x, embedding):
        """[..., m, D] tokens and [..., D] times -> q, k, v [..., heads, m, dh] with the time terms added."""
        qkv = ops.split(self.qkv(self.norm_1(x)), 3, axis=-1)
        terms = ops.split(self.time_qkv(embedding), 3, axis=-1)
        return [split_heads(p, self.heads) + t[..., None, None, :] for p, t in zip(qkv, terms)]


class SpatialLayer(TimedLayer):
    """Tokens of one frame attend to each other: [b, l, m, D] -> the same."""

    def call(self, x, embedding, drop=no_drop):
        q, k, v = self.timed_qkv(x, embedding)
        y = attend(q, k, v, self.dim**-0.5, lambda p: drop(f"{self.name}/attention", p))
        x = x + merge_heads(y)
        return x + self.feed_forward(self.norm_2(x))


class TemporalLayer(TimedLayer):
    """Tokens of all frames attend to each other, with a learnt term for the distance of their frames."""

    @scoped
    def __init__(self, dim, heads, hidden, max_distance, causal=False, name=None):
        super().__init__(dim, heads, hidden, name=name)
        self.max_distance, self.causal = max_distance, causal
        self.relative = self.add_weight(
            name="relative", shape=(2 * max_distance + 1, dim // heads), initializer="glorot_uniform"
        )

    def call(self, x, embedding, indices, drop=no_drop):
        """x [b, l, m, D], embedding [b, l, D], indices [b, l]: frame numbers in the video."""
        frames, tokens = x.shape[1], x.shape[2]
        q, k, v = self.timed_qkv(x, embedding)  # [b, l, heads, m, dh]
        distance = indices[:, None, :] - indices[:, :, None]  # [b, query frame, key frame]
        distance = ops.clip(distance, -self.max_distance, self.max_distance) + self.max_distance
        table = ops.take(ops.cast(self.relative, q.dtype), distance, axis=0)  # [b, l, l, dh]
        relative = ops.einsum("blhmd,blkd->blhmk", q, table)  # [b, l, heads, m, l]
        if self.causal:
            later = ops.arange(frames)[None, :] > ops.arange(frames)[:, None]
            lowest = ops.cast(-3.3895313892515355e38 if q.dtype != "float16" else -6e4, q.dtype)
            # Divided by the scale that `attend` multiplies with would overflow: added as a bias below.
            blocked = ops.where(later, lowest, ops.zeros_like(lowest))
        q, k, v, relative = (_fold_frames(a) for a in (q, k, v, relative))  # [b, heads, l*m, ...]
        frame = ops.repeat(ops.eye(frames, dtype=q.dtype), tokens, axis=0)  # [l*m, l]
        scale = self.dim**-0.5
        # The term depends on frames only: l more columns of q and k instead of a [N, N] bias.
        extra = relative
        if self.causal:
            bias = ops.matmul(ops.repeat(blocked, tokens, axis=0), ops.swapaxes(frame, 0, 1))
        else:
            bias = None
        q = ops.concatenate([q, extra], axis=-1)
        k = ops.concatenate([k, ops.broadcast_to(frame, (*ops.shape(k)[:-1], frames))], axis=-1)
        y = attend(q, k, v, scale, lambda p: drop(f"{self.name}/attention", p), bias)
        y = ops.reshape(merge_heads(y), (-1, frames, tokens, self.dim))
        x = x + y
        return x + self.feed_forward(self.norm_2(x))


def _fold_frames(x):
    """[b, l, heads, m, d] -> [b, heads, l * m, d]."""
    x = ops.swapaxes(x, 1, 2)
    return ops.reshape(x, (-1, x.shape[1], x.shape[2] * x.shape[3], x.shape[4]))


class MultiHeadAttention(keras.layers.Layer):
    """PyTorch's: joint input projection with biases, scale 1/sqrt(head width), output projection."""

    @scoped
    def __init__(self, dim, heads, name=None):
        super().__init__(name=name)
        self.dim, self.heads = dim, heads
        bound = math.sqrt(6 / (4 * dim))  # xavier over the whole [3 D, D] matrix
        self.in_kernel = self.add_weight(
            name="in_kernel", shape=(dim, 3 * dim), initializer=keras.initializers.RandomUniform(-bound, bound)
        )
        self.in_bias = self.add_weight(name="in_bias", shape=(3 * dim,), initializer="zeros")
        self.out = linear(dim, dim, "out")
        self.out.bias.assign(ops.zeros_like(self.out.bias))
        self.built = True

    def project(self, x, parts):
        """Heads of the projections `parts` (0 query, 1 key, 2 value) of x [..., n, D]."""
        d = self.dim
        kernel = ops.cast(self.in_kernel[:, parts[0] * d : (parts[-1] + 1) * d], x.dtype)
        bias = ops.cast(self.in_bias[parts[0] * d : (parts[-1] + 1) * d], x.dtype)
        projected = ops.matmul(x, kernel) + bias
        return [split_heads(p, self.heads) for p in ops.split(projected, len(parts), axis=-1)]

    def attend(self, q, k, v, drop=lambda p: p):
        """Attention over projected heads."""
        return self.out(merge_heads(attend(q, k, v, (self.dim // self.heads) ** -0.5, drop)))


class CrossLayer(keras.layers.Layer):
    """PyTorch's decoder layer, norm first, ReLU: self-attention, attention to the memory, feed-forward."""

    @scoped
    def __init__(self, dim, heads, hidden, name=None):
        super().__init__(name=name)
        self.self_attention = MultiHeadAttention(dim, heads, name="self_attention")
        self.cross_attention = MultiHeadAttention(dim, heads, name="cross_attention")
        self.norms = [layer_norm(dim, f"norm_{i + 1}") for i in range(3)]
        self.first, self.second = linear(dim, hidden, "first"), linear(hidden, dim, "second")
        self.built = True

    def memory(self, condition):
        """Keys and values of the condition tokens [..., n, D]: constant while an ODE is solved."""
        return self.cross_attention.project(condition, (1, 2))

    def call(self, x, memory, drop=no_drop):
        """x [..., m, D]; `memory` is the result of `memory`."""

        def dropped(site, value):
            return drop(f"{self.name}/{site}", value)

        attention = self.self_attention
        y = attention.attend(*attention.project(self.norms[0](x), (0, 1, 2)), lambda p: dropped("self_attention", p))
        x = x + dropped("self_output", y)
        attention = self.cross_attention
        (query,) = attention.project(self.norms[1](x), (0,))
        y = attention.attend(query, *memory, lambda p: dropped("cross_attention", p))
        x = x + dropped("cross_output", y)
        y = self.second(dropped("hidden", ops.relu(self.first(self.norms[2](x)))))
        return x + dropped("output", y)


class VectorFieldRegressor(keras.layers.Layer):
    """Predicts the velocity of the latents of l frames.

    Args:
      state_size: c, channels of a latent. state_res: (h, w).
      feature_dim: d, channels of the control features.
      inner_dim, num_heads, fc_dim, depth, mid_depth: D, heads, hidden width, blocks, and
        how many blocks in the middle attend to the control features.
      max_relative_position: M, distance of frames beyond which all are alike.
      masking_ratio: share of positions that training leaves out.
      causal: later frames are not seen.
    """

    @scoped
    def __init__(
        self,
        *,
        state_size,
        state_res,
        feature_dim,
        inner_dim=768,
        num_heads=8,
        fc_dim=3072,
        depth=9,
        mid_depth=5,
        max_relative_position=8,
        masking_ratio=0.4,
        causal=False,
        name=None,
    ):
        # Times and the order of positions keep their precision: angles of the embedding reach 200 radians.
        super().__init__(name=name, autocast=False)
        self.state_res, self.inner_dim, self.masking_ratio = tuple(state_res), inner_dim, masking_ratio
        self.mask_token = self.add_weight(
            name="mask_token", shape=(feature_dim,), initializer=keras.initializers.RandomNormal(stddev=1.0)
        )
        self.positions = GridEmbedding(inner_dim, name="positions")
        self.project_in = linear(state_size, inner_dim, "project_in")
        self.project_features = linear(feature_dim, inner_dim, "project_features")
        start = (depth - mid_depth) // 2
        self.spatial, self.temporal, self.cross = [], [], {}
        for i in range(depth):
            self.spatial.append(SpatialLayer(inner_dim, num_heads, fc_dim, name=f"spatial_{i}"))
            self.temporal.append(
                TemporalLayer(inner_dim, num_heads, fc_dim, max_relative_position, causal, name=f"temporal_{i}")
            )
            if start <= i < start + mid_depth:
                self.cross[f"block_{i}"] = CrossLayer(inner_dim, num_heads, fc_dim, name=f"cross_{i}")
        self.project_out = linear(inner_dim, inner_dim, "project_out")
        self.norm_out = layer_norm(inner_dim, "norm_out")
        self.convolution = TorchConv2D(inner_dim, state_size, 3, padding=1, use_bias=False, name="convolution")
        self.built = True

    def condition(self, features, masks, frames):
        """Memory of the cross layers: {block: (keys, values)}, from controls alone.

        Args:
          features: [b, k, h, w, d] for the last k frames. masks: [b, k, h, w, 1], 1 = given.
          frames: l.
        """
        height, width = features.shape[2:4]
        token = ops.cast(self.mask_token, features.dtype)
        value = masks * features + (1 - masks) * token
        value = ops.pad(value - token, ((0, 0), (frames - features.shape[1], 0), (0, 0), (0, 0), (0, 0))) + token
        value = ops.reshape(value, (-1, frames, height * width, features.shape[-1]))
        positions = ops.stop_gradient(self.positions.grid(height, width))
        tokens = self.project_features(value)
        tokens = tokens + ops.cast(positions, tokens.dtype)
        return {name: layer.memory(tokens) for name, layer in self.cross.items()}

    def call(self, latents, indices, times, condition, order=None, drop=no_drop):
        """The velocity.

        Args:
          latents: [b, l, h, w, c]. indices: [b, l] integer frame numbers. times: [b, l] in [0, 1].
          condition: the result of `condition`.
          order: [b, n] noise; training keeps the positions where it is smallest. None: all.
          drop: function (name, x) that drops out.

        Returns:
          velocity [b, l, h, w, c], in the type of `latents`, and the mask of kept positions [b, h, w] (None: all).
        """
        _, frames, height, width, channels = latents.shape
        x = ops.reshape(latents, (-1, frames, height * width, channels))
        x = self.project_in(x)
        positions = ops.cast(self.positions.grid(height, width), x.dtype)
        kept = rank = None
        if order is None:
            x = x + positions
        else:
            kept = ops.argsort(order, axis=-1)[:, : num_kept(height * width, self.masking_ratio)]
            rank = ops.argsort(ops.argsort(order, axis=-1), axis=-1)
            x = gather_tokens(x + positions, kept)
        embedding = ops.cast(time_embedding(times, self.inner_dim), x.dtype)
        for i, (spatial, temporal) in enumerate(zip(self.spatial, self.temporal)):
            x = spatial(x, embedding, drop=drop)
            x = temporal(x, embedding, indices, drop=drop)
            if f"block_{i}" in self.cross:
                x = self.cross[f"block_{i}"](x, memory=condition[f"block_{i}"], drop=drop)
        x = self.norm_out(gelu(self.project_out(x)))
        mask = None
        if order is not None:
            x = scatter_tokens(x, rank)
            mask = ops.reshape(rank < kept.shape[1], (-1, height, width))
        x = self.convolution(ops.reshape(x, (-1, height, width, self.inner_dim)))
        return ops.cast(ops.reshape(x, (-1, frames, height, width, channels)), latents.dtype), mask


def num_kept(positions, masking_ratio):
    """Positions that training keeps of `positions`."""
    return int(positions * (1 - masking_ratio))


def gather_tokens(x, kept):
    """x [b, l, n, D], kept [b, m] positions -> [b, l, m, D]."""
    return ops.take_along_axis(x, ops.cast(kept, "int32")[:, None, :, None], axis=2)


def scatter_tokens(x, rank):
    """x [b, l, m, D], rank [b, n] of each position -> [b, l, n, D], zeros where rank >= m."""
    m = x.shape[2]
    x = ops.pad(x, ((0, 0), (0, 0), (0, 1), (0, 0)))
    return ops.take_along_axis(x, ops.cast(ops.minimum(rank, m), "int32")[:, None, :, None], axis=2)
