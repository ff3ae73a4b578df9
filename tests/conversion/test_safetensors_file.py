"""safetensors files: exact values, headers that are checked."""

import json

import numpy as np
import pytest

from tfvid.conversion import safetensors_file
from tfvid.errors import UserError


def _write(path, entries, content, header=None):
    text = json.dumps(entries).encode() if header is None else header
    path.write_bytes(len(text).to_bytes(8, "little") + text + content)
    return str(path)


def _entry(dtype, shape, start, stop):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


def test_values(tmp_path):
    a, b = np.arange(6, dtype=np.float32), np.array([1, -2], np.int64)
    bits = np.array([0x3F80, 0xC000], np.uint16)
    entries = {
        "__metadata__": {"format": "pt"},
        "a": _entry("F32", [2, 3], 0, 24), "b": _entry("I64", [2], 24, 40), "c": _entry("BF16", [2], 40, 44),
        "scalar": _entry("BOOL", [], 44, 45),
    }  # fmt: skip
    result = safetensors_file.read(
        _write(tmp_path / "f.safetensors", entries, a.tobytes() + b.tobytes() + bits.tobytes() + b"\x01")
    )
    assert list(result) == ["a", "b", "c", "scalar"]
    np.testing.assert_array_equal(result["a"], a.reshape(2, 3))
    np.testing.assert_array_equal(result["b"], b)
    np.testing.assert_array_equal(result["c"], [1.0, -2.0])
    assert result["scalar"].shape == () and result["scalar"]


@pytest.mark.parametrize(
    "entries, message",
    [
        ({"a": _entry("F32", [2, 3], 0, 20)}, "of shape"),
        ({"a": _entry("F32", [10**9, 10**9], 0, 24)}, "of shape"),
        ({"a": _entry("F32", [-1], 0, 24)}, "of shape"),
        ({"a": _entry("F32", [6], 4, 28)}, "of shape|gap"),
        ({"a": _entry("F32", [3], 0, 12), "b": _entry("F32", [4], 8, 24)}, "overlap"),
        ({"a": _entry("F32", [3], 0, 12)}, "24 bytes of tensors"),
        ({"a": _entry("F7", [6], 0, 24)}, "type 'F7'"),
        ({"a": {"dtype": "F32"}}, "without dtype"),
        ({"a": 3}, "without dtype"),
        ([1], "not a JSON object"),
    ],
)
def test_headers_that_do_not_fit(tmp_path, entries, message):
    with pytest.raises(UserError, match=rf"f\.safetensors.*({message})"):
        safetensors_file.read(_write(tmp_path / "f.safetensors", entries, bytes(24)))


def test_other_files(tmp_path):
    file = tmp_path / "f.safetensors"
    for content in (b"", b"abc", b"\xff" * 64, bytes(64)):
        file.write_bytes(content)
        with pytest.raises(UserError, match="expected a safetensors file"):
            safetensors_file.read(str(file))
    with pytest.raises(UserError, match="not JSON"):
        safetensors_file.read(_write(file, None, b"", header=b"{nonsense}"))
    with pytest.raises(UserError, match="found none"):
        safetensors_file.read(str(tmp_path / "none"))
