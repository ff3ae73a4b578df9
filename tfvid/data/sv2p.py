"""The data sets of SV2P (shapes and humans), read as they were published.

One Example a sequence, JPEG frames of 64 x 64 x 3. Original: alexlee-gk/video_prediction,
sv2p_dataset.py, which tells the two by the name of their folder, `shape` or `humans`.
"""

import os

from tfvid.data.records import DataError
from tfvid.data.stepwise import StepwiseFormat


class Sv2pFormat(StepwiseFormat):
    """Shapes has states [2] and actions [2], humans has neither."""

    IMAGES = ("image_{}",)
    ARRAYS = {"states": ("state_{}", 2), "actions": ("action_{}", 2)}

    def __init__(self, folder):
        super().__init__(folder)
        self.kind = os.path.basename(os.path.abspath(folder) if "://" not in folder else folder.rstrip("/"))
        if self.kind not in ("shape", "humans"):
            raise DataError(f"{folder}: sv2p: expected a folder called shape or humans. Received: {self.kind!r}")

    def defaults(self):
        own = {
            "shape": {"context_frames": 1, "sequence_length": 6, "time_shift": 0, "use_state": False},
            "humans": {"context_frames": 10, "sequence_length": 20},
        }
        return {**super().defaults(), **own[self.kind]}
