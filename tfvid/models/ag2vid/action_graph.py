"""The JSON file of an action graph: which objects, and which actions happen when.

    {
      "frames": 16,
      "objects": [
        {"name": "cup", "shape": "cone", "color": "red", "size": "large", "box": [0.1, 0.3, 0.3, 0.5]},
        {"name": "ball", "shape": "sphere", "color": "blue"}
      ],
      "actions": [
        {"subject": "ball", "action": "slide", "start": 0, "end": 8, "destination": [0.7, 0.6]},
        {"subject": "cup", "action": "contain", "target": "ball", "start": 6, "end": 15}
      ]
    }

`frames`: of the video, the given one included. `objects`: their attributes and boxes (x0, y0,
x1, y1 in frame sides). Where the first frame is one of a data set's clips, an object needs
only as much as tells it from the others, and objects that are not named stay. `actions`: the
frames in which they start and end (before 0 and after the last are fine); `target` where it is
not the subject itself; `destination`: the centre of the subject's box at the end.
`relations`: [subject, relation, object] triples, for models that were trained with some.
"""

import dataclasses
import difflib

import numpy as np

from tfvid.errors import UserError
from tfvid.hparams import read_json_object

MOST_FRAMES = 1024


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """Names of what a model was trained with.

    Attributes:
      attributes: {attribute: [name of value 0, of value 1, ...]}; value 0 is not for objects.
      actions, relations: names by id.
    """

    attributes: dict
    actions: list
    relations: list

    @classmethod
    def of_labels(cls, labels, where):
        """From the `labels` of dataset_info.json; UserError that names `where` if there are none."""
        attributes = {k.partition("/")[2]: list(v) for k, v in labels.items() if k.startswith("objects/")}
        if not attributes or "timed_actions" not in labels:
            raise UserError(f"{where}: expected the names of attributes and actions (labels), found none")
        return cls(attributes, list(labels["timed_actions"]), list(labels.get("relations", [])))


@dataclasses.dataclass(frozen=True)
class Action:
    """One edge: subject and target are numbers of objects, start and end frames."""

    subject: int
    action: int
    target: int
    start: float
    end: float
    destination: tuple | None


@dataclasses.dataclass(frozen=True)
class ActionGraph:
    """A parsed file.

    Attributes:
      frames: of the video, the given one included.
      names: of the objects.
      objects: int32 [O, A] attributes.
      boxes: float32 [O, 4] corners in the first frame.
      actions: list of `Action`. relations: list of (subject, relation, object).
    """

    frames: int
    names: list
    objects: np.ndarray
    boxes: np.ndarray
    actions: list
    relations: list

    def batch(self, image):
        """A batch of one with the data's keys; image uint8 [H, W, 3] is the first frame."""
        times = np.arange(self.frames)[:, None]
        starts, ends = (np.array([[getattr(a, k) for a in self.actions]], float) for k in ("start", "end"))
        rows = [(a.subject, a.action, a.target) for a in self.actions] or [(0, -1, 0)]
        progress = (times - starts) / (ends - starts + 1) if self.actions else np.full((self.frames, 1), -1.0)
        relations = np.array(self.relations or [(0, -1, 0)], np.int32)
        batch = {
            "images": np.asarray(image)[None],
            "objects": self.objects,
            "boxes": self.boxes[None],
            "relations": np.repeat(relations[None], self.frames, axis=0),
            "timed_actions": np.array(rows, np.int32),
            "action_progress": progress.astype(np.float32),
            "action_destinations": np.array([self._corner(a) for a in self.actions] or [(0, 0)], np.float32),
        }
        return {k: v[None] for k, v in batch.items()}

    def _corner(self, action):
        """Where the top left corner of the subject's box ends, as the data has it."""
        if action.destination is None:
            return 0.0, 0.0
        box = self.boxes[action.subject]
        return tuple(np.asarray(action.destination) - (box[2:] - box[:2]) / 2)


def read(path, vocabulary, scene=None):
    """Reads and checks a file; see `parse`."""
    return parse(read_json_object(path), vocabulary, scene, path)


def parse(document, vocabulary, scene=None, name="graph"):
    """An `ActionGraph` of a JSON object.

    Args:
      document: the object.
      vocabulary: a `Vocabulary`.
      scene: {"objects" [O, A], "boxes" [O, 4]} of the first frame where it is known.
      name: of the file, for errors.

    Raises:
      UserError: one line that names the file, the place, what was expected and received.
    """
    check = _Checker(name)
    check.keys(document, "", {"frames", "objects", "actions", "relations"}, ("frames", "objects", "actions"))
    frames = document["frames"]
    if type(frames) is not int or not 2 <= frames <= MOST_FRAMES:
        check.fail("frames", f"an integer from 2 to {MOST_FRAMES}", frames)
    objects = check.list(document["objects"], "objects")
    if not objects and scene is None:
        check.fail("objects", "at least one object", objects)
    names, attributes, boxes = _objects(check, objects, vocabulary, scene)
    actions = [
        _action(check, v, f"actions[{i}]", names, vocabulary)
        for i, v in enumerate(check.list(document["actions"], "actions"))
    ]
    relations = [
        _relation(check, v, f"relations[{i}]", names, vocabulary)
        for i, v in enumerate(check.list(document.get("relations", []), "relations"))
    ]
    _check_overlaps(check, actions, names)
    return ActionGraph(frames, names, np.array(attributes, np.int32), np.array(boxes, np.float32), actions, relations)


