"""Records that tfvid writes itself (tfvid/data/records.py), described by dataset_info.json."""

import tensorflow as tf

from tfvid.data.formats import Format, Layout, parse_example
from tfvid.data.records import KEYS, STATE_KEYS, DatasetInfo


class ClipFormat(Format):
    """Clips with a `dataset_info.json`, which holds their schema and defaults."""

    def __init__(self, folder, info=None):
        super().__init__(folder)
        self.info = info or DatasetInfo.load(folder)

    def defaults(self):
        return {**super().defaults(), **self.info.defaults}

    def layout(self, record, name):
        fields = self.info.fields
        arrays = {k: f.shape for k, f in fields.items() if k != "images"}
        return Layout(fields["images"].shape, fields["images"].encoding, arrays, self.info.clip_length)

    def parse(self, record, name, layout, options):
        features = {"images/encoded": tf.io.RaggedFeature(tf.string)}
        wanted = {k: s for k, s in layout.arrays.items() if options.use_state or k not in STATE_KEYS}
        for key, shape in wanted.items():
            features[key] = _feature(key, shape)
        parsed = parse_example(record, name, features)
        clip = {"images": parsed["images/encoded"]}
        for key, shape in wanted.items():
            value = parsed[key]
            if _as_bytes(key):
                value = tf.reshape(tf.io.decode_raw(value, tf.uint8), [-1, *shape])
            clip[key] = tf.cast(value, KEYS[key].dtype)
        return clip

    def count_frames(self, record, name):
        parsed = parse_example(record, name, {"images/encoded": tf.io.RaggedFeature(tf.string)})
        return tf.size(parsed["images/encoded"], out_type=tf.int64)


def _as_bytes(key):
    return KEYS[key].dtype == "uint8" and KEYS[key].steps is not None


def _feature(key, shape):
    if _as_bytes(key):
        return tf.io.RaggedFeature(tf.string)
    dtype = tf.float32 if KEYS[key].dtype.startswith("float") else tf.int64
    if KEYS[key].steps is None:
        return tf.io.FixedLenFeature(list(shape), dtype)
    return tf.io.FixedLenSequenceFeature(list(shape), dtype, allow_missing=True)
