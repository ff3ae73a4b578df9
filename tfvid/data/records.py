"""The schema of tfvid's data: every key, its shape, dtype and range, in one place.

A data set is a folder `<dataset>/{train,val,test}/*.tfrecord` beside a
`dataset_info.json` (`DatasetInfo`). Each record is a `tf.train.Example` of one clip:

    images/encoded                       one bytes string a frame: raw uint8, PNG or JPEG
    sequence_length, height, width, channels   int64, one number each
    <key>                                every other key of `KEYS`: numbers in row-major
                                         order, time first; uint8 keys one string a step
    id                                   bytes, names the clip; unique in the data set

Inside a batch the same keys lead with a batch axis. Files are never compressed as a
whole: the records of a file can then be read one by one.
"""

import dataclasses
import json
import os
import re
import uuid

import numpy as np
import tensorflow as tf

from tfvid.data import video_files
from tfvid.errors import UserError
from tfvid.hparams import HParams, HParamsError

SPLITS = ("train", "val", "test")
INFO_FILE = "dataset_info.json"
INDEX_FILE = "index.json"
FORMAT_VERSION = 1
RAW_LIMIT = 64  # frames with no side above this are kept as raw bytes


@dataclasses.dataclass(frozen=True)
class Key:
    """One key of the batch.

    Attributes:
      axes: names of the axes after the batch axis; "T" time, "T-1" steps between
        frames, "H" "W" "C" image, others free sizes that dataset_info.json gives.
      dtype: as the pipeline gives it.
      doc: meaning, unit and range.
    """

    axes: tuple
    dtype: str
    doc: str

    @property
    def steps(self):
        """Which entries there are: "T" one a frame, "T-1" one between frames, None: one a clip."""
        return self.axes[0] if self.axes and self.axes[0] in ("T", "T-1") else None


KEYS = {
    "images": Key(("T", "H", "W", "C"), "uint8", "frames, 0..255, RGB or grey (float in [0, 1] inside the models)"),
    "actions": Key(("T-1", "A"), "float32", "action taken between two frames, raw units of the data set"),
    "states": Key(("T", "S"), "float32", "state of the robot or game at each frame, raw units of the data set"),
    "pix_distribs": Key(("T", "H", "W", "P"), "float32", "P pixel distributions, each sums to 1 over the image"),
    "action_labels": Key(("T-1",), "int32", "discrete action taken between two frames, 0-based; for evaluation"),
    "rewards": Key(("T",), "float32", "reward that was earned on arriving at each frame"),
    "poses": Key(("T", "J", "2"), "float32", "joint positions (x, y)"),
    "pose_visible": Key(("T", "J"), "float32", "1 where a joint is annotated, else 0"),
    "action_class": Key((), "int32", "class of the whole clip, 0-based"),
    "frame_step": Key((), "int32", "frames of the video from one frame of the clip to the next; 0: all are the same"),
    "boxes": Key(
        ("T", "O", "4"), "float32", "one box per object slot (x0, y0, x1, y1) in frame sides; all 0: no object"
    ),
    "objects": Key(("O", "a"), "int32", "attributes of the object in each slot; the first is 0 in an empty slot"),
    "relations": Key(("T", "K", "3"), "int32", "static relations (subject slot, relation, object slot); -1: none"),
    "timed_actions": Key(("N", "3"), "int32", "actions (subject slot, action, object slot); action -1: none"),
    "action_progress": Key(("T", "N"), "float32", "progress of each action: 0 where it starts, 1 where it ends"),
    "action_destinations": Key(
        ("N", "2"), "float32", "where the top left corner of the subject's box ends; 0: nowhere"
    ),
    "latents": Key(("T", "h", "w", "c"), "float32", "latents of a frozen autoencoder on a grid, not quantised"),
    "features": Key(("T", "h", "w", "F"), "float32", "features of a frozen network on a grid"),
}

# Keys that are read only where the hyper-parameter `use_state` says so.
STATE_KEYS = ("actions", "states")


