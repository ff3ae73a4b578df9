"""Requests: what the client sends is what the signature takes, and what comes back is the model's video."""

import contextlib
import http.server
import json
import os
import threading

import numpy as np
import pytest
import tensorflow as tf

from tests.serving.harness import run_alone
from tests.serving.test_export import ServedToy
from tests.toy_model import CONTEXT, toy_hparams, toy_images, toy_spec
from tfvid.errors import UserError
from tfvid.serving import request
from tfvid.serving.export import export
from tfvid.serving.saved_model import read_description, read_signatures


@pytest.fixture
def exported(tmp_path):
    return export(ServedToy(toy_hparams(), toy_spec(), seed=3), str(tmp_path / "toy"))


def decoded(text, path):
    """The inputs as TensorFlow Serving makes them of a body: JSON lists into the signature's types."""
    message = json.loads(text)
    inputs = read_signatures(path)[message["signature_name"]]["inputs"]
    return {name: np.array(value, inputs[name]["dtype"]) for name, value in message["inputs"].items()}


def test_body_runs_in_a_process_without_tfvid(exported, tmp_path):
    text = request.build(str(tmp_path / "toy"), {"images": toy_images(2)}, seed=5)
    images = run_alone(exported, decoded(text, exported), tmp_path)["images"]
    loaded = tf.saved_model.load(exported).signatures["serving_default"]
    np.testing.assert_allclose(images, loaded(images=toy_images(2)[:, :CONTEXT], seed=np.int64(5))["images"], atol=1e-6)


def test_images_become_floats_where_the_signature_takes_floats():
    inputs = {"images": {"shape": [None, 2, 8, 8, 3], "dtype": "float32"}, "seed": {"shape": [], "dtype": "int64"}}
    values = request.inputs_of_clip(inputs, {"images": toy_images(1)}, 3)
    np.testing.assert_allclose(values["images"], toy_images(1)[:, :2] / 255, atol=1e-7)
    assert values["seed"] == 3 and values["seed"].dtype == np.int64


@pytest.mark.parametrize("url", ["localhost:8501", "file:///etc/passwd", "http://a b/v1", ""])
def test_addresses_that_no_server_has(url):
    with pytest.raises(UserError, match="expected "):
        request.send(url, "{}")


def test_a_damaged_export_is_named(exported):
    for content in (b"", b"\x0a\xff"):
        with open(f"{exported}/saved_model.pb", "wb") as f:
            f.write(content)
        with pytest.raises(UserError, match="saved_model.pb: expected a SavedModel, cannot read it"):
            read_signatures(exported)
    os.remove(f"{exported}/saved_model.pb")
    with pytest.raises(UserError, match="expected a SavedModel .*found none"):
        read_signatures(exported)
    with open(f"{exported}/assets.extra/tfvid.json", "w") as f:
        f.write('{"model": "toy"}')
    with pytest.raises(UserError, match="tfvid.json: expected hparams as export wrote it. Received: None"):
        read_description(exported)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"images": None}, "expected the inputs images, seed"),
        ({"images": np.zeros([1, 2, 8, 8, 3], "float32")}, "images: expected uint8"),
        ({"images": np.zeros([1, 2, 9, 8, 3], "uint8")}, r"images: expected uint8 \['batch', 2, 8, 8, 3\]"),
        ({"seed": np.zeros([1], "int64")}, "seed: expected int64"),
    ],
)
def test_what_does_not_fit_the_signature_is_refused(exported, change, message):
    inputs = read_signatures(exported)["serving_default"]["inputs"]
    values = {"images": np.zeros([1, 2, 8, 8, 3], "uint8"), "seed": np.int64(0), **change}
    with pytest.raises(UserError, match=message):
        request.check_inputs(inputs, {k: v for k, v in values.items() if v is not None})


def test_unknown_signature_and_missing_key(exported):
    with pytest.raises(UserError, match="expected one of serving_default. Received: 'step'"):
        request.build(exported, {"images": toy_images(1)}, 0, "step")
    with pytest.raises(UserError, match="Received no images"):
        request.build(exported, {}, 0)


@contextlib.contextmanager
def server(path, status=200):
    """A stand-in for TensorFlow Serving: its REST form over the exported graph."""
    signature = tf.saved_model.load(path).signatures["serving_default"]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            text = self.rfile.read(int(self.headers["Content-Length"])).decode()
            answer = {"error": "no such model"}
            if status == 200:
                outputs = signature(**{k: tf.constant(v) for k, v in decoded(text, path).items()})
                answer = {"outputs": outputs["images"].numpy().tolist()}
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *args):
            pass

    service = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=service.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{service.server_port}/v1/models/toy:predict"
    finally:
        service.shutdown()
        service.server_close()


def test_answer_is_the_video(exported):
    text = request.build(exported, {"images": toy_images(2)}, seed=5)
    with server(exported) as url:
        images = request.send(url, text)["images"]
    loaded = tf.saved_model.load(exported).signatures["serving_default"]
    np.testing.assert_allclose(images, loaded(images=toy_images(2)[:, :CONTEXT], seed=np.int64(5))["images"], atol=1e-6)


def test_servers_that_refuse_or_are_not_there(exported):
    with server(exported, status=404) as url, pytest.raises(UserError, match="refused the request: .*no such model"):
        request.send(url, "{}")
    with pytest.raises(UserError, match="expected a TensorFlow Serving REST server"):
        request.send(url, "{}", timeout=5)
