"""From the data's keys (tfvid/data/records.py) to the graphs that the networks take.

The one place where boxes change their convention: corners (x0, y0, x1, y1) in records,
outputs and metrics; extents (x0, y0, w, h) in the networks, as in the original.
"""

import tensorflow as tf

GRAPH_KEYS = ("objects", "boxes", "relations", "timed_actions", "action_progress", "action_destinations")
# Keys of a batch that have one entry for each frame.
TIMED_KEYS = ("images", "boxes", "relations", "action_progress")


def to_extents(boxes):
    """[..., 4] corners (x0, y0, x1, y1) -> (x0, y0, w, h)."""
    return tf.concat([boxes[..., :2], boxes[..., 2:] - boxes[..., :2]], axis=-1)


def to_corners(boxes):
    """[..., 4] (x0, y0, w, h) -> corners (x0, y0, x1, y1)."""
    return tf.concat([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], axis=-1)


def window(batch, start, length):
    """The frames start[b] .. start[b] + length - 1 of each clip b; start: int32 [B]."""
    indices = start[:, None] + tf.range(length)[None]
    return {k: tf.gather(v, indices, axis=1, batch_dims=1) if k in TIMED_KEYS else v for k, v in batch.items()}


def action_rows(batch, steps, padding):
    """[B, N, 7] float32: subject, action, object, f1, f2, x_end, y_end of a clip of `steps` frames.

    f1 is the progress of the action at the first frame, f2 the one a frame after the last.

    Args:
      batch: `timed_actions` [B, N, 3], `action_destinations` [B, N, 2], `action_progress`
        [B, T, N]; progress is linear in time, so that any T >= 2 tells it for all steps.
      padding: the action id that stands for none.
    """
    rows, progress = batch["timed_actions"], tf.cast(batch["action_progress"], tf.float32)
    known = progress.shape[1]
    rate = (progress[:, -1] - progress[:, 0]) / max(known - 1, 1)
    times = tf.stack([progress[:, 0], progress[:, 0] + steps * rate], axis=-1)  # [B, N, 2]
    absent = rows[..., 1] < 0
    ids = tf.where(absent, padding, rows[..., 1])
    rows = tf.stack([tf.maximum(rows[..., 0], 0), ids, tf.maximum(rows[..., 2], 0)], axis=-1)
    destinations = tf.cast(batch["action_destinations"], tf.float32)
    return tf.concat([tf.cast(rows, tf.float32), times, destinations], axis=-1)


def relation_rows(batch, steps, padding, image_node):
    """[B, steps, K', 3] int32 static relations (subject, predicate, object); the last known ones go on.

    Args:
      batch: `objects` [B, O, A]; `relations` [B, T, K, 3] where the data has some.
      padding: the predicate that stands for none.
      image_node: add "in the image" (predicate 0) from every object to the node after the last slot.
    """
    objects = batch["objects"]
    parts = []
    if "relations" in batch:
        rows = batch["relations"]
        missing = steps - rows.shape[1]
        if missing > 0:
            rows = tf.concat([rows, tf.repeat(rows[:, -1:], missing, axis=1)], axis=1)
        rows = rows[:, :steps]
        ids = tf.where(rows[..., 1] < 0, padding, rows[..., 1])
        parts.append(tf.stack([tf.maximum(rows[..., 0], 0), ids, tf.maximum(rows[..., 2], 0)], axis=-1))
    if image_node:
        slots = objects.shape[1]
        present = objects[..., 0] > 0  # [B, O]
        subject = tf.where(present, tf.range(slots)[None], 0)
        rows = tf.stack([subject, tf.where(present, 0, padding), tf.where(present, slots, 0)], axis=-1)
        parts.append(tf.repeat(rows[:, None], steps, axis=1))
    return tf.concat(parts, axis=2)


def graph_inputs(batch, steps, hparams):
    """What the networks take of a batch with the data's keys.

    Args:
      batch: `GRAPH_KEYS`; boxes [B, T, O, 4] corners.
      steps: frames of the clip; boxes may be fewer.

    Returns:
      {"objects" [B, O', A], "boxes" [B, T, O', 4] extents, "triplets" [B, steps, K, 3],
      "action_graph" [B, N, 7]}; O' = O + 1 with the image node, which comes last.
    """
    objects, boxes = batch["objects"], to_extents(tf.cast(batch["boxes"], tf.float32))
    triplets = relation_rows(batch, steps, hparams.num_predicates - 1, hparams.image_node)
    if hparams.image_node:
        node = tf.zeros_like(objects[:, :1])
        objects = tf.concat([objects, node], axis=1)
        whole = tf.zeros_like(boxes[:, :, :1]) + tf.constant([0.0, 0.0, 1.0, 1.0])
        boxes = tf.concat([boxes, whole], axis=2)
    actions = action_rows(batch, steps, hparams.num_actions - 1)
    return {"objects": objects, "boxes": boxes, "triplets": triplets, "action_graph": actions}
