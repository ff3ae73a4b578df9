"""What an exported SavedModel says of itself, read without loading its graph."""

import os

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from tfvid.errors import UserError
from tfvid.hparams import read_json_object

SERVING_DEFAULT = tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY
# What TensorFlow adds beside the given signatures, for its own loader.
INTERNAL_SIGNATURES = frozenset({"__saved_model_init_op", "__saved_model_train_op"})


def read_signatures(path):
    """{signature: {"inputs": {name: {"shape", "dtype"}}, "outputs": ...}} of a SavedModel; null: a free dimension.

    Args:
      path: folder of one version.
    """
    file = os.path.join(path, "saved_model.pb")
    if not tf.io.gfile.exists(file):
        raise UserError(f"{path}: expected a SavedModel (saved_model.pb, variables/), found none")
    with tf.io.gfile.GFile(file, "rb") as f:
        content = f.read()
    try:
        signatures = saved_model_pb2.SavedModel.FromString(content).meta_graphs[0].signature_def
    except Exception:  # protobuf's DecodeError is not public in every release; IndexError of an empty file
        raise UserError(f"{file}: expected a SavedModel, cannot read it: truncated or of another kind") from None
    return {
        name: {"inputs": _table(signatures[name].inputs), "outputs": _table(signatures[name].outputs)}
        for name in sorted(signatures)
        if name not in INTERNAL_SIGNATURES
    }


def read_description(path):
    """What `export` wrote beside the graph: {"model", "hparams", ...}; UserError where it is missing or edited.

    Args:
      path: folder of one version.
    """
    file = os.path.join(path, "assets.extra", "tfvid.json")
    description = read_json_object(file)
    for key, kind in (("model", str), ("hparams", dict)):
        if not isinstance(description.get(key), kind):
            raise UserError(f"{file}: expected {key} as export wrote it. Received: {description.get(key)!r}")
    return description


def versions(export_dir):
    """The version numbers in `export_dir`, sorted."""
    if not tf.io.gfile.isdir(export_dir):
        return []
    names = (name.rstrip("/") for name in tf.io.gfile.listdir(export_dir))
    return sorted(int(name) for name in names if name.isdecimal())


def _table(tensors):
    def shape(proto):
        return None if proto.unknown_rank else [None if d.size < 0 else d.size for d in proto.dim]

    return {
        name: {"shape": shape(tensors[name].tensor_shape), "dtype": tf.as_dtype(tensors[name].dtype).name}
        for name in sorted(tensors)
    }
