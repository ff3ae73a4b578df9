"""SAVP beyond the recordings: other sizes, forms of training, float types, sampling, serving, checkpoints."""

import numpy as np
import pytest
import tensorflow as tf

from tfvid import models
from tfvid.errors import UserError
from tfvid.models.draws import StatelessDraws
from tfvid.models.savp import convert
from tfvid.models.savp.hparams import SAVPHParams

FRAMES = 6
TINY = dict(
    context_frames=2, sequence_length=FRAMES, ngf=2, nef=2, ndf=1, nz=2, num_transformed_images=2, clip_length=4,
    lr=1e-3,
)
GAN = dict(video_sn_gan_weight=0.1, video_sn_vae_gan_weight=0.1, kl_weight=0.1, kl_anneal="none")


def _spec(height=32, width=32, channels=3, **more):
    return {"images": tf.TensorSpec([FRAMES, height, width, channels], tf.uint8), **more}


def _build(spec=None, **changes):
    return models.build("savp", SAVPHParams(**{**TINY, **changes}), spec or _spec())


def _batch(batch=2, frames=FRAMES, height=32, width=32, channels=3, seed=0):
    images = np.random.default_rng(seed).integers(0, 256, (batch, frames, height, width, channels), np.uint8)
    return {"images": tf.constant(images)}


def _values(model, scope=""):
    return {v.path: np.array(v) for v in model.weights if v.path.startswith(scope)}


def _changed(before, after):
    return {k for k in before if np.any(before[k] != after[k])}


def _step(model, batch):
    logs = model.train_step(batch)
    assert all(np.isfinite(float(v)) for v in logs.values()), logs
    return logs


def test_one_step_trains_everything_and_advances_every_vector():
    model = _build(**GAN, vae_gan_feature_cdist_weight=1.0)
    before = _values(model)
    logs = _step(model, _batch())
    changed = _changed(before, _values(model))
    assert {p for p in before if p.startswith("discriminator/")} == {p for p in changed if p.startswith("disc")}
    assert "generator/encoder/z_mu/dense/kernel" in changed
    assert logs["g_loss"] != logs["g_loss_post"] and int(model.step) == 1


def test_a_graph_and_eager_execution_agree():
    eager, graph = _build(**GAN), _build(**GAN)
    for one, other in zip(eager.weights, graph.weights, strict=True):
        other.assign(one)
    logs, traced = eager.train_step(_batch()), tf.function(graph.train_step)(_batch())
    for name in ("d_loss", "g_loss", "gen_l1_loss", "g_loss_post"):
        np.testing.assert_allclose(logs[name], traced[name], rtol=1e-4)


def test_one_set_of_discriminators_may_judge_both_rollouts():
    model = _build(**GAN, use_same_discriminator=True)
    assert not any("discriminator/encoder" in v.path for v in model.weights)
    logs = _step(model, _batch())
    assert {"discrim_video_sn_gan_loss", "discrim_video_sn_vae_gan_loss"} <= set(logs)


def test_sngan_and_discriminators_of_different_rollouts():
    model = _build(gan_loss_type="SNGAN", image_sn_gan_weight=0.1, images_sn_vae_gan_weight=0.2,
                   vae_gan_feature_l2_weight=1.0)
    assert {"gen_image_sn_gan_loss", "gen_images_sn_vae_gan_loss"} <= set(_step(model, _batch()))


def test_joint_optimisation_steps_on_the_losses_of_before():
    joint, apart = _build(**GAN, joint_gan_optimization=True), _build(**GAN)
    for one, other in zip(joint.weights, apart.weights, strict=True):
        other.assign(one)
    start = _values(joint)
    logs = _step(joint, _batch())
    apart.train_step(_batch())
    assert "g_loss_post" not in logs
    # The discriminators step on the same losses either way; the generator does not.
    first, second = _values(joint), _values(apart)
    discriminators = [k for k in start if k.startswith("discriminator/")]
    assert _changed(start, first) >= set(discriminators)
    for key in discriminators:
        np.testing.assert_allclose(first[key], second[key], atol=1e-6)
    assert any(np.any(first[k] != second[k]) for k in start if k.startswith("generator/"))


