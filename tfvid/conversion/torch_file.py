"""Reads files written by `torch.save`, without PyTorch and without executing anything in them.

Both formats, the zip archive (torch 1.6 and later) and the older stream of pickles, and
the archive of `torch.jit.save`, whose modules come out as dictionaries of what they hold.
Tensors come out as NumPy arrays, memory-mapped where the file is local; everything
around them (nested dictionaries, lists, numbers, strings) as it is.
"""

import dataclasses
import zipfile
import zlib

import numpy as np
import tensorflow as tf

from tfvid.conversion.pickle_reader import Name, Opaque, PickleError, read_pickle
from tfvid.errors import UserError

# PyTorch's name of an element type -> NumPy's; bfloat16 has none and is widened to float32.
_DTYPES = {
    "float64": "f8", "double": "f8", "float32": "f4", "float": "f4", "float16": "f2", "half": "f2",
    "bfloat16": "bfloat16", "complex64": "c8", "complex128": "c16", "int64": "i8", "long": "i8", "int32": "i4",
    "int": "i4", "int16": "i2", "short": "i2", "int8": "i1", "uint8": "u1", "uint16": "u2", "uint32": "u4",
    "uint64": "u8", "bool": "?",
}  # fmt: skip
_STORAGES = {
    "Float": "f4", "Double": "f8", "Half": "f2", "BFloat16": "bfloat16", "Long": "i8", "Int": "i4", "Short": "i2",
    "Char": "i1", "Byte": "u1", "Bool": "?", "ComplexFloat": "c8", "ComplexDouble": "c16",
}  # fmt: skip
_STORAGE_NAMES = {f"torch.{where}{k}Storage": v for k, v in _STORAGES.items() for where in ("", "cuda.")}
_STORAGE_NAMES["torch.storage.UntypedStorage"] = "u1"
_DTYPE_NAMES = {f"torch.{k}": v for k, v in _DTYPES.items()}

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_PICKLE_LIMIT = 256 * 2**20  # bytes of the pickle in a zip archive, tensors not counted
# Modules of a TorchScript archive are objects of classes that its own (never read) code defines.
_SCRIPTED = "__torch__"
_EXPANDED_LIMIT = 2**27  # elements of a tensor that repeats its storage (stride 0)


def read(path, opaque=()):
    """Reads a file of `torch.save`.

    Args:
      path: a local path or a URL of `tf.io.gfile`.
      opaque: full names, or prefixes of them, of globals that may stand in the file and
        come out as `Opaque` placeholders (a training framework's own objects beside the
        weights). Everything else that is no tensor and no plain container is refused.

    Returns:
      What was saved, with a read-only np.ndarray for each tensor. Tensors that share a
      storage share memory. bfloat16 comes out as float32.

    Raises:
      UserError: the file is missing, of another kind, damaged, or names something that
        is not allowed.
    """
    data = _file_bytes(path)
    try:
        if bytes(data[:4]) == b"PK\x03\x04":
            return _read_zip(_BytesIO(data), data, tuple(opaque))
        return _read_legacy(_BytesIO(data), data, tuple(opaque))
    except PickleError as e:
        raise UserError(f"{path}: cannot read it as a PyTorch file: {e}") from None
    except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError) as e:
        raise UserError(f"{path}: cannot read it as a PyTorch file: damaged or truncated zip archive ({e})") from None


def flatten_state(state):
    """{name: array} of a state dictionary, without DataParallel's `module.` where every name has it."""
    tensors = flatten(state)
    if all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): array for name, array in tensors.items()}
    return tensors


def flatten(value, separator="."):
    """{joined keys: array} of every array in nested dicts and lists; the rest is left out.

    A state dict inside `{"model": ...}` comes out as "model.<name>".
    """
    flat, visited = {}, 0
    pending = [("", value, 0)]
    while pending:
        prefix, item, depth = pending.pop()
        visited += 1
        if depth > 64 or visited > 2**22:
            raise UserError(
                "expected nested dictionaries of tensors, received a structure that is too deep or too large"
            )
        if isinstance(item, np.ndarray):
            flat[prefix] = item
            continue
        items = item.items() if isinstance(item, dict) else enumerate(item) if isinstance(item, (list, tuple)) else ()
        pending.extend((f"{prefix}{separator}{k}" if prefix else str(k), v, depth + 1) for k, v in items)
    return flat


