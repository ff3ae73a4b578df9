"""CATER: scenes and videos become records; what cannot be read is named."""

import copy
import json

import numpy as np
import pytest

from tfvid.data import cater
from tfvid.data.prepare import prepare
from tfvid.data.source import open_source
from tfvid.data.video_files import encode_png
from tfvid.errors import UserError

FRAMES = 30


def entry(shape, size, instance, start=0.0):
    places = {str(t): [start + 0.02 * t, 0.5, 0.3] for t in range(FRAMES)}
    return {
        "shape": shape,
        "color": "red",
        "material": "rubber",
        "size": size,
        "instance": instance,
        "locations": places,
    }


def scene():
    return {
        "objects": [entry("cone", "large", "Cone_0"), entry("sphere", "small", "Sphere_1", 1.0)],
        "movements": {
            "Cone_0": [["_slide", None, 2, 20], ["_rotate", None, 21, 25]],
            "Sphere_1": [["_contain", "Cone_0", 3, 29]],
        },
        "relationships": {},
    }


def make(folder, videos, **splits):
    for name in ("videos", "scenes"):
        (folder / name).mkdir(parents=True)
    for name, frames in videos.items():
        (folder / "scenes" / f"{name}.json").write_text(json.dumps(scene()))
        (folder / "videos" / name).mkdir()
        for t in range(frames):
            image = np.full((12, 16, 3), 4 * t, np.uint8)
            (folder / "videos" / name / f"{t + 1:05d}.png").write_bytes(encode_png(image))
    for split, names in splits.items():
        (folder / cater.SPLIT_FILES[split]).write_text("".join(f"{n}.avi 1,2\n" for n in names))
    return str(folder)


def test_videos_become_records(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(cater, "FRAMES", FRAMES)
    videos = {"CATER_new_000001": FRAMES, "CATER_new_004798": FRAMES, "CATER_new_000003": FRAMES - 1}
    source = make(tmp_path / "s", videos, train=list(videos), val=["CATER_new_000009"])
    info = prepare("cater", source, str(tmp_path / "d"), {"size": 32}, processes=0, progress=False)
    assert {b["item"]: b["reason"].partition(": ")[2] for b in info.broken} == {
        "CATER_new_004798": "this video is damaged at the source and is left out",
        "CATER_new_000003": f"expected a video of {FRAMES} frames. Received: {FRAMES - 1}",
        "CATER_new_000009": info.broken[-1]["reason"].partition(": ")[2],
    }
    assert "CATER_new_004798" in caplog.text
    data = open_source("cater", tmp_path / "d")
    hparams = type("H", (), data.defaults())
    (batch,) = data.evaluation_batches("train", hparams, 1, length=5)
    assert batch["images"].shape == (1, 5, 32, 32, 3)
    assert abs(int(batch["images"][0, 2, 0, 0, 0]) - 24) <= 3  # every third frame
    assert batch["objects"][0].numpy().tolist() == [[5, 2, 1, 2], [2, 2, 1, 1]]
    # The rotation takes too few frames to count.
    assert batch["timed_actions"][0].numpy().tolist() == [[0, 2, 0], [1, 3, 0]]
    np.testing.assert_allclose(batch["action_progress"][0, :, 0], (np.arange(5) * 3 - 2) / 19, rtol=1e-5)
    assert info.labels["timed_actions"][2] == "_slide"


def test_boxes_surround_projected_centres():
    one = scene()["objects"][0]
    boxes = cater.object_boxes(one) * (320, 240, 320, 240)
    x, y = cater.project(one["locations"]["7"])
    np.testing.assert_allclose(boxes[7, :2], [(x + 1) * 160 - 35, (y + 1) * 120 - 25])
    np.testing.assert_allclose(boxes[7, 2:] - boxes[7, :2], [70, 65])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s["objects"][0].update(shape="torus"), "shape: expected one of cube, sphere.*Received: 'torus'"),
        (lambda s: s.pop("movements"), "expected a scene of CATER; KeyError: 'movements'"),
        (
            lambda s: s["movements"].update(Ball_9=[["_slide", None, 1, 20]]),
            "movements: expected objects of the scene. Received: 'Ball_9'",
        ),
        (lambda s: s["movements"]["Cone_0"][0].__setitem__(0, "fly"), "movements of Cone_0: expected a known action"),
    ],
)
def test_broken_scenes_are_one_line(tmp_path, change, message):
    value = copy.deepcopy(scene())
    change(value)
    path = tmp_path / "x.json"
    path.write_text(json.dumps(value))
    with pytest.raises(UserError, match=f"x.json: {message}"):
        cater.read_scene(str(path))


def test_split_files_are_checked(tmp_path):
    assert cater.split_names("a.avi 1,2\n\nb.avi\n") == ["a", "b"]
    with pytest.raises(UserError, match="line 2: expected '<name>.avi labels'"):
        cater.split_names("a.avi 1\n../b.avi 2\n")
    (tmp_path / "videos").mkdir()
    with pytest.raises(UserError, match="expected the split files train.txt, val_split.txt, test_split.txt"):
        prepare("cater", str(tmp_path), str(tmp_path / "d"), processes=0)
