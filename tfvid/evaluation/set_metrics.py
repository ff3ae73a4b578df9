"""The table of metrics with one value for a whole set of clips.

A set metric sees the first sample of every clip through `update`, holds sums of a fixed
size, and can be saved and merged, so that shards give the result of one process.
"""

import io

import numpy as np
import tensorflow as tf

from tfvid.metrics import weights


class SetMetric:
    """Base of set metrics.

    Attributes:
      name, doc, higher_is_better, checksum: as in `StepMetric`.
    """

    name = doc = None
    higher_is_better = False
    checksum = None

    def update(self, clip, context, outputs, valid):
        """Adds one batch.

        Args:
          clip: {key: [B, context + h, ...]} truth, images float in [0, 1].
          outputs: {key: [B, h, ...]} of the first sample.
          valid: [B] bool.
        """
        raise NotImplementedError

    def state(self):
        """{name: array} of everything seen."""
        raise NotImplementedError

    def merge(self, states):
        """Replaces what was seen by the union of several `state()`."""
        raise NotImplementedError

    def result(self):
        """{"value": number or None, "repeat": the same of the baseline or None, ...}."""
        raise NotImplementedError

    def described(self):
        """What stands in the summary beside the value."""
        return {"doc": self.doc, "higher_is_better": self.higher_is_better, "weights_sha256": self.checksum}

    def save(self, path):
        """Writes `state()`."""
        buffer = io.BytesIO()
        np.savez(buffer, **self.state())
        with tf.io.gfile.GFile(path, "wb") as f:
            f.write(buffer.getvalue())

    def merge_files(self, paths):
        """`merge` of files that `save` wrote."""
        self.merge([_read(path) for path in paths])


def _read(path):
    with tf.io.gfile.GFile(path, "rb") as f, np.load(io.BytesIO(f.read()), allow_pickle=False) as stored:
        return {k: stored[k] for k in stored.files}


# Name -> function of `step_metrics.Options`.
TABLE = {}
FAMILIES = {}


def choose(names, keys):
    """The set metrics asked for that the keys allow; "all" for all, none by default."""
    if not names:
        return []
    possible = [name for key, family in FAMILIES.items() if key in keys for name in family]
    return possible if list(names) == ["all"] else [n for n in names if n in possible]


def build(names, options):
    """({name: SetMetric}, {name: reason it is left out})."""
    built, skipped = {}, {}
    for name in names:
        try:
            built[name] = TABLE[name](options)
        except weights.WeightsMissing as e:
            skipped[name] = str(e)
    return built, skipped
