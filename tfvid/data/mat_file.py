"""Reads MATLAB files of version 5 to 7 (`save` without -v7.3): numeric and character arrays.

Format: MathWorks, "MAT-File Format". Cells, structures and sparse arrays are left out.
Nothing in a file is executed.
"""

import zlib

import numpy as np

from tfvid.data.records import DataError

_HEADER = 128
_LIMIT = 2**28  # bytes of one variable after decompression
_MATRIX, _COMPRESSED = 14, 15
# Types of stored numbers; those of text are read as numbers of their size.
_STORED = {
    1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8",
    16: "u1", 17: "u2", 18: "u4",
}  # fmt: skip
_CHAR = 4
_NUMERIC = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_COMPLEX = 0x08


def read_mat(content, where):
    """{name: array or str} of the content (bytes) of a file.

    Character arrays of one row come out as str, numeric ones with their MATLAB shape.

    Args:
      where: names the file in errors.
    """
    if len(content) < _HEADER or content[126:128] not in (b"IM", b"MI"):
        raise DataError(f"{where}: expected a MATLAB file of version 5 to 7")
    order = "<" if content[126:128] == b"IM" else ">"
    try:
        variables = {}
        for kind, data in _elements(content[_HEADER:], order):
            if kind == _COMPRESSED:
                unpack = zlib.decompressobj()
                inner = unpack.decompress(data, _LIMIT)
                if unpack.unconsumed_tail:
                    raise ValueError(f"a variable of more than {_LIMIT} bytes")
                ((kind, data),) = _elements(inner, order)
            if kind == _MATRIX and data:
                name, value = _matrix(data, order)
                if value is not None:
                    variables[name] = value
        return variables
    except (ValueError, KeyError, IndexError, zlib.error, UnicodeDecodeError) as e:
        raise DataError(f"{where}: damaged MATLAB file: {e}") from None


def _elements(data, order):
    """Yields (type, bytes) of each element in turn."""
    position = 0
    while position + 8 <= len(data):
        first, second = np.frombuffer(data, f"{order}u4", 2, position)
        if first >> 16:  # a small element: size and type in one word, data in the next
            kind, size, start, step = int(first & 0xFFFF), int(first >> 16), position + 4, 8
        else:
            kind, size, start = int(first), int(second), position + 8
            # Compressed elements are not padded to 8 bytes.
            step = 8 + (size if kind == _COMPRESSED else -(-size // 8) * 8)
        if start + size > len(data):
            raise ValueError(f"an element of {size} bytes reaches beyond the end")
        yield kind, data[start : start + size]
        position += step


def _matrix(data, order):
    """(name, value or None) of an array element."""
    elements = list(_elements(data, order))
    flags = int(np.frombuffer(elements[0][1], f"{order}u4")[0])
    shape = tuple(int(n) for n in np.frombuffer(elements[1][1], f"{order}i4"))
    name = elements[2][1].decode("ascii")
    kind = flags & 0xFF
    if (kind != _CHAR and kind not in _NUMERIC) or (flags >> 8) & _COMPLEX:
        return name, None
    stored, raw = elements[3]
    values = np.frombuffer(raw, order + _STORED[stored])
    if values.size != np.prod(shape, dtype=np.int64):
        raise ValueError(f"{name}: expected {shape} values, received {values.size}")
    if kind == _CHAR:
        return name, "".join(map(chr, values)) if len(shape) == 2 and shape[0] <= 1 else None
    return name, values.reshape(shape, order="F").astype(_NUMERIC[kind])
