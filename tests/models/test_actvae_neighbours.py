"""ACT-VAE that keeps training clips: which are drawn, what becomes of a rollout, who has them."""

import numpy as np
import pytest
import tensorflow as tf

from tests.models.test_actvae import JOINTS, RESIDUAL, build
from tests.serving import harness
from tfvid.models.actvae import evaluation
from tfvid.models.actvae.neighbours import ClipNeighbours
from tfvid.serving.export import export

KEPT = {**RESIDUAL, "neighbour_clips": 16, "neighbour_weight": 0.5, "decoder_weight": 0.25, "neighbour_bandwidth": 4.0}


def clips(count=6, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "poses": tf.constant(rng.uniform(-0.8, 0.8, (count, 6, JOINTS, 2)), tf.float32),
        "action_class": tf.constant(np.arange(count) % 2, tf.int32),  # of three classes
        "frame_step": tf.ones([count], tf.int32),
    }


def see(model, batch):
    """As the training does: asks for so many clips, gets batches whose ends are padding."""
    asked = []

    def batches(count):
        asked.append(count)
        size = len(batch["action_class"])
        padded = {k: tf.concat([v, v[:1]], 0) for k, v in batch.items()}
        yield {**padded, "valid": tf.range(size + 1) < size}

    model.see_training_clips(batches)
    return asked


def test_a_clip_is_drawn_as_often_as_its_pose_is_near():
    rng = np.random.default_rng(1)
    layer = ClipNeighbours(8, 4, 2 * JOINTS, 3, bandwidth=0.1)
    poses = (0.1 * rng.normal(size=(6, 5, JOINTS, 2))).astype(np.float32)
    action = np.array([0, 0, 0, 0, 1, 1])
    layer.fill(poses.reshape(6, 5, -1), np.eye(3, dtype=np.float32)[action])
    asked, count = poses[0, 0] + 0.05 * rng.normal(size=(JOINTS, 2)), 2000
    chance = (np.arange(count) + 0.5) / count
    recall = layer.bind()

    def drawn(pose, label):
        rows = [np.tile(v, (count, 1)).astype(np.float32) for v in (pose.reshape(-1), np.eye(3)[label])]
        movement, known = recall(*rows, chance.astype(np.float32))
        assert np.all(known) == (label < 2) and movement.shape == (count, 4, 2 * JOINTS)
        return movement.numpy().reshape(count, 4, JOINTS, 2)

    movement = drawn(asked, 0)
    centred = lambda p: p - p.mean(-2, keepdims=True)  # noqa: E731
    squares = np.square(centred(poses[:4, 0]) - centred(asked)).sum((1, 2)) / JOINTS
    expected = np.exp(-squares / (2 * 0.1**2))
    same = np.abs(movement[:, None] - (poses[:, 1:] - poses[:, :1])).max((2, 3, 4)) < 1e-5  # [count, clip]
    assert (same.sum(1) == 1).all() and not same[:, 4:].any()  # one clip each, none of another action
    np.testing.assert_allclose(same.mean(0)[:4], expected / expected.sum(), atol=2 / count)
    assert expected[0] / expected.sum() < 0.95  # the test would not see much otherwise
    # Where in the frame the pose stands does not matter.
    np.testing.assert_allclose(drawn(asked + [0.3, -0.2], 0), movement, atol=1e-5)
    np.testing.assert_array_equal(drawn(asked, 2), 0)


def test_a_far_pose_and_the_largest_chance_give_a_stored_clip():
    layer = ClipNeighbours(4, 1, 4, 2, bandwidth=1e-3)
    poses = np.arange(16, dtype=np.float32).reshape(2, 2, 4) ** 2
    layer.fill(poses, np.eye(2, dtype=np.float32))
    far = np.array([[1e3, 0, -1e3, 0]] * 2, np.float32)
    largest = np.full(2, np.nextafter(np.float32(1), np.float32(0)))
    movement, known = layer.bind()(far, np.eye(2, dtype=np.float32), largest)
    assert np.all(known)
    np.testing.assert_array_equal(movement[:, 0], poses[:, 1] - poses[:, 0])


def test_kept_clips_and_their_mirror_images():
    model, batch = build(**KEPT), clips()
    assert see(model, batch) == [8]
    poses = model.neighbours.poses.numpy().reshape(16, 5, JOINTS, 2)
    np.testing.assert_array_equal(poses[:6], batch["poses"][:, :5])
    np.testing.assert_array_equal(poses[6:12], model.mirrored(batch["poses"][:, :5]))
    assert not poses[12:].any()
    np.testing.assert_array_equal(model.neighbours.actions.numpy().argmax(1)[:12], np.tile(batch["action_class"], 2))
    np.testing.assert_array_equal(model.neighbours.actions.numpy().sum(1), [1] * 12 + [0] * 4)
    few = build(**{**KEPT, "neighbour_clips": 4, "flip_probability": 0.0})
    assert see(few, batch) == [4]
    np.testing.assert_array_equal(few.neighbours.poses.numpy().reshape(4, 5, JOINTS, 2), batch["poses"][:4, :5])
    assert see(build(**RESIDUAL), batch) == []


