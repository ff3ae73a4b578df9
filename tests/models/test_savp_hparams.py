"""SAVP's hyper-parameters: the original's files, and combinations that cannot work."""

import pytest
import tensorflow as tf

from tfvid import models
from tfvid.errors import UserError
from tfvid.models.savp.hparams import SAVPHParams

SPEC = {"images": tf.TensorSpec([6, 32, 32, 3], tf.uint8)}


def test_an_original_file_with_old_keys_is_accepted():
    values = {
        "batch_size": 16, "lr_boundaries": [0], "dilation_rate": [2, 2], "repeat": 1, "num_gpus": 1, "e_net": "rnn",
        "d_net": "legacy", "video_gan_weight": 1.0, "vgg_cdist_weight": 0.0, "context_frames": 2,
        "sequence_length": 12, "kl_weight": 0.1, "schedule_sampling_steps": [0, 100000],
        "context_images_background": True, "last_image_background": True,
    }
    assert SAVPHParams.from_dict(values).kl_weight == 0.1


@pytest.mark.parametrize("values, key", [
    ({"vgg_cdist_weight": 1.0}, "vgg_cdist_weight"),
    ({"last_frames": 0}, "last_frames"),
    ({"conv_rnn_norm_layer": "batch"}, "conv_rnn_norm_layer"),
    ({"tv_weight": 1.0}, "tv_weight"),
    ({"tv_weight": 1.0, "transformation": "flow", "num_transformed_images": 0}, "tv_weight"),
    ({"nz": 0, "kl_weight": 1.0}, "kl_weight"),
    ({"nz": 0, "learn_prior": True}, "learn_prior"),
    ({"nz": 0, "video_sn_vae_gan_weight": 0.1}, "video_sn_vae_gan_weight"),
    ({"gan_feature_l2_weight": 1.0}, "gan_feature_l2_weight"),
    ({"video_sn_gan_weight": 0.1, "clip_length": 3}, "clip_length"),
    ({"video_sn_gan_weight": 0.1, "clip_length": 6, "context_frames": 2, "sequence_length": 6}, "clip_length"),
    ({"kl_weight": 1.0, "kl_anneal": "sigmoid"}, "kl_anneal_k"),
    ({"kl_weight": 1.0, "kl_anneal_steps": [5, 5]}, "kl_anneal_steps"),
    ({"schedule_sampling": "linear", "schedule_sampling_steps": [5, 5]}, "schedule_sampling_steps"),
    ({"schedule_sampling_k": 0.0}, "schedule_sampling_k"),
    ({"ablation_conv_rnn_norm": True, "conv_rnn_norm_layer": "none"}, "conv_rnn_norm_layer"),
    ({"ablation_conv_rnn_norm": True, "ablation_rnn": True}, "ablation_conv_rnn_norm"),
    ({"l1_weight": 0.0}, "l1_weight"),
    ({"num_transformed_images": 0, "prev_image_background": False, "first_image_background": False,
      "generate_scratch_image": False}, "num_transformed_images"),
])
def test_what_cannot_work_is_one_line_that_names_the_key(values, key):
    with pytest.raises(UserError) as error:
        SAVPHParams.from_dict(values, "file.json")
    message = str(error.value)
    assert key in message and message.startswith("file.json") and "\n" not in message and "eceived" in message


@pytest.mark.parametrize("values, spec, part", [
    ({"state_weight": 1.0}, SPEC, "state_weight"),
    ({}, {"images": tf.TensorSpec([6, 34, 32, 3], tf.uint8)}, "divisible by 4"),
    ({}, {"images": tf.TensorSpec([6, 16, 32, 3], tf.uint8)}, "32 pixels"),
    ({"n_layers": 6}, {"images": tf.TensorSpec([6, 64, 60, 3], tf.uint8)}, "n_layers: expected at most 5"),
    ({}, {"actions": tf.TensorSpec([5, 4], tf.float32)}, "needs images"),
])
def test_data_that_does_not_fit(values, spec, part):
    hparams = SAVPHParams(context_frames=2, sequence_length=6, ngf=1, nef=1, **values)
    with pytest.raises(UserError, match=part):
        models.build("savp", hparams, spec)


def test_lengths_must_be_known():
    with pytest.raises(UserError, match="context_frames"):
        models.build("savp", SAVPHParams(), SPEC)