class DataError(UserError):
    """Data that is missing, broken or of another form; the message names the file."""


def data_error_line(error):
    """The one line inside an error that a data stream raised while it ran, or None.

    A stream runs inside TensorFlow, which can only raise its own errors. Those that
    speak of the data carry a line that names the file and the record.
    """
    text = " ".join(str(error).split())
    match = re.search(r"<data>(.*?)</data>", text)
    if match:
        return match.group(1)
    # tf.io.parse_example: a record that lacks a key or has another number of values.
    match = re.search(
        r"Name: (.+?: record \d+), (?:Key|Feature): (\S+?)(?: \(data type.*?\)|, Index: \d+)?\.? (.*)", text
    )
    if match:
        reason = re.split(r"\[\[|\[Op", match.group(3))[0].strip(" .")
        return f"{match.group(1)}: key {match.group(2)!r}: {reason}"
    return None


def require_data(ok, parts):
    """In a graph: stops the stream unless `ok`, with a line made of string tensors `parts`."""
    text = [p if isinstance(p, str) or p.dtype == tf.string else tf.strings.as_string(p) for p in parts]
    return tf.debugging.Assert(ok, [tf.strings.join(["<data>", *text, "</data>"])], summarize=1)


# Writing.


@dataclasses.dataclass(frozen=True)
class Field:
    """How one key lies in the records of one data set.

    Attributes:
      shape: without the time axis, e.g. [64, 64, 3] of images.
      encoding: of images: "raw", "png" or "jpeg"; None for others.
    """

    shape: tuple
    encoding: str | None = None


ENCODINGS = ("auto", "lossless", "raw", "png", "jpeg")


def choose_encoding(option, height, width):
    """What "auto" and "lossless" are: "raw" up to RAW_LIMIT pixels a side, "jpeg" or "png" above."""
    if option not in ("auto", "lossless"):
        return option
    return "raw" if max(height, width) <= RAW_LIMIT else {"auto": "jpeg", "lossless": "png"}[option]


def encode_clip(clip, clip_id, encoding="auto"):
    """One clip as a serialized `tf.train.Example`.

    Args:
      clip: {key: array} with keys of `KEYS`; `images` uint8 [T, H, W, C] is a must.
      clip_id: a word that is unique in the data set.
      encoding: of the frames, one of ENCODINGS.

    Returns:
      (bytes, {key: Field}).
    """
    images = np.asarray(clip["images"])
    length, height, width, channels = images.shape
    encoding = choose_encoding(encoding, height, width)
    encode = {"raw": lambda f: f.tobytes(), "png": video_files.encode_png, "jpeg": video_files.encode_jpeg}[encoding]
    features = {
        "images/encoded": _bytes([encode(np.ascontiguousarray(f)) for f in images]),
        "sequence_length": _ints([length]),
        "height": _ints([height]),
        "width": _ints([width]),
        "channels": _ints([channels]),
        "id": _bytes([clip_id.encode()]),
    }
    fields = {"images": Field((height, width, channels), encoding)}
    for name, value in clip.items():
        if name == "images":
            continue
        key, value = _checked_key(name, value, length, clip_id)
        if key.dtype == "uint8" and key.steps:
            features[name] = _bytes([np.ascontiguousarray(v).tobytes() for v in value])
        elif key.dtype.startswith("float"):
            features[name] = tf.train.Feature(float_list=tf.train.FloatList(value=value.reshape(-1)))
        else:
            features[name] = _ints(value.reshape(-1))
        fields[name] = Field(tuple(value.shape[1:] if key.steps else value.shape))
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return example.SerializeToString(deterministic=True), fields


