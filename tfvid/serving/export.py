"""Writes a model as a SavedModel that TensorFlow Serving and the C API run without tfvid.

    <export_dir>/<version>/
      saved_model.pb, variables/     the graph of every signature and its weights
      assets.extra/tfvid.json        model, hyper-parameters, signatures (shapes, dtypes)
      assets.extra/tf_serving_warmup_requests   one request for each signature

A model gives its signatures (`VideoModel.signatures`): `serving_default` takes named
inputs with a free batch dimension and an integer `seed`; the same seed gives the same
video. Optimisers, discriminators and whatever else no signature reads stay out.
"""

import json
import os

import tensorflow as tf

import tfvid
from tfvid.errors import UserError
from tfvid.layers import xla
from tfvid.serving.batching import with_seed_for_each_clip
from tfvid.serving.saved_model import SERVING_DEFAULT, read_signatures, versions
from tfvid.serving.warmup import write_warmup

# They run a Python function of the process that made the graph; no server has it.
PYTHON_OPS = frozenset({"PyFunc", "PyFuncStateless", "EagerPyFunc"})


def export(model, export_dir, version=None, model_name=None, warmup=True, batching=False):
    """Writes `<export_dir>/<version>/`.

    Args:
      model: a `VideoModel`.
      export_dir: the folder of all versions, a server's model_base_path.
      version: a positive integer; None: one more than the highest there.
      model_name: key of `tfvid.models.MODELS`, kept in assets.extra/tfvid.json.
      warmup: write the server's warm-up requests, after running each once.
      batching: a seed for each clip, which a server that joins requests needs
        (`with_seed_for_each_clip`).

    Returns:
      The path of the version's folder.

    Raises:
      UserError: the version is there already, or is no positive integer; the model has
        no signatures.
      ValueError: a signature that a server cannot run (`check_signature`).
    """
    version = _free_version(export_dir, version)
    with xla.off():  # the other way needs XLA, which a server may not have
        try:
            functions = model.signatures()
        except NotImplementedError:
            raise UserError(f"expected a model that can be served, {type(model).__name__} has no signatures") from None
        concrete = {name: function.get_concrete_function() for name, function in functions.items()}
    if batching:
        concrete = {name: with_seed_for_each_clip(function) for name, function in concrete.items()}
    if SERVING_DEFAULT not in concrete:
        raise ValueError(f"expected a signature {SERVING_DEFAULT}. Received: {', '.join(concrete) or 'none'}")
    for name, function in concrete.items():
        check_signature(name, function)

    # A server takes up a version as soon as its number appears: write elsewhere, then rename.
    partial = os.path.join(export_dir, f"incomplete-{version}")
    if tf.io.gfile.exists(partial):
        tf.io.gfile.rmtree(partial)
    tf.saved_model.save(_holder(concrete), partial, signatures=concrete)
    assets = os.path.join(partial, "assets")
    if tf.io.gfile.exists(assets) and not tf.io.gfile.listdir(assets):
        # Nobody needs it empty, and TensorFlow's ram:// takes assets.extra for a part of it.
        tf.io.gfile.rmtree(assets)
    _write_description(partial, model, model_name)
    if warmup:
        write_warmup(partial, read_signatures(partial), concrete, model_name or "model")
    path = os.path.join(export_dir, str(version))
    move_folder(partial, path)
    return path


def check_signature(name, function):
    """Raises ValueError unless a server can run `function` and call it by name.

    Args:
      name: of the signature.
      function: a concrete function.
    """
    used = sorted(operations(function) & PYTHON_OPS)
    if used:
        raise ValueError(f"signature {name}: expected no Python operation. Received: {', '.join(used)}")
    compiled = compiled_functions(function)
    if compiled:
        raise ValueError(f"signature {name}: expected no function that needs XLA. Received: {', '.join(compiled)}")
    if not isinstance(function.structured_outputs, dict):
        received = type(function.structured_outputs).__name__
        raise ValueError(f"signature {name}: expected a dictionary of outputs. Received: {received}")


def operations(function):
    """Types of all operations in a concrete function and in the functions that it calls."""
    graph = function.graph.as_graph_def()
    nodes = [*graph.node, *(node for called in graph.library.function for node in called.node_def)]
    return {node.op for node in nodes}


def compiled_functions(function):
    """Names of the functions in a concrete function's graph that XLA must compile."""
    library = function.graph.as_graph_def().library
    return sorted(f.signature.name for f in library.function if f.attr["_XlaMustCompile"].b)


def move_folder(source, target):
    """Renames a folder; file by file, the graph last, where there are no folders to rename (gs://, ram://)."""
    if "://" not in source:
        tf.io.gfile.rename(source, target)
        return
    files = []
    for folder, _, names in tf.io.gfile.walk(source):
        inside = folder.rstrip("/")[len(source) :].strip("/")
        files += [os.path.join(inside, name) for name in names]
    for name in sorted(files, key=lambda name: (name == "saved_model.pb", name)):
        tf.io.gfile.makedirs(os.path.dirname(os.path.join(target, name)))
        tf.io.gfile.copy(os.path.join(source, name), os.path.join(target, name))
    tf.io.gfile.rmtree(source)


def _holder(concrete):
    """A tf.Module with the variables that the signatures read: what the SavedModel keeps."""
    module = tf.Module()
    found = {id(v): v for function in concrete.values() for v in function.variables}
    module.variables_of_signatures = list(found.values())
    return module


def _free_version(export_dir, version):
    there = versions(export_dir)
    if version is None:
        return (there[-1] if there else 0) + 1
    if version < 1:
        raise UserError(f"--version: expected a positive integer. Received: {version}")
    if version in there:
        raise UserError(f"--version: expected one that is not in {export_dir} yet. Received: {version}")
    return version


def _write_description(path, model, model_name):
    description = {
        "model": model_name or type(model).__name__,
        "tfvid": tfvid.__version__,
        "step": int(model.step.numpy()),
        "hparams": model.hparams.to_dict(),
        "signatures": read_signatures(path),
    }
    folder = os.path.join(path, "assets.extra")
    tf.io.gfile.makedirs(folder)
    with tf.io.gfile.GFile(os.path.join(folder, "tfvid.json"), "w") as f:
        f.write(json.dumps(description, indent=2) + "\n")