def _file_bytes(path):
    """The file as a uint8 array: memory-mapped where it is local."""
    if not tf.io.gfile.exists(path):
        raise UserError(f"{path}: expected a PyTorch file, found none")
    if tf.io.gfile.isdir(path):
        raise UserError(f"{path}: expected a PyTorch file, received a directory")
    if tf.io.gfile.stat(path).length == 0:
        raise UserError(f"{path}: expected a PyTorch file, received an empty one")
    if "://" in path:
        with tf.io.gfile.GFile(path, "rb") as f:
            return np.frombuffer(f.read(), np.uint8)
    return np.memmap(path, np.uint8, mode="r")


class _BytesIO:
    """A read-only binary file over a uint8 array: nothing is copied but what is read."""

    def __init__(self, data):
        self._data, self._position = data, 0

    def seekable(self):
        return True

    def tell(self):
        return self._position

    def seek(self, offset, whence=0):
        start = {0: 0, 1: self._position, 2: len(self._data)}[whence]
        if start + offset < 0:
            raise OSError("a position before the start of the file")
        self._position = start + offset
        return self._position

    def read(self, size=-1):
        end = len(self._data) if size is None or size < 0 else min(self._position + size, len(self._data))
        result = self._data[self._position : end].tobytes()
        self._position += len(result)
        return result

    def readline(self):
        """A line with its end; the lines of a pickle are short names and numbers."""
        window = self._data[self._position : self._position + 4096].tobytes()
        end = window.find(b"\n") + 1
        self._position += end or len(window)
        return window[: end or None]


@dataclasses.dataclass(frozen=True)
class _Storage:
    """The elements that tensors are views of."""

    data: np.ndarray  # uint8
    dtype: str  # a value of _DTYPES
    big_endian: bool

    def as_type(self, dtype):
        raw = np.dtype("u2" if dtype == "bfloat16" else dtype)
        if len(self.data) % raw.itemsize:
            raise PickleError(f"a storage of {len(self.data)} bytes does not hold elements of {raw.itemsize} bytes")
        return self.data.view(raw.newbyteorder(">" if self.big_endian else "<"))


def _itemsize(dtype):
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize


def _constructors(build):
    """The only names that may be called; `build(storage, offset, size, stride, dtype)` makes a tensor."""

    def tensor(storage, offset, size, stride, *_):
        return build(storage, offset, size, stride, storage.dtype)

    def tensor_v3(storage, offset, size, stride, requires_grad, hooks, dtype, *_):
        return build(storage, offset, size, stride, _DTYPE_NAMES[dtype.path])

    return {
        "torch._utils._rebuild_tensor": tensor,
        "torch._utils._rebuild_tensor_v2": tensor,
        "torch._utils._rebuild_tensor_v3": tensor_v3,
        "torch._utils._rebuild_parameter": lambda data, *_: data,
        "torch._utils._rebuild_parameter_with_state": lambda data, *_: data,
        "collections.OrderedDict": lambda items=(): dict(items),
        "collections.Counter": lambda items=(): dict(items),
        # How protocol 2 writes sets and bytes.
        **dict.fromkeys(("__builtin__.set", "builtins.set"), lambda items=(): set(items)),
        "_codecs.encode": lambda text, codec: text.encode({"latin1": "latin1"}[codec]),
        "torch.Size": lambda items=(): tuple(items),
        "torch.device": lambda kind, index=None: kind if index is None else f"{kind}:{index}",
    }


_NAMES = (*_STORAGE_NAMES, *_DTYPE_NAMES)
# How torch.jit writes lists of one type; the type itself is not needed.
_SCRIPTED_LISTS = {
    f"torch.jit._pickle.{name}": lambda items, *_: items
    for name in ("build_intlist", "build_tensorlist", "build_doublelist", "build_boollist", "restore_type_tag")
}


