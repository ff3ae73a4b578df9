"""Penn Action: windows of poses (and frames) with an action class.

Zhang, Zhu and Derpanis, "From Actemes to Action: A Strongly-Supervised Representation for
Detailed Action Understanding", ICCV 2013. Geometry and windows as in xiaogang00/ACT-VAE.

A window is a source frame and the frames that follow it at a constant step. Coordinates
in the records are those of the network: 2 p / S - 1 for pixel p of a square of S pixels,
so in [-1, 1 - 2 / S]; joints are in Penn Action's order.
"""

import dataclasses
import re

import cv2
import numpy as np

from tfvid.data.records import DataError

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
        """Unique among the windows of one data set unless they are static."""
        return f"{self.video:04d}_{self.frames[0]:04d}_{self.step:02d}"


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
