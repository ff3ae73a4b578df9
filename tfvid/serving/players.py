"""Models that are played step by step: a run folder's, or a SavedModel without tfvid's classes."""

import os

import numpy as np
import tensorflow as tf

from tfvid.data.video_files import IMAGE_SUFFIXES, read_image, read_video, resize_frames
from tfvid.errors import UserError
from tfvid.serving.saved_model import read_description, read_signatures

START_NAMES = ("start.gif", "start.png")  # start frames that may lie in a run folder or an export


class Player:
    """A playable model: `start` from real frames, then one `step` for each action.

    Attributes:
      actions_count: A.
      size: (height, width) of the frames.
      stacking: frames that a game starts from.
      dimension: D of a variation.
    """

    def __init__(self, start, step, actions_count, size, stacking, dimension):
        self._start, self._step = start, step
        self.actions_count, self.size, self.stacking, self.dimension = actions_count, tuple(size), stacking, dimension

    def start(self, frames):
        """The state before the first step.

        Args:
          frames: uint8 [N, H, W, 3], N >= 1; the last `stacking` count, the first is
            repeated where there are fewer.
        """
        frames = np.asarray(frames)[-self.stacking :]
        missing = self.stacking - len(frames)
        frames = np.concatenate([np.repeat(frames[:1], missing, axis=0), frames])
        return self._start(tf.constant(frames[None], tf.float32) / 255)

    def step(self, state, action, variation=None):
        """Plays one action.

        Args:
          state: of `start` or the step before.
          action: integer in [0, A).
          variation: [D] within the action's cluster; None: its centre.

        Returns:
          frame uint8 [H, W, 3], the next state.
        """
        if not 0 <= action < self.actions_count:
            raise UserError(f"expected an action from 0 to {self.actions_count - 1}. Received: {action}")
        variation = np.zeros(self.dimension) if variation is None else variation
        frame, state = self._step(
            state, tf.constant([action], tf.int32), tf.constant([variation], tf.float32)
        )
        return np.rint(np.clip(frame[0], 0, 1) * 255).astype(np.uint8), state


def open_player(path):
    """The player of a run folder, or of a version's folder that `export` wrote.

    Returns:
      (player, start frames uint8 [K, N, H, W, 3] that lie beside the model, or None).

    Raises:
      UserError: neither is there, or the model cannot be played.
    """
    if tf.io.gfile.exists(os.path.join(path, "saved_model.pb")):
        return _from_saved_model(path), beside(path)
    from tfvid.training.run_folder import RunFolder

    return player_of(RunFolder.open(path).load_model(training_networks=False)), beside(path)


def player_of(model):
    """The player of a model that has `start` and `play` (CADDY)."""
    if not hasattr(model, "play") or not hasattr(model, "start"):
        raise UserError(f"expected a model that is played step by step (caddy). Received: {type(model).__name__}")
    step = tf.function(model.play)
    hparams = model.hparams
    return Player(
        tf.function(model.start), step, hparams.actions_count, model.image_size, hparams.observation_stacking,
        hparams.action_space_dimension,
    )


def _from_saved_model(path):
    signatures = read_signatures(path)
    if not {"start", "step"} <= set(signatures):
        raise UserError(f"{path}: expected the signatures start and step, found {', '.join(sorted(signatures))}")
    try:
        served = tf.saved_model.load(path)
    except (tf.errors.OpError, OSError, ValueError) as e:
        raise UserError(f"{path}: expected a SavedModel, cannot read it: {' '.join(str(e).split())[:300]}") from None
    start, step = served.signatures["start"], served.signatures["step"]
    shape = signatures["start"]["inputs"]["images"]["shape"]
    dimension = signatures["step"]["inputs"]["variation"]["shape"][1]
    count = _actions_count(path)

    def play(state, action, variation):
        outputs = dict(step(action=action, variation=variation, **state))
        return outputs.pop("frame"), outputs

    return Player(lambda images: start(images=images), play, count, shape[2:4], shape[1], dimension)


def _actions_count(path):
    """From the description that `export` writes beside the graph."""
    try:
        return int(read_description(path)["hparams"]["actions_count"])
    except (KeyError, TypeError):
        raise UserError(f"{path}/assets.extra/tfvid.json: expected hparams with actions_count") from None


def beside(path):
    """Start frames [K, 1, H, W, 3] that lie in a folder as start.gif or start.png; None where there are none."""
    for name in START_NAMES:
        file = os.path.join(path, name)
        if tf.io.gfile.exists(file):
            frames = read_video(file)[0] if name.endswith(".gif") else read_image(file)[None]
            return frames[:, None]
    return None


def start_frames(path, size):
    """Start frames [1, N, H, W, 3] from a user's image, video or folder of frames, resized to `size` (h, w)."""
    frames = read_image(path)[None] if path.lower().endswith(IMAGE_SUFFIXES) else read_video(path)[0]
    return resize_frames(frames, *size)[None]


def validation_starts(run_path, stacking, count=16, input_dir=None):
    """First frames [K, stacking, H, W, 3] of the run's validation clips.

    Raises:
      UserError: the data set is not there; a start frame can be given instead.
    """
    from tfvid.evaluation import runs

    (trial,) = runs.open_trials([run_path])
    source = runs.open_data([trial], input_dir)
    hparams = trial.run.hparams
    split = next((s for s in ("val", "test", "train") if s in source.splits()), None)
    if split is None:
        raise UserError(f"{source.folder}: expected clips to start from, found none; give --start=IMAGE")
    batch = next(iter(source.evaluation_batches(split, hparams, count, length=max(stacking, 2), limit=count)))
    valid = np.asarray(batch["valid"])
    return np.asarray(batch["images"])[valid][:, :stacking]


def is_run(path):
    """Whether `path` is a run folder."""
    return tf.io.gfile.exists(os.path.join(path, "run.json"))
