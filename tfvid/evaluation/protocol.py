"""Evaluation of a model on a data set: many samples a clip, metrics for each step, constant memory."""

import contextlib
import dataclasses
import hashlib

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from tfvid.data.records import KEYS
from tfvid.errors import UserError
from tfvid.evaluation import step_metrics, tables
from tfvid.evaluation.samples import STATISTICS, Diversity, SampleStatistics

# Keys that the pipeline adds to padded batches; no model sees them.
BOOKKEEPING = ("valid", "index")


@dataclasses.dataclass(frozen=True)
class Protocol:
    """What an evaluation does; stands in the summary beside the numbers.

    Attributes:
      context: frames before the first predicted one. A model that needs fewer is given
        the last of them, so that several models predict the same frames.
      horizon: predicted frames.
      num_samples: samples of each clip.
      seed: of the samples.
      batch_size: clips in a batch; samples are a function of (seed, batch, sample).
      num_shown: clips whose images are written.
    """

    context: int
    horizon: int
    num_samples: int = 100
    seed: int = 0
    batch_size: int = 8
    num_shown: int = 10

    def __post_init__(self):
        for name in ("horizon", "num_samples", "batch_size", "context"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name}: expected at least 1. Received: {getattr(self, name)}")
        if self.num_shown < 0:
            raise UserError(f"--num_shown: expected at least 0. Received: {self.num_shown}")


