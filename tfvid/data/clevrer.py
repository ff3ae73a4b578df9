"""CLEVRER as published: 10000 + 5000 + 5000 videos of 128 frames, 480 x 320, made small and square as CAGE does.

Yi et al., "CLEVRER: CoLlision Events for Video REpresentation and Reasoning", ICLR 2020.
The published archives unpack to `video_{train,validation,test}/video_XXXXX-YYYYY/*.mp4`;
folders named train, val, test, and videos without the middle level, serve as well.
"""

import os

import numpy as np
import tensorflow as tf

from tfvid.data.hdf5_shards import stretched
from tfvid.data.preparation import BrokenItem, Item, Option, Preparation, cut_into_clips
from tfvid.data.video_files import open_video
from tfvid.data.video_folder import find_videos
from tfvid.errors import UserError

# Names of the folders that a split may have.
FOLDERS = {
    "train": ("video_train", "train"),
    "val": ("video_validation", "validation", "val"),
    "test": ("video_test", "test"),
}


class Clevrer(Preparation):
    """One item a video, which becomes one clip."""

    ENCODING = "lossless"
    ITEMS_PER_FILE = 64
    OPTIONS = {
        "size": Option(128, "side of the frames in pixels; the aspect ratio is not kept, as in the original"),
        "clip_length": Option(0, "frames of a clip; 0: a whole video is one clip"),
    }
    DEFAULTS = {
        "context_frames": 1, "sequence_length": 16, "long_sequence_length": 16, "frame_skip": 4, "time_shift": 1,
    }  # fmt: skip

    def validate(self):
        if self.options["size"] < 1:
            raise UserError(f"--size: expected a side in pixels. Received: {self.options['size']}")
        if self.options["clip_length"] < 0 or self.options["clip_length"] == 1:
            raise UserError(f"--clip_length: expected 0 or at least 2. Received: {self.options['clip_length']}")

    def items(self):
        items = []
        for split, names in FOLDERS.items():
            for name in names:
                folder = os.path.join(self.source_dir, name)
                if tf.io.gfile.isdir(folder):
                    items += [Item(f"{split}/{v}", split, {"path": f"{name}/{v}"}) for v in find_videos(folder)]
                    break
        if not items:
            raise UserError(f"{self.source_dir}: expected video_train/, video_validation/ or video_test/ with videos")
        return items

    def clips(self, item):
        path = os.path.join(self.source_dir, item.payload["path"])
        size = (self.options["size"],) * 2
        with open_video(path) as (frames, _):
            images = np.stack([stretched(f, size) for f in frames])
        length = self.options["clip_length"]
        if len(images) < max(length, 2):
            raise BrokenItem(f"{path}: expected at least {max(length, 2)} frames, the video has {len(images)}")
        yield from cut_into_clips({"images": images}, length)

    def description(self):
        return {"source": "CLEVRER", "fps": None}
