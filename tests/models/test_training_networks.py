"""Models that only generate have no networks that only training uses, and load the same checkpoints."""

import numpy as np
import pytest
import tensorflow as tf

from tests.models import ag2vid_tiny, cage_tiny
from tests.toy_model import weights_of
from tfvid import models
from tfvid.errors import UserError
from tfvid.training.run_folder import RunFolder

LENGTHS = {"context_frames": 2, "sequence_length": 6}
IMAGES = {"images": tf.TensorSpec([6, 32, 32, 3], tf.uint8)}
GANS = {"clip_length": 5, "video_sn_gan_weight": 0.1, "video_sn_vae_gan_weight": 0.1}
SAVP = {**LENGTHS, "ngf": 2, "nef": 2, "ndf": 2, "nz": 2, **GANS}
P2I = {"latent_dim": 4, "num_actions": 3, "image_size": 16, "ngf": 2, "g_blocks": 2, "ndf": 2, "d_blocks": 1}
POSES = {
    "images": tf.TensorSpec([6, 16, 24, 3], tf.uint8),
    "poses": tf.TensorSpec([6, 13, 2], tf.float32),
    "action_class": tf.TensorSpec([], tf.int32),
}
AUTOENCODER = {**cage_tiny.AUTOENCODER, "perceptual_weight": 0.0, "gan_weight": 0.8, "ndf": 4, "d_layers": 1}
CASES = {
    "savp": (SAVP, IMAGES),
    "actvae_p2i": ({**P2I, "vgg_weight": 0.0}, POSES),
    "ag2vid": (ag2vid_tiny.SIZES, ag2vid_tiny.spec()),
    "cage_autoencoder": (AUTOENCODER, cage_tiny.SPEC),
}


def saved(name, folder):
    """(a run of fresh weights, its whole model)."""
    values, spec = CASES[name]
    hparams = models.model_class(name).HPARAMS.from_dict(values)
    run = RunFolder.create(str(folder), name, hparams, spec)
    whole = run.build_model(trainable=False)
    whole.step.assign(5)
    run.save_weights(whole)
    return RunFolder.open(run.path), whole


def test_every_model_with_a_discriminator_is_tried():
    assert CASES.keys() == {name for name in models.MODELS if models.model_class(name).TRAINING_NETWORKS}


@pytest.mark.parametrize("name", CASES)
def test_a_model_to_generate_loads_all_but_the_discriminators(tmp_path, name):
    run, whole = saved(name, tmp_path)
    light, expected = run.load_model(training_networks=False), weights_of(whole)
    left_out = expected.keys() - weights_of(light).keys()
    assert left_out and {path.split("/")[0] for path in left_out} == set(whole.TRAINING_NETWORKS)
    assert all(np.array_equal(value, expected[path]) for path, value in weights_of(light).items())
    assert int(light.step) == 5
    # Asked for nothing, a run is loaded whole.
    assert weights_of(run.load_model()).keys() == expected.keys()


def test_frames_are_those_of_the_whole_model(tmp_path):
    run, whole = saved("savp", tmp_path)
    batch = {"images": tf.constant(np.random.default_rng(0).integers(0, 256, (2, 6, 32, 32, 3), np.uint8))}
    frames = [m.generate(batch, 3, num_samples=2)["images"] for m in (whole, run.load_model(training_networks=False))]
    np.testing.assert_array_equal(*frames)


@pytest.mark.parametrize("changes", [{"ngf": 4}, {"nz": 3}])
def test_a_checkpoint_of_another_generator_is_refused(tmp_path, changes):
    run, _ = saved("savp", tmp_path)
    run.hparams = run.hparams.replace(**changes)
    with pytest.raises(UserError, match="expected a checkpoint of this SAVP, received one"):
        run.load_model(training_networks=False)


def test_a_model_to_train_is_whole():
    with pytest.raises(ValueError, match="expected trainable=False without training_networks"):
        values, spec = CASES["savp"]
        models.build("savp", models.model_class("savp").HPARAMS(**values), spec, training_networks=False)
