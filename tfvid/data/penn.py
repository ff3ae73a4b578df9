"""Penn Action: windows of poses (and frames) with an action class.

Zhang, Zhu and Derpanis, "From Actemes to Action: A Strongly-Supervised Representation for
Detailed Action Understanding", ICCV 2013. Geometry and windows as in xiaogang00/ACT-VAE.

Three sources are read:

    frames/<video>/<frame>.jpg and labels/<video>.mat   the data set as published
    training_pair_penn5.txt, testing_pair_penn5.txt     the original's lists, beside frames/
    one *.npz                                           windows of poses, without frames

A window is a source frame and the frames that follow it at a constant step. Coordinates
in the records are those of the network: 2 p / S - 1 for pixel p of a square of S pixels,
so in [-1, 1 - 2 / S]; joints are in Penn Action's order. Where there are no frames, stick
figures are drawn in their place.
"""

import dataclasses
import io
import math
import os
import re
import zipfile
import zlib

import cv2
import numpy as np
import tensorflow as tf

from tfvid.data.figures import draw_clip
from tfvid.data.folders import names_in
from tfvid.data.mat_file import read_mat
from tfvid.data.preparation import BrokenItem, Item, Option, Preparation, split_of_fractions
from tfvid.data.records import DataError
from tfvid.data.video_files import read_bytes, read_image
from tfvid.errors import UserError

# Classes of the original, in the order of its numbers; Penn Action has six more.
ACTIONS = (
    "tennis_serve", "pullup", "clean_and_jerk", "tennis_forehand", "baseball_pitch", "jumping_jacks", "golf_swing",
    "squat", "baseball_swing",
)  # fmt: skip
LISTS = {"train": "training_pair_penn5.txt", "test": "testing_pair_penn5.txt"}
KEPT_FRAMES = 33  # of a video, at a constant step

JOINTS = (
    "head", "left shoulder", "right shoulder", "left elbow", "right elbow", "left wrist", "right wrist",
    "left hip", "right hip", "left knee", "right knee", "left ankle", "right ankle",
)  # fmt: skip
WINDOW = 6  # the source and five targets
PADDING = (124, 116, 104)  # RGB around frames that are not square

_FIELDS = 188
_FRAME_NAME = re.compile(r"(\d+)/(\d+)\.\w+$")


@dataclasses.dataclass(frozen=True)
class Window:
    """One clip, coordinates in pixels of the video's frames.

    Attributes:
      video: its number.
      frames: numbers of the frames, the source first.
      paths: of the frames' files, as the list has them, or ().
      action: name.
      action_class: number.
      crop: (x1, y1, x2, y2) that is cut out of every frame.
      boxes: [T, 4] (x1, y1, x2, y2) around the person in each frame.
      poses: [T, J, 2].
      visible: [T, J] or None where it is not known.
    """

    video: int
    frames: tuple
    paths: tuple
    action: str
    action_class: int
    crop: tuple
    boxes: np.ndarray
    poses: np.ndarray
    visible: np.ndarray | None = None

    @property
    def step(self):
        """Video frames from one frame of the window to the next; 0: all are the same frame."""
        return self.frames[1] - self.frames[0]

    @property
    def name(self):
        """As the original names its results: <video>_<source frame>."""
        return f"{self.video:04d}_{self.frames[0]:04d}"


def parse_list_line(line, where):
    """One line of the original's list files (188 fields, the source's pose last)."""
    fields = line.strip().split(",")
    if len(fields) != _FIELDS:
        raise DataError(f"{where}: expected {_FIELDS} fields separated by commas. Received: {len(fields)}")
    try:
        action_class = int(fields[7])
        crop = tuple(int(float(v)) for v in fields[8:12])
        boxes = np.array(fields[12:32], np.float64).reshape(5, 4)
        poses = np.array(fields[32:], np.float64).reshape(WINDOW, len(JOINTS), 2)
    except ValueError as e:
        raise DataError(f"{where}: expected numbers from the eighth field on: {e}") from None
    poses = np.concatenate([poses[-1:], poses[:-1]])
    numbers = [_FRAME_NAME.search(path) for path in fields[:WINDOW]]
    if not all(numbers):
        raise DataError(f"{where}: expected paths .../<video>/<frame>.jpg. Received: {fields[0]!r}")
    boxes = np.concatenate([pose_box(poses[0])[None], boxes])
    return Window(
        video=int(numbers[0].group(1)), frames=tuple(int(m.group(2)) for m in numbers), paths=tuple(fields[:WINDOW]),
        action=fields[6], action_class=action_class, crop=crop, boxes=boxes, poses=poses,
    )


