"""Something-Something with Something-Else boxes: records, relations, refusals."""

import json
import os
import pickle
import random

import numpy as np
import pytest

from tfvid.data import something
from tfvid.data.preparation import BrokenItem
from tfvid.data.prepare import prepare
from tfvid.data.records import DataError
from tfvid.data.source import open_source
from tfvid.data.video_files import encode_png
from tfvid.errors import UserError

MAPPING = {"cup": "container", "cloth": "cloth", "hand": "hand"}
HEADER = "id,label,template,placeholders,nr_instances,err\n"


class _Malicious:
    def __reduce__(self):
        return (os.system, ("touch executed",))


def label(category, x, y, key, w=10, h=6):
    name = "hand" if category == "hand" else f"object {key}"
    box = {"x1": x, "y1": y, "x2": x + w, "y2": y + h}
    return {"box2d": box, "gt_annotation": name, "standard_category": str(key), "category": category}


def annotation(video, length, first=2):
    """Two objects and a hand; the hand appears in frame `first`."""
    frames = []
    for t in range(length):
        labels = [label("cup", 2 + t, 4, 0), label("cloth", 20, 10, 1)]
        labels += [label("hand", 30 - t, 2, 2)] if t >= first else []
        frames.append({"name": f"{video}/{t + 1:04d}.jpg", "labels": labels, "nr_instances": len(labels)})
    return frames


def make(folder, length=12):
    video = "77"
    (folder / "boxes_by_video_id" / video).mkdir(parents=True)
    (folder / "frames" / video).mkdir(parents=True)
    for t in range(length):
        image = encode_png(np.full((20, 40, 3), 10 * t, np.uint8))
        (folder / "frames" / video / f"{t + 1:04d}.jpg").write_bytes(image)
    (folder / "boxes_by_video_id" / video / "boxes.pkl").write_bytes(pickle.dumps(annotation(video, length)))
    (folder / "objs_mapping.json").write_text(json.dumps(MAPPING))
    row = "77,x,Covering [something] with [something],\"['cup', 'cloth']\",3,\n"
    (folder / "train.csv").write_text(HEADER + row)
    return str(folder)


def test_videos_become_records(tmp_path):
    source = make(tmp_path / "s")
    info = prepare("something", source, str(tmp_path / "d"), {"size": 32}, processes=0, progress=False)
    assert not info.broken and info.clip_length == something.CLIP  # ten frames, extended by the last
    data = open_source("something", tmp_path / "d")
    hparams = type("H", (), data.defaults())
    (batch,) = data.evaluation_batches("train", hparams, 1)
    assert info.labels["objects/object"] == ["__image__", "cloth", "container", "hand"]
    assert batch["objects"][0].numpy().tolist() == [[2], [1], [3]]
    np.testing.assert_allclose(batch["boxes"][0, 1, 0], [5 / 40, 4 / 20, 15 / 40, 10 / 20], rtol=1e-6)
    np.testing.assert_array_equal(batch["boxes"][0, 9], batch["boxes"][0, 15])
    assert batch["timed_actions"][0].numpy().tolist() == [[2, 5, 0], [0, 5, 1]]
    np.testing.assert_allclose(batch["action_progress"][0, :, 0], (np.arange(16) + 1) / 10, rtol=1e-5)
    assert batch["relations"][0, 0, 2:].numpy().tolist() == [[0, 0, 2], [1, 0, 2]]


@pytest.mark.parametrize(
    ("row", "kept"),
    [
        ("5,x,Moving [something] up,['cup'],2,", True),
        ("5,x,Moving [something] up,['cup'],2.0,", True),
        ("5,x,Moving [something] up,['cup'],2,False", False),
        ("5,x,Moving [something] up,['cup'],3,", False),
        ("5,x,Moving [something] up,['rocket'],2,", False),
        ("5,x,Turning [something] upside down,['cup'],2,", False),
    ],
)
def test_rows_that_are_used(row, kept):
    rows = something.usable_rows(f"{HEADER}{row}\n", MAPPING)
    assert rows == ([("5", "Moving [something] up")] if kept else [])


