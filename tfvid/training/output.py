"""Whether a run folder can be written, found out before the work starts."""

import os
import shutil
import uuid

import tensorflow as tf

from tfvid.errors import UserError


def check_writable(path):
    """UserError unless files can be written below `path`, which is made."""
    probe = os.path.join(path, f".tmp-{uuid.uuid4().hex[:8]}")
    try:
        tf.io.gfile.makedirs(path)
        with tf.io.gfile.GFile(probe, "w") as f:
            f.write("x" * 4096)
        tf.io.gfile.remove(probe)
    except (tf.errors.OpError, OSError) as e:
        if tf.io.gfile.exists(probe):
            tf.io.gfile.remove(probe)
        reason = e.message if isinstance(e, tf.errors.OpError) else e.strerror
        raise UserError(f"--output_dir: expected a folder that can be written. Received: {path}: {reason}") from None


def check_space(path, needed):
    """UserError where the disk of a local `path` has less than `needed` bytes left."""
    if "://" in path:
        return
    free = shutil.disk_usage(path).free
    if free < needed:
        raise UserError(
            f"--output_dir: expected {needed / 2**20:.0f} MiB of free space for checkpoints."
            f" Received: {path} with {free / 2**20:.0f} MiB"
        )