def test_losses_of_the_future_only_ignore_predictions_of_the_context():
    h = SAVPHParams(**{**TINY, "loss_on_future_only": True})
    assert h.loss_frames(FRAMES) == FRAMES - TINY["context_frames"]
    model = models.build("savp", h, _spec())
    inputs = model.prepare(_batch())
    draws = model.train_draws()
    outputs = model.forward(inputs, draws, training=False)
    expected = tf.reduce_mean(tf.abs(outputs["posterior"]["image"][:, 1:] - inputs["image"][:, 2:]))
    np.testing.assert_allclose(model.frame_losses(inputs, outputs)["gen_l1_loss"], expected, rtol=1e-6)


def test_shared_clips_start_together():
    model = _build(**GAN, share_clip_offsets=True)
    calls = model.calls_of_discriminators()
    offsets = model._offsets("pass1", model.prepare(_batch()), model.train_draws(), calls)
    starts = [o["t_start"].numpy().tolist() for o in offsets.values()]
    assert len(starts) == 4 and all(s == starts[0] for s in starts)


def test_shared_context_steps_change_nothing():
    model = _build(**GAN, context_frames=3)
    inputs = model.prepare(_batch())
    latents = [tf.random.stateless_normal([2, FRAMES - 1, 2], [i, 0]) for i in (0, 1)]
    latents[1] = tf.concat([latents[0][:, :2], latents[1][:, 2:]], axis=1)
    step = model.generator.bind()
    merged = model.generator.unroll(step, inputs, latents, [None, None], FRAMES - 3, shared=2)
    for video, own in zip(merged, latents):
        (alone,) = model.generator.unroll(step, inputs, [own], [None], FRAMES - 3)
        np.testing.assert_allclose(video["image"], alone["image"], atol=1e-5)


@pytest.mark.parametrize("height, width, layers", [(256, 256, 10), (128, 256, 8), (64, 96, 6)])
def test_the_cell_follows_the_image_size(height, width, layers):
    model = _build(_spec(height, width, 1), ngf=1, nef=1, nz=1, num_transformed_images=1)
    assert model.generator.cell.num_layers == layers
    video = model.generate(_batch(1, 2, height, width, 1), seed=0, horizon=1)["images"]
    assert video.shape == (1, 1, 1, height, width, 1)


def test_float64_throughout():
    model = _build(**GAN, precision="float64")
    logs = _step(model, _batch())
    assert logs["gen_l1_loss"].dtype == tf.float64
    assert all(v.dtype == "float64" for v in model.trainable_variables)


def test_bfloat16_keeps_float32_where_it_matters():
    model, exact = _build(**GAN, precision="mixed_bfloat16"), _build(**GAN)
    for one, other in zip(model.weights, exact.weights, strict=True):
        assert one.dtype == "float32"
        one.assign(other)
    logs, expected = _step(model, _batch()), _step(exact, _batch())
    assert logs["gen_l1_loss"].dtype == tf.float32
    np.testing.assert_allclose(logs["gen_l1_loss"], expected["gen_l1_loss"], rtol=0.02)
    assert model.generate(_batch(1, 2), seed=0, horizon=2)["images"].dtype == tf.float32


def test_sampling_is_a_function_of_the_seed_and_needs_the_context_only():
    model = _build()
    batch = _batch()
    videos = model.generate(batch, seed=5, num_samples=3, horizon=4)["images"].numpy()
    assert videos.shape == (3, 2, 4, 32, 32, 3) and videos.min() >= 0 and videos.max() <= 1
    context = {"images": batch["images"][:, :2]}
    np.testing.assert_allclose(model.generate(context, 5, 3, 4)["images"], videos, atol=1e-6)
    assert np.abs(model.generate(context, 6, 3, 4)["images"] - videos).max() > 0
    assert np.abs(videos[0] - videos[1]).max() > 0
    longer = model.generate(context, 5, 3, 6)["images"]
    np.testing.assert_allclose(longer[:, :, :4], videos, atol=1e-6)


def test_a_long_rollout_is_a_loop_with_the_same_result(monkeypatch):
    model = _build(learn_initial_state=True, last_frames=2)
    unrolled = model.generate(_batch(), 1, horizon=5)["images"]
    monkeypatch.setattr("tfvid.layers.rollout.UNROLL_LIMIT", 1)
    model._samplers.clear()
    np.testing.assert_allclose(model.generate(_batch(), 1, horizon=5)["images"], unrolled, atol=1e-5)


