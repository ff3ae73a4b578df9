"""Windows of Penn Action from each of its three sources."""

import os

import cv2
import numpy as np
import pytest

from tfvid.data import penn
from tfvid.data.prepare import prepare
from tfvid.data.records import DataError
from tfvid.data.source import open_source
from tfvid.errors import UserError
from tfvid.hparams import HParams

WIDTH, HEIGHT, FRAMES = 60, 48, 70


def walk(frames, seed=0):
    """[T, 13, 2] pixels of a pose that moves to the right."""
    rng = np.random.default_rng(seed)
    pose = rng.uniform((5, 5), (25, 40), (13, 2))
    return pose + np.stack([np.linspace(0, 20, frames), np.zeros(frames)], -1)[:, None]


def write_frames(folder, video, count):
    path = folder / "frames" / video
    path.mkdir(parents=True)
    for number in range(1, count + 1):
        frame = np.full((HEIGHT, WIDTH, 3), number, np.uint8)
        cv2.imwrite(os.fspath(path / f"{number:06d}.jpg"), frame, [cv2.IMWRITE_JPEG_QUALITY, 100])


@pytest.fixture
def published(tmp_path):
    """Two training videos and a test video, one short, one of an action that is not used."""
    scipy_io = pytest.importorskip("scipy.io")
    folder = tmp_path / "penn"
    (folder / "labels").mkdir(parents=True)
    videos = {"0001": ("squat", 1, FRAMES), "0002": ("squat", -1, 20), "0003": ("bowl", 1, 40), "0004": ("squat", 1, 40)}
    for video, (action, train, count) in videos.items():
        write_frames(folder, video, count)
        poses, visible = walk(count), np.ones((count, 13), np.uint8)
        if video == "0004":  # a joint that has no position in the first frame
            poses[0, 3], visible[0, 3] = 1, 0
        labels = {"action": action, "train": np.int8(train), "x": poses[..., 0], "y": poses[..., 1]}
        scipy_io.savemat(folder / "labels" / f"{video}.mat", {**labels, "visibility": visible})
    return folder


def clips_of(folder, split, keys=("images", "poses", "boxes", "frame_step", "action_class")):
    """{key: [N, ...]} of all clips of a prepared split."""
    source = open_source("penn", folder)
    hparams = HParams().with_dataset_defaults(source.defaults())
    batches = list(source.evaluation_batches(split, hparams, 1).as_numpy_iterator())
    return {k: np.concatenate([b[k] for b in batches]) for k in keys}


def test_windows_are_cut_from_labels(published, tmp_path):
    out = tmp_path / "out"
    info = prepare("penn", published, out, {"val": 0.0, "size": 32}, processes=0, progress=False, encoding="raw")
    # 70 frames: every second one, 33 of them; 40 frames: the first 33, of which the first has no full pose.
    assert info.splits["train"]["clips"] == 28 + 27
    assert info.splits["test"]["clips"] == 15  # a short video is taken frame by frame
    assert info.labels["action_class"][7] == "squat"
    test = clips_of(out, "test")
    assert (test["action_class"] == 7).all() and (test["frame_step"] == 1).all()
    assert test["images"].shape[1:] == (6, 32, 32, 3)
    pixels = 16 * (test["poses"][..., 0] + 1)
    step = np.diff(pixels, axis=1)
    np.testing.assert_allclose(step[:, :, 4], step[0, 0, 4], atol=1e-4)  # constant motion
    assert (np.diff(test["images"][:, :, 16, 16, 0].astype(int), axis=1) == 1).all()  # frames in order
    train = clips_of(out, "train")
    assert sorted(set(train["frame_step"])) == [1, 2]


def test_a_share_of_the_training_videos_validates(published, tmp_path):
    for video in ("0005", "0006"):
        write_frames(published, video, 20)
        (published / "labels" / f"{video}.mat").write_bytes((published / "labels" / "0002.mat").read_bytes())
    from scipy.io import loadmat, savemat

    for video in ("0005", "0006"):
        labels = {k: v for k, v in loadmat(published / "labels" / f"{video}.mat").items() if k[0] != "_"}
        savemat(published / "labels" / f"{video}.mat", {**labels, "action": "squat", "train": np.int8(1)})
    info = prepare("penn", published, tmp_path / "out", {"val": 0.3, "size": 32}, processes=0, progress=False)
    assert info.splits["val"]["clips"] > 0
    assert sum(s["clips"] for s in info.splits.values()) == 28 + 27 + 3 * 15


def list_line(video, frames, poses, action=2):
    """One line as the original's lists have it."""
    boxes = [int(v) for p in poses[1:] for v in (*p.min(0), *p.max(0))]
    crop = [0, 0, WIDTH - 1, HEIGHT - 1]
    paths = [f"/home/someone/frames/{video}/{n:06d}.jpg" for n in frames]
    numbers = [f"{v:.6f}" for p in (*poses[1:], poses[0]) for v in p.reshape(-1)]
    return ",".join([*paths, "clean_and_jerk", str(action), *map(str, crop), *map(str, boxes), *numbers])


