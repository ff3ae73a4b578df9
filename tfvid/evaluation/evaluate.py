"""Evaluating one or several runs on the same clips; see scripts/evaluate.py."""

import dataclasses
import os
import time

import tensorflow as tf

import tfvid
from tfvid.data.video_files import check_fps
from tfvid.errors import UserError
from tfvid.evaluation import reports, runs, set_metrics, step_metrics, tables
from tfvid.evaluation.frame_files import EvaluationFrames
from tfvid.evaluation.protocol import Evaluator, Protocol, ResultWriter, described_outputs, make_sampler
from tfvid.hparams import read_json_object

SHARD_FILE = "shard.json"


@dataclasses.dataclass(frozen=True)
class Request:
    """What is asked for; every field is a flag of scripts/evaluate.py.

    Attributes:
      num_videos: only the first so many clips; 0: all.
      num_shown: clips whose images and GIFs are written.
      shard: (i, n): only every n-th batch from the i-th on.
      horizon: predicted frames; None: those of the runs' test clips.
    """

    split: str = "test"
    num_samples: int = 100
    num_videos: int = 0
    num_shown: int = 10
    metrics: tuple = ()
    seed: int = 0
    batch_size: int = 8
    horizon: int | None = None
    shard: tuple = (0, 1)
    only_metrics: bool = False
    weights_dir: str | None = None
    fps: float = 4.0


def evaluate(checkpoints, output_dir, request, input_dir=None, report=print, skip_corrupt=False):
    """Evaluates every run; writes tables, plots and pages; returns {label: summary}.

    With shards, None until the last one is done; its process merges them all.

    Raises:
      UserError: one line on what does not fit, before anything is computed.
    """
    trials = runs.open_trials(checkpoints)
    runs.check_horizon(request.horizon)
    _check(request)
    _check_names(request.metrics)
    source = runs.open_data(trials, input_dir, skip_corrupt)
    context = max(t.context for t in trials)
    horizon = request.horizon or min(t.default_horizon for t in trials)
    protocol = Protocol(
        context, horizon, request.num_samples, request.seed, request.batch_size,
        0 if request.only_metrics else request.num_shown,
    )  # fmt: skip
    runs.check_same_frames(trials, source, context + horizon)
    available = source.count(request.split, trials[0].run.hparams, context + horizon)
    clips = min(available, request.num_videos or available)
    runs.prepare_folder(output_dir)
    report(f"{clips} clips of {source.name}/{request.split}: {context} frames given, {horizon} predicted")
    summaries = {}
    for trial in trials:
        folder = output_dir if len(trials) == 1 else os.path.join(output_dir, trial.label)
        summaries[trial.label] = _evaluate_trial(trial, folder, source, protocol, request, clips, report)
    if any(s is None for s in summaries.values()):
        return None
    if len(trials) > 1:
        reports.write_comparison(output_dir, summaries)
    report(reports.final_text(output_dir, summaries))
    return summaries


def _check(request):
    i, n = request.shard
    if not 0 <= i < n:
        raise UserError(f"--shard: expected i/n with 0 <= i < n. Received: {i}/{n}")
    for name in ("num_samples", "batch_size"):
        if getattr(request, name) < 1:
            raise UserError(f"--{name}: expected at least 1. Received: {getattr(request, name)}")
    if request.num_videos < 0:
        raise UserError(f"--num_videos: expected at least 1, or 0 for all. Received: {request.num_videos}")
    check_fps(request.fps)


def _check_names(names):
    """Unknown names fail before a model is loaded."""
    known = [*step_metrics.TABLE, *set_metrics.TABLE, "all"]
    for name in names:
        if name not in known:
            raise UserError(f"--metrics: unknown metric {name!r}{step_metrics.nearest(name, known)}")


