"""PNG and GIF files of context and predicted frames."""

import os

import numpy as np
import tensorflow as tf

from tfvid.data.video_files import encode_png, write_gif
from tfvid.evaluation.samples import STATISTICS, to_uint8

GIVEN, PREDICTED = (46, 160, 67), (207, 34, 46)  # border colours: green and red


class EvaluationFrames:
    """Writes the frames of a clip as SAVP's evaluation does, and GIFs for the page.

        prediction_eval_<metric>_<kind>/inputs/context_image_<clip>_<time>.png
        prediction_eval_<metric>_<kind>/outputs/gen_image_<clip>_<time>.png
        gifs/<clip>_{truth,repeat,<metric>_max,...}.gif

    Args:
      folder: of the evaluation.
      context: frames that are given.
      fps: of the GIFs.
    """

    def __init__(self, folder, context, fps):
        self._folder, self._context, self._fps = folder, context, fps
        self.clips = []

    def __call__(self, index, frames):
        truth = to_uint8(frames["clip"])
        given, horizon = truth[: self._context], len(truth) - self._context
        self.clips.append(index)
        self._gif(index, "truth", truth)
        self._gif(index, "repeat", np.concatenate([given, np.repeat(given[-1:], horizon, 0)]))
        average_written = False
        for key, images in frames.items():
            if key == "clip":
                continue
            name, kind = key
            folder = os.path.join(self._folder, f"prediction_eval_{name}_{kind}")
            _pngs(os.path.join(folder, "inputs"), f"context_image_{index:05d}", given)
            _pngs(os.path.join(folder, "outputs"), f"gen_image_{index:05d}", images)
            if kind != "avg":
                self._gif(index, f"{name}_{kind}", np.concatenate([given, images]))
            elif not average_written:  # the mean image is the same for every metric
                self._gif(index, "avg", np.concatenate([given, images]))
                average_written = True

    def _gif(self, index, name, frames):
        path = gif_path(self._folder, index, name)
        tf.io.gfile.makedirs(os.path.dirname(path))
        write_gif(path, bordered(frames, self._context), self._fps)


def gif_path(folder, index, name):
    """Path of a GIF of an evaluation: name is truth, repeat, avg, <metric>_max, <metric>_min."""
    return os.path.join(folder, "gifs", f"{index:05d}_{name}.gif")


def gif_names(metrics):
    """Names of the GIFs of a clip."""
    return ["truth", "repeat", "avg", *(f"{m}_{k}" for m in metrics for k in STATISTICS if k != "avg")]


def bordered(frames, context, width=2):
    """uint8 frames with a border that is green where they are given and red where predicted.

    Args:
      frames: [T, H, W, C], C 1 or 3.

    Returns:
      [T, H + 2 width, W + 2 width, 3].
    """
    frames = displayable(frames)
    t, h, w, _ = frames.shape
    out = np.empty((t, h + 2 * width, w + 2 * width, 3), np.uint8)
    out[:context], out[context:] = GIVEN, PREDICTED
    out[:, width : width + h, width : width + w] = frames
    return out


def displayable(frames):
    """[..., C] with C 1 or 3 -> RGB; of other numbers of channels the first is shown as grey."""
    if frames.shape[-1] == 3:
        return frames
    return np.repeat(frames[..., :1], 3, axis=-1)


def _pngs(folder, prefix, frames):
    tf.io.gfile.makedirs(folder)
    for t, frame in enumerate(frames):
        with tf.io.gfile.GFile(os.path.join(folder, f"{prefix}_{t:02d}.png"), "wb") as f:
            f.write(encode_png(frame if frame.shape[-1] in (1, 3) else frame[..., :1]))
