"""The schema of tfvid's data: every key, its shape, dtype and range, in one place.

A data set is a folder `<dataset>/{train,val,test}/*.tfrecord` beside a
`dataset_info.json`. Each record is a `tf.train.Example` of one clip. Inside a batch the
same keys lead with a batch axis.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Key:
    """One key of the batch.

    Attributes:
      axes: names of the axes after the batch axis; "T" time, "T-1" steps between
        frames, "H" "W" "C" image, others free sizes that dataset_info.json gives.
      dtype: as the pipeline gives it.
      doc: meaning, unit and range.
    """

    axes: tuple
    dtype: str
    doc: str


KEYS = {
    "images": Key(("T", "H", "W", "C"), "uint8", "frames, 0..255, RGB or grey (float in [0, 1] inside the models)"),
    "actions": Key(("T-1", "A"), "float32", "action taken between two frames, raw units of the data set"),
    "states": Key(("T", "S"), "float32", "robot state at each frame, raw units of the data set"),
    "pix_distribs": Key(("T", "H", "W", "P"), "float32", "P pixel distributions, each sums to 1 over the image"),
    "action_labels": Key(("T-1",), "int32", "discrete action taken between two frames, 0-based; for evaluation"),
    "poses": Key(("T", "J", "2"), "float32", "joint positions (x, y)"),
    "pose_visible": Key(("T", "J"), "float32", "1 where a joint is annotated, else 0"),
    "action_class": Key((), "int32", "class of the whole clip, 0-based"),
    "boxes": Key(("T", "O", "4"), "float32", "one box per object slot (x0, y0, x1, y1), normalised to [0, 1]"),
    "features": Key(("T", "h", "w", "F"), "float32", "features of a frozen network on a grid"),
}
