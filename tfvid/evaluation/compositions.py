"""Videos of CAGE from a control file: generating, measuring, and showing the controls beside the result."""

import dataclasses
import json
import os

import numpy as np
import tensorflow as tf

from tfvid.data.video_files import check_fps, encode_png, read_image, resize_frames, write_gif
from tfvid.errors import UserError
from tfvid.evaluation import runs
from tfvid.evaluation.pages import Page
from tfvid.evaluation.samples import to_uint8
from tfvid.models.cage import control_file
from tfvid.models.cage.controls import Grid, selection_pictures

SHOWN = 128  # least height of a panel in pixels
GAP = 4  # pixels between panels


@dataclasses.dataclass(frozen=True)
class Composition:
    """What was asked for and what came out.

    Attributes:
      plan: the `control_file.Plan`. grid: the `Grid`. groups: a `Group` for each object.
      controls: the `Controls`. images: uint8 [N, H, W, 3].
      frames: uint8 [S, n, H, W, 3]. errors: [S, n] control errors.
    """

    plan: control_file.Plan
    grid: Grid
    groups: list
    controls: object
    images: np.ndarray
    frames: np.ndarray
    errors: np.ndarray

    def pictures(self):
        """uint8 [n, H, W, 3]: what is placed in each frame."""
        background = self.images[self.plan.initial[-1]] if self.plan.initial else None
        return self.controls.pictures(self.images, background)


def grid_of(model):
    """The tiles of a CAGE model's frames."""
    height, width = model.spec["images"].shape[1:3]
    return Grid(*model.hparams.state_res, height, width)


def open_model(checkpoint):
    """(trial, model) of a run of CAGE; UserError for a run of another model."""
    (trial,) = runs.open_trials([checkpoint])
    if trial.run.model_name != "cage":
        raise UserError(
            f"--controls: expected --checkpoint to be a run of cage. Received: one of {trial.run.model_name}"
        )
    return trial, trial.run.load_model(trial.step, training_networks=False)


def read_images(plan, grid, open_source, hparams):
    """uint8 [N, H, W, 3] of a plan's images, in the size of the model's frames.

    Args:
      open_source: function without arguments -> `Source`, called where a clip is asked for.
      hparams: of the run, for how clips are read.
    """
    images, source = [], None
    for number, item in enumerate(plan.images):
        if item.file is not None:
            images.append(read_image(os.path.join(plan.folder, item.file)))
            continue
        source = source or open_source()
        images.append(clip_frame(source, hparams, item, f"images[{number}]"))
    return np.stack([resize_frames(i[None], grid.height, grid.width)[0] for i in images] or [np.zeros((0,))])


def clip_frame(source, hparams, item, where):
    """uint8 [H, W, 3]: one frame of one clip of the data set."""
    length = max(item.frame + 1, 2)
    count = source.count(item.split, hparams, length)
    if item.clip >= count:
        raise UserError(f"{where}.clip: expected a number below {count}, the {item.split} clips. Received: {item.clip}")
    batches = source.evaluation_batches(item.split, hparams, 1, length=length, limit=item.clip + 1)
    batch = list(batches.skip(item.clip).take(1))[0]
    frame = batch["images"][0, item.frame].numpy()
    return frame if frame.dtype == np.uint8 else to_uint8(frame)


def read_mask(grid):
    """Function of a file's path -> [H, W] of its brightness, in the frame's size."""

    def read(path):
        grey = read_image(path).max(-1, keepdims=True)
        return resize_frames(grey[None], grid.height, grid.width)[0, ..., 0] > 127

    return read