def test_a_sample_is_a_mixture():
    """An untrained residual head stands still, so that a sample is the source and a share of a stored movement."""
    model, batch = build(**{**KEPT, "flip_probability": 0.0}), clips()
    see(model, batch)
    samples = model.generate(batch, seed=1, num_samples=20)["poses"].numpy()
    moved = (samples - batch["poses"][:, :1]) / 0.5
    stored = (batch["poses"][:, 1:5] - batch["poses"][:, :1]).numpy()
    distances = np.abs(moved[:, :, None] - stored).max((3, 4, 5))  # [sample, clip, stored clip]
    assert distances.min(2).max() < 1e-4
    of_same_action = np.equal.outer(batch["action_class"].numpy(), batch["action_class"].numpy())
    assert (of_same_action[None] | (distances > 1e-3)).all()
    # With a decoder that moves, a class of which no clip is kept stays its own.
    plain = build(**{k: v for k, v in KEPT.items() if not k.startswith("neighbour")})
    for ours, theirs in zip(model.pose_network.weights, plain.pose_network.weights, strict=True):
        theirs.assign_add(0.1 * tf.ones_like(theirs))
        ours.assign(theirs)
    for label in (0, 2):
        asked = {**batch, "action_class": tf.fill([6], label)}
        decoder = plain.generate(asked, seed=1)["poses"] - batch["poses"][:, :1]
        mixed = model.generate(asked, seed=1)["poses"] - batch["poses"][:, :1]
        if label == 2:
            np.testing.assert_allclose(mixed, decoder, atol=1e-6)
        else:
            rest = (mixed - 0.25 * decoder) / 0.5
            assert np.abs(rest[0].numpy()[:, None] - stored).max((2, 3, 4)).min(1).max() < 1e-4


@pytest.mark.parametrize("horizon", [1, 4, 11])
def test_a_longer_horizon_goes_on_from_the_pose_reached(horizon):
    model, batch = build(**{**KEPT, "flip_probability": 0.0}), clips()
    see(model, batch)
    long = model.generate(batch, seed=3, num_samples=2, horizon=horizon)["poses"].numpy()
    assert long.shape == (2, 6, horizon, JOINTS, 2)
    short = model.generate(batch, seed=3, num_samples=2, horizon=1)["poses"]
    np.testing.assert_allclose(long[:, :, :1], short, atol=1e-6)
    stored = (batch["poses"][:, 1:5] - batch["poses"][:, :1]).numpy()
    for start in range(0, horizon, 4):  # each part is one stored movement from where the last one ended
        part = long[:, :, start : start + 4]
        before = long[:, :, start - 1 : start] if start else batch["poses"][:, :1]
        moved = ((part - before) / 0.5)[:, :, None]
        assert np.abs(moved - stored[:, : part.shape[2]]).max((3, 4, 5)).min(2).max() < 1e-4


def test_evaluation_sees_what_generate_gives():
    model, batch = build(**{**KEPT, "neighbour_bandwidth": 100.0}), clips()
    see(model, batch)
    arrays = {k: v.numpy() for k, v in batch.items()}
    figures = evaluation.evaluate(model, arrays, num_samples=30, seed=2)["model"]
    samples = model.generate(batch, seed=0, num_samples=30)["poses"].numpy()
    expected = evaluation.pose_metrics(samples, arrays["poses"][:, 1:5], arrays["poses"][:, 0], model.POSE_PIXELS)
    assert figures["apd"] == pytest.approx(expected["apd"], rel=0.1) and figures["apd"] > 0.1
    assert figures["joint_error_px"] == pytest.approx(expected["joint_error_px"], rel=0.1)


def test_kept_clips_take_no_part_in_training():
    batch = clips()
    logs = []
    for options in (KEPT, {**KEPT, "neighbour_clips": 0}):
        model = build(**options)
        see(model, batch)
        before = [w.numpy() for w in model.neighbours.weights] if model.neighbours else []
        logs.append({k: float(v) for k, v in model.train_step(batch).items()})
        assert all(np.array_equal(b, w) for b, w in zip(before, model.neighbours.weights if before else []))
    assert logs[0] == logs[1]


def test_served_model_has_them(tmp_path):
    model, batch = build(**KEPT), clips()
    see(model, batch)
    path = export(model, tmp_path / "served")
    request = {k: v.numpy()[:, :1] if k == "poses" else v.numpy() for k, v in batch.items()}
    found = harness.run_alone(path, {**request, "seed": np.int64(5)}, tmp_path)
    expected = model.generate(batch, seed=5)["poses"][0]
    assert np.abs(expected - batch["poses"][:, :1]).max() > 0.1
    np.testing.assert_allclose(found["poses"], expected, atol=1e-5)
