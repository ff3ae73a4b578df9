"""Generating futures for clips of a data set; see scripts/generate.py."""

import dataclasses
import json
import os

import numpy as np
import tensorflow as tf

from tfvid.data.records import read_json, write_atomically
from tfvid.data.video_files import check_fps, encode_png, write_gif
from tfvid.errors import UserError
from tfvid.evaluation import runs
from tfvid.evaluation.frame_files import bordered, displayable
from tfvid.evaluation.pages import Page
from tfvid.evaluation.protocol import Protocol, make_sampler, model_inputs, sample_seed, truth_of
from tfvid.evaluation.samples import to_uint8


@dataclasses.dataclass(frozen=True)
class Request:
    """What is asked for; every field is a flag of scripts/generate.py.

    Attributes:
      shard: (i, n): only every n-th batch from the i-th on.
    """

    split: str = "test"
    num_samples: int = 5
    num_videos: int = 8
    seed: int = 7
    batch_size: int = 8
    horizon: int | None = None
    fps: float = 4.0
    shard: tuple = (0, 1)


def generate(checkpoint, output_dir, request, input_dir=None, report=print, skip_corrupt=False):
    """Writes GIFs, PNG frames and index.html; returns the path of the page.

        gen_image_<clip>_<sample>.gif         given, then predicted frames
        gen_image_<clip>_<sample>_<time>.png  predicted frames
        clip_<clip>.gif                       truth and samples side by side

    With shards, each writes its clips' files, and the last one to finish the page of all; the others return None.

    Raises:
      UserError: one line on what does not fit, before anything is computed.
    """
    (trial,) = runs.open_trials([checkpoint])
    runs.check_horizon(request.horizon)
    check_fps(request.fps)
    if request.num_videos < 0:
        raise UserError(f"--num_videos: expected at least 1, or 0 for all. Received: {request.num_videos}")
    i, n = request.shard
    if not 0 <= i < n:
        raise UserError(f"--shard: expected i/n with 0 <= i < n. Received: {i}/{n}")
    source = runs.open_data([trial], input_dir, skip_corrupt)
    horizon = request.horizon or trial.default_horizon
    protocol = Protocol(trial.context, horizon, request.num_samples, request.seed, request.batch_size)
    length = protocol.context + horizon
    available = source.count(request.split, trial.run.hparams, length)
    clips = min(available, request.num_videos or available)
    runs.prepare_folder(output_dir)
    model = trial.run.load_model(trial.step, training_networks=False)
    dataset = source.evaluation_batches(
        request.split, trial.run.hparams, min(request.batch_size, clips), length=length, limit=clips,
        shard=request.shard,
    )  # fmt: skip
    page = Page(f"{trial.label} on {source.name}/{request.split}")
    page.text(
        f"{protocol.context} frames given (green border), {horizon} predicted (red), seed {request.seed};"
        " from left to right: truth, samples."
    )
    sample, written = make_sampler(model, protocol), []
    for batch in dataset:
        written += _write_batch(model, sample, batch, protocol, output_dir, request.fps)
    if n > 1:
        facts = [trial.run.path, int(model.step.numpy()), clips, dataclasses.asdict(protocol), request.split, request.fps]
        written = _merged(output_dir, request.shard, facts, written, report)
        if written is None:
            return None
    for index, sources in written:
        page.heading(f"clip {index}")
        page.clips(sources)
    path = os.path.join(output_dir, "index.html")
    page.write(path)
    report(f"{clips} clips of {source.name}/{request.split}, {request.num_samples} samples each, seed {request.seed}")
    report(f"page: {path}")
    report(f"GIFs: {os.path.join(output_dir, 'clip_*.gif')} (truth, then samples, side by side)")
    return path


def _merged(folder, shard, facts, written, report):
    """What all shards have written, in the order of the clips; None while others are missing.

    Args:
      facts: JSON values that must be the same in all shards.
      written: [(clip index, {caption: GIF})] of this one.
    """
    i, n = shard
    paths = [os.path.join(folder, "shards", f"{k}-of-{n}.json") for k in range(n)]
    tf.io.gfile.makedirs(os.path.dirname(paths[i]))
    write_atomically(paths[i], json.dumps({"facts": facts, "written": written}))
    missing = [f"{k}/{n}" for k, path in enumerate(paths) if not tf.io.gfile.exists(path)]
    if missing:
        report(f"{folder}: shard done; the page is written with the last of {', '.join(missing)}")
        return None
    parts = [read_json(path) for path in paths]
    for path, part in zip(paths, parts):
        if part["facts"] != json.loads(json.dumps(facts)):
            raise UserError(f"{path}: expected a shard of the same command; remove {folder}/shards and start again")
    return sorted((entry for part in parts for entry in part["written"]), key=lambda entry: entry[0])


def _write_batch(model, sample, batch, protocol, folder, fps):
    """Writes the files of one batch; generator of (clip index, {caption: GIF})."""
    valid, index = batch["valid"].numpy(), batch["index"].numpy()
    inputs = model_inputs(batch, protocol, model)
    truth = truth_of(model, batch, protocol)
    truth = None if truth is None else truth.numpy()
    samples = []
    for s in range(protocol.num_samples):
        outputs = sample(inputs, tf.constant(sample_seed(protocol.seed, int(index[0]), s), tf.int64))
        if "images" not in outputs:
            raise UserError(f"{type(model).__name__} generates {', '.join(outputs)}, no images to write")
        samples.append(to_uint8(outputs["images"].numpy()))
    for b in np.flatnonzero(valid):
        yield int(index[b]), _write_clip(
            int(index[b]), None if truth is None else to_uint8(truth[b]), [s[b] for s in samples], protocol, folder, fps
        )


def _write_clip(index, truth, samples, protocol, folder, fps):
    """Writes one clip's files; returns {caption: GIF file name}."""
    context, sources, panels = protocol.context, {}, []
    given = np.zeros((0, *samples[0].shape[1:]), np.uint8) if truth is None else truth[:context]
    if truth is not None:
        panels.append(bordered(truth, context))
        name = f"truth_{index:05d}.gif"
        write_gif(os.path.join(folder, name), panels[0], fps)
        sources["truth"] = name
    for s, future in enumerate(samples):
        stem = f"gen_image_{index:05d}_{s:02d}"
        frames = bordered(np.concatenate([given, future]), len(given))
        write_gif(os.path.join(folder, f"{stem}.gif"), np.concatenate([displayable(given), displayable(future)]), fps)
        for t, frame in enumerate(displayable(future) if future.shape[-1] not in (1, 3) else future):
            with tf.io.gfile.GFile(os.path.join(folder, f"{stem}_{t:02d}.png"), "wb") as f:
                f.write(encode_png(frame))
        panels.append(frames)
        sources[f"sample {s}"] = f"{stem}.gif"
    write_gif(os.path.join(folder, f"clip_{index:05d}.gif"), np.concatenate(panels, axis=2), fps)
    return {"truth and samples": f"clip_{index:05d}.gif", **sources}
