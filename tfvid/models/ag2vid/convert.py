"""From the names of checkpoints written by the original program to our variables.

The original is PyTorch: kernels are OIHW, linear weights [out, in], and `v` of the
spectral norm runs over (in, k_y, k_x).
"""

import re

import numpy as np
import tensorflow as tf

from tfvid.conversion import torch_file
from tfvid.conversion.assign import Source
from tfvid.errors import UserError
from tfvid.models.ag2vid.networks_discriminator import ActionDiscriminator, PatchDiscriminator
from tfvid.models.ag2vid.networks_graph import AttributeEmbedding, GraphConvolution
from tfvid.models.ag2vid.networks_video import InstanceNorm

IMAGE_SIZE = 256


def _conv(name, layer):
    size, _, fan, _ = layer.kernel.shape
    weight = "weight_orig" if layer.spectral else "weight"
    # A transposed kernel is [in, out, k, k] there and [k, k, out, in] here: the same axes move.
    entries = {f"{name}.{weight}": (layer.kernel, lambda a: a.transpose(2, 3, 1, 0))}
    if layer.bias is not None:
        entries[f"{name}.bias"] = (layer.bias, None)
    if layer.spectral:
        channels = layer.v.shape[0] // size**2

        def reorder(v):
            return np.ascontiguousarray(v.reshape(channels, size, size).transpose(1, 2, 0)).reshape(-1)

        entries[f"{name}.weight_u"] = (layer.u, None)
        entries[f"{name}.weight_v"] = (layer.v, reorder)
    return entries


def _linear(name, layer):
    entries = {f"{name}.weight": (layer.kernel, np.transpose)}
    if layer.use_bias:
        entries[f"{name}.bias"] = (layer.bias, None)
    return entries


def _norm(name, layer):
    if layer is None or isinstance(layer, InstanceNorm):
        return {}
    entries = {
        f"{name}.running_mean": (layer.running_mean, None),
        f"{name}.running_var": (layer.running_variance, None),
        f"{name}.num_batches_tracked": (layer.num_batches_tracked, None),
    }
    if layer.affine:
        entries |= {f"{name}.weight": (layer.scale, None), f"{name}.bias": (layer.shift, None)}
    return entries


def _perceptron(name, layer):
    return _linear(f"{name}.0", layer.first) | _linear(f"{name}.2", layer.second)


def attribute_map(prefix, layer):
    """{original name: (variable, transform)} of an AttributeEmbedding."""
    assert isinstance(layer, AttributeEmbedding)
    entries = {f"{prefix}att_emb_{i}.weight": (t, None) for i, t in enumerate(layer.tables)}
    if layer.mix is not None:
        entries |= _linear(f"{prefix}attribute_fc_gen", layer.mix)
    return entries


def graph_convolution_map(prefix, layer):
    """The same of a GraphConvolution."""
    assert isinstance(layer, GraphConvolution)
    return _perceptron(f"{prefix}net1", layer.messages) | _perceptron(f"{prefix}net2", layer.update)


def graph_map(prefix, layer):
    """The same of an ActionGraphModel."""
    entries = attribute_map(f"{prefix}attribute_embedding.", layer.attributes)
    entries[f"{prefix}pred_embeddings.weight"] = (layer.predicates, None)
    entries[f"{prefix}acts_embeddings.weight"] = (layer.actions.table, None)
    entries |= _perceptron(f"{prefix}obj_vecs_net", layer.object_net)
    for i, convolution in enumerate(layer.convolutions):
        entries |= graph_convolution_map(f"{prefix}gconvs.{i}.", convolution)
    return entries | _perceptron(f"{prefix}box_net", layer.box_net)


def flow_map(prefix, layer):
    """The same of a FlowNetwork."""
    entries = {}
    for i, block in enumerate(layer.down):
        entries |= _conv_norm(f"{prefix}down_flow.{2 * i}", block)
    for i, block in enumerate(layer.blocks):
        for j in range(2):
            entries |= _conv(f"{prefix}res_flow.{i}.conv_{j}", block.convolutions[j])
            entries |= _norm(f"{prefix}res_flow.{i}.bn_{j}", block.norms[j])
    for i, block in enumerate(layer.up):
        index = 2 * i if layer.transposed else 3 * i + 1
        entries |= _conv_norm(f"{prefix}up_flow.{index}", block)
    entries |= _conv(f"{prefix}conv_flow.0", layer.flow_head)
    return entries | _conv(f"{prefix}conv_w.0", layer.weight_head)


def _conv_norm(name, block):
    return _conv(f"{name}.0", block.convolution) | _norm(f"{name}.1", block.norm)


def spade_map(prefix, layer):
    """The same of a Spade."""
    entries = _norm(f"{prefix}param_free_norm", layer.norm)
    for name, conv in (("mlp_shared.0", layer.shared), ("mlp_gamma", layer.gamma), ("mlp_beta", layer.beta)):
        entries |= _conv(f"{prefix}{name}", conv)
    return entries


def spade_block_map(prefix, layer):
    """The same of a SpadeBlock."""
    entries = {}
    for part in ("0", "1", "s"):
        if getattr(layer, f"conv_{part}") is not None:
            entries |= _conv(f"{prefix}conv_{part}", getattr(layer, f"conv_{part}"))
            entries |= spade_map(f"{prefix}norm_{part}.", getattr(layer, f"norm_{part}"))
    return entries


