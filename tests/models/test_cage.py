"""CAGE at tiny sizes: training, caching, sampling, export. The recordings are in tests/parity."""

import numpy as np
import pytest
import tensorflow as tf

from tests.models import cage_tiny
from tests.serving import harness
from tfvid import models
from tfvid.errors import UserError
from tfvid.models.cage.hparams import CageHParams
from tfvid.models.draws import StatelessDraws
from tfvid.serving.export import export
from tfvid.training.run_folder import RunFolder


@pytest.fixture(scope="module")
def model():
    return cage_tiny.cage()


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    return {"images": tf.constant(rng.integers(0, 256, (2, 6, *cage_tiny.SIZE, 3)), tf.uint8)}


def test_a_step_trains_the_regressor_alone(batch):
    model = cage_tiny.cage()
    model.step.assign(1)  # the first step has the learning rate 0
    before = {v.path: v.numpy() for v in model.weights}
    logs = model.train_step(batch)
    changed = {v.path.split("/")[0] for v in model.weights if np.any(v.numpy() != before[v.path])}
    assert changed == {"vector_field_regressor"}
    assert float(logs["regressor_skipped"]) == 0 and int(model.step) == 2


def test_a_step_in_double_precision(batch):
    model = cage_tiny.cage(precision="float64", num_warmup_steps=0)
    model.step.assign(1)
    logs = model.train_step(batch)
    assert float(logs["regressor_skipped"]) == 0
    assert {v.dtype for v in model.optimizers_by_name["regressor"].targets} == {"float64"}


def test_mixed_precision_is_near_single_precision(batch):
    velocities, kept = [], []
    for precision in ("float32", "mixed_bfloat16"):
        model = cage_tiny.cage(precision=precision)
        x = model.training_inputs(model.signed(batch["images"]), StatelessDraws(3))
        condition = model.regressor.condition(x["features"], x["masks"], model.hparams.window)
        velocity, mask = model.regressor(x["latents"], x["indices"], x["times"], condition, x["order"])
        velocities.append(velocity)
        kept.append(mask)
    np.testing.assert_array_equal(*kept)
    # 0.005; 0.03 with times in bfloat16.
    assert float(tf.norm(velocities[1] - velocities[0]) / tf.norm(velocities[0])) < 0.015
    assert float(model.train_step(batch)["regressor_skipped"]) == 0
    frames = model.seeded_sample(0, 0, 2, model.signed(batch["images"][:, :1]))
    assert frames.dtype == tf.float32 and np.isfinite(frames).all()


def test_the_weight_of_the_loss(batch):
    norms = []
    for weight in (1.0, 3.0):
        logs = cage_tiny.cage(flow_matching_loss=weight).train_step(batch)
        norms.append(float(logs["regressor_grad_norm"]))
    assert norms[1] == pytest.approx(3 * norms[0], rel=1e-4)


def test_validation_is_the_same_each_time_and_by_clip(model, batch):
    first, second = model.test_step(batch), model.test_step(batch)
    assert set(first) == {"flow_matching_loss", "flow_matching_loss_without_controls"}
    for key, value in first.items():
        assert value.shape == (2,)
        np.testing.assert_array_equal(value, second[key])
    assert np.any(first["flow_matching_loss"] != first["flow_matching_loss_without_controls"])


def test_latents_and_features_in_the_data_change_nothing(batch):
    model = cage_tiny.cage(no_scale_inv=True, latent_scale=3.0)
    images = model.signed(batch["images"])
    cached = {**batch, "latents": model.unscaled_latents(images), "features": model.features(images)}
    assert set(model.cached(cached)) == {"latents", "features"}
    inputs = [model.training_inputs(images, StatelessDraws(3), known) for known in ({}, model.cached(cached))]
    for key in inputs[0]:
        np.testing.assert_allclose(inputs[0][key], inputs[1][key], 1e-5, 1e-5, err_msg=key)


def test_latents_are_scaled_for_the_flow_alone(batch):
    plain, scaled = cage_tiny.cage(), cage_tiny.cage(latent_scale=3.0)
    images = plain.signed(batch["images"])
    np.testing.assert_allclose(scaled.encode(images), 3 * plain.encode(images), 1e-6)
    np.testing.assert_allclose(scaled.decode(scaled.encode(images)), plain.decode(plain.encode(images)), 0, 1e-5)


