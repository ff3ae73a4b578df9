"""The JSON file that says what to compose: images, objects in them, and where they go.

    {
      "images": [{"file": "scene.png"}, {"clip": 3, "split": "test", "frame": 0}],
      "initial": [0],
      "num_frames": 9,
      "objects": [
        {"image": 0, "box": [8, 8, 24, 24], "path": [[16, 16], [20, 16], null]},
        {"image": 1, "mask": "mask.png", "keyframes": {"0": [20, 20], "8": [50, 20]}},
        {"image": 0, "tiles": [[2, 3], [2, 4]], "stay": [0, 8]}
      ],
      "num_steps": 20
    }

`images`: files (beside the JSON file; stretched to the model's frames) or frames of clips.
`initial`: the images that the video goes on from; [] generates from nothing.
`objects`: tiles of an image by box (x0, y0, x1, y1 in pixels), mask (white) or tiles (row,
column); and where their middle is in each generated frame: `path` a list of [x, y] or null
(nothing placed; frames after its end stay empty), `keyframes` {frame: [x, y]} with straight
lines between, `stay` [first, last] the frames in which the object stays where it is.
Sampling options: see OPTIONS; without one, the model's own.
"""

import dataclasses
import json
import math
import os

from tfvid.errors import UserError
from tfvid.hparams import read_json_object
from tfvid.models.cage.controls import Controls, Group

# Sampling options a file may set -> their types.
OPTIONS = {
    "num_steps": int, "odesolver": str, "gamma": float, "past_horizon": int, "method": str, "corrected_rollout": bool,
}  # fmt: skip
OWN = {"seed": int, "num_samples": int, "fps": float}
SELECTIONS, PLACES = ("box", "mask", "tiles"), ("path", "keyframes", "stay")
MOST_FRAMES = 4096


@dataclasses.dataclass(frozen=True)
class ImageSource:
    """Where an image comes from: a file, or a frame of a clip of the data set."""

    file: str | None = None
    clip: int | None = None
    split: str = "test"
    frame: int = 0


@dataclasses.dataclass(frozen=True)
class ObjectPlan:
    """One object: which tiles, and where.

    Attributes:
      image: number of its image.
      kind: "box", "mask" or "tiles"; `value` of it as in the file.
      positions: for each generated frame (x, y), "stay" or None.
    """

    image: int
    kind: str
    value: object
    positions: tuple


@dataclasses.dataclass(frozen=True)
class Plan:
    """A checked control file.

    Attributes:
      images: of `ImageSource`. initial: numbers of images. objects: of `ObjectPlan`.
      options: sampling options. seed, num_samples, fps: of the result.
      folder: that relative files lie in.
    """

    images: tuple
    initial: tuple
    num_frames: int
    objects: tuple
    options: dict
    seed: int = 0
    num_samples: int = 1
    fps: float = 4.0
    folder: str = ""

    def groups(self, grid, read_mask):
        """A `Group` for each object.

        Args:
          grid: a `Grid`.
          read_mask: function of a file's path -> [H, W] in the frame's size.
        """
        return [Group(o.image, _tiles(i, o, grid, self.folder, read_mask)) for i, o in enumerate(self.objects)]

    def controls(self, grid, groups):
        """The `Controls` of all objects' paths."""
        controls = Controls(grid, self.num_frames)
        for item, group in zip(self.objects, groups):
            for frame, position in enumerate(item.positions):
                if position == "stay":
                    controls.move(frame, group)
                elif position is not None:
                    controls.move_to(frame, group, *position)
        return controls


def read(path):
    """Reads and checks a control file; UserError with one line that names the file and the place."""
    return parse(read_json_object(path), path, os.path.dirname(path))


def parse(document, name="controls", folder=""):
    """A `Plan` of a JSON object; `name` is for errors."""
    check = _Checker(name)
    known = {"images", "initial", "num_frames", "objects", *OPTIONS, *OWN}
    check.object(document, "", known, ("images", "num_frames"))
    num_frames = check.integer(document["num_frames"], "num_frames", 1, MOST_FRAMES)
    images = tuple(_image(check, v, f"images[{i}]") for i, v in enumerate(check.list(document["images"], "images")))
    initial = check.list(document.get("initial", []), "initial")
    initial = tuple(check.integer(v, f"initial[{i}]", 0, len(images) - 1) for i, v in enumerate(initial))
    objects = check.list(document.get("objects", []), "objects")
    objects = tuple(_object(check, v, f"objects[{i}]", len(images), num_frames) for i, v in enumerate(objects))
    options = {k: check.typed(document[k], k, t) for k, t in OPTIONS.items() if k in document}
    own = {k: check.typed(document[k], k, t) for k, t in OWN.items() if k in document}
    if own.get("num_samples", 1) < 1:
        check.fail("num_samples", "at least 1", own["num_samples"])
    if own.get("fps", 1) <= 0:
        check.fail("fps", "a positive number", own["fps"])
    if not images and objects:
        check.fail("images", "the images that the objects are taken from", [])
    return Plan(images, initial, num_frames, objects, options, folder=folder, **own)


def _image(check, value, where):
    check.object(value, where, {"file", "clip", "split", "frame"}, ())
    if ("file" in value) == ("clip" in value):
        check.fail(where, "either file or clip", value)
    if "file" in value:
        check.object(value, where, {"file"}, ())
        return ImageSource(file=check.typed(value["file"], f"{where}.file", str))
    split = value.get("split", "test")
    if split not in ("train", "val", "test"):
        check.fail(f"{where}.split", "train, val or test", split)
    clip = check.integer(value["clip"], f"{where}.clip", 0)
    return ImageSource(clip=clip, split=split, frame=check.integer(value.get("frame", 0), f"{where}.frame", 0))


