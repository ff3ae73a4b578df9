"""Training of CAGE's autoencoders at tiny sizes."""

import numpy as np
import pytest
import tensorflow as tf

from tests.models import cage_tiny
from tfvid.errors import UserError
from tfvid.models.cage.model_autoencoder import hinge_loss


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (2, 6, 2, 3, 3))
    return {"images": tf.constant(coarse.repeat(8, 2).repeat(8, 3), tf.uint8)}


@pytest.mark.slow
def test_a_step_with_every_loss(batch):
    model = cage_tiny.autoencoder(perceptual_weight=0.5, perceptual_weights="random", gan_weight=0.8, gan_start=1)
    assert (model.phase(0), model.phase(1)) == (False, True)
    before = {v.path: v.numpy() for v in model.weights}
    logs = model.train_step(batch)
    assert {"reconstruction", "perceptual", "codebook"} <= set(logs) and "gan" not in logs
    changed = {v.path.split("/")[0] for v in model.weights if np.any(v.numpy() != before[v.path])}
    assert changed == {"autoencoder"}
    logs = model.train_step(batch)  # the discriminator takes part from here on
    assert {"gan", "gan_balance", "discriminator", "discriminator_grad_norm"} <= set(logs)
    assert all(np.isfinite(float(v)) for v in logs.values())
    assert np.any(model.discriminator.last.kernel.numpy() != before["discriminator/last/kernel"])


def test_a_step_in_mixed_precision(batch):
    model = cage_tiny.autoencoder(precision="mixed_bfloat16", gan_weight=0.8, gan_start=0)
    logs = model.train_step(batch)
    assert {"gan", "discriminator"} <= set(logs) and all(np.isfinite(float(v)) for v in logs.values())
    assert {v.dtype for v in model.test_step(batch).values()} >= {tf.float32}


@pytest.mark.parametrize("kind", ["ldm-vq", "ours"])
def test_the_loss_falls(batch, kind):
    options = {} if kind == "ldm-vq" else {"autoencoder_groups": 2, "autoencoder_width": 4}
    model = cage_tiny.autoencoder(autoencoder_type=kind, lr=5e-3, **options)
    step = tf.function(model.train_step)
    # One frame throughout, so that what a step happens to draw does not hide the trend.
    batch = {"images": tf.repeat(tf.repeat(batch["images"][:1, :1], 2, axis=0), 6, axis=1)}
    values = [float(step(batch)["reconstruction"]) for _ in range(40)]
    assert np.mean(values[-5:]) < 0.8 * np.mean(values[:3])


def test_adaptive_weight_balances_the_last_layer():
    model = cage_tiny.autoencoder(gan_weight=0.8, gan_start=0)
    kernel = model.autoencoder.decoder.conv_out.kernel.value
    with tf.GradientTape(persistent=True) as tape:
        fidelity, gan = 6 * tf.reduce_sum(kernel), 2 * tf.reduce_sum(kernel)
    assert float(model.balance(tape, fidelity, gan)) == pytest.approx(3, rel=1e-3)


def test_hinge_loss():
    assert float(hinge_loss(tf.constant([2.0, 0.0]), tf.constant([-2.0, 1.0]))) == pytest.approx(0.5 * (0.5 + 1.0))


def test_use(batch):
    model = cage_tiny.autoencoder()
    images = model.images_to_float(batch["images"])
    latents = model.encode(images)
    assert latents.shape == (2, 6, 4, 6, 4)
    future = model.generate(batch, seed=0, num_samples=2, horizon=3)["images"]
    assert future.shape == (2, 2, 3, *cage_tiny.SIZE, 3)
    np.testing.assert_allclose(future[0], model.decode(latents[:, 1:4]), 0, 1e-5)
    measured = model.test_step(batch)
    assert measured["l1"].shape == measured["psnr"].shape == (2,) and 0 < float(measured["codes_used"]) <= 1
    served = model.signatures()["serving_default"](images=images, seed=tf.constant(0, tf.int64))["images"]
    np.testing.assert_allclose(served, model.decode(latents), 0, 1e-5)


def test_missing_perceptual_weights(tmp_path):
    model = cage_tiny.autoencoder(perceptual_weight=1.0, perceptual_weights=str(tmp_path))
    with pytest.raises(UserError, match="lpips_vgg.npz: no weights of .* or set perceptual_weight to 0"):
        model.make_train_function()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"gan_weight": 0.8, "d_layers": 3}, "d_layers: expected fewer than 3 for frames whose shorter side is 16"),
        ({"perceptual_weight": 1.0, "autoencoder_levels": (1,)}, "perceptual_weight: expected 0 for frames"),
    ],
)
def test_frames_too_small_for_a_loss(options, message):
    model = cage_tiny.autoencoder(**options)
    if "perceptual_weight" in options:
        model.spec = {"images": tf.TensorSpec([6, 8, 24, 3], tf.uint8)}
    with pytest.raises(UserError, match=message):
        model.make_train_function()


def test_frames_must_fit():
    with pytest.raises(UserError, match=r"images: expected \[T, H, W, 3\] with H and W multiples of 16"):
        cage_tiny.autoencoder(autoencoder_levels=(1, 1, 1, 1, 1))
