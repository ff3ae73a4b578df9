"""Videos as CADDY (Playable Video Generation) keeps them: frames and pickled annotations.

A data set is a folder `{train,val,test}/<video>/` of frames `00000.png` ... beside
`actions.pkl`, `rewards.pkl`, `metadata.pkl` and `dones.pkl`: lists with one entry a frame,
or of nothing but None. Original: willi-menapace/PlayableVideoGeneration, dataset/video.py
and dataset/video_dataset.py. Pickles are read as data, nothing in them is called.
"""

import io
import os
import re

import numpy as np
import tensorflow as tf
from PIL import Image

from tfvid.conversion.pickle_reader import PickleError, read_pickle
from tfvid.data.folders import names_in
from tfvid.data.preparation import BrokenItem, Item, Option, Preparation, cut_into_clips, parse_size
from tfvid.data.records import SPLITS
from tfvid.data.video_files import check_fps, frame_files, natural_key, read_bytes, read_image
from tfvid.errors import UserError

# Annotation -> what stands for None.
ANNOTATIONS = {"actions": 0, "rewards": 0.0, "metadata": None, "dones": False}
_TYPES = {"actions": (int,), "rewards": (int, float), "metadata": (dict,), "dones": (bool,)}
# Largest magnitudes of what becomes int32 and float32.
_LIMITS = {"actions": 2**31 - 1, "rewards": float(np.finfo(np.float32).max)}


class CaddyVideos(Preparation):
    """One item a video; action_labels, rewards and, where metadata has it, states travel along."""

    ENCODING = "lossless"
    OPTIONS = {
        "size": Option("", "side of the frames, or WIDTHxHEIGHT, in pixels; empty: as they are"),
        "crop": Option("", "LEFT,UPPER,RIGHT,LOWER in pixels, cut out before the resizing; empty: all"),
        "frame_skip": Option(0, "frames left out between two that are kept"),
        "clip_length": Option(0, "frames of a clip; 0: a whole video is one clip"),
        "resample": Option("bilinear", "how frames are resized", ("bilinear", "bicubic")),
        "frame_rate": Option(0.0, "frames per second of the videos, where it is known; 0: not known"),
    }
    DEFAULTS = {"context_frames": 6, "sequence_length": 12, "long_sequence_length": 16, "time_shift": 1}

    def validate(self):
        parse_size(self.options["size"])
        parse_crop(self.options["crop"])
        if self.options["clip_length"] < 0 or self.options["clip_length"] == 1:
            raise UserError(f"--clip_length: expected 0 or at least 2. Received: {self.options['clip_length']}")
        check_fps(self.options["frame_rate"], "--frame_rate", low=0)
        if self.options["frame_skip"] < 0:
            raise UserError(f"--frame_skip: expected at least 0. Received: {self.options['frame_skip']}")

    def items(self):
        items = []
        for split in SPLITS:
            folder = os.path.join(self.source_dir, split)
            if not tf.io.gfile.isdir(folder):
                continue
            for name in sorted(names_in(folder), key=natural_key):
                if tf.io.gfile.isdir(os.path.join(folder, name)):
                    items.append(Item(f"{split}/{name}", split, {"path": f"{split}/{name}"}))
        if not items:
            raise UserError(f"{self.source_dir}: expected folders train/, val/, test/ with one folder a video")
        return items

    def clips(self, item):
        folder = os.path.join(self.source_dir, item.payload["path"])
        crop, size = parse_crop(self.options["crop"]), parse_size(self.options["size"])
        video = read_annotated_video(folder, crop, size, self.options["resample"])
        skip = self.options["frame_skip"]
        video["rewards"] = summed_rewards(video["rewards"], skip)
        video = {key: values[:: skip + 1] for key, values in video.items()}
        clip = {
            "images": video["images"],
            # An action is chosen while its frame is seen; the last one leads nowhere.
            "action_labels": np.array(video["actions"][:-1], np.int32),
            "rewards": np.array(video["rewards"], np.float32),
        }
        states = state_vectors(video["metadata"])
        if states is not None:
            clip["states"] = states
        length = self.options["clip_length"]
        if len(clip["images"]) < max(length, 2):
            raise BrokenItem(f"{folder}: expected at least {max(length, 2)} frames, received {len(clip['images'])}")
        yield from cut_into_clips(clip, length)

    def description(self):
        name = os.path.basename(os.path.normpath(self.source_dir))
        return {"source": f"annotated videos in {name}", "fps": self.options["frame_rate"] or None}


