"""How records become clips: the window in time, decoding, geometry.

A `Format` knows one family of records: it parses a record into frames that are still
encoded and small numeric arrays. What follows is the same for all: a window is cut in
time, then its frames (and no others) are decoded, cropped and resized.
"""

import dataclasses

import tensorflow as tf

from tfvid.data.records import KEYS, STATE_KEYS, DataError, require_data
from tfvid.errors import UserError

# Every data-set hyper-parameter; a format's own defaults come over these.
GENERAL_DEFAULTS = {
    "context_frames": 1,
    "sequence_length": 0,
    "long_sequence_length": 0,
    "frame_skip": 0,
    "time_shift": 1,
    "force_time_shift": False,
    "shuffle_on_val": False,
    "use_state": False,
    "crop_size": 0,
    "scale_size": 0,
    "random_crop_size": 0,
}


@dataclasses.dataclass(frozen=True)
class ReadOptions:
    """The data-set hyper-parameters that shape a clip, none of them open.

    Attributes:
      length: frames of a clip; 0: the longest possible.
      others: as the hyper-parameters of these names.
    """

    length: int
    frame_skip: int
    time_shift: int
    force_time_shift: bool
    use_state: bool
    crop_size: int
    scale_size: int
    random_crop_size: int

    @classmethod
    def of(cls, hparams, defaults, length=None):
        """From hyper-parameters; what is None there comes from `defaults`."""

        def get(name):
            value = getattr(hparams, name, None)
            return defaults[name] if value is None else value

        length = get("sequence_length") if length is None else length
        names = [f.name for f in dataclasses.fields(cls) if f.name != "length"]
        return cls(length=int(length), **{n: get(n) for n in names})

    @property
    def stride(self):
        """Source frames from one frame of a clip to the next."""
        return self.frame_skip + 1

    def span(self, length):
        """Source frames that a clip of `length` frames covers."""
        return (length - 1) * self.stride + 1


@dataclasses.dataclass(frozen=True)
class Layout:
    """What the records of a data set hold, from its description or its first record.

    Attributes:
      image: [H, W, C] of the stored frames.
      encoding: of the frames: "raw", "png" or "jpeg".
      arrays: {key: shape without the time axis} of the numeric keys.
      length: frames of every record, or None where records differ.
      hidden: {feature: shape without the time axis} of what `derive` alone uses.
      view: which of several cameras is read, or None.
    """

    image: tuple
    encoding: str
    arrays: dict
    length: int | None = None
    hidden: dict = dataclasses.field(default_factory=dict)
    view: str | None = None


class Format:
    """One family of records; subclasses override what differs.

    Attributes:
      DEFAULTS: data-set hyper-parameters that differ from GENERAL_DEFAULTS.
      SPLIT_FOLDERS: {split: names of its folder}, the first that exists is taken.
      SUBFOLDERS: folders below the data set's that may hold the splits.
    """

    DEFAULTS = {}
    SPLIT_FOLDERS = {}
    SUBFOLDERS = ()

    def __init__(self, folder=""):
        """Args: folder: the data set's."""
        self.folder = folder

    def defaults(self):
        """Every data-set hyper-parameter."""
        return {**GENERAL_DEFAULTS, **self.DEFAULTS}

    def select(self, split, find):
        """Paths of a split's files.

        Args:
          find: function (*names of folders) -> files in the first that has some; a
            folder "" is the data set's own.
        """
        return find(*self.SPLIT_FOLDERS.get(split, (split,))) or find("")

    def hint(self, split):
        """What to do where a split has no file, or None."""
        return

    def layout(self, record, name):
        """The `Layout` of a record (bytes); `name` is for errors. Raises DataError."""
        raise NotImplementedError

    def parse(self, record, name, layout, options):
        """In a graph: {"images": string [L], key: tensor [L or L-1, ...]} of one record."""
        raise NotImplementedError

    def known_frames(self, index, folder):
        """Frames of every record of an index from files beside it, or None."""
        return

    def count_frames(self, record, name):
        """In a graph: the number of frames of a record, int64 scalar."""
        raise NotImplementedError(f"{type(self).__name__}: every record has the same length")

    def derive(self, clip, layout):
        """In a graph: a cut clip with the keys of `derived_shapes` in place of `layout.hidden`."""
        return clip

    def derived_shapes(self, layout, options):
        """{key: shape without the time axis} of what `derive` adds."""
        return {}