def _checked_key(name, value, length, clip_id):
    if name not in KEYS:
        raise DataError(f"clip {clip_id}: expected keys of {', '.join(KEYS)}. Received: {name!r}")
    key, value = KEYS[name], np.asarray(value).astype(KEYS[name].dtype)
    steps = {"T": length, "T-1": length - 1, None: None}[key.steps]
    if value.ndim != len(key.axes) or (steps is not None and len(value) != steps):
        raise DataError(
            f"clip {clip_id}: {name}: expected axes [{', '.join(key.axes)}] with T = {length}."
            f" Received: shape {list(value.shape)}"
        )
    if key.dtype.startswith("float") and not np.isfinite(value).all():
        raise DataError(f"clip {clip_id}: {name}: expected finite numbers, received NaN or infinity")
    return key, value


def pad_scene(scene, objects=0, relations=0, actions=0):
    """A clip's objects, relations and actions in as many slots as the data set has; other keys stay.

    Args:
      scene: {key: array} with ragged numbers of slots.
      objects, relations, actions: slots of the data set, at least as many as are used.
    """
    axes = {"O": (objects, 0), "K": (relations, -1), "N": (actions, -1)}
    padded = dict(scene)
    for name, value in scene.items():
        for axis, letter in enumerate(KEYS[name].axes):
            if letter not in axes:
                continue
            slots, empty = axes[letter]
            value = np.asarray(value)
            if value.shape[axis] > slots:
                raise DataError(f"{name}: expected at most {slots} slots. Received: {value.shape[axis]}")
            widths = [(0, slots - value.shape[axis] if i == axis else 0) for i in range(value.ndim)]
            padded[name] = np.pad(value, widths, constant_values=0 if name == "action_destinations" else empty)
    return padded


def _bytes(values):
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))


def _ints(values):
    return tf.train.Feature(int64_list=tf.train.Int64List(value=[int(v) for v in values]))


# dataset_info.json


@dataclasses.dataclass
class DatasetInfo:
    """What `dataset_info.json` holds.

    Attributes:
      name: of the data set.
      source: where the data come from, in words.
      fps: frames per second of the clips, or None.
      fields: {key: Field}.
      splits: {split: {"clips": n, "frames": n, "files": {name: {"clips", "frames", "bytes"}}}}.
      defaults: data-set hyper-parameters (context_frames, sequence_length, ...).
      options: those that the data were prepared with.
      broken: work items that could not be read, [{"item", "reason"}].
      labels: {key: [name of value 0, of value 1, ...]} of discrete keys, where they have names.
      clip_length: frames of every clip, or None where clips differ.
    """

    name: str
    source: str
    fps: float | None
    fields: dict
    splits: dict
    defaults: dict
    options: dict
    broken: list = dataclasses.field(default_factory=list)
    labels: dict = dataclasses.field(default_factory=dict)
    clip_length: int | None = None

    def save(self, folder):
        """Writes `<folder>/dataset_info.json` at once or not at all."""
        schema = {}
        for name, field in self.fields.items():
            key = KEYS[name]
            lead = [key.steps] if key.steps else []
            schema[name] = {"shape": lead + list(field.shape), "dtype": key.dtype, "meaning": key.doc}
            if field.encoding:
                schema[name]["encoding"] = field.encoding
        document = {
            "format": FORMAT_VERSION,
            "name": self.name,
            "source": self.source,
            "fps": self.fps,
            "clip_length": self.clip_length,
            "schema": schema,
            "splits": self.splits,
            "defaults": self.defaults,
            "labels": self.labels,
            "options": self.options,
            "broken": self.broken,
        }
        write_atomically(os.path.join(folder, INFO_FILE), json.dumps(document, indent=2) + "\n")

    @classmethod
    def load(cls, folder):
        """Reads `<folder>/dataset_info.json`; DataError names the file and what is wrong."""
        path = os.path.join(folder, INFO_FILE)
        document = read_json(path)
        try:
            if document["format"] != FORMAT_VERSION:
                raise DataError(f"{path}: expected format {FORMAT_VERSION}. Received: {document['format']!r}")
            fields = {}
            for name, entry in document["schema"].items():
                if name not in KEYS:
                    raise DataError(f"{path}: schema: expected keys of {', '.join(KEYS)}. Received: {name!r}")
                shape = tuple(int(s) for s in (entry["shape"][1:] if KEYS[name].steps else entry["shape"]))
                fields[name] = Field(shape, entry.get("encoding"))
            if "images" not in fields or len(fields["images"].shape) != 3:
                raise DataError(f"{path}: schema: expected images [T, H, W, C]. Received: {sorted(fields)}")
            _check_document(document, fields, path)
            return cls(
                name=str(document["name"]),
                source=document["source"],
                fps=document["fps"],
                fields=fields,
                splits=dict(document["splits"]),
                defaults=dict(document["defaults"]),
                options=dict(document["options"]),
                broken=list(document.get("broken", [])),
                labels=dict(document.get("labels", {})),
                clip_length=document.get("clip_length"),
            )
        except (KeyError, TypeError, AttributeError, ValueError) as e:
            if isinstance(e, UserError):
                raise
            raise DataError(f"{path}: expected what prepare_data writes; {type(e).__name__}: {e}") from None


