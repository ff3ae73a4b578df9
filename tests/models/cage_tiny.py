"""Tiny sizes of CAGE for its tests."""

import tensorflow as tf

from tfvid import models
from tfvid.models.cage.hparams import CageAutoencoderHParams, CageHParams

SIZE = (16, 24)
SPEC = {"images": tf.TensorSpec([6, *SIZE, 3], tf.uint8)}
CLIP = {"context_frames": 1, "sequence_length": 6, "long_sequence_length": 6}
AUTOENCODER = {
    **CLIP, "state_size": 4, "autoencoder_config": "custom", "autoencoder_levels": (1, 1, 1),
    "autoencoder_attention": (), "num_embeddings": 16,
}  # fmt: skip
CAGE = {
    **AUTOENCODER, "state_res": (4, 6), "dino_version": "tiny", "vit_shape": (8, 1, 2, 4, 3), "num_dino_layers": 1,
    "feature_image_size": 16, "vit_checkpoint": "random", "inner_dim": 8, "num_heads": 2, "fc_dim": 8, "depth": 2,
    "mid_depth": 1, "num_steps": 2, "num_warmup_steps": 1, "num_training_steps": 10,
}  # fmt: skip


def cage(seed=0, spec=None, **options):
    """A tiny `Cage`."""
    return models.build("cage", CageHParams(**{**CAGE, **options}), spec or SPEC, seed)


def autoencoder(seed=0, **options):
    """A tiny `CageAutoencoder` without perceptual loss and discriminator, but for `options`."""
    tiny = {**AUTOENCODER, "perceptual_weight": 0.0, "gan_weight": 0.0, "ndf": 4, "d_layers": 1}
    return models.build("cage_autoencoder", CageAutoencoderHParams(**{**tiny, **options}), SPEC, seed)
