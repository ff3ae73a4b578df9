"""LPIPS: learned perceptual distance of two images (Zhang et al., 2018), version 0.1 ("lin").

The original is the PyTorch package `lpips`; SAVP's evaluation used a frozen TensorFlow
graph of the AlexNet form. Weights come from torchvision's AlexNet or VGG-16 and the
package's linear heads (`tfvid.metrics.weights`).
"""

import keras
import numpy as np
from keras import ops

from tfvid.layers.vgg import LAST_RELUS_16, WIDTHS, VGGFeatures, assign_convolutions

# Mean and deviation of ImageNet for values in [-1, 1].
SHIFT = np.array([-0.030, -0.088, -0.188])
SCALE = np.array([0.458, 0.448, 0.450])
EPSILON = 1e-10
ALEX_WIDTHS = (64, 192, 384, 256, 256)
# Shortest side for which every level of the network has at least one position.
SMALLEST = {"alex": 31, "vgg": 16}


@keras.saving.register_keras_serializable(package="tfvid")
class AlexFeatures(keras.layers.Layer):
    """The five activations of AlexNet after its convolutions, torchvision's form and names.

    Input: [N, H, W, 3]; output: list of five [N, h, w, C].
    """

    # torchvision index: (kernel, stride, padding, whether a 3x3 pooling of stride 2 precedes).
    LAYERS = {0: (11, 4, 2, False), 3: (5, 1, 2, True), 6: (3, 1, 1, True), 8: (3, 1, 1, False), 10: (3, 1, 1, False)}

    def __init__(self, widths=ALEX_WIDTHS, name="alex", **kwargs):
        super().__init__(name=name, **kwargs)
        self.widths = tuple(widths)
        self.pool = keras.layers.MaxPooling2D(3, 2, name="pool", dtype=self.dtype_policy)
        self.convolutions = [
            keras.layers.Conv2D(width, kernel, stride, name=f"features_{index}", dtype=self.dtype_policy)
            for width, (index, (kernel, stride, _, _)) in zip(self.widths, self.LAYERS.items())
        ]

    def build(self, input_shape):
        channels = input_shape[-1]
        for convolution in self.convolutions:
            convolution.build((None, None, None, channels))
            channels = convolution.filters
        self.built = True

    def call(self, images):
        x, outputs = images, []
        for convolution, (_, _, padding, pooled) in zip(self.convolutions, self.LAYERS.values()):
            x = self.pool(x) if pooled else x
            # Padded on both sides as in PyTorch; "same" with stride 4 would pad one side more.
            x = ops.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
            x = ops.relu(convolution(x))
            outputs.append(x)
        return outputs

    def torch_names(self):
        """{"features.0": layer, ...} as in torchvision's state dict."""
        return {f"features.{index}": layer for index, layer in zip(self.LAYERS, self.convolutions)}

    def get_config(self):
        return {**super().get_config(), "widths": self.widths}


@keras.saving.register_keras_serializable(package="tfvid")
class LPIPS(keras.layers.Layer):
    """Perceptual distance of two batches of images; 0 for identical ones, smaller is closer.

    Args:
      net: "alex" or "vgg" (VGG-16).
      widths: channels of the levels; other than the default only in tests.

    Input: two [N, H, W, C] in [0, 1], C 1 (grey is repeated) or 3. Output: [N].
    """

    def __init__(self, net="alex", widths=None, name=None, **kwargs):
        super().__init__(name=name or f"lpips_{net}", **kwargs)
        if net not in SMALLEST:
            raise ValueError(f"expected net 'alex' or 'vgg'. Received: net={net!r}")
        self.net = net
        if net == "alex":
            self.widths = tuple(widths or ALEX_WIDTHS)
            self.backbone = AlexFeatures(self.widths, dtype=self.dtype_policy)
        else:
            self.widths = tuple(widths or WIDTHS)
            self.backbone = VGGFeatures(16, LAST_RELUS_16, self.widths, dtype=self.dtype_policy)

    def build(self, *_):
        self.backbone.build((None, None, None, 3))
        self.heads = [
            self.add_weight(shape=(width,), initializer="ones", name=f"head_{i}", trainable=False)
            for i, width in enumerate(self.widths)
        ]
        self.built = True

    def features(self, images):
        """[N, H, W, C] in [0, 1] -> list of [N, h, w, C], unit length along the channels."""
        if min(images.shape[1:3]) < SMALLEST[self.net]:
            raise ValueError(
                f"LPIPS with {self.net} expects sides of at least {SMALLEST[self.net]} pixels."
                f" Received: {images.shape[1]}x{images.shape[2]}"
            )
        x = ops.cast(images, self.compute_dtype)
        if x.shape[-1] == 1:
            x = ops.repeat(x, 3, axis=-1)
        x = (2 * x - 1 - ops.convert_to_tensor(SHIFT, x.dtype)) / ops.convert_to_tensor(SCALE, x.dtype)
        return [
            y / (ops.sqrt(ops.sum(ops.square(y), axis=-1, keepdims=True)) + EPSILON) for y in self.backbone(x)
        ]

    def distance(self, features, others):
        """Distance [N] of two lists that `features` made."""
        levels = [
            ops.mean(ops.sum(ops.square(a - b) * ops.cast(head, a.dtype), axis=-1), axis=(1, 2))
            for a, b, head in zip(features, others, self.heads, strict=True)
        ]
        return sum(levels)

    def call(self, images, others):
        return self.distance(self.features(images), self.features(others))

    def load_torch(self, backbone, heads):
        """Assigns a torchvision state dict and the state dict of the package's linear heads."""
        assign_convolutions(self.backbone.torch_names(), backbone)
        for i, variable in enumerate(self.heads):
            name = f"lin{i}.model.1.weight"
            if name not in heads:
                raise KeyError(f"expected {name} in the linear heads of LPIPS")
            value = heads[name].reshape(-1)
            if value.shape != tuple(variable.shape):
                raise ValueError(f"{name}: expected {tuple(variable.shape)}, received {value.shape}")
            variable.assign(value)

    def get_config(self):
        return {**super().get_config(), "net": self.net, "widths": self.widths}
