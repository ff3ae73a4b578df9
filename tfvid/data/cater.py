"""CATER (Girdhar and Ramanan, 2020), part max2action: videos and scene files with 3-D tracks and timed actions.

The source is a folder with `videos/<name>.avi`, `scenes/<name>.json` and the split files
`train.txt`, `val_split.txt` and `test_split.txt` of AG2Vid (lines "<name>.avi labels").
Boxes are projected centres with an extent for each shape and size, as AG2Vid has them.
"""

import json
import os
import re

import numpy as np
import tensorflow as tf

from tfvid.data.caddy_videos import transform
from tfvid.data.preparation import BrokenItem, Item, Option, Preparation
from tfvid.data.records import DataError, pad_scene, read_json
from tfvid.data.video_files import open_video, read_bytes
from tfvid.errors import UserError

SPLIT_FILES = {"train": "train.txt", "val": "val_split.txt", "test": "test_split.txt"}
# Videos whose file is damaged at the source.
CORRUPT = ("004798", "006532", "001175", "000434", "000346")
FRAMES = 301
WIDTH, HEIGHT = 320, 240  # of the videos, to which the extents of boxes refer
LEAST_ACTION = 12  # frames; shorter actions are left out
ATTRIBUTES = {
    "shape": ("cube", "sphere", "cylinder", "spl", "cone"),
    "color": ("gray", "red", "blue", "green", "brown", "purple", "cyan", "yellow", "gold"),
    "material": ("rubber", "metal"),
    "size": ("small", "large", "medium"),
}
RELATIONS = ("__in_image__", "right", "above", "below", "left", "surrounding", "inside")
ACTIONS = ("__in_image__", "_no_op", "_slide", "_contain", "_rotate", "_pick_place")
WITH_DESTINATION = ("_slide", "_pick_place")
LABELS = {
    **{f"objects/{k}": ["__image__", *v] for k, v in ATTRIBUTES.items()},
    "relations": list(RELATIONS),
    "timed_actions": list(ACTIONS),
}
# Camera: homogeneous image coordinates of a point in the scene.
CAMERA = np.array(
    [
        [1.4503, 1.6376, 0.0, -0.0251], [-1.0346, 0.9163, 2.5685, 0.0095],
        [-0.6606, 0.5850, -0.4748, 10.5666], [-0.6592, 0.5839, -0.4738, 10.7452],
    ]
)  # fmt: skip
# Half extents in pixels (sideways, up, down); other shapes are as the cube.
_CUBE = {"large": (35, 35, 35), "medium": (25, 25, 25), "small": (15, 15, 15)}
_EXTENTS = {
    "cone": {"large": (35, 25, 40), "medium": (25, 15, 30), "small": (20, 20, 20)},
    "sphere": {"large": (35, 25, 40), "medium": (25, 25, 25), "small": (15, 15, 15)},
}


class Cater(Preparation):
    """One item a video; objects, boxes and timed actions travel along."""

    ENCODING = "jpeg"
    OPTIONS = {"size": Option(256, "side to which frames are stretched, in pixels")}
    ITEMS_PER_FILE = 8
    # Every third frame, as initial_frames_per_sample = 3 * frames_per_action in the original.
    DEFAULTS = {
        "context_frames": 1,
        "sequence_length": 16,
        "long_sequence_length": 16,
        "frame_skip": 2,
        "time_shift": 1,
    }

    def validate(self):
        if self.options["size"] < 32:
            raise UserError(f"--size: expected at least 32. Received: {self.options['size']}")

    def items(self):
        names = {split: read_split(os.path.join(self.source_dir, file)) for split, file in SPLIT_FILES.items()}
        if not any(names.values()):
            raise UserError(
                f"{self.source_dir}: expected the split files {', '.join(SPLIT_FILES.values())}, found none"
            )
        objects, actions = self._slots([n for split in names.values() for n in split])
        payload = {"objects": objects, "actions": actions}
        return [Item(name, split, payload) for split in SPLIT_FILES for name in names[split]]

    def _slots(self, names):
        """The largest numbers of objects and of actions in any scene; scenes that cannot be read count nothing."""
        objects, actions = 1, 1
        for name in names:
            try:
                scene = read_scene(self._scene(name))
            except DataError:
                continue  # `clips` will say so
            objects = max(objects, len(scene["objects"]))
            actions = max(actions, len(scene_actions(scene)))
        return objects, actions

    def _scene(self, name):
        return os.path.join(self.source_dir, "scenes", f"{name}.json")

    def clips(self, item):
        if item.key.split("_")[-1] in CORRUPT:
            raise BrokenItem(f"{item.key}: this video is damaged at the source and is left out")
        scene = read_scene(self._scene(item.key))
        images = read_frames(os.path.join(self.source_dir, "videos", item.key), (self.options["size"],) * 2)
        if len(images) != FRAMES:
            raise BrokenItem(f"{item.key}: expected a video of {FRAMES} frames. Received: {len(images)}")
        clip = scene_keys(scene, len(images))
        yield {"images": images, **pad_scene(clip, item.payload["objects"], 0, item.payload["actions"])}

    def description(self):
        return {"source": "CATER max2action", "fps": 24.0, "labels": LABELS}


