"""The pose-to-image stage at tiny sizes. The recordings are in tests/parity."""

import json

import numpy as np
import pytest
import tensorflow as tf

from tests.serving import harness
from tfvid import models
from tfvid.data.video_files import encode_png
from tfvid.errors import UserError
from tfvid.evaluation.pose_videos import read_person, write_video
from tfvid.models.actvae.hparams import ActVAEHParams, ActVAEP2IHParams
from tfvid.models.draws import StatelessDraws
from tfvid.serving.export import export
from tfvid.training.run_folder import RunFolder

JOINTS, HEIGHT, WIDTH = 13, 16, 24
POSES = {"poses": tf.TensorSpec([6, JOINTS, 2], tf.float32), "action_class": tf.TensorSpec([], tf.int32)}
SPEC = {**POSES, "images": tf.TensorSpec([6, HEIGHT, WIDTH, 3], tf.uint8)}
SIZES = {"latent_dim": 4, "num_actions": 3, "image_size": 16}


def build(seed=0, **options):
    tiny = {**SIZES, "ngf": 2, "g_blocks": 2, "ndf": 2, "d_blocks": 1, "vgg_weight": 0.0}
    return models.build("actvae_p2i", ActVAEP2IHParams(**{**tiny, **options}), SPEC, seed)


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    return {
        "images": tf.constant(rng.integers(0, 256, (2, 6, HEIGHT, WIDTH, 3)), tf.uint8),
        "poses": tf.constant(rng.uniform(-0.8, 0.8, (2, 6, JOINTS, 2)), tf.float32),
        "action_class": tf.constant([0, 2], tf.int32),
    }


def test_step_trains_both_networks_and_leaves_the_pose_network(batch):
    model = build()
    before = {v.path: v.numpy() for v in model.weights}
    model.train_step(batch)
    changed = {v.path.split("/")[0] for v in model.weights if np.any(v.numpy() != before[v.path])}
    assert changed == {"generator", "discriminator"}
    counts = {v.path: int(v) for v in model.weights if v.path.endswith("num_batches_tracked")}
    # Four frames are generated in a step; eight are scored, one of them for two losses.
    assert {n for p, n in counts.items() if p.startswith("generator")} == {4}
    assert {n for p, n in counts.items() if p.startswith("discriminator")} == {8}
    assert int(model.step) == 1


@pytest.mark.slow
def test_training_lowers_the_reconstruction(batch):
    model = build(lr=2e-3)
    step = tf.function(model.train_step)
    values = [float(step(batch)["reconstruction"]) for _ in range(60)]
    assert np.mean(values[-10:]) < 0.9 * np.mean(values[:3])


def test_source_encoded_once_gives_the_frames_of_the_whole_network(batch):
    model = build()
    clip = model.clip(batch)
    poses = tf.random.stateless_uniform([3, 2, 4, JOINTS, 2], [1, 2], -0.8, 0.8)
    frames = model.render(clip, poses)
    assert frames.shape == (3, 2, 4, HEIGHT, WIDTH, 3)
    whole = model.generator(clip.image, clip.source_maps, model.maps(poses[1, :, 2]), clip.onehot, training=False)
    np.testing.assert_allclose(frames[1, :, 2], (whole.image + 1) / 2, atol=1e-5)


def test_generate_uses_the_first_frame_alone(batch):
    model = build()
    first = model.generate(batch, seed=1, num_samples=2, horizon=3)
    assert first["images"].shape == (2, 2, 3, HEIGHT, WIDTH, 3)
    assert float(tf.reduce_min(first["images"])) >= 0 and float(tf.reduce_max(first["images"])) <= 1
    cut = {k: v[:, :1] if k in ("images", "poses") else v for k, v in batch.items()}
    np.testing.assert_array_equal(first["images"], model.generate(cut, seed=1, num_samples=2, horizon=3)["images"])


