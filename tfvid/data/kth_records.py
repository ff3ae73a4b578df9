"""KTH and UCF-101 as the original SAVP scripts wrote them: one Example a sequence.

Frames are the bytes of `images/encoded` beside `sequence_length`, `height`, `width` and
`channels`. Original: alexlee-gk/video_prediction, base_dataset.py (VarLenFeature data
sets), kth_dataset.py and ucf101_dataset.py.
"""

import os
import re

import numpy as np
import tensorflow as tf

from tfvid.data.formats import Format, Layout, encoded_shape, parse_example, read_example
from tfvid.data.records import DataError
from tfvid.data.video_files import read_bytes


class SequenceFormat(Format):
    """Sequences of different lengths; those shorter than a clip are left out."""

    def layout(self, record, name):
        values = read_example(record, name)
        frames = values.get("images/encoded", [])
        if not frames:
            raise DataError(f"{name}: expected a feature images/encoded. Received: {', '.join(sorted(values)[:8])}")
        if frames[0][:2] == b"\xff\xd8" or frames[0][:4] == b"\x89PNG":
            encoding, shape = encoded_shape(frames[0], name)
            return Layout(shape, encoding, {})
        try:
            shape = tuple(int(values[k][0]) for k in ("height", "width", "channels"))
        except (KeyError, IndexError, ValueError):
            raise DataError(f"{name}: expected the numbers height, width and channels") from None
        if int(np.prod(shape)) != len(frames[0]):
            raise DataError(
                f"{name}: expected raw frames of {' x '.join(map(str, shape))}, received {len(frames[0])} bytes"
            )
        return Layout(shape, "raw", {})

    def parse(self, record, name, layout, options):
        return {"images": _frames(record, name)}

    def count_frames(self, record, name):
        return tf.size(_frames(record, name), out_type=tf.int64)

    def known_frames(self, index, folder):
        """From sequence_lengths.txt: line i is sequence i of `sequence_<first>_to_<last>`."""
        path = os.path.join(folder, "sequence_lengths.txt")
        if not tf.io.gfile.exists(path):
            return None
        try:
            lengths = np.array([int(word) for word in read_bytes(path).split()])
        except ValueError:
            raise DataError(f"{path}: expected one whole number a line") from None
        frames = np.zeros(len(index), np.int64)
        for i, file in enumerate(index.files):
            match = re.search(r"sequence_(\d+)_to_(\d+)", os.path.basename(file))
            mine = index.file == i
            if not match or int(match.group(1)) + mine.sum() > len(lengths):
                return None  # names that say nothing: the records are read instead
            first = int(match.group(1))
            frames[mine] = lengths[first : first + mine.sum()]
        return frames


class KthFormat(SequenceFormat):
    """Grey raw frames."""

    DEFAULTS = {
        "context_frames": 10,
        "sequence_length": 20,
        "long_sequence_length": 40,
        "force_time_shift": True,
        "shuffle_on_val": True,
    }


class Ucf101Format(SequenceFormat):
    """JPEG frames of 240 x 320 x 3; `random_crop_size` cuts all frames of a clip alike."""

    DEFAULTS = {"context_frames": 4, "sequence_length": 8}


def _frames(record, name):
    return parse_example(record, name, {"images/encoded": tf.io.RaggedFeature(tf.string)})["images/encoded"]