def _persistent_id(pid):
    """Checks a reference to a storage; returns (dtype, key, number of elements, view or None)."""
    if not isinstance(pid, tuple) or len(pid) not in (5, 6) or pid[0] != "storage" or not isinstance(pid[1], Name):
        raise PickleError(f"an unknown reference to data: {str(pid)[:80]}")
    dtype = _STORAGE_NAMES.get(pid[1].path)
    key, count = str(pid[2]), pid[4]
    if dtype is None or not isinstance(count, int) or count < 0:
        raise PickleError(f"an unknown reference to data: {str(pid)[:80]}")
    return dtype, key, count, pid[5] if len(pid) == 6 else None


def _build_tensor(storage, offset, size, stride, dtype):
    """A read-only view of the storage, checked against its bounds; a copy for bfloat16."""
    elements = storage.as_type(dtype)
    size, stride = tuple(size), tuple(stride)
    numbers = (offset, *size, *stride)
    if not all(type(n) is int and n >= 0 for n in numbers) or len(size) != len(stride) or len(size) > 32:
        raise PickleError(f"a tensor of impossible size {size}, stride {stride}, offset {offset}")
    count = 1
    for n in size:
        count *= n
    last = offset + sum((n - 1) * s for n, s in zip(size, stride)) if count else offset
    if (count and last >= len(elements)) or offset > len(elements):
        raise PickleError(f"a tensor of size {size} needs element {last} of a storage of {len(elements)}")
    if count > max(len(elements), _EXPANDED_LIMIT):
        raise PickleError(f"a tensor of size {size} from a storage of {len(elements)} elements")
    start = elements[offset:] if count else elements[:0]
    strides = tuple(s * elements.itemsize for s in stride)
    # A tensor without elements has no memory to point into.
    view = np.lib.stride_tricks.as_strided(start, size, strides, writeable=False) if count else start.reshape(size)
    view = np.asarray(view)  # memmap -> ndarray, the same memory
    if dtype == "bfloat16":
        return (view.astype(np.uint32) << 16).view(np.float32)
    return view if view.dtype.isnative else view.astype(view.dtype.newbyteorder("="))


# The zip archive.


