"""Inception-v3 in the form of the Frechet Inception distance.

The network of Heusel et al. (2017) is TensorFlow's Inception of 2015-12-05 with 1008
outputs; `pytorch-fid` publishes its weights under torchvision's names. It differs from
torchvision's Inception in the pooling of its blocks (borders do not count; the last one
takes the maximum). Features are the 2048 means of the last block.
"""

import keras
from keras import ops

from tfvid.layers.resize import resize_bilinear
from tfvid.metrics.folded import FoldedConv, torch_norm, torch_weight

BATCH_NORM_EPSILON = 1e-3
CLASSES = 1008
SIDE = 299

_STEM = {
    "Conv2d_1a_3x3": (32, (3, 3), 2, "valid"),
    "Conv2d_2a_3x3": (32, (3, 3), 1, "valid"),
    "Conv2d_2b_3x3": (64, (3, 3), 1, "same"),
    "maxpool1": None,
    "Conv2d_3b_1x1": (80, (1, 1), 1, "valid"),
    "Conv2d_4a_3x3": (192, (3, 3), 1, "valid"),
    "maxpool2": None,
}


def _a(pool):
    return {
        "branch1x1": (64, (1, 1)),
        "branch5x5_1": (48, (1, 1)), "branch5x5_2": (64, (5, 5)),
        "branch3x3dbl_1": (64, (1, 1)), "branch3x3dbl_2": (96, (3, 3)), "branch3x3dbl_3": (96, (3, 3)),
        "branch_pool": (pool, (1, 1)),
    }  # fmt: skip


_B = {
    "branch3x3": (384, (3, 3), 2, "valid"),
    "branch3x3dbl_1": (64, (1, 1)), "branch3x3dbl_2": (96, (3, 3)), "branch3x3dbl_3": (96, (3, 3), 2, "valid"),
}  # fmt: skip


def _c(width):
    return {
        "branch1x1": (192, (1, 1)),
        "branch7x7_1": (width, (1, 1)), "branch7x7_2": (width, (1, 7)), "branch7x7_3": (192, (7, 1)),
        "branch7x7dbl_1": (width, (1, 1)), "branch7x7dbl_2": (width, (7, 1)), "branch7x7dbl_3": (width, (1, 7)),
        "branch7x7dbl_4": (width, (7, 1)), "branch7x7dbl_5": (192, (1, 7)),
        "branch_pool": (192, (1, 1)),
    }  # fmt: skip


_D = {
    "branch3x3_1": (192, (1, 1)), "branch3x3_2": (320, (3, 3), 2, "valid"),
    "branch7x7x3_1": (192, (1, 1)), "branch7x7x3_2": (192, (1, 7)), "branch7x7x3_3": (192, (7, 1)),
    "branch7x7x3_4": (192, (3, 3), 2, "valid"),
}  # fmt: skip
_E = {
    "branch1x1": (320, (1, 1)),
    "branch3x3_1": (384, (1, 1)), "branch3x3_2a": (384, (1, 3)), "branch3x3_2b": (384, (3, 1)),
    "branch3x3dbl_1": (448, (1, 1)), "branch3x3dbl_2": (384, (3, 3)),
    "branch3x3dbl_3a": (384, (1, 3)), "branch3x3dbl_3b": (384, (3, 1)),
    "branch_pool": (192, (1, 1)),
}  # fmt: skip