def test_the_first_steps_see_controls_alone(batch):
    model = cage_tiny.cage(no_scale_inv=True, controls_first_steps=2, feats_select_prob=0.0, no_context_p=0.0)
    images, given = model.signed(batch["images"]), model.hparams.window - model.hparams.num_target_frames
    clean = model.training_inputs(images, StatelessDraws(3), drop_context=False)["latents"][:, :given]
    for step in range(3):
        model.step.assign(step)
        inputs = model.training_inputs(images, StatelessDraws(3))
        assert inputs["num_controls"] == (24 if step < 2 else 0)
        assert np.any(inputs["latents"][:, :given] != clean) == (step < 2)
        assert model.training_inputs(images, StatelessDraws(3), drop_context=False)["num_controls"] == 0


def test_what_cannot_be_cached_is_computed(batch):
    cached = {**batch, "latents": tf.zeros([2, 6, 4, 6, 4]), "features": tf.zeros([2, 6, 4, 6, 8])}
    assert set(cage_tiny.cage().cached(cached)) == {"latents"}  # features are of random windows
    assert cage_tiny.cage(aug=True).cached(cached) == {}


def test_augmentation_is_the_same_in_a_clip(batch):
    model = cage_tiny.cage(aug=True, random_horizontal_flip=True)
    still = tf.repeat(batch["images"][:, :1], 6, axis=1)
    changed = model.augmented(still, StatelessDraws(0)).numpy()
    assert changed.dtype == np.uint8 and np.any(changed != still.numpy())
    np.testing.assert_array_equal(changed, np.repeat(changed[:, :1], 6, axis=1))


def test_samples_are_a_function_of_seed_and_controls(model, batch):
    controls = {
        "controls": tf.ones([2, 5, 4, 6, 8]),
        "control_masks": tf.cast(tf.range(6) < 2, tf.float32)[None, None, None, :, None] * tf.ones([2, 5, 4, 6, 1]),
    }
    free = model.generate(batch, seed=1, num_samples=2)
    assert set(free) == {"images"} and free["images"].shape == (2, 2, 5, *cage_tiny.SIZE, 3)
    assert float(tf.reduce_min(free["images"])) >= 0 and float(tf.reduce_max(free["images"])) <= 1
    assert np.any(free["images"][0] != free["images"][1])
    np.testing.assert_array_equal(free["images"][0], model.generate(batch, seed=1)["images"][0])
    placed = model.generate({**batch, **controls}, seed=1)
    assert np.any(placed["images"][0] != free["images"][0])
    np.testing.assert_array_equal(placed["num_controls"], np.full((1, 2, 5), 8))
    assert placed["control_error"].shape == placed["control_error_repeat"].shape == (1, 2, 5)


def test_the_error_of_a_frames_own_features_is_zero(model, batch):
    frames = model.signed(batch["images"])
    masks = tf.ones([2, 6, 4, 6, 1])
    np.testing.assert_allclose(model.control_error(frames, model.features(frames), masks), np.zeros((2, 6)), 0, 1e-5)
    assert np.all(model.control_error(frames, model.features(frames[:, ::-1]), masks).numpy() > 0.01)
    np.testing.assert_array_equal(model.control_error(frames, model.features(frames), 0 * masks), np.zeros((2, 6)))


def test_true_controls_are_where_something_moves():
    model = cage_tiny.cage(eval_controls=1)
    images = np.zeros((1, 6, *cage_tiny.SIZE, 3), np.uint8)
    images[:, 2:, 4:8, 8:12] = 255  # tile (1, 2) changes in the second generated frame
    signed = model.signed(tf.constant(images))
    _, masks = model.true_controls(signed[:, :1], signed[:, 1:])
    assert np.argwhere(masks[0, 1, ..., 0]).tolist() == [[1, 2]]
    assert "control_error" in model.generate({"images": tf.constant(images)}, seed=0)


def test_sampling_in_one_graph_gives_the_eager_frames(model, batch):
    eager = model.seeded_sample(5, 0, 4, model.signed(batch["images"][:, :1]))
    traced = tf.function(lambda x: model.seeded_sample(5, 0, 4, x))(model.signed(batch["images"][:, :1]))
    np.testing.assert_allclose(eager, traced, 0, 1e-5)


@pytest.mark.parametrize("options", [{"method": "rollout"}, {"past_horizon": 1}, {"gamma": 0.5, "odesolver": "rk4"}])
def test_ways_to_sample(model, batch, options):
    frames = model.seeded_sample(0, 0, 5, model.signed(batch["images"][:, :2]), **options)
    assert frames.shape == (2, 5, *cage_tiny.SIZE, 3) and np.isfinite(frames).all()


