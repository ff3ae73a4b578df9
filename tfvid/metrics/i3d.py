"""I3D, the network of the Frechet video distance: 400 class scores of Kinetics for a clip.

Carreira and Zisserman, "Quo Vadis, Action Recognition?", 2017; Unterthiner et al.,
"Towards Accurate Generative Models of Video", 2018. Weights: DeepMind's checkpoint
`rgb_imagenet` (the network of the TensorFlow Hub module), or PyTorch conversions of it.
"""

import re

import keras
import numpy as np
from keras import ops

from tfvid.errors import UserError
from tfvid.metrics.folded import FoldedConv, torch_norm, torch_weight

BATCH_NORM_EPSILON = 1e-3
CLASSES, SIDE = 400, 224
SHORTEST = 9  # frames: the last pooling spans two of the steps of eight frames

# Mixed blocks: channels of Branch_0; of Branch_1 (1x1, 3x3); of Branch_2; of Branch_3.
_MIXED = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}
_UNITS = ("Branch_0/1x1", "Branch_1/1x1", "Branch_1/3x3", "Branch_2/1x1", "Branch_2/3x3", "Branch_3/1x1")
# What comes before each block: (window, stride) of a max-pooling.
_POOLS = {
    "Conv3d_2b_1x1": ((1, 3, 3), (1, 2, 2)),
    "Mixed_3b": ((1, 3, 3), (1, 2, 2)),
    "Mixed_4b": ((3, 3, 3), (2, 2, 2)),
    "Mixed_5b": ((2, 2, 2), (2, 2, 2)),
}
_STEM = {
    "Conv3d_1a_7x7": (64, (7, 7, 7), (2, 2, 2)),
    "Conv3d_2b_1x1": (64, (1, 1, 1), (1, 1, 1)),
    "Conv3d_2c_3x3": (192, (3, 3, 3), (1, 1, 1)),
}


