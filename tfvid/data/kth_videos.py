"""The KTH action data set from its published files: six zips of AVI files and 00sequences.txt.

Splits and rates are those of the original SAVP scripts: persons 1 to 16 train (5 % of
their videos validate), 17 to 25 test; 25 frames a second; grey; each sub-sequence that
00sequences.txt lists is one clip. There frames were scaled by ffmpeg (bicubic), here by
the area average.
"""

import os
import re
import tempfile
import zipfile
import zlib

import numpy as np
import tensorflow as tf

from tfvid.data.folders import walk
from tfvid.data.preparation import BrokenItem, Item, Option, Preparation, split_of_fractions
from tfvid.data.video_files import open_video, read_bytes, resize_frames
from tfvid.errors import UserError

ACTIONS = ("boxing", "handclapping", "handwaving", "jogging", "running", "walking")
SEQUENCES_FILE = "00sequences.txt"
LAST_TRAINING_PERSON = 16
_VIDEO = re.compile(r"(person(\d\d)_(" + "|".join(ACTIONS) + r")_d(\d))_uncomp\.avi$")
# What `zipfile` meets damaged and encrypted archives with.
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError, tf.errors.OpError)


class KthVideos(Preparation):
    """One item a video, one clip a sub-sequence, with the class of its action."""

    OPTIONS = {
        "size": Option(64, "side of the square frames in pixels; the 4:3 aspect is not kept, as in the original"),
        "val": Option(0.05, "share of the training persons' videos for validation"),
        "seed": Option(0, "draws which videos validate"),
    }
    ITEMS_PER_FILE = 32
    DEFAULTS = {
        "context_frames": 10,
        "sequence_length": 20,
        "long_sequence_length": 40,
        "force_time_shift": True,
        "shuffle_on_val": True,
    }

    def validate(self):
        if self.options["size"] < 8:
            raise UserError(f"--size: expected at least 8. Received: {self.options['size']}")
        split_of_fractions([], self.options["val"], 0.0)

    def items(self):
        ranges, videos = self._ranges(), self._videos()
        if not videos:
            raise UserError(
                f"{self.source_dir}: expected KTH's zips or files personNN_ACTION_dN_uncomp.avi, found none"
            )
        training = [k for k, (_, _, person) in videos.items() if person <= LAST_TRAINING_PERSON]
        splits = split_of_fractions(training, self.options["val"], 0.0, self.options["seed"])
        items = []
        for key, (path, member, _) in sorted(videos.items()):
            payload = {"path": path, "member": member, "ranges": ranges.get(key, [])}
            items.append(Item(key, splits.get(key, "test"), payload))
        return items

    def clips(self, item):
        size, ranges = self.options["size"], item.payload["ranges"]
        if not ranges:
            raise BrokenItem(f"{item.key}: {SEQUENCES_FILE} lists no frames of it")
        images = []
        with self._local_video(item) as path, open_video(path) as (frames, _):
            for frame in frames:
                grey = np.ascontiguousarray(frame[..., :1])  # the videos are grey: one channel says all
                images.append(resize_frames(grey[None], size, size)[0])
        label = ACTIONS.index(_VIDEO.search(item.key + "_uncomp.avi").group(3))
        for first, last in ranges:  # from 1, both included
            clip = images[first - 1 : last]
            if len(clip) >= 2:  # some ranges of the published list lie beyond the end
                yield {"images": np.stack(clip), "action_class": np.int32(label)}

    def description(self):
        return {"source": "KTH action data set", "fps": 25.0, "labels": {"action_class": list(ACTIONS)}}

    def _ranges(self):
        """{"person01_boxing_d1": [[1, 95], ...]} from 00sequences.txt."""
        path = os.path.join(self.source_dir, SEQUENCES_FILE)
        if not tf.io.gfile.exists(path):
            raise UserError(f"{path}: expected KTH's list of sub-sequences, found none")
        ranges = {}
        for line in read_bytes(path).decode("latin-1").splitlines():
            match = re.match(r"\s*(person\d\d_[a-z]+_d\d)\s+frames\s+(.*)", line)
            if match:
                pairs = re.findall(r"(\d+)\s*-\s*(\d+)", match.group(2))
                ranges[match.group(1)] = [[int(a), int(b)] for a, b in pairs]
        if not ranges:
            raise UserError(f"{path}: expected lines such as 'person01_boxing_d1 frames 1-95, 96-185', found none")
        return ranges

    def _videos(self):
        """{key: (path of the AVI or zip below source_dir, member of the zip or None, person)}."""
        videos = {}
        for folder, files in walk(self.source_dir):
            for name in files:
                relative = f"{folder}/{name}" if folder else name
                if name.endswith(".zip"):
                    for member in _zip_names(os.path.join(self.source_dir, relative)):
                        match = _VIDEO.search(member)
                        if match:
                            videos.setdefault(match.group(1), (relative, member, int(match.group(2))))
                elif match := _VIDEO.search(name):
                    videos[match.group(1)] = (relative, None, int(match.group(2)))
        return videos

    def _local_video(self, item):
        path = os.path.join(self.source_dir, item.payload["path"])
        return _Extracted(path, item.payload["member"])


class _Extracted:
    """A file, or one member of a zip in a temporary file, while the context lasts."""

    def __init__(self, path, member):
        self._path, self._member, self._folder = path, member, None

    def __enter__(self):
        if self._member is None:
            return self._path
        self._folder = tempfile.TemporaryDirectory()
        local = os.path.join(self._folder.name, "video.avi")
        try:
            with tf.io.gfile.GFile(self._path, "rb") as f, zipfile.ZipFile(f) as archive, open(local, "wb") as out:
                out.write(archive.read(self._member))
        except (*_ZIP_ERRORS, KeyError) as e:
            self._folder.cleanup()
            raise BrokenItem(f"{self._path}: cannot extract {self._member}: {e}") from None
        return local

    def __exit__(self, *_):
        if self._folder is not None:
            self._folder.cleanup()


def _zip_names(path):
    try:
        with tf.io.gfile.GFile(path, "rb") as f, zipfile.ZipFile(f) as archive:
            return archive.namelist()
    except _ZIP_ERRORS as e:
        raise UserError(f"{path}: expected a zip file: {e}; download it again") from None
