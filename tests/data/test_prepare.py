"""Preparation: groups, restart, broken items, processes."""

import filecmp
import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

from tests import commands
from tfvid.data import folder_lock, groups, local_pool
from tfvid.data import source as source_lib
from tfvid.data.preparation import cut_into_clips, parse_size, split_of_fractions
from tfvid.data.prepare import prepare
from tfvid.data.records import DataError, DatasetInfo
from tfvid.data.source import open_source
from tfvid.data.video_files import encode_png, write_gif
from tfvid.errors import UserError

TINY = {"size": 16, "clip_length": 4, "train_clips": 6, "val_clips": 1, "test_clips": 1}


def _prepare(folder, **changes):
    options = {"processes": 0, "progress": False, "items_per_file": 2, **changes}
    return prepare("demo", None, str(folder), TINY, **options)


def _files(folder):
    return sorted(os.path.relpath(os.path.join(r, f), folder) for r, _, files in os.walk(folder) for f in files)


def _assert_same(left, right):
    assert _files(left) == _files(right)
    for name in _files(left):
        assert filecmp.cmp(os.path.join(left, name), os.path.join(right, name), shallow=False), name


def test_description_counts_what_is_there(tmp_path):
    info = _prepare(tmp_path)
    assert {s: (e["clips"], e["frames"]) for s, e in info.splits.items()} == {
        "train": (6, 24),
        "val": (1, 4),
        "test": (1, 4),
    }
    loaded = DatasetInfo.load(str(tmp_path))
    assert loaded == info and loaded.clip_length == 4
    assert loaded.labels["action_labels"][0] == "stay"
    for split, entry in info.splits.items():
        for name, file in entry["files"].items():
            assert os.path.getsize(tmp_path / split / name) == file["bytes"]


