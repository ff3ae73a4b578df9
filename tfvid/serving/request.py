"""Requests to TensorFlow Serving's REST interface: built from a clip, checked against the exported signature.

The body is the column form, `{"signature_name": ..., "inputs": {name: value}}`: each
input once, with its batch axis, since `seed` is one number for the whole request.
"""

import http.client
import json
import os
import re
import urllib.error
import urllib.request

import numpy as np

from tfvid.errors import UserError
from tfvid.serving.saved_model import SERVING_DEFAULT, read_signatures, versions

# Inputs that no data set has and that may be zeros: nothing is placed.
ZEROS_IF_MISSING = ("controls", "control_masks")


def version_folder(path):
    """`path` itself where it holds a SavedModel, else its highest version's folder."""
    there = versions(path)
    return os.path.join(path, str(there[-1])) if there else path


def inputs_of_clip(inputs, batch, seed, given=None):
    """The inputs of a signature from a batch of the data pipeline.

    Args:
      inputs: {name: {"shape", "dtype"}} of the signature.
      batch: {key: array with batch axis}; images uint8, longer in time than needed or as long.
      seed: integer.
      given: {name: values} that are no part of the data, such as the actions of a player.

    Returns:
      {name: array}, cut to the signature's lengths; images in [0, 1] where it takes floats.
    """
    result, given = {}, given or {}
    for name, tensor in inputs.items():
        if name in given:
            result[name] = np.asarray(given[name], tensor["dtype"])
            continue
        if name in ZEROS_IF_MISSING and name not in batch:
            result[name] = np.zeros([size or len(batch["images"]) for size in tensor["shape"]], tensor["dtype"])
            continue
        if name == "seed":
            result[name] = np.full([d or 1 for d in tensor["shape"]], seed, tensor["dtype"])
            continue
        if name not in batch:
            raise UserError(f"request: expected {', '.join(sorted(inputs))} in the data. Received no {name}")
        value = np.asarray(batch[name])
        if value.dtype == np.uint8 and tensor["dtype"].startswith("float"):
            value = value.astype(tensor["dtype"]) / 255
        wanted = tensor["shape"]
        if value.ndim != len(wanted):
            raise UserError(f"request: {name}: expected {len(wanted)} axes. Received: shape {list(value.shape)}")
        result[name] = value[tuple(slice(0, size) for size in wanted)].astype(tensor["dtype"])
    check_inputs(inputs, result)
    return result


def check_inputs(inputs, values):
    """Raises UserError unless `values` are what the signature takes."""
    if set(values) != set(inputs):
        wanted, received = (", ".join(sorted(names)) for names in (inputs, values))
        raise UserError(f"request: expected the inputs {wanted}. Received: {received}")
    batches = set()
    for name, tensor in inputs.items():
        value = np.asarray(values[name])
        fits = value.ndim == len(tensor["shape"]) and all(
            size in (None, have) for size, have in zip(tensor["shape"], value.shape)
        )
        if not fits or str(value.dtype) != tensor["dtype"]:
            shape = [size or "batch" for size in tensor["shape"]]
            raise UserError(
                f"request: {name}: expected {tensor['dtype']} {shape}."
                f" Received: {value.dtype} {list(value.shape)}"
            )
        if tensor["shape"] and tensor["shape"][0] is None:
            batches.add(value.shape[0])
    if len(batches) > 1:
        raise UserError(f"request: expected one batch size. Received: {sorted(batches)}")


def body(values, signature=SERVING_DEFAULT):
    """The JSON text of a request."""
    return json.dumps({"signature_name": signature, "inputs": {k: np.asarray(v).tolist() for k, v in values.items()}})


def build(model_dir, batch, seed, signature=SERVING_DEFAULT):
    """The JSON text for an exported model and a batch; arguments as of `inputs_for`."""
    return body(inputs_for(model_dir, batch, seed, signature), signature)


def inputs_for(model_dir, batch, seed, signature=SERVING_DEFAULT, given=None):
    """{input: array} for an exported model and a batch.

    Args:
      model_dir: folder of a version, or of all versions.
      batch, seed, given: see `inputs_of_clip`.
      signature: name.
    """
    signatures = read_signatures(version_folder(model_dir))
    if signature not in signatures:
        raise UserError(f"--signature: expected one of {', '.join(signatures)}. Received: {signature!r}")
    return inputs_of_clip(signatures[signature]["inputs"], batch, seed, given)


def send(url, text, timeout=300):
    """Sends a request; {output: array} of the answer.

    Args:
      url: as in http://localhost:8501/v1/models/savp:predict.
      text: JSON text of the request.
      timeout: seconds to wait.
    """
    if not re.match("https?://.", url):
        raise UserError(f"--url: expected http://HOST:PORT/v1/models/NAME:predict. Received: {url!r}")
    request = urllib.request.Request(url, text.encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            answer = json.loads(response.read())
    except urllib.error.HTTPError as e:
        raise UserError(f"{url}: the server refused the request: {e.read().decode(errors='replace')[:300]}") from None
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ValueError) as e:
        raise UserError(f"{url}: expected a TensorFlow Serving REST server: {getattr(e, 'reason', e)}") from None
    outputs = answer.get("outputs") if isinstance(answer, dict) else None
    if outputs is None:
        raise UserError(f"{url}: expected an answer with outputs. Received: {str(answer)[:300]}")
    # A single output comes without its name.
    outputs = outputs if isinstance(outputs, dict) else {"images": outputs}
    return {name: np.asarray(value) for name, value in outputs.items()}
