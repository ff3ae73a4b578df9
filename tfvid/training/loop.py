"""Training, from flags to a run folder. Read `train` from top to bottom.

What can fail cheaply is checked first. What a run goes on from, in order of precedence:
the last checkpoint of its own folder; the weights of --checkpoint; fresh weights.
"""

import contextlib
import dataclasses
import os
import signal

import numpy as np
import tensorflow as tf

from tfvid import models
from tfvid.data import folder_lock
from tfvid.data import source as source_lib
from tfvid.data.records import data_error_line
from tfvid.errors import UserError
from tfvid.training import best as best_lib
from tfvid.training import callbacks as callbacks_lib
from tfvid.training import logs as logs_lib
from tfvid.training import strategy as strategy_lib
from tfvid.training.checkpoints import Checkpoints, list_checkpoints, restore
from tfvid.training.cluster import Cluster
from tfvid.training.output import check_space, check_writable
from tfvid.training.progress import Progress
from tfvid.training.run_folder import RunFolder, weights_path

# Values that may change when a run goes on; all others make another run.
CHANGEABLE = ("max_steps", "max_skipped_updates", "patience")
SEEN_AT_ONCE = 64  # training clips that a model keeps something of


@dataclasses.dataclass(frozen=True)
class Result:
    """How a training ended: the last step, and the signal that ended it early, or None."""

    step: int
    received: int | None = None

    @property
    def exit_status(self):
        """0, or 128 + signal, as shells count."""
        return 128 + self.received if self.received else 0


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is known before the model is built; `spec` and `clips` once the data has been looked into."""

    options: object
    source: object
    hparams: object
    cluster: Cluster | None
    kind: str
    devices: list
    path: str
    spec: dict | None = None
    clips: int | None = None

    @property
    def workers(self):
        """Number of processes."""
        return len(self.cluster) if self.cluster else 1

    @property
    def shard(self):
        """(index, number) of this process."""
        return (self.cluster.index, self.workers) if self.cluster else (0, 1)

    @property
    def writes(self):
        """Whether this process writes the run folder."""
        return self.cluster is None or self.cluster.chief


def train(options, stream=None):
    """Trains as `options` (a TrainOptions) say; returns a `Result`.

    Raises:
      UserError: any mistake of the user's, in one line.
    """
    setting = prepare(options)
    strategy = strategy_lib.make(setting.kind, setting.devices)
    setting = with_data(setting)
    run, last_step = open_run(setting)
    with folder_lock.held(run.path) if setting.writes else contextlib.nullcontext():
        return go_on(setting, strategy, run, last_step, stream)


def go_on(setting, strategy, run, last_step, stream=None):
    """Trains in an open run folder, from `last_step` or its beginning; returns a `Result`."""
    options = setting.options
    progress = Progress(setting.hparams.max_steps, last_step, setting.hparams.batch_size, stream)
    say = progress.note if setting.writes else lambda text: None
    if last_step >= setting.hparams.max_steps:
        say(
            f"{run.path}: this run is finished: step {last_step} of max_steps={setting.hparams.max_steps};"
            " a larger --max_steps goes on"
        )
        return Result(last_step)
    # Patience is for one process only (`best.check`), so that the one which asks is the one that writes.
    if (best := best_lib.finished(run.path, last_step, setting.hparams)) is not None:
        say(f"{run.path}: this run is finished: no better {setting.hparams.monitor} since step {best}")
        return Result(last_step)
    with strategy.scope():
        model = run.build_model()
    checkpoints = Checkpoints(model, run.checkpoints, options.keep)
    start = restore_run(setting, model, checkpoints)
    check_space(run.path, 2 * _bytes(model))
    if setting.writes:
        cut_back(run.path, start)
    say(introduction(setting, model, run, start, strategy))
    received = fit(setting, strategy, model, run, checkpoints, progress)
    step = model.host_step
    if received:
        say(f"{signal.Signals(received).name}: saved step {step}; the same command goes on")
    else:
        say(f"finished at step {step}; see {run.path}")
    return Result(step, received)


def prepare(options):
    """Checks flags, hyper-parameters, data and devices, in the order of their cost.

    TensorFlow computes nothing yet, since several workers must meet before it does.
    """
    model_class = models.model_class(options.model)
    names = ("max_steps", "pose_checkpoint", "autoencoder_checkpoint")
    extra = {k: getattr(options, k) for k in names if getattr(options, k) is not None}
    hparams = model_class.HPARAMS.load(options.hparams, options.hparams_override, extra)
    dataset = options.dataset_of(hparams)
    cluster = Cluster.from_environment()
    kind = strategy_lib.resolve(options.strategy, cluster, options.cpu_devices)
    devices = strategy_lib.local_devices(kind, options.cpu_devices)
    strategy_lib.check_batch_size(hparams.batch_size, len(cluster) if cluster else 1, len(devices))
    if options.checkpoint:
        weights_path(options.checkpoint)
    path = options.run_path(dataset)
    strategy_lib.set_up_devices(options.cpu_devices, options.deterministic)
    source = source_lib.open_source(dataset, options.input_dir, options.skip_corrupt)
    files = source.files("train")
    if not files:
        source.count("train")  # says what is missing
    if cluster is None or cluster.chief:
        check_writable(path)
    hparams = hparams.with_dataset_defaults(source.defaults()).replace(dataset=dataset)
    hparams.check_labels(source.info.labels if source.info else {})
    setting = Setting(options, source, hparams, cluster, kind, devices, path)
    best_lib.check(hparams, options.validation_freq, source.splits(), setting.workers)
    if cluster:
        cluster.meet(_facts(setting, files), options.worker_timeout)
    return setting


def _facts(setting, files):
    """What every worker must have been started with."""
    options = setting.options
    return {
        "settings": {
            "model": options.model,
            "seed": options.seed,
            "checkpoint": options.checkpoint,
            "run": setting.path,
            "skip_corrupt": options.skip_corrupt,
        },
        "hyper-parameters": setting.hparams.to_dict(),
        "data": {"files": len(files), "bytes": sum(tf.io.gfile.stat(f).length for f in files)},
    }


def with_data(setting):
    """The setting with what must be read from the data: lengths and shapes of clips."""
    source, hparams = setting.source, setting.hparams
    if not hparams.sequence_length:  # the longest possible
        hparams = hparams.replace(sequence_length=source.spec(hparams)["images"].shape[0])
    clips = source.count("train", hparams)
    return dataclasses.replace(setting, hparams=hparams, spec=source.spec(hparams), clips=clips)


def open_run(setting):
    """The run folder, made if it is not there, and the step of its last checkpoint (0: none)."""
    path, options = setting.path, setting.options
    more = {
        "dataset": setting.hparams.dataset,
        "input_dir": options.input_dir,
        "checkpoint": options.checkpoint,
        "training_clips": setting.clips,
        # Names of discrete values, for those who use the run without its data.
        "labels": setting.source.info.labels if setting.source.info else {},
    }
    fresh = (path, options.model, setting.hparams, setting.spec, options.seed)
    new = RunFolder.create if setting.writes else RunFolder.planned
    if not tf.io.gfile.exists(os.path.join(path, "run.json")):
        others = set(tf.io.gfile.listdir(path) if tf.io.gfile.isdir(path) else []) - {"hparams.json"}
        others = [name for name in others if not name.startswith(".tmp-")]  # of a write that was cut off
        if others and setting.writes:
            raise UserError(f"--output_dir: expected a run folder or an empty one. Received: {path} with {min(others)}")
        return new(*fresh, **more), 0
    run = RunFolder.open(path)
    wanted = RunFolder.planned(*fresh, **more)
    different = run.differences(wanted, CHANGEABLE)
    if different and run.has_only_settings():  # it ended by a mistake, say in one of them, before its first step
        with folder_lock.held(path) if setting.writes else contextlib.nullcontext():
            return new(*fresh, **more), 0
    if different:
        raise UserError(
            f"{path}: expected the settings that the run in it was started with; {different};"
            " use them, or another --output_dir"
        )
    if setting.writes and run.hparams != wanted.hparams:
        wanted.hparams.save(os.path.join(path, "hparams.json"))
    return RunFolder(path, run.info, wanted.hparams), max(list_checkpoints(run.checkpoints), default=0)


def restore_run(setting, model, checkpoints):
    """Puts the model where the run goes on; returns the step."""
    if setting.writes:
        checkpoints.clean()
    step = checkpoints.restore_last()
    if step is not None:
        return step
    model.begin_training()
    if setting.options.checkpoint:
        restore(model, weights_path(setting.options.checkpoint), optimizers=False)
        model.step.assign(0)
    show_clips(setting, model, checkpoints)
    return 0


def show_clips(setting, model, checkpoints):
    """Lets a new model see clips of its training data, from all over it."""

    def clips(count):
        size = min(count, SEEN_AT_ONCE)
        return setting.source.evaluation_batches("train", setting.hparams, size, limit=count, shuffle=True)

    try:
        model.see_training_clips(clips)
    except tf.errors.OpError as e:
        raise _explained(e, setting, checkpoints) from e


def cut_back(path, step):
    """Removes from the logs what lies after the step that the run goes on from."""
    for kind in ("train", "val"):
        logs_lib.cut_board(os.path.join(path, kind), step)
    logs_lib.cut_samples(os.path.join(path, "samples"), step)


def introduction(setting, model, run, start, strategy):
    """What is trained, on what, where."""
    count = sum(int(np.prod(v.shape)) for v in model.trainable_weights)
    devices = f"{strategy.num_replicas_in_sync} device" + ("s" if strategy.num_replicas_in_sync > 1 else "")
    workers = f" of {setting.workers} workers" if setting.workers > 1 else ""
    return "\n".join([
        f"{setting.options.model}: {count:,} weights, on {devices}{workers}",
        f"{setting.hparams.dataset}: {setting.clips:,} training clips,"
        f" {setting.hparams.batch_size} in a step",
        f"{run.path}: {f'goes on from step {start}' if start else 'starts'}, to step {setting.hparams.max_steps};"
        f" watch it: tensorboard --logdir {run.path}",
    ])  # fmt: skip


def fit(setting, strategy, model, run, checkpoints, progress):
    """Runs the steps that are left; returns the signal that ended them early, or None."""
    hparams, start = setting.hparams, int(model.step.numpy())
    batches = setting.source.training_batches(
        "train", hparams, hparams.batch_size // setting.workers, seed=setting.options.seed, start_step=start,
        shard=setting.shard,
    )  # fmt: skip
    batches = strategy_lib.distribute(strategy, batches, setting.workers)
    stop = callbacks_lib.StopSignals(strategy if setting.cluster else None)
    steps = hparams.max_steps - start
    with stop:
        try:
            callbacks = make_callbacks(setting, strategy, model, run, checkpoints, progress, stop)
            model.fit(batches, steps_per_epoch=steps, epochs=1, shuffle=False, verbose=0, callbacks=callbacks)
        except tf.errors.OpError as e:
            raise _explained(e, setting, checkpoints) from e
        finally:
            progress.close()
    return stop.received if model.host_step < hparams.max_steps else None


def make_callbacks(setting, strategy, model, run, checkpoints, progress, stop):
    """The callbacks of `fit`, in the order in which they act after a step."""
    options, writes, target = setting.options, setting.writes, setting.hparams.max_steps
    folder = lambda name: os.path.join(run.path, name)  # noqa: E731
    boards = {k: logs_lib.Board(folder(k)) for k in ("train", "val")} if writes else {}
    table = logs_lib.MetricsTable(folder("metrics.csv"), int(model.step.numpy())) if writes else None
    if writes:
        boards["val"].hparams(setting.hparams.to_dict(), run.path)

    def kept():
        return f"The last good checkpoint is {checkpoints.last}" if checkpoints.last else "No checkpoint was saved yet"

    observers = [callbacks_lib.NaNGuard(setting.hparams.max_skipped_updates, kept)]
    if writes:
        observers.append(callbacks_lib.Scalars(boards["train"], options.summary_freq, model))
        observers.append(lambda step, values: progress.update(step, values, model.data_wait, force=step == target))
    timed = [_validation(setting, strategy, boards, table, progress), _saving(setting, boards, checkpoints, progress)]
    if writes:
        timed.insert(1, _samples(setting, boards, folder("samples"), progress))
        if setting.hparams.monitor:
            timed.append(
                best_lib.BestWeights(
                    setting.hparams, table, run.checkpoints, options.validation_freq, target, progress
                )
            )
    timed = [t for t in timed if t is not None]

    def needed(step):
        return step == target or step % options.summary_freq == 0 or any(t.due(step) for t in timed)

    found = [callbacks_lib.StepLogs(observers, _fetch_every(setting.devices), needed), *timed, stop]
    if options.profile and writes:
        found.append(callbacks_lib.Profile(*options.profiled_steps(), folder("train")))
    return found


def _fetch_every(devices):
    """Steps between two looks at the losses: on an accelerator each look waits for it."""
    return 1 if devices[0].startswith("CPU") else 10


def _validation(setting, strategy, boards, table, progress):
    """None where there is no validation data."""
    options, source = setting.options, setting.source
    if not options.validation_freq or "val" not in source.splits():
        return None
    count = min(source.count("val", setting.hparams), options.validation_clips)
    size = setting.hparams.batch_size // setting.workers
    batches = source.evaluation_batches("val", setting.hparams, size, limit=count, shard=setting.shard)
    number = -(-count // (size * setting.workers))
    if setting.workers > 1:
        batches = equal_batches(batches, number, setting)
    batches = strategy_lib.distribute(strategy, batches, setting.workers)
    return callbacks_lib.Validation(
        batches, number, boards.get("val"), table, options.validation_freq, setting.hparams.max_steps, progress
    )


def equal_batches(batches, number, setting):
    """As many batches for every worker, since they compute together: extra ones are all padding."""
    first = setting.source.evaluation_batches("val", setting.hparams, batches.element_spec["valid"].shape[0], limit=1)
    padding = first.map(lambda batch: {**batch, "valid": tf.zeros_like(batch["valid"])}).repeat()
    return batches.concatenate(padding).take(number)


def _samples(setting, boards, folder, progress):
    options, source = setting.options, setting.source
    if not options.image_summary_freq or "val" not in source.splits():
        return None
    clips = min(source.count("val", setting.hparams), options.sample_clips)
    batch = next(iter(source.evaluation_batches("val", setting.hparams, clips, limit=clips)))
    batch = {k: v for k, v in batch.items() if k not in ("valid", "index")}
    return callbacks_lib.Samples(
        batch, options.num_samples, options.seed, boards["val"], folder, options.image_summary_freq,
        setting.hparams.max_steps, progress,
    )  # fmt: skip


def _saving(setting, boards, checkpoints, progress):
    if not setting.writes:
        return None
    return callbacks_lib.Saving(
        checkpoints, list(boards.values()), setting.options.save_freq, setting.hparams.max_steps, progress
    )


def _bytes(model):
    """Size of a checkpoint."""
    weights = sum(int(np.prod(v.shape)) * v.value.dtype.size for v in model.weights)
    moments = sum(
        int(np.prod(v.shape)) * v.value.dtype.size * 2 for o in model.optimizers_by_name.values() for v in o.targets
    )
    return weights + moments + 2**20


def _explained(error, setting, checkpoints):
    """A UserError for what TensorFlow raised during `fit`, or the error itself."""
    line = data_error_line(error)
    if line:
        return UserError(line)
    kept = f"; the same command goes on from {checkpoints.last}" if checkpoints.last else ""
    if isinstance(error, tf.errors.ResourceExhaustedError):
        return UserError(f"out of memory: a smaller batch_size or more devices help{kept}")
    lost = (
        tf.errors.UnavailableError,
        tf.errors.AbortedError,
        tf.errors.DeadlineExceededError,
        tf.errors.InternalError,
    )
    if setting.cluster and isinstance(error, lost):
        return UserError(f"another worker was lost ({type(error).__name__}): start all workers again{kept}")
    return error