def _object(check, value, where, images, num_frames):
    check.object(value, where, {"image", *SELECTIONS, *PLACES}, ("image",))
    image = check.integer(value["image"], f"{where}.image", 0, images - 1)
    kinds, places = ([k for k in names if k in value] for names in (SELECTIONS, PLACES))
    if len(kinds) != 1:
        check.fail(where, f"one of {', '.join(SELECTIONS)}", sorted(value))
    if len(places) != 1:
        check.fail(where, f"one of {', '.join(PLACES)}", sorted(value))
    kind, place = kinds[0], places[0]
    at, given = f"{where}.{kind}", value[kind]
    if kind == "box":
        given = check.numbers(given, at, 4)
        if given[0] >= given[2] or given[1] >= given[3]:
            check.fail(at, "[x0, y0, x1, y1] with x0 < x1 and y0 < y1", value[kind])
    elif kind == "tiles":
        given = tuple(check.numbers(v, f"{at}[{i}]", 2, int) for i, v in enumerate(check.list(given, at)))
    else:
        given = check.typed(given, at, str)
    reader = {"path": _path, "keyframes": _keyframes, "stay": _stay}[place]
    return ObjectPlan(image, kind, given, reader(check, value[place], f"{where}.{place}", num_frames))


def _path(check, value, where, num_frames):
    entries = check.list(value, where)
    if len(entries) > num_frames:
        check.fail(where, f"at most num_frames={num_frames} places", f"{len(entries)} places")
    found = [None if v is None else check.numbers(v, f"{where}[{i}]", 2) for i, v in enumerate(entries)]
    return tuple(found + [None] * (num_frames - len(found)))


def _keyframes(check, value, where, num_frames):
    check.object(value, where, None, ())
    points = {}
    for key, point in value.items():
        if not key.isdecimal() or int(key) >= num_frames:
            check.fail(where, f"frames from 0 to {num_frames - 1}", key)
        points[int(key)] = check.numbers(point, f"{where}[{key!r}]", 2)
    if not points:
        check.fail(where, "at least one frame", value)
    frames = sorted(points)
    positions = [None] * num_frames
    for a, b in zip(frames, frames[1:] or frames):
        for f in range(a, b + 1):
            share = (f - a) / max(b - a, 1)
            positions[f] = tuple(p + share * (q - p) for p, q in zip(points[a], points[b]))
    return tuple(positions)


def _stay(check, value, where, num_frames):
    first, last = check.numbers(value, where, 2, int)
    if not 0 <= first <= last < num_frames:
        check.fail(where, f"[first, last] with 0 <= first <= last <= {num_frames - 1}", value)
    return tuple("stay" if first <= f <= last else None for f in range(num_frames))


def _tiles(number, item, grid, folder, read_mask):
    """The tiles of one object, all within the frame."""
    where = f"objects[{number}].{item.kind}"
    if item.kind == "box":
        tiles = grid.tiles_in_box(item.value)
    elif item.kind == "mask":
        tiles = grid.tiles_of_mask(read_mask(os.path.join(folder, item.value)))
    else:
        tiles = item.value
        wrong = [t for t in tiles if not grid.holds(t)]
        if wrong:
            raise UserError(
                f"{where}: expected rows below {grid.rows} and columns below {grid.columns}. Received: {list(wrong[0])}"
            )
    if not tiles:
        raise UserError(
            f"{where}: expected a part of the frame of {grid.width} x {grid.height} pixels. Received: {item.value!r}"
        )
    return tiles


class _Checker:
    """Checks JSON values; every failure is one line with file, place, expected and received."""

    def __init__(self, name):
        self._name = name

    def fail(self, where, expected, received):
        text = received if isinstance(received, str) else json.dumps(received)
        place = f"{self._name}: {where}" if where else self._name
        raise UserError(f"{place}: expected {expected}. Received: {text[:200]}")

    def object(self, value, where, known, required):
        if not isinstance(value, dict):
            self.fail(where, "an object", value)
        for key in value:
            if known is not None and key not in known:
                self.fail(where, f"keys of {', '.join(sorted(known))}", key)
        for key in required:
            if key not in value:
                self.fail(where, f"the key {key}", sorted(value))

    def list(self, value, where):
        if not isinstance(value, list):
            self.fail(where, "a list", value)
        return value

    def typed(self, value, where, kind):
        names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
        if type(value) is int and abs(value) >= 2**63:
            self.fail(where, f"{names.get(kind)} of 64 bits", value)
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind or (kind is float and not math.isfinite(value)):
            self.fail(where, names[kind], value)
        return value

    def integer(self, value, where, low, high=None):
        value = self.typed(value, where, int)
        if value < low or (high is not None and value > high):
            bound = f"from {low} to {high}" if high is not None else f">= {low}"
            self.fail(where, f"a whole number {bound}" if high is None or high >= low else "no entry", value)
        return value

    def numbers(self, value, where, count, kind=float):
        if not isinstance(value, list) or len(value) != count:
            self.fail(where, f"{count} numbers", value)
        found = tuple(self.typed(v, where, kind) for v in value)
        if any(abs(v) > 2**20 for v in found):
            self.fail(where, f"numbers up to {2**20}", value)
        return found
