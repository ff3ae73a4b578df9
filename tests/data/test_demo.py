"""The demo data set."""

import numpy as np
import pytest

from tfvid.data import demo as demo_lib
from tfvid.data.source import open_source


def test_made_on_first_use(tmp_path, monkeypatch):
    monkeypatch.setitem(demo_lib.Demo.OPTIONS, "train_clips", demo_lib.Option(2, ""))
    monkeypatch.setitem(demo_lib.Demo.OPTIONS, "val_clips", demo_lib.Option(1, ""))
    monkeypatch.setitem(demo_lib.Demo.OPTIONS, "test_clips", demo_lib.Option(1, ""))
    source = open_source("demo", tmp_path / "demo")
    assert source.splits() == ["train", "val", "test"] and source.fps == 8
    assert open_source("demo", tmp_path / "demo").count("train") == 2


def test_keys_agree_with_each_other():
    clip = demo_lib.make_clip(np.random.default_rng(1), 32, 20)
    boxes, states = clip["boxes"], clip["states"]
    np.testing.assert_allclose((boxes[:, 0, :2] + boxes[:, 0, 2:]) / 2, states, atol=1e-6)
    np.testing.assert_allclose(np.diff(states, axis=0), clip["actions"], atol=1e-6)
    stay = clip["action_labels"] == demo_lib.ACTIONS.index("stay")
    assert (np.abs(clip["actions"]).sum(-1) == 0).tolist() == stay.tolist()
    for frame, (x, y) in zip(clip["images"], states):
        assert frame[int(y * 32), int(x * 32)].tolist() == [235, 80, 60]
    assert (states > 0).all() and (states < 1).all()


@pytest.mark.parametrize("size", [16, 32, 64])
def test_movement_beats_repetition(size):
    """What can be predicted: the last frame is a bad guess, the shapes' places a good one."""
    clips = [demo_lib.make_clip(np.random.default_rng(i), size, 10)["images"] / 255.0 for i in range(8)]
    error = np.mean([(c[2:] - c[1:2]) ** 2 for c in clips])
    assert error > 0.01  # 20 dB


def test_reproducible():
    left, right = (demo_lib.make_clip(np.random.default_rng([0, 2]), 16, 5) for _ in range(2))
    for key in left:
        np.testing.assert_array_equal(left[key], right[key])