def test_starting_from_nothing(model):
    placed = tf.zeros([1, 2, 4, 6, 8]), tf.zeros([1, 2, 4, 6, 1])
    assert model.seeded_sample(0, 0, 4, None, *placed).shape == (1, 4, *cage_tiny.SIZE, 3)


def test_it_is_served(model, tmp_path):
    path = export(model, str(tmp_path / "served"), model_name="cage")
    images = harness.check_served(path, tmp_path)["images"]
    assert images.shape == (2, 5, *cage_tiny.SIZE, 3) and images.min() >= 0 and images.max() <= 1
    loaded = tf.saved_model.load(path).signatures["features"]
    frames = tf.random.stateless_uniform([1, 2, *cage_tiny.SIZE, 3], [0, 1])
    np.testing.assert_allclose(loaded(images=frames)["features"], model.features(2 * frames - 1), 1e-4, 1e-4)


def test_training_starts_from_a_trained_autoencoder(tmp_path):
    trained = cage_tiny.autoencoder(seed=7)
    run = RunFolder.create(str(tmp_path), "cage_autoencoder", trained.hparams, cage_tiny.SPEC)
    run.save_weights(trained)
    model = cage_tiny.cage(autoencoder_checkpoint=str(tmp_path))
    model.begin_training()
    for ours, theirs in zip(model.autoencoder.weights, trained.autoencoder.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    "options, message",
    [
        ({}, "--autoencoder_checkpoint: expected the run folder of the cage_autoencoder"),
        ({"autoencoder_checkpoint": "no/such/run"}, "expected a run folder"),
    ],
)
def test_missing_frozen_networks(options, message):
    with pytest.raises(UserError, match=message):
        cage_tiny.cage(**options).begin_training()


def test_another_autoencoder_is_refused(tmp_path):
    trained = cage_tiny.autoencoder(num_embeddings=8)
    RunFolder.create(str(tmp_path), "cage_autoencoder", trained.hparams, cage_tiny.SPEC).save_weights(trained)
    with pytest.raises(UserError, match="num_embeddings: expected 8 as in --autoencoder_checkpoint"):
        cage_tiny.cage(autoencoder_checkpoint=str(tmp_path)).begin_training()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"inner_dim": 9}, "inner_dim: expected a multiple of num_heads=2"),
        ({"state_res": (4, 4)}, r"state_res: expected \(4, 6\)"),
        ({"vit_shape": None}, "vit_shape: expected a value exactly where dino_version is tiny"),
        ({"autoencoder_width": 20}, "autoencoder_width: expected a multiple of the norms' 32 groups"),
        ({"sigma": -1.0}, "sigma: expected a value >= 0"),
        ({"inner_dim": 9, "num_heads": 3}, "inner_dim: expected an even width"),
        ({"state_res": (513, 6)}, "state_res: expected a value >= 1 and <= 512"),
        ({"state_res": (2, 3), "masking_ratio": 0.9}, "masking_ratio: expected a share that keeps one of 6 positions"),
        ({"num_dino_layers": 2}, "num_dino_layers: expected at most the 1 layers"),
        ({"feature_image_size": 3}, "feature_image_size: expected at least a patch of 4 pixels"),
        ({"vit_shape": (9, 1, 2, 4, 3)}, "vit_shape: expected a width that 2 heads divide"),
        ({"vit_shape": (6, 1, 2, 4, 3), "feature_backbone": "mae"}, "vit_shape: expected a width that 4 divides"),
        ({"autoencoder_levels": ()}, "autoencoder_levels: expected at least one level"),
        ({"beta1": 1.0}, "beta1: expected a value >= 0 and < 1"),
    ],
)
def test_impossible_values(options, message):
    with pytest.raises(UserError, match=message):
        cage_tiny.cage(**options)


def test_too_short_clips_are_refused():
    with pytest.raises(UserError, match="images: expected .T, H, W, 3. with at least 5 frames"):
        cage_tiny.cage(spec={"images": tf.TensorSpec([4, *cage_tiny.SIZE, 3], tf.uint8)})


@pytest.mark.parametrize("dataset, parameters", [("bair", 326.8e6), ("clevrer", 199.1e6)])
@pytest.mark.slow
def test_published_sizes(dataset, parameters):
    hparams = CageHParams.load(f"hparams/{dataset}/cage.json")
    side = {"bair": 256, "clevrer": 128}[dataset]
    model = models.build("cage", hparams, {"images": tf.TensorSpec([16, side, side, 3], tf.uint8)}, trainable=False)
    count = sum(np.prod(v.shape) for v in model.weights)
    assert count == pytest.approx(parameters, rel=2e-3)