def clip_spec(fmt, layout, options):
    """{key: tf.TensorSpec} of a clip, without batch axis.

    Raises:
      DataError: records too short for the clip, or one that cannot be cropped so.
    """
    length = clip_length(layout, options)
    height, width, channels = image_shape(layout.image, options)
    dtype = tf.float32 if scales(layout.image, options) else tf.uint8
    spec = {"images": tf.TensorSpec([length, height, width, channels], dtype)}
    shapes = {**layout.arrays, **fmt.derived_shapes(layout, options)}
    for name, shape in shapes.items():
        if name in STATE_KEYS and not options.use_state:
            continue
        key = KEYS[name]
        if name == "actions":
            shape = (*shape[:-1], shape[-1] * options.stride)
        lead = {"T": [length], "T-1": [length - 1], None: []}[key.steps]
        spec[name] = tf.TensorSpec(lead + list(shape), key.dtype)
    return spec


def clip_length(layout, options):
    """Frames of a clip; resolves "the longest possible"."""
    if layout.length is None:
        if options.length < 1:
            raise DataError("sequence_length: expected a number of frames, since clips differ in length; received 0")
        return options.length
    if options.length < 1:
        return (layout.length - 1) // options.stride + 1
    if options.span(options.length) > layout.length:
        raise DataError(
            f"clips of {options.length} frames with frame_skip={options.frame_skip} need"
            f" {options.span(options.length)} frames; expected a shorter sequence_length, since the records have"
            f" {layout.length} frames"
        )
    return options.length


def image_shape(image, options):
    """[H, W, C] after cropping and resizing."""
    height, width, channels = image
    if options.random_crop_size:
        side = options.random_crop_size
        if side > min(height, width):
            raise UserError(
                f"random_crop_size: expected at most {min(height, width)}, the frames' shorter side. Received: {side}"
            )
        height = width = side
    if options.crop_size or options.scale_size:
        height = width = options.crop_size or min(height, width)
    if options.scale_size:
        height = width = options.scale_size
    return height, width, channels


def scales(image, options):
    """Whether frames are resized; they are then float32 in [0, 1] instead of uint8."""
    height, width, _ = image
    side = options.crop_size or options.random_crop_size or min(height, width)
    return bool(options.scale_size) and options.scale_size != side


def cut_clip(fmt, layout, options, record, name, start_of, crop_seed):
    """In a graph: one record -> one clip.

    Args:
      record, name: string scalars; the content, and what errors call it.
      start_of: function of the number of possible shifts (int64) -> which to take.
      crop_seed: int64 [2] for `random_crop_size`.

    Returns:
      {key: tensor} with the shapes of `clip_spec`.
    """
    spec = clip_spec(fmt, layout, options)
    length = spec["images"].shape[0]
    raw = fmt.parse(record, name, layout, options)
    total = tf.size(raw["images"], out_type=tf.int64)
    span = options.span(length)
    with tf.control_dependencies(
        [require_data(total >= span, [name, f": expected at least {span} frames, received ", total])]
    ):
        shifts = (total - span) // max(options.time_shift, 1)
    start = start_of(shifts) * max(options.time_shift, 1)
    clip = {k: _window(k, v, start, length, options.stride, total, name) for k, v in raw.items()}
    clip = fmt.derive(clip, layout)
    frames = _decode(clip["images"], name, layout)  # [T, H, W, C] uint8
    clip["images"] = _geometry(frames, layout.image, options, crop_seed)
    result = {}
    for key, tensor_spec in spec.items():
        result[key] = tf.ensure_shape(tf.cast(clip[key], tensor_spec.dtype), tensor_spec.shape)
    return result


def check_record(fmt, layout, record, name):
    """In a graph: parses and decodes a whole record; its number of frames, int64.

    Stops with a line that names the record where it is not as `layout` says.
    """
    options = ReadOptions(0, 0, 0, False, True, 0, 0, 0)
    raw = fmt.parse(record, name, layout, options)
    total = tf.size(raw["images"], out_type=tf.int64)
    checks = [require_data(total > 0, [name, ": expected frames, received none"])]
    for key, value in raw.items():
        if key != "images":
            # A window as long as the record checks the number of steps.
            value = _window(key, value, 0, total, 1, total, name)
            if value.dtype.is_floating:
                finite = tf.reduce_all(tf.math.is_finite(value))
                checks.append(require_data(finite, [name, f": {key}: expected finite numbers"]))
            else:
                checks.append(value)
    checks.append(_decode(raw["images"], name, layout))
    with tf.control_dependencies(checks):
        return tf.identity(total)


def _window(name, value, start, length, stride, total, record_name):
    """Cuts `length` frames from `start` on, every `stride`-th, out of a whole record."""
    steps = KEYS[name].steps if name in KEYS else "T"
    if steps is None:
        return value
    expected = total if steps == "T" else total - 1
    count = tf.shape(value, out_type=tf.int64)[0]
    message = [record_name, f": {name}: expected ", expected, " steps as the frames have, received ", count]
    # Robot records may hold one action more than there are steps; it is never used.
    with tf.control_dependencies([require_data(count >= expected, message)]):
        value = tf.identity(value)
    if steps == "T":
        return value[start : start + (length - 1) * stride + 1 : stride]
    value = value[start : start + (length - 1) * stride]
    if name == "actions":  # those of skipped frames are put side by side: [T-1, A * stride]
        return tf.reshape(value, [length - 1, stride * value.shape[-1]])
    return value[::stride]


