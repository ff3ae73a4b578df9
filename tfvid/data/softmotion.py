"""BAIR robot pushing (softmotion) and cartgripper, read as they were published.

One Example a trajectory. Original: alexlee-gk/video_prediction, softmotion_dataset.py and
cartgripper_dataset.py.
"""

import os

import tensorflow as tf

from tfvid.data.records import DataError
from tfvid.data.stepwise import StepwiseFormat

VALIDATION_FILE = "traj_256_to_511.tfrecords"


class SoftmotionFormat(StepwiseFormat):
    """Raw frames, end-effector positions, actions, and perhaps positions of tracked pixels."""

    ARRAYS = {
        "states": ("{}/endeffector_pos", None),
        "actions": ("{}/action", None),
        "object_pos": ("{}/object_pos", None),
    }
    HIDDEN = ("object_pos",)

    def derived_shapes(self, layout, options):
        if not layout.hidden:
            return {}
        if options.crop_size or options.scale_size or options.random_crop_size:
            raise DataError("records with object_pos: expected crop_size=0 and scale_size=0, which move the pixels")
        height, width, _ = layout.image
        return {"pix_distribs": (height, width, layout.hidden["object_pos"][0] // 2)}

    def derive(self, clip, layout):
        if layout.hidden:
            clip["pix_distribs"] = pixel_distributions(clip.pop("object_pos"), *layout.image[:2])
        return clip


class BairFormat(SoftmotionFormat):
    """64 x 64 x 3 (or another square), 30 frames; positions [3], actions [4]."""

    DEFAULTS = {"context_frames": 2, "sequence_length": 12, "long_sequence_length": 30, "time_shift": 2}
    IMAGES = ("{}/image_aux1/encoded", "{}/image_view0/encoded")
    SUBFOLDERS = ("softmotion30_44k",)

    def select(self, split, find):
        """Where nobody moved the validation file out of train/, it is taken from there."""
        files = super().select(split, find)
        mine = [f for f in files if os.path.basename(f) == VALIDATION_FILE]
        if split == "train" and len(files) > 1 and os.path.basename(os.path.dirname(files[0])) == "train":
            return [f for f in files if f not in mine]
        if split == "val" and not files:
            return [f for f in find("train") if os.path.basename(f) == VALIDATION_FILE]
        return files

    def hint(self, split):
        if split == "val":
            return f"validation is the file {VALIDATION_FILE}, which belongs into val/ or train/"
        return None


class CartgripperFormat(SoftmotionFormat):
    """48 x 64 x 3; positions [6], actions [3]."""

    DEFAULTS = {
        "context_frames": 2,
        "sequence_length": 15,
        "long_sequence_length": 30,
        "time_shift": 3,
        "use_state": True,
    }
    IMAGES = ("{}/image_view0/encoded",)
    IMAGE_SHAPE = (48, 64, 3)


def pixel_distributions(positions, height, width):
    """Positions of pixels as distributions over the image.

    Each position's weight lies on the four pixels around it, bilinearly, written at the
    flat index y * width + x as in the original: a pixel beyond the right edge falls into
    the next row, one outside the image is dropped.

    Args:
      positions: float [T, 2 P], pairs (y, x) in pixels.

    Returns:
      float32 [T, height, width, P].
    """
    pairs = tf.reshape(positions, [tf.shape(positions)[0], -1, 2])  # [T, P, (y, x)]
    corner = tf.floor(pairs)
    fraction = pairs - corner
    total = 0.0
    for dy in (0, 1):
        for dx in (0, 1):
            y, x = tf.cast(corner[..., 0], tf.int32) + dy, tf.cast(corner[..., 1], tf.int32) + dx
            weight_y = fraction[..., 0] if dy else 1 - fraction[..., 0]
            weight_x = fraction[..., 1] if dx else 1 - fraction[..., 1]
            total += tf.one_hot(y * width + x, height * width) * (weight_y * weight_x)[..., None]
    total = tf.transpose(total, [0, 2, 1])  # [T, H * W, P]
    return tf.reshape(total, [-1, height, width, tf.shape(pairs)[1]])