def read_split(path):
    """Names of videos without their suffix, in order; [] where there is no such file."""
    if not tf.io.gfile.exists(path):
        return []
    return split_names(read_bytes(path).decode(errors="replace"), path)


def split_names(text, path="split file"):
    """Names in the text of a split file; the labels behind them are not used."""
    names = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        match = re.fullmatch(r"(\S+)\.avi(\s.*)?", line.strip())
        if not match or "/" in match[1]:
            raise DataError(f"{path}: line {number}: expected '<name>.avi labels'. Received: {line[:60]!r}")
        names.append(match[1])
    return names


def read_scene(path):
    """A scene file, checked; DataError names it."""
    try:
        return checked_scene(read_json(path), path)
    except (KeyError, TypeError, ValueError, AttributeError, json.JSONDecodeError) as e:
        if isinstance(e, DataError):
            raise
        raise DataError(f"{path}: expected a scene of CATER; {type(e).__name__}: {e}") from None


def checked_scene(scene, path):
    """{"objects": [...], "movements": {...}} whose names are all known."""
    instances = [o["instance"] for o in scene["objects"]]
    for entry in scene["objects"]:
        for key, known in ATTRIBUTES.items():
            if entry[key] not in known:
                raise DataError(f"{path}: {key}: expected one of {', '.join(known)}. Received: {entry[key]!r}")
    for instance, movements in scene["movements"].items():
        for action, target, start, end in movements:
            names = [n for n in (instance, target) if n is not None and n not in instances]
            if names:
                raise DataError(f"{path}: movements: expected objects of the scene. Received: {names[0]!r}")
            if action not in ACTIONS or not 0 <= start <= end:
                raise DataError(f"{path}: movements of {instance}: expected a known action and start <= end")
    for entry in scene["objects"]:
        if np.shape(list(entry["locations"].values()))[1:] != (3,):
            raise DataError(f"{path}: locations of {entry['instance']}: expected [x, y, z] of each frame")
    return {"objects": scene["objects"], "movements": scene["movements"]}


def project(points):
    """[..., 3] points of the scene -> [..., 2] image coordinates (x right, y down) in [-1, 1]."""
    points = np.asarray(points, np.float64)
    homogeneous = np.concatenate([points, np.ones_like(points[..., :1])], -1) @ CAMERA.T
    return np.stack([homogeneous[..., 0], -homogeneous[..., 1]], -1) / homogeneous[..., 3:]


def object_boxes(entry):
    """[T, 4] corners (x0, y0, x1, y1) in frame sides of one object; may leave the image."""
    centres = (project(list(entry["locations"].values())) + 1) / 2 * (WIDTH, HEIGHT)
    sideways, up, down = _EXTENTS.get(entry["shape"], _CUBE)[entry["size"]]
    corners = np.concatenate([centres - (sideways, up), centres + (sideways, down)], -1)
    return corners / (WIDTH, HEIGHT, WIDTH, HEIGHT)


def scene_actions(scene):
    """[(subject, action, target, first frame, last frame)] in the order of the file, without short ones."""
    number = {entry["instance"]: i for i, entry in enumerate(scene["objects"])}
    return [
        (number[instance], ACTIONS.index(action), number[instance if target is None else target], int(start), int(end))
        for instance, movements in scene["movements"].items()
        for action, target, start, end in movements
        if end - start >= LEAST_ACTION
    ]


def scene_keys(scene, length):
    """The keys of a whole video: objects, boxes and timed actions.

    Progress of an action from frame a to frame b at frame t: (t - a) / (b - a + 1).
    """
    boxes = [object_boxes(entry) for entry in scene["objects"]]
    if any(len(b) < length for b in boxes):
        raise BrokenItem(f"expected locations of {length} frames. Received: {min(map(len, boxes))}")
    boxes = np.stack([b[:length] for b in boxes], axis=1)  # [T, O, 4]
    actions = scene_actions(scene)
    starts, ends = (np.array([[a[k] for a in actions]], np.float64) for k in (3, 4))
    destinations = [
        boxes[min(end, length - 1), subject, :2] if ACTIONS[action] in WITH_DESTINATION else (0, 0)
        for subject, action, _, _, end in actions
    ]
    return {
        "objects": np.array([[v.index(o[k]) + 1 for k, v in ATTRIBUTES.items()] for o in scene["objects"]], np.int32),
        "boxes": boxes.astype(np.float32),
        "timed_actions": np.array([a[:3] for a in actions], np.int32).reshape(-1, 3),
        "action_progress": ((np.arange(length)[:, None] - starts) / (ends - starts + 1)).astype(np.float32),
        "action_destinations": np.array(destinations, np.float32).reshape(-1, 2),
    }


def read_frames(stem, size):
    """uint8 [T, H, W, 3]: frames of `<stem>.avi`, or of the folder `<stem>`, stretched to size (width, height)."""
    with open_video(stem if tf.io.gfile.isdir(stem) else f"{stem}.avi") as (frames, _):
        return np.stack([transform(frame, None, size) for frame in frames])
