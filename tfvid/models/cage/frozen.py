"""The networks that CAGE does not train: which ones the hyper-parameters name, and where their weights come from."""

import tensorflow as tf

from tfvid.errors import UserError
from tfvid.models.cage.networks_vit import VisionTransformer
from tfvid.models.cage.networks_vqgan import CONFIGS, VQGAN, VQGANConfig
from tfvid.models.cage.networks_vqvae import VQVAE

# What must be the same in the run that gives the autoencoder.
AUTOENCODER_KEYS = (
    "state_size", "autoencoder_type", "autoencoder_config", "autoencoder_width", "autoencoder_groups",
    "autoencoder_levels", "autoencoder_blocks", "autoencoder_resolution", "autoencoder_attention",
    "autoencoder_z_channels", "num_embeddings",
)  # fmt: skip


def make_autoencoder(hparams):
    """The autoencoder that the hyper-parameters name."""
    h = hparams
    if h.autoencoder_type == "ours":
        return VQVAE(h.state_size, h.num_embeddings, h.autoencoder_width, 8 * h.autoencoder_width, h.autoencoder_groups)
    if h.autoencoder_config != "custom":
        return VQGAN(CONFIGS[h.autoencoder_config])
    config = VQGANConfig(
        embed_dim=h.state_size,
        n_embed=h.num_embeddings,
        z_channels=h.autoencoder_z_channels or h.state_size,
        resolution=h.autoencoder_resolution,
        ch=h.autoencoder_width,
        ch_mult=h.autoencoder_levels,
        num_res_blocks=h.autoencoder_blocks,
        attn_resolutions=h.autoencoder_attention,
    )
    return VQGAN(config)


def make_vit(hparams):
    """The vision transformer that the hyper-parameters name."""
    kind, (dim, depth, heads, patch) = hparams.feature_backbone, hparams.vit
    if hparams.vit_shape:
        grid = hparams.vit_shape[4]
    else:
        grid = hparams.feature_image_size // patch if kind == "mae" else 37
    return VisionTransformer(dim, depth, heads, patch_size=patch, position_grid=grid, kind=kind)


def load_autoencoder(autoencoder, hparams, path):
    """Fills the autoencoder from a run folder of `cage_autoencoder`.

    Raises:
      UserError: no such run, of another model, or of another shape.
    """
    from tfvid.training.run_folder import RunFolder

    if not path:
        raise UserError(
            "--autoencoder_checkpoint: expected the run folder of the cage_autoencoder whose latents are generated"
            " (scripts/train.py or scripts/convert_checkpoint.py --model=cage_autoencoder make one). Received: none"
        )
    run = RunFolder.open(path)
    if run.model_name != "cage_autoencoder":
        raise UserError(
            f"--autoencoder_checkpoint: expected a run of cage_autoencoder. Received: {path}, a run of {run.model_name}"
        )
    for key in AUTOENCODER_KEYS:
        ours, theirs = getattr(hparams, key), getattr(run.hparams, key)
        if ours != theirs:
            raise UserError(
                f"{key}: expected {theirs!r} as in --autoencoder_checkpoint={path}. Received: {key}={ours!r}"
            )
    for ours, value in zip(autoencoder.weights, run.load_model(training_networks=False).autoencoder.weights, strict=True):
        ours.assign(value)


def load_vit(vit, path):
    """Fills the vision transformer from a published file; "random" keeps fixed random weights.

    Raises:
      UserError: no such file, or it does not fit.
    """
    from tfvid.models.cage import convert

    if path == "random":
        return
    if not path:
        raise UserError(
            "vit_checkpoint: expected a file of the vision transformer (dinov2_vitb14_pretrain.pth, or model.safetensors"
            " of facebook/dinov2-base), or 'random' for fixed random features, in --hparams_override. Received: none"
        )
    if not tf.io.gfile.exists(path):
        raise UserError(f"vit_checkpoint: expected a file, found none at {path}")
    convert.assign_vit(vit, path)
