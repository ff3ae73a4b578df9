"""Recorded cases of AG2Vid's readers of CATER and Something-Something."""

import json
import random
import re

import numpy as np
import tensorflow as tf

from tfvid.data import cater, something
from tfvid.data.caddy_videos import transform
from tfvid.data.records import pad_scene
from tfvid.models.ag2vid.graph_inputs import graph_inputs
from tfvid.models.ag2vid.hparams import AG2VidHParams
from tfvid.models.ag2vid.model import MEAN, STD

# The recordings hold frames resized to the width and height of their `vids`.


def sets_of(case):
    """{name of a set of options: its options}."""
    return {k: v for k, v in case.meta["config"].items() if isinstance(v, dict)}


def indices_of(case, name):
    """Numbers of the clips that a set of options gave, in order; rejected ones are left out."""
    found = {k.split("/")[1] for k in case.arrays if k.startswith(f"{name}/") and k.endswith("/boxes")}
    return sorted(int(k) for k in found if k.isdecimal())


def seed_of(case):
    """The seed of Python's generator at index 0, from the recording's description: "... seeded with 2000+index"."""
    return int(re.search(r"(\d+) ?\+ ?index", case.meta["about"])[1])


def hparams_of(vocabulary, **more):
    return AG2VidHParams(
        attribute_sizes=tuple(max(v.values()) + 1 for v in vocabulary["attributes"].values()),
        num_predicates=len(vocabulary["pred_name_to_idx"]),
        num_actions=len(vocabulary["action_name_to_idx"]),
        **more,
    )


def prepared(clip, hparams, steps):
    """What the networks are given of one clip of the records: {key: array} without batch axis."""
    batch = {k: tf.constant(v)[None] for k, v in clip.items() if k != "images"}
    return {k: v[0].numpy() for k, v in graph_inputs(batch, steps, hparams).items()}


def chosen_range(text):
    """ "<name>_<start>-<end>" -> (name, start, end)."""
    match = re.fullmatch(r"(.+)_(\d+)-(\d+)", text)
    return match[1], int(match[2]), int(match[3])


def assert_frames(frames, recorded):
    """uint8 frames of the source against the recorded normalised ones, [T, 3, H, W]."""
    size = recorded.shape[:1:-1]
    ours = np.stack([transform(f, None, size) for f in frames]) / 255.0
    ours = (ours - MEAN) / STD
    np.testing.assert_allclose(ours.transpose(0, 3, 1, 2), recorded, 0, 1e-5)


def assert_collated(case, name, clips, hparams, steps, image_node):
    """Padded clips against the original's collated batch; padding of objects counts as no object in both."""
    get = lambda key: case.arrays[f"{name}/collated/{key}"]  # noqa: E731
    slots = {
        "objects": get("objs").shape[1] - image_node,
        "relations": 0 if image_node else get("triplets").shape[2],
        "actions": max(len(c["timed_actions"]) for c in clips),
    }
    for b, clip in enumerate(clips):
        ours = prepared(pad_scene(clip, **slots), hparams, steps)
        count = len(clip["objects"])
        np.testing.assert_array_equal(ours["objects"][:count], get("objs")[b, :count])
        assert not ours["objects"][count:, 0].any() and not get("objs")[b, count:, 0].any()
        np.testing.assert_allclose(ours["boxes"][:, :count], get("boxes")[b][:, :count], 1e-6, 1e-6)
        if not image_node:
            np.testing.assert_array_equal(ours["triplets"], get("triplets")[b])


# CATER.


def check_cater(case):
    hparams = hparams_of(case.meta["vocab"])
    _check_vocabulary(case.meta["vocab"])
    np.testing.assert_allclose(cater.project(case.arrays["project/points"]), case.arrays["project/out"], 1e-6, 1e-6)
    names = cater.split_names(case.meta["split_file"])
    usable = [n for n in names if n.split("_")[-1] not in cater.CORRUPT]
    for name, options in sets_of(case).items():
        clips = []
        for index in indices_of(case, name):
            clip, video = check_cater_clip(case, name, index, options, hparams)
            assert video in usable
            clips.append(clip)
        assert clips
        assert_collated(case, name, clips, hparams, options["frames_per_action"], 1)