def _evaluate_trial(trial, folder, source, protocol, request, clips, report):
    """One run; returns its summary, or None while other shards are missing."""
    started = time.monotonic()
    i, n = request.shard
    part = folder if n == 1 else os.path.join(folder, "shards", f"{i}-of-{n}")
    runs.prepare_folder(part)
    model = trial.run.load_model(trial.step, training_networks=False)
    dataset = source.evaluation_batches(
        request.split, trial.run.hparams, protocol.batch_size, length=protocol.context + protocol.horizon,
        limit=clips, shard=request.shard,
    )  # fmt: skip
    sampler = make_sampler(model, protocol)
    keys, outputs = described_outputs(model, protocol, dataset.element_spec, sampler)
    agent = set_metrics.AGENTS.get(source.name)
    data = {*dataset.element_spec, *(["detector"] if agent and agent.detector else [])}
    step_names, set_names = _split_names(request.metrics, keys, outputs, data)
    options = dataclasses.replace(step_metrics.options_for(model, request.weights_dir), agent=agent)
    images = dataset.element_spec.get("images")
    side = min(images.shape[2:4]) if images is not None else None
    metrics, skipped = step_metrics.build(step_names, options, side)
    sets, sets_skipped = set_metrics.build(set_names, options, protocol.context + protocol.horizon)
    skipped.update(sets_skipped)
    for name, reason in skipped.items():
        report(f"{name} is left out: {reason}")
    if not metrics and not sets:
        raise UserError(f"--metrics: none is left for {trial.label}; its outputs and the data share {sorted(keys)}")
    frames = EvaluationFrames(folder, protocol.context, request.fps)
    evaluator = Evaluator(model, protocol, metrics, sets, metrics.get("lpips"), sampler)
    with ResultWriter(part, protocol.horizon, frames) as writer:
        evaluator.run(dataset, writer, -(-clips // n))
    state = {
        "protocol": {
            **_protocol(trial, model, source, protocol, request, clips),
            "deterministic": evaluator.deterministic if protocol.num_samples > 1 else None,
        },
        "metrics": {name: _described(m) for name, m in metrics.items()},
        "sets": {name: m.described() for name, m in sets.items()},
        "diversity": evaluator.distance is not None and protocol.num_samples > 1,
        "skipped": skipped,
        "shown": frames.clips,
        "seconds": round(time.monotonic() - started, 1),
    }
    for name, metric in sets.items():
        metric.save(os.path.join(part, f"{name}.npz"))
    tables.write_json(os.path.join(part, SHARD_FILE), state)
    if n > 1:
        state = _merge(folder, n, state, sets, report)
        if state is None:
            return None
    return _finish(folder, trial.label, state, sets)


def _split_names(names, keys, outputs, data):
    """(step metrics, set metrics) to compute, of those asked for or the defaults.

    Args:
      keys: that predictions and data share.
      outputs, data: all keys of the predictions and of the batches.
    """
    if list(names) in ([], ["all"]):
        return step_metrics.choose(names, keys), set_metrics.choose(names, outputs, data)
    sets = [n for n in names if n in set_metrics.TABLE]
    steps = [n for n in names if n not in set_metrics.TABLE]
    steps = step_metrics.choose(steps, keys) if steps else []
    return steps, set_metrics.choose(sets, outputs, data) if sets else []


def _protocol(trial, model, source, protocol, request, clips):
    hparams = trial.run.hparams
    shape = source.spec(hparams, protocol.context + protocol.horizon)
    return {
        "run": trial.run.path,
        "model": trial.run.model_name,
        "step": int(model.step.numpy()),
        "dataset": source.name,
        "split": request.split,
        "clips": clips,
        "context_frames": protocol.context,
        "model_context_frames": trial.context,
        "predicted_frames": protocol.horizon,
        "training_length": hparams.sequence_length,
        "frame_shape": list(shape["images"].shape[1:]) if "images" in shape else None,
        "value_range": "[0, 1]",
        "resize": "none: step metrics at the model's resolution",
        "samples": protocol.num_samples,
        "seed": protocol.seed,
        "batch_size": protocol.batch_size,
        "best_worst": "for each metric and clip, the sample with the best and the worst mean over the predicted frames",
        "standard_error": "over clips: sample standard deviation / sqrt(clips)",
        "tfvid": tfvid.__version__,
    }


def _described(metric):
    return {
        "doc": metric.doc,
        "higher_is_better": metric.higher_is_better,
        "csv_sign": metric.sign,
        "weights_sha256": metric.checksum,
    }


def _merge(folder, n, state, sets, report):
    """Joins the shards where all are there, else says which are missing and returns None."""
    parts = [os.path.join(folder, "shards", f"{i}-of-{n}") for i in range(n)]
    files = [os.path.join(p, SHARD_FILE) for p in parts]
    missing = [f"{i}/{n}" for i, f in enumerate(files) if not tf.io.gfile.exists(f)]
    if missing:
        report(f"{folder}: shard done; the result is written with the last of {', '.join(missing)}")
        return None
    states = [read_json_object(f) for f in files]
    for path, other in zip(files, states):
        same = {**other["protocol"], "deterministic": None} == {**state["protocol"], "deterministic": None}
        if not same or other["metrics"] != state["metrics"]:
            raise UserError(f"{path}: expected a shard of the same evaluation; remove {folder}/shards and start again")
    for path in _curve_paths(state):
        existing = [tables.curve_path(p, *path) for p in parts]
        # A shard without any clip (more shards than batches) has written no table.
        existing = [p for p in existing if tf.io.gfile.exists(p)]
        tables.merge_curves(existing, tables.curve_path(folder, *path))
    for name, metric in sets.items():
        metric.merge_files([os.path.join(p, f"{name}.npz") for p in parts])
    deterministic = [s["protocol"]["deterministic"] for s in states]
    protocol = {**state["protocol"], "deterministic": None if None in deterministic else all(deterministic)}
    shown = sorted({i for s in states for i in s["shown"]})
    return {**state, "protocol": protocol, "shown": shown, "seconds": round(sum(s["seconds"] for s in states), 1)}


def _curve_paths(state):
    """(metric, kind) of every CSV file of an evaluation."""
    kinds = [(name, kind) for name in state["metrics"] for kind in ("max", "avg", "min", "repeat")]
    return kinds + ([("diversity", "avg")] if state["diversity"] else [])


def _finish(folder, label, state, sets):
    """Summarises the tables, writes summary.json, plots and the page."""
    summary = {
        "label": label,
        "protocol": state["protocol"],
        "metrics": {},
        "diversity": None,
        "sets": {name: {**state["sets"][name], **metric.result()} for name, metric in sets.items()},
        "skipped": state["skipped"],
        "seconds": state["seconds"],
    }
    for name, described in state["metrics"].items():
        sign = described["csv_sign"]
        signed_higher = described["higher_is_better"] == (sign > 0)
        best, worst = ("max", "min") if signed_higher else ("min", "max")
        kinds = {"best": best, "average": "avg", "worst": worst, "repeat": "repeat"}
        summary["metrics"][name] = {
            **described,
            **{k: tables.summarise(tables.curve_path(folder, name, v), sign) for k, v in kinds.items()},
        }
    if state["diversity"]:
        summary["diversity"] = tables.summarise(tables.curve_path(folder, "diversity", "avg"))
    tables.write_json(os.path.join(folder, "summary.json"), summary)
    reports.write_evaluation(folder, summary, state["shown"])
    return summary