@pytest.mark.parametrize("row", ["5,x,Moving [something] up,[],two,", "5," + "x" * 200000])
def test_tables_of_another_kind_are_named(row):
    with pytest.raises(DataError, match="list.csv: expected a table of comma separated values"):
        something.usable_rows(f"{HEADER}{row}\n", MAPPING, "list.csv")


def test_lists_of_nouns_are_only_text():
    assert something.quoted_strings("""['cup', "dog's toy", 'it\\'s']""") == ["cup", "dog's toy", "it's"]
    assert something.quoted_strings("[__import__('os').system('touch executed')]") == ["os", "touch executed"]
    assert not os.path.exists("executed")


def test_pickles_that_name_anything_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "boxes.pkl").write_bytes(pickle.dumps([_Malicious()]))
    with pytest.raises(BrokenItem, match="77: boxes: expected a list of plain values: refused"):
        something.read_annotation(str(tmp_path), "77")
    assert not (tmp_path / "executed").exists()
    for value in ([{"name": "a"}], [{"name": "../a", "labels": []}], 3):
        (tmp_path / "boxes.pkl").write_bytes(pickle.dumps(value))
        with pytest.raises(BrokenItem, match="77: boxes: expected name, labels and box2d"):
            something.read_annotation(str(tmp_path), "77")


def test_missing_objects_keep_their_box_and_the_hand_comes_last():
    frames = annotation("1", 6, first=0)
    del frames[3]["labels"][0]
    frames[4]["labels"][1]["box2d"] = {"x1": 3, "y1": 3, "x2": 3, "y2": 3}
    classes, boxes = something.clip_boxes(frames, MAPPING, 3, "1")
    assert classes == ["container", "cloth", "hand"]
    np.testing.assert_array_equal(boxes[3, 0], boxes[2, 0])
    assert not boxes[4, 1].any()
    for frame in frames:
        frame["labels"].reverse()
    with pytest.raises(BrokenItem, match="1: expected 3 objects, the hand last. Received: hand, cloth, container"):
        something.clip_boxes(frames, MAPPING, 3, "1")
    with pytest.raises(BrokenItem, match="1: expected a frame with 4 annotated instances"):
        something.annotated_span(frames, 4, "1")


@pytest.mark.parametrize(
    ("other", "name"),
    [
        ([0.1, 0.5, 0.2, 0.2], "right"), ([0.9, 0.5, 0.2, 0.2], "left"), ([0.5, 0.1, 0.2, 0.2], "below"),
        ([0.5, 0.9, 0.2, 0.2], "above"), ([0.55, 0.55, 0.05, 0.05], "surrounding"), ([0.3, 0.3, 0.6, 0.6], "inside"),
    ],
)  # fmt: skip
def test_relations(other, name):
    assert something.RELATIONS[something.relation([0.5, 0.5, 0.2, 0.2], other, "corners")] == name
    rows = something.clip_relations(
        np.array([[[0.5, 0.5, 0.2, 0.2], other, [0] * 4]] * 40), random.Random(0), "corners"
    )
    assert {tuple(r[0][[0, 2]]) for r in rows} == {(0, 1), (1, 0)}
    assert (rows[:, 2:] == [[0, 0, 2], [1, 0, 2]]).all()


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(UserError, match="objs_mapping.json: expected the file that maps nouns to classes"):
        prepare("something", str(tmp_path), str(tmp_path / "d"), processes=0)
    (tmp_path / "objs_mapping.json").write_text(json.dumps(MAPPING))
    with pytest.raises(UserError, match="expected videos in train.csv, val_split.csv, test_split.csv, found none"):
        prepare("something", str(tmp_path), str(tmp_path / "d"), processes=0)
    with pytest.raises(UserError, match="expected the columns id, template, placeholders, nr_instances; no 'id'"):
        something.usable_rows("a,b\n1,2\n", MAPPING)
