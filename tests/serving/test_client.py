"""The example client: its own messages, decoded and run on the SavedModel in a process without tfvid."""

import concurrent.futures
import contextlib
import http.server
import importlib.util
import json
import pathlib
import threading

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from tests.models import ag2vid_tiny, cage_tiny
from tests.serving.harness import request_for, run_alone
from tests.serving.test_export import ServedToy
from tests.toy_model import toy_hparams, toy_images, toy_spec
from tfvid import models
from tfvid.serving import messages, request
from tfvid.serving.export import export
from tfvid.serving.saved_model import read_signatures
from tfvid.serving.warmup import read_warmup

ROOT = pathlib.Path(__file__).parents[2]
needs_serving = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow_serving") is None, reason='needs pip install "tfvid[serving]"'
)


def _client():
    spec = importlib.util.spec_from_file_location("client", ROOT / "examples" / "serving" / "client.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


client = _client()

VIDEO = {"images": tf.TensorSpec([8, 32, 32, 3], tf.uint8)}
SMALL = {"images": tf.TensorSpec([4, 16, 32, 3], tf.uint8)}
ROBOT = {**VIDEO, "actions": tf.TensorSpec([7, 4], tf.float32), "states": tf.TensorSpec([8, 3], tf.float32)}
POSES = {
    "images": tf.TensorSpec([8, 64, 64, 3], tf.uint8), "poses": tf.TensorSpec([8, 13, 2], tf.float32),
    "pose_visible": tf.TensorSpec([8, 13], tf.bool), "action_class": tf.TensorSpec([], tf.int32),
    "frame_step": tf.TensorSpec([], tf.int32),
}  # fmt: skip
LENGTHS = "context_frames=2,sequence_length=6,long_sequence_length=6"
CADDY = (
    "context_frames=1,sequence_length=4,observations_count_start=3,actions_count=3,state_features=8,"
    "hidden_state_size=8,observation_stacking=2,perceptual_loss_lambda=0,perceptual_loss_lambda_pretraining=0"
)
CAGE = (
    "autoencoder_width=32,vit_shape=[16,1,1,4,8],inner_dim=16,num_heads=2,fc_dim=16,depth=2,mid_depth=1,num_steps=2,"
    "sequence_length=4,long_sequence_length=4"
)
# Model -> (hparams file, overrides, spec of the data), or a function that builds it.
TINY = {
    "savp": (None, f"{LENGTHS},ngf=4,nef=4,ndf=4,nz=2", ROBOT),
    "repeat": (None, LENGTHS, VIDEO),
    "caddy": (None, CADDY, SMALL),
    "cage": ("hparams/demo/cage.json", CAGE, VIDEO),
    "actvae": ("hparams/demo/actvae.json", "", POSES),
    "actvae_p2i": ("hparams/demo/actvae_p2i.json", "", POSES),
    "ag2vid": ag2vid_tiny.build,
    "cage_autoencoder": cage_tiny.autoencoder,
    "sna": (None, LENGTHS, ROBOT),
    "sv2p": (None, LENGTHS, VIDEO),
    "dna": (None, LENGTHS, ROBOT),
}
QUICK = ("repeat",)


def _exported(name, folder, batching=False):
    if callable(TINY[name]):
        model = TINY[name]()
    else:
        file, overrides, spec = TINY[name]
        hparams = models.model_class(name).HPARAMS.load(file and str(ROOT / file), overrides)
        model = models.build(name, hparams, spec, seed=1, trainable=False)
    return export(model, str(folder / name), model_name=name, batching=batching)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Function: name of a model -> folder of its export, made once."""
    made, folder = {}, tmp_path_factory.mktemp("exported")

    def get(name):
        if name not in made:
            made[name] = _exported(name, folder)
        return made[name]

    return get


def _decoded_rest(body, signatures):
    """(signature, inputs) as the server makes them of a body."""
    message = json.loads(body)
    inputs = signatures[message["signature_name"]]["inputs"]
    return message["signature_name"], {k: np.array(v, inputs[k]["dtype"]) for k, v in message["inputs"].items()}


def test_every_model_is_here():
    assert set(TINY) == set(models.MODELS)


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(n, marks=pytest.mark.slow) for n in TINY if n not in QUICK)])
def test_messages_run_on_the_saved_model_of_every_method(name, exported, tmp_path):
    path = exported(name)
    signatures = read_signatures(path)
    for signature in signatures:
        inputs = request_for(path, 1, seed=3, signature=signature)
        got, values = _decoded_rest(client.rest_body(signature, inputs), signatures)
        assert got == signature
        if importlib.util.find_spec("tensorflow_serving"):
            by_rest, data = values, client.grpc_request(name, signature, inputs).SerializeToString()
            model, got, values = messages.read_predict_request(data)
            assert (model, got) == (name, signature) and by_rest.keys() == values.keys()
            for key, value in values.items():
                np.testing.assert_array_equal(by_rest[key], value)  # JSON keeps every bit of a float32
        outputs = run_alone(path, values, tmp_path, signature)
        for key, value in Served(path, name).run(signature, inputs).items():
            np.testing.assert_allclose(outputs[key], value, rtol=1e-4, atol=1e-5, err_msg=key)


def test_warmup_has_every_signature(exported):
    path = exported("caddy")
    assert [signature for _, signature, _ in read_warmup(path)] == ["serving_default", "start", "step"]


# Stand-ins for the server: its two interfaces over the exported graph.


class Served:
    """The signatures of an export, called with arrays."""

    def __init__(self, path, name):
        self.path, self.name, self.signatures = path, name, read_signatures(path)
        self._loaded = tf.saved_model.load(path)

    def run(self, signature, inputs):
        outputs = self._loaded.signatures[signature](**{k: tf.constant(v) for k, v in inputs.items()})
        return {k: v.numpy() for k, v in outputs.items()}

    def metadata(self):
        def table(tensors):
            return {
                k: {"tensor_shape": {"dim": [{"size": str(-1 if s is None else s)} for s in t["shape"]]}}
                for k, t in tensors.items()
            }

        both = {n: {k: table(v) for k, v in s.items()} for n, s in self.signatures.items()}
        return {"metadata": {"signature_def": {"signature_def": both}}}


@contextlib.contextmanager
def rest_server(served):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self._answer(200, served.metadata())

        def do_POST(self):
            signature, inputs = _decoded_rest(self.rfile.read(int(self.headers["Content-Length"])), served.signatures)
            if not self.path.endswith(f"/models/{served.name}:predict"):
                return self._answer(404, {"error": "Servable not found"})
            outputs = {k: v.tolist() for k, v in served.run(signature, inputs).items()}
            self._answer(200, {"outputs": outputs if len(outputs) > 1 else next(iter(outputs.values()))})

        def _answer(self, status, value):
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(value).encode())

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def grpc_server(served):
    import grpc
    from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2, prediction_service_pb2_grpc

    class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request, context):
            if request.model_spec.name != served.name:
                context.abort(grpc.StatusCode.NOT_FOUND, "Servable not found")
            inputs = {k: tf.make_ndarray(v) for k, v in request.inputs.items()}
            answer = predict_pb2.PredictResponse()
            for name, value in served.run(request.model_spec.signature_name, inputs).items():
                answer.outputs[name].CopyFrom(tf.make_tensor_proto(value))
            return answer

        def GetModelMetadata(self, request, context):
            table = get_model_metadata_pb2.SignatureDefMap()
            saved = saved_model_pb2.SavedModel.FromString((pathlib.Path(served.path) / "saved_model.pb").read_bytes())
            for name, signature in saved.meta_graphs[0].signature_def.items():
                table.signature_def[name].CopyFrom(signature)
            answer = get_model_metadata_pb2.GetModelMetadataResponse()
            answer.metadata["signature_def"].Pack(table)
            return answer

    server = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Service(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None)


INTERFACES = [
    pytest.param((rest_server, client.RestModel), id="rest"),
    pytest.param((grpc_server, client.GrpcModel), id="grpc", marks=needs_serving),
]


@pytest.mark.parametrize("interface", INTERFACES)
def test_a_game_of_caddy(interface, exported):
    server, model = interface
    served = Served(exported("caddy"), "caddy")
    images = np.random.default_rng(0).uniform(0, 1, [1, 2, 16, 32, 3]).astype("float32")
    with server(served) as address:
        frames = client.play(model(address, "caddy"), images, [1, 0, 2])["images"]
    state, expected = served.run("start", {"images": images}), []
    for action in (1, 0, 2):
        width = served.signatures["step"]["inputs"]["variation"]["shape"][1]
        inputs = {"action": np.int32([action]), "variation": np.zeros([1, width], "float32"), **state}
        state = served.run("step", inputs)
        expected.append(state.pop("frame"))
    np.testing.assert_allclose(frames, np.stack(expected, axis=1), atol=1e-5)


@pytest.mark.parametrize("interface", INTERFACES)
def test_controls_of_cage(interface, exported):
    server, model = interface
    path = exported("cage")
    served = Served(path, "cage")
    clip = {"images": np.random.default_rng(0).integers(0, 256, [1, 8, 32, 32, 3], np.uint8)}
    inputs = request.inputs_for(path, clip, 5)
    assert not inputs["controls"].any() and not inputs["control_masks"].any()
    with server(served) as address:
        images = client.compose(model(address, "cage"), inputs, [((2, 3), (4, 5))])["images"]
    features = served.run("features", {"images": inputs["images"]})["features"]
    inputs["controls"][:, :, 4, 5] = features[:, -1:, 2, 3]
    inputs["control_masks"][:, :, 4, 5] = 1
    np.testing.assert_allclose(images, served.run("serving_default", inputs)["images"], atol=1e-4)


@pytest.mark.parametrize("interface", INTERFACES)
def test_command(interface, tmp_path, capsys):
    server, _ = interface
    path = export(ServedToy(toy_hparams(), toy_spec(), seed=3), str(tmp_path / "toy"))
    inputs = request.inputs_for(path, {"images": toy_images(1)}, 5)
    np.savez(tmp_path / "in.npz", **inputs)
    flag = "--rest" if server is rest_server else "--grpc"
    files = ["--inputs", str(tmp_path / "in.npz"), "--output", str(tmp_path / "out.npz")]
    served = Served(path, "toy")
    with server(served) as address:
        assert client.main(["--model=toy", f"{flag}={address}", *files]) == 0
        assert client.main(["--model=other", f"{flag}={address}", *files]) == 1
    assert client.main(["--model=toy", f"{flag}={address}", *files]) == 1  # nobody there
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2 and "Servable not found" in errors[0] and all(e.startswith("error: ") for e in errors)
    with np.load(tmp_path / "out.npz") as f:
        np.testing.assert_allclose(f["images"], served.run("serving_default", inputs)["images"], atol=1e-6)


def test_actions_of_a_player_come_from_the_user(exported):
    path = exported("caddy")
    clip = {"images": np.zeros([1, 4, 16, 32, 3], np.uint8)}
    inputs = request.inputs_for(path, clip, 0, given={"actions": [[1, 0, 2]]})
    assert inputs["actions"].dtype == np.int32 and inputs["actions"].tolist() == [[1, 0, 2]]
    with pytest.raises(request.UserError, match="actions: expected int32 .* Received: int32 .1, 2"):
        request.inputs_for(path, clip, 0, given={"actions": [[1, 0]]})