def test_foreground_from_masks_boxes_or_the_pose(batch):
    model = build()
    mask = tf.cast(tf.random.stateless_uniform([2, 6, HEIGHT, WIDTH, 1], [0, 1]) > 0.5, tf.uint8)
    np.testing.assert_array_equal(model.foreground({**batch, "masks": mask}, 2), mask[:, 2])
    # Columns 6 to 11 and rows 4 to 7.
    boxes = np.tile(np.array([6 / WIDTH, 4 / HEIGHT, 12 / WIDTH, 8 / HEIGHT], np.float32), (2, 6, 1, 1))
    expected = np.zeros((2, HEIGHT, WIDTH, 1), np.float32)
    expected[:, 4:8, 6:12] = 1
    np.testing.assert_array_equal(model.foreground({**batch, "boxes": tf.constant(boxes)}, 1), expected)
    found = model.foreground(batch, 1).numpy()[0, :, :, 0]
    joints = (batch["poses"].numpy()[0, 1] + 1) / 2 * (WIDTH, HEIGHT)
    inside = np.zeros_like(found, bool)
    (x0, y0), (x1, y1) = np.round(joints.min(0)).astype(int), np.round(joints.max(0)).astype(int)
    inside[y0:y1, x0:x1] = True
    assert (found.astype(bool) != inside).sum() <= WIDTH + HEIGHT  # the border may differ by a pixel


def pose_run(folder, **options):
    """A run folder of `actvae`."""
    hparams = ActVAEHParams(**{**SIZES, **options})
    run = RunFolder.create(folder, "actvae", hparams, POSES)
    model = models.build("actvae", hparams, POSES, seed=3)
    run.save_weights(model)
    return model


def test_a_new_run_takes_the_pose_network_from_its_checkpoint(batch, tmp_path):
    poses = pose_run(tmp_path / "poses")
    model = build(pose_checkpoint=str(tmp_path / "poses"))
    model.begin_training()
    draws = lambda: StatelessDraws(5, stream="generate")  # noqa: E731
    np.testing.assert_allclose(model.sample_poses(batch, draws(), 2, 4), poses.sample_poses(batch, draws(), 2, 4))


def test_a_pose_network_that_keeps_clips(batch, tmp_path):
    kept = {"neighbour_clips": 3, "pose_head": "residual", "shifted_targets": False}
    poses = pose_run(tmp_path / "poses", **kept)
    poses.see_training_clips(lambda count: [{**batch, "valid": tf.ones([2], tf.bool)}])
    RunFolder.open(str(tmp_path / "poses")).save_weights(poses)
    ours = {k: v for k, v in kept.items() if k != "shifted_targets"}
    model = build(**ours, pose_checkpoint=str(tmp_path / "poses"))
    model.begin_training()
    draws = lambda: StatelessDraws(5, stream="generate")  # noqa: E731
    sampled = model.sample_poses(batch, draws(), 2, 4)
    np.testing.assert_allclose(sampled, poses.sample_poses(batch, draws(), 2, 4))
    assert np.abs(sampled - batch["poses"][:, :1]).max() > 0.1  # the untrained decoder stands still
    # Frames are trained in poses as they will be asked for.
    trained_in = model.generated_poses(model.clip(batch), draws())
    assert np.abs(trained_in - model.flat_poses(batch["poses"])[:, :1]).max() > 0.1
    with pytest.raises(UserError, match="neighbour_clips: expected 3 .*hparams_override=neighbour_clips=3"):
        build(**{**ours, "neighbour_clips": 0}, pose_checkpoint=str(tmp_path / "poses")).begin_training()
    with pytest.raises(UserError, match="decoder_weight: expected 0.5 .*hparams_override=decoder_weight=0.5,horizon=4 "):
        build(**ours, horizon=3, decoder_weight=1.0, pose_checkpoint=str(tmp_path / "poses")).begin_training()


def test_mistakes_with_the_pose_checkpoint(tmp_path):
    with pytest.raises(UserError, match="--pose_checkpoint: expected the run folder"):
        build().begin_training()
    with pytest.raises(UserError, match="expected a run folder"):
        build(pose_checkpoint=str(tmp_path / "nothing")).begin_training()
    pose_run(tmp_path / "other", latent_dim=6)
    with pytest.raises(UserError, match="latent_dim: expected 6 .*hparams_override=latent_dim=6"):
        build(pose_checkpoint=str(tmp_path / "other")).begin_training()


