"""ACT-VAE at tiny sizes: steps, augmentation, sampling, serving. The recordings are in tests/parity."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from tests.serving import harness
from tfvid import models
from tfvid.errors import UserError
from tfvid.models.actvae import evaluation, losses
from tfvid.models.actvae.hparams import ActVAEHParams
from tfvid.models.draws import RecordedDraws
from tfvid.serving.export import export

JOINTS, SIZE = 13, 32


def spec(**more):
    keys = {"poses": tf.TensorSpec([6, JOINTS, 2], tf.float32), "action_class": tf.TensorSpec([], tf.int32)}
    return {**keys, **more}


FRAME_STEP = {"frame_step": tf.TensorSpec([], tf.int32)}
RESIDUAL = {
    "pose_head": "residual", "decoder_units": 8, "shifted_targets": False, "frame_step_conditioning": True,
    "diversity_weight": 0.5, "flip_probability": 0.5, "jitter_scale": 0.1, "jitter_rotation": 10.0,
    "jitter_shift": 3.0, "kl_per_sample": True,
}  # fmt: skip


def hparams(**options):
    return ActVAEHParams(**{"latent_dim": 4, "image_size": SIZE, "num_actions": 3, "eval_samples": 2, **options})


def build(seed=0, **options):
    h = hparams(**options)
    return models.build("actvae", h, spec(**(FRAME_STEP if h.frame_step_conditioning else {})), seed)


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    return {
        "poses": tf.constant(rng.uniform(-0.8, 0.8, (5, 6, JOINTS, 2)), tf.float32),
        "action_class": tf.constant(rng.integers(0, 3, 5), tf.int32),
        "frame_step": tf.constant(rng.integers(1, 5, 5), tf.int32),
    }


@pytest.mark.parametrize("options", [{}, RESIDUAL], ids=["faithful", "residual"])
def test_training_lowers_the_loss_and_repeats(batch, options):
    runs = []
    for _ in range(2):
        model = build(**options, lr=0.01)
        step = tf.function(model.train_step)
        runs.append([float(step(batch)["reconstruction"]) for _ in range(30)])
        assert int(model.step) == 30
    assert runs[0] == runs[1]
    assert np.mean(runs[0][-5:]) < 0.8 * np.mean(runs[0][:2])


def test_untrained_residual_model_stands_still(batch):
    model = build(**RESIDUAL)
    samples = model.generate(batch, seed=1, num_samples=2)["poses"]
    np.testing.assert_allclose(samples, np.broadcast_to(batch["poses"][None, :, :1], samples.shape), atol=1e-6)
    logs = model.test_step(batch)
    np.testing.assert_allclose(logs["joint_error_px"], logs["joint_error_px_copy"], rtol=1e-5)


def test_mirrored_poses(batch):
    model = build()
    poses = batch["poses"].numpy()
    mirrored = model.mirrored(batch["poses"]).numpy()
    pixel = lambda p: (p + 1) * SIZE / 2  # noqa: E731
    np.testing.assert_allclose(pixel(mirrored[..., 1, 0]), SIZE - 1 - pixel(poses[..., 2, 0]), atol=1e-4)
    np.testing.assert_allclose(mirrored[..., 1, 1], poses[..., 2, 1])
    np.testing.assert_allclose(model.mirrored(mirrored), poses, atol=1e-6)


def test_jitter_moves_a_clip_as_a_whole(batch):
    model = build(jitter_scale=0.5, jitter_rotation=90.0, jitter_shift=4.0)
    noise = np.zeros((4, 5))
    noise[0] = noise[1] = noise[2] = 1.0  # uniform numbers: 1 is the far end, 0.5 the middle
    noise[3] = 0.5
    moved = model.augmented(batch["poses"], RecordedDraws({"jitter": noise})).numpy()
    x, y = np.moveaxis(batch["poses"].numpy(), -1, 0)
    np.testing.assert_allclose(moved[..., 0], -1.5 * y + 4.0 / (SIZE / 2), atol=1e-5)
    np.testing.assert_allclose(moved[..., 1], 1.5 * x, atol=1e-5)


@pytest.mark.parametrize("horizon", [1, 7, 40])
def test_horizon_is_free_and_extends_the_same_sequence(batch, horizon):
    model = build()
    batch = {k: batch[k] for k in ("poses", "action_class")}
    long = model.generate(batch, seed=3, num_samples=2, horizon=horizon)
    assert long["poses"].shape == (2, 5, horizon, JOINTS, 2)
    assert long["images"].shape == (2, 5, horizon, SIZE, SIZE, 3)
    short = model.generate(batch, seed=3, num_samples=2, horizon=1)
    np.testing.assert_allclose(long["poses"][:, :, :1], short["poses"], atol=1e-6)
    assert np.abs(long["poses"][0] - long["poses"][1]).max() > 1e-3
    other = model.generate(batch, seed=4, num_samples=2, horizon=horizon)
    assert np.abs(long["poses"] - other["poses"]).max() > 1e-3


def test_frame_step_matters_only_where_asked_for(batch):
    slow = {**batch, "frame_step": batch["frame_step"] * 0 + 1}
    for model, differs in ((build(frame_step_conditioning=True), True), (build(), False)):
        poses = [model.generate(b, seed=0)["poses"].numpy() for b in (batch, slow)]
        assert (np.abs(poses[0] - poses[1]).max() > 1e-6) == differs


def test_alignments_of_the_original():
    assert losses.alignments(4) == [[0, 1, 2, 3], [0, 1, 2, 4], [1, 2, 3, 4]]
    assert losses.alignments(2, shifted=False) == [[0, 1]] * 3


def test_best_reconstruction_takes_each_clips_nearest_rollout(batch):
    targets = np.zeros([2, 2, 2], np.float32)
    rollouts = np.stack([targets + [[[1]], [[-4]]], targets + [[[3]], [[2]]]])  # errors (1, 4) and (3, 2)
    assert float(losses.best_reconstruction(rollouts, targets)) == pytest.approx((1 + 2) / 2)
    model = build(**RESIDUAL, rollouts=5, best_weight=0.3)
    logs = model.train_step(batch)
    # All rollouts are the same while an untrained model stands still, so the best one is their mean, but for rounding.
    assert float(logs["best"]) == pytest.approx(float(logs["reconstruction"]) / 5, rel=1e-5)


def test_the_energy_score_weighs_the_spread_by_the_number_of_rollouts():
    for r in (2, 5):
        w = build(**RESIDUAL | {"diversity_weight": 1.0}, rollouts=r).loss_weights()
        assert w["spread"] == pytest.approx(-w["reconstruction"] / (r - 1))
    with pytest.raises(UserError, match="rollouts: expected 2 at least, as diversity_weight is above 0"):
        hparams(**RESIDUAL, rollouts=1)


def test_rollouts_and_what_needs_the_plain_alignment():
    with pytest.raises(UserError, match="rollouts: expected 3, as shifted_targets is true"):
        hparams(rollouts=5)
    with pytest.raises(UserError, match="best_weight: expected 0, as shifted_targets is true"):
        hparams(best_weight=0.5)


def test_pairwise_distance():
    rollouts = tf.constant([0.0, 1.0, 4.0])[:, None, None, None] * tf.ones([3, 2, 4, 6])
    assert float(losses.pairwise_distance(rollouts)) == pytest.approx(1 + 4 + 3)


def test_divergence_weight_of_a_sum_and_of_a_mean_agree(batch):
    total = build(kl_per_sample=False).train_step(batch)["kl"]
    mean = build(kl_per_sample=True).train_step(batch)["kl"]
    np.testing.assert_allclose(total, 5 * mean, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_joints": 5}, r"poses: expected \[T, 5, 2\]"),
        ({"frame_step_conditioning": True}, "frame_step"),
        ({"flip_probability": 0.5, "flip_joints": (0, 0, 1)}, "flip_joints"),
        ({"sequence_length": 5}, "sequence_length"),
        ({"horizon": 7}, "poses: expected at least 9 frames, the source and 8 targets for horizon=7"),
        ({"context_frames": 2, "sequence_length": 8}, "context_frames"),
    ],
)
def test_mistakes_are_one_line(options, message):
    with pytest.raises(UserError, match=message):
        models.build("actvae", hparams(**options), spec())


def test_classes_of_the_data_and_clips_as_long_as_there_are():
    hparams(num_actions=3).check_labels({"action_class": ["a", "b", "c"]})
    with pytest.raises(UserError, match="num_actions: expected at least 4, the data's. Received: num_actions=3"):
        hparams(num_actions=3).check_labels({"action_class": ["a", "b", "c", "d"]})
    assert hparams(sequence_length=0).replace(sequence_length=6).targets == 5
    with pytest.raises(UserError, match="sequence_length: expected at least 6"):
        hparams(sequence_length=0).replace(sequence_length=5)


def test_served_model_equals_generate(batch, tmp_path):
    model = build(**RESIDUAL)
    for variable in model.weights:  # an untrained residual head gives zeros
        variable.assign_add(0.1 * tf.ones_like(variable))
    path = export(model, tmp_path / "served")
    request = {k: v.numpy()[:, :1] if k == "poses" else v.numpy() for k, v in batch.items()}
    found = harness.run_alone(path, {**request, "seed": np.int64(5)}, tmp_path)
    expected = model.generate(batch, seed=5)
    np.testing.assert_allclose(found["poses"], expected["poses"][0], atol=1e-5)
    np.testing.assert_allclose(found["images"], expected["images"][0], atol=1e-4)


def test_benchmarks_time_the_poses_of_a_training_batch(batch):
    (name, call), = build(batch_size=5).timed_parts({k: v[:1] for k, v in batch.items()}).items()
    assert name == "4 poses of 5 clips"
    poses = call()
    assert poses.shape == (1, 5, 4, JOINTS, 2) and np.ptp(poses[0, :, -1], axis=0).max() > 0  # each has noise of its own


def test_evaluation_figures():
    rng = np.random.default_rng(0)
    truth, source = rng.normal(size=(4, 3, JOINTS, 2)), rng.normal(size=(4, JOINTS, 2))
    shift = np.array([[3.0, 4.0], [0.0, 1.0]])[:, None, None, None]  # two samples, 5 px and 1 px away
    figures = evaluation.pose_metrics(truth + shift / 64, truth, source, 64.0)
    assert figures["joint_error_px"] == pytest.approx(3.0)
    assert figures["joint_error_px_best"] == pytest.approx(1.0)
    assert figures["joint_error_px_per_step"] == pytest.approx([3.0] * 3)
    assert figures["joint_error_px_of_mean"] == pytest.approx(np.hypot(1.5, 2.5))
    assert figures["pck_0.05"] == 1.0
    assert figures["std_px"] == pytest.approx(1.5)
    assert figures["apd"] == pytest.approx(np.hypot(3, 3) / 64 * np.sqrt(3 * JOINTS))


def test_error_at_distance_is_that_of_noise_about_the_mean():
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, 2 * np.pi, (50, 4, JOINTS))
    truth, centre = np.stack([np.cos(angle), np.sin(angle)], -1) / 10, np.zeros((50, 4, JOINTS, 2))
    assert evaluation.error_at_distance(centre, truth, 64.0, 0.0) == pytest.approx(6.4)
    # A little noise of standard deviation s costs s^2 / (2 r) at distance r; pairs lie s sqrt(2 D) apart.
    s, size = 0.02, 4 * JOINTS * 2
    cost = evaluation.error_at_distance(centre, truth, 64.0, s * np.sqrt(2 * size)) - 6.4
    assert cost == pytest.approx(64 * s**2 / (2 * 0.1), rel=0.1)


def test_copy_baseline_stands_beside_the_model(batch):
    clips = {k: v.numpy() for k, v in batch.items()}
    result = evaluation.evaluate(build(**RESIDUAL), clips, num_samples=3, distance=0.5)
    assert result["error_at_distance"]["joint_error_px"] > result["copy"]["joint_error_px"]
    moved = clips["poses"][:, 1 : 1 + result["horizon"]] - clips["poses"][:, :1]
    pairs = [np.linalg.norm(a - b) for a, b in itertools.combinations(moved, 2)]
    assert result["apd_of_true_motion"] == pytest.approx(np.mean(pairs), rel=1e-5)
    # A model that stands still is the baseline itself, whatever the label.
    for name in ("joint_error_px", "joint_error_px_best", "pck_0.1"):
        assert result["model"][name] == pytest.approx(result["copy"][name], rel=1e-4)
    assert result["model"]["label_shift_px"] == pytest.approx(0, abs=1e-4)
    assert "joint_error_px_best" in evaluation.table(result)
