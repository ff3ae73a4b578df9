"""VGG-19 for perceptual losses, held beside a model: neither trained nor saved with it; and such losses in slices."""

import keras
import tensorflow as tf

from tfvid.errors import UserError
from tfvid.layers import in_turn
from tfvid.layers.shared_function import shared_function
from tfvid.layers.vgg import WIDTHS, VGGFeatures
from tfvid.models import float_policy

SEED = 19  # of the fixed random features
SLICE = 2**16  # pixels that go through the network at once, or one frame of every clip where that is more


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


def features_of(vgg, images, targets):
    """(features of the images, features of the targets without a gradient), the targets' first: in turn for the memory."""
    wanted = [tf.stop_gradient(f) for f in vgg(targets)]
    with tf.control_dependencies(wanted):
        images = tf.identity(images)
    return vgg(images), wanted


def loss_by_slices(function, images, targets, pixels=SLICE):
    """A mean over frames, and its gradient, evaluated on a few frames at a time.

    A loss that is a mean over frames needs the activations of no two frames at once. Its
    gradient with respect to the frames is taken along with its value, slice by slice, so
    that nothing is computed twice and only a gradient of the frames' size is kept. The
    slices of several losses in one graph wait for each other, too.

    Args:
      function: (images, targets) [N, H, W, C] -> (scalar loss, list of further scalars),
        all means over N. Only the loss has a gradient, and only to the images.
      images, targets: [B, T, H, W, C], T known.
      pixels: of a slice, which has at least one frame of every clip.

    Returns:
      (loss, list of the further scalars), as `function` of all frames.
    """
    batch, steps, height, width = images.shape[:4]
    length = max(1, pixels // ((batch or 1) * height * width))

    def step(images, targets):
        flat = [tf.reshape(x, (-1, *x.shape[2:])) for x in (images, targets)]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(flat[0])
            loss, others = function(*flat)
        return tf.stack([loss, *others]), tf.reshape(tape.gradient(loss, flat[0]), tf.shape(images))

    # The slices but the last are of one size: one function in the graph.
    step, frames, targets = shared_function(step), tf.stop_gradient(images), tf.stop_gradient(targets)
    values, gradients, last = [], [], in_turn.last_of("loss_by_slices")
    for start in range(0, steps, length):
        share = min(length, steps - start) / steps
        # One after another, or the activations of all slices are there at once.
        with tf.control_dependencies(last):
            value, gradient = step(frames[:, start : start + length], targets[:, start : start + length])
        last[:] = [gradient]
        share = tf.constant(share, value.dtype)
        values.append(value * share)
        gradients.append(gradient * tf.cast(share, gradient.dtype))
    value, gradient = tf.add_n(values), tf.concat(gradients, axis=1)

    @tf.custom_gradient
    def with_gradient(images):
        return tf.identity(value[0]), lambda upstream: tf.cast(upstream, images.dtype) * gradient

    return with_gradient(images), tf.unstack(value[1:])