def _check_document(document, fields, path):
    """DataError where a value of dataset_info.json, which a user may have edited, is none that `save` writes."""

    def require(ok, where, expected, received):
        if not ok:
            raise DataError(f"{path}: {where}: expected {expected}. Received: {received!r}")

    encoding = fields["images"].encoding
    require(encoding in ("raw", "png", "jpeg"), "schema: images: encoding", "raw, png or jpeg", encoding)
    for name, field in fields.items():
        ok = all(size >= (name == "images") for size in field.shape)
        require(ok, f"schema: {name}: shape", "positive sizes", list(field.shape))
    fps, length = document["fps"], document.get("clip_length")
    require(fps is None or (type(fps) in (int, float) and fps >= 0), "fps", "a number or null", fps)
    require(length is None or (type(length) is int and length > 0), "clip_length", "an integer or null", length)
    for split, entry in document["splits"].items():
        require(split in SPLITS, "splits", f"{', '.join(SPLITS)}", split)
        for name, file in entry["files"].items():
            for key in ("clips", "bytes"):
                require(type(file[key]) is int, f"splits: {split}: {name}: {key}", "an integer", file[key])
    for key, names in document.get("labels", {}).items():
        require(isinstance(names, list), f"labels: {key}", "a list of names", names)
    try:
        HParams().with_dataset_defaults(document["defaults"])
    except HParamsError as e:
        raise DataError(f"{path}: defaults: {e}") from None


def read_json(path):
    """One JSON object from a file; DataError names the file."""
    try:
        with tf.io.gfile.GFile(path, "r") as f:
            value = json.loads(f.read())
    except tf.errors.OpError as e:
        raise DataError(f"{path}: cannot read it: {e.message}") from None
    except (ValueError, RecursionError) as e:
        raise DataError(f"{path}: expected a JSON file: {e}") from None
    if not isinstance(value, dict):
        raise DataError(f"{path}: expected a JSON object. Received: {type(value).__name__}")
    return value


def is_folder(path):
    """Whether a folder is there; raises TensorFlow's error, which says why, for a bucket that cannot be reached."""
    if tf.io.gfile.isdir(path):
        return True
    if "://" in path:
        tf.io.gfile.exists(path)  # isdir only says no
    return False


def write_atomically(path, text):
    """Writes under another name, then renames: readers never see half a file."""
    temporary = temporary_name(path)
    try:
        with tf.io.gfile.GFile(temporary, "w") as f:
            f.write(text)
        tf.io.gfile.rename(temporary, path, overwrite=True)
    except BaseException:
        if tf.io.gfile.exists(temporary):
            tf.io.gfile.remove(temporary)
        raise


def temporary_name(path):
    """A name beside `path` that no pattern for data files matches."""
    folder, name = os.path.split(path)
    return os.path.join(folder, f".tmp-{uuid.uuid4().hex[:8]}-{name}.part")