def check_cater_clip(case, name, index, options, hparams):
    video, start, end = chosen_range(case.meta["chosen"][f"{name}/{index}"])
    get = lambda key: case.arrays[f"{name}/{index}/{key}"]  # noqa: E731
    frames, length = options["frames_per_action"], options["initial_frames_per_sample"]
    raw = case.arrays[f"raw/{video}"]
    scene = cater.checked_scene(case.meta["scenes"][video], video)
    whole = cater.scene_keys(scene, len(raw))
    steps = np.arange(start, end)[0 : length : length // frames]
    clip = {k: v[steps] if k in ("boxes", "action_progress") else v for k, v in whole.items()}
    ours = prepared(clip, hparams, frames)
    np.testing.assert_allclose(ours["boxes"], get("boxes"), 1e-6, 1e-6)
    np.testing.assert_array_equal(ours["triplets"], get("triplets"))
    attributes = np.stack([get(f"objs_{k}") for k in case.meta["vocab"]["attributes"]], -1)
    np.testing.assert_array_equal(ours["objects"], attributes)
    # The original leaves out actions that touch the clip nowhere; here they stay and move nothing.
    kept = [first <= end and last >= start for *_, first, last in cater.scene_actions(scene)]
    np.testing.assert_allclose(ours["action_graph"][kept], get("actions"), 1e-6, 1e-6)
    assert_frames(raw[steps][: len(get("vids"))], get("vids"))
    return clip, video


def _check_vocabulary(vocabulary):
    """Names and numbers of CATER."""
    for key, values in cater.ATTRIBUTES.items():
        assert {v: i + 1 for i, v in enumerate(values)} | {"__image__": 0} == vocabulary["attributes"][key]
    for ours, theirs in ((cater.RELATIONS, "pred_name_to_idx"), (cater.ACTIONS, "action_name_to_idx")):
        assert {v: i for i, v in enumerate(ours)} | {"__padding__": len(ours)} == vocabulary[theirs]


# Something-Something.


def check_something(case):
    vocabulary, mapping = case.meta["vocab"], case.meta["objs_mapping"]
    assert something.class_names(mapping) == vocabulary["object_idx_to_name"]
    names = [*something.ACTIONS, "__padding__"]
    assert names == vocabulary["action_idx_to_name"]
    relations = {v: i for i, v in enumerate((*something.RELATIONS, "__padding__"))}
    assert relations == vocabulary["pred_name_to_idx"]
    rows = something.usable_rows(case.meta["csv"], mapping)
    assert [int(r[0]) for r in rows] == [int(v) for v in case.meta["vid_names"]]
    hparams = hparams_of(vocabulary, image_node=False)
    for name, options in sets_of(case).items():
        clips = [check_something_clip(case, name, i, rows[i], options, hparams) for i in indices_of(case, name)]
        assert clips
        assert_collated(case, name, clips, hparams, options["frames_per_action"], 0)


def check_something_clip(case, name, index, row, options, hparams):
    video, start, end = chosen_range(case.meta["chosen"][f"{name}/{index}"])
    get = lambda key: case.arrays[f"{name}/{index}/{key}"]  # noqa: E731
    assert video == row[0]
    mapping, steps = case.meta["objs_mapping"], options["frames_per_action"]
    frames = something.unique_frames(json.loads(json.dumps(case.meta["boxes_pkl"][video])), video)
    count = something.ACTIONS[row[1]]
    first, last = something.annotated_span(frames, count, video)
    raw = case.arrays[f"raw/{video}"]
    classes, boxes = something.clip_boxes(frames[start:end], mapping, count, video)
    height, width = raw.shape[1:3]
    draws = random.Random(seed_of(case) + index)
    relations = something.clip_relations(something.extents_of(boxes, width, height), draws)
    boxes = boxes / (width, height, width, height)
    keys = something.action_keys(row[1], len(classes), last - first)
    progress = keys["action_progress"]
    clip = {
        **keys,
        "objects": np.array([[something.class_names(mapping).index(c)] for c in classes], np.int32),
        "boxes": extend(boxes, steps).astype(np.float32),
        "relations": extend(relations, steps),
        # Linear in time; a clip that is padded is shorter in its actions' time.
        "action_progress": np.linspace(progress[start - first], ends(progress, end - first), steps, endpoint=False),
    }
    ours = prepared(clip, hparams, steps)
    np.testing.assert_allclose(ours["boxes"], get("boxes"), 1e-6, 1e-6)
    np.testing.assert_array_equal(ours["triplets"], get("triplets"))
    np.testing.assert_array_equal(ours["objects"][:, 0], get("objs"))
    np.testing.assert_allclose(ours["action_graph"], get("actions"), 1e-6, 1e-6)
    assert int(get("nframes")) == steps
    names = [something.frame_number(f["name"]) - 1 for f in frames[start:end]]
    assert_frames(raw[names][: len(get("vids"))], get("vids"))
    return clip


def extend(values, length):
    """The last entry repeated up to `length`."""
    return np.concatenate([values, np.repeat(values[-1:], length - len(values), axis=0)])


def ends(progress, frame):
    """Progress at a frame that may be the one after the last."""
    return progress[0] + (progress[1] - progress[0]) * frame
