"""Best, average and worst of many samples, one sample at a time.

SAVP's protocol (specification section 9; the original's scripts/evaluate.py): for each
metric separately and each sequence, `max` (`min`) is the sample whose mean over time is
greatest (smallest), ties keep the earlier one; `avg` is the mean curve over the samples.
Nothing here grows with the number of samples.
"""

import numpy as np

STATISTICS = ("max", "avg", "min")


class SampleStatistics:
    """Running extremes and means of the samples of one batch.

    Args:
      names: of the metrics.
    """

    def __init__(self, names):
        self.names = tuple(names)
        self.count = 0
        self._extremes = {}  # (metric, "max" or "min") -> (mean [B], curve [B, h], sample index [B])
        self._sums = {}
        self._frames = {}  # (sequence, sample index) -> uint8 frames that are still someone's extreme
        self._frame_sums = {}

    def update(self, values, frames=None):
        """Adds one sample of every sequence.

        Args:
          values: {metric: [B, h]}.
          frames: {sequence: float [h, H, W, C] in [0, 1]} of those whose images are kept.
        """
        for name in self.names:
            curve = np.asarray(values[name])
            mean = _mean_over_time(curve)
            if self.count == 0:
                for kind in ("max", "min"):
                    self._extremes[name, kind] = (mean.copy(), curve.copy(), np.zeros(len(mean), np.int64))
                self._sums[name] = curve.astype(np.float64)
                continue
            self._sums[name] += curve
            for kind, better in (("max", np.greater), ("min", np.less)):
                best, best_curve, index = self._extremes[name, kind]
                wins = better(mean, best)
                best[wins], best_curve[wins], index[wins] = mean[wins], curve[wins], self.count
        for b, images in (frames or {}).items():
            self._keep_frames(b, np.asarray(images))
        self.count += 1

    def curves(self, name, kind):
        """[B, h] of "max", "min" or "avg"; float64."""
        if kind == "avg":
            return self._sums[name] / self.count
        return self._extremes[name, kind][1].astype(np.float64)

    def sample_index(self, name, kind):
        """[B]: which sample is the extreme."""
        return self._extremes[name, kind][2]

    def frames(self, sequence, name, kind):
        """uint8 [h, H, W, C] of a sequence whose images were given; "avg" is the mean image."""
        if kind == "avg":
            return to_uint8(self._frame_sums[sequence] / self.count)
        return self._frames[sequence, int(self._extremes[name, kind][2][sequence])]

    def has_frames(self, sequence):
        """Whether images of this sequence were given."""
        return sequence in self._frame_sums

    def _keep_frames(self, sequence, images):
        if sequence in self._frame_sums:
            self._frame_sums[sequence] += images
        else:
            self._frame_sums[sequence] = images.astype(np.float64)
        needed = {int(index[sequence]) for _, _, index in self._extremes.values()}
        if self.count in needed:
            self._frames[sequence, self.count] = to_uint8(images)
        for key in [k for k in self._frames if k[0] == sequence and k[1] not in needed]:
            del self._frames[key]


class Diversity:
    """Mean distance between consecutive samples of a sequence.

    The distances between sample i and i - 1 for i = 1 .. `pairs` are summed and divided by
    `pairs`, also where fewer samples were drawn, as in the original.
    """

    def __init__(self, pairs=10):
        self.pairs, self.seen, self.sum = pairs, 0, 0.0

    @property
    def wants_more(self):
        """Whether another distance counts."""
        return self.seen < self.pairs

    def update(self, distance):
        """Adds [B, h] distances of a sample to the one before it."""
        if self.wants_more:
            self.sum = self.sum + np.asarray(distance, np.float64)
            self.seen += 1

    def result(self):
        """[B, h]."""
        return self.sum / self.pairs


def to_uint8(images):
    """[0, 1] -> 0 .. 255, truncated as the original's files are."""
    return np.floor(255 * np.clip(images, 0, 1)).astype(np.uint8)


def _mean_over_time(curve):
    """[B, h] -> [B] in float64; steps without a value (no object in the frame) are left out."""
    present = np.isfinite(curve)
    total = np.where(present, curve, 0).sum(1, dtype=np.float64)
    return np.where(present.any(1), total / np.maximum(present.sum(1), 1), -np.inf)
