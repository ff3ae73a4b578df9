"""SNA, SV2P, DNA and repeat through the contract of every model; exact values are in tests/parity."""

import numpy as np
import pytest
import tensorflow as tf

from tfvid import models
from tfvid.errors import UserError
from tfvid.models.baselines import dna, sv2p
from tfvid.models.draws import StatelessDraws

CONTEXT, LENGTH, SIZE = 2, 4, (8, 16)
TINY = {"sna": {"ngf": 2, "num_masks": 2}, "sv2p": {"num_masks": 2}, "dna": {"num_masks": 2}, "repeat": {}}
RECURRENT = ("sna", "sv2p", "dna")


def _spec(actions=2, states=3, channels=3):
    spec = {"images": tf.TensorSpec([LENGTH, *SIZE, channels], tf.uint8)}
    if actions:
        spec["actions"] = tf.TensorSpec([LENGTH - 1, actions], tf.float32)
    if states:
        spec["states"] = tf.TensorSpec([LENGTH, states], tf.float32)
    return spec


def _build(name, spec=None, **more):
    values = {"context_frames": CONTEXT, "sequence_length": LENGTH, "batch_size": 2, **TINY[name], **more}
    return models.build(name, models.model_class(name).HPARAMS(**values), spec or _spec())


def _batch(spec, frames=LENGTH, batch=2, seed=0):
    rng = np.random.default_rng(seed)
    result = {"images": rng.integers(0, 256, (batch, frames, *spec["images"].shape[1:])).astype(np.uint8)}
    for key, length in (("actions", frames - 1), ("states", frames)):
        if key in spec:
            result[key] = rng.normal(size=(batch, length, spec[key].shape[-1])).astype(np.float32)
    return {k: tf.constant(v) for k, v in result.items()}


