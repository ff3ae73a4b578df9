"""Warm-up requests: TensorFlow Serving runs them before it takes a version's first request.

They lie in `assets.extra/tf_serving_warmup_requests`, a TFRecord file of PredictionLog
messages, one for each signature: what TensorFlow does at a first call (allocation, choice
of kernels, constant folding) is then done while the version before still serves.
"""

import os

import numpy as np
import tensorflow as tf

from tfvid.serving import messages

WARMUP_FILE = os.path.join("assets.extra", "tf_serving_warmup_requests")


def example_inputs(inputs, batch=1):
    """Inputs that a signature takes: grey frames, zeros; a free dimension is of size `batch`.

    Args:
      inputs: {name: {"shape", "dtype"}} of the signature.
    """
    values = {}
    for name, tensor in inputs.items():
        shape = [batch if size is None else size for size in tensor["shape"]]
        grey = {"uint8": 128}.get(tensor["dtype"], 0.5) if name == "images" else 0
        values[name] = np.full(shape, grey, tensor["dtype"])
    return values


def write_warmup(path, signatures, functions, model_name):
    """Writes the warm-up file of a version, after each request has been run once.

    A server does not load a version whose warm-up fails, so that one is an error here.

    Args:
      path: the version's folder.
      signatures: {name: {"inputs", "outputs"}} as `read_signatures` gives them.
      functions: {name: concrete function}.
      model_name: name of the model in the requests; the server does not compare it.

    Raises:
      ValueError: a signature does not run on its example.
    """
    target = os.path.join(path, WARMUP_FILE)
    tf.io.gfile.makedirs(os.path.dirname(target))
    with tf.io.TFRecordWriter(target) as writer:
        for name in sorted(signatures):
            values = example_inputs(signatures[name]["inputs"])
            try:
                functions[name](**{k: tf.constant(v) for k, v in values.items()})
            except tf.errors.OpError as e:
                raise ValueError(f"signature {name}: its warm-up request fails: {e.message}") from e
            writer.write(messages.prediction_log(messages.predict_request(values, model_name, name)))


def read_warmup(path):
    """[(model, signature, {input: array})] of a version's warm-up file."""
    records = tf.data.TFRecordDataset(os.path.join(path, WARMUP_FILE)).as_numpy_iterator()
    return [messages.read_predict_request(messages.read_prediction_log(r)) for r in records]
