"""Records with one feature for each time step: softmotion (BAIR), cartgripper, sv2p, Google robot."""

import re

import tensorflow as tf

from tfvid.data.formats import Format, Layout, encoded_shape, parse_example, read_example
from tfvid.data.records import DataError


class StepwiseFormat(Format):
    """Features `<prefix><step><suffix>`; subclasses give the patterns.

    Attributes:
      IMAGES: patterns with `{}` for the step, the first that a record has is read.
      ARRAYS: {key or hidden feature: (pattern, width or None for any)}.
      IMAGE_SHAPE: [H, W, C] of raw frames, or None: a square one of three channels.
    """

    IMAGES = ()
    ARRAYS = {}
    IMAGE_SHAPE = None
    HIDDEN = ()

    def layout(self, record, name):
        values = read_example(record, name)
        view = self._view(values, name)
        frames = _steps(values, view)
        encoding, shape = self._image(values[view.format(0)], name)
        length, arrays, hidden = frames, {}, {}
        for key, (pattern, width) in self.ARRAYS.items():
            steps = _steps(values, pattern)
            if not steps:
                continue
            size = len(values[pattern.format(0)])
            if width is not None and size != width:
                raise DataError(f"{name}: {pattern.format(0)}: expected {width} numbers, received {size}")
            length = min(length, steps + 1 if key == "actions" else steps)
            (hidden if key in self.HIDDEN else arrays)[key] = (size,)
        return Layout(shape, encoding, arrays, length, hidden, view)

    def parse(self, record, name, layout, options):
        features = {}
        wanted = dict(layout.hidden)
        if options.use_state:
            wanted.update(layout.arrays)
        for step in range(layout.length):
            features[layout.view.format(step)] = tf.io.FixedLenFeature([], tf.string)
            for key, shape in wanted.items():
                if key != "actions" or step < layout.length - 1:
                    features[self.ARRAYS[key][0].format(step)] = tf.io.FixedLenFeature(list(shape), tf.float32)
        parsed = parse_example(record, name, features)
        clip = {"images": tf.stack([parsed[layout.view.format(step)] for step in range(layout.length)])}
        for key in wanted:
            steps = layout.length - 1 if key == "actions" else layout.length
            clip[key] = tf.stack([parsed[self.ARRAYS[key][0].format(step)] for step in range(steps)])
        return clip

    def _view(self, values, name):
        for pattern in self.IMAGES:
            if pattern.format(0) in values:
                return pattern
        found = [k for k in values if re.fullmatch(r"0/.*/encoded", k)]
        if len(found) == 1:
            return "{}" + found[0][1:]
        expected = ", ".join(p.format(0) for p in self.IMAGES)
        raise DataError(f"{name}: expected a feature {expected}. Received: {', '.join(sorted(values)[:8])}")

    def _image(self, value, name):
        if len(value) != 1 or not isinstance(value[0], bytes):
            raise DataError(f"{name}: expected one bytes string a frame")
        data = value[0]
        if data[:2] == b"\xff\xd8" or data[:4] == b"\x89PNG":
            return encoded_shape(data, name)
        shape = self.IMAGE_SHAPE
        if shape is None:
            side = int(round((len(data) / 3) ** 0.5))
            shape = (side, side, 3)
        if shape[0] * shape[1] * shape[2] != len(data):
            what = "a square frame of 3 channels" if self.IMAGE_SHAPE is None else " x ".join(map(str, shape))
            raise DataError(f"{name}: expected {what} in uint8, received {len(data)} bytes")
        return "raw", shape


def _steps(values, pattern):
    """How many steps from 0 on a record has of a pattern."""
    count = 0
    while pattern.format(count) in values:
        count += 1
    return count
