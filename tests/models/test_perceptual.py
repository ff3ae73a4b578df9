"""A perceptual loss evaluated in slices of frames equals the one evaluated on all frames."""

import numpy as np
import pytest
import tensorflow as tf

from tests.graphs import ancestors
from tfvid.models.ag2vid import losses
from tfvid.models.perceptual import PerceptualVGG, features_of, loss_by_slices


@pytest.mark.parametrize("pixels", [1, 2 * 2 * 16 * 16, 10**6])  # slices of 1, 2 (and a rest of 1) and 5 frames
@pytest.mark.parametrize("eager", [False, True])
def test_loss_by_slices_has_the_value_and_the_gradient_of_the_whole(pixels, eager):
    vgg = PerceptualVGG("random", "float64", "", widths=(4, 4, 4, 4, 4)).network
    rng = np.random.default_rng(0)
    images, targets = (tf.constant(rng.normal(size=(2, 5, 16, 16, 3))) for _ in range(2))

    def loss(images, targets):
        value = losses.perceptual(vgg(images), vgg(targets))
        return value, [2 * value]

    def whole(images):
        return loss(*(tf.reshape(x, (-1, 16, 16, 3)) for x in (images, targets)))

    def sliced(images):
        return loss_by_slices(loss, images, targets, pixels)

    def run(function):
        with tf.GradientTape() as tape:
            tape.watch(images)
            value, (other,) = function(images)
            total = 3 * value + tf.reduce_sum(images)
        return value, other, tape.gradient(total, images)

    wanted, found = ((run if eager else tf.function(run))(f) for f in (whole, sliced))
    for a, b in zip(wanted, found, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-10, atol=1e-15)


def test_loss_by_slices_takes_batches_of_unknown_size():
    def loss(images, targets):
        return tf.reduce_mean(tf.square(images - targets)), []

    @tf.function(input_signature=[tf.TensorSpec([None, 3, 2, 2, 1])])
    def gradient(images):
        with tf.GradientTape() as tape:
            tape.watch(images)
            value, _ = loss_by_slices(loss, images, tf.zeros_like(images), pixels=4)
        return tape.gradient(value, images)

    images = tf.reshape(tf.range(24.0), (2, 3, 2, 2, 1))
    np.testing.assert_allclose(gradient(images), images / 12, rtol=1e-6)


def test_slices_of_several_losses_wait_for_each_other():
    def loss(images, targets):
        return tf.reduce_mean(tf.square(images - targets)), []

    @tf.function
    def run(images):
        return [loss_by_slices(loss, x, tf.zeros_like(x), pixels=1)[0] for x in (images, 2 * images)]

    graph = run.get_concrete_function(tf.ones([1, 2, 2, 2, 1])).graph
    slices = [op for op in graph.get_operations() if "PartitionedCall" in op.type]
    assert len(slices) == 4
    for before, after in zip(slices, slices[1:]):
        assert before in ancestors(after)


def test_features_of_the_images_wait_for_those_of_the_targets():
    vgg = PerceptualVGG("random", "float32", "", widths=(4, 4, 4, 4, 4)).network

    @tf.function
    def run(images, targets):
        return features_of(vgg, images, targets)

    images, targets = tf.ones([2, 16, 16, 3]), tf.zeros([2, 16, 16, 3])
    graph = run.get_concrete_function(images, targets).graph
    convolutions = [op for op in graph.get_operations() if op.type == "Conv2D"]
    of_targets, of_images = convolutions[: len(convolutions) // 2], convolutions[len(convolutions) // 2 :]
    assert set(of_targets) <= ancestors(of_images[0])
    for a, b in zip(run(images, targets)[0], vgg(images), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
