"""Run folders and the clips they are tried on: what generate and evaluate share."""

import dataclasses
import os
import re

import tensorflow as tf

from tfvid.data.source import open_source
from tfvid.errors import UserError
from tfvid.training.run_folder import RunFolder


@dataclasses.dataclass(frozen=True)
class Trial:
    """One run to be tried.

    Attributes:
      run: its `RunFolder`.
      step: of the checkpoint to use; None: the last one.
      label: a short name, different from those of the other runs.
    """

    run: RunFolder
    step: int | None
    label: str

    @property
    def context(self):
        """Frames the model is given."""
        return self.run.hparams.context_frames

    @property
    def default_horizon(self):
        """Predicted frames of a test clip."""
        hparams = self.run.hparams
        return (hparams.long_sequence_length or hparams.sequence_length) - hparams.context_frames


def open_trials(paths):
    """Opens run folders; each path is one, or a checkpoint in it (RUN/checkpoints/ckpt-<step>)."""
    if not paths:
        raise UserError("--checkpoint: expected a run folder. Received: none")
    found = []
    for path in paths:
        folder, step = folder_and_step(path)
        found.append((RunFolder.open(folder), step))
    labels = _labels([(run.path, step) for run, step in found])
    return [Trial(run, step, label) for (run, step), label in zip(found, labels)]


def folder_and_step(path):
    """(run folder, step or None) of a run folder or a checkpoint in it."""
    match = re.fullmatch(r"(.+?)/checkpoints/(?:best/)?ckpt-(\d+)(\.index)?/?", path)
    return (match[1], int(match[2])) if match else (path.rstrip("/") or path, None)


def default_folder(checkpoint, *names):
    """Where results of a run folder, or of a checkpoint in it, are written: RUN/<names>."""
    return os.path.join(folder_and_step(checkpoint)[0], *names)


def _labels(runs):
    """Shortest ends of the paths that tell the runs apart, joined by "_"."""
    if len(set(runs)) < len(runs):
        raise UserError(f"--checkpoint: expected different runs. Received: {', '.join(p for p, _ in runs)}")
    parts = [os.path.abspath(path).split(os.sep) if "://" not in path else path.split("/") for path, _ in runs]
    steps = [f"_{step}" if step is not None else "" for _, step in runs]
    labels = []
    for depth in range(1, 1 + max(map(len, parts))):
        labels = ["_".join(p[-depth:]) + s for p, s in zip(parts, steps)]
        if len(set(labels)) == len(labels):
            break
    return [re.sub(r"[^\w.-]", "_", label) for label in labels]


def open_data(trials, input_dir=None, skip_corrupt=False):
    """The `Source` that all trials are tried on; UserError where they are of different data sets."""
    names = {t.run.info.get("dataset") or t.run.hparams.dataset for t in trials}
    if len(names) > 1:
        raise UserError(
            f"--checkpoint: expected runs of one data set. Received: {', '.join(sorted(map(str, names)))}"
        )
    name = names.pop()
    if not name:
        raise UserError(f"{trials[0].run.path}: its run.json and hparams.json name no data set")
    return open_source(name, input_dir or trials[0].run.info.get("input_dir"), skip_corrupt)


def check_same_frames(trials, source, length):
    """UserError unless the data look the same to every run (size, channels, frame skip)."""

    def view(trial):
        spec = source.spec(trial.run.hparams, length)
        return [list(spec["images"].shape) if "images" in spec else None, trial.run.hparams.frame_skip or 0]

    first = view(trials[0])
    for trial in trials[1:]:
        other = view(trial)
        if other != first:
            raise UserError(
                f"--checkpoint: expected runs that see the same frames; {trials[0].label}: frames {first[0]},"
                f" frame_skip {first[1]}; {trial.label}: frames {other[0]}, frame_skip {other[1]}"
            )


def check_horizon(horizon):
    """UserError where a given horizon is not positive."""
    if horizon is not None and horizon < 1:
        raise UserError(f"--horizon: expected at least 1 predicted frame. Received: {horizon}")


def parse_shard(text):
    """"i/n" of --shard -> (i, n)."""
    first, slash, second = text.partition("/")
    if not slash or not (first.isdecimal() and second.isdecimal()):
        raise UserError(f"--shard: expected i/n, for example 0/4. Received: {text!r}")
    return int(first), int(second)


def prepare_folder(folder):
    """Makes a folder for results and checks that it can be written, before any work is done."""
    try:
        tf.io.gfile.makedirs(folder)
        probe = os.path.join(folder, ".write-test")
        with tf.io.gfile.GFile(probe, "w") as f:
            f.write("")
        tf.io.gfile.remove(probe)
    except (tf.errors.OpError, OSError) as e:
        reason = getattr(e, "message", None) or str(e)
        raise UserError(f"--output_dir: expected a folder that can be written. Received: {folder}: {reason}") from None
