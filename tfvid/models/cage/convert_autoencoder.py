"""Published autoencoders of CAGE -> a run of `cage_autoencoder`.

Files: a training checkpoint of taming-transformers or latent diffusion (key `state_dict`),
CAGE's own VQVAE (key `model`, with or without `module.` and `backbone.` in front of the names), or a whole
CAGE (`model.pth`), whose autoencoder is taken.
"""

import tensorflow as tf

from tfvid.conversion import torch_file
from tfvid.errors import UserError
from tfvid.models.cage.convert import OPAQUE, as_sources, autoencoder_map

# Side of the frames of the published data sets.
SIDES = {"bair": 256, "clevrer": 128, "epic": 256}


def variable_map(model):
    """{variable path: Source}; the discriminator under its names in taming-transformers."""
    entries = autoencoder_map("", model.autoencoder)
    if model.hparams.gan_weight:
        entries |= discriminator_map("loss.discriminator.main.", model.discriminator)
    return as_sources(entries)


def discriminator_map(prefix, layer):
    """{original name: (variable, transform)} of a PatchDiscriminator."""

    def conv(index, convolution):
        entries = {f"{prefix}{index}.weight": (convolution.kernel, lambda a: a.transpose(2, 3, 1, 0))}
        return entries | ({} if convolution.bias is None else {f"{prefix}{index}.bias": (convolution.bias, None)})

    entries = conv(0, layer.first)
    for i, (convolution, norm) in enumerate(zip(layer.convolutions, layer.norms)):
        name = f"{prefix}{3 * i + 3}"
        entries |= conv(3 * i + 2, convolution)
        entries |= {
            f"{name}.weight": (norm.scale, None),
            f"{name}.bias": (norm.shift, None),
            f"{name}.running_mean": (norm.running_mean, None),
            f"{name}.running_var": (norm.running_variance, None),
            f"{name}.num_batches_tracked": (norm.num_batches_tracked, None),
        }
    return entries | conv(3 * len(layer.convolutions) + 2, layer.last)


def is_ignorable(name):
    """The loss' own networks (but the discriminator stands above), training state."""
    return name.startswith(("loss.", "optimizer", "lr_scheduler", "model_ema.")) or name == "global_step"


def is_optional(path):
    """The discriminator, which only training needs, and counters of batches."""
    return path.startswith("discriminator/") or path.endswith("num_batches_tracked")


def read_source(path):
    """{name: array} of any of the files that the module's text lists."""
    saved = torch_file.read(path, OPAQUE)
    if not isinstance(saved, dict):
        raise UserError(
            f"{path}: expected a dictionary with the key state_dict or model. Received: {type(saved).__name__}"
        )
    known = [k for k in ("state_dict", "model") if isinstance(saved.get(k), dict)]
    tensors = torch_file.flatten_state(saved[known[0]] if known else saved)
    for prefix in ("ae.backbone.", "ae.", "backbone."):
        part = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        if part:
            return part
    return tensors


def data_spec(hparams):
    """Frames of the published data set's size."""
    if hparams.dataset not in SIDES:
        raise UserError(
            f"--image_size: expected height,width,channels, since the frames of data set {hparams.dataset!r} are not"
            f" known; known: {', '.join(SIDES)}"
        )
    side = SIDES[hparams.dataset]
    return {"images": tf.TensorSpec([hparams.sequence_length or 16, side, side, 3], tf.uint8)}
