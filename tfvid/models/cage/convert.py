"""From the names of the published checkpoints to our variables.

The originals are PyTorch: convolutions are OIHW, linear weights [out, in]. A CAGE checkpoint
(`model.pth`) holds all three networks: `vector_field_regressor.*`, `ae.*`, `dino.*`, each
with `module.` in front where it was trained on several GPUs.
"""

import re

import numpy as np
import tensorflow as tf

from tfvid.conversion import safetensors_file, torch_file
from tfvid.conversion.assign import Source, assign
from tfvid.errors import UserError
from tfvid.models.cage.networks_regressor import TemporalLayer
from tfvid.models.cage.networks_vqgan import VQGAN

# Objects of training frameworks that stand beside the weights; they come out as placeholders.
OPAQUE = (
    "pytorch_lightning", "lightning", "omegaconf", "torch.optim", "typing", "argparse", "numpy",
    "collections.defaultdict", *(f"{module}.{kind}" for module in ("__builtin__", "builtins") for kind in ("list", "dict")),
)  # fmt: skip
# Entries of a file that no variable is made for: training state, and what the original never uses.
IGNORABLE = re.compile(
    r"(optimizer|lr_scheduler|loss)\.|global_step$|.*\btime_projection\.|dino\.(mask_token$|decoder_)"
)


def variable_map(model):
    """{variable path: Source} of a whole CAGE; names as in `model.pth` after `read_source`."""
    prefix = "ae." if isinstance(model.autoencoder, VQGAN) else "ae.backbone."
    return as_sources(
        regressor_map("vector_field_regressor.", model.regressor)
        | autoencoder_map(prefix, model.autoencoder)
        | vit_map("dino.", model.vit)
    )


def as_sources(entries):
    """{original name: (variable, transform)} -> {variable path: Source}."""
    return {variable.path: Source(name, transform) for name, (variable, transform) in entries.items()}


def is_ignorable(name):
    """Whether CAGE has no use for an entry of a file."""
    return IGNORABLE.match(name) is not None


def is_optional(path):
    """Counters of batches, which nothing computes with."""
    return path.endswith("num_batches_tracked")


def read_source(path):
    """{name: array} of `model.pth`: without the prefix of several GPUs, with today's names."""
    saved = torch_file.read(path, OPAQUE)
    if not isinstance(saved, dict):
        raise UserError(f"{path}: expected a dictionary with the key model. Received: {type(saved).__name__}")
    state = saved["model"] if isinstance(saved.get("model"), dict) else saved
    tensors = torch_file.flatten_state(state)
    tensors = {k.replace("dino_project_in", "feats_project_in"): v for k, v in tensors.items()}
    step = saved.get("global_step")
    if step is not None and np.size(step) == 1:  # a number, or a tensor of one
        tensors["global_step"] = np.int64(np.asarray(step).item())
    return tensors


def data_spec(hparams):
    """The data of a published model, as far as the model sees it."""
    from tfvid.models.cage.networks_vqgan import CONFIGS

    factor = 8
    if hparams.autoencoder_type == "ldm-vq":
        custom = hparams.autoencoder_config == "custom"
        levels = hparams.autoencoder_levels if custom else CONFIGS[hparams.autoencoder_config].ch_mult
        factor = 2 ** (len(levels) - 1)
    height, width = (s * factor for s in hparams.state_res)
    return {"images": tf.TensorSpec([hparams.sequence_length or 16, height, width, 3], tf.uint8)}


# Vision transformers.


def assign_vit(vit, path):
    """Fills a VisionTransformer from a file of torch.hub, of Hugging Face (.safetensors, .bin) or of MAE.

    Raises:
      UserError: the file does not fit.
    """
    if path.endswith(".safetensors"):
        tensors = dict(safetensors_file.read(path))
    else:
        saved = torch_file.read(path, OPAQUE)
        tensors = torch_file.flatten_state(
            saved["model"] if isinstance(saved, dict) and isinstance(saved.get("model"), dict) else saved
        )
    if any(k.removeprefix("dinov2.").startswith("embeddings.") for k in tensors):
        tensors = hub_names({k.removeprefix("dinov2."): v for k, v in tensors.items()})

    def ignorable(name):
        return name == "mask_token" or name.startswith(("decoder_", "head."))

    return assign(vit, tensors, as_sources(vit_map("", vit)), ignorable, source=path)


# Hugging Face's name of a part of a layer -> torch.hub's.
HUGGING_FACE = {
    "norm1": "norm1", "norm2": "norm2", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2",
    "attention.output.dense": "attn.proj", "layer_scale1.lambda1": "ls1.gamma", "layer_scale2.lambda1": "ls2.gamma",
}  # fmt: skip