def _objects(check, values, vocabulary, scene):
    """(names, attributes, boxes) of all objects, those of the scene that the file leaves out at the end."""
    names, attributes, boxes, taken = [], [], [], {}
    for i, value in enumerate(values):
        where = f"objects[{i}]"
        check.keys(value, where, {"name", "box", *vocabulary.attributes}, ("name",))
        name = value["name"]
        if not isinstance(name, str) or not name or name in names:
            check.fail(f"{where}.name", "a name that no other object has", name)
        row, box = _attributes(check, value, where, vocabulary), value.get("box")
        if scene is not None and box is None:
            slot = _slot_of(check, row, where, scene, taken)
            taken[slot] = name
            row, box = scene["objects"][slot], scene["boxes"][slot]
        else:
            missing = [k for k, v in zip(vocabulary.attributes, row) if v == 0]
            if missing:
                check.fail(where, f"all attributes ({', '.join(vocabulary.attributes)})", f"no {missing[0]}")
            if box is None:
                check.fail(where, "a box [x0, y0, x1, y1], or a first frame from the data set (--clip)", "no box")
            box = check.numbers(box, f"{where}.box", 4)
            if box[0] >= box[2] or box[1] >= box[3]:
                check.fail(f"{where}.box", "[x0, y0, x1, y1] with x0 < x1 and y0 < y1", value["box"])
        names.append(name)
        attributes.append(row)
        boxes.append(box)
    for slot in range(len(scene["objects"]) if scene else 0):
        if scene["objects"][slot][0] > 0 and slot not in taken:
            names.append(f"object {slot}")
            attributes.append(scene["objects"][slot])
            boxes.append(scene["boxes"][slot])
    return names, attributes, boxes


def _attributes(check, value, where, vocabulary):
    """Ids of the attributes that are given, 0 for others."""
    row = []
    for key, values in vocabulary.attributes.items():
        row.append(check.word(value[key], f"{where}.{key}", values[1:]) + 1 if key in value else 0)
    return row


def _slot_of(check, row, where, scene, taken):
    """The one object of the scene with these attributes."""
    found = [
        slot
        for slot, known in enumerate(scene["objects"])
        if known[0] > 0 and slot not in taken and all(a in (0, b) for a, b in zip(row, known))
    ]
    if len(found) != 1:
        check.fail(where, "attributes of one object in the first frame", f"attributes of {len(found)} objects")
    return found[0]


def _action(check, value, where, names, vocabulary):
    known = {"subject", "action", "target", "start", "end", "destination"}
    check.keys(value, where, known, ("subject", "action", "start", "end"))
    subject = check.word(value["subject"], f"{where}.subject", names)
    target = check.word(value["target"], f"{where}.target", names) if "target" in value else subject
    kind = value["action"]
    if isinstance(kind, str) and f"_{kind}" in vocabulary.actions:  # CATER's names begin with _
        kind = f"_{kind}"
    kind = check.word(kind, f"{where}.action", vocabulary.actions)
    start, end = (check.numbers([value[k]], f"{where}.{k}", 1)[0] for k in ("start", "end"))
    if end <= start:
        check.fail(f"{where}.end", f"a frame after start={value['start']}", value["end"])
    destination = value.get("destination")
    if destination is not None:
        destination = check.numbers(destination, f"{where}.destination", 2)
    return Action(subject, kind, target, start, end, destination)


def _relation(check, value, where, names, vocabulary):
    if not isinstance(value, list) or len(value) != 3:
        check.fail(where, "[subject, relation, object]", value)
    return (
        check.word(value[0], f"{where}[0]", names),
        check.word(value[1], f"{where}[1]", vocabulary.relations),
        check.word(value[2], f"{where}[2]", names),
    )


def _check_overlaps(check, actions, names):
    """One object does one thing at a time."""
    by_subject = sorted(enumerate(actions), key=lambda pair: (pair[1].subject, pair[1].start))
    for (_, a), (i, b) in zip(by_subject, by_subject[1:]):
        if a.subject == b.subject and b.start < a.end:
            check.fail(
                f"actions[{i}].start", f"a frame from {a.end:g} on, when {names[a.subject]!r} is free", f"{b.start:g}"
            )


class _Checker:
    """Checks of single values; what does not hold is a UserError that names the file and the place."""

    def __init__(self, name):
        self.name = name

    def fail(self, where, expected, received):
        place = f"{self.name}: {where}" if where else self.name
        raise UserError(
            f"{place}: expected {expected}. Received: {received if isinstance(received, str) else repr(received)}"
        )

    def keys(self, value, where, known, required):
        if not isinstance(value, dict):
            self.fail(where, "a JSON object", value)
        for key in value:
            if key not in known:
                self.fail(where, f"the keys {', '.join(sorted(known))}", f"{key!r}{_nearest(key, known)}")
        for key in required:
            if key not in value:
                self.fail(where, f"the key {key!r}", f"only {', '.join(sorted(value)) or 'none'}")

    def list(self, value, where):
        if not isinstance(value, list):
            self.fail(where, "a list", value)
        return value

    def numbers(self, value, where, count):
        ok = isinstance(value, list) and len(value) == count
        ok = ok and all(type(v) in (int, float) and abs(v) < 1e6 for v in value)
        if not ok:
            self.fail(
                where, "a number" if count == 1 else f"a list of {count} numbers", value[0] if count == 1 else value
            )
        return tuple(float(v) for v in value)

    def word(self, value, where, known):
        if value not in known:
            hint = _nearest(value, known) if isinstance(value, str) else ""
            self.fail(where, f"one of {', '.join(known) or 'none'}", f"{value!r}{hint}")
        return list(known).index(value)


def _nearest(word, known):
    match = difflib.get_close_matches(str(word), list(known), n=1)
    return f"; nearest: {match[0]!r}" if match else ""
