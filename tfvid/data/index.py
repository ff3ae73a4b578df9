"""Where each record lies: files, offsets and lengths.

With an index any record can be read on its own. A training stream is then a pure
function of (seed, step): nothing has to be skipped to resume, workers need no files of
their own, and a broken record is named and costs no other.
"""

import concurrent.futures
import dataclasses
import os
import struct

import numpy as np
import tensorflow as tf

from tfvid.data.records import INDEX_FILE, DataError, read_json, write_atomically

HEADER = 12  # uint64 length, uint32 masked checksum of it
OVERHEAD = HEADER + 4  # and the checksum of the content


@dataclasses.dataclass(frozen=True)
class RecordIndex:
    """The records of one split in a fixed order: files by name, then position.

    Attributes:
      files: paths.
      file: int64 [N], which file.
      number: int64 [N], the record's number in its file, from 0.
      offset: int64 [N], of its header in bytes.
      size: int64 [N], bytes of its content.
      frames: int64 [N], frames of each clip, or None where not known.
    """

    files: tuple
    file: np.ndarray
    number: np.ndarray
    offset: np.ndarray
    size: np.ndarray
    frames: np.ndarray | None = None

    def __len__(self):
        return len(self.file)

    def name(self, i):
        """How errors call record `i`."""
        return f"{self.files[self.file[i]]}: record {self.number[i]}"

    def take(self, which):
        """The records of an integer or boolean array, in its order."""
        frames = None if self.frames is None else self.frames[which]
        return dataclasses.replace(
            self,
            file=self.file[which],
            number=self.number[which],
            offset=self.offset[which],
            size=self.size[which],
            frames=frames,
        )

    def with_frames(self, frames):
        """The same records with the number of frames of each."""
        return dataclasses.replace(self, frames=np.asarray(frames, np.int64))

    def read(self, i):
        """The content of record `i`, checked against its checksum."""
        dataset = tf.data.Dataset.from_tensors(np.int64(i)).flat_map(
            lambda _: record_at(self.files[self.file[i]], self.offset[i], self.size[i])
        )
        content = next(iter(dataset)).numpy()
        if not content:
            raise DataError(f"{self.name(i)} at byte {self.offset[i]}: its content does not match its checksum")
        return content


def record_at(path, offset, size):
    """In a graph: a data set of one element, the record's content; empty where it is broken.

    Args:
      path, offset, size: string, int64, int64 scalars (tensors or values).
    """
    variant = tf.raw_ops.TFRecordDatasetV2(
        filenames=[path],
        compression_type="",
        buffer_size=tf.cast(size, tf.int64) + OVERHEAD,
        byte_offsets=[tf.cast(offset, tf.int64)],
    )
    one = tf.data.experimental.from_variant(variant, tf.TensorSpec([], tf.string)).take(1)
    # A checksum that does not match raises without a file name; the caller names it.
    return one.ignore_errors().concatenate(tf.data.Dataset.from_tensors(b"")).take(1)


def build_index(paths):
    """Indexes TFRecord files; reads record headers only, or the index kept beside them.

    Args:
      paths: list of files in one folder.

    Raises:
      DataError: a file that is truncated, compressed or no TFRecord file.
    """
    kept = _kept_index(os.path.dirname(paths[0]))
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        entries = list(pool.map(lambda path: _file_entry(path, kept.get(os.path.basename(path))), paths))
    return index_of_entries(paths, entries)


def index_of_entries(paths, entries):
    """An index of files of which offsets, bytes and (or None) frames are known."""
    counts = [len(e["offsets"]) for e in entries]
    sizes = [np.diff([*e["offsets"], e["bytes"]]) - OVERHEAD for e in entries]
    frames = [e["frames"] for e in entries]
    known = all(f is not None for f in frames)
    return RecordIndex(
        files=tuple(paths),
        file=np.repeat(np.arange(len(paths)), counts).astype(np.int64),
        number=_concatenate([np.arange(n) for n in counts]),
        offset=_concatenate([e["offsets"] for e in entries]),
        size=_concatenate(sizes),
        frames=_concatenate(frames) if known else None,
    )