# Branches of each kind of block: chains of convolutions, by the ends of which they are joined.
# A tuple at the end of a chain is two convolutions side by side; "" first is the pooled input.
_BRANCHES = {
    "a": (("branch1x1",), ("branch5x5_1", "branch5x5_2"),
          ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"), ("", "branch_pool")),
    "b": (("branch3x3",), ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"), ("",)),
    "c": (("branch1x1",), ("branch7x7_1", "branch7x7_2", "branch7x7_3"),
          ("branch7x7dbl_1", "branch7x7dbl_2", "branch7x7dbl_3", "branch7x7dbl_4", "branch7x7dbl_5"),
          ("", "branch_pool")),
    "d": (("branch3x3_1", "branch3x3_2"),
          ("branch7x7x3_1", "branch7x7x3_2", "branch7x7x3_3", "branch7x7x3_4"), ("",)),
    "e": (("branch1x1",), ("branch3x3_1", ("branch3x3_2a", "branch3x3_2b")),
          ("branch3x3dbl_1", "branch3x3dbl_2", ("branch3x3dbl_3a", "branch3x3dbl_3b")), ("", "branch_pool")),
}  # fmt: skip
# Block: (kind, its convolutions, how its pooled branch pools).
_BLOCKS = {
    "Mixed_5b": ("a", _a(32), "average"),
    "Mixed_5c": ("a", _a(64), "average"),
    "Mixed_5d": ("a", _a(64), "average"),
    "Mixed_6a": ("b", _B, "halve"),
    "Mixed_6b": ("c", _c(128), "average"),
    "Mixed_6c": ("c", _c(160), "average"),
    "Mixed_6d": ("c", _c(160), "average"),
    "Mixed_6e": ("c", _c(192), "average"),
    "Mixed_7a": ("d", _D, "halve"),
    "Mixed_7b": ("e", _E, "average"),
    "Mixed_7c": ("e", _E, "max"),
}


class InceptionV3(keras.layers.Layer):
    """Features and class scores of images.

    Args:
      divisor: divides the number of channels of every convolution; 1 outside of tests.

    Input: [N, H, W, C] in [0, 1], any size, C 1 (grey is repeated) or 3. Output:
    (features [N, 2048], logits [N, 1008]).
    """

    def __init__(self, divisor=1, name="inception", **kwargs):
        super().__init__(name=name, **kwargs)
        self.convolutions, self.chains = {}, {}
        for layer, options in _STEM.items():
            if options:
                self._add(layer, options, divisor)
        for block, (_, layers, _) in _BLOCKS.items():
            for layer, options in layers.items():
                self._add(f"{block}.{layer}", options, divisor)
        self.classifier = keras.layers.Dense(CLASSES, name="fc", dtype=self.dtype_policy)

    def _add(self, name, options, divisor):
        filters, kernel, stride, padding = (*options, 1, "same")[:4] if len(options) == 2 else options
        self.convolutions[name] = FoldedConv(
            filters // divisor, kernel, (stride, stride), padding,
            name=name.replace(".", "_"), dtype=self.dtype_policy,
        )  # fmt: skip

    def build(self, *_):
        # A pass over one small image gives every layer its input channels.
        self.built = True
        self.scores(ops.zeros((1, 75, 75, 3), self.compute_dtype))

    def call(self, images):
        x = ops.cast(images, self.compute_dtype)
        if x.shape[-1] == 1:
            x = ops.repeat(x, 3, axis=-1)
        return self.scores(2 * resize_bilinear(x, (SIDE, SIDE)) - 1)

    def scores(self, x):
        """(features, logits) of images in [-1, 1] at the size that they have."""
        for layer, options in _STEM.items():
            x = self.convolutions[layer](x) if options else ops.max_pool(x, 3, 2, "valid")
        for block, (kind, _, pooling) in _BLOCKS.items():
            x = self._block(block, _BRANCHES[kind], pooling, x)
        features = ops.mean(x, axis=(1, 2))
        return features, self.classifier(features)

    def _block(self, block, branches, pooling, x):
        outputs = []
        for chain in branches:
            y = x
            for layer in chain:
                if isinstance(layer, tuple):
                    y = ops.concatenate([self.convolutions[f"{block}.{part}"](y) for part in layer], axis=-1)
                else:
                    y = self.convolutions[f"{block}.{layer}"](y) if layer else _pooled(y, pooling)
            outputs.append(y)
        return ops.concatenate(outputs, axis=-1)

    def load_torch(self, state):
        """Assigns the state dict that pytorch-fid publishes (batch norms are folded in)."""
        for name, layer in self.convolutions.items():
            norm = torch_norm(state, f"{name}.bn", BATCH_NORM_EPSILON)
            layer.assign(torch_weight(state, f"{name}.conv.weight"), norm=norm)
        weight, bias = torch_weight(state, "fc.weight").T, torch_weight(state, "fc.bias")
        if weight.shape != tuple(self.classifier.kernel.shape):
            raise ValueError(f"fc.weight: expected {tuple(self.classifier.kernel.shape)}, received {weight.shape}")
        self.classifier.kernel.assign(weight)
        self.classifier.bias.assign(bias)


def _pooled(x, pooling):
    if pooling == "halve":
        return ops.max_pool(x, 3, 2, "valid")
    if pooling == "max":
        return ops.max_pool(x, 3, 1, "same")
    return ops.average_pool(x, 3, 1, "same")  # pixels beyond the border do not count