def hub_names(tensors):
    """The tensors of Hugging Face's Dinov2Model under torch.hub's names: query, key and value joined."""
    outer = {
        "embeddings.cls_token": "cls_token", "embeddings.mask_token": "mask_token",
        "embeddings.position_embeddings": "pos_embed",
        "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
        "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
        "layernorm.weight": "norm.weight", "layernorm.bias": "norm.bias",
    }  # fmt: skip
    renamed, joined = {}, {}
    for name, value in tensors.items():
        match = re.fullmatch(r"encoder\.layer\.(\d+)\.(.+)", name)
        if not match:
            renamed[outer.get(name, name)] = value
            continue
        number, rest = match.groups()
        part = re.fullmatch(r"attention\.attention\.(query|key|value)\.(weight|bias)", rest)
        if part:
            joined.setdefault(f"blocks.{number}.attn.qkv.{part[2]}", {})[part[1]] = value
            continue
        whole, _, kind = rest.rpartition(".")
        if rest in HUGGING_FACE:
            renamed[f"blocks.{number}.{HUGGING_FACE[rest]}"] = value
        else:
            renamed[f"blocks.{number}.{HUGGING_FACE.get(whole, whole)}.{kind}"] = value
    for name, parts in joined.items():
        if len(parts) == 3:
            renamed[name] = np.concatenate([parts[k] for k in ("query", "key", "value")])
    return renamed


# Names of the parts.


def _kernel(array):
    return array.transpose(2, 3, 1, 0)


def _linear(name, layer):
    entries = {f"{name}.weight": (layer.kernel, np.transpose)}
    return entries | ({f"{name}.bias": (layer.bias, None)} if layer.use_bias else {})


def _conv(name, layer):
    entries = {f"{name}.weight": (layer.kernel, _kernel)}
    return entries | ({} if layer.bias is None else {f"{name}.bias": (layer.bias, None)})


def _norm(name, layer):
    return {f"{name}.weight": (layer.gamma, None), f"{name}.bias": (layer.beta, None)}


def _batch_norm(name, layer):
    return {
        f"{name}.weight": (layer.scale, None),
        f"{name}.bias": (layer.shift, None),
        f"{name}.running_mean": (layer.running_mean, None),
        f"{name}.running_var": (layer.running_variance, None),
        f"{name}.num_batches_tracked": (layer.num_batches_tracked, None),
    }


def _multi_head(name, layer):
    return {
        f"{name}.in_proj_weight": (layer.in_kernel, np.transpose),
        f"{name}.in_proj_bias": (layer.in_bias, None),
    } | _linear(f"{name}.out_proj", layer.out)


def regressor_map(prefix, layer):
    """{original name: (variable, transform)} of a VectorFieldRegressor."""
    entries = {
        f"{prefix}msk_token": (layer.mask_token, None),
        f"{prefix}position_encoding.row_embed.weight": (layer.positions.rows, None),
        f"{prefix}position_encoding.col_embed.weight": (layer.positions.columns, None),
    }
    entries |= _linear(f"{prefix}project_in.0", layer.project_in)
    entries |= _linear(f"{prefix}feats_project_in.0", layer.project_features)
    for i, (spatial, temporal) in enumerate(zip(layer.spatial, layer.temporal)):
        entries |= timed_map(f"{prefix}main_blocks.{i}.spatial.", spatial)
        entries |= timed_map(f"{prefix}main_blocks.{i}.temporal.", temporal)
        if f"block_{i}" in layer.cross:
            entries |= cross_map(f"{prefix}main_blocks.{i}.cross.", layer.cross[f"block_{i}"])
    entries |= _linear(f"{prefix}project_out.0", layer.project_out)
    entries |= _norm(f"{prefix}project_out.2", layer.norm_out)
    return entries | _conv(f"{prefix}out_conv.1", layer.convolution)


def timed_map(prefix, layer):
    """The same of a SpatialLayer or TemporalLayer."""
    entries = _norm(f"{prefix}ln1", layer.norm_1) | _norm(f"{prefix}ln2", layer.norm_2)
    entries |= _linear(f"{prefix}attn.qkv", layer.qkv) | _linear(f"{prefix}attn.time_qkv", layer.time_qkv)
    if isinstance(layer, TemporalLayer):
        entries[f"{prefix}attn.relative_position.embeddings_table"] = (layer.relative, None)
    return (
        entries
        | _linear(f"{prefix}fc.0", layer.feed_forward.first)
        | _linear(f"{prefix}fc.2", layer.feed_forward.second)
    )


def cross_map(prefix, layer):
    """The same of a CrossLayer."""
    entries = _multi_head(f"{prefix}self_attn", layer.self_attention)
    entries |= _multi_head(f"{prefix}multihead_attn", layer.cross_attention)
    for i, norm in enumerate(layer.norms, 1):
        entries |= _norm(f"{prefix}norm{i}", norm)
    return entries | _linear(f"{prefix}linear1", layer.first) | _linear(f"{prefix}linear2", layer.second)


def vit_map(prefix, layer):
    """The same of a VisionTransformer, DINOv2's names (MAE's are the same where both have a part)."""
    entries = {
        f"{prefix}cls_token": (layer.class_token, None),
        f"{prefix}pos_embed": (layer.position_table, None),
    }
    entries |= _conv(f"{prefix}patch_embed.proj", layer.patches) | _norm(f"{prefix}norm", layer.norm)
    for i, block in enumerate(layer.blocks):
        name = f"{prefix}blocks.{i}."
        entries |= _norm(f"{name}norm1", block.norm_1) | _norm(f"{name}norm2", block.norm_2)
        entries |= _linear(f"{name}attn.qkv", block.attention.qkv) | _linear(f"{name}attn.proj", block.attention.out)
        entries |= _linear(f"{name}mlp.fc1", block.feed_forward.first)
        entries |= _linear(f"{name}mlp.fc2", block.feed_forward.second)
        if block.scale_1 is not None:
            entries |= {f"{name}ls1.gamma": (block.scale_1, None), f"{name}ls2.gamma": (block.scale_2, None)}
    return entries


