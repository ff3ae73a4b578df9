"""HDF5 shards, CLEVRER and EPIC-KITCHENS: small copies of their layouts become records."""

import io
import tarfile

import h5py
import numpy as np
import pytest

from tfvid.data import hdf5_shards
from tfvid.data.preparation import BrokenItem
from tfvid.data.prepare import prepare
from tfvid.data.source import open_source
from tfvid.data.video_files import encode_png, write_mp4
from tfvid.errors import UserError


def write_shard(path, videos, key=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as shard:
        shard.create_group("videos")
        for i, frames in enumerate(videos):
            shard[f"len/{i}"] = len(frames)
            for j, frame in enumerate(frames):
                shard.create_dataset(f"{key}{i}/{j}", data=frame, compression="lzf")


def random_videos(lengths, height=8, width=8):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (n, height, width, 3), np.uint8) for n in lengths]


def run(dataset, source, output, **options):
    return prepare(dataset, str(source), str(output), options, processes=0, progress=False)


def clips_of(folder, split, length, hparams_of):
    source = open_source("mine", folder)
    batches = source.evaluation_batches(split, hparams_of(source, frame_skip=0), 1, length=length)
    return [b["images"][0].numpy() for b in batches]


def test_hdf5_shards_are_read_whole(tmp_path, hparams_of):
    videos = random_videos((4, 6, 5))
    write_shard(tmp_path / "h5" / "train" / "shard_0001.hdf5", videos[:2])
    write_shard(tmp_path / "h5" / "train" / "shard_0002.hdf5", videos[2:])
    write_shard(tmp_path / "h5" / "test" / "shard_0001.h5", videos[1:2])
    info = run("hdf5_shards", tmp_path / "h5", tmp_path / "out")
    assert info.splits["train"]["clips"] == 3 and info.splits["train"]["frames"] == 15
    assert info.defaults["sequence_length"] == 16 and info.clip_length is None
    for clip, video in zip(clips_of(tmp_path / "out", "train", 4, hparams_of), videos):
        np.testing.assert_array_equal(clip, video[:4])
    assert len(clips_of(tmp_path / "out", "test", 6, hparams_of)) == 1


def test_objects_of_another_kind_are_named(tmp_path):
    path = str(tmp_path / "a.h5")
    with h5py.File(path, "w") as shard:
        shard["len/0"], shard["len/1"], shard["len/2"] = 1, 1, 1
        shard.create_group("0/0")
        shard["1/0"] = "text"
        shard["2"] = np.zeros(3)
    for clip in range(3):
        with pytest.raises(BrokenItem, match=f"a.h5: clip {clip}: "):
            hdf5_shards.read_clip(path, clip)
    with h5py.File(path, "a") as shard:
        shard["len/3"] = [1, 2]
    with pytest.raises(UserError, match="a.h5: len: expected a whole number for each clip"):
        hdf5_shards.list_clips(path)


def test_clips_below_a_group_and_of_another_size(tmp_path, hparams_of):
    (video,) = random_videos((4,), 12, 20)
    write_shard(tmp_path / "h5" / "train" / "shard.hdf5", [video], "videos/")
    with pytest.raises(UserError, match="--frames_key=videos"):
        prepare("hdf5_shards", str(tmp_path / "h5"), str(tmp_path / "a"), {}, processes=0, progress=False, max_broken=0)
    run("hdf5_shards", tmp_path / "h5", tmp_path / "b", frames_key="videos", size=6)
    (clip,) = clips_of(tmp_path / "b", "train", 4, hparams_of)
    assert clip.shape == (4, 6, 6, 3)
    # The shorter side becomes 6, the longer 10, of which the middle 6 are kept.
    np.testing.assert_array_equal(clip[0], hdf5_shards.fitted(video[0], 6))


def test_cutting_needs_no_resizing():
    frame = np.arange(6 * 10 * 3, dtype=np.uint8).reshape(6, 10, 3)
    np.testing.assert_array_equal(hdf5_shards.fitted(frame, 6), frame[:, 2:8])


def test_broken_shards_are_named(tmp_path):
    path = tmp_path / "shard.hdf5"
    path.write_bytes(b"no hdf5")
    with pytest.raises(UserError, match="shard.hdf5: expected an HDF5 file"):
        hdf5_shards.list_clips(str(path))
    with h5py.File(path, "w") as shard:
        shard["data"] = 1
    with pytest.raises(UserError, match="expected the group len"):
        hdf5_shards.list_clips(str(path))
    with h5py.File(path, "w") as shard:
        shard["len/0"], shard["0/0"] = 2, np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(BrokenItem, match="clip 0: cannot read it"):
        hdf5_shards.read_clip(str(path), 0)
    with pytest.raises(UserError, match="expected train/, val/ or test/ with ..hdf5 shards"):
        run("hdf5_shards", tmp_path, tmp_path / "out")


def test_clevrer(tmp_path):
    for folder, name in (("video_train/video_00000-01000", "video_00000"), ("video_validation", "video_10000")):
        target = tmp_path / "clevrer" / folder
        target.mkdir(parents=True)
        write_mp4(str(target / f"{name}.mp4"), random_videos((6,), 16, 24)[0], 10)
    info = run("clevrer", tmp_path / "clevrer", tmp_path / "out", size=8)
    assert {k: v["frames"] for k, v in info.splits.items()} == {"train": 6, "val": 6}
    assert tuple(info.fields["images"].shape) == (8, 8, 3) and info.defaults["frame_skip"] == 4
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="expected video_train/"):
        run("clevrer", tmp_path / "empty", tmp_path / "other")


def test_epic_kitchens(tmp_path, hparams_of):
    root = tmp_path / "epic" / "P03"
    frames = random_videos((7,), 10, 16)[0]
    folder = root / "rgb_frames" / "P03_01"
    folder.mkdir(parents=True)
    for i, frame in enumerate(frames):
        (folder / f"frame_{i + 1:010d}.png").write_bytes(encode_png(frame))
    with tarfile.open(root / "rgb_frames" / "P03_02.tar", "w") as archive:
        for i, frame in enumerate(frames):
            data = encode_png(frame)
            entry = tarfile.TarInfo(f"./frame_{i + 1:010d}.png")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    (tmp_path / "epic" / "P04" / "P04_01").mkdir(parents=True)
    (tmp_path / "epic" / "P04" / "P04_01" / "frame_1.png").write_bytes(encode_png(frames[0]))
    info = run("epic", tmp_path / "epic", tmp_path / "out", size=8, clip_length=3, val=0.0, test=0.0)
    assert info.splits["train"]["clips"] == 4 and info.splits["train"]["frames"] == 12
    clips = clips_of(tmp_path / "out", "train", 3, hparams_of)
    for first, second in zip(clips[:2], clips[2:]):  # folder and archive hold the same
        assert np.abs(first.astype(int) - second).max() == 0
    with pytest.raises(UserError, match="like P03_01 of --participants=P09, found none"):
        run("epic", tmp_path / "epic", tmp_path / "other", participants="P09")
