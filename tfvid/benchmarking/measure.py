"""What is measured of a model, part by part; each part runs in a process of its own, for its own peak memory."""

import functools
import os
import resource
import statistics
import sys
import time

import numpy as np
import tensorflow as tf

from tfvid import models
from tfvid.benchmarking import operations, profile
from tfvid.data.source import open_source

PARTS = ("ceiling", "train", "generate")


def measure(part, setting):
    """One part's results as a dictionary of plain JSON types."""
    return {"ceiling": lambda _: ceiling(), "train": train, "generate": generate}[part](setting)


def ceiling(repeats=20):
    """The fastest of `repeats` runs of one convolution: 3x3, 8 x 64 x 64 x 128 -> 128 channels, float32.

    Returns:
      {"gflops": 1e9 floating point operations (two a multiply-add) a second}.
    """
    return {"gflops": ceiling_rate(repeats)}


def ceiling_rate(repeats=5):
    """As `ceiling`, the number alone; also measured between timed steps, for a machine whose speed changes."""
    convolve, x = _ceiling_convolution()
    flops = 2 * 8 * 64 * 64 * 9 * 128 * 128
    best = min(_timed(lambda: convolve(x)[0, 0, 0, 0].numpy())[0] for _ in range(repeats))
    return flops / best / 1e9


@functools.cache
def _ceiling_convolution():
    """(function, its argument), warm."""
    x, kernel = tf.random.normal([8, 64, 64, 128]), tf.random.normal([3, 3, 128, 128])
    convolve = tf.function(lambda x: tf.nn.conv2d(x, kernel, 1, "SAME"))
    for _ in range(3):
        convolve(x)[0, 0, 0, 0].numpy()
    return convolve, x


def train(setting):
    """Training steps of `setting` (a Setting)."""
    source, hparams = setting.source(), setting.hparams
    start = time.perf_counter()
    model = setting.build(source)
    built = time.perf_counter() - start
    batches = iter(source.training_batches("train", hparams, hparams.batch_size, setting.seed))
    batch = next(batches)
    model.make_train_function()
    first, _ = _timed(lambda: _finish(model.train_function(iter([batch]))))
    for _ in range(2):
        _finish(model.train_function(iter([batch])))
    peak = memory()  # before the ceiling and the profile, which take memory of their own
    walls, cpus, waits, rates = [], [], [], [ceiling_rate()]
    for _ in range(setting.steps):
        waited = model.data_wait
        wall, cpu = _timed(lambda: _finish(model.train_function(batches)))
        walls.append(wall)
        cpus.append(cpu)
        waits.append(model.data_wait - waited)
        rates.append(ceiling_rate())
    counted = operations.count(model.traced_train_step().get_concrete_function(batch))
    return {
        "parameters": int(sum(np.prod(w.shape) for w in model.weights)),
        "seconds_to_build": built,
        "seconds_to_first_step": built + first,
        "step_seconds": statistics.median(walls),
        "step_seconds_range": [min(walls), max(walls)],
        "step_cpu_seconds": statistics.median(cpus),
        "ceiling_gflops": statistics.mean(rates),
        "waiting_for_data": sum(waits) / sum(walls),
        "multiply_adds": counted.multiply_adds,
        "multiply_adds_by_kind": dict(counted.by_kind.most_common()),
        "operations_of_unknown_shape": dict(counted.unknown),
        "loops_of_unknown_length": counted.loops,
        "top_operations": profile.top_operations(lambda: _finish(model.train_function(iter([batch])))),
        **peak,
    }


def generate(setting):
    """One video of the test length from one context, batch 1."""
    source, hparams = setting.source(), setting.hparams
    horizon = hparams.long_sequence_length - hparams.context_frames
    model = setting.build(source, trainable=False, training_networks=False)
    batch = next(iter(source.evaluation_batches("test", hparams, 1, length=hparams.long_sequence_length)))
    batch = {k: v for k, v in batch.items() if k not in ("valid", "index")}

    def sample():
        return model.generate(batch, 0, num_samples=1, horizon=horizon)["images"].numpy()

    first, _ = _timed(sample)
    sample()
    peak = memory()  # as in `train`
    times, rates = [], [ceiling_rate()]
    for _ in range(setting.steps):
        times.append(_timed(sample))
        rates.append(ceiling_rate())
    wall = statistics.median(w for w, _ in times)
    parts = model.timed_parts(batch) if hasattr(model, "timed_parts") else {}
    return {
        "frames": horizon,
        "parts_seconds": {name: _median_seconds(call, setting.steps) for name, call in parts.items()},
        "ceiling_gflops": statistics.mean(rates),
        "seconds_to_first_video": first,
        "frame_seconds": wall / horizon,
        "frame_cpu_seconds": statistics.median(c for _, c in times) / horizon,
        "top_operations": profile.top_operations(sample),
        **peak,
        "multiply_adds": operations.count_run(sample).multiply_adds,
    }


class Setting:
    """What to measure.

    Args:
      model: name in `tfvid.models.MODELS`.
      hparams: merged hyper-parameters, data set's defaults included.
      dataset, folder: the records.
      steps: how many steps, and videos, are timed.
      seed: of weights, data and noise.
    """

    def __init__(self, model, hparams, dataset, folder, steps=10, seed=0):
        self.model, self.hparams, self.dataset, self.folder = model, hparams, dataset, folder
        self.steps, self.seed = steps, seed

    def source(self):
        """The opened records."""
        return open_source(self.dataset, self.folder)

    def build(self, source, **kinds):
        """The model with fresh weights; `kinds` as in `tfvid.models.build`."""
        return models.build(self.model, self.hparams, source.spec(self.hparams), seed=self.seed, **kinds)


def memory():
    """{"peak_rss_bytes"} of this process so far, and {"peak_gpu_bytes"} where there is a GPU."""
    # Linux counts in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    result = {"peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    if tf.config.list_physical_devices("GPU"):
        result["peak_gpu_bytes"] = tf.config.experimental.get_memory_info("GPU:0")["peak"]
    return result


def machine():
    """What the figures depend on beside the code."""
    import platform

    name = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as f:
            names = [line.split(":", 1)[1].strip() for line in f if line.startswith("model name")]
        name = names[0] if names else name
    gpus = [tf.config.experimental.get_device_details(g).get("device_name", "GPU") for g in
            tf.config.list_physical_devices("GPU")]
    return {
        "cpu": name,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "gpus": gpus,
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "load_average": round(os.getloadavg()[0], 2),
    }


def _finish(logs):
    """Waits until a step is done."""
    for value in logs.values():
        np.asarray(value)


def _median_seconds(call, repeats):
    """Seconds of a call whose first run, which traces it, is not counted."""
    call()
    return statistics.median(_timed(call)[0] for _ in range(repeats))


def _timed(call):
    """(seconds, CPU seconds of all threads) of a call."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - cpu
