"""GIF, MP4 and folders of frames, in and out."""

import numpy as np
import pytest

from tfvid.data import video_files
from tfvid.errors import UserError


def _moving_square(count=6, height=16, width=20):
    frames = np.zeros([count, height, width, 3], np.uint8)
    for t in range(count):
        frames[t, 4:10, 2 * t : 2 * t + 6] = [250, 20, 20]
    return frames


def test_gif_keeps_frames_and_rate(tmp_path):
    frames = _moving_square()
    for folder in (str(tmp_path), "ram://gifs"):
        video_files.write_gif(f"{folder}/a.gif", frames, fps=8)
        read, fps = video_files.read_video(f"{folder}/a.gif")
        np.testing.assert_array_equal(read, frames)
        assert fps == pytest.approx(1000 / 120)  # hundredths of a second


def test_gif_repeats_merged_frames(tmp_path):
    frames = _moving_square()[[0, 1, 1, 1, 2]]
    video_files.write_gif(str(tmp_path / "a.gif"), frames, fps=10)
    np.testing.assert_array_equal(video_files.read_video(tmp_path / "a.gif")[0], frames)


def test_grey_gif(tmp_path):
    frames = _moving_square()[..., :1]
    video_files.write_gif(str(tmp_path / "a.gif"), frames, fps=5)
    np.testing.assert_array_equal(video_files.read_video(tmp_path / "a.gif")[0], np.repeat(frames, 3, -1))


@pytest.mark.parametrize(("height", "width"), [(16, 20), (17, 21)])
def test_mp4_keeps_length_and_rate(tmp_path, height, width):
    frames = _moving_square(height=height, width=width)
    video_files.write_mp4(str(tmp_path / "a.mp4"), frames, fps=8)
    read, fps = video_files.read_video(tmp_path / "a.mp4")
    assert len(read) == len(frames) and fps == pytest.approx(8)
    # The codec is lossy; the square is where it was.
    inside = read[3, 6:8, 8:10].astype(int)
    assert abs(inside - [250, 20, 20]).max() < 60 and read[3, 14, :].max() < 60
    assert len(video_files.read_video(tmp_path / "a.mp4", max_frames=2)[0]) == 2


def test_folder_of_frames_in_the_order_of_numbers(tmp_path):
    frames = _moving_square(11)
    for t, frame in enumerate(frames):
        (tmp_path / f"frame{t}.png").write_bytes(video_files.encode_png(frame))  # frame10 after frame9
    read, fps = video_files.read_video(tmp_path)
    np.testing.assert_array_equal(read, frames)
    assert fps is None


def test_transparency_lies_over_white(tmp_path):
    from PIL import Image

    Image.fromarray(np.array([[[255, 0, 0, 255], [9, 9, 9, 0]]], np.uint8)).save(tmp_path / "0.png")
    np.testing.assert_array_equal(video_files.read_image(str(tmp_path / "0.png"))[0], [[255, 0, 0], [255, 255, 255]])


def test_grey_of_16_bits_keeps_its_range(tmp_path):
    from PIL import Image

    Image.fromarray(np.array([[0, 257, 32896, 65535]], np.uint16)).save(tmp_path / "0.png")
    read = video_files.read_image(str(tmp_path / "0.png"))
    np.testing.assert_array_equal(read[0], np.repeat([[0], [1], [128], [255]], 3, axis=1))


def test_a_frame_that_stays_costs_no_memory(tmp_path):
    from PIL import Image

    images = [Image.new("L", (4, 4), v) for v in (0, 90, 200)]
    images[0].save(tmp_path / "a.gif", save_all=True, append_images=images[1:], duration=[10, 10, 600000])
    with video_files.open_video(tmp_path / "a.gif") as (frames, fps):
        first = [next(frames) for _ in range(5)]
    assert fps == 100 and [int(f.mean()) for f in first] == [0, 90, 200, 200, 200] and first[3] is first[4]


@pytest.mark.parametrize("fps", [0.0, -1.0, 0.001, 1e6, float("nan"), float("inf")])
def test_rates_that_no_file_can_have(fps):
    with pytest.raises(UserError, match="--fps: expected a number from 0.01 to 1000"):
        video_files.check_fps(fps)


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.avi"])
def test_unreadable_video_is_one_line(tmp_path, name):
    (tmp_path / name).write_bytes(b"this is no video at all" * 40)
    with pytest.raises(video_files.VideoError, match=name) as caught:
        video_files.read_video(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_truncated_videos_are_one_line(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, [40, 32, 32, 3], np.uint8)
    video_files.write_mp4(str(tmp_path / "a.mp4"), frames, fps=8)
    data = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "a.mp4").write_bytes(data[: len(data) // 3])
    with pytest.raises(video_files.VideoError, match="a.mp4"):
        video_files.read_video(tmp_path / "a.mp4")
    video_files.write_gif(str(tmp_path / "a.gif"), frames, fps=8)
    data = (tmp_path / "a.gif").read_bytes()
    (tmp_path / "a.gif").write_bytes(data[: len(data) // 3])
    with pytest.raises(video_files.VideoError, match="a.gif"):
        video_files.read_video(tmp_path / "a.gif")


def test_a_video_whose_frames_change_their_size_is_one_line():
    class Capture:
        sizes = [(4, 6), (4, 6), (8, 12)]

        def get(self, _):
            return 3.0

        def read(self):
            return (True, np.zeros([*self.sizes.pop(0), 3], np.uint8)) if self.sizes else (False, None)

    with pytest.raises(video_files.VideoError, match=r"a.mp4: .* \[4, 6, 3\], received \[8, 12, 3\] at frame 2$"):
        list(video_files._opencv_frames(Capture(), "a.mp4"))


def test_photographs_are_turned_as_their_exif_says(tmp_path):
    from PIL import Image

    exif = Image.Exif()
    exif[274] = 6  # a quarter to the right
    frame = np.zeros([2, 4, 3], np.uint8)
    frame[0, 0] = 255
    Image.fromarray(frame).save(tmp_path / "0.png", exif=exif)
    read = video_files.read_image(str(tmp_path / "0.png"))
    assert read.shape == (4, 2, 3) and read[0, 1].min() == 255 and read.sum() == 3 * 255


def test_missing_and_mixed_folders_are_one_line(tmp_path):
    with pytest.raises(video_files.VideoError, match="found nothing"):
        video_files.read_video(tmp_path / "none.mp4")
    with pytest.raises(video_files.VideoError, match="found no image"):
        video_files.read_video(tmp_path)
    (tmp_path / "0.png").write_bytes(video_files.encode_png(np.zeros([4, 4, 3], np.uint8)))
    (tmp_path / "1.png").write_bytes(video_files.encode_png(np.zeros([5, 4, 3], np.uint8)))
    with pytest.raises(video_files.VideoError, match=r"1.png: expected \[4, 4, 3\] as in 0.png"):
        video_files.read_video(tmp_path)


def test_wrong_frames_are_one_line(tmp_path):
    for frames in (np.zeros([2, 4, 4, 3]), np.zeros([4, 4, 3], np.uint8), np.zeros([0, 4, 4, 3], np.uint8)):
        with pytest.raises(UserError, match="expected video frames uint8"):
            video_files.encode_gif(frames, 5)


def test_resizing_keeps_the_mean_downwards():
    frames = np.random.default_rng(0).integers(0, 256, [2, 16, 24, 1], np.uint8)
    small = video_files.resize_frames(frames, 4, 6)
    expected = frames.reshape(2, 4, 4, 6, 4, 1).mean((2, 4))
    assert small.shape == (2, 4, 6, 1) and np.abs(small - expected).max() <= 0.51
