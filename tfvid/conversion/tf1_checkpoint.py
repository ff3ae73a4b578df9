"""Reads checkpoints of TensorFlow 1: by prefix, directory or file, format V1 or V2."""

import os
import re

import tensorflow as tf

from tfvid.errors import UserError


def read(path):
    """{variable name: np.ndarray} of a checkpoint.

    Args:
      path: the prefix ("model-300000"), one of its files (.index, .meta, .data-...), or a
        directory with a `checkpoint` file, whose newest entry is read.

    Raises:
      UserError: nothing there, another kind of file, or damaged.
    """
    prefix = find_prefix(path)
    name = None
    try:
        reader = tf.train.load_checkpoint(prefix)
        tensors = {}
        for name in sorted(reader.get_variable_to_shape_map()):
            tensors[name] = reader.get_tensor(name)
        return tensors
    except (tf.errors.OpError, ValueError, RuntimeError, IndexError) as e:
        reason = " ".join(str(getattr(e, "message", None) or e).split())
        where = f" at variable {name!r}" if name else ""
        raise UserError(f"{path}: cannot read it as a TensorFlow checkpoint{where}: {reason}") from None


def find_prefix(path):
    """The prefix that a user's path stands for; UserError where no checkpoint is."""
    if tf.io.gfile.isdir(path):
        return _latest(path)
    prefix = re.sub(r"\.(index|meta|data-\d{5}-of-\d{5})$", "", path)
    if tf.io.gfile.exists(prefix + ".index"):
        if not tf.io.gfile.glob(prefix + ".data-*"):
            raise UserError(f"{path}: expected a checkpoint, found {prefix}.index without {prefix}.data-*")
        return prefix
    if tf.io.gfile.exists(prefix):
        return prefix  # format V1: one file
    if tf.io.gfile.glob(prefix + ".data-*"):
        raise UserError(f"{path}: expected a checkpoint, found {prefix}.data-* without {prefix}.index")
    raise UserError(f"{path}: expected a TensorFlow checkpoint (<prefix>.index and <prefix>.data-*), found none")


def _latest(folder):
    """The newest checkpoint of a folder, also where it was moved since it was written."""
    state = os.path.join(folder, "checkpoint")
    if tf.io.gfile.exists(state):
        with tf.io.gfile.GFile(state, "rb") as f:
            text = f.read().decode("utf-8", "replace")
        match = re.search(r'^model_checkpoint_path:\s*"((?:[^"\\]|\\.)*)"', text, re.MULTILINE)
        if not match:
            raise UserError(f"{state}: expected a line model_checkpoint_path, found none")
        # Only the name counts: the folder was another one where it was trained.
        prefix = os.path.join(folder, os.path.basename(match.group(1)))
        if tf.io.gfile.exists(prefix + ".index") or tf.io.gfile.exists(prefix):
            return prefix
        raise UserError(f"{state}: names {os.path.basename(prefix)!r}, which is not in {folder}")
    indices = tf.io.gfile.glob(os.path.join(folder, "*.index"))
    if len(indices) == 1:
        return indices[0][: -len(".index")]
    if indices:
        names = ", ".join(sorted(os.path.basename(i)[: -len(".index")] for i in indices))
        raise UserError(f"{folder}: expected one checkpoint or a `checkpoint` file, found {names}; name one of them")
    raise UserError(f"{folder}: expected a TensorFlow checkpoint, found none in this folder")