def test_goes_on_where_it_stopped(tmp_path, monkeypatch):
    _prepare(tmp_path / "whole")
    real, calls = groups.write_group, []

    def interrupted(job, group, prepared=None):
        calls.append(group.file_name)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(job, group, prepared)

    monkeypatch.setattr(local_pool, "write_group", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _prepare(tmp_path / "parts")
    assert not (tmp_path / "parts" / "dataset_info.json").exists()
    (tmp_path / "parts" / "train" / ".tmp-12345678-clips.tfrecord.part").write_bytes(b"half a file")
    _prepare(tmp_path / "parts")
    assert len(calls) == 3 + 3  # 5 groups: 2 done, 1 interrupted, then 3
    _assert_same(tmp_path / "whole", tmp_path / "parts")


def test_second_call_does_nothing_and_other_options_are_refused(tmp_path):
    _prepare(tmp_path)
    before = {f: os.stat(tmp_path / f).st_mtime_ns for f in _files(tmp_path)}
    _prepare(tmp_path)
    assert before == {f: os.stat(tmp_path / f).st_mtime_ns for f in _files(tmp_path)}
    with pytest.raises(UserError, match="another data set, or one of other options, is there"):
        prepare("demo", None, str(tmp_path), {**TINY, "seed": 1}, processes=0, progress=False)
    info = prepare("demo", None, str(tmp_path), {**TINY, "seed": 1}, processes=0, progress=False, overwrite=True)
    assert info.options["preparation"]["options"]["seed"] == 1


def test_folder_with_other_files_is_not_touched(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "mine.tfrecord").write_bytes(b"precious")
    with pytest.raises(UserError, match="expected an empty folder, found mine.tfrecord"):
        _prepare(tmp_path)
    assert (tmp_path / "train" / "mine.tfrecord").read_bytes() == b"precious"


@pytest.mark.slow
def test_processes_write_the_same_files_and_survive_a_kill(tmp_path):
    """Two worker processes against none; the first run is killed outright on the way."""
    _prepare(tmp_path / "alone")
    code = (
        "from tfvid.data.prepare import prepare\n"
        f"if __name__ == '__main__': prepare('demo', None, {str(tmp_path / 'pool')!r}, {TINY!r}, processes=2,"
        " progress=False, items_per_file=2)\n"
    )
    script = tmp_path / "run.py"
    script.write_text(code)
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    killed = subprocess.Popen(
        [sys.executable, str(script)], env=environment, stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while not list((tmp_path / "pool").glob(".progress/train-*.json")) and killed.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(killed.pid, 9)
    killed.wait()
    subprocess.run([sys.executable, str(script)], env=environment, check=True, stderr=subprocess.DEVNULL)
    _assert_same(tmp_path / "alone", tmp_path / "pool")


def _write_videos(folder, good=4, broken=1):
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(good):
        write_gif(str(folder / f"good{i}.gif"), rng.integers(0, 256, [5, 12, 16, 3], np.uint8), 8)
    for i in range(broken):
        (folder / f"broken{i}.mp4").write_bytes(b"no video")


def test_broken_video_is_skipped_counted_and_named(tmp_path):
    _write_videos(tmp_path / "videos")
    options = {"size": "8", "clip_length": 4}
    info = prepare(
        "video_folder", str(tmp_path / "videos"), str(tmp_path / "out"), options, processes=0, progress=False
    )
    assert [entry["item"] for entry in info.broken] == ["broken0.mp4"]
    assert "broken0.mp4: expected a video" in info.broken[0]["reason"]
    assert sum(e["clips"] for e in info.splits.values()) == 4
    assert DatasetInfo.load(str(tmp_path / "out")).broken == info.broken


def test_too_many_broken_videos_fail(tmp_path):
    _write_videos(tmp_path / "videos", broken=3)
    options = {"size": "8", "clip_length": 4}
    with pytest.raises(
        DataError, match=r"3 items cannot be read, expected at most --max_broken=2; the first: broken\d"
    ):
        prepare(
            "video_folder",
            str(tmp_path / "videos"),
            str(tmp_path / "out"),
            options,
            processes=0,
            progress=False,
            max_broken=2,
        )
    assert not (tmp_path / "out" / "dataset_info.json").exists()


def test_video_that_is_too_short_is_named(tmp_path):
    _write_videos(tmp_path / "videos", good=2, broken=0)
    with pytest.raises(DataError, match="expected clips, all 2 items were broken or too short"):
        prepare(
            "video_folder",
            str(tmp_path / "videos"),
            str(tmp_path / "out"),
            {"clip_length": 6},
            processes=0,
            progress=False,
        )


def test_videos_of_two_sizes_want_a_size(tmp_path):
    (tmp_path / "videos").mkdir()
    for i, side in enumerate((8, 8, 10)):
        frames = np.random.default_rng(i).integers(0, 256, [4, side, side, 3], np.uint8)
        write_gif(str(tmp_path / "videos" / f"{i}.gif"), frames, 8)
    options = {"size": "", "clip_length": 4, "val": 0.0, "test": 0.0}
    with pytest.raises(DataError, match="images"):
        prepare(
            "video_folder",
            str(tmp_path / "videos"),
            str(tmp_path / "out"),
            options,
            processes=0,
            progress=False,
            max_broken=0,
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nothing", None, {}), "--dataset: expected one of .*breakout.* Received: 'nothing'"),
        (("kth", None, {}), "--source_dir: expected the folder with the kth videos, received none"),
        (("kth", "/does/not/exist", {}), "--source_dir: expected a folder, found none"),
        (("demo", None, {"sise": 3}), "--sise: this data set has no such option"),
        (("demo", None, {"size": "3"}), "--size: expected a value of type int"),
        (("demo", None, {"size": 3}), "--size: expected at least 16"),
    ],
)
def test_wrong_calls_are_one_line(tmp_path, arguments, message):
    dataset, source, options = arguments
    with pytest.raises(UserError, match=message):
        prepare(dataset, source, str(tmp_path / "out"), options)
    assert not (tmp_path / "out").exists()


def test_output_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises((tf.errors.OpError, OSError), match="file"):
        _prepare(tmp_path / "file" / "out")


def test_full_disk_leaves_no_half_file(tmp_path, monkeypatch):
    real, left = tf.io.TFRecordWriter.write, [3]

    def write(self, record):
        left[0] -= 1
        if left[0] < 0:
            raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")
        real(self, record)

    monkeypatch.setattr(tf.io.TFRecordWriter, "write", write)
    with pytest.raises(tf.errors.ResourceExhaustedError, match="No space left"):
        _prepare(tmp_path)
    records_there = [f for f in _files(tmp_path) if "tfrecord" in f]
    assert records_there == ["train/clips-00000-of-00003.tfrecord"]  # the group that was whole
    monkeypatch.undo()
    assert _prepare(tmp_path).splits["train"]["clips"] == 6


def test_fractions_are_exact_and_stable():
    keys = [f"v{i}" for i in range(50)]
    splits = split_of_fractions(keys, 0.1, 0.2)
    counts = {s: list(splits.values()).count(s) for s in ("train", "val", "test")}
    assert counts == {"train": 35, "val": 5, "test": 10}
    assert split_of_fractions(reversed(keys), 0.1, 0.2) == splits
    assert split_of_fractions(keys, 0.1, 0.2, seed=1) != splits
    assert sorted(split_of_fractions(keys[:3], 0.1, 0.1).values()) == ["test", "train", "val"]
    with pytest.raises(UserError, match="fractions of val and test"):
        split_of_fractions(keys, 0.6, 0.5)


def test_cutting_into_clips():
    video = {"images": np.arange(10), "action_labels": np.arange(9), "action_class": np.int32(4)}
    clips = list(cut_into_clips(video, 4, overlap=1))
    assert [list(c["images"]) for c in clips] == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]
    assert [list(c["action_labels"]) for c in clips] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert clips[0]["action_class"] == 4
    assert len(list(cut_into_clips(video, 0))) == 1