def autoencoder_map(prefix, layer):
    """The same of a VQGAN (`ae.`) or a VQVAE (`ae.backbone.`)."""
    return vqgan_map(prefix, layer) if isinstance(layer, VQGAN) else vqvae_map(prefix, layer)


def vqgan_map(prefix, layer):
    """The same of a VQGAN."""
    entries = {f"{prefix}quantize.embedding.weight": (layer.quantizer.codes, None)}
    entries |= _conv(f"{prefix}quant_conv", layer.quant_conv) | _conv(f"{prefix}post_quant_conv", layer.post_quant_conv)
    for side, levels, network in (("encoder", "down", layer.encoder), ("decoder", "up", layer.decoder)):
        name = f"{prefix}{side}."
        entries |= _conv(f"{name}conv_in", network.conv_in) | _conv(f"{name}conv_out", network.conv_out)
        entries |= _norm(f"{name}norm_out", network.norm_out)
        entries |= _resnet(f"{name}mid.block_1", network.mid.block_1) | _resnet(
            f"{name}mid.block_2", network.mid.block_2
        )
        entries |= _attention(f"{name}mid.attn_1", network.mid.attn_1)
        for i, blocks in enumerate(network.blocks):
            for j, block in enumerate(blocks):
                entries |= _resnet(f"{name}{levels}.{i}.block.{j}", block)
            for j, attention in enumerate(network.attentions[i]):
                entries |= _attention(f"{name}{levels}.{i}.attn.{j}", attention)
    for i, downsample in enumerate(layer.encoder.downsamples):
        entries |= _conv(f"{prefix}encoder.down.{i}.downsample.conv", downsample)
    for i, upsample in enumerate(layer.decoder.upsamples):
        if upsample is not None:
            entries |= _conv(f"{prefix}decoder.up.{i}.upsample.conv", upsample)
    return entries


def _resnet(name, block):
    entries = _norm(f"{name}.norm1", block.norm1) | _norm(f"{name}.norm2", block.norm2)
    entries |= _conv(f"{name}.conv1", block.conv1) | _conv(f"{name}.conv2", block.conv2)
    return entries | ({} if block.shortcut is None else _conv(f"{name}.nin_shortcut", block.shortcut))


def _attention(name, block):
    entries = _norm(f"{name}.norm", block.norm) | _conv(f"{name}.proj_out", block.out)
    return entries | _conv(f"{name}.q", block.q) | _conv(f"{name}.k", block.k) | _conv(f"{name}.v", block.v)


def vqvae_map(prefix, layer):
    """The same of a VQVAE."""
    entries = {f"{prefix}vector_quantizer.embedding.weight": (layer.quantizer.codes, None)}
    encoder, decoder = f"{prefix}encoder.", f"{prefix}decoder."
    entries |= _conv(f"{encoder}conv_in", layer.conv_in) | _conv(f"{encoder}out_conv", layer.conv_out)
    entries |= _norm(f"{encoder}out_norm", layer.norm_out)
    for i, block in enumerate(layer.down):
        entries |= _residual(f"{encoder}residuals.{i}", block)
    entries |= _around_attention(encoder, layer.before, layer.attention, layer.after)
    entries |= _conv(f"{decoder}conv_in", layer.decoder_in) | _conv(f"{decoder}out_conv", layer.decoder_out)
    entries |= _norm(f"{decoder}out_norm", layer.decoder_norm)
    for i, (residual, up) in enumerate(zip(layer.up_residuals, layer.up_blocks)):
        entries |= _residual(f"{decoder}residuals.{i}.0", residual)
        entries |= _conv(f"{decoder}residuals.{i}.1.conv", up.conv)
        entries |= _batch_norm(f"{decoder}residuals.{i}.1.norm", up.norm)
    return entries | _around_attention(decoder, layer.decoder_before, layer.decoder_attention, layer.decoder_after)


def _residual(name, block):
    entries = _conv(f"{name}.conv1", block.conv1) | _conv(f"{name}.conv2", block.conv2)
    entries |= _norm(f"{name}.bn1", block.norm1) | _norm(f"{name}.bn2", block.norm2)
    if block.shortcut is not None:
        entries |= _conv(f"{name}.downsample.0", block.shortcut) | _norm(f"{name}.downsample.2", block.shortcut_norm)
    return entries


def _around_attention(prefix, before, attention, after):
    entries = _residual(f"{prefix}pre_attn_residual", before) | _residual(f"{prefix}post_attn_residual", after)
    return entries | _norm(f"{prefix}attn_norm", attention.norm) | _multi_head(f"{prefix}attn", attention.attention)
