"""Names of the published checkpoints (`.pth.tar`) for CADDY's weights.

A file holds {"model": state dict, "mi_estimator": {...} of the smooth trainer, "optimizer",
"lr_scheduler", "step"}; a state dict alone is read as well. The four gates of a memory are
separate convolutions there and one here.
"""

import numpy as np
import tensorflow as tf

from tfvid.conversion import torch_file
from tfvid.conversion.assign import Source, conv2d_kernel, dense_kernel
from tfvid.errors import UserError
from tfvid.layers.batch_norm import BatchNorm
from tfvid.models.caddy import blocks, networks

GATES = ("input", "forget", "output", "cell")  # the order of ConvLSTM's channels
# Data set -> (height, width) of the published models.
PUBLISHED = {"bair": (256, 256), "breakout": (208, 160), "tennis": (96, 256)}


def read_source(path):
    """{name: array} of a file, names as in `variable_map`, without DataParallel's `module.`; its step with it."""
    saved = torch_file.read(path)
    if not isinstance(saved, dict):
        raise UserError(f"{path}: expected a dictionary. Received: {type(saved).__name__}")
    if not isinstance(saved.get("model"), dict):
        saved = {"model": saved}
    tensors = {f"model.{name}": array for name, array in torch_file.flatten_state(saved["model"]).items()}
    tensors |= torch_file.flatten({k: v for k, v in saved.items() if k != "model"})
    if isinstance(saved.get("step"), int):
        tensors["step"] = np.int64(saved["step"])
    return tensors


def data_spec(hparams):
    """The frames of a published model."""
    if hparams.dataset not in PUBLISHED:
        raise UserError(
            "--image_size: expected height,width,channels (or --input_dir with the data), or a --dataset of which the"
            f" published model is known: {', '.join(PUBLISHED)}. Received: {hparams.dataset!r}"
        )
    return {"images": tf.TensorSpec([hparams.sequence_length, *PUBLISHED[hparams.dataset], 3], tf.uint8)}


def variable_map(model):
    """{variable path: Source} of a whole CADDY model; names as in the flattened file."""
    result = networks_map(model.networks, "model.")
    if model.mi_matrix is not None:
        result[model.mi_matrix.path] = Source("mi_estimator.matrix_estimator.estimated_matrix")
    # Ours alone: how often each action is used. No file has it (`is_optional`).
    result[model.action_usage.path] = Source("action_usage")
    return result


def is_ignorable(name):
    """Entries of a file that the model has no use for: optimiser, schedule, step, another trainer's estimate."""
    return name.startswith(("optimizer.", "lr_scheduler.", "mi_estimator.")) or name == "step"


def is_optional(path):
    """Running estimates that only training needs; older files lack the mutual information's."""
    return path.rsplit("/", 1)[-1] in ("mi_matrix", "action_usage")


def networks_map(nets, prefix=""):
    """{variable path: Source} of the five networks and the centroids."""
    return {
        **encoder_map(nets.encoder, f"{prefix}representation_network."),
        **action_map(nets.action_network, f"{prefix}action_network.0."),
        **dynamics_map(nets.dynamics, f"{prefix}dynamics_network."),
        **decoder_map(nets.decoder, f"{prefix}rendering_network."),
        **state_to_hidden_map(nets.state_to_hidden, f"{prefix}state_to_hidden_state_layer."),
        nets.centroids.centroids.path: Source(f"{prefix}centroid_estimator.estimated_centroids"),
    }


def encoder_map(net, prefix=""):
    """The representation network."""
    result = {**conv_map(net.conv, f"{prefix}conv1."), **norm_map(net.norm, f"{prefix}bn1.")}
    for i, block in enumerate(net.residuals):
        result.update(residual_map(block, f"{prefix}residuals.{i}."))
    return result


def action_map(net, prefix=""):
    """The action network."""
    result = {}
    for i, block in enumerate(net.residuals):
        result.update(residual_map(block, f"{prefix}residuals.{i}."))
    for layer, name in ((net.mean, "mean_fc"), (net.variance, "variance_fc"), (net.logits, "final_fc")):
        result[layer.kernel.path] = Source(f"{prefix}{name}.weight", dense_kernel)
        result[layer.bias.path] = Source(f"{prefix}{name}.bias")
    return result