class I3D(keras.layers.Layer):
    """Class scores of clips.

    Args:
      divisor: divides the number of channels of every convolution; 1 outside of tests.
      classes: number of scores.

    Input: [N, T, 224, 224, 3] in [-1, 1] with T >= 9 (see `prepared`). Output: [N, 400]
    logits, mean over time.
    """

    def __init__(self, divisor=1, classes=CLASSES, name="i3d", **kwargs):
        super().__init__(name=name, **kwargs)
        self.units = {}
        for unit, (filters, kernel, strides) in _STEM.items():
            self._add(unit, filters // divisor, kernel, strides)
        for block, widths in _MIXED.items():
            for unit, filters in zip(_UNITS, widths):
                side = int(unit[-1])
                self._add(f"{block}/{unit}", filters // divisor, (side,) * 3, (1, 1, 1))
        self.units["Logits"] = FoldedConv(
            classes, (1, 1, 1), activation=False, name="Logits", dtype=self.dtype_policy
        )

    def _add(self, unit, filters, kernel, strides):
        self.units[unit] = FoldedConv(
            filters, kernel, strides, name=unit.replace("/", "_"), dtype=self.dtype_policy
        )

    def build(self, *_):
        channels = 3
        for unit in _STEM:
            self.units[unit].build((None, None, None, None, channels))
            channels = self.units[unit].filters
        for block in _MIXED:
            parts = {u: self.units[f"{block}/{u}"] for u in _UNITS}
            for unit, part in parts.items():
                inside = unit.endswith("3x3")
                part.build((None,) * 4 + (parts[unit.replace("3x3", "1x1")].filters if inside else channels,))
            channels = sum(parts[u].filters for u in ("Branch_0/1x1", "Branch_1/3x3", "Branch_2/3x3", "Branch_3/1x1"))
        self.units["Logits"].build((None,) * 4 + (channels,))
        self.built = True

    def call(self, clips):
        x = ops.cast(clips, self.compute_dtype)
        for name in (*_STEM, *_MIXED):
            if name in _POOLS:
                x = _max_pool(x, *_POOLS[name])
            x = self.units[name](x) if name in _STEM else self._mixed(name, x)
        # The whole 7x7 grid and pairs of steps, then the classifier at each of them.
        x = ops.mean(x, axis=(2, 3), keepdims=True)
        x = (x[:, :-1] + x[:, 1:]) / 2
        return ops.mean(self.units["Logits"](x), axis=(1, 2, 3))

    def _mixed(self, block, x):
        def unit(name, y):
            return self.units[f"{block}/{name}"](y)

        pooled = _max_pool(x, (3, 3, 3), (1, 1, 1))
        return ops.concatenate(
            [
                unit("Branch_0/1x1", x),
                unit("Branch_1/3x3", unit("Branch_1/1x1", x)),
                unit("Branch_2/3x3", unit("Branch_2/1x1", x)),
                unit("Branch_3/1x1", pooled),
            ],
            axis=-1,
        )

    def load(self, state):
        """Assigns DeepMind's variables, or a state dict of one of the two usual PyTorch ports.

        The network may be a part of a larger module (TorchScript files wrap it).

        Raises KeyError for a missing name and ValueError for another shape.
        """
        load = self._load_tensorflow if any("inception_i3d" in name for name in state) else self._load_torch
        load(state)

    def _load_tensorflow(self, state):
        """Names `RGB/inception_i3d/<unit>/conv_3d/w`, `.../batch_norm/{beta,moving_mean,moving_variance}`."""
        found = {re.sub(r"^.*?inception_i3d/", "", name): value for name, value in state.items()}
        for unit, layer in self.units.items():
            if unit == "Logits":
                prefix = "Logits/Conv3d_0c_1x1"
                weight, bias = (torch_weight(found, f"{prefix}/conv_3d/{part}") for part in "wb")
                layer.assign(np.moveaxis(weight, (-1, -2), (0, 1)), bias)
                continue
            prefix = _tensorflow_name(unit, found)
            weight = torch_weight(found, f"{prefix}/conv_3d/w")
            beta, mean, variance = (
                torch_weight(found, f"{prefix}/batch_norm/{part}").reshape(-1)
                for part in ("beta", "moving_mean", "moving_variance")
            )
            layer.assign(np.moveaxis(weight, (-1, -2), (0, 1)), norm=(None, beta, mean, variance, BATCH_NORM_EPSILON))

    def _load_torch(self, state):
        first = [k for k in state if k.lower().endswith("conv3d_1a_7x7.conv3d.weight")]
        prefix = first[0][: -len("conv3d_1a_7x7.conv3d.weight")] if len(first) == 1 else ""
        state = {k.removeprefix(prefix): v for k, v in state.items()}
        names = _capitalised_names if "logits.conv3d.weight" in state else _lower_case_names
        for unit, layer in self.units.items():
            name, norm = names(unit)
            weight = torch_weight(state, f"{name}.conv3d.weight")
            if unit == "Logits":
                layer.assign(weight, torch_weight(state, f"{name}.conv3d.bias"))
            else:
                layer.assign(weight, norm=torch_norm(state, f"{name}.{norm}", BATCH_NORM_EPSILON))


def prepared(clips, frames=None):
    """[N, T, H, W, C] in [0, 1] -> [N, T, 224, 224, 3] in [-1, 1].

    Bilinear with the grid of TensorFlow 1's `resize_bilinear` (source = output index times
    the ratio of the sizes), as the published distance does. Grey is repeated.
    """
    clips = clips if frames is None else clips[:, :frames]
    if clips.shape[1] < SHORTEST:
        raise UserError(f"I3D expects clips of at least {SHORTEST} frames. Received: {clips.shape[1]}")
    if clips.shape[-1] == 1:
        clips = ops.repeat(clips, 3, axis=-1)
    for axis in (2, 3):
        clips = _resize_axis(clips, axis, SIDE)
    return 2 * clips - 1


def _max_pool(x, window, stride):
    """Maximum over a window of (time, height, width) with TensorFlow's "same" padding, in any float type."""
    _, steps, height, width, channels = x.shape
    flat = ops.max_pool(ops.reshape(x, (-1, height, width, channels)), window[1:], stride[1:], "same")
    x = ops.reshape(flat, (-1, steps, *flat.shape[1:]))
    if window[0] == 1:
        return x
    size = -(-steps // stride[0])
    missing = max((size - 1) * stride[0] + window[0] - steps, 0)
    before, after = missing // 2, missing - missing // 2
    # The first and the last step again: what a window holds already does not change its maximum.
    x = ops.concatenate([x[:, :1]] * before + [x] + [x[:, -1:]] * after, axis=1)
    parts = [x[:, i : i + (size - 1) * stride[0] + 1 : stride[0]] for i in range(window[0])]
    return ops.max(ops.stack(parts), axis=0)


def _resize_axis(x, axis, size):
    source = x.shape[axis]
    position = np.arange(size) * (source / size)
    low = np.floor(position).astype(int)
    high = np.minimum(low + 1, source - 1)
    shape = [1] * 5
    shape[axis] = size
    weight = ops.convert_to_tensor((position - low).reshape(shape), x.dtype)
    below, above = ops.take(x, low, axis=axis), ops.take(x, high, axis=axis)
    return below + (above - below) * weight


def _tensorflow_name(unit, found):
    """DeepMind's scope of a unit; one of them breaks the numbering."""
    if unit in _STEM:
        return unit
    block, branch, kernel = unit.split("/")
    letter = "b" if (branch == "Branch_3" or kernel == "3x3") else "a"
    name = f"{block}/{branch}/Conv3d_0{letter}_{kernel}"
    if f"{name}/conv_3d/w" in found:
        return name
    return f"{block}/{branch}/Conv3d_0a_{kernel}"


def _capitalised_names(unit):
    """Names of the port `pytorch-i3d`: Mixed_3b.b1a, batch norms called bn."""
    if unit == "Logits":
        return "logits", None
    if unit in _STEM:
        return unit, "bn"
    block, branch, kernel = unit.split("/")
    part = {"Branch_0": "", "Branch_3": "b"}.get(branch, "a" if kernel == "1x1" else "b")
    return f"{block}.b{branch[-1]}{part}", "bn"


def _lower_case_names(unit):
    """Names of the port `kinetics_i3d_pytorch`: mixed_3b.branch_1.0, batch norms called batch3d."""
    if unit == "Logits":
        return "conv3d_0c_1x1", None
    if unit in _STEM:
        return unit.lower(), "batch3d"
    block, branch, kernel = unit.split("/")
    part = {"Branch_0": "", "Branch_3": ".1"}.get(branch, ".0" if kernel == "1x1" else ".1")
    return f"{block.lower()}.{branch.lower()}{part}", "batch3d"