def save_index(folder, index):
    """Keeps an index beside its files as `index.json`; it serves while their sizes stay."""
    files = {}
    for i, path in enumerate(index.files):
        mine = index.file == i
        files[os.path.basename(path)] = {
            "bytes": int(index.offset[mine][-1] + index.size[mine][-1] + OVERHEAD) if mine.any() else 0,
            "offsets": index.offset[mine].tolist(),
            "frames": None if index.frames is None else index.frames[mine].tolist(),
        }
    import json

    write_atomically(os.path.join(folder, INDEX_FILE), json.dumps({"files": files}) + "\n")


def scan_file(path):
    """(offsets, bytes) of one TFRecord file from its record headers alone.

    Raises:
      DataError: names the file, the record and the byte.
    """
    offsets, offset, total = [], 0, _file_size(path)
    with _reader(path) as read:
        while offset < total:
            header = read(offset, HEADER)
            where = f"{path}: record {len(offsets)} at byte {offset}"
            if len(header) < HEADER:
                raise DataError(f"{where}: the file ends inside the record, which is truncated at {total} bytes")
            if header[:2] == b"\x1f\x8b" and offset == 0:
                raise DataError(f"{path}: expected an uncompressed TFRecord file, received a GZIP file")
            (size, checksum) = struct.unpack("<QI", header)
            if masked_crc32c(header[:8]) != checksum:
                raise DataError(f"{where}: the record's length does not match its checksum: the file is corrupt")
            if offset + size + OVERHEAD > total:
                raise DataError(f"{where}: expected {size} bytes of content, the file is truncated at {total} bytes")
            offsets.append(offset)
            offset += size + OVERHEAD
    return offsets, total


def _file_entry(path, kept):
    if kept and kept["bytes"] == _file_size(path):
        return kept
    offsets, total = scan_file(path)
    return {"offsets": offsets, "bytes": total, "frames": None}


def _kept_index(folder):
    path = os.path.join(folder, INDEX_FILE)
    if not tf.io.gfile.exists(path):
        return {}
    try:
        files = read_json(path)["files"]
        for entry in files.values():
            offsets, frames = entry["offsets"], entry["frames"]
            if frames is not None and len(frames) != len(offsets):
                raise ValueError("frames and offsets of different length")
            positions = np.array([0, *offsets, entry["bytes"]])
            if positions.dtype != np.int64 or (np.diff(positions[1:]) < OVERHEAD).any() or min(positions) < 0:
                raise ValueError("offsets that are no places of records")
            if frames and np.array(frames).dtype != np.int64:
                raise ValueError("frames that are no numbers")
        return files
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as e:
        raise DataError(f"{path}: cannot read it ({e}); delete it, it is made anew") from None


def _file_size(path):
    try:
        return tf.io.gfile.stat(path).length
    except tf.errors.OpError as e:
        raise DataError(f"{path}: cannot read it: {e.message}") from None


class _reader:
    """Reads (offset, count) from a file; local ones without TensorFlow's overhead."""

    def __init__(self, path):
        self._path = path

    def __enter__(self):
        if "://" in self._path:
            self._file = tf.io.gfile.GFile(self._path, "rb")
            return self._read_remote
        try:
            self._file = open(self._path, "rb", buffering=0)
        except OSError as e:
            raise DataError(f"{self._path}: cannot read it: {e.strerror}") from None
        return lambda offset, count: os.pread(self._file.fileno(), count, offset)

    def __exit__(self, *_):
        self._file.close()

    def _read_remote(self, offset, count):
        self._file.seek(offset)
        return self._file.read(count)


def _concatenate(arrays):
    return np.concatenate([np.asarray(a, np.int64) for a in arrays]) if arrays else np.zeros(0, np.int64)


def _crc_table():
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


_TABLE = _crc_table()


def masked_crc32c(data):
    """The checksum of TFRecord files: CRC-32C, rotated and shifted."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
