"""From one image, a pose and an action to a video of a person who performs it."""

import dataclasses
import json
import os

import numpy as np
import tensorflow as tf

from tfvid.data.penn import Letterbox
from tfvid.data.video_files import encode_png, read_bytes, read_image, write_gif, write_mp4
from tfvid.errors import UserError
from tfvid.evaluation.frame_files import bordered
from tfvid.evaluation.samples import to_uint8
from tfvid.models.actvae.pose_maps import coloured_view


@dataclasses.dataclass(frozen=True)
class Person:
    """What a video starts from, as the model takes it.

    Attributes:
      batch: {"poses" [1, 1, J, 2], "action_class" [1], "frame_step" [1], "images"
        [1, 1, H, W, 3] uint8 where there is an image}.
    """

    batch: dict


def read_person(model, pose_file, action_class, image_file=None, crop=None, frame_step=1):
    """A person from files.

    Args:
      model: an `ActVAE` or `ActVAEP2I`.
      pose_file: JSON list of [x, y] in pixels of the image, one for each joint, in the
        order of the training data.
      action_class: number.
      image_file: any image; needed by `ActVAEP2I`.
      crop: (x1, y1, x2, y2) that is put into the model's square; default: the image, or
        without one the extent of the pose.
      frame_step: video frames between two poses, for a model that is told it.
    """
    h = model.hparams
    if not 0 <= action_class < h.num_actions:
        raise UserError(f"--action: expected a number from 0 to {h.num_actions - 1}. Received: {action_class}")
    pose = read_pose(pose_file, h.num_joints)
    needs_image = "images" in model.REQUIRED_KEYS
    if needs_image and not image_file:
        raise UserError(f"--image: expected a picture of the person, which {type(model).__name__} needs. Received: none")
    if needs_image and model.spec["images"].shape[1] != model.spec["images"].shape[2]:
        raise UserError(
            f"--image: expected a model of square frames, into which any picture fits; or --clip, a clip of its data."
            f" Received: a model of frames {model.spec['images'].shape[1:3].as_list()}"
        )
    image = read_image(image_file) if image_file else None
    if crop is None and image is not None:
        crop = (0, 0, image.shape[1] - 1, image.shape[0] - 1)
    if crop is None:
        crop = (*np.floor(pose.min(0)).astype(int).tolist(), *np.ceil(pose.max(0)).astype(int).tolist())
    size = None if image is None else image.shape[1::-1]
    batch = {
        "poses": tf.constant(Letterbox.of(crop, h.image_size, size).poses(pose)[None, None]),
        "action_class": tf.constant([action_class], tf.int32),
        "frame_step": tf.constant([frame_step], tf.int32),
    }
    if needs_image:
        side = model.spec["images"].shape[1]
        batch["images"] = tf.constant(Letterbox.of(crop, side, size).image(image)[None, None])
    return Person(batch)


def read_pose(path, joints):
    """float64 [joints, 2] from a JSON list of [x, y]."""
    content = read_bytes(path)
    try:
        pose = np.array(json.loads(content), np.float64)
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise UserError(f"{path}: expected a JSON list of {joints} pairs [x, y] in pixels") from None
    if pose.shape != (joints, 2) or not np.isfinite(pose).all():
        raise UserError(f"{path}: expected {joints} pairs [x, y] in pixels. Received: shape {list(pose.shape)}")
    return pose


def person_of_clip(model, source, split, number):
    """The first frame of a clip of a data set as a `Person`."""
    count = source.count(split, model.hparams)
    if not 0 <= number < count:
        raise UserError(f"--clip: expected a number from 0 to {count - 1}. Received: {number}")
    batches = source.evaluation_batches(split, model.hparams, 1, limit=number + 1)
    batch = next(iter(batches.skip(number)))
    return Person({k: v[:, :1] if k in ("poses", "images") else v for k, v in batch.items() if k in model.spec})


def write_video(model, person, output, num_samples=4, horizon=None, seed=0, fps=4.0):
    """Writes the video and pictures of its poses.

        <output>               source frame, then the generated ones; samples side by side (.gif or .mp4)
        <stem>_poses.png       a row a sample, a column a step: coloured views of the poses, the source first
        <stem>_poses.json      the poses [num_samples, horizon, J, 2] in network coordinates

    Returns:
      The paths.
    """
    stem, suffix = os.path.splitext(output)
    if suffix not in (".gif", ".mp4"):
        raise UserError(f"--output: expected a name that ends in .gif or .mp4. Received: {output!r}")
    samples = model.generate(person.batch, seed, num_samples, horizon)
    poses = samples["poses"][:, 0]  # [S, T, J, 2]
    source = tf.cast(person.batch["poses"][0], poses.dtype)  # [1, J, 2]
    walks = tf.concat([tf.repeat(source[None], num_samples, axis=0), poses], axis=1)  # [S, 1 + T, J, 2]
    views = to_uint8(np.asarray(coloured_view(walks, model.colours, *samples["images"].shape[3:5])))
    if "images" in person.batch and "images" in model.REQUIRED_KEYS:
        given = np.asarray(person.batch["images"][0])
        frames = [np.concatenate([given, to_uint8(s)]) for s in samples["images"][:, 0].numpy()]
    else:
        frames = list(views)
    video = np.concatenate([bordered(f, 1) for f in frames], axis=2)
    folder = os.path.dirname(output)
    if folder:
        tf.io.gfile.makedirs(folder)
    (write_gif if suffix == ".gif" else write_mp4)(output, video, fps)
    picture = np.concatenate([np.concatenate(list(v), axis=1) for v in views], axis=0)
    with tf.io.gfile.GFile(f"{stem}_poses.png", "wb") as f:
        f.write(encode_png(picture))
    with tf.io.gfile.GFile(f"{stem}_poses.json", "w") as f:
        f.write(json.dumps(np.round(poses.numpy(), 5).tolist()) + "\n")
    return [output, f"{stem}_poses.png", f"{stem}_poses.json"]
