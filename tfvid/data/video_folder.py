"""Any folder of videos, GIFs or folders of frames, as clips."""

import os

import numpy as np

from tfvid.data.folders import walk
from tfvid.data.preparation import BrokenItem, Item, Option, Preparation, parse_size, split_of_fractions
from tfvid.data.records import SPLITS
from tfvid.data.video_files import IMAGE_SUFFIXES, VIDEO_SUFFIXES, check_fps, natural_key, open_video, resize_frames
from tfvid.errors import UserError


class VideoFolder(Preparation):
    """Videos below a folder; where it has train/, val/ or test/, these are the splits."""

    OPTIONS = {
        "size": Option("64", "side of the frames, or WIDTHxHEIGHT, in pixels; empty: as they are"),
        "fit": Option("crop", "how another shape of frame is fitted into the size", ("crop", "stretch")),
        "fps": Option(0.0, "frames per second that are kept of each video; 0: all"),
        "clip_length": Option(32, "frames of a clip; 0: a whole video is one clip"),
        "overlap": Option(0, "frames that a clip shares with the one before it"),
        "val": Option(0.1, "share of the videos for validation, where the folder has no splits"),
        "test": Option(0.1, "share of the videos for testing, where the folder has no splits"),
        "seed": Option(0, "draws which video belongs to which split"),
        "grey": Option(False, "one channel instead of three"),
    }
    ITEMS_PER_FILE = 8
    DEFAULTS = {"context_frames": 2, "sequence_length": 12, "long_sequence_length": 30, "time_shift": 1}

    def validate(self):
        parse_size(self.options["size"])
        options = self.options
        if options["clip_length"] < 0 or options["clip_length"] == 1:
            raise UserError(f"--clip_length: expected 0 or at least 2. Received: {options['clip_length']}")
        if not 0 <= options["overlap"] < max(options["clip_length"], 1):
            raise UserError(f"--overlap: expected 0 <= overlap < clip_length. Received: {options['overlap']}")
        check_fps(options["fps"], low=0)
        split_of_fractions([], options["val"], options["test"])

    def items(self):
        names = find_videos(self.source_dir)
        if any(name.split("/")[0] in SPLITS for name in names):
            strangers = [name for name in names if name.split("/")[0] not in SPLITS]
            if strangers:
                raise UserError(
                    f"{self.source_dir}: expected every video in train/, val/ or test/, since there are such folders."
                    f" Received: {strangers[0]}"
                )
            splits = {name: name.split("/")[0] for name in names}
        else:
            splits = split_of_fractions(names, self.options["val"], self.options["test"], self.options["seed"])
        return [Item(name, splits[name], {"path": name}) for name in names]

    def clips(self, item):
        path = os.path.join(self.source_dir, item.payload["path"])
        length, overlap = self.options["clip_length"], self.options["overlap"]
        frames, count, total = [], 0, 0
        with open_video(path) as (stream, fps):
            for frame in resampled(stream, fps, self.options["fps"]):
                frames.append(self._fitted(frame))
                total += 1
                if length and len(frames) == length:
                    yield {"images": np.stack(frames)}
                    frames, count = frames[length - overlap :], count + 1
        if not length and total >= 2:
            yield {"images": np.stack(frames)}
        elif not count:
            raise BrokenItem(f"{path}: expected at least {max(length, 2)} frames, the video has {total}")

    def defaults(self):
        length = self.options["clip_length"]
        if not length:
            return dict(self.DEFAULTS)
        return {
            **self.DEFAULTS,
            "context_frames": min(2, length - 1),
            "sequence_length": min(12, length),
            "long_sequence_length": min(30, length),
        }

    def description(self):
        return {
            "source": f"videos in {os.path.basename(os.path.normpath(self.source_dir))}",
            "fps": self.options["fps"] or None,
        }

    def _fitted(self, frame):
        """uint8 [H, W, 3] -> uint8 of the size asked for, one channel where asked for."""
        size = parse_size(self.options["size"])
        if size:
            width, height = size
            if self.options["fit"] == "crop":
                frame = central_crop(frame, height / width)
            frame = resize_frames(frame[None], height, width)[0]
        if self.options["grey"]:
            frame = np.round(frame @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)[..., None]
        return frame


def find_videos(folder):
    """Paths below `folder`, relative and with "/", of video files and folders of frames."""
    found = []
    for relative, files in walk(folder):
        videos = [f for f in files if f.lower().endswith(VIDEO_SUFFIXES)]
        found += [f"{relative}/{f}" if relative else f for f in videos]
        if relative and any(f.lower().endswith(IMAGE_SUFFIXES) for f in files):
            found.append(relative)
    return sorted(found, key=natural_key)


def resampled(frames, fps, wanted):
    """The frames nearest in time to every 1 / `wanted` seconds; all where a rate is not known or 0.

    As ffmpeg's filter `fps`: frames are left out or repeated, none is mixed.
    """
    if not wanted or not fps:
        yield from frames
        return
    step, sent = fps / wanted, 0  # source frames from one kept frame to the next
    last, number = None, -1
    for number, frame in enumerate(frames):
        while round(sent * step) < number:
            yield last
            sent += 1
        if round(sent * step) == number:
            yield frame
            sent += 1
        last = frame
    while last is not None and round(sent * step) <= number:
        yield last
        sent += 1


def central_crop(frame, ratio):
    """The largest central part of a frame [H, W, C] with height / width = `ratio`."""
    height, width = frame.shape[:2]
    new_height, new_width = min(height, max(round(width * ratio), 1)), min(width, max(round(height / ratio), 1))
    top, left = (height - new_height) // 2, (width - new_width) // 2
    return frame[top : top + new_height, left : left + new_width]
