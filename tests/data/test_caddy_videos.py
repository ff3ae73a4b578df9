"""CADDY's folders of frames with pickled annotations, read as data."""

import os
import pickle

import numpy as np
import pytest

from tfvid.data import caddy_videos
from tfvid.data.preparation import BrokenItem
from tfvid.data.prepare import prepare
from tfvid.data.source import open_source
from tfvid.data.video_files import encode_png


class _Malicious:
    def __reduce__(self):
        return (os.system, ("touch executed",))


def _video(folder, count, annotations):
    folder.mkdir(parents=True)
    frames = np.random.default_rng(count).integers(0, 256, [count, 12, 16, 3], np.uint8)
    for t, frame in enumerate(frames):
        (folder / f"{t:05d}.png").write_bytes(encode_png(frame))
    for name, values in annotations.items():
        (folder / f"{name}.pkl").write_bytes(pickle.dumps(values))
    return frames


def test_annotations_travel_along(tmp_path):
    annotations = {
        "actions": [0, 2, 1, 1, 0],
        "rewards": [0.0, 1.0, 0.5, 0.25, 2.0],
        "metadata": [{"state": [t, 0.5]} for t in range(5)],
        "dones": [False] * 5,
    }
    frames = _video(tmp_path / "set" / "train" / "00000", 5, annotations)
    _video(tmp_path / "set" / "val" / "00000", 5, {**annotations, "actions": [None] * 5})
    prepare("caddy_videos", str(tmp_path / "set"), str(tmp_path / "out"), processes=0, progress=False)
    source = open_source("tennis", tmp_path / "out")
    hparams = type("H", (), {**source.defaults(), "use_state": True})
    (batch,) = source.evaluation_batches("train", hparams, 1, length=5)
    np.testing.assert_array_equal(batch["images"][0], frames)
    assert batch["action_labels"][0].numpy().tolist() == [0, 2, 1, 1]  # the last one leads nowhere
    assert batch["rewards"][0].numpy().tolist() == annotations["rewards"]
    assert batch["states"][0].numpy().tolist() == [[float(t), 0.5] for t in range(5)]
    (batch,) = source.evaluation_batches("val", hparams, 1, length=5)
    assert batch["action_labels"][0].numpy().tolist() == [0, 0, 0, 0]


def test_cropping_resizing_and_cutting(tmp_path):
    frames = _video(tmp_path / "set" / "test" / "a", 7, {})
    options = {"size": "6x5", "crop": "2,1,14,11", "clip_length": 3}
    info = prepare("caddy_videos", str(tmp_path / "set"), str(tmp_path / "out"), options, processes=0, progress=False)
    assert info.splits["test"]["clips"] == 2 and info.fields["images"].shape == (5, 6, 3)
    small = caddy_videos.transform(frames[0], (2, 1, 14, 11), (6, 5))
    flat = caddy_videos.transform(np.full([12, 16, 3], 77, np.uint8), (2, 1, 14, 11), (6, 5))
    assert small.shape == (5, 6, 3) and (flat == 77).all()
    np.testing.assert_array_equal(caddy_videos.transform(frames[0], (2, 1, 14, 11), None), frames[0][1:11, 2:14])


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_pickle_protocol_of_plain_values(tmp_path, protocol):
    path = tmp_path / "metadata.pkl"
    values = [{"state": [1.5, -2], "name": "ü", "flags": (True, None), "more": {"a": 2**70}}, {}]
    path.write_bytes(pickle.dumps(values, protocol))
    assert caddy_videos.read_annotation(str(path), "metadata", 2) == values


def test_pickles_that_name_anything_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "metadata.pkl"
    for value in ([_Malicious()], [os.system], [np.float64(1.0)], [np.zeros(3)]):
        path.write_bytes(pickle.dumps(value))
        with pytest.raises(BrokenItem, match="metadata.pkl: expected a list of plain values: refused"):
            caddy_videos.read_annotation(str(path), "metadata", 1)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1, 2], "expected a list of 3 entries, one a frame. Received: 2 entries"),
        ({"a": 1}, "expected a list of 3 entries, one a frame. Received: dict"),
        ([1, None, 2], "entry 1: expected int. Received: None"),
        ([1, 2.5, 2], "entry 1: expected int. Received: 2.5"),
        ([1, True, 2], "entry 1: expected int. Received: True"),
        ([1, 2, 2**31], "entry 2: expected a magnitude of at most 2.147484e.09. Received: 2147483648"),
    ],
)
def test_wrong_annotations_are_one_line(tmp_path, values, message):
    path = tmp_path / "actions.pkl"
    path.write_bytes(pickle.dumps(values))
    with pytest.raises(BrokenItem, match=message):
        caddy_videos.read_annotation(str(path), "actions", 3)
    path.write_bytes(b"\x80\x04]")
    with pytest.raises(BrokenItem, match="actions.pkl: .*damaged pickle stream"):
        caddy_videos.read_annotation(str(path), "actions", 3)


def test_wrong_crop_and_layout_are_one_line(tmp_path):
    for text in ("1,2,3", "a,b,c,d", "5,0,2,9", "--1,0,2,9", "0,0,2,9²"):
        with pytest.raises(ValueError, match="--crop: expected LEFT"):
            caddy_videos.parse_crop(text)
    with pytest.raises(ValueError, match="expected folders train/, val/, test/"):
        prepare("caddy_videos", str(tmp_path), str(tmp_path / "out"), processes=0)
