"""An AG2Vid of the smallest sizes and clips of two objects for it."""

import numpy as np
import tensorflow as tf

from tfvid import models
from tfvid.models.ag2vid.hparams import AG2VidHParams

SIZES = {
    "attribute_sizes": [4, 6, 3], "num_predicates": 2, "num_actions": 5, "embedding_dim": 8, "gconv_dim": 8,
    "gconv_hidden_dim": 8, "gconv_num_layers": 2, "frames_per_action": 3, "ngf": 1, "nff": 2, "n_downsample_F": 1,
    "n_blocks_F": 1, "num_D": 1, "n_layers_D": 2, "ndf": 2, "no_vgg_loss": True, "context_frames": 1,
    "sequence_length": 5, "batch_size": 2,
}  # fmt: skip
LABELS = {
    "objects/shape": ["__image__", "cube", "sphere", "cone"],
    "objects/color": ["__image__", "red", "green", "blue", "yellow", "purple"],
    "objects/size": ["__image__", "small", "large"],
    "relations": ["__in_image__"],
    "timed_actions": ["slide", "contain", "rotate", "pick_place"],
}


def hparams(**changes):
    return AG2VidHParams.from_dict({**SIZES, **changes})


def spec(length=5, size=32, objects=3, actions=2, width=None, channels=3):
    return {
        "images": tf.TensorSpec([length, size, width or size, channels], tf.uint8),
        "objects": tf.TensorSpec([objects, 3], tf.int32),
        "boxes": tf.TensorSpec([length, objects, 4], tf.float32),
        "timed_actions": tf.TensorSpec([actions, 3], tf.int32),
        "action_progress": tf.TensorSpec([length, actions], tf.float32),
        "action_destinations": tf.TensorSpec([actions, 2], tf.float32),
    }


def build(seed=0, **changes):
    return models.build("ag2vid", hparams(**changes), spec(), seed)


def batch(count=2, length=5, size=32, seed=0, width=None):
    """Two objects and an empty slot; the first object slides by 0.1 a frame from frame 0 to frame 4."""
    rng = np.random.default_rng(seed)
    start = np.array([[0.1, 0.2, 0.4, 0.5], [0.5, 0.5, 0.8, 0.9], [0, 0, 0, 0]], np.float32)
    boxes = np.repeat(start[None], length, axis=0)
    boxes[:, 0, [0, 2]] += 0.1 * np.arange(length)[:, None].astype(np.float32)
    progress = np.stack([np.arange(length) / 5, np.full(length, -1)], -1).astype(np.float32)
    clip = {
        "images": rng.integers(0, 256, (length, size, width or size, 3), np.uint8),
        "objects": np.array([[1, 2, 1], [3, 1, 2], [0, 0, 0]], np.int32),
        "boxes": boxes,
        "timed_actions": np.array([[0, 0, 0], [-1, -1, -1]], np.int32),
        "action_progress": progress,
        "action_destinations": np.array([[0.5, 0.2], [0, 0]], np.float32),
    }
    return {k: tf.constant(np.repeat(v[None], count, axis=0)) for k, v in clip.items()}
