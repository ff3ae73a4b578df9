"""Reads safetensors files (Hugging Face): a JSON header with names, types, shapes and offsets, then the bytes."""

import json

import numpy as np
import tensorflow as tf

from tfvid.errors import UserError

_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?",
}  # fmt: skip
_HEADER_LIMIT = 100_000_000  # bytes, the format's own limit


def read(path):
    """{name: read-only np.ndarray}; memory-mapped where the file is local, BF16 as float32.

    Raises:
      UserError: missing, of another kind, truncated, or with a header that does not fit the bytes.
    """
    if not tf.io.gfile.exists(path) or tf.io.gfile.isdir(path):
        raise UserError(f"{path}: expected a safetensors file, found none")
    if "://" in path:
        with tf.io.gfile.GFile(path, "rb") as f:
            data = np.frombuffer(f.read(), np.uint8)
    else:
        data = np.memmap(path, np.uint8, mode="r") if tf.io.gfile.stat(path).length else np.zeros(0, np.uint8)
    try:
        return _tensors(data)
    except _Damaged as e:
        raise UserError(f"{path}: expected a safetensors file, received: {e}") from None


class _Damaged(ValueError):
    """What is wrong with the file."""


def _tensors(data):
    length = int.from_bytes(data[:8].tobytes(), "little")
    if len(data) < 8 or not 2 <= length <= min(_HEADER_LIMIT, len(data) - 8):
        raise _Damaged(f"a file of {len(data)} bytes without a header")
    try:
        header = json.loads(data[8 : 8 + length].tobytes().decode("utf-8"))
    except (ValueError, RecursionError):
        raise _Damaged("a header that is not JSON") from None
    if not isinstance(header, dict):
        raise _Damaged("a header that is not a JSON object")
    header.pop("__metadata__", None)
    content = data[8 + length :]
    spans, tensors = [], {}
    for name, entry in header.items():
        tensors[name], span = _tensor(name, entry, content)
        spans.append(span)
    end = 0
    for start, stop in sorted(spans):
        if start != end:
            raise _Damaged(f"tensors that overlap or leave a gap at byte {end}")
        end = stop
    if end != len(content):
        raise _Damaged(f"{len(content)} bytes of tensors where the header describes {end}")
    return tensors


def _tensor(name, entry, content):
    try:
        code, shape, (start, stop) = entry["dtype"], entry["shape"], entry["data_offsets"]
    except (TypeError, KeyError, ValueError):
        raise _Damaged(f"tensor {name!r} without dtype, shape and data_offsets") from None
    if code not in _DTYPES:
        raise _Damaged(f"tensor {name!r} of type {code!r}; known: {', '.join(_DTYPES)}")
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in (*shape, start, stop)):
        raise _Damaged(f"tensor {name!r} of shape {shape!r} at {start!r} to {stop!r}")
    count = 1
    for n in shape:
        count *= n
    dtype = np.dtype(_DTYPES[code])
    if stop - start != count * dtype.itemsize or stop > len(content):
        raise _Damaged(f"tensor {name!r} of shape {shape} at bytes {start} to {stop} of {len(content)}")
    value = np.asarray(content[start:stop]).view(dtype).reshape(shape)
    if code == "BF16":
        value = (value.astype(np.uint32) << 16).view(np.float32)
    return value, (start, stop)
