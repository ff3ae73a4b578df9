"""KTH from its published form: AVI files, in zips or not, and 00sequences.txt."""

import zipfile

import cv2
import numpy as np
import pytest

from tfvid.data.prepare import prepare
from tfvid.data.source import open_source
from tfvid.errors import UserError


def _avi(path, count, brightness):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (32, 24))
    for t in range(count):
        writer.write(np.full([24, 32, 3], brightness + 5 * t, np.uint8))
    writer.release()


@pytest.fixture
def published(tmp_path):
    folder = tmp_path / "kth"
    folder.mkdir()
    names = ["person01_boxing_d1", "person02_boxing_d1", "person17_boxing_d2", "person25_walking_d4"]
    for i, name in enumerate(names):
        _avi(folder / f"{name}_uncomp.avi", 14, 20 * i)
    with zipfile.ZipFile(folder / "boxing.zip", "w") as archive:
        for name in names[1:3]:
            archive.write(folder / f"{name}_uncomp.avi", f"{name}_uncomp.avi")
            (folder / f"{name}_uncomp.avi").unlink()
    lines = ["A list of sub-sequences", ""]
    lines += ["person01_boxing_d1\t\tframes\t1-6, 7-14", "person02_boxing_d1\t\tframes\t3-12"]
    lines += ["person17_boxing_d2\t\tframes\t1-5, 6-99, 200-300", "person25_walking_d4\t\tframes\t2-9"]
    (folder / "00sequences.txt").write_text("\r\n".join(lines))
    return folder


def test_sub_sequences_splits_and_classes(published, tmp_path):
    info = prepare("kth", str(published), str(tmp_path / "out"), {"size": 16, "val": 0.0}, processes=0, progress=False)
    # Persons up to 16 train; ranges that end beyond the video are cut, others beyond it dropped.
    assert {s: (e["clips"], e["frames"]) for s, e in info.splits.items()} == {"train": (3, 24), "test": (3, 22)}
    assert info.fields["images"].shape == (16, 16, 1) and info.fps == 25
    source = open_source("kth", tmp_path / "out")
    assert source.defaults()["force_time_shift"] and source.defaults()["context_frames"] == 10
    hparams = type("H", (), {**source.defaults(), "sequence_length": 8, "shuffle_on_val": False})
    (batch,) = source.evaluation_batches("train", hparams, 2, offsets="first")
    assert list(batch["action_class"].numpy()) == [0, 0]
    # The second range begins with frame 7, index 6; the other video's with index 2.
    np.testing.assert_allclose(batch["images"][:, 0].numpy().mean((1, 2, 3)), [30, 30], atol=3)
    np.testing.assert_allclose(batch["images"][:, 7].numpy().mean((1, 2, 3)), [65, 65], atol=3)
    (batch,) = source.evaluation_batches("test", hparams, 2, offsets="first")
    assert list(batch["action_class"].numpy()) == [0, 5]


def test_same_container_as_the_original(published, tmp_path):
    """Without its description the folder still reads as an original KTH folder."""
    prepare("kth", str(published), str(tmp_path / "out"), {"size": 16}, processes=0, progress=False)
    (tmp_path / "out" / "dataset_info.json").unlink()
    source = open_source("kth", tmp_path / "out")
    assert source.info is None
    hparams = type("H", (), {**source.defaults(), "sequence_length": 8})
    assert source.count("test", hparams) == 2


def test_damage_inside_a_zip_is_a_broken_video(published, tmp_path):
    with zipfile.ZipFile(published / "boxing.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("person02_boxing_d1_uncomp.avi", bytes(range(256)) * 40)
    data = bytearray((published / "boxing.zip").read_bytes())
    data[60] = 0xFF  # inside of the compressed bytes
    (published / "boxing.zip").write_bytes(bytes(data))
    info = prepare("kth", str(published), str(tmp_path / "out"), {"size": 16, "val": 0.0}, processes=0, progress=False)
    (broken,) = info.broken
    assert broken["item"] == "person02_boxing_d1" and "cannot extract person02_boxing_d1" in broken["reason"]


def test_missing_list_or_videos_are_one_line(published, tmp_path):
    with pytest.raises(UserError, match="expected KTH's zips or files personNN_ACTION_dN_uncomp.avi"):
        (tmp_path / "empty").mkdir()
        (tmp_path / "empty" / "00sequences.txt").write_text("person01_boxing_d1 frames 1-6")
        prepare("kth", str(tmp_path / "empty"), str(tmp_path / "out"), processes=0)
    (published / "boxing.zip").write_bytes(b"PK cut short")
    with pytest.raises(UserError, match="boxing.zip: expected a zip file"):
        prepare("kth", str(published), str(tmp_path / "out"), processes=0)
    (published / "00sequences.txt").unlink()
    with pytest.raises(UserError, match="00sequences.txt: expected KTH's list of sub-sequences, found none"):
        prepare("kth", str(published), str(tmp_path / "out"), processes=0)