@pytest.fixture(scope="module", autouse=True)
def small_channels():
    """SV2P and DNA have fixed widths, too wide for quick tests."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (dna, sv2p):
            patch.setattr(module, "CHANNELS", {1: 2, 2: 2, 3: 3, 4: 3, 5: 4, 6: 3, 7: 2})
        yield


@pytest.fixture(scope="module", params=list(TINY))
def model(request, small_channels):
    """Each baseline, built once."""
    return _build(request.param)


def test_generate(model):
    batch = _batch(model.spec, frames=6)
    videos = model.generate(batch, seed=3, num_samples=3)
    assert videos["images"].shape == (3, 2, 6 - CONTEXT, *SIZE, 3)
    frames = videos["images"].numpy()
    assert frames.min() >= 0 and frames.max() <= 1 + 1e-6
    again = model.generate(batch, seed=3, num_samples=3)["images"].numpy()
    np.testing.assert_array_equal(frames, again)
    other = model.generate(batch, seed=4, num_samples=3)["images"].numpy()
    stochastic = getattr(model, "stochastic", False)
    assert (np.abs(other - frames).max() > 1e-4) == stochastic
    assert (np.abs(frames[0] - frames[1]).max() > 1e-4) == stochastic
    if not isinstance(model, models.model_class("repeat")):
        assert videos["states"].shape == (3, 2, 4, 3)


def test_only_what_is_known_is_used(model):
    batch = _batch(model.spec, frames=5)
    expected = model.generate(batch, seed=1)["images"]
    later = {**batch, "images": tf.concat([batch["images"][:, :CONTEXT], batch["images"][:, CONTEXT:] // 2], 1)}
    np.testing.assert_array_equal(model.generate(later, seed=1)["images"], expected)
    known = {**batch, "images": batch["images"][:, :CONTEXT]}
    np.testing.assert_array_equal(model.generate(known, seed=1, horizon=3)["images"], expected)
    assert model.generate(known, seed=1, horizon=LENGTH - CONTEXT)["images"].shape[2] == LENGTH - CONTEXT


def test_the_signature_gives_what_generate_gives(model):
    serve = model.signatures()["serving_default"].get_concrete_function()
    batch = _batch(model.spec)
    images = model.images_to_float(batch["images"])[:, :CONTEXT]
    inputs = {"images": images, "seed": tf.constant(5, tf.int64)}
    if not isinstance(model, models.model_class("repeat")):
        inputs |= {"actions": batch["actions"], "states": batch["states"][:, :CONTEXT]}
    served = serve(**inputs)
    direct = model.generate(batch, seed=5)
    for key, value in served.items():
        np.testing.assert_allclose(value, direct[key][0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", RECURRENT)
def test_training_lowers_the_loss(name):
    model = _build(name, lr=0.003)
    batch = _batch(model.spec)
    step = tf.function(model.train_step, autograph=False)
    losses = [float(step(batch)["g_loss"]) for _ in range(8)]
    assert losses[-1] < 0.97 * losses[0]
    assert int(model.step) == 8
    logs = model.test_step(batch)
    assert logs["psnr"].shape == logs["g_loss"].shape == (2,)
    assert all(np.isfinite(v.numpy()).all() for v in logs.values())


@pytest.mark.parametrize(
    "name, keys", [("sna", (0, 0)), ("dna", (0, 0)), ("sv2p", (0, 0)), ("sv2p", (2, 0)), ("sna", (0, 3))]
)
def test_data_without_actions_or_states(name, keys):
    model = _build(name, _spec(*keys))
    batch = _batch(model.spec)
    result = model.generate(batch, seed=0)
    assert ("states" in result) == bool(keys[1])
    assert np.isfinite(float(model.train_step(batch)["g_loss"]))


@pytest.mark.parametrize(
    "name, options",
    [
        ("sna", {"generate_scratch_image": False}),
        ("sna", {"transformation": "dna", "num_masks": 1, "kernel_size": (3, 4)}),
        ("sna", {"first_image_background": False, "kernel_size": (4, 3)}),
        ("sv2p", {"transformation": "dna", "num_masks": 1}),
        ("sv2p", {"stochastic_model": False}),
        ("sv2p", {"multi_latent": True, "latent_channels": 2}),
        ("sv2p", {"num_masks": 1}),
        ("dna", {"kernel_size": (3, 3), "num_masks": 1}),
    ],
)
def test_options(name, options):
    model = _build(name, _spec(channels=1), **options)
    batch = _batch(model.spec)
    outputs = model.forward(model.prepare(batch), StatelessDraws(0), training=True)
    np.testing.assert_allclose(tf.reduce_sum(outputs["masks"], axis=-1), 1, rtol=1e-5)
    logs = model.train_step(batch)
    assert np.isfinite(float(logs["g_loss"])) and float(logs["generator_grad_norm"]) > 0


@pytest.mark.parametrize("name, precision", [("sna", "float64"), ("dna", "mixed_bfloat16"), ("sv2p", "mixed_bfloat16")])
def test_precision(name, precision):
    batch = _batch(_spec())
    single, other = (_build(name, precision=p) for p in ("float32", precision))
    for a, b in zip(single.weights, other.weights):
        b.assign(a)
    expected, frames = (m.generate(batch, seed=0)["images"] for m in (single, other))
    assert frames.dtype == ("float64" if precision == "float64" else "float32")
    if name != "sv2p":  # whose noise is another in another type
        np.testing.assert_allclose(frames, expected, atol=1e-5 if precision == "float64" else 2e-2)
    assert np.isfinite(float(other.train_step(batch)["g_loss"]))


@pytest.mark.parametrize("latent", [False, True])
def test_a_loop_and_an_unrolled_rollout_are_the_same(latent):
    model = _build("sv2p", multi_latent=latent)
    inputs = model.prepare(_batch(model.spec, frames=9))
    latents = model.sample_latents(StatelessDraws(1), 2, 8)
    unrolled, looped = (model.rollout(inputs, 8, latents=latents, unroll=u) for u in (True, False))
    for key in unrolled:
        np.testing.assert_allclose(unrolled[key], looped[key], rtol=0, atol=2e-6)


def test_scheduled_sampling_feeds_a_rounded_share():
    model = _build("sna", schedule_sampling_k=100.0)
    for step, expected in ((0, 4), (460, 2), (100000, 0)):  # 4 k / (k + exp(step / k)): 3.96, 2.01, 0
        model.step.assign(step)
        mask = model.scheduled_sampling(StatelessDraws(0), 4, 7).numpy()
        assert mask.shape == (7 - CONTEXT, 4)
        assert (mask.sum(axis=1) == expected).all()
    model.step.assign(460)
    masks = model.scheduled_sampling(StatelessDraws(0), 4, 40).numpy()
    assert len({tuple(row) for row in masks}) > 1  # a fresh permutation at each step
    assert _build("sna", schedule_sampling_k=-1.0).scheduled_sampling(StatelessDraws(0), 4, 7) is None


def test_the_posterior_waits_for_the_second_stage():
    model = _build("sv2p", num_iterations_1st_stage=5)
    inputs = model.prepare(_batch(model.spec))
    noise = model.sample_latents(StatelessDraws(9), 2, LENGTH - 1)

    def frames():
        return model.training_outputs(inputs, _Fixed(noise), training=False)["gen_images"]

    model.step.assign(4)
    plain = model.rollout(inputs, LENGTH - 1, latents=noise)["gen_images"]
    np.testing.assert_allclose(frames(), plain, atol=1e-6)
    model.step.assign(5)
    assert np.abs(frames() - plain).max() > 1e-5


class _Fixed:
    """Draws that are always the same noise."""

    def __init__(self, value):
        self.value = value

    def scope(self, name):
        return self

    def normal(self, name, shape, dtype):
        return self.value


def test_sizes_of_the_original(monkeypatch):
    """Parameters counted in the original's own models (64x64, BAIR)."""
    monkeypatch.setattr(sv2p, "CHANNELS", {1: 32, 2: 32, 3: 64, 4: 64, 5: 128, 6: 64, 7: 32})
    spec = {"images": tf.TensorSpec([12, 64, 64, 3], tf.uint8)}
    values = {"context_frames": 2, "sequence_length": 12}
    larger = models.build("sv2p", models.model_class("sv2p").HPARAMS(**values), spec, trainable=False)
    assert larger.count_params() == 8378500
    spec |= {"actions": tf.TensorSpec([11, 4], tf.float32), "states": tf.TensorSpec([12, 3], tf.float32)}
    smaller = models.build("sna", models.model_class("sna").HPARAMS(**values), spec, trainable=False)
    assert smaller.count_params() == 2374225


