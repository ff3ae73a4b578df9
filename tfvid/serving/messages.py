"""TensorFlow Serving's messages, written and read byte by byte: an export needs none of its packages.

The messages and their field numbers (tensorflow_serving/apis/{model,predict,prediction_log}.proto):

    ModelSpec       name = 1, version = 2 (google.protobuf.Int64Value), signature_name = 3
    PredictRequest  model_spec = 1, inputs = 2 (map of string to TensorProto)
    PredictResponse outputs = 1 (map), model_spec = 2
    PredictLog      request = 1, response = 2
    PredictionLog   predict_log = 6

The encoding is that of protocol buffers: every field here is a string of bytes with its
length before it.
"""

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

from tfvid.serving.saved_model import SERVING_DEFAULT

_BYTES = 2  # wire type of a field with its length before it


def predict_request(values, model, signature=SERVING_DEFAULT):
    """The bytes of a PredictRequest.

    Args:
      values: {input: array}.
      model: name under which the server has the model.
      signature: name.
    """
    spec = _field(1, model.encode()) + _field(3, signature.encode())
    return _field(1, spec) + _tensor_map(2, values)


def read_predict_request(data):
    """(model, signature, {input: array}) of the bytes of a PredictRequest."""
    fields = _fields(data)
    spec = _fields(fields[1][0])
    return spec[1][0].decode(), spec[3][0].decode(), _read_tensor_map(fields.get(2, []))


def predict_response(values):
    """The bytes of a PredictResponse of {output: array}."""
    return _tensor_map(1, values)


def read_predict_response(data):
    """{output: array} of the bytes of a PredictResponse."""
    return _read_tensor_map(_fields(data).get(1, []))


def prediction_log(request):
    """The bytes of a PredictionLog that holds a PredictRequest: one record of a warm-up file."""
    return _field(6, _field(1, request))


def read_prediction_log(data):
    """The bytes of the PredictRequest in a PredictionLog."""
    return _fields(_fields(data)[6][0])[1][0]


def _tensor_map(number, values):
    entries = []
    for name in sorted(values):
        tensor = tf.make_tensor_proto(np.asarray(values[name])).SerializeToString()
        entries.append(_field(number, _field(1, name.encode()) + _field(2, tensor)))
    return b"".join(entries)


def _read_tensor_map(entries):
    result = {}
    for entry in map(_fields, entries):
        result[entry[1][0].decode()] = tf.make_ndarray(tensor_pb2.TensorProto.FromString(entry[2][0]))
    return result


def _field(number, content):
    return _varint(number << 3 | _BYTES) + _varint(len(content)) + content


def _varint(number):
    """Seven bits a byte, the lowest first, the eighth bit where more follow."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def _fields(data):
    """{field number: [bytes, ...]} of a message; ValueError for other bytes."""
    found, position = {}, 0
    while position < len(data):
        tag, position = _read_varint(data, position)
        if tag & 7 == 0:  # a number, such as a version
            value, position = _read_varint(data, position)
            found.setdefault(tag >> 3, []).append(value)
            continue
        length, position = _read_varint(data, position)
        if tag & 7 != _BYTES or position + length > len(data):
            raise ValueError(f"expected a message of TensorFlow Serving, received other bytes at {position}")
        found.setdefault(tag >> 3, []).append(bytes(data[position : position + length]))
        position += length
    return found


def _read_varint(data, position):
    number = shift = 0
    while True:
        if position >= len(data) or shift > 63:
            raise ValueError(f"expected a message of TensorFlow Serving, received other bytes at {position}")
        byte = data[position]
        number, shift, position = number | (byte & 127) << shift, shift + 7, position + 1
        if byte < 128:
            return number, position
