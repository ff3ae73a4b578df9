"""Something-Something V2 with the boxes of Something-Else (Materzynska et al., 2020), as AG2Vid reads them.

The source is a folder with

    train.csv, val_split.csv, test_split.csv     rows id, template, placeholders, nr_instances, err
    objs_mapping.json                            noun -> coarse class (also in offical_release_boxes/)
    boxes_by_video_id/<id>/boxes.pkl             per frame: name and boxes; or boxes.json with the same
    frames/<id>/0001.jpg ... or videos/<id>.webm

Of each video the span in which all objects are annotated becomes one record. Pickles are
read as data; nothing in any file is executed.
"""

import csv
import io
import json
import math
import os
import random
import re

import numpy as np
import tensorflow as tf

from tfvid.conversion.pickle_reader import PickleError, read_pickle
from tfvid.data.caddy_videos import transform
from tfvid.data.preparation import BrokenItem, Item, Option, Preparation
from tfvid.data.records import DataError, pad_scene, read_json
from tfvid.data.video_files import open_video, read_bytes, read_image
from tfvid.errors import UserError

SPLIT_FILES = {"train": "train.csv", "val": "val_split.csv", "test": "test_split.csv"}
HAND = "hand"
# Action -> number of annotated instances, the hand included.
ACTIONS = {
    "Putting [something] on a surface": 2,
    "Moving [something] up": 2,
    "Pushing [something] from left to right": 2,
    "Moving [something] down": 2,
    "Pushing [something] from right to left": 2,
    "Covering [something] with [something]": 3,
    "Uncovering [something]": 2,
    "Taking [one of many similar things on the table]": 2,
}
RELATIONS = ("__in_image__", "right", "above", "below", "left", "surrounding", "inside", "cover")
SLOTS = {"objects": 3, "relations": 4, "actions": 2}
LEAST_FRAMES = 8  # of a span; up to CLIP it is extended by its last frame
CLIP = 16


class Something(Preparation):
    """One item a video; objects, boxes, relations and the action travel along."""

    ENCODING = "jpeg"
    OPTIONS = {
        "size": Option(256, "side to which frames are stretched, in pixels"),
        "geometry": Option(
            "published", "of relations; published: as the original, which takes width and height for a corner",
            ("published", "corners"),
        ),
    }  # fmt: skip
    ITEMS_PER_FILE = 32
    DEFAULTS = {"context_frames": 1, "sequence_length": CLIP, "long_sequence_length": CLIP, "time_shift": 1}

    def validate(self):
        if self.options["size"] < 32:
            raise UserError(f"--size: expected at least 32. Received: {self.options['size']}")
        self.classes = read_mapping(self.source_dir)

    def items(self):
        items = []
        for split, file in SPLIT_FILES.items():
            path = os.path.join(self.source_dir, file)
            if tf.io.gfile.exists(path):
                rows = usable_rows(read_bytes(path).decode(errors="replace"), self.classes, path)
                items += [Item(name, split, {"action": action}) for name, action in rows]
        if not items:
            raise UserError(f"{self.source_dir}: expected videos in {', '.join(SPLIT_FILES.values())}, found none")
        return items

    def clips(self, item):
        frames = read_annotation(os.path.join(self.source_dir, "boxes_by_video_id", item.key), item.key)
        action = item.payload["action"]
        start, end = annotated_span(frames, ACTIONS[action], item.key)
        if end - start < LEAST_FRAMES:
            raise BrokenItem(f"{item.key}: expected at least {LEAST_FRAMES} annotated frames. Received: {end - start}")
        images, (width, height) = self._images([f["name"] for f in frames[start:end]], item.key)
        classes, boxes = clip_boxes(frames[start:end], self.classes, ACTIONS[action], item.key)
        relations = clip_relations(extents_of(boxes, width, height), random.Random(item.key), self.options["geometry"])
        boxes = boxes / (width, height, width, height)
        clip = {
            "objects": np.array([[class_names(self.classes).index(c)] for c in classes], np.int32),
            "boxes": boxes.astype(np.float32),
            "relations": relations,
            **action_keys(action, len(classes), end - start),
        }
        clip = extended({"images": images, **clip}, CLIP)
        yield {"images": clip.pop("images"), **pad_scene(clip, **SLOTS)}

    def _images(self, names, key):
        """(uint8 [T, size, size, 3], (width, height) of the source) of the named frames."""
        size = (self.options["size"],) * 2
        video = os.path.join(self.source_dir, "videos", f"{key}.webm")
        if not tf.io.gfile.exists(video):
            images = [read_image(os.path.join(self.source_dir, "frames", n)) for n in names]
            return np.stack([transform(i, None, size) for i in images]), images[0].shape[1::-1]
        numbers = [frame_number(n) - 1 for n in names]  # the first frame is 0001
        found = {}
        with open_video(video) as (images, _):
            for number, image in enumerate(images):
                if number in numbers:
                    found[number], shape = transform(image, None, size), image.shape[1::-1]
        missing = sorted(set(numbers) - set(found))
        if missing:
            raise BrokenItem(f"{video}: expected frame {missing[0] + 1}, which is annotated")
        return np.stack([found[n] for n in numbers]), shape

    def description(self):
        return {"source": "Something-Something V2 with Something-Else boxes", "fps": 12.0, "labels": self._labels()}

    def _labels(self):
        return {
            "objects/object": class_names(self.classes),
            "relations": list(RELATIONS),
            "timed_actions": list(ACTIONS),
        }