def test_sizes():
    assert parse_size("64") == (64, 64) and parse_size("256x96") == parse_size("256,96") == (256, 96)
    assert parse_size("") is None
    for text in ("0", "a", "1x2x3", "-4"):
        with pytest.raises(UserError, match="--size: expected a side or WIDTHxHEIGHT"):
            parse_size(text)


def test_command_line(tmp_path):
    """The script: prepares, verifies, names the broken file, and takes no unknown flag."""

    def run(*flags):
        return commands.run("prepare_data", *flags)

    for i in range(3):
        for t in range(4):
            (tmp_path / "videos" / f"v{i}").mkdir(parents=True, exist_ok=True)
            frame = np.full([8, 8, 3], 20 * i + t, np.uint8)
            (tmp_path / "videos" / f"v{i}" / f"{t}.png").write_bytes(encode_png(frame))
    out = str(tmp_path / "out")
    common = ["--dataset=video_folder", f"--output_dir={out}"]
    done = run(*common, f"--source_dir={tmp_path / 'videos'}", "--size=8", "--clip_length=4", "--processes=0")
    assert done.returncode == 0, done.stderr
    assert "train: 1 clips, 4 frames, every record checked" in done.stdout
    assert json.loads((tmp_path / "out" / "dataset_info.json").read_text())["splits"]["val"]["clips"] == 1
    path = tmp_path / "out" / "val" / "clips-00000-of-00001.tfrecord"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(bytes(data))
    broken = run(*common, "--verify")
    assert broken.returncode == 1 and "Traceback" not in broken.stderr
    assert f"error: {path}: record 0" in broken.stderr


def test_prepared_folder_opens_under_any_name(tmp_path):
    _prepare(tmp_path)
    assert open_source("anything", tmp_path).count("train") == 6


def test_overwrite_leaves_what_was_never_written(tmp_path):
    _prepare(tmp_path)
    for name in ("video.avi", "softmotion_00001.tfrecords"):
        precious = tmp_path / "train" / name
        precious.write_bytes(b"precious")
        with pytest.raises(UserError, match=f"--overwrite: expected a prepared data set .*{name}, which would be lost"):
            _prepare(tmp_path, overwrite=True)
        assert precious.read_bytes() == b"precious" and (tmp_path / "dataset_info.json").exists()
        precious.unlink()
    assert _prepare(tmp_path, overwrite=True).splits["train"]["clips"] == 6


def test_overwrite_of_its_own_source_is_refused(tmp_path):
    write_gif(str(tmp_path / "a.gif"), np.zeros((8, 8, 8, 3), np.uint8), 8)
    with pytest.raises(UserError, match="--overwrite: expected --output_dir to be another folder than --source_dir"):
        prepare("video_folder", str(tmp_path), f"{tmp_path}/", processes=0, progress=False, overwrite=True)
    assert os.listdir(tmp_path) == ["a.gif"]


def test_two_processes_do_not_write_one_folder(tmp_path):
    with folder_lock.held(str(tmp_path)):
        with pytest.raises(UserError, match="--output_dir: expected a folder that no other process writes now"):
            _prepare(tmp_path)
    assert _prepare(tmp_path).splits["train"]["clips"] == 6
    assert _prepare(tmp_path, wait=True).splits["train"]["clips"] == 6


def test_demo_goes_on_where_its_first_use_was_interrupted(tmp_path, monkeypatch):
    def interrupted(job, group, prepared=None):
        raise KeyboardInterrupt

    monkeypatch.setattr(local_pool, "write_group", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _prepare(tmp_path)
    asked = []
    monkeypatch.setattr(source_lib, "prepare", lambda *args, **options: asked.append(args) or DatasetInfo.load(args[2]))
    with pytest.raises(DataError, match="dataset_info.json"):
        open_source("demo", tmp_path)
    assert asked == [("demo", None, str(tmp_path))]