def pose_box(pose):
    """[4]: the truncated extremes of a pose's joints, as the lists have a person's box."""
    return np.trunc(np.concatenate([pose.min(0), pose.max(0)]))


@dataclasses.dataclass(frozen=True)
class Letterbox:
    """How a crop lies in a square of `size` pixels.

    Attributes:
      crop: (x1, y1, x2, y2), inside the image.
      width, height: of the crop in the square.
      left, top: whole pixels before it.
      shift: (x, y) that is added to coordinates, which is not rounded.
      scale: pixels of the square for one of the frame.
    """

    size: int
    crop: tuple
    width: int
    height: int
    left: int
    top: int
    shift: tuple
    scale: float

    @classmethod
    def of(cls, crop, size, image_size=None):
        """Args: crop as in `Window`; image_size (width, height), None where it is not known."""
        x1, y1, x2, y2 = crop
        x1, y1 = max(0, x1), max(0, y1)
        if image_size:
            x2, y2 = min(image_size[0] - 1, x2), min(image_size[1] - 1, y2)
        if x2 <= x1 or y2 <= y1:
            raise DataError(f"expected a crop box with an area inside the frame. Received: {tuple(crop)}")
        scale = size / max(y2 - y1, x2 - x1)
        width, height = round((x2 - x1) * scale), round((y2 - y1) * scale)
        if not width or not height:
            raise DataError(f"expected a crop box that fills a pixel of {size}x{size}. Received: {tuple(crop)}")
        shift = ((size - width) / 2, (size - height) / 2)
        return cls(
            size, (x1, y1, x2, y2), width, height, round(shift[0] - 0.1), round(shift[1] - 0.1), shift, scale
        )

    def image(self, frame):
        """uint8 [h, w, 3] -> [S, S, 3]."""
        x1, y1, x2, y2 = self.crop
        resized = cv2.resize(frame[y1:y2, x1:x2], (self.width, self.height), interpolation=cv2.INTER_AREA)
        result = np.empty((self.size, self.size, 3), np.uint8)
        result[:] = PADDING
        result[self.top : self.top + self.height, self.left : self.left + self.width] = resized
        return result

    def poses(self, poses):
        """Pixels of the frame -> network coordinates; joints outside move to the border."""
        inside = (poses - np.array(self.crop[:2])) * self.scale + np.array(self.shift)
        return (2 * np.clip(inside, 0, self.size - 1) / self.size - 1).astype(np.float32)

    def box(self, box, image_size=None):
        """A box in pixels of the frame -> the pixels that it covers in the square, as fractions of its side.

        Returns:
          float32 [4]: x0, y0, x1, y1 in [0, 1], ends exclusive; all 0 for an empty box.
        """
        sides = []
        for axis, (start, length, before) in enumerate(
            ((self.crop[0], self.width, self.left), (self.crop[1], self.height, self.top))
        ):
            end = self.crop[axis + 2]
            low, high = int(max(0, box[axis])), int(box[axis + 2])
            if image_size:
                high = min(image_size[axis] - 1, high)
            covered = np.zeros(end - start, np.uint8)
            covered[max(low - start, 0) : max(high - start, 0)] = 1
            inside = np.flatnonzero(cv2.resize(covered[None], (length, 1), interpolation=cv2.INTER_NEAREST)[0])
            sides.append((inside[0] + before, inside[-1] + 1 + before) if len(inside) else (0, 0))
        (x0, x1), (y0, y1) = sides
        if x0 == x1 or y0 == y1:
            return np.zeros(4, np.float32)
        return np.array([x0, y0, x1, y1], np.float32) / self.size


