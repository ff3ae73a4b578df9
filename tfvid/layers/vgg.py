"""VGG-16 and VGG-19 feature networks with torchvision's parameter names.

Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
Recognition", 2015; the layer indices are those of torchvision's `vgg16().features` and
`vgg19().features`, so that one state dict serves every loss and metric built on it.
"""

import keras
import numpy as np
from keras import ops

from tfvid.layers import winograd

# Convolutions in each of the five stages, between which 2x2 max-pooling halves the size.
STAGES = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
WIDTHS = (64, 128, 256, 512, 512)
# What perceptual losses compare: the first activation of each stage.
FIRST_RELUS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
# What LPIPS compares with VGG-16: the last activation of each stage.
LAST_RELUS_16 = ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")


def convolution_indices(depth=19):
    """{"relu1_1": 0, "relu1_2": 2, ...}: torchvision index of the convolution before each activation."""
    indices, index = {}, 0
    for stage, count in enumerate(STAGES[depth], 1):
        for i in range(1, count + 1):
            indices[f"relu{stage}_{i}"] = index
            index += 2  # the convolution and its activation
        index += 1  # the pooling
    return indices


@keras.saving.register_keras_serializable(package="tfvid")
class VGGFeatures(keras.layers.Layer):
    """Activations of a VGG network, computed no further than the last one asked for.

    Images go in as they are: what a method's original feeds (values in [-1, 1], or
    normalised with ImageNet's mean and deviation) is the caller's choice.

    Args:
      depth: 16 or 19.
      taps: activations to return, in the order of the network.
      widths: channels of the five stages; other than the default only in tests.

    Input: [N, H, W, 3]; H and W may be any size that survives the pooling before the
    last tap. Output: list of [N, h, w, C], one for each tap.
    """

    def __init__(self, depth=19, taps=FIRST_RELUS, widths=WIDTHS, name="vgg", **kwargs):
        super().__init__(name=name, **kwargs)
        indices = convolution_indices(depth)
        unknown = [t for t in taps if t not in indices]
        if unknown or not taps:
            raise ValueError(f"expected taps among {', '.join(indices)}. Received: taps={taps!r}")
        self.depth, self.taps, self.widths = depth, tuple(taps), tuple(widths)
        last = max(indices[t] for t in taps)
        self.convolutions = {
            tap: winograd.Conv2D(
                self.widths[int(tap[4]) - 1], 3, padding="same", name=f"features_{index}", dtype=self.dtype_policy
            )
            for tap, index in indices.items()
            if index <= last
        }
        self.pool = keras.layers.MaxPooling2D(2, name="pool", dtype=self.dtype_policy)

    def build(self, input_shape):
        channels = input_shape[-1]
        for convolution in self.convolutions.values():
            convolution.build((None, None, None, channels))
            channels = convolution.filters
        self.built = True

    def call(self, images):
        x, outputs, stage = images, {}, "1"
        for tap, convolution in self.convolutions.items():
            if tap[4] != stage:
                x, stage = self.pool(x), tap[4]
            x = ops.relu(convolution(x))
            outputs[tap] = x
        return [outputs[t] for t in self.taps]

    def torch_names(self):
        """{"features.0": the layer with that convolution's kernel and bias, ...}."""
        indices = convolution_indices(self.depth)
        return {f"features.{indices[tap]}": layer for tap, layer in self.convolutions.items()}

    def load_torch(self, state):
        """Assigns `features.<i>.weight` (OIHW) and `.bias` of a torchvision state dict.

        Deeper layers and the classifier of the state dict are not used. Raises KeyError
        for a missing name and ValueError for another shape, naming it.
        """
        assign_convolutions(self.torch_names(), state)

    def get_config(self):
        return {**super().get_config(), "depth": self.depth, "taps": self.taps, "widths": self.widths}


def assign_convolutions(layers, state):
    """Assigns `<name>.weight` (OIHW) and `<name>.bias` of a state dict to {name: Conv2D}.

    Raises KeyError for a missing name and ValueError for another shape, naming it.
    """
    for name, layer in layers.items():
        for part, variable in (("weight", layer.kernel), ("bias", layer.bias)):
            if f"{name}.{part}" not in state:
                raise KeyError(f"expected {name}.{part} in the state dict")
            value = np.asarray(state[f"{name}.{part}"])
            value = value.transpose(2, 3, 1, 0) if part == "weight" else value
            if tuple(value.shape) != tuple(variable.shape):
                raise ValueError(f"{name}.{part}: expected {tuple(variable.shape)}, received {value.shape}")
            variable.assign(value)