def read_mapping(source_dir):
    """{noun: coarse class} from objs_mapping.json."""
    places = [os.path.join(source_dir, *p, "objs_mapping.json") for p in ((), ("offical_release_boxes",))]
    found = [p for p in places if tf.io.gfile.exists(p)]
    if not found:
        raise UserError(f"{places[0]}: expected the file that maps nouns to classes, found none")
    mapping = read_json(found[0])
    if not all(isinstance(v, str) for v in mapping.values()) or HAND not in mapping.values():
        raise DataError(f"{found[0]}: expected class names, {HAND!r} among them")
    return mapping


def class_names(mapping):
    """Name of each id of the attribute "object": "__image__", then the classes in alphabetical order."""
    return ["__image__", *sorted(set(mapping.values()))]


def usable_rows(text, mapping, path="split file"):
    """[(video id, template)] of the rows of a split file that can be used.

    Left out: rows with anything in `err` (also "False", as in the original), other
    templates, another number of instances, nouns without a class.
    """
    try:
        return _usable_rows(csv.DictReader(io.StringIO(text)), mapping, path)
    except DataError:
        raise
    except (csv.Error, ValueError) as e:
        raise DataError(f"{path}: expected a table of comma separated values: {e}") from None


def _usable_rows(reader, mapping, path):
    missing = [c for c in ("id", "template", "placeholders", "nr_instances") if c not in (reader.fieldnames or [])]
    if missing:
        raise DataError(f"{path}: expected the columns id, template, placeholders, nr_instances; no {missing[0]!r}")
    rows = []
    for row in reader:
        action = row["template"]
        if row.get("err") or action not in ACTIONS or not row["nr_instances"] or not row["id"]:
            continue
        if float(row["nr_instances"]) != ACTIONS[action]:
            continue
        if all(noun in mapping for noun in quoted_strings(row["placeholders"] or "")):
            rows.append((row["id"].strip(), action))
    return rows


def quoted_strings(text):
    """The strings in the text of a list, e.g. "['cup', \\"dog's toy\\"]"."""
    found = re.findall(r"""'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)\"""", text)
    return [re.sub(r"\\(.)", r"\1", a or b) for a, b in found]


def read_annotation(folder, key):
    """The frames of boxes.pkl or boxes.json: [{"name", "labels", "nr_instances"}], each name once."""
    stem = os.path.join(folder, "boxes")
    try:
        if tf.io.gfile.exists(f"{stem}.json"):
            frames = json.loads(read_bytes(f"{stem}.json"))
        else:
            frames = read_pickle(io.BytesIO(read_bytes(f"{stem}.pkl")), constructors={})
    except (PickleError, ValueError, RecursionError) as e:
        raise BrokenItem(f"{key}: boxes: expected a list of plain values: {e}") from None
    return unique_frames(frames, key)


def unique_frames(frames, key):
    """The first frame of each name, checked."""
    found = {}
    try:
        for frame in frames:
            for label in frame["labels"]:
                corners = [label["box2d"][k] for k in ("x1", "y1", "x2", "y2")]
                if not all(type(c) in (int, float) and abs(c) < 2**31 for c in corners):
                    raise ValueError(f"box {corners}")
                _ = hash((label["category"], label["standard_category"], label["gt_annotation"]))
            if not isinstance(frame["name"], str) or ".." in frame["name"] or os.path.isabs(frame["name"]):
                raise ValueError(f"name {frame['name']!r}")
            found.setdefault(frame["name"], frame)
    except (KeyError, TypeError, ValueError) as e:
        raise BrokenItem(f"{key}: boxes: expected name, labels and box2d; {type(e).__name__}: {e}") from None
    return list(found.values())


def annotated_span(frames, count, key):
    """(s, e): from the first frame with all `count` instances up to and with the last, e exclusive."""
    full = [i for i, frame in enumerate(frames) if len(frame["labels"]) == count]
    if not full:
        raise BrokenItem(f"{key}: expected a frame with {count} annotated instances, found none")
    return full[0], full[-1] + 1