def window_clip(window, frames, size):
    """A window as the arrays of a record.

    Args:
      window: a `Window`.
      frames: uint8 [h, w, 3] RGB for each frame, or None for poses alone.
      size: S, side of the square.

    Returns:
      {"images" [T, S, S, 3] where there are frames, "poses" [T, J, 2], "boxes" [T, 1, 4],
      "action_class", "frame_step"} and "pose_visible" where it is known.
    """
    image_size = None if frames is None else frames[0].shape[1::-1]
    box = Letterbox.of(window.crop, size, image_size)
    clip = {
        "poses": box.poses(window.poses),
        "boxes": np.stack([box.box(b, image_size) for b in window.boxes])[:, None],
        "action_class": np.int32(window.action_class),
        "frame_step": np.int32(window.step),
    }
    if window.visible is not None:
        clip["pose_visible"] = window.visible.astype(np.float32)
    if frames is not None:
        clip["images"] = np.stack([box.image(f) for f in frames])
    return clip


def box_masks(boxes, size):
    """[T, 1, 4] -> uint8 [T, size, size], 1 inside."""
    x0, y0, x1, y1 = (np.round(boxes[:, 0, i] * size).astype(int) for i in range(4))
    grid = np.arange(size)
    rows = (grid >= y0[:, None]) & (grid < y1[:, None])
    columns = (grid >= x0[:, None]) & (grid < x1[:, None])
    return (rows[:, :, None] & columns[:, None, :]).astype(np.uint8)


class Penn(Preparation):
    """One item a video, one clip a window."""

    OPTIONS = {
        "size": Option(128, "side of the square frames in pixels, to which pose coordinates refer"),
        "val": Option(0.05, "share of the training videos of each action for validation"),
        "seed": Option(0, "draws which videos validate"),
        "keep_static": Option(False, "keep windows whose frames are all the same, which the original trains on"),
        "clip_length": Option(WINDOW, "frames of a window cut from labels: the source and its targets"),
        "actions": Option(",".join(ACTIONS), "actions, comma separated, in the order of their numbers"),
        "figure_size": Option(64, "side of the stick figures that stand for frames where there are none"),
    }
    ITEMS_PER_FILE = 16
    # A training window has one target more than are generated; a test clip has those alone.
    DEFAULTS = {"context_frames": 1, "sequence_length": WINDOW, "long_sequence_length": WINDOW - 1, "time_shift": 1}

    def validate(self):
        for name, least in (("size", 16), ("figure_size", 16), ("clip_length", 2)):
            if self.options[name] < least:
                raise UserError(f"--{name}: expected at least {least}. Received: {self.options[name]}")
        split_of_fractions([], self.options["val"], 0.0)
        self.actions = tuple(a.strip() for a in self.options["actions"].split(","))
        self._windows = _open(self.source_dir, self.actions, self.options)

    def items(self):
        found = self._windows.videos()
        splits = {}
        for action in sorted({action for _, action, _ in found.values()}):
            keys = [k for k, (split, a, _) in found.items() if split == "train" and a == action]
            splits |= split_of_fractions(keys, self.options["val"], 0.0, self.options["seed"])
        return [Item(k, splits.get(k, split), payload) for k, (split, _, payload) in sorted(found.items())]

    def clips(self, item):
        frames, written = {}, 0
        for window in self._windows.windows(item.payload):
            if window.step == 0 and not self.options["keep_static"]:
                continue
            if not 0 <= window.action_class < len(self.actions):
                raise BrokenItem(f"{item.key}: expected an action below {len(self.actions)}: {window.action_class}")
            images = [self._frame(path, frames) for path in window.paths] if self._windows.has_frames else None
            clip = window_clip(window, images, self.options["size"])
            if images is None:
                size = self.options["figure_size"]
                clip["images"] = draw_clip(clip["poses"], size, window.video, self.options["size"])
            written += 1
            yield clip
        if not written:
            raise BrokenItem(f"{item.key}: it has no window")

    def _frame(self, path, kept):
        if path not in kept:
            kept[path] = read_image(os.path.join(self.source_dir, path))
        return kept[path]

    def defaults(self):
        length = self.options["clip_length"]
        return {**self.DEFAULTS, "sequence_length": length, "long_sequence_length": max(length - 1, 2)}

    def description(self):
        drawn = "" if self._windows.has_frames else "; frames are drawn stick figures"
        return {
            "source": f"Penn Action, {self._windows.SOURCE}{drawn}", "fps": None,
            "labels": {"action_class": list(self.actions)},
        }  # fmt: skip


