"""Folders of videos, GIFs and folders of frames."""

import os

import numpy as np
import pytest

from tfvid.data import video_files, video_folder
from tfvid.data.prepare import prepare
from tfvid.data.source import open_source
from tfvid.errors import UserError


def _frames(count, height=12, width=16, seed=0):
    """Smooth enough for lossy codecs; frame t is brighter by 8 t."""
    y, x = np.mgrid[:height, :width]
    base = np.stack([4 * y, 4 * x, 2 * (x + y)], -1) + seed
    return np.stack([base + 8 * t for t in range(count)]).clip(0, 255).astype(np.uint8)


def _prepare(videos, out, **options):
    return prepare("video_folder", str(videos), str(out), options, processes=0, progress=False)


def _clips(out, split):
    source = open_source("mine", out)
    hparams = type("Open", (), source.defaults())
    length = source.info.clip_length
    return np.concatenate(
        [b["images"][b["valid"]] for b in source.evaluation_batches(split, hparams, 4, length=length)]
    )


def test_all_kinds_by_split_folder(tmp_path):
    for split in ("train", "test"):
        (tmp_path / "videos" / split / "frames").mkdir(parents=True)
        video_files.write_gif(str(tmp_path / "videos" / split / "a.gif"), _frames(8), 8)
        video_files.write_mp4(str(tmp_path / "videos" / split / "b.mp4"), _frames(8), 8)
        for t, frame in enumerate(_frames(8)):
            (tmp_path / "videos" / split / "frames" / f"{t:05d}.png").write_bytes(video_files.encode_png(frame))
    info = _prepare(tmp_path / "videos", tmp_path / "out", size="16x12", clip_length=4)
    assert {s: e["clips"] for s, e in info.splits.items()} == {"train": 6, "test": 6}
    clips = _clips(tmp_path / "out", "test")  # a.gif, b.mp4, frames: two clips each
    np.testing.assert_array_equal(clips[4:6].reshape(8, 12, 16, 3), _frames(8))
    for other, tolerance in ((clips[:2], 24), (clips[2:4], 24)):  # 256 colours; a lossy codec
        assert np.abs(other.reshape(8, 12, 16, 3).astype(int) - _frames(8)).mean() < tolerance / 2


def test_splits_by_fractions(tmp_path):
    (tmp_path / "videos" / "deep").mkdir(parents=True)
    for i in range(10):
        video_files.write_gif(str(tmp_path / "videos" / "deep" / f"{i}.gif"), _frames(4, seed=i), 8)
    info = _prepare(tmp_path / "videos", tmp_path / "out", size="8", clip_length=4, val=0.2, test=0.1)
    assert {s: e["clips"] for s, e in info.splits.items()} == {"train": 7, "val": 2, "test": 1}


def test_videos_beside_split_folders_are_refused(tmp_path):
    (tmp_path / "videos" / "train").mkdir(parents=True)
    video_files.write_gif(str(tmp_path / "videos" / "train" / "a.gif"), _frames(4), 8)
    video_files.write_gif(str(tmp_path / "videos" / "stray.gif"), _frames(4), 8)
    with pytest.raises(UserError, match="expected every video in train/, val/ or test/.* Received: stray.gif"):
        _prepare(tmp_path / "videos", tmp_path / "out")


def test_rate_overlap_grey_and_whole_videos(tmp_path):
    (tmp_path / "videos").mkdir()
    frames = _frames(12, 8, 8)
    for t, frame in enumerate(frames):
        (tmp_path / "videos" / "a").mkdir(exist_ok=True)
        (tmp_path / "videos" / "a" / f"{t}.png").write_bytes(video_files.encode_png(frame))
    none = {"val": 0.0, "test": 0.0}
    info = _prepare(tmp_path / "videos", tmp_path / "overlap", size="", clip_length=4, overlap=2, **none)
    assert info.splits["train"]["clips"] == 5  # 0-3, 2-5, 4-7, 6-9, 8-11
    info = _prepare(tmp_path / "videos", tmp_path / "whole", size="", clip_length=0, grey=True, **none)
    assert info.clip_length == 12 and info.fields["images"].shape == (8, 8, 1)
    grey = _clips(tmp_path / "whole", "train")[0, ..., 0]
    assert np.abs(grey - frames @ [0.299, 0.587, 0.114]).max() <= 0.51


@pytest.mark.parametrize(
    ("fps", "wanted", "expected"),
    [
        (30.0, 10.0, [0, 3, 6, 9]),
        (10.0, 25.0, [0, 0, 1, 1, 2, 2, 2, 3, 3, 4, 4, 4, 5, 5, 6, 6, 6, 7, 7, 8, 8, 8, 9, 9]),
        (24.0, 0.0, list(range(10))),
        (None, 10.0, list(range(10))),
        (10.0, 10.0, list(range(10))),
    ],
)
def test_resampling_takes_the_nearest_frame(fps, wanted, expected):
    result = list(video_folder.resampled(iter(range(10)), fps, wanted))
    assert result == expected


def test_central_crop_keeps_the_shape_of_pixels():
    frame = np.zeros([20, 40, 3], np.uint8)
    frame[:, 10:30] = 9
    np.testing.assert_array_equal(video_folder.central_crop(frame, 1.0), np.full([20, 20, 3], 9))
    assert video_folder.central_crop(frame, 0.25).shape == (10, 40, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip_length": 1}, "--clip_length"),
        ({"clip_length": 4, "overlap": 4}, "--overlap"),
        ({"fps": -1.0}, "--fps"),
        ({"fps": float("nan")}, "--fps: expected a number from 0 to 1000"),
        ({"fps": 1e9}, "--fps: expected a number from 0 to 1000"),
        ({"size": "²"}, "--size"),
        ({"size": "9" * 20}, "--size"),
        ({"size": "big"}, "--size"),
        ({"fit": "squeeze"}, "--fit: expected one of crop, stretch"),
        ({"val": 0.9, "test": 0.2}, "fractions"),
    ],
)
def test_wrong_options_are_one_line(tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        _prepare(tmp_path, tmp_path / "out", **options)
    with pytest.raises(UserError, match="found none"):
        _prepare(tmp_path, tmp_path / "out")


def test_links_to_themselves_and_hidden_files_are_no_videos(tmp_path):
    (tmp_path / "videos" / "frames").mkdir(parents=True)
    (tmp_path / "videos" / "again").symlink_to(tmp_path / "videos")
    for hidden in (".thumbnails", "__MACOSX"):
        (tmp_path / "videos" / hidden).mkdir()
        (tmp_path / "videos" / hidden / "a.gif").write_bytes(b"no GIF")
    for t, frame in enumerate(_frames(4)):
        (tmp_path / "videos" / "frames" / f"{t}.png").write_bytes(video_files.encode_png(frame))
        (tmp_path / "videos" / "frames" / f"._{t}.png").write_bytes(b"\0\5\x16\7")
    video_files.write_gif(str(tmp_path / "videos" / "a ü\n.GIF"), _frames(4), 8)
    assert video_folder.find_videos(f"{tmp_path / 'videos'}/") == ["a ü\n.GIF", "frames"]
    info = _prepare(tmp_path / "videos", tmp_path / "out", size="8", clip_length=4, val=0.0, test=0.0)
    assert info.splits["train"]["clips"] == 2 and not info.broken


def test_a_name_that_is_no_text_is_said(tmp_path):
    (tmp_path / os.fsdecode(b"\xff.avi")).touch()
    with pytest.raises(UserError, match=r"expected names in UTF-8. Received: b'\\xff.avi'; rename it"):
        video_folder.find_videos(str(tmp_path))
