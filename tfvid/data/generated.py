"""What the demo data sets have in common: clips drawn from a seed, so many in each split."""

import numpy as np

from tfvid.data.preparation import Item, Preparation
from tfvid.data.records import SPLITS
from tfvid.errors import UserError


class GeneratedClips(Preparation):
    """Needs no source; OPTIONS have size, clip_length, train_clips, val_clips, test_clips and seed.

    Attributes:
      SHORTEST: the smallest clip_length.
    """

    NEEDS_SOURCE = False
    SHORTEST = 2

    def validate(self):
        least = {"size": 16, "clip_length": self.SHORTEST, "train_clips": 1, "val_clips": 0, "test_clips": 0}
        for name, value in least.items():
            if self.options[name] < value:
                raise UserError(f"--{name}: expected at least {value}. Received: {self.options[name]}")

    def items(self):
        return [
            Item(f"{split}/{number}", split, {"number": number})
            for split in SPLITS
            for number in range(self.options[f"{split}_clips"])
        ]

    def rng(self, item):
        """The generator of one clip's random numbers."""
        seed = [self.options["seed"] % 2**32, SPLITS.index(item.split), item.payload["number"]]
        return np.random.default_rng(seed)