def test_one_context_frame_leaves_nothing_for_the_posterior():
    model = _build(context_frames=1, use_e_rnn=True)
    inputs = model.prepare({k: v[:, :1] for k, v in _batch().items()})
    assert model.sample(inputs, StatelessDraws(0), 1)["image"].shape == (1, 2, 1, 32, 32, 3)


def test_without_latents_every_sample_is_the_same():
    model = _build(nz=0)
    videos = model.generate(_batch(), seed=0, num_samples=2, horizon=2)["images"]
    np.testing.assert_array_equal(videos[0], videos[1])


def test_a_learnt_prior_takes_actions():
    spec = _spec(actions=tf.TensorSpec([FRAMES - 1, 4], tf.float32), states=tf.TensorSpec([FRAMES, 3], tf.float32))
    model = _build(spec, learn_prior=True, kl_weight=0.1, kl_anneal="none", state_weight=1.0)
    batch = {**_batch(), "actions": tf.ones([2, FRAMES - 1, 4]), "states": tf.ones([2, FRAMES, 3])}
    assert "gen_state_loss" in _step(model, batch)
    outputs = model.generate({**batch, "states": batch["states"][:, :2]}, seed=0, horizon=4)
    assert outputs["states"].shape == (1, 2, 4, 3)
    with pytest.raises(UserError, match="expected 6 actions for 2 context frames and horizon 5. Received: 5"):
        model.generate(batch, seed=0, horizon=5)


@pytest.mark.parametrize("batch, horizon, part", [
    ({"images": np.zeros((1, 1, 32, 32, 3), np.uint8)}, 2, "expected 2 context frames"),
    ({"frames": 0}, 2, "expected images"),
    ({"images": np.zeros((1, 2, 32, 32, 3), np.uint8)}, 0, "horizon of 1"),
])
def test_mistakes_in_sampling(batch, horizon, part):
    with pytest.raises(UserError, match=part):
        _build(nz=0).generate(batch, seed=0, horizon=horizon)


def test_padding_of_the_last_batch_does_not_count():
    model = _build(nz=0)
    batch = _batch(1)
    padded = {"images": tf.concat([batch["images"], _batch(1, seed=1)["images"]], 0), "valid": tf.constant([True, False])}
    np.testing.assert_allclose(model.test_step(padded)["psnr"], model.test_step(batch)["psnr"], rtol=1e-4)


def test_the_signature_takes_any_batch_and_a_seed():
    serve = _build().signatures()["serving_default"]
    frames = tf.random.stateless_uniform([3, 2, 32, 32, 3], [0, 0])
    first = serve(frames, tf.constant(1, tf.int64))["images"]
    assert first.shape == (3, FRAMES - 2, 32, 32, 3)
    np.testing.assert_array_equal(serve(frames, tf.constant(1, tf.int64))["images"], first)
    assert np.abs(serve(frames, tf.constant(2, tf.int64))["images"] - first).max() > 0
    assert serve(frames[:1], tf.constant(1, tf.int64))["images"].shape[0] == 1
    operations = {op.type for op in serve.get_concrete_function().graph.get_operations()}
    assert not operations & {"PyFunc", "EagerPyFunc", "PyFuncStateless"}


def test_checkpoint_names():
    model = _build(**GAN)
    names = convert.variable_map(model)
    assert all(path == name for path, name in names.items()) and set(names) == {v.path for v in model.weights}
    old = "generator/rnn/dna_cell/h0/conv_pool2d/kernel"
    assert convert.canonical_name(old) in names.values()
    for name in ("global_step", "generator/encoder/z_mu/dense/kernel/Adam_1", "g_apply_gradients/beta1_power",
                 "discriminator/video_sn_conv0_0/conv3d/kernel", "discriminator_encoder/video_sn_fc4/dense/bias"):
        assert convert.is_ignorable(name), name
    for name in (*names.values(), "generator/rnn/savp_cell/h9/conv_pool2d/kernel"):
        assert not convert.is_ignorable(name), name