def _open(folder, actions, options):
    """The kind of source that a folder is."""
    names = sorted(names_in(folder))
    arrays = [n for n in names if n.endswith(".npz")]
    if any(name in names for name in LISTS.values()):
        return _ListWindows(folder, names)
    if "labels" in names and "frames" in names:
        return _LabelWindows(folder, actions, options)
    if len(arrays) == 1:
        return _ArrayWindows(os.path.join(folder, arrays[0]), options["keep_static"])
    raise UserError(
        f"{folder}: expected Penn Action's frames/ and labels/, or the lists {' and '.join(LISTS.values())} beside"
        " frames/, or one .npz of windows, found none"
    )


class _ListWindows:
    """Windows of the original's list files."""

    SOURCE = "windows of the original project's lists"

    def __init__(self, folder, names):
        self._folder = folder
        self.has_frames = "frames" in names

    def videos(self):
        """{key: (split, action, payload)}."""
        found = {}
        for split, name in LISTS.items():
            path = os.path.join(self._folder, name)
            if not tf.io.gfile.exists(path):
                continue
            offset = 0
            for number, line in enumerate(read_bytes(path).split(b"\n"), 1):
                if line.strip():
                    window = parse_list_line(line.decode("utf-8", "replace"), f"{path}: line {number}")
                    payload = {"list": name, "lines": []}
                    key = f"{split}/{window.video:04d}"
                    found.setdefault(key, (split, window.action_class, payload))[2]["lines"].append([number, offset])
                offset += len(line) + 1
        return found

    def windows(self, payload):
        """Yields the windows of a video; paths are those below `frames`."""
        path = os.path.join(self._folder, payload["list"])
        with tf.io.gfile.GFile(path, "rb") as f:
            for number, offset in payload["lines"]:
                f.seek(offset)
                window = parse_list_line(f.readline().decode("utf-8", "replace"), f"{path}: line {number}")
                # The lists hold their author's own folders.
                paths = tuple("frames/" + "/".join(p.split("/")[-2:]) for p in window.paths)
                yield dataclasses.replace(window, paths=paths)


