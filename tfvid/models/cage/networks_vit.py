"""Vision transformers whose features control CAGE: DINOv2 and the encoder of MAE.

Oquab et al., "DINOv2: Learning Robust Visual Features without Supervision", 2023 (the form
of torch.hub, whose positions are resized by (n + 0.1) / 37); He et al., "Masked
Autoencoders Are Scalable Vision Learners", 2022.
"""

import math

import keras
import numpy as np
from keras import ops

from tfvid.layers.resize import resize_bilinear
from tfvid.layers.scoped import scoped
from tfvid.layers.torch_conv import TorchConv2D
from tfvid.models.cage.networks_regressor import FeedForward, attend, layer_norm, linear, merge_heads, split_heads

# Name of the published network -> (width, depth, heads).
DINOV2 = {"dinov2_vits14": (384, 12, 6), "dinov2_vitb14": (768, 12, 12), "dinov2_vitl14": (1024, 24, 16)}
# Name -> (width, depth, heads, patch size).
MAE = {
    "mae_vit_base_patch16": (768, 12, 12, 16),
    "mae_vit_large_patch16": (1024, 24, 16, 16),
    "mae_vit_huge_patch14": (1280, 32, 16, 14),
}
# Images are resized to this side before they enter.
IMAGE_SIZE = 224


def cubic_weights(source, target, offset=0.1, a=-0.75):
    """[target, source]: bicubic resizing of one axis, borders clamped, no antialias.

    As torch's `interpolate` with scale_factor = (target + offset) / source.
    """
    weights = np.zeros((target, source))
    scale = source / (target + offset)
    for i in range(target):
        position = (i + 0.5) * scale - 0.5
        first = math.floor(position)
        for tap in range(first - 1, first + 3):
            x = abs(position - tap)
            if x <= 1:
                value = (a + 2) * x**3 - (a + 3) * x**2 + 1
            else:
                value = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
            weights[i, min(max(tap, 0), source - 1)] += value
    return weights


class Attention(keras.layers.Layer):
    """Multi-head self-attention with biases, scale 1/sqrt(head width)."""

    @scoped
    def __init__(self, dim, heads, name=None):
        super().__init__(name=name)
        self.heads, self.scale = heads, (dim // heads) ** -0.5
        self.qkv, self.out = linear(dim, 3 * dim, "qkv"), linear(dim, dim, "out")
        self.built = True

    def call(self, x):
        q, k, v = (split_heads(p, self.heads) for p in ops.split(self.qkv(x), 3, axis=-1))
        return self.out(merge_heads(attend(q, k, v, self.scale)))


class Block(keras.layers.Layer):
    """Norm first; with a learnt scale on both branches in DINOv2, without in MAE."""

    @scoped
    def __init__(self, dim, heads, mlp_ratio=4, layer_scale=True, name=None):
        super().__init__(name=name)
        self.norm_1, self.norm_2 = layer_norm(dim, "norm_1", 1e-6), layer_norm(dim, "norm_2", 1e-6)
        self.attention = Attention(dim, heads, name="attention")
        self.feed_forward = FeedForward(dim, int(dim * mlp_ratio), name="feed_forward")
        self.scale_1 = self.scale_2 = None
        if layer_scale:
            self.scale_1 = self.add_weight(name="scale_1", shape=(dim,), initializer="ones")
            self.scale_2 = self.add_weight(name="scale_2", shape=(dim,), initializer="ones")
        self.built = True

    def call(self, x):
        for norm, branch, scale in (
            (self.norm_1, self.attention, self.scale_1),
            (self.norm_2, self.feed_forward, self.scale_2),
        ):
            y = branch(norm(x))
            x = x + (y if scale is None else y * scale)
        return x


class VisionTransformer(keras.layers.Layer):
    """Features of image patches.

    Args:
      dim, depth, heads: of the network.
      patch_size: side of a patch in pixels.
      position_grid: side of the grid at which positions are stored (37 for DINOv2).
      kind: "dino" (learnt positions, layer scale, final norm on each layer asked for) or
        "mae" (fixed positions of the image's own grid, last layer only).
      mlp_ratio: hidden width of the feed-forward networks over `dim`.
    """

    @scoped
    def __init__(self, dim, depth, heads, *, patch_size=14, position_grid=37, kind="dino", mlp_ratio=4, name="vit"):
        super().__init__(name=name)
        self.dim, self.patch_size, self.position_grid, self.kind = dim, patch_size, position_grid, kind
        self.patches = TorchConv2D(3, dim, patch_size, strides=patch_size, name="patches")
        normal = keras.initializers.RandomNormal(stddev=0.02)
        self.class_token = self.add_weight(name="class_token", shape=(1, 1, dim), initializer=normal)
        self.position_table = self.add_weight(
            name="positions", shape=(1, 1 + position_grid**2, dim), initializer=normal, trainable=kind == "dino"
        )
        if kind == "mae":
            self.position_table.assign(sine_positions(position_grid, dim)[None])
        self.blocks = [Block(dim, heads, mlp_ratio, kind == "dino", name=f"block_{i}") for i in range(depth)]
        self.norm = layer_norm(dim, "norm", 1e-6)
        self.built = True

    def positions(self, height, width):
        """[1, height * width, D] of the patches, resized from the stored grid."""
        stored = self.position_table[:, 1:]
        grid = self.position_grid
        if (height, width) == (grid, grid):
            return stored
        stored = ops.reshape(stored, (grid, grid, self.dim))
        rows, columns = (ops.convert_to_tensor(cubic_weights(grid, n), dtype=stored.dtype) for n in (height, width))
        return ops.reshape(ops.einsum("hi,ijd,wj->hwd", rows, stored, columns), (1, height * width, self.dim))

    def tokens(self, images):
        """[N, H, W, 3] -> [N, 1 + h * w, D], the class token first, before the first block."""
        x = self.patches(images)
        _, height, width, _ = x.shape
        x = ops.reshape(x, (-1, height * width, self.dim)) + self.positions(height, width)
        first = self.class_token + self.position_table[:, :1]
        return ops.concatenate([ops.broadcast_to(first, (ops.shape(x)[0], 1, self.dim)), x], axis=1)

    def call(self, images, num_layers=1):
        """Outputs of the last `num_layers` blocks, each normed: [N, h, w, D * num_layers], earlier first."""
        height, width = (s // self.patch_size for s in images.shape[1:3])
        x, outputs = self.tokens(images), []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i >= len(self.blocks) - num_layers:
                outputs.append(self.norm(x)[:, 1:])
        features = ops.concatenate(outputs, axis=-1)
        return ops.reshape(features, (-1, height, width, self.dim * num_layers))

    def features(self, frames, size, num_layers=1, image_size=IMAGE_SIZE):
        """Frames [N, H, W, 3] in [-1, 1] -> [N, *size, D * num_layers].

        The published weights of CAGE saw frames in [-1, 1], without ImageNet's
        normalisation.
        """
        frames = resize_bilinear(frames, (image_size, image_size))
        return resize_bilinear(self(frames, num_layers=num_layers), size)


def sine_positions(grid, dim):
    """[1 + grid^2, D] fixed positions: sines and cosines of the column, then of the row; zero for the class."""
    frequencies = 1 / 10000 ** (np.arange(dim // 4) / (dim / 4))

    def axis(position):
        angles = position.reshape(-1)[:, None] * frequencies
        return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)

    rows, columns = np.meshgrid(np.arange(grid), np.arange(grid), indexing="ij")
    table = np.concatenate([axis(columns), axis(rows)], axis=1)
    return np.concatenate([np.zeros((1, dim)), table])