def test_lists_of_the_original_project(tmp_path):
    poses = walk(20)
    write_frames(tmp_path / "src", "0007", 20)
    write_frames(tmp_path / "src", "0008", 20)
    lines = [list_line("0007", range(s, s + 12, 2), poses[s - 1 : s + 11 : 2]) for s in (1, 3)]
    lines.append(list_line("0007", [1] * 6, poses[[0] * 6]))  # static
    (tmp_path / "src" / penn.LISTS["train"]).write_text("\n".join(lines) + "\n")
    (tmp_path / "src" / penn.LISTS["test"]).write_text(list_line("0008", range(1, 7), poses[:6]) + "\n")
    options = {"val": 0.0, "size": 32}
    info = prepare("penn", tmp_path / "src", tmp_path / "out", options, processes=0, progress=False, encoding="raw")
    assert info.splits["train"]["clips"] == 2 and info.splits["test"]["clips"] == 1
    train = clips_of(tmp_path / "out", "train")
    assert train["frame_step"].tolist() == [2, 2]
    window = penn.parse_list_line(lines[0], "line 1")
    expected = penn.Letterbox.of(window.crop, 32, (WIDTH, HEIGHT)).poses(window.poses)
    np.testing.assert_allclose(train["poses"][0], expected, atol=1e-6)
    assert (train["images"][0, :, 16, 16, 0] == [1, 3, 5, 7, 9, 11]).all()
    with_static = {**options, "keep_static": True}
    info = prepare("penn", tmp_path / "src", tmp_path / "all", with_static, processes=0, progress=False)
    assert info.splits["train"]["clips"] == 3


def windows_file(path):
    """Windows of poses without frames: two training windows, one held out, one static."""
    poses = np.stack([walk(6, seed) for seed in range(4)]).astype(np.float32)
    boxes = np.concatenate([poses[:, 1:].min(2), poses[:, 1:].max(2)], -1).astype(np.int16)
    frames = np.tile(np.arange(1, 7) * 3, (4, 1))
    frames[3] = 1
    np.savez(
        path, poses=poses, frames=frames, video_id=[1, 1, 2, 3], action_id=[0, 0, 1, 1], masks=boxes,
        bbox=np.tile([0, 0, 50, 45], (4, 1)), split=[0, 0, 1, 2], action_names=["a", "b"],
    )  # fmt: skip


def test_poses_without_frames_get_figures(tmp_path):
    (tmp_path / "src").mkdir()
    windows_file(tmp_path / "src" / "windows.npz")
    options = {"val": 0.0, "actions": "a,b", "figure_size": 40}
    info = prepare("penn", tmp_path / "src", tmp_path / "out", options, processes=0, progress=False)
    assert (info.splits["train"]["clips"], info.splits["test"]["clips"]) == (2, 1)
    assert "drawn" in info.source
    train = clips_of(tmp_path / "out", "train")
    assert train["images"].shape[1:] == (6, 40, 40, 3)
    assert np.abs(np.diff(train["images"].astype(int), axis=1)).max() > 50  # the figure moves
    assert train["frame_step"].tolist() == [3, 3]
    assert train["poses"].min() >= -1 and train["poses"].max() <= 1 - 2 / 128


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": np.zeros((4, 5), int)}, r"frames int64 \[4, 5\] where numbers \[4, 6\] belong"),
        ({"poses": np.zeros((4, 6, 12, 2))}, r"poses of shape \[4, 6, 12, 2\]"),
        ({"action_id": [0, 0, 1, 2]}, "action_id without a name"),
        ({"video_id": ["a"] * 4}, r"video_id <U1 \[4\] where numbers"),
    ],
)
def test_windows_of_another_form_are_named(tmp_path, change, message):
    windows_file(tmp_path / "w.npz")
    with np.load(tmp_path / "w.npz") as f:
        np.savez(tmp_path / "w.npz", **{**f, **change})
    with pytest.raises(UserError, match=f"w.npz: expected windows of poses .*{message}"):
        penn.Penn(tmp_path, {})
    (tmp_path / "w.npz").write_bytes((tmp_path / "w.npz").read_bytes()[:500])
    with pytest.raises(UserError, match="w.npz: expected windows of poses"):
        penn.Penn(tmp_path, {})


def test_labels_of_another_kind_are_named(tmp_path, monkeypatch):
    labels = {k: np.zeros((5, 13)) for k in ("x", "y", "visibility")} | {"action": "squat", "train": np.ones(1)}
    (tmp_path / "a.mat").touch()
    for change in ({"x": "text"}, {"y": np.zeros((4, 13))}, {"action": np.zeros(3)}, {"train": np.zeros(0)}):
        monkeypatch.setattr(penn, "read_mat", lambda *_, change=change: {**labels, **change})
        with pytest.raises(DataError, match="a.mat: expected "):
            penn.read_labels(str(tmp_path / "a.mat"))


def test_letterbox_keeps_the_aspect_and_clips():
    box = penn.Letterbox.of((10, 5, 30, 45), 32, (60, 48))
    assert (box.width, box.height, box.left, box.top) == (16, 32, 8, 0)
    poses = box.poses(np.array([[[10.0, 5.0], [30.0, 45.0], [-50.0, 500.0]]]))[0]
    np.testing.assert_allclose((poses + 1) * 16, [[8, 0], [24, 31], [0, 31]], atol=1e-5)
    image = box.image(np.full((48, 60, 3), 7, np.uint8))
    assert (image[:, 8:24] == 7).all() and (image[:, :8] == penn.PADDING).all()
    with pytest.raises(DataError, match="crop box"):
        penn.Letterbox.of((10, 5, 10, 45), 32)
    with pytest.raises(DataError, match="fills a pixel of 32x32"):
        penn.Letterbox.of((10, 5, 11, 205), 32)


@pytest.mark.parametrize(
    ("line", "message"), [("a,b", "188 fields"), (",".join(["x"] * 188), "expected numbers")]
)
def test_bad_lines_are_named(line, message):
    with pytest.raises(DataError, match=rf"^list\.txt: line 3: .*{message}"):
        penn.parse_list_line(line, "list.txt: line 3")


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(UserError, match="frames/ and labels/"):
        penn.Penn(tmp_path, {})
