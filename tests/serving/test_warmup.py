"""Warm-up requests and signatures for batching servers: what the server reads runs on what it loads."""

import os

import numpy as np
import pytest
import tensorflow as tf

from tests.serving.harness import request_for, run_alone, run_c_api
from tests.serving.test_export import ServedToy
from tests.toy_model import CONTEXT, SIZE, toy_hparams, toy_images, toy_spec
from tfvid.serving import messages
from tfvid.serving.export import export
from tfvid.serving.saved_model import read_signatures, versions
from tfvid.serving.warmup import WARMUP_FILE, read_warmup

VALUES = {
    "images": toy_images(2)[:, :CONTEXT],
    "seed": np.int64(-7),
    "half": np.float32([[0.5]]),
    "on": np.array([True]),
}


@pytest.fixture
def toy():
    return ServedToy(toy_hparams(), toy_spec(), seed=3)


def _assert_same(read, written):
    assert set(read) == set(written)
    for name, value in written.items():
        np.testing.assert_array_equal(read[name], value)
        assert read[name].dtype == np.asarray(value).dtype


def test_messages_are_read_as_they_were_written():
    request = messages.predict_request(VALUES, "modèle" * 50, "step")  # a length of more than one byte
    for data in (request, messages.read_prediction_log(messages.prediction_log(request))):
        model, signature, values = messages.read_predict_request(data)
        assert (model, signature) == ("modèle" * 50, "step")
        _assert_same(values, VALUES)
    _assert_same(messages.read_predict_response(messages.predict_response(VALUES)), VALUES)


@pytest.mark.parametrize("data", [b"\xff" * 20, b"\x0a\x7f", b"\x0d1234", b"\x0a"])
def test_other_bytes_are_refused(data):
    with pytest.raises(ValueError, match="expected a message of TensorFlow Serving"):
        messages.read_predict_response(data)


def test_messages_are_those_of_tensorflow_serving():
    apis = pytest.importorskip("tensorflow_serving.apis", reason='needs pip install "tfvid[serving]"')
    from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

    assert apis
    log = prediction_log_pb2.PredictionLog.FromString(
        messages.prediction_log(messages.predict_request(VALUES, "toy", "step"))
    )
    request = log.predict_log.request
    assert log.WhichOneof("log_type") == "predict_log"
    assert (request.model_spec.name, request.model_spec.signature_name) == ("toy", "step")
    _assert_same({k: tf.make_ndarray(v) for k, v in request.inputs.items()}, VALUES)
    request.model_spec.version.value = 3
    assert messages.read_predict_request(request.SerializeToString())[:2] == ("toy", "step")
    response = predict_pb2.PredictResponse(outputs=request.inputs)
    response.model_spec.version.value = 300
    _assert_same(messages.read_predict_response(response.SerializeToString()), VALUES)


def test_every_signature_is_warmed_up_by_a_request_that_runs_alone(toy, tmp_path):
    path = export(toy, str(tmp_path / "out"), model_name="toy")
    ((model, signature, values),) = read_warmup(path)
    assert (model, signature) == ("toy", "serving_default")
    assert values["images"].shape == (1, CONTEXT, SIZE, SIZE, 3) and values["images"].dtype == np.uint8
    outputs = run_alone(path, values, tmp_path)
    assert np.isfinite(outputs["images"]).all()


def test_warmup_that_fails_stops_the_export(toy, tmp_path, monkeypatch):
    def fails():
        @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")])
        def serve(x):
            tf.debugging.assert_positive(x)
            return {"y": x}

        return {"serving_default": serve}

    monkeypatch.setattr(toy, "signatures", fails)
    with pytest.raises(ValueError, match="signature serving_default: its warm-up request fails"):
        export(toy, str(tmp_path))
    assert versions(str(tmp_path)) == []
    path = export(toy, str(tmp_path), warmup=False)
    assert not os.path.exists(os.path.join(path, WARMUP_FILE))


def test_a_seed_for_each_clip_gives_each_clip_what_it_gets_alone(toy, tmp_path):
    plain = tf.saved_model.load(export(toy, str(tmp_path / "plain"))).signatures["serving_default"]
    path = export(toy, str(tmp_path / "batching"), batching=True)
    inputs = read_signatures(path)["serving_default"]["inputs"]
    assert inputs["seed"] == {"shape": [None], "dtype": "int64"}
    assert read_warmup(path)[0][2]["seed"].shape == (1,)
    request = {**request_for(path, 3), "seed": np.int64([5, 6, 5])}
    for run in (run_alone, run_c_api):
        images = run(path, request, tmp_path)["images"]
        for i in range(3):
            alone = plain(images=request["images"][i : i + 1], seed=request["seed"][i])["images"][0]
            np.testing.assert_allclose(images[i], alone, atol=1e-6)


def test_signatures_without_a_scalar_seed_stay_as_they_are():
    from tfvid.serving.batching import with_seed_for_each_clip

    step = tf.function(lambda x: {"y": x}, input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")])
    function = step.get_concrete_function()
    assert with_seed_for_each_clip(function) is function
