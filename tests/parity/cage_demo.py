"""Recorded sessions of CAGE's demos, and clips of its data reader."""

import re

import numpy as np
import tensorflow as tf

from tests.parity.cage_support import assert_close, first, last, ordered_draws
from tfvid.data.hdf5_shards import list_clips, read_clip, stretched
from tfvid.models.cage.controls import Controls, Grid, Group
from tfvid.models.cage.hparams import CageHParams
from tfvid.models.cage.model import Cage
from tfvid.models.draws import RecordedDraws


class Session:
    """Replays the mouse and keys of a demo: which groups are selected, where they are put.

    Attributes:
      groups: tiles of each selection, in order.
      placements: (entry, group number, x, y) in order.
    """

    def __init__(self, grid, compose):
        self.grid, self.compose = grid, compose
        self.mode, self.down, self.tentative = None, False, None
        self.groups, self.placements = [], []
        self.entry = self.number = 0

    def run(self, events):
        for kind, *arguments in events:
            getattr(self, kind)(*arguments)
        return self

    def key(self, key):
        if key == "c":
            self.mode = "select"
            if not self.compose:
                self.groups.append([])
        elif key == "m":
            self.mode = "move"
        elif key == "v":
            self.mode, self.number = "paste", 0
        elif key == "n" and self.mode in ("paste", "move"):
            self.number, self.entry = self.number + 1, 0
            self.mode = "paste" if self.number < len(self.groups) else None
        elif key == "n":
            self.mode = None

    def press(self, x, y):
        self.down = True
        if self.mode == "select":
            self.entry = 1
            if self.compose:
                self.groups.append([])
        elif self.mode == "paste":
            self.entry = 0
            self.placements.append((0, self.number, x, y))
        elif self.mode == "move" and self.compose:
            self.entry += 1
        self.move(x, y)

    def move(self, x, y):
        if self.down and self.mode == "select":
            tile = self.grid.tile_at(x, y)
            if tile not in self.groups[-1]:
                self.groups[-1].append(tile)
        elif self.down and self.mode == "move":
            self.tentative = (x, y)

    def release(self, x, y):
        self.down = False
        if self.mode == "move":
            number = self.number if self.compose else len(self.groups) - 1
            self.placements.append((self.entry, number, *self.tentative))
            if not self.compose:
                self.entry += 1

    def controls(self, length, images):
        """The `Controls`; group g is of image images[g]."""
        controls = Controls(self.grid, length)
        for entry, number, x, y in self.placements:
            controls.place(entry, Group(images[number], tuple(self.groups[number])), x, y)
        return controls


def check_demo(case, model):
    masks, images = case.arrays["animate/masks"], last(case.arrays["in/images"])
    (rows, columns), tile = masks.shape[-2:], case.meta["tile"]  # the original's tiles are square, whatever the frame
    grid = Grid(rows, columns, rows * tile, columns * tile)
    features = np.asarray(model.features(tf.constant(images)[:, None]))[:, 0]

    session = Session(grid, False).run(case.meta["events_animate"])
    controls, placed = session.controls(len(masks), [0] * len(session.groups)).arrays(features[:1])
    for group in session.groups:  # entry 0 is the image itself
        for tile in group:
            placed[(0, *tile)] = 1
    controls[0] = features[0]
    np.testing.assert_array_equal(placed[..., 0], masks)
    assert_close(first(controls), case.arrays["animate/features"], "animate")
    sample(case, model, "animate", images[:1], controls[1:], placed[1:])

    masks = case.arrays["compose/masks"]
    assert_close(first(features[1:]), case.arrays["compose/features"], "features")
    session = Session(grid, True).run(case.meta["events_compose"])
    controls, placed = session.controls(len(masks), range(len(session.groups))).arrays(features[1:])
    np.testing.assert_array_equal(placed[..., 0], masks)
    assert_close(first(controls), case.arrays["compose/controls"], "compose")
    sample(case, model, "compose", None, controls, placed)


def sample(case, model, part, initial, controls, masks):
    """Generates with the recorded draws and compares."""
    recorded = case.arrays[f"{part}/generated"]
    draws = [(n, v) for n, v in ordered_draws(case.arrays, f"{part}/draw/")]
    noise = [last(v) for n, v in draws if n.startswith("randn")]
    contexts = [v for n, v in draws if n.startswith("randint")]
    evaluations = sum(n == "rand" for n, _ in draws)  # each shuffles the tokens
    given = 0 if initial is None else len(initial)
    count = recorded.shape[1] - given
    chunks = -(-count // model.hparams.num_target_frames)
    values, evaluated = dict(zip(("initial_noise", "start_noise"), noise)), iter(contexts)

    def draws_of(name, evaluation=None):
        if name in values:
            return RecordedDraws({name: values[name]})
        return RecordedDraws({"context": next(evaluated)})

    frames = model.sample(
        draws_of,
        count,
        None if initial is None else tf.constant(initial[None]),
        tf.constant(controls[None]),
        tf.constant(masks[None]),
        num_steps=evaluations // chunks,
        odesolver="euler",
    )
    assert next(evaluated, None) is None
    assert_close(first(frames), recorded[:, given:], part)


def check_data(case):
    """The shard's clips, and what the original's reader makes of them."""
    stem = case.folder / case.name
    (path,) = sorted(stem.parent.glob(f"{stem.name}_shard*.hdf5")) or sorted(stem.parent.glob("*.hdf5"))
    clips = list_clips(str(path))
    for number, (length, stored) in enumerate(zip(clips, _videos(case, "h5"), strict=True)):
        assert length == len(stored)
        np.testing.assert_array_equal(read_clip(str(path), number), stored)
    side = case.meta["image_size"]
    for raw, stored in zip(_videos(case, "raw"), _videos(case, "h5"), strict=True):
        np.testing.assert_array_equal(np.stack([stretched(f, (side, side)) for f in raw]), stored)
    for key, meta in case.meta["samples"].items():
        check_sample(case, str(path), key, meta)


def _videos(case, kind):
    videos = case.under(f"{kind}/video_")
    return [videos[k] for k in sorted(videos, key=int)]


def check_sample(case, path, key, meta):
    name, number = key.split("/sample_")
    recorded = last(case.arrays[key])
    skip = int((re.match(r"skip(\d+)", name) or [0, 0])[1])
    span = (skip + 1) * (len(recorded) - 1) + 1
    frames = read_clip(path, int(number))[meta["time_idx"] :][: span : skip + 1]
    values = {"flip": np.array([meta.get("flip_draw") == 0])}  # the original's 0 means: mirrored
    if "aug_u" in meta:
        values["jitter"] = np.array([meta["aug_u"]], np.float32)
    hparams = CageHParams(random_horizontal_flip="flip_draw" in meta, aug="aug_u" in meta)
    holder = type("Augmented", (), {"hparams": hparams, "wide_dtype": tf.float32})()
    images = Cage.augmented(holder, tf.constant(frames[None]), RecordedDraws(values))
    signed = Cage.signed(holder, images)[0].numpy()
    if "aug_u" not in meta:
        np.testing.assert_array_equal(signed, recorded, err_msg=key)
        return
    difference = np.abs(signed - recorded) * 127.5
    assert difference.max() < 1.001 and (difference > 0.5).mean() < 0.01, key
