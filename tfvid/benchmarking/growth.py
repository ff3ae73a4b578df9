"""How time and memory of a training step grow with one size, and where they leave the straight line.

The line goes through the two smallest sizes. A value beside it names the factor between
what was measured and the line: above 1, growth is faster than linear (a resource that the
small sizes left free is used up, such as caches or memory bandwidth); below 1, slower (fixed
costs were shared out, or idle cores found work: the cores at work tell).
"""

import json
import os
import statistics
import time

from tfvid.benchmarking.measure import memory
from tfvid.errors import UserError

# What can grow -> (unit of x, what is varied).
AXES = {
    "batch": ("clips", "batch_size"),
    "frames": ("frames of a clip", "sequence_length and long_sequence_length"),
    "resolution": ("pixels of a frame", "the sides H and W"),
    "replicas": ("devices", "devices, with the same batch_size on each"),
}


def size_of(axis, value):
    """x of a value: pixels for a side, else the value itself."""
    return value * value if axis == "resolution" else value


def changes(axis, value, batch_size):
    """{"overrides": {hyper-parameter: value}, "sizes": {axis: value}, "replicas": number} for one value of an axis."""
    result = {"overrides": {"batch_size": batch_size}, "sizes": {}, "replicas": 1}
    if axis == "batch":
        result["overrides"]["batch_size"] = value
    elif axis == "frames":
        result["overrides"] |= {"sequence_length": value, "long_sequence_length": value}
    elif axis == "resolution":
        result["sizes"] = {"H": value, "W": value}
    elif axis == "replicas":
        result["replicas"] = value
        result["overrides"]["batch_size"] = batch_size * value
    else:
        raise UserError(f"--axis: expected one of {', '.join(AXES)}. Received: {axis!r}")
    return result


def train(setting, replicas=1):
    """Training steps of a `measure.Setting` on so many devices of this machine.

    Returns:
      {"step_seconds", "step_cpu_seconds", "first_step_seconds", "peak_rss_bytes", ...}.
    """
    from tfvid.training import strategy as strategy_lib

    kind = "mirrored" if replicas > 1 else "one"
    strategy_lib.set_up_devices(replicas, deterministic=False)
    devices = strategy_lib.local_devices(kind, replicas)
    if len(devices) < replicas:
        raise UserError(f"--values: expected at most {len(devices)} devices. Received: {replicas}")
    strategy = strategy_lib.make(kind, devices[:replicas])
    source, hparams = setting.source(), setting.hparams
    start = time.perf_counter()
    with strategy.scope():
        model = setting.build(source)
    batches = source.training_batches("train", hparams, hparams.batch_size, setting.seed)
    batches = iter(strategy_lib.distribute(strategy, batches))
    model.make_train_function()
    _wait(model.train_function(batches))
    first = time.perf_counter() - start
    for _ in range(2):
        _wait(model.train_function(batches))
    walls, cpus = [], []
    for _ in range(setting.steps):
        wall, cpu = time.perf_counter(), time.process_time()
        _wait(model.train_function(batches))
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return {
        "step_seconds": statistics.median(walls),
        "step_seconds_range": [min(walls), max(walls)],
        "step_cpu_seconds": statistics.median(cpus),
        "first_step_seconds": first,
        **memory(),
    }


def _wait(logs):
    for value in logs.values():
        float(value)


def factors(points):
    """Measured / line through the two smallest x, for each (x, y); None for those two."""
    points = sorted(points)
    if len(points) < 2:
        return [None] * len(points)
    (x0, y0), (x1, y1) = points[:2]
    slope = (y1 - y0) / (x1 - x0)
    return [None, None, *(y / (y0 + slope * (x - x0)) for x, y in points[2:])]


def table(results):
    """A Markdown table of one axis' results.

    Args:
      results: {"axis", "points": [{"value", "step_seconds", ...}]} in the order of their size.
    """
    axis, points = results["axis"], results["points"]
    xs = [size_of(axis, p["value"]) for p in points]
    key = "peak_gpu_bytes" if all("peak_gpu_bytes" in p for p in points) else "peak_rss_bytes"
    time_factors = factors([(x, p["step_seconds"]) for x, p in zip(xs, points)])
    memory_factors = factors([(x, p[key]) for x, p in zip(xs, points)])
    head = [
        AXES[axis][0], "step s", "of the line", "ms for each", "cores at work", "peak MB", "of the line", "first step s",
    ]  # fmt: skip
    rows = [head, ["---"] * len(head)]
    for x, p, t, m in zip(xs, points, time_factors, memory_factors):
        rows.append([
            f"{x:,}", f"{p['step_seconds']:.3f}", _factor(t), f"{1e3 * p['step_seconds'] / x:.3g}",
            f"{p['step_cpu_seconds'] / p['step_seconds']:.1f}", f"{p[key] / 1e6:.0f}", _factor(m),
            f"{p['first_step_seconds']:.1f}",
        ])  # fmt: skip
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def _factor(value):
    return "" if value is None else f"{value:.2f}"


def save(results, folder, name):
    """Writes <folder>/<name>.json and .md; returns the .md's path."""
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, f"{name}.json"), "w") as f:
        f.write(json.dumps(results, indent=1) + "\n")
    path = os.path.join(folder, f"{name}.md")
    m = results["machine"]
    with open(path, "w") as f:
        f.write(
            f"# {results['model']}, {results['hparams_file']}: growth with {results['axis']}\n\n"
            f"Varied: {AXES[results['axis']][1]}. {results['date']}; {m['cpu']}, {m['cores']} cores"
            f"{''.join(', ' + g for g in m['gpus'])}; TensorFlow {m['tensorflow']}; load average before:"
            f" {m['load_average']}\n\n    {results['command']}\n\n{table(results)}\n"
            "The line goes through the first two rows; *of the line*: measured / line.\n"
        )
    return path
