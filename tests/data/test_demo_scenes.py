"""The demo data set of AG2Vid."""

import numpy as np
import pytest

from tfvid.data import demo_scenes
from tfvid.data.prepare import prepare
from tfvid.data.source import open_source
from tfvid.errors import UserError


def clip_of(seed, length=24):
    return demo_scenes.make_clip(np.random.default_rng(seed), 64, length)


def test_records_hold_the_graph(tmp_path):
    options = {"train_clips": 2, "val_clips": 1, "test_clips": 1, "size": 32}
    prepare("demo_scenes", None, str(tmp_path / "d"), options, processes=0, progress=False)
    source = open_source("demo_scenes", tmp_path / "d")
    assert source.info.labels["timed_actions"] == list(demo_scenes.ACTIONS)
    hparams = type("H", (), source.defaults())
    (batch,) = source.evaluation_batches("train", hparams, 2, length=6)
    spec = source.spec(hparams, 6)
    assert {k: list(v.shape) for k, v in batch.items() if k in spec} == {k: [2, *s.shape] for k, s in spec.items()}
    made = demo_scenes.make_clip(np.random.default_rng([0, 0, 0]), 32, 24)
    for key in ("boxes", "action_progress"):
        np.testing.assert_allclose(batch[key][0], made[key][:6], rtol=1e-6)
    np.testing.assert_array_equal(batch["timed_actions"][0], made["timed_actions"])


@pytest.mark.parametrize("seed", range(12))
def test_actions_do_what_they_say(seed):
    clip = clip_of(seed)
    boxes = clip["boxes"]
    for n, (subject, kind, target) in enumerate(clip["timed_actions"]):
        if kind < 0:
            assert (clip["action_progress"][:, n] == -1).all()
            continue
        name, progress = demo_scenes.ACTIONS[kind], clip["action_progress"][:, n]
        first = int(np.argmin(np.abs(progress)))
        last = int(np.flatnonzero(progress <= 1)[-1])
        last -= int(np.isclose(progress[last], 1, atol=1e-4))  # the frame after the action
        moved = boxes[last, subject] - boxes[first, subject]
        if name in ("slide", "pick_place"):
            np.testing.assert_allclose(boxes[last, subject, :2], clip["action_destinations"][n], atol=1e-5)
        elif name == "contain":
            centres = boxes[last, [subject, target]].reshape(2, 2, 2).mean(1)
            np.testing.assert_allclose(centres[0], centres[1], atol=1e-5)
        else:
            np.testing.assert_allclose(moved, 0, atol=1e-5)
        middle = boxes[(first + last) // 2, subject, 1]
        if name == "pick_place":  # it was lifted above the straight way
            assert middle < (boxes[first, subject, 1] + boxes[last, subject, 1]) / 2 - 0.05


def test_objects_are_where_their_boxes_are():
    clip = clip_of(3)
    alone = demo_scenes.draw(64, np.array([[1, 2, 2]]), np.array([[0.4, 0.6]]), np.zeros(1), np.zeros(1))
    colour = np.array(demo_scenes.COLOURS["green"])
    assert np.abs(alone[38, 25].astype(int) - colour).max() <= 1
    for image, boxes in zip(clip["images"], clip["boxes"]):
        for row, box in zip(clip["objects"], boxes):
            if row[0] == 0:
                assert not box.any()
                continue
            x0, y0, x1, y1 = np.clip((box * 64).astype(int), 0, 64)
            assert np.ptp(image[y0:y1, x0:x1].reshape(-1, 3), axis=0).max() > 20  # not the bare table


def test_two_objects_move_at_once_somewhere():
    together = 0
    for seed in range(20):
        running = (clip_of(seed)["action_progress"] > 0) & (clip_of(seed)["action_progress"] < 1)
        together += (running.sum(1) > 1).any()
    assert together > 5


def test_reproducible_and_checked():
    left, right = clip_of(7), clip_of(7)
    for key in left:
        np.testing.assert_array_equal(left[key], right[key])
    with pytest.raises(UserError, match="--clip_length: expected at least 16. Received: 3"):
        demo_scenes.DemoScenes(None, {"clip_length": 3})