def sample_seed(seed, first_index, sample):
    """The seed of one sample of one batch: 63 bits of a hash, the same in any order and shard."""
    digest = hashlib.blake2b(f"{seed}/{first_index}/{sample}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


class Evaluator:
    """Runs a model over batches and hands each clip's curves and images to a writer.

    Args:
      model: a `VideoModel`, or any object with `generate`, `images_to_float` and
        `hparams.context_frames`.
      protocol: a `Protocol`.
      metrics: {name: StepMetric}.
      set_metrics: {name: object with update(clip, context, outputs, valid)}, see
        `tfvid.evaluation.set_metrics`; they see the first sample of each clip.
      distance: StepMetric whose values between samples are the diversity, or None.
      sampler: of `make_sampler`, where it has been traced already.
    """

    def __init__(self, model, protocol, metrics, set_metrics=None, distance=None, sampler=None):
        self.model, self.protocol, self.metrics = model, protocol, metrics
        self.set_metrics, self.distance = set_metrics or {}, distance
        self.deterministic = True
        self._sample = sampler or make_sampler(model, protocol)
        self._prepare = tf.function(self._prepared)
        self._compare = tf.function(self._compared)
        self._between = tf.function(
            lambda a, b: distance.compare(distance.prepared({distance.key: a}, 0), b)
        )

    def run(self, dataset, writer, total=None):
        """Evaluates every valid clip of `dataset`, batches with `valid` and `index`.

        Args:
          writer: object with write(index, row) for each clip, see `ResultWriter`.
          total: number of clips, for the progress bar.
        """
        with tqdm(total=total, unit="clip", desc="evaluate", mininterval=1.0) as progress:
            for batch in dataset:
                progress.update(self._run_batch(batch, writer))

    def _run_batch(self, batch, writer):
        p = self.protocol
        valid, index = batch["valid"].numpy(), batch["index"].numpy()
        clip = self._clip(batch)
        shown = [b for b in range(len(index)) if valid[b] and index[b] < p.num_shown]
        prepared = self._prepare(clip)
        baseline = self._compare(prepared, repeat_last(clip, p.context, p.horizon))
        statistics, diversity = SampleStatistics(self.metrics), Diversity()
        inputs, previous = model_inputs(batch, p, self.model), None
        for s in range(p.num_samples):
            outputs = self._sample(inputs, tf.constant(sample_seed(p.seed, int(index[0]), s), tf.int64))
            if s == 0:
                for metric in self.set_metrics.values():
                    metric.update(clip, p.context, outputs, valid)
            elif s == 1 and self._same(previous, outputs):
                break  # another seed, the same frames: every further sample would be the same too
            elif s == 1:
                self.deterministic = False
            values = self._compare(prepared, outputs)
            frames = {b: outputs["images"][b].numpy() for b in shown} if "images" in outputs else {}
            statistics.update({n: self.metrics[n].sign * v.numpy() for n, v in values.items()}, frames)
            if self.distance and s > 0 and diversity.wants_more:
                key = self.distance.key
                diversity.update(self._between(previous[key], outputs[key]).numpy())
            previous = outputs
        for b in np.flatnonzero(valid):
            writer.write(int(index[b]), self._row(b, statistics, diversity, baseline, clip, b in shown))
        return int(valid.sum())

    def _row(self, b, statistics, diversity, baseline, clip, shown):
        curves = {(n, kind): statistics.curves(n, kind)[b] for n in self.metrics for kind in STATISTICS}
        for name, values in baseline.items():
            curves[name, "repeat"] = self.metrics[name].sign * values[b].numpy().astype(np.float64)
        if self.distance and self.protocol.num_samples > 1:
            values = np.broadcast_to(diversity.result(), (len(clip["images"]), self.protocol.horizon))
            curves["diversity", "avg"] = values[b]
        frames = None
        if shown and "images" in clip:
            frames = {"clip": clip["images"][b].numpy()}
            if statistics.has_frames(b):
                for name in self.metrics:
                    for kind in STATISTICS:
                        frames[name, kind] = statistics.frames(b, name, kind)
        return Row(curves, frames)

    def _clip(self, batch):
        """{key: truth as floats}: images in [0, 1]."""
        clip = {k: v for k, v in batch.items() if k not in BOOKKEEPING}
        truth = truth_of(self.model, batch, self.protocol)
        if truth is None:
            clip.pop("images", None)
        else:
            clip["images"] = truth
        return clip

    def _prepared(self, clip):
        return {n: m.prepared(clip, self.protocol.context) for n, m in self.metrics.items()}

    def _compared(self, prepared, outputs):
        return {n: m.compare(prepared[n], outputs[m.key]) for n, m in self.metrics.items()}

    def _same(self, a, b):
        return all(bool(tf.reduce_all(a[k] == b[k])) for k in a)


@dataclasses.dataclass(frozen=True)
class Row:
    """Results of one clip.

    Attributes:
      curves: {(metric, "max" | "avg" | "min" | "repeat"): [h]}, signed as in the CSV files.
      frames: None, or {"clip": float [C + h, H, W, C] truth, (metric, kind): uint8 [h, H, W, C]}.
    """

    curves: dict
    frames: dict | None


class ResultWriter:
    """Writes the curves of each clip to the CSV files and its frames to `frame_writer`."""

    def __init__(self, folder, horizon, frame_writer=None):
        self._folder, self._horizon, self._frame_writer = folder, horizon, frame_writer
        self._files, self._stack = {}, contextlib.ExitStack()

    def write(self, index, row):
        """One clip; clips come in the order of their index."""
        for key, curve in row.curves.items():
            if key not in self._files:
                path = tables.curve_path(self._folder, *key)
                self._files[key] = self._stack.enter_context(tables.CurveWriter(path, self._horizon))
            self._files[key].write(index, curve)
        if row.frames and self._frame_writer:
            self._frame_writer(index, row.frames)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stack.close()


def make_sampler(model, protocol):
    """Traced function (inputs, seed) -> {key: [B, h, ...]} of one sample of each clip."""

    @tf.function
    def sample(inputs, seed):
        outputs = model.generate(inputs, seed, num_samples=1, horizon=protocol.horizon)
        return {k: v[0] for k, v in outputs.items()}

    return sample


def model_inputs(batch, protocol, model):
    """What the model is given: its own number of context frames before the common first predicted one."""
    start = protocol.context - model.hparams.context_frames
    if start < 0:
        raise UserError(
            f"expected at least the model's {model.hparams.context_frames} context frames."
            f" Received: context={protocol.context}"
        )
    return {k: _from_time(k, v, start) for k, v in batch.items() if k not in BOOKKEEPING}


def truth_of(model, batch, protocol):
    """[B, context + horizon, H, W, C] in [0, 1]: the true clip as the model's predictions are to be read, or None.

    `truth_frames` says what the model ought to predict, which need not be the data's frames
    (another size, pictures of poses). The given frames must be of the same kind, or the
    baseline that repeats them would be compared with something else: they are asked for
    in the same way, of a clip whose first step is repeated before its beginning.
    """
    if "images" not in batch:
        return None
    count = model.hparams.context_frames
    earlier = {
        k: tf.concat([tf.repeat(v[:, :1], count, axis=1), v], axis=1) if _has_time(k) else v
        for k, v in batch.items()
        if k not in BOOKKEEPING
    }
    return model.truth_frames(earlier, protocol.context + protocol.horizon)


def repeat_last(clip, context, horizon):
    """The baseline: what is known last, repeated; {key: [B, horizon, ...]} for every metric's key."""
    return {
        k: tf.repeat(clip[k][:, context - 1 : context], horizon, axis=1)
        for k in step_metrics.FAMILIES
        if k in clip
    }


def described_outputs(model, protocol, element_spec, sampler):
    """(keys on which predictions and data can be compared, all keys of the predictions).

    UserError where the shapes of a common key differ.

    Args:
      element_spec: of the batches.
      sampler: of `make_sampler`; it is traced here.
    """
    inputs = {k: s for k, s in element_spec.items() if k not in BOOKKEEPING}
    start = protocol.context - model.hparams.context_frames
    specs = {
        k: tf.TensorSpec([s.shape[0], s.shape[1] - start, *s.shape[2:]], s.dtype)
        if start and _has_time(k)
        else tf.TensorSpec(s.shape, s.dtype)
        for k, s in inputs.items()
    }
    outputs = sampler.get_concrete_function(specs, tf.TensorSpec([], tf.int64)).structured_outputs
    keys = {k for k in step_metrics.FAMILIES if k in outputs and k in inputs}
    shapes = {k: inputs[k].shape[2:] for k in keys}
    if "images" in keys:
        future = tf.function(model.truth_frames).get_concrete_function(specs, protocol.horizon).structured_outputs
        if future is None:
            keys.remove("images")
        else:
            shapes["images"] = future.shape[2:]
    for key in keys:
        predicted, truth = outputs[key].shape[2:], shapes[key]
        if not predicted.is_compatible_with(truth):
            raise UserError(f"{key}: expected predictions of the shape {list(truth)}, received {list(predicted)}")
    return keys, set(outputs)


def _has_time(key):
    return key in KEYS and bool(KEYS[key].axes) and KEYS[key].axes[0] in ("T", "T-1")


def _from_time(key, value, start):
    return value[:, start:] if start and _has_time(key) else value