def _read_zip(stream, data, opaque):
    with zipfile.ZipFile(stream) as archive:
        entries = {e.filename: e for e in archive.infolist()}
    if len(entries) != len(archive.infolist()):
        raise PickleError("a zip archive with two entries of one name")
    pickles = [name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        raise PickleError("a zip archive without <name>/data.pkl, which torch.save writes")
    root = pickles[0][: -len("data.pkl")]
    big_endian = f"{root}byteorder" in entries and _zip_entry(data, entries[f"{root}byteorder"]).tobytes() == b"big"
    storages = {}

    def load_storage(pid):
        dtype, key, count, _ = _persistent_id(pid)
        if key not in storages:
            name = f"{root}data/{key}"
            if name not in entries:
                raise PickleError(f"the zip archive has no entry {name!r}")
            content = _zip_entry(data, entries[name])
            if len(content) != count * _itemsize(dtype):
                raise PickleError(
                    f"entry {name!r}: expected {count} elements of {_itemsize(dtype)} bytes, received {len(content)} bytes"
                )
            storages[key] = _Storage(content, dtype, big_endian)
        if storages[key].dtype != dtype:
            return dataclasses.replace(storages[key], dtype=dtype)
        return storages[key]

    content = _zip_entry(data, entries[pickles[0]])
    if len(content) > _PICKLE_LIMIT:
        raise PickleError(f"a pickle of {len(content)} bytes beside the tensors; at most {_PICKLE_LIMIT} are read")
    scripted = f"{root}constants.pkl" in entries
    constructors = _constructors(_build_tensor) | (_SCRIPTED_LISTS if scripted else {})
    opaque = (*opaque, _SCRIPTED) if scripted else opaque
    value = read_pickle(_BytesIO(content), constructors, _NAMES, opaque, load_storage)
    return _held_by(value) if scripted else value


def _held_by(value, depth=0):
    """What TorchScript modules hold, as nested dictionaries."""
    if depth > 64:
        raise PickleError("modules within modules, deeper than 64")
    if isinstance(value, Opaque) and value.path.startswith(_SCRIPTED):
        value = value.state if isinstance(value.state, dict) else {}
    if isinstance(value, dict):
        return {k: _held_by(v, depth + 1) for k, v in value.items()}
    return value


def _zip_entry(data, entry):
    """The bytes of an entry as a view of the file; torch.save never compresses."""
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
        raise PickleError(f"entry {entry.filename!r} is compressed, which torch.save never does")
    if entry.flag_bits & 0x1:
        raise PickleError(f"entry {entry.filename!r} is encrypted")
    header = data[entry.header_offset : entry.header_offset + 30].tobytes()
    if len(header) < 30 or header[:4] != b"PK\x03\x04":
        raise zipfile.BadZipFile(f"no header of {entry.filename!r}")
    start = entry.header_offset + 30 + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    if start + entry.file_size > len(data):
        raise zipfile.BadZipFile(f"{entry.filename!r} reaches beyond the end of the file")
    content = data[start : start + entry.file_size]
    # torch.save writes 0 where the user turned checksums off.
    if entry.CRC and zlib.crc32(content) != entry.CRC:
        raise zipfile.BadZipFile(f"the checksum of {entry.filename!r} does not match")
    return content


# The stream of pickles: magic number, protocol, system, object, keys; then the storages.


def _read_legacy(stream, data, opaque):
    plain = {"constructors": {}}
    try:
        magic = read_pickle(stream, **plain)
    except PickleError:
        magic = None
    if magic != _LEGACY_MAGIC:
        raise PickleError(f"neither a zip archive nor PyTorch's older format; it starts with {data[:8].tobytes()!r}")
    if read_pickle(stream, **plain) != _LEGACY_PROTOCOL:
        raise PickleError(f"expected protocol {_LEGACY_PROTOCOL} of the older format")
    system = read_pickle(stream, **plain)
    big_endian = isinstance(system, dict) and system.get("little_endian") is False
    start = stream.tell()
    # The object stands before its storages: a first pass only collects their types.
    dtypes = {}

    def note_storage(pid):
        dtype, key, count, view = _persistent_id(pid)
        dtypes.setdefault(key, (dtype, count))
        return _Storage(np.zeros(0, np.uint8), dtype, big_endian)

    read_pickle(stream, _constructors(lambda *_: None), _NAMES, opaque, note_storage)
    storages = _legacy_storages(stream, data, read_pickle(stream, **plain), dtypes, big_endian)

    def load_storage(pid):
        dtype, key, _, view = _persistent_id(pid)
        if key not in storages:
            raise PickleError(f"no storage {key!r} behind the object")
        if view is None:
            return storages[key]
        offset, count = (int(n) * _itemsize(dtype) for n in view[1:3])
        if offset < 0 or count < 0 or offset + count > len(storages[key].data):
            raise PickleError(f"a view beyond the end of storage {key!r}")
        return dataclasses.replace(storages[key], data=storages[key].data[offset : offset + count])

    stream.seek(start)
    return read_pickle(stream, _constructors(_build_tensor), _NAMES, opaque, load_storage)


def _legacy_storages(stream, data, keys, dtypes, big_endian):
    """{key: _Storage}: after the object, each storage is its length and its elements."""
    storages, position = {}, stream.tell()
    if not isinstance(keys, list) or set(keys) != set(dtypes):
        raise PickleError("the list of storages does not match the object")
    for key in keys:
        dtype, count = dtypes[key]
        size = count * _itemsize(dtype)
        length = int.from_bytes(data[position : position + 8].tobytes(), "big" if big_endian else "little")
        position += 8
        if length != count:
            raise PickleError(f"storage {key!r}: expected {count} elements, received {length}")
        if position + size > len(data):
            raise PickleError(f"storage {key!r} reaches beyond the end of the file")
        # Elements may stand at any address; NumPy copies where the machine needs it.
        storages[key] = _Storage(data[position : position + size], dtype, big_endian)
        position += size
    return storages