def read_annotated_video(folder, crop=None, size=None, resample="bilinear"):
    """One video folder.

    Args:
      crop: (left, upper, right, lower) in pixels, or None.
      size: (width, height), or None.
      resample: "bilinear" or "bicubic", both with antialiasing.

    Returns:
      {"images": uint8 [T, H, W, 3], "actions": [T ints], "rewards": [T floats],
      "metadata": [T dicts], "dones": [T bools]}.

    Raises:
      DataError, VideoError: what is wrong, with the file.
    """
    names = frame_files(folder)
    if not names:
        raise BrokenItem(f"{folder}: expected frames 00000.png ..., found no image")
    frames = [transform(read_image(os.path.join(folder, n)), crop, size, resample) for n in names]
    if len({f.shape for f in frames}) > 1:
        raise BrokenItem(f"{folder}: expected frames of one size, received {sorted({f.shape for f in frames})}")
    video = {"images": np.stack(frames)}
    for name in ANNOTATIONS:
        video[name] = read_annotation(os.path.join(folder, f"{name}.pkl"), name, len(names))
    return video


def read_annotation(path, name, length):
    """The list in an annotation file; a file that is not there and a list of None give the default."""
    default = {} if name == "metadata" else ANNOTATIONS[name]
    if not tf.io.gfile.exists(path):
        return [default] * length
    try:
        values = read_pickle(io.BytesIO(read_bytes(path)), constructors={})
    except PickleError as e:
        raise BrokenItem(f"{path}: expected a list of plain values: {e}") from None
    if not isinstance(values, list) or len(values) != length:
        received = f"{len(values)} entries" if isinstance(values, list) else type(values).__name__
        raise BrokenItem(f"{path}: expected a list of {length} entries, one a frame. Received: {received}")
    if all(v is None for v in values):
        return [default] * length
    for number, value in enumerate(values):
        if not isinstance(value, _TYPES[name]) or (isinstance(value, bool) and name != "dones"):
            kinds = " or ".join(t.__name__ for t in _TYPES[name])
            raise BrokenItem(f"{path}: entry {number}: expected {kinds}. Received: {value!r:.80}")
        if name in _LIMITS and not abs(value) <= _LIMITS[name]:
            raise BrokenItem(
                f"{path}: entry {number}: expected a magnitude of at most {_LIMITS[name]:.7g}. Received: {value!r:.80}"
            )
    return values


def summed_rewards(rewards, frame_skip):
    """What is earned from the frame kept before each frame up to it: a list of the same length."""
    return [sum(rewards[max(i - frame_skip, 0) : i + 1]) for i in range(len(rewards))]


def state_vectors(metadata):
    """float32 [T, S] from metadata["state"] where every frame has one of the same size, else None."""
    states = [m.get("state") for m in metadata]
    if not all(isinstance(s, (list, tuple)) and s and len(s) == len(states[0]) for s in states):
        return None
    if not all(isinstance(v, (int, float)) and not isinstance(v, bool) for s in states for v in s):
        return None
    return np.array(states, np.float32)


def transform(frame, crop=None, size=None, resample="bilinear"):
    """uint8 [H, W, 3], cropped, then resized with antialiasing where the size differs."""
    image = Image.fromarray(frame)
    if crop is not None:
        image = image.crop(crop)
    if size is not None and image.size != tuple(size):
        image = image.resize(tuple(size), Image.Resampling[resample.upper()])
    return np.asarray(image)


def parse_crop(text):
    """Text as 0,16,160,208 -> (left, upper, right, lower) in pixels; empty -> None."""
    if not text:
        return None
    parts = text.split(",")
    if len(parts) != 4 or not all(re.fullmatch(r"\s*-?\d+\s*", p) for p in parts):
        raise UserError(f"--crop: expected LEFT,UPPER,RIGHT,LOWER in pixels. Received: {text!r}")
    left, upper, right, lower = (int(p) for p in parts)
    if right <= left or lower <= upper:
        raise UserError(f"--crop: expected LEFT < RIGHT and UPPER < LOWER. Received: {text!r}")
    return left, upper, right, lower