def test_repeat_repeats():
    model = _build("repeat")
    batch = _batch(model.spec, frames=5)
    videos = model.generate(batch, seed=0, num_samples=2)["images"]
    last = batch["images"][:, CONTEXT - 1].numpy() / np.float32(255)
    np.testing.assert_array_equal(videos, np.broadcast_to(last[None, :, None], videos.shape))
    truth = model.images_to_float(batch["images"])[:, CONTEXT:]
    mse = np.mean(np.square(truth - videos[0]), axis=(1, 2, 3, 4))
    np.testing.assert_allclose(model.test_step(batch)["mse"], mse, rtol=1e-6)
    model.train_step(batch)
    assert int(model.step) == 1 and not model.weights


# What a user can get wrong.


def test_frames_of_another_size():
    spec = {"images": tf.TensorSpec([LENGTH, 12, 16, 3], tf.uint8)}
    for name in RECURRENT:
        with pytest.raises(UserError, match="divisible by 8. Received: 12x16"):
            _build(name, spec)


def test_too_little_to_generate_from(model):
    batch = _batch(model.spec)
    with pytest.raises(UserError, match="expected 2 context frames. Received: 1"):
        model.generate({**batch, "images": batch["images"][:, :1]}, seed=0)
    if isinstance(model, models.model_class("repeat")):
        return
    with pytest.raises(UserError, match="Received no actions"):
        model.generate({k: v for k, v in batch.items() if k != "actions"}, seed=0)
    with pytest.raises(UserError, match="actions: expected 6 steps to predict 6 frames. Received: 3"):
        model.generate(batch, seed=0, horizon=5)
    with pytest.raises(UserError, match="horizon of 1 frame or more"):
        model.generate(batch, seed=0, horizon=-1)


def test_a_loss_of_states_without_states():
    with pytest.raises(UserError, match="state_weight: expected 0 for data without states"):
        _build("sna", _spec(2, 0), state_weight=0.1)


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("sna", {"transformation": "dna"}, "num_masks: expected 1 with transformation=dna"),
        ("dna", {"transformation": "dna"}, "transformation: expected one of cdna"),
        ("sv2p", {"l2_weight": 0.0}, "l2_weight: expected l1_weight or l2_weight > 0"),
        ("sv2p", {"kl_anneal_steps": (5, 5)}, "kl_anneal_steps: expected"),
        ("sv2p", {"kl_anneal": "sigmoid"}, "kl_anneal_k: expected a value > 0"),
        ("sna", {"schedule_sampling_k": 0.0}, "schedule_sampling_k: expected a value > 0, or -1"),
    ],
)
def test_values_that_do_not_fit(name, options, message):
    with pytest.raises(UserError, match=message):
        _build(name, **options)


def test_clips_of_another_length_for_the_posterior():
    model = _build("sv2p")
    with pytest.raises(UserError, match="posterior: expected clips of 4 frames. Received: 6"):
        model.train_step(_batch(model.spec, frames=6))