def _decode(frames, name, layout):
    """string [T] -> uint8 [T, H, W, C]; a frame of another size names the record."""
    height, width, channels = layout.image
    if layout.encoding == "raw":
        size = height * width * channels
        ok = tf.reduce_all(tf.strings.length(frames) == size)
        received = tf.strings.reduce_join(tf.strings.as_string(tf.strings.length(frames)), separator=", ")
        message = [name, f": expected frames of {height} x {width} x {channels} = {size} bytes, received ", received]
        with tf.control_dependencies([require_data(ok, message)]):
            flat = tf.io.decode_raw(frames, tf.uint8)
        return tf.reshape(flat, [-1, height, width, channels])

    decode = {"jpeg": tf.io.decode_jpeg, "png": tf.io.decode_png}[layout.encoding]

    def decode_one(data):
        image = decode(data, channels=channels)
        shape = tf.shape(image)
        ok = tf.reduce_all(shape == [height, width, channels])
        received = tf.strings.reduce_join(tf.strings.as_string(shape), separator=" x ")
        message = [name, f": expected frames of {height} x {width} x {channels}, received ", received]
        with tf.control_dependencies([require_data(ok, message)]):
            return tf.ensure_shape(tf.identity(image), [height, width, channels])

    spec = tf.TensorSpec([height, width, channels], tf.uint8)
    return tf.map_fn(decode_one, frames, fn_output_signature=spec)


def _geometry(frames, image, options, seed):
    """Random crop (one for all frames of a clip), central crop or padding, resizing.

    uint8 [T, H, W, C], or float32 in [0, 1] where frames are resized. The resizing is
    that of the original SAVP readers: the area average downwards, bilinear upwards on
    TensorFlow 1's grid (source = index * in / out, corners not aligned, no half-pixel
    shift). Theirs then left values in 0..255; ours are in [0, 1].
    """
    height, width, channels = image
    if options.random_crop_size:
        side = options.random_crop_size
        limits = tf.constant([height - side + 1, width - side + 1], tf.float64)
        draw = tf.random.stateless_uniform([2], seed, dtype=tf.float64, alg="philox")
        top, left = tf.unstack(tf.cast(draw * limits, tf.int32))
        frames = tf.slice(frames, tf.stack([0, top, left, 0]), [-1, side, side, channels])
        height = width = side
    if not (options.crop_size or options.scale_size):
        return frames
    crop = options.crop_size or min(height, width)
    frames = tf.image.resize_with_crop_or_pad(frames, crop, crop)
    size = options.scale_size
    if not size or size == crop:
        return frames
    if size < crop:
        resized = tf.raw_ops.ResizeArea(images=frames, size=[size, size])
    else:
        resized = tf.raw_ops.ResizeBilinear(
            images=tf.cast(frames, tf.float32), size=[size, size], align_corners=False, half_pixel_centers=False
        )
    return tf.clip_by_value(resized / 255, 0.0, 1.0)


def read_example(record, name):
    """A record (bytes) as {feature: list of values}; DataError names it."""
    try:
        example = tf.train.Example.FromString(record)
    except Exception as e:  # protobuf's DecodeError is not public in every release
        raise DataError(f"{name}: expected a tf.train.Example, cannot parse it: {e}") from None
    kinds = {k: f.WhichOneof("kind") for k, f in example.features.feature.items()}
    return {k: getattr(example.features.feature[k], kind).value if kind else [] for k, kind in kinds.items()}


def parse_example(record, name, features):
    """In a graph: `tf.io.parse_example` of one record; its errors name the record."""
    parsed = tf.io.parse_example([record], features, example_names=[name])
    return {k: v[0] for k, v in parsed.items()}


def encoded_shape(data, name):
    """(encoding, [H, W, C]) of one JPEG or PNG image in a record."""
    encoding = "jpeg" if data[:2] == b"\xff\xd8" else "png" if data[:4] == b"\x89PNG" else None
    if encoding is None:
        raise DataError(f"{name}: expected JPEG or PNG frames. Received: bytes that start with {data[:4]!r}")
    try:
        return encoding, tuple(int(s) for s in tf.io.decode_image(data, expand_animations=False).shape)
    except tf.errors.OpError as e:
        raise DataError(f"{name}: cannot decode its first frame: {e.message}") from None
