"""EPIC-KITCHENS as published, made small and square as CAGE does (participant P03).

Damen et al., "Scaling Egocentric Vision: The EPIC-KITCHENS Dataset", ECCV 2018. Below
`<participant>/` lie the videos (`videos/P03_01.MP4`) or the extracted frames
(`rgb_frames/P03_01/frame_0000000001.jpg`, or `P03_01.tar` of them).
"""

import contextlib
import os
import tarfile

import numpy as np
import tensorflow as tf

from tfvid.data.folders import walk
from tfvid.data.hdf5_shards import stretched
from tfvid.data.preparation import BrokenItem, Item, Option, Preparation, split_of_fractions
from tfvid.data.video_files import IMAGE_SUFFIXES, decode_image, natural_key, open_video
from tfvid.data.video_folder import find_videos
from tfvid.errors import UserError


class EpicKitchens(Preparation):
    """One item a video, which is cut into clips; whole videos belong to one split."""

    ITEMS_PER_FILE = 1
    OPTIONS = {
        "size": Option(256, "side of the frames in pixels; the aspect ratio is not kept, as in the original"),
        "participants": Option("P03", "comma separated; empty: all"),
        "clip_length": Option(150, "frames of a clip"),
        "val": Option(0.1, "share of the videos for validation"),
        "test": Option(0.1, "share of the videos for testing"),
        "seed": Option(0, "draws which video belongs to which split"),
    }
    DEFAULTS = {
        "context_frames": 1, "sequence_length": 16, "long_sequence_length": 16, "frame_skip": 4, "time_shift": 1,
    }  # fmt: skip

    def validate(self):
        if self.options["size"] < 1:
            raise UserError(f"--size: expected a side in pixels. Received: {self.options['size']}")
        if self.options["clip_length"] < 2:
            raise UserError(f"--clip_length: expected at least 2. Received: {self.options['clip_length']}")
        split_of_fractions([], self.options["val"], self.options["test"])

    def items(self):
        wanted = [p.strip() for p in self.options["participants"].split(",") if p.strip()]
        paths = find_videos(self.source_dir) + find_archives(self.source_dir)
        found = {}
        for path in sorted(paths, key=natural_key):
            name = os.path.splitext(os.path.basename(path))[0]  # P03_01
            if not wanted or name.split("_")[0] in wanted:
                found.setdefault(name, path)
        if not found:
            raise UserError(
                f"{self.source_dir}: expected videos, folders of frames or tar files like P03_01 of --participants="
                f"{self.options['participants']}, found none"
            )
        splits = split_of_fractions(list(found), self.options["val"], self.options["test"], self.options["seed"])
        return [Item(name, splits[name], {"path": path}) for name, path in found.items()]

    def clips(self, item):
        path = os.path.join(self.source_dir, item.payload["path"])
        size, length = (self.options["size"],) * 2, self.options["clip_length"]
        frames, count, total = [], 0, 0
        with opened(path) as stream:
            for frame in stream:
                frames.append(stretched(frame, size))
                total += 1
                if len(frames) == length:
                    yield {"images": np.stack(frames)}
                    frames, count = [], count + 1
        if not count:
            raise BrokenItem(f"{path}: expected at least {length} frames, the video has {total}")

    def description(self):
        return {"source": f"EPIC-KITCHENS, participants {self.options['participants'] or 'all'}", "fps": None}


def find_archives(folder):
    """Paths of tar files below `folder`, relative."""
    found = []
    for relative, files in walk(folder):
        found += [f"{relative}/{f}".lstrip("/") for f in files if f.endswith(".tar")]
    return found


@contextlib.contextmanager
def opened(path):
    """The frames of a video, a folder of frames, or a tar file of frames, one after the other."""
    if not path.endswith(".tar"):
        with open_video(path) as (frames, _):
            yield frames
        return
    try:
        with tf.io.gfile.GFile(path, "rb") as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
            yield _archived(archive, path)
    except tarfile.TarError as e:
        raise BrokenItem(f"{path}: expected a tar file, cannot read it: {e}") from None


def _archived(archive, path):
    members = [m for m in archive.getmembers() if m.isfile() and m.name.lower().endswith(IMAGE_SUFFIXES)]
    for member in sorted(members, key=lambda m: natural_key(m.name)):
        yield decode_image(archive.extractfile(member).read(), f"{path}: {member.name}")
