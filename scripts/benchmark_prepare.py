"""Measures prepare_data: frames a second, against what OpenCV decodes on one core.

    python scripts/benchmark_prepare.py
    python scripts/benchmark_prepare.py --source_dir=my_videos --size=64
    python scripts/benchmark_prepare.py --beam_options=--runner=DirectRunner,--direct_running_mode=multi_processing

Without --source_dir it makes videos of moving squares. The limit is the time to decode each video on one core, in this
process, with OpenCV told to use one thread; preparing also resizes, encodes, writes, reads everything back and checks it.
"""

import os
import tempfile
import time

from absl import flags

from tfvid import cli
from tfvid.errors import UserError

_SOURCE = flags.DEFINE_string("source_dir", None, "folder of videos; default: videos made for it")
_VIDEOS = flags.DEFINE_integer("videos", 16, "videos to make", lower_bound=1)
_FRAMES = flags.DEFINE_integer("frames", 120, "frames of each", lower_bound=2)
_SIDES = flags.DEFINE_string("sides", "320x240", "their WIDTHxHEIGHT in pixels")
_SIZE = flags.DEFINE_string("size", "64", "side of the prepared frames, or WIDTHxHEIGHT")
_PROCESSES = flags.DEFINE_integer("processes", None, "worker processes; default all cores; 0: none", lower_bound=0)
_BEAM = flags.DEFINE_string("beam_options", None, "measure Apache Beam instead: --runner=NAME,--name=value")


def main():
    from tfvid.data.preparation import parse_size
    from tfvid.data.prepare import prepare

    with tempfile.TemporaryDirectory() as folder:
        source = _SOURCE.value
        if not source:
            source = os.path.join(folder, "videos")
            make_videos(source, _VIDEOS.value, _FRAMES.value, parse_size(_SIDES.value, "sides"))
        frames, seconds = decode_all(source)
        limit = frames / seconds
        print(f"OpenCV on one core: {frames} frames in {seconds:.2f} s, {limit:.0f} frames/s")
        begin = time.perf_counter()
        info = prepare(
            "video_folder", source, os.path.join(folder, "out"), {"size": _SIZE.value, "clip_length": 0},
            processes=_PROCESSES.value, progress=False, items_per_file=1, beam_options=_BEAM.value, max_broken=10**9,
        )  # fmt: skip
        seconds = time.perf_counter() - begin
        written = sum(entry["frames"] for entry in info.splits.values())
        rate = written / seconds
        how = _BEAM.value or f"{os.cpu_count() if _PROCESSES.value is None else _PROCESSES.value} processes"
        print(f"prepare_data, {how}: {written} frames in {seconds:.2f} s, {rate:.0f} frames/s, {rate / limit:.2f} of it")


def make_videos(folder, count, frames, sides):
    """MP4 files of squares that move over noise that stays."""
    import numpy as np

    from tfvid.data.video_files import write_mp4

    os.makedirs(folder)
    (width, height), rng = sides, np.random.default_rng(0)
    for i in range(count):
        ground = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8).repeat(8, 0).repeat(8, 1)
        video = np.repeat(ground[None, :height, :width], frames, axis=0)
        for t in range(frames):
            x, y = (3 * t + 7 * i) % (width - 16), (2 * t) % (height - 16)
            video[t, y : y + 16, x : x + 16] = 255
        write_mp4(os.path.join(folder, f"{i:04d}.mp4"), video, 25)


def decode_all(folder):
    """(frames, seconds) of decoding every video below `folder` with OpenCV on one thread."""
    import cv2

    cv2.setNumThreads(1)
    frames, begin = 0, time.perf_counter()
    for root, _, names in sorted(os.walk(folder)):
        for name in sorted(names):
            capture = cv2.VideoCapture(os.path.join(root, name), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
            while capture.grab():
                capture.retrieve()
                frames += 1
            capture.release()
    if not frames:
        raise UserError(f"--source_dir: expected videos that OpenCV can decode. Received: {folder}")
    return frames, time.perf_counter() - begin


if __name__ == "__main__":
    cli.run(main)