def clip_boxes(frames, mapping, count, key):
    """(classes of the objects, the hand last; boxes float64 [T, O, 4] corners in pixels).

    Objects are numbered by their first appearance in these frames. One that is not
    annotated in a frame keeps its box; before its first appearance, and where a box has
    neither width nor height, it is all 0.
    """
    numbers, boxes = {}, []
    for frame in frames:
        now = dict(enumerate(boxes[-1])) if boxes else {}
        for label in frame["labels"]:
            if label["category"] not in mapping:
                raise BrokenItem(f"{key}: expected nouns of objs_mapping.json. Received: {label['category']!r}")
            identity = (label["standard_category"], label["gt_annotation"], mapping[label["category"]])
            number = numbers.setdefault(identity, len(numbers))
            corners = [float(label["box2d"][k]) for k in ("x1", "y1", "x2", "y2")]
            empty = corners[0] == corners[2] and corners[1] == corners[3]
            now[number] = [0.0] * 4 if empty else corners
        boxes.append([now.get(i, [0.0] * 4) for i in range(len(numbers))])
    classes = [identity[-1] for identity in numbers]
    if len(classes) != count or HAND in classes[:-1] or classes[-1] != HAND:
        raise BrokenItem(f"{key}: expected {count} objects, the hand last. Received: {', '.join(classes)}")
    return classes, np.array([b + [[0.0] * 4] * (count - len(b)) for b in boxes])


def extents_of(boxes, width, height):
    """[..., 4] corners in pixels -> (x0, y0, w, h) in frame sides; equal sides in pixels stay equal."""
    extents = np.concatenate([boxes[..., :2], boxes[..., 2:] - boxes[..., :2]], axis=-1)
    return extents / (width, height, width, height)


def clip_relations(boxes, rng, geometry="published"):
    """int32 [T, K, 3]: for each object but the hand (if there are several) one relation drawn, then "in the image".

    Args:
      boxes: [T, O, 4] extents (x0, y0, w, h), the hand last.
      rng: `random.Random`, which draws as the original does.
      geometry: see `relation`.
    """
    hand, frames = boxes.shape[1] - 1, []
    for row in boxes:
        triplets = []
        for i in range(hand if hand > 1 else 0):
            other = rng.choice([j for j in range(hand) if j != i])
            subject, target = (i, other) if rng.random() > 0.5 else (other, i)
            triplets.append((subject, relation(row[subject], row[target], geometry), target))
        frames.append(triplets + [(i, 0, hand) for i in range(hand)])
    return np.array(frames, np.int32)


def relation(subject, target, geometry="published"):
    """Id in RELATIONS of what the box `subject` is to the box `target`, both (x0, y0, w, h).

    "published": width and height are taken for the second corner, as the original does.
    """
    # In float32, as in the original: diagonal neighbours hang on the rounding.
    s, o = np.array(subject, np.float32), np.array(target, np.float32)
    if geometry == "corners":
        s, o = (np.concatenate([b[:2], b[:2] + b[2:]]) for b in (s, o))
    if (s[:2] < o[:2]).all() and (s[2:] > o[2:]).all():
        return RELATIONS.index("surrounding")
    if (s[:2] > o[:2]).all() and (s[2:] < o[2:]).all():
        return RELATIONS.index("inside")
    dx, dy = (s[:2] + s[2:]) / 2 - (o[:2] + o[2:]) / 2
    angle = math.atan2(dy, dx)
    if abs(angle) >= 3 * math.pi / 4:
        return RELATIONS.index("left")
    if angle < -math.pi / 4:
        return RELATIONS.index("above")
    return RELATIONS.index("right" if angle < math.pi / 4 else "below")


def action_keys(action, objects, length):
    """The timed actions of a span: hand to first object, first to second, ..., all the same action.

    Progress at frame t of the span is (t + 1) / length.
    """
    chain = [objects - 1, *range(objects - 1)]
    kind = list(ACTIONS).index(action)
    progress = (np.arange(length)[:, None] + 1) / length
    return {
        "timed_actions": np.array([(a, kind, b) for a, b in zip(chain, chain[1:])], np.int32),
        "action_progress": np.repeat(progress, objects - 1, axis=1).astype(np.float32),
        "action_destinations": np.zeros((objects - 1, 2), np.float32),
    }


def extended(clip, length):
    """A clip of at least `length` frames: the last one is repeated, actions go on."""
    missing = length - len(clip["images"])
    if missing <= 0:
        return clip
    result = dict(clip)
    for key in ("images", "boxes", "relations"):
        result[key] = np.concatenate([clip[key], np.repeat(clip[key][-1:], missing, axis=0)])
    progress = clip["action_progress"]
    rate = progress[1] - progress[0]
    result["action_progress"] = progress[0] + rate * np.arange(length, dtype=np.float32)[:, None]
    return result


def frame_number(name):
    """The number in a frame's name, 101/0007.jpg -> 7."""
    match = re.search(r"(\d+)\.[A-Za-z]+$", name)
    if not match:
        raise BrokenItem(f"{name}: expected a frame's name that ends in its number")
    return int(match[1])
