"""VGG-19 for perceptual losses, held beside a model: neither trained nor saved with it."""

import keras
import tensorflow as tf

from tfvid.errors import UserError
from tfvid.layers.vgg import WIDTHS, VGGFeatures
from tfvid.models import float_policy

SEED = 19  # of the fixed random features


class PerceptualVGG:
    """VGG-19, made on first use, so that generating needs no file of it.

    Args:
      weights: file of torchvision's VGG-19, or "random" for fixed random features, or
        None, which is an error on first use.
      precision: the model's; narrow types compute in float32.
      otherwise: what the user can do instead of giving the file.
      widths: channels of the stages.
    """

    def __init__(self, weights, precision, otherwise, widths=WIDTHS):
        self._weights, self._otherwise, self._widths = weights, otherwise, tuple(widths)
        self._precision = "float64" if precision == "float64" else "float32"
        self._network = None

    @property
    def network(self):
        """The `VGGFeatures`; UserError where the weights are not given or do not fit."""
        if self._network is None:
            with tf.init_scope():
                self._network = self._made()
        return self._network

    def _made(self):
        if not self._weights:
            raise UserError(
                "vgg_weights: expected the file of torchvision's VGG-19 (vgg19-dcbb9e9d.pth), or 'random' for fixed"
                f" random features; or {self._otherwise}. Received: none"
            )
        with float_policy(self._precision):
            network = VGGFeatures(19, widths=self._widths)
            if self._weights == "random":
                keras.utils.set_random_seed(SEED)
            network.build((None, None, None, 3))
            network.trainable = False
        if self._weights != "random":
            from tfvid.conversion import torch_file

            try:
                network.load_torch(torch_file.flatten(torch_file.read(self._weights)))
            except (KeyError, ValueError) as e:
                raise UserError(f"vgg_weights: {self._weights}: {e.args[0]}") from None
        return network