def dynamics_map(net, prefix=""):
    """The dynamics network."""
    result = {}
    for i, (memory, norm) in enumerate(zip(net.memories, net.norms)):
        result.update(memory_map(memory, f"{prefix}recurrent_layers_blocks.{i}.0."))
        result.update(norm_map(norm, f"{prefix}recurrent_layers_blocks.{i}.1."))
    for i, block in enumerate(net.blocks):
        mapped = up_map if isinstance(block, blocks.Up) else same_map
        result.update(mapped(block, f"{prefix}non_recurrent_blocks.{i}."))
    return result


def decoder_map(net, prefix=""):
    """The rendering network."""
    result = {}
    for i, up in enumerate(net.ups):
        paired = i < len(net.residuals)
        result.update(up_map(up, f"{prefix}upsample_blocks.{i}.0." if paired else f"{prefix}upsample_blocks.{i}."))
        if paired:
            result.update(residual_map(net.residuals[i], f"{prefix}upsample_blocks.{i}.1."))
        result.update(conv_map(net.images[i].conv, f"{prefix}final_blocks.{i}.conv."))
    return result


def state_to_hidden_map(net, prefix=""):
    """The layer of pre-training."""
    return conv_map(net.conv, f"{prefix}0.")


def residual_map(block, prefix=""):
    """A `Residual` block."""
    result = {}
    for i in (1, 2):
        result.update(conv_map(getattr(block, f"conv{i}"), f"{prefix}conv{i}."))
        result.update(norm_map(getattr(block, f"norm{i}"), f"{prefix}bn{i}."))
    if block.shortcut is not None:
        result.update(conv_map(block.shortcut, f"{prefix}downsample.0."))
        result.update(norm_map(block.shortcut_norm, f"{prefix}downsample.2."))
    return result


def same_map(block, prefix=""):
    """A `Same` block."""
    return {**conv_map(block.conv, f"{prefix}conv1."), **norm_map(block.norm, f"{prefix}bn1.")}


def up_map(block, prefix=""):
    """An `Up` block."""
    return {**conv_map(block.conv, f"{prefix}conv."), **norm_map(block.norm, f"{prefix}norm.")}


def memory_map(memory, prefix=""):
    """A `ConvLSTM` with its learnt start."""
    return {
        memory.initial_hidden.path: Source(f"{prefix}initial_hidden_state", _channels_last),
        memory.initial_cell.path: Source(f"{prefix}initial_hidden_cell_state", _channels_last),
        **gates_map(memory, f"{prefix}cell."),
    }


def gates_map(memory, prefix=""):
    """The gates of a `ConvLSTM`: four convolutions joined to one."""
    weights = tuple(f"{prefix}{gate}_gate.weight" for gate in GATES)
    biases = tuple(f"{prefix}{gate}_gate.bias" for gate in GATES)
    return {
        memory.gates.kernel.path: Source(weights, lambda *arrays: conv2d_kernel(np.concatenate(arrays, axis=0))),
        memory.gates.bias.path: Source(biases, lambda *arrays: np.concatenate(arrays, axis=0)),
    }


def conv_map(layer, prefix=""):
    """A convolution, with its bias where it has one."""
    result = {layer.kernel.path: Source(f"{prefix}weight", conv2d_kernel)}
    if layer.use_bias:
        result[layer.bias.path] = Source(f"{prefix}bias")
    return result


def norm_map(norm: BatchNorm, prefix=""):
    """A batch norm: scale and shift where it learns them, and its statistics."""
    result = {
        norm.running_mean.path: Source(f"{prefix}running_mean"),
        norm.running_variance.path: Source(f"{prefix}running_var"),
        norm.num_batches_tracked.path: Source(f"{prefix}num_batches_tracked"),
    }
    if norm.affine:
        result[norm.scale.path] = Source(f"{prefix}weight")
        result[norm.shift.path] = Source(f"{prefix}bias")
    return result


def _channels_last(array):
    return np.transpose(array, (1, 2, 0))


# Which function names the parts of which network, for those who have one alone.
MAPS = {
    networks.Encoder: encoder_map,
    networks.ActionNetwork: action_map,
    networks.Dynamics: dynamics_map,
    networks.Decoder: decoder_map,
    networks.StateToHidden: state_to_hidden_map,
    blocks.Residual: residual_map,
    blocks.Same: same_map,
    blocks.Up: up_map,
    blocks.ConvLSTM: memory_map,
}
