"""What every served model must hold, so that a model's own test is one call."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from tests import commands
from tfvid.serving.saved_model import SERVING_DEFAULT, read_signatures


def run_alone(path, request, tmp_path, signature=SERVING_DEFAULT):
    """{output: array}: the SavedModel in a process that cannot import tfvid."""
    np.savez(tmp_path / "request.npz", **request)
    arguments = [path, tmp_path / "request.npz", signature, tmp_path / "alone.npz"]
    return _outputs(commands.run("tests/serving/load_alone.py", *arguments, timeout=300), tmp_path / "alone.npz")


def run_c_api(path, request, tmp_path, signature=SERVING_DEFAULT):
    """{output: array}: the SavedModel in TensorFlow's C library, Python's TensorFlow not loaded."""
    np.savez(tmp_path / "request.npz", **request)
    saved = saved_model_pb2.SavedModel.FromString((pathlib.Path(path) / "saved_model.pb").read_bytes())
    definition = saved.meta_graphs[0].signature_def[signature]
    table = {
        "inputs": {k: [v.name, v.dtype] for k, v in definition.inputs.items()},
        "outputs": {k: [v.name, v.dtype] for k, v in definition.outputs.items()},
    }
    (tmp_path / "signature.json").write_text(json.dumps(table))
    (library,) = pathlib.Path(tf.__file__).parent.glob("libtensorflow_cc.so*")
    program = pathlib.Path(__file__).with_name("c_api.py")
    arguments = [library, path, tmp_path / "request.npz", tmp_path / "signature.json", tmp_path / "c.npz"]
    command = [sys.executable, "-I", str(program), *map(str, arguments)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    return _outputs(result, tmp_path / "c.npz")


def _outputs(result, output):
    assert result.returncode == 0, result.stderr[-2000:]
    with np.load(output) as f:
        return dict(f)


def request_for(path, batch, seed=0, signature=SERVING_DEFAULT, rng=None):
    """Random inputs of the right names, shapes and types; free dimensions take `batch`."""
    rng = rng or np.random.default_rng(0)
    request = {}
    for name, tensor in read_signatures(path)[signature]["inputs"].items():
        shape = [batch if d is None else d for d in tensor["shape"]]
        dtype = tensor["dtype"]
        if name == "seed":
            request[name] = np.full(shape, seed, dtype)
        elif dtype == "uint8":
            request[name] = rng.integers(0, 256, shape, dtype=dtype)
        elif dtype == "bool":
            request[name] = rng.integers(0, 2, shape).astype(bool)
        elif dtype.startswith("int"):
            request[name] = np.zeros(shape, dtype)
        else:
            request[name] = rng.uniform(0, 1, shape).astype(dtype)
    return request


def check_served(path, tmp_path, deterministic=False):
    """Asserts what DESIGN promises of an exported model; returns the outputs for two elements.

    Named inputs, one of them `seed`; free batch; the same seed gives the same video and
    another seed another one (unless the model is `deterministic`); the same values in a
    process without tfvid and in the C library.
    """
    signature = read_signatures(path)[SERVING_DEFAULT]
    assert "seed" in signature["inputs"] and "images" in signature["outputs"]
    for name, tensor in signature["inputs"].items():
        assert name == "seed" or tensor["shape"][0] is None, f"{name}: expected a free batch dimension"
    loaded = tf.saved_model.load(str(path)).signatures[SERVING_DEFAULT]

    def call(request):
        return {k: v.numpy() for k, v in loaded(**{k: tf.constant(v) for k, v in request.items()}).items()}

    request = request_for(path, 2)
    first = call(request)
    np.testing.assert_array_equal(first["images"], call(request)["images"])
    other = call({**request, "seed": np.full_like(request["seed"], 1)})
    assert deterministic == bool(np.array_equal(first["images"], other["images"]))
    assert call(request_for(path, 3))["images"].shape[-4:] == first["images"].shape[-4:]
    for run in (run_alone, run_c_api):
        outputs = run(path, request, tmp_path)
        assert set(outputs) == set(first)
        for name, value in first.items():
            np.testing.assert_allclose(outputs[name], value, rtol=1e-5, atol=1e-5, err_msg=f"{run.__name__}: {name}")
    return first
