"""A client of TensorFlow Serving for every exported model, over gRPC or REST; it needs no tfvid.

    python scripts/request.py --export_dir=exported/savp --output=request.npz     # inputs, from a clip
    python examples/serving/client.py --model=savp --inputs=request.npz --output=answer.npz
    python examples/serving/client.py --model=savp --inputs=request.npz --output=answer.npz --rest=localhost:8501

CADDY, a game of three actions (frames [1, 3, H, W, 3]); the inputs are those of the signature start:

    python scripts/request.py --export_dir=exported/caddy --signature=start --output=start.npz
    python examples/serving/client.py --model=caddy --inputs=start.npz --game=1,0,2 --output=game.npz

CAGE, with what is seen at tile (row 2, column 3) of the last given frame placed at tile (2, 5) of every new one:

    python scripts/request.py --export_dir=exported/cage --output=request.npz
    python examples/serving/client.py --model=cage --inputs=request.npz --place=2,3:2,5 --output=answer.npz

gRPC needs `pip install tensorflow-serving-api`; REST needs NumPy alone.
"""

import argparse
import json
import sys
import urllib.error
import urllib.request

import numpy as np

SERVING_DEFAULT = "serving_default"


class ServerError(Exception):
    """What the server or the way to it refused."""


class GrpcModel:
    """A served model over gRPC.

    Args:
      address: host:port, usually port 8500.
      name: of the model on the server.
      timeout: seconds to wait for an answer.
    """

    def __init__(self, address, name, timeout=300.0):
        import grpc
        from tensorflow_serving.apis import prediction_service_pb2_grpc

        # A video is larger than gRPC's usual limit of 4 MB.
        options = [(f"grpc.max_{way}_message_length", -1) for way in ("send", "receive")]
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(address, options))
        self._name, self._timeout, self._grpc = name, timeout, grpc

    def predict(self, signature, inputs):
        """{output: array} for {input: array}."""
        import tensorflow as tf

        answer = self._call(self._stub.Predict, grpc_request(self._name, signature, inputs))
        return {name: tf.make_ndarray(tensor) for name, tensor in answer.outputs.items()}

    def input_shapes(self, signature):
        """{input: [sizes, -1 for a free one]}."""
        from tensorflow_serving.apis import get_model_metadata_pb2

        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        request.model_spec.name = self._name
        answer = self._call(self._stub.GetModelMetadata, request)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        answer.metadata["signature_def"].Unpack(signatures)
        inputs = signatures.signature_def[signature].inputs
        return {name: [d.size for d in tensor.tensor_shape.dim] for name, tensor in inputs.items()}

    def _call(self, method, request):
        try:
            return method(request, self._timeout)
        except self._grpc.RpcError as e:
            raise ServerError(f"{e.code().name}: {e.details()}") from None


def grpc_request(model, signature, inputs):
    """The PredictRequest for {input: array}."""
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2

    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return request


class RestModel:
    """A served model over REST.

    Args:
      address: host:port, usually port 8501.
      name, timeout: as of `GrpcModel`.
    """

    def __init__(self, address, name, timeout=300.0):
        self._url, self._timeout, self._signatures = f"http://{address}/v1/models/{name}", timeout, None

    def predict(self, signature, inputs):
        """{output: array} for {input: array}."""
        outputs = self._call(f"{self._url}:predict", rest_body(signature, inputs))["outputs"]
        if not isinstance(outputs, dict):  # a single output comes without its name
            (name,) = self._signature(signature)["outputs"]
            outputs = {name: outputs}
        return {name: _array(value) for name, value in outputs.items()}

    def input_shapes(self, signature):
        """{input: [sizes, -1 for a free one]}."""
        shapes = {k: v["tensor_shape"].get("dim", []) for k, v in self._signature(signature)["inputs"].items()}
        return {name: [int(d["size"]) for d in shape] for name, shape in shapes.items()}

    def _signature(self, name):
        if self._signatures is None:
            answer = self._call(f"{self._url}/metadata")
            self._signatures = answer["metadata"]["signature_def"]["signature_def"]
        return self._signatures[name]

    def _call(self, url, body=None):
        try:
            with urllib.request.urlopen(url, body, self._timeout) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as e:
            raise ServerError(f"{url}: {e.read().decode(errors='replace')[:500]}") from None
        except OSError as e:
            raise ServerError(f"{url}: {getattr(e, 'reason', e)}") from None