def compose(model, plan, images):
    """Generates what a plan asks for; a `Composition`."""
    grid = grid_of(model)
    groups = plan.groups(grid, read_mask(grid))
    controls = plan.controls(grid, groups)
    signed = tf.cast(images, tf.float32) / 127.5 - 1
    if plan.images:
        features = model.features(signed[:, None])[:, 0].numpy()
        placed, masks = controls.arrays(features)
    else:
        shape = (plan.num_frames, grid.rows, grid.columns)
        placed, masks = np.zeros((*shape, model.feature_dim), np.float32), np.zeros((*shape, 1), np.float32)
    placed, masks = tf.constant(placed[None]), tf.constant(masks[None])
    initial = tf.stack([signed[i] for i in plan.initial])[None] if plan.initial else None
    samples, errors = [], []
    for number in range(plan.num_samples):
        frames = model.seeded_sample(
            tf.constant(plan.seed, tf.int64), number, plan.num_frames, initial, placed, masks, **plan.options
        )
        frames = tf.clip_by_value(frames, -1, 1)
        samples.append(to_uint8(((frames[0] + 1) / 2).numpy()))
        errors.append(model.control_error(frames, placed, masks)[0].numpy())
    return Composition(plan, grid, groups, controls, np.asarray(images), np.stack(samples), np.stack(errors))


def compose_file(checkpoint, controls, output_dir, input_dir=None, report=print):
    """`scripts/generate.py --controls`: reads, generates, writes; returns the page's path."""
    plan = control_file.read(controls)
    check_fps(plan.fps, f"{controls}: fps")
    trial, model = open_model(checkpoint)
    grid = grid_of(model)
    images = read_images(plan, grid, lambda: runs.open_data([trial], input_dir), trial.run.hparams)
    runs.prepare_folder(output_dir)
    result = compose(model, plan, images)
    path = write(result, output_dir, os.path.basename(controls))
    placed = [e for e, frame in zip(result.errors.mean(0), result.controls.frames) if frame]
    if placed:
        report(f"control error {np.mean(placed):.3f} (placed features against those of the generated frames)")
    report(f"page: {path}")
    return path


def write(result, folder, title):
    """Writes a composition; returns the path of its page.

    selection.png          the images, selected tiles in red
    controls_and_result.gif  what is placed (blue), then the samples, side by side
    controls_and_result.png  the same as a strip: a row of controls, a row for each sample
    sample_<s>.gif, sample_<s>_<frame>.png
    summary.json           options, tiles of each frame, control errors
    """
    plan, scale = result.plan, max(1, SHOWN // result.grid.height)
    pictures = result.pictures()
    if len(plan.images):
        selected = selection_pictures(result.grid, result.images, result.groups)
        _png(os.path.join(folder, "selection.png"), _row(selected, scale))
    rows = [pictures, *result.frames]
    together = np.stack([_row([row[f] for row in rows], scale) for f in range(plan.num_frames)])
    write_gif(os.path.join(folder, "controls_and_result.gif"), together, plan.fps)
    strip = np.concatenate([_row(row, 1) for row in rows])
    _png(os.path.join(folder, "controls_and_result.png"), strip.repeat(scale, 0).repeat(scale, 1))
    for s, frames in enumerate(result.frames):
        write_gif(os.path.join(folder, f"sample_{s:02d}.gif"), _enlarged(frames, scale), plan.fps)
        for f, frame in enumerate(frames):
            _png(os.path.join(folder, f"sample_{s:02d}_{f:04d}.png"), frame)
    summary = {
        "seed": plan.seed,
        "num_frames": plan.num_frames,
        "options": plan.options,
        "tiles": [[list(t) for t in sorted(frame)] for frame in result.controls.frames],
        "control_error": [[round(float(e), 6) for e in row] for row in result.errors],
    }
    with tf.io.gfile.GFile(os.path.join(folder, "summary.json"), "w") as f:
        f.write(json.dumps(summary, indent=1) + "\n")
    page = Page(title)
    page.text("left: the features that are placed (blue frames); right of it: the generated videos")
    page.clips({"controls and samples": "controls_and_result.gif"})
    path = os.path.join(folder, "index.html")
    page.write(path)
    return path


def _enlarged(frames, scale):
    return np.asarray(frames).repeat(scale, axis=-3).repeat(scale, axis=-2)


def _row(frames, scale):
    """Frames side by side with a gap."""
    frames = _enlarged(np.stack(frames), scale)
    padded = np.pad(frames, ((0, 0), (0, GAP), (0, GAP), (0, 0)), constant_values=255)
    return np.concatenate(list(padded), axis=1)


def _png(path, frame):
    with tf.io.gfile.GFile(path, "wb") as f:
        f.write(encode_png(np.ascontiguousarray(frame)))