def generator_map(prefix, layer):
    """The same of a SpadeGenerator."""
    entries = _conv(f"{prefix}fc", layer.first) | _conv(f"{prefix}conv_img", layer.to_rgb)
    for name, block in layer.blocks.items():
        entries |= spade_block_map(f"{prefix}{name}.", block)
    return entries


def video_map(prefix, layer, attributes):
    """The same of a VideoGenerator and the attribute embedding that feeds its layouts."""
    entries = attribute_map(f"{prefix}attribute_embedding.", attributes)
    entries |= flow_map(f"{prefix}flows_network.", layer.flow)
    entries |= _conv_norm(f"{prefix}conv_dim_in.0", layer.condition)
    return entries | generator_map(f"{prefix}netG.", layer.generator)


def patch_map(prefix, layer):
    """The same of a PatchDiscriminator; `prefix` ends with "model"."""
    assert isinstance(layer, PatchDiscriminator)
    entries, last = {}, len(layer.convolutions) - 1
    for i, convolution in enumerate(layer.convolutions):
        inner = f"{prefix}{i}.0" if i in (0, last) else f"{prefix}{i}.0.0"
        entries |= _conv(inner, convolution)
        if 0 < i < last:
            entries |= _norm(f"{prefix}{i}.0.1", layer.norms[i])
    return entries


def discriminator_map(prefix, layer):
    """The same of an ActionDiscriminator."""
    assert isinstance(layer, ActionDiscriminator)
    entries = attribute_map(f"{prefix}attribute_embedding.", layer.attributes)
    entries[f"{prefix}pred_embeddings.weight"] = (layer.predicates, None)
    entries[f"{prefix}acts_embeddings.weight"] = (layer.actions.table, None)
    entries |= _perceptron(f"{prefix}pre_obj_vecs_net", layer.first_net)
    entries |= _perceptron(f"{prefix}obj_vecs_net", layer.object_net)
    for i, convolution in enumerate(layer.convolutions):
        entries |= graph_convolution_map(f"{prefix}gconvs.{i}.", convolution)
    entries |= _linear(f"{prefix}fc_objs_vecs", layer.mix)
    for i, scale in enumerate(layer.scales):
        entries |= patch_map(f"{prefix}discriminator_{i}.model", scale)
    return entries


def model_map(model):
    """{original name: (variable, transform)} of an AG2Vid without its discriminator: `model_state`."""
    entries = graph_map("acts_to_boxes.module.", model.acts_to_boxes)
    if not model.hparams.graph_only:
        if model.acts_to_objs is not None:
            entries |= graph_map("acts_to_objs.module.", model.acts_to_objs)
        entries |= video_map("layout_to_video.module.", model.video, model.appearance)
    return entries


# Checkpoints of the original program (`itr_<step>.pt`); see `tfvid.conversion`.


def variable_map(model):
    """{variable path: Source} of a whole `AG2Vid`: `model_state` and `d_img_state` of the file."""
    entries = {f"model_state.{name}": entry for name, entry in model_map(model).items()}
    if not model.hparams.graph_only:
        found = discriminator_map("", model.discriminator)
        entries |= {f"d_img_state.{name}": entry for name, entry in found.items()}
    return {variable.path: Source(name, transform) for name, (variable, transform) in entries.items()}


def is_ignorable(name):
    """The mask network, which the original never calls, and the step count."""
    return ".mask_net." in name or name == "step"


def is_optional(path):
    """The discriminator, which only training needs."""
    return path.startswith("discriminator/")


def read_source(path):
    """{name: array} of the model's and the discriminator's weights, and `step`.

    Optimisers stay out (their order differs from run to run in the original), and so do
    the vocabulary and the second copy of the discriminator.
    """
    content = torch_file.read(path)
    if not isinstance(content, dict) or "model_state" not in content:
        raise UserError(f"{path}: expected a checkpoint of AG2Vid with model_state, d_img_state, ...")
    arrays = torch_file.flatten({k: content[k] for k in ("model_state", "d_img_state") if k in content})
    arrays = {canonical(k): v for k, v in arrays.items()}
    counters = content.get("counters")
    if isinstance(counters, dict) and isinstance(counters.get("t"), int):
        arrays["step"] = np.int64(counters["t"])
    return arrays


def canonical(name):
    """The name as the original program's own runs have it, whatever was wrapped in a DataParallel when it was saved."""
    name = re.sub(
        r"^(model_state\.)(?:module\.)*(acts_to_boxes|acts_to_objs|layout_to_video)\.(?:module\.)*",
        r"\1\2.module.",
        name,
    )
    return re.sub(r"^(d_img_state\.)(?:module\.)+", r"\1", name)


def data_spec(hparams):
    """The data of the published configurations, for users who do not have it; numbers of slots are free."""
    h, objects, actions = hparams, 10, 20
    length = h.sequence_length or 16
    spec = {
        "images": tf.TensorSpec([length, IMAGE_SIZE, IMAGE_SIZE, 3], tf.uint8),
        "objects": tf.TensorSpec([objects, len(h.attribute_sizes)], tf.int32),
        "boxes": tf.TensorSpec([length, objects, 4], tf.float32),
        "timed_actions": tf.TensorSpec([actions, 3], tf.int32),
        "action_progress": tf.TensorSpec([length, actions], tf.float32),
        "action_destinations": tf.TensorSpec([actions, 2], tf.float32),
    }
    if not h.image_node:
        spec["relations"] = tf.TensorSpec([length, 4, 3], tf.int32)
    return spec