def rest_body(signature, inputs):
    """The JSON body for {input: array}: the column form, since a seed is one number for all clips."""
    columns = {name: np.asarray(value).tolist() for name, value in inputs.items()}
    return json.dumps({"signature_name": signature, "inputs": columns}).encode()


def _array(value):
    array = np.asarray(value)
    return array.astype(np.float32) if array.dtype == np.float64 else array


def play(model, images, actions):
    """A game of CADDY: the start frames, then one frame for each action.

    Args:
      model: a `GrpcModel` or `RestModel`.
      images: [1, S, H, W, 3] in [0, 1].
      actions: integers.

    Returns:
      {"images": [1, len(actions), H, W, 3]}.
    """
    state = model.predict("start", {"images": images})
    width = model.input_shapes("step")["variation"][1]
    variation = np.zeros([1, width], images.dtype)  # the action's usual form
    frames = []
    for action in actions:
        outputs = model.predict("step", {"action": np.int32([action]), "variation": variation, **state})
        frames.append(outputs.pop("frame"))
        state = outputs
    return {"images": np.stack(frames, axis=1)}


def compose(model, inputs, places):
    """A video of CAGE with features of the last given frame placed at tiles of every new frame.

    Args:
      inputs: of serving_default; `controls` [1, T, h, w, d] and `control_masks` [1, T, h, w, 1] are changed.
      places: [((row, column) in the given frame, (row, column) in the new ones)].
    """
    features = model.predict("features", {"images": inputs["images"]})["features"]  # [1, t, h, w, d]
    controls, masks = inputs["controls"].copy(), inputs["control_masks"].copy()
    for (row, column), (new_row, new_column) in places:
        controls[:, :, new_row, new_column] = features[:, -1, row, column][:, None]
        masks[:, :, new_row, new_column] = 1
    return model.predict(SERVING_DEFAULT, {**inputs, "controls": controls, "control_masks": masks})


def _place(text):
    """ "2,3:2,5" -> ((2, 3), (2, 5))."""
    (source, target) = (tuple(int(v) for v in part.split(",")) for part in text.split(":"))
    if len(source) != 2 or len(target) != 2:
        raise ValueError
    return source, target


def _integers(text):
    return [int(v) for v in text.split(",")]


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Asks TensorFlow Serving for a video.", allow_abbrev=False)
    parser.add_argument("--model", required=True, help="name on the server")
    parser.add_argument("--inputs", required=True, help=".npz file of the inputs; scripts/request.py writes it")
    parser.add_argument("--output", required=True, help=".npz file to write")
    parser.add_argument("--signature", default=SERVING_DEFAULT, help="signature to call")
    parser.add_argument("--grpc", default="localhost:8500", help="address of the gRPC interface")
    parser.add_argument("--rest", help="address of the REST interface, to use instead")
    parser.add_argument("--game", type=_integers, help="CADDY: actions to play, as in 1,0,2")
    parser.add_argument(
        "--place", type=_place, action="append", help="CAGE: ROW,COLUMN:ROW,COLUMN, from where to where"
    )
    options = parser.parse_args(arguments)
    try:
        with np.load(options.inputs, allow_pickle=False) as f:
            inputs = dict(f)
        model = RestModel(options.rest, options.model) if options.rest else GrpcModel(options.grpc, options.model)
        if options.game:
            outputs = play(model, inputs["images"], options.game)
        elif options.place:
            outputs = compose(model, inputs, options.place)
        else:
            outputs = model.predict(options.signature, inputs)
    except (ServerError, OSError) as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    except ImportError as e:
        print(f"error: {e}; pip install tensorflow-serving-api, or use --rest", file=sys.stderr)
        return 1
    np.savez_compressed(options.output, **outputs)
    for name, value in outputs.items():
        print(f"{options.output}: {name} {value.dtype} {list(value.shape)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
