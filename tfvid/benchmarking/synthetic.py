"""Data of a published data set's shape, with random content, for measuring speed.

It is written as records and read by the same pipeline as real data, so that what
decoding costs is measured too.
"""

import os

import numpy as np
import tensorflow as tf

from tfvid.data.records import KEYS, DatasetInfo, encode_clip
from tfvid.errors import UserError

# Data set -> (sizes of the axes, keys beside images, data-set hyper-parameters).
PUBLISHED = {
    "bair": (
        {"H": 64, "W": 64, "C": 3, "A": 4, "S": 3},
        ("actions", "states"),
        {"context_frames": 2, "sequence_length": 12, "long_sequence_length": 30, "time_shift": 2},
    ),
    "kth": (
        {"H": 64, "W": 64, "C": 1},
        (),
        {"context_frames": 10, "sequence_length": 20, "long_sequence_length": 40, "force_time_shift": True},
    ),
    "ucf101": (
        {"H": 240, "W": 320, "C": 3},
        (),
        {"context_frames": 4, "sequence_length": 8, "long_sequence_length": 8},
    ),
    "demo": (
        {"H": 32, "W": 32, "C": 3, "A": 2, "S": 2, "O": 3},
        ("actions", "states", "action_labels", "boxes"),
        {"context_frames": 2, "sequence_length": 8, "long_sequence_length": 16},
    ),
    "breakout": (
        {"H": 208, "W": 160, "C": 3},
        ("action_labels",),
        {"context_frames": 1, "sequence_length": 9, "long_sequence_length": 32},
    ),
    "penn": (
        {"H": 128, "W": 128, "C": 3, "J": 13},
        ("poses", "pose_visible", "action_class"),
        {"context_frames": 1, "sequence_length": 9, "long_sequence_length": 33},
    ),
    "clevrer": (
        {"H": 128, "W": 128, "C": 3},
        (),
        {"context_frames": 1, "sequence_length": 16, "long_sequence_length": 16},
    ),
    "cater": (
        {"H": 256, "W": 256, "C": 3, "O": 6, "a": 4, "N": 4},
        ("objects", "boxes", "timed_actions", "action_progress", "action_destinations"),
        {"context_frames": 1, "sequence_length": 16, "long_sequence_length": 16},
    ),
    "epic": (
        {"H": 256, "W": 256, "C": 3},
        (),
        {"context_frames": 1, "sequence_length": 16, "long_sequence_length": 16},
    ),
}


def published(dataset, sizes=None):
    """(sizes, keys, defaults) of a data set, with some sizes changed.

    Args:
      dataset: a name in PUBLISHED; others need `sizes` and have images only.
      sizes: {axis: number}, e.g. {"H": 128, "W": 128}.
    """
    sizes = dict(sizes or {})
    if dataset in PUBLISHED:
        known, keys, defaults = PUBLISHED[dataset]
        unknown = sorted(set(sizes) - {axis for name in ("images", *keys) for axis in KEYS[name].axes})
        if unknown:
            raise UserError(f"--sizes: expected axes of {dataset}: {', '.join(known)}. Received: {', '.join(unknown)}")
        return {**known, **sizes}, keys, defaults
    if not {"H", "W"} <= set(sizes):
        raise UserError(
            f"--dataset: expected one of {', '.join(PUBLISHED)}, or --sizes=H=...,W=... for another one."
            f" Received: {dataset!r}"
        )
    return {"C": 3, **sizes}, (), {"context_frames": 2, "sequence_length": 12, "long_sequence_length": 30}


def axis_sizes(text):
    """`H=128,W=128` -> {"H": 128, "W": 128}."""
    sizes = {}
    for part in filter(None, text.split(",")):
        axis, _, number = part.partition("=")
        if not number.isdecimal() or int(number) < 1:
            raise UserError(f"--sizes: expected AXIS=NUMBER,AXIS=NUMBER. Received: {part!r}")
        sizes[axis.strip()] = int(number)
    return sizes


def random_clip(rng, sizes, keys, length):
    """{key: array} of one clip; images are smooth, so that JPEG has realistic work."""
    clip = {}
    for name in ("images", *keys):
        key = KEYS[name]
        shape = [_size(axis, sizes, length) for axis in key.axes]
        if name == "images":
            coarse = rng.integers(0, 256, [shape[0], 8, 8, shape[3]], dtype="uint8")
            rows, columns = np.arange(shape[1]) * 8 // shape[1], np.arange(shape[2]) * 8 // shape[2]
            clip[name] = coarse[:, rows][:, :, columns]
        elif name == "boxes":
            corners = rng.uniform(0, 0.7, [*shape[:-1], 2])
            clip[name] = np.concatenate([corners, corners + rng.uniform(0.1, 0.3, corners.shape)], -1).astype(key.dtype)
        elif key.dtype.startswith("float"):
            clip[name] = rng.uniform(0, 1, shape).astype(key.dtype)
        else:
            clip[name] = rng.integers(0, 2, shape).astype(key.dtype)
    return clip


def write(folder, dataset, clips=64, sizes=None, length=None, seed=0):
    """Writes a data set of random clips; returns its `DatasetInfo`.

    Args:
      folder: to write into.
      dataset, sizes: as of `published`.
      clips: number in each split.
      length: frames of a clip; default: what a test clip needs.
    """
    sizes, keys, defaults = published(dataset, sizes)
    length = max(length or 0, defaults["long_sequence_length"])
    rng, splits, fields = np.random.default_rng(seed), {}, {}
    for split in ("train", "test"):
        path = os.path.join(folder, split, "clips_00000.tfrecord")
        tf.io.gfile.makedirs(os.path.dirname(path))
        with tf.io.TFRecordWriter(path) as writer:
            for i in range(clips):
                record, fields = encode_clip(random_clip(rng, sizes, keys, length), f"{split}-{i}")
                writer.write(record)
        size = tf.io.gfile.stat(path).length
        files = {os.path.basename(path): {"clips": clips, "frames": clips * length, "bytes": size}}
        splits[split] = {"clips": clips, "frames": clips * length, "files": files}
    info = DatasetInfo(dataset, "random numbers, for measuring speed", None, fields, splits, defaults, {"seed": seed})
    info.save(folder)
    return info


def write_for(hparams, dataset, folder, sizes=None, clips=None):
    """Random data that a model of `hparams` can be tried on; returns its `DatasetInfo`.

    Args:
      hparams: as loaded from a file.
      dataset, folder, sizes: as of `write`.
      clips: number in each split; default: three batches at least, so that shuffling and
        prefetching have something to do.
    """
    length = max(hparams.sequence_length or 0, hparams.long_sequence_length or 0)
    length = (length - 1) * ((hparams.frame_skip or 0) + 1) + 1 if length else 0
    return write(folder, dataset, clips or max(16, 3 * hparams.batch_size), sizes, length)


def dataset_of(hparams, path, name=None):
    """`name`, else the data set that the file at `path` names; UserError where there is none."""
    if not (name or hparams.dataset):
        raise UserError(f"--dataset: expected a name, since {path} has no key 'dataset'")
    return name or hparams.dataset


def _size(axis, sizes, length):
    if axis in ("T", "T-1"):
        return length - (axis == "T-1")
    return int(axis) if axis.isdecimal() else sizes[axis]