class _ArrayWindows:
    """Windows in one .npz: poses [N, T, J, 2], frames [N, T], video_id, action_id, bbox [N, 4], masks [N, T-1, 4].

    Videos whose windows have `split` 1 test, the others train.
    """

    SOURCE = "windows of poses"
    has_frames = False

    def __init__(self, path, keep_static):
        try:
            with np.load(io.BytesIO(read_bytes(path)), allow_pickle=False) as f:
                self._arrays = {k: f[k] for k in ("poses", "frames", "video_id", "action_id", "bbox", "masks", "split")}
                self._names = [str(n) for n in f["action_names"]]
            self._check()
        except (KeyError, TypeError, ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as e:
            raise UserError(f"{path}: expected windows of poses (poses, frames, video_id, ...): {e}") from None
        self._keep_static = keep_static

    def _check(self):
        """ValueError unless the arrays are as the class says."""
        a = self._arrays
        if a["poses"].ndim != 4 or a["poses"].shape[2:] != (len(JOINTS), 2) or a["poses"].shape[1] < 2:
            raise ValueError(f"poses of shape {list(a['poses'].shape)}")
        count, length = a["poses"].shape[:2]
        wanted = {
            "frames": (count, length), "video_id": (count,), "action_id": (count,), "split": (count,),
            "bbox": (count, 4), "masks": (count, length - 1, 4),
        }  # fmt: skip
        for key, shape in wanted.items():
            if a[key].shape != shape or a[key].dtype.kind not in "iuf":
                raise ValueError(f"{key} {a[key].dtype} {list(a[key].shape)} where numbers {list(shape)} belong")
        if count and not 0 <= a["action_id"].min() <= a["action_id"].max() < len(self._names):
            raise ValueError(f"action_id without a name in action_names, of which there are {len(self._names)}")

    def videos(self):
        a, found = self._arrays, {}
        for row, (video, split) in enumerate(zip(a["video_id"].tolist(), a["split"].tolist())):
            if a["frames"][row, 0] == a["frames"][row, 1] and not self._keep_static:
                continue
            entry = ("test" if split == 1 else "train", int(a["action_id"][row]), {"rows": []})
            found.setdefault(f"{video:04d}", entry)[2]["rows"].append(row)
        return found

    def windows(self, payload):
        a = self._arrays
        for row in payload["rows"]:
            action, poses = int(a["action_id"][row]), a["poses"][row].astype(np.float64)
            yield Window(
                video=int(a["video_id"][row]), frames=tuple(a["frames"][row].tolist()), paths=(),
                action=self._names[action], action_class=action, crop=tuple(a["bbox"][row].tolist()),
                boxes=np.concatenate([pose_box(poses[0])[None], a["masks"][row]]), poses=poses,
            )


class _LabelWindows:
    """Windows cut from the labels of the data set as published."""

    SOURCE = "windows cut from its labels"
    has_frames = True

    def __init__(self, folder, actions, options):
        self._folder, self._actions = folder, actions
        self._length, self._keep_static = options["clip_length"], options["keep_static"]

    def videos(self):
        found = {}
        folder = os.path.join(self._folder, "labels")
        for name in sorted(names_in(folder)):
            match = re.fullmatch(r"(\d+)\.mat", name)
            if not match:
                continue
            labels = read_labels(os.path.join(folder, name))
            if labels["action"] in self._actions:
                split = "train" if labels["train"] > 0 else "test"
                found[match.group(1)] = (split, labels["action"], {"video": match.group(1)})
        return found

    def windows(self, payload):
        """Yields windows of consecutive kept frames in all of which every joint is annotated."""
        video = payload["video"]
        labels = read_labels(os.path.join(self._folder, "labels", f"{video}.mat"))
        poses, annotated = labels["poses"], labels["annotated"]
        step = len(poses) // KEPT_FRAMES
        if not step and not self._keep_static:
            step = 1
        kept = [i * step for i in range(KEPT_FRAMES) if i * step < len(poses)]
        known = [i for i in kept if annotated[i].all()]
        if not known:
            return
        hull = poses[known].reshape(-1, 2)
        crop = tuple(int(math.floor(v)) for v in hull.min(0)) + tuple(int(math.ceil(v)) for v in hull.max(0))
        for start in range(len(kept) - self._length + 1):
            frames = kept[start : start + self._length]
            if not annotated[frames].all():
                continue
            numbers = tuple(i + 1 for i in frames)
            yield Window(
                video=int(video), frames=numbers, paths=tuple(f"frames/{video}/{n:06d}.jpg" for n in numbers),
                action=labels["action"], action_class=self._actions.index(labels["action"]), crop=crop,
                boxes=np.stack([pose_box(p) for p in poses[frames]]), poses=poses[frames],
                visible=labels["visible"][frames],
            )


def read_labels(path):
    """One label file of Penn Action.

    Returns:
      {"action": word, "train": 1 or -1, "poses": [T, 13, 2] pixels, "visible": [T, 13] of
      0 and 1, "annotated": [T, 13] bool: False where the file says (1, 1), "no position"}.
    """
    labels = read_mat(read_bytes(path), path)
    missing = [k for k in ("action", "x", "y", "visibility", "train") if k not in labels]
    if missing:
        raise DataError(f"{path}: expected Penn Action's variables, missing {', '.join(missing)}")
    numbers = [labels[k] for k in ("x", "y", "visibility", "train")]
    if isinstance(labels["action"], np.ndarray) or any(isinstance(n, str) for n in numbers):
        raise DataError(f"{path}: expected action as text, x, y, visibility and train as numbers")
    if labels["x"].shape != labels["y"].shape or not labels["train"].size:
        raise DataError(f"{path}: expected x and y of one shape and a value of train. Received: {labels['x'].shape}")
    poses = np.stack([labels["x"], labels["y"]], axis=-1).astype(np.float64)
    if poses.ndim != 3 or poses.shape[1] != len(JOINTS) or labels["visibility"].shape != poses.shape[:2]:
        raise DataError(f"{path}: expected x, y and visibility [T, {len(JOINTS)}]. Received: x {labels['x'].shape}")
    visible = labels["visibility"] > 0
    return {
        "action": labels["action"],
        "train": int(labels["train"].reshape(-1)[0]),
        "poses": poses,
        "visible": visible,
        "annotated": visible | (poses > 1).any(-1),
    }
