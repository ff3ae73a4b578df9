"""The original's checkpoints of ACT-VAE: names of its variables, files of a snapshot.

A snapshot is `<epoch>_im_encode_content_<iteration>.pt` (pose decoder) and
`<epoch>_im_encode_vae_<iteration>.pt`; published ones go without numbers. Each holds
{"a": state dict}. For the pose-to-image stage see `convert_p2i`.
"""

import os
import re

import numpy as np
import tensorflow as tf

from tfvid.conversion import torch_file
from tfvid.conversion.assign import Source, dense_kernel
from tfvid.errors import UserError

# Name of the network inside the original program -> middle of its file's name.
FILES = {"image_enc_vae": "im_encode_vae", "image_enc_content": "im_encode_content"}


def read_source(path):
    """{name inside the original program: array} of the newest snapshot of a folder, or of the one a file is of."""
    return read_snapshot(path, FILES)


def read_snapshot(path, files, optional=()):
    """The networks of one snapshot.

    Args:
      path: its folder, or one of its files.
      files: {prefix of the names: middle of the file name}.
      optional: prefixes whose file may be missing.

    Raises:
      UserError: a file is missing or holds something else.
    """
    folder = path if tf.io.gfile.isdir(path) else os.path.dirname(path) or "."
    snapshots = _snapshots(folder, files)
    if not snapshots:
        raise UserError(f"{path}: expected files [<epoch>_]{next(iter(files.values()))}[_<iteration>].pt, found none")
    chosen = max(snapshots, key=lambda s: int(s[1] or 0))
    if not tf.io.gfile.isdir(path):
        chosen = next((s for s, names in snapshots.items() if os.path.basename(path) in names.values()), None)
        if chosen is None:
            raise UserError(f"{path}: expected one of a snapshot's files, such as {next(iter(files.values()))}.pt")
    tensors = {}
    for prefix, middle in files.items():
        if prefix not in snapshots[chosen]:
            if prefix in optional:
                continue
            raise UserError(f"{folder}: expected {'_'.join(filter(None, (chosen[0], middle, chosen[1])))}.pt, found none")
        file = os.path.join(folder, snapshots[chosen][prefix])
        saved = torch_file.read(file)
        if not isinstance(saved, dict) or not isinstance(saved.get("a"), dict):
            raise UserError(f"{file}: expected {{'a': state dict}} as the original writes it")
        tensors |= {f"{prefix}.{k}": v for k, v in torch_file.flatten_state(saved["a"]).items()}
    if chosen[1]:  # the last finished iteration, from 0
        tensors["step"] = np.int64(int(chosen[1]) + 1)
    return tensors


def _snapshots(folder, files):
    """{(epoch, iteration): {prefix: file name}}, numbers as text, "" where there is none."""
    found = {}
    for name in sorted(tf.io.gfile.listdir(folder)):
        for prefix, middle in files.items():
            match = re.fullmatch(rf"(?:(\d+)_)?{middle}(?:_(\d+))?\.pt", name)
            if match:
                found.setdefault((match.group(1) or "", match.group(2) or ""), {})[prefix] = name
    return found


def is_ignorable(name):
    """The step is no variable."""
    return name == "step"


def data_spec(hparams):
    """The poses that the published model was trained on; see `tfvid.data.penn`."""
    length = hparams.sequence_length or 1 + hparams.targets
    return {
        "poses": tf.TensorSpec([length, hparams.num_joints, 2], tf.float32),
        "action_class": tf.TensorSpec([], tf.int32),
    }


def variable_map(model):
    """{path of a variable: its Source in the original}, for `tfvid.conversion.assign`.

    Names are those inside the original program: the network's prefix and the name in
    its file, e.g. "image_enc_vae.rnn.weight_ih_l0".
    """
    if model.hparams.pose_head != "hidden":
        raise UserError(
            f"pose_head: expected hidden, the original's form. Received: pose_head={model.hparams.pose_head}"
        )
    entries = [
        *_lstm("image_enc_vae.rnn", model.pose_network.temporal_vae.cell),
        *_lstm("image_enc_content.rnn", model.pose_network.decoder.cell),
    ]
    return {variable.path: source for variable, source in entries}


def _lstm(name, cell):
    return [
        (cell.kernel, Source(f"{name}.weight_ih_l0", dense_kernel)),
        (cell.recurrent_kernel, Source(f"{name}.weight_hh_l0", dense_kernel)),
        (cell.bias_input, Source(f"{name}.bias_ih_l0")),
        (cell.bias_recurrent, Source(f"{name}.bias_hh_l0")),
    ]
