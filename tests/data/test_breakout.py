"""Breakout through the emulator; left out where `ale-py` is not installed."""

import sys

import numpy as np
import pytest

from tfvid.data import breakout
from tfvid.data.prepare import prepare
from tfvid.data.source import open_source
from tfvid.errors import UserError


def test_missing_emulator_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ale_py", None)
    with pytest.raises(UserError, match="expected the emulator ale-py; install it with"):
        prepare("breakout", None, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def clips():
    pytest.importorskip("ale_py")
    game = breakout.Game(np.random.default_rng(3), 4)
    return [game.record(32) for _ in range(6)]


def test_same_seed_same_game(clips):
    again = breakout.Game(np.random.default_rng(3), 4).record(32)
    for key, value in clips[0].items():
        np.testing.assert_array_equal(again[key], value)


def test_states_are_where_the_pixels_are(clips):
    paddle_colour, hits = np.array([200, 72, 72]), 0
    for clip in clips:
        pixels = np.round(clip["states"] * [160, 160, 208]).astype(int)
        for frame, (paddle, ball_x, ball_y) in zip(clip["images"], pixels):
            row = np.flatnonzero((frame[188] == paddle_colour).all(-1))
            row = row[(row >= 8) & (row < 152)]
            if ball_y < 180:  # else the ball may touch the paddle
                assert row[0] == max(paddle, 8) and len(row) <= 16
            if 100 < ball_y < 180 and 8 <= ball_x < 152:  # elsewhere a wall hides it
                assert (frame[ball_y, ball_x] == paddle_colour).all(), (ball_x, ball_y)
                hits += 1
    assert hits > 10


def test_actions_move_the_paddle(clips):
    moved = {label: [] for label in range(3)}
    for clip in clips:
        for label, step in zip(clip["action_labels"], np.diff(clip["states"][:, 0] * 160)):
            moved[int(label)].append(step)
        np.testing.assert_array_equal(clip["actions"].argmax(-1), clip["action_labels"])
        assert clip["images"].shape == (32, 208, 160, 3) and clip["rewards"][0] == 0
    right, left = breakout.ACTIONS.index("right"), breakout.ACTIONS.index("left")
    assert np.mean(moved[right]) > 4 and np.mean(moved[left]) < -4 and abs(np.mean(moved[0])) < 4


def test_prepared_clips(tmp_path):
    pytest.importorskip("ale_py")
    options = {"num_frames": 60, "clip_length": 6, "clips_per_episode": 3, "size": "20x16"}
    info = prepare("breakout", None, str(tmp_path), options, processes=0, progress=False)
    assert sum(e["frames"] for e in info.splits.values()) == 72  # whole episodes: at least what was asked for
    assert sorted(info.splits) == ["test", "train", "val"] and info.fps == 15
    source = open_source("breakout", tmp_path)
    hparams = type("H", (), {**source.defaults(), "use_state": True})
    spec = source.spec(hparams)
    assert spec["images"].shape == (6, 16, 20, 3) and spec["actions"].shape == (5, 3)


def test_player_follows_the_ball():
    player = breakout.Player(np.random.default_rng(0))
    player._wildness = player._lapse = 0.0
    player._error = 0.0
    assert player.act((80, 20, 100)) == breakout.ACTIONS.index("left")
    assert player.act((20, 80, 104)) == breakout.ACTIONS.index("right")
    assert player.act((80, 87, 108)) == breakout.ACTIONS.index("stay")
