"""The data that a published model was trained on, for those who convert it without the data."""

import tensorflow as tf

from tfvid.data.preparation import PREPARATIONS, preparation_class
from tfvid.data.source import FORMATS
from tfvid.errors import UserError

# Data set -> (image, actions, states) of the published models.
PUBLISHED = {
    "bair": ((64, 64, 3), 4, 3),
    "softmotion": ((64, 64, 3), 4, 3),
    "cartgripper": ((48, 64, 3), 3, 6),
    "kth": ((64, 64, 1), 0, 0),
    "ucf101": ((240, 320, 3), 0, 0),
}


def published_defaults(dataset):
    """Data-set hyper-parameters of a data set that is not there: {name: value}; none of one that is not known."""
    if dataset in PUBLISHED:
        return FORMATS[dataset]().defaults()
    return dict(preparation_class(dataset).DEFAULTS) if dataset in PREPARATIONS else {}


def published_spec(hparams, image=None, actions=None, states=None):
    """{key: tf.TensorSpec} of one training clip.

    Args:
      hparams: with context_frames and sequence_length set.
      image: (H, W, C); None: that of the data set.
      actions, states: sizes of the vectors; None: those of the data set with
        `use_state`, else 0, which is none.
    """
    known = PUBLISHED.get(hparams.dataset)
    if image is None:
        if known is None:
            raise UserError(
                "--image_size: expected height,width,channels (or --input_dir with the data), since the frames of data"
                f" set {hparams.dataset!r} are not known; known: {', '.join(sorted(PUBLISHED))}"
            )
        image = _geometry(hparams, known[0])
    with_vectors = known is not None and bool(hparams.use_state)
    stride = (hparams.frame_skip or 0) + 1
    actions = (known[1] * stride if with_vectors else 0) if actions is None else actions
    states = (known[2] if with_vectors else 0) if states is None else states
    length = hparams.sequence_length
    spec = {"images": tf.TensorSpec([length, *image], tf.uint8)}
    if actions:
        spec["actions"] = tf.TensorSpec([length - 1, actions], tf.float32)
    if states:
        spec["states"] = tf.TensorSpec([length, states], tf.float32)
    return spec


def _geometry(hparams, image):
    side = hparams.scale_size or hparams.crop_size
    return (side, side, image[2]) if side else image