def test_vgg_is_asked_for_before_the_first_step():
    with pytest.raises(UserError, match="vgg_weights: expected the file"):
        build(vgg_weight=5.0).make_train_function()


def test_frames_of_other_sizes_are_refused():
    spec = {**SPEC, "images": tf.TensorSpec([6, 18, 24, 3], tf.uint8)}
    hparams = ActVAEP2IHParams(**SIZES, ngf=2, g_blocks=1, ndf=2, d_blocks=0, vgg_weight=0.0)
    with pytest.raises(UserError, match=r"multiples of 4 .*18, 24, 3"):
        models.build("actvae_p2i", hparams, spec)


def test_sides_that_the_discriminator_halves_to_odd_ones(batch):
    images = tf.concat([batch["images"]] * 2, 2)[:, :, :20, :20]
    spec = {**SPEC, "images": tf.TensorSpec([6, 20, 20, 3], tf.uint8)}
    hparams = ActVAEP2IHParams(
        **SIZES, ngf=2, g_blocks=1, ndf=2, d_blocks=1, vgg_weights="random", vgg_widths=(2, 2, 2, 2, 2)
    )
    model = models.build("actvae_p2i", hparams, spec)
    logs = model.train_step({**batch, "images": images})
    assert all(np.isfinite(v) for v in logs.values())
    clip = model.clip({**batch, "images": images})
    scores, _ = model.discriminator(clip.image, clip.source_maps, training=False)
    assert scores.shape == (2, 3, 3, 16)  # [B, ceil(H / 8), ceil(W / 8), 8 ndf]


def test_cropped_frames_do_not_fit_their_poses():
    for key in ("crop_size", "random_crop_size"):
        with pytest.raises(UserError, match=f"{key}: expected 0, as poses refer to whole frames"):
            ActVAEP2IHParams(**{key: 16})


def test_a_person_from_files(tmp_path):
    rng = np.random.default_rng(0)
    image, pose = tmp_path / "me.png", tmp_path / "me.json"
    image.write_bytes(encode_png(rng.integers(0, 256, (30, 20, 3)).astype(np.uint8)))
    pose.write_text(json.dumps(rng.uniform(2, 18, (JOINTS, 2)).tolist()))
    with pytest.raises(UserError, match=r"--image: expected a model of square frames.*\[16, 24\]"):
        read_person(build(), str(pose), 1, str(image))
    spec = {**SPEC, "images": tf.TensorSpec([6, 16, 16, 3], tf.uint8)}
    hparams = ActVAEP2IHParams(**SIZES, ngf=2, g_blocks=1, ndf=2, d_blocks=0, vgg_weight=0.0)
    model = models.build("actvae_p2i", hparams, spec)
    write_video(model, read_person(model, str(pose), 1, str(image)), str(tmp_path / "me.gif"), num_samples=2, horizon=3)
    assert np.shape(json.loads((tmp_path / "me_poses.json").read_text())) == (2, 3, JOINTS, 2)


def test_validation_compares_with_the_copied_frame(batch):
    still = {k: tf.repeat(v[:, :1], 6, axis=1) if k != "action_class" else v for k, v in batch.items()}
    logs = build().test_step(still)
    np.testing.assert_allclose(logs["psnr_copy"], [100.0, 100.0], rtol=1e-4)
    assert (logs["psnr"].numpy() < 100).all() and logs["l1"].shape == (2,)


def test_served_model_equals_generate(batch, tmp_path):
    model = build()
    path = export(model, tmp_path / "served")
    images = batch["images"].numpy()[:, :1].astype(np.float32) / 255
    request = {"images": images, "poses": batch["poses"].numpy()[:, :1], "action_class": batch["action_class"].numpy()}
    found = harness.run_alone(path, {**request, "seed": np.int64(5)}, tmp_path)
    expected = model.generate(batch, seed=5)
    np.testing.assert_allclose(found["images"], expected["images"][0], atol=1e-5)
    np.testing.assert_allclose(found["poses"], expected["poses"][0], atol=1e-5)
