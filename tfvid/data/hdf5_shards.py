"""HDF5 shards as CAGE, YODA and RIVER keep their videos (dataset/convert_to_h5.py, dataset/video_dataset.py).

`<root>/{train,val,test}/*.hdf5`, read in the order of their paths: `len/<i>` is the number
of frames of clip i, `<i>/<j>` frame j, uint8 [H, W, 3]; EPIC-KITCHENS keeps the clips below
a group (`frames_key`). Training never opens HDF5: this is read once.
"""

import os

import h5py
import numpy as np
import tensorflow as tf
from PIL import Image

from tfvid.data.folders import names_in
from tfvid.data.preparation import BrokenItem, Item, Option, Preparation, cut_into_clips
from tfvid.data.records import SPLITS
from tfvid.data.video_files import check_fps
from tfvid.errors import UserError

SUFFIXES = (".hdf5", ".h5")


class Hdf5Shards(Preparation):
    """One item a clip; clips keep their length."""

    ENCODING = "lossless"
    ITEMS_PER_FILE = 64
    OPTIONS = {
        "size": Option(0, "side of the frames: shorter side resized, then the middle cut out; 0: as they are stored"),
        "frames_key": Option("", "group that holds the clips, as videos for EPIC-KITCHENS; empty: the file itself"),
        "clip_length": Option(0, "frames of a clip; 0: as they are stored"),
        "frame_rate": Option(0.0, "frames per second of the videos, where it is known; 0: not known"),
    }
    DEFAULTS = {"context_frames": 1, "sequence_length": 16, "long_sequence_length": 16, "time_shift": 1}

    def validate(self):
        if self.options["size"] < 0:
            raise UserError(f"--size: expected a side in pixels, or 0. Received: {self.options['size']}")
        if self.options["clip_length"] < 0 or self.options["clip_length"] == 1:
            raise UserError(f"--clip_length: expected 0 or at least 2. Received: {self.options['clip_length']}")
        check_fps(self.options["frame_rate"], "--frame_rate", low=0)

    def items(self):
        items = []
        for split in SPLITS:
            for name in shard_names(os.path.join(self.source_dir, split)):
                path = os.path.join(self.source_dir, split, name)
                stem = f"{split}/{os.path.splitext(name)[0]}"
                for clip in range(len(list_clips(path))):
                    items.append(Item(f"{stem}/{clip}", split, {"path": f"{split}/{name}", "clip": clip}))
        if not items:
            raise UserError(f"{self.source_dir}: expected train/, val/ or test/ with *.hdf5 shards, found none")
        return items

    def clips(self, item):
        path = os.path.join(self.source_dir, item.payload["path"])
        frames = read_clip(path, item.payload["clip"], self.options["frames_key"])
        length = self.options["clip_length"]
        if len(frames) < max(length, 2):
            raise BrokenItem(f"{path}: clip {item.payload['clip']}: expected at least {max(length, 2)} frames, received"
                             f" {len(frames)}")  # fmt: skip
        if self.options["size"]:
            frames = np.stack([fitted(f, self.options["size"]) for f in frames])
        yield from cut_into_clips({"images": frames}, length)

    def description(self):
        name = os.path.basename(os.path.normpath(self.source_dir))
        return {"source": f"HDF5 shards in {name}", "fps": self.options["frame_rate"] or None}


def shard_names(folder):
    """Names of the shards in a folder, sorted."""
    if not tf.io.gfile.isdir(folder):
        return []
    return sorted(n for n in names_in(folder) if n.lower().endswith(SUFFIXES))


def _open(path):
    if "://" in path:
        raise UserError(f"{path}: expected a local file: HDF5 cannot be read from elsewhere; copy it first")
    try:
        return h5py.File(path, "r")
    except OSError as e:
        raise UserError(f"{path}: expected an HDF5 file, cannot open it: {' '.join(str(e).split())}") from None


def list_clips(path):
    """Frames of each clip of a shard, by clip number."""
    with _open(path) as shard:
        if "len" not in shard or not isinstance(shard["len"], h5py.Group):
            raise UserError(
                f"{path}: expected the group len with the length of each clip. Received: {sorted(shard)[:5]}"
            )
        lengths = shard["len"]
        missing = [i for i in range(len(lengths)) if str(i) not in lengths]
        if missing:
            raise UserError(f"{path}: expected len/0 to len/{len(lengths) - 1}, found no len/{missing[0]}")
        try:
            return [int(lengths[str(i)][()]) for i in range(len(lengths))]
        except (OSError, RuntimeError, TypeError, ValueError) as e:
            raise UserError(f"{path}: len: expected a whole number for each clip: {' '.join(str(e).split())}") from None


def read_clip(path, clip, frames_key=""):
    """All frames of one clip: uint8 [T, H, W, 3].

    Raises:
      BrokenItem: a frame is missing, damaged or of another kind.
    """
    where = f"{frames_key}/{clip}" if frames_key else str(clip)
    with _open(path) as shard:
        try:
            length = int(shard[f"len/{clip}"][()])
            frames = [shard[f"{where}/{j}"][()] for j in range(length)]
        except (AttributeError, KeyError, OSError, RuntimeError, TypeError, ValueError) as e:
            hint = "" if frames_key or "videos" not in shard else "; clips of EPIC-KITCHENS need --frames_key=videos"
            raise BrokenItem(f"{path}: clip {clip}: cannot read it: {' '.join(str(e).split())}{hint}") from None
    shapes = {np.shape(f) for f in frames}
    if len(shapes) != 1 or len(shape := shapes.pop()) != 3 or shape[-1] != 3 or not 0 < min(shape) or (
        {f.dtype for f in frames} != {np.dtype(np.uint8)}
    ):  # fmt: skip
        raise BrokenItem(f"{path}: clip {clip}: expected frames uint8 [H, W, 3] of one size")
    return np.stack(frames)


def stretched(frame, size):
    """uint8 [H, W, 3] as the original stores it: bicubic with antialiasing to (width, height), whatever its shape."""
    height, width = frame.shape[:2]
    # The order of Pillow 13, with which the original was recorded, as measured on random sizes.
    rows_first = height - size[1] > 2 * max(width - size[0], 0)
    return _resized(frame, size, Image.Resampling.BICUBIC, rows_first)


def _resized(frame, size, filtering, rows_first=False):
    """Resizes one axis after the other.

    Pillow rounds and clips between them, so that the order shows, by 15 grey levels in noise.
    Its own choice depends on its version: up to 12 always columns first.
    """
    image = Image.fromarray(frame)
    between = (image.width, size[1]) if rows_first else (size[0], image.height)
    return np.asarray(image.resize(between, filtering).resize(size, filtering))


def fitted(frame, side):
    """uint8 [H, W, 3] as the original reads it: shorter side resized (bilinear, antialiased), middle cut out."""
    height, width = frame.shape[:2]
    short, long = min(height, width), max(height, width)
    if short != side:
        longer = int(side * long / short)
        size = (longer, side) if width >= height else (side, longer)
        frame = _resized(frame, size, Image.Resampling.BILINEAR)
    top, left = (int(round((s - side) / 2)) for s in frame.shape[:2])
    return frame[top : top + side, left : left + side]
