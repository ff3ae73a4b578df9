"""Measures how time and memory of a training step grow with batch, frames, resolution or devices.

    python scripts/benchmark_growth.py --model=savp --hparams=hparams/demo/savp.json --axis=batch --values=1,2,4,8,16
    python scripts/benchmark_growth.py --model=savp --hparams=hparams/demo/savp.json --axis=resolution --values=32,64,128
    python scripts/benchmark_growth.py --model=savp --hparams=hparams/demo/savp.json --axis=replicas --values=1,2 \\
        --batch_size=2

Each value is measured in a process of its own, for its own peak memory, on random data of the data set's published
shape. The table says for each how far time and memory are from the straight line through the two smallest values.
Without accelerators, replicas are logical devices that share the cores.
"""

import datetime
import json
import os
import subprocess
import sys
import tempfile

from absl import flags

from tfvid import cli
from tfvid.errors import UserError
from tfvid.training.options import ENVIRONMENT

_MODEL = flags.DEFINE_string("model", None, "model to measure", required=True)
_HPARAMS = flags.DEFINE_string("hparams", None, "JSON file of hyper-parameters", required=True)
_OVERRIDE = flags.DEFINE_string("hparams_override", "", "name=value,name=value on top of the file")
_AXIS = flags.DEFINE_string("axis", "batch", "what grows: batch, frames, resolution or replicas")
_VALUES = flags.DEFINE_list("values", ["1", "2", "4", "8"], "its values; for resolution: sides in pixels")
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 2, "clips of a step, on each device, where it does not grow", lower_bound=1
)
_DATASET = flags.DEFINE_string("dataset", None, "data set whose shape the data have; default: the file's")
_SIZES = flags.DEFINE_string("sizes", "", "axes of the random data, e.g. H=128,W=128; default: as published")
_STEPS = flags.DEFINE_integer("steps", 10, "steps to time; the median counts", lower_bound=1)
_OUTPUT_DIR = flags.DEFINE_string("output_dir", "benchmarks/growth", "where results are kept; empty: nowhere")
_NAME = flags.DEFINE_string("name", None, "name of the result's files; default: <data set>-<file's stem>-<axis>")
_WORK = flags.DEFINE_string("work_file", None, "internal: what a value's process measures, as JSON")


def main():
    if _WORK.value:
        measure_value(_WORK.value)
        return
    from tfvid.benchmarking import growth, measure

    values = checked_values(growth)
    results = {
        "model": _MODEL.value,
        "hparams_file": _HPARAMS.value + (f" ({_OVERRIDE.value})" if _OVERRIDE.value else ""),
        "axis": _AXIS.value,
        "date": datetime.date.today().isoformat(),
        "command": "python scripts/benchmark_growth.py " + " ".join(sys.argv[1:]),
        "machine": measure.machine(),
        "points": [],
    }
    for value in values:
        with tempfile.TemporaryDirectory() as folder:
            results["points"].append({"value": value, **measured(value, folder, growth)})
        print(f"{_AXIS.value} {value}: {results['points'][-1]['step_seconds']:.3f} s a step", flush=True)
    print(growth.table(results))
    if _OUTPUT_DIR.value:
        stem = os.path.splitext(os.path.basename(_HPARAMS.value))[0]
        name = _NAME.value or f"{results['points'][0]['dataset']}-{stem}-{_AXIS.value}"
        print(growth.save(results, _OUTPUT_DIR.value, name))


def checked_values(growth):
    """The values in the order of their size."""
    if _AXIS.value not in growth.AXES:
        raise UserError(f"--axis: expected one of {', '.join(growth.AXES)}. Received: {_AXIS.value!r}")
    if not all(v.strip().isdecimal() and int(v) > 0 for v in _VALUES.value):
        raise UserError(f"--values: expected positive integers. Received: {','.join(_VALUES.value)!r}")
    values = sorted({int(v) for v in _VALUES.value})
    if len(values) < 2:
        raise UserError(f"--values: expected at least two. Received: {','.join(_VALUES.value)!r}")
    return values


def measured(value, folder, growth):
    """Results of one value, measured in a process of its own."""
    from tfvid import models
    from tfvid.benchmarking import synthetic
    from tfvid.data.source import open_source

    change = growth.changes(_AXIS.value, value, _BATCH_SIZE.value)
    hparams = models.model_class(_MODEL.value).HPARAMS.load(_HPARAMS.value, _OVERRIDE.value, change["overrides"])
    dataset = synthetic.dataset_of(hparams, _HPARAMS.value, _DATASET.value)
    data = os.path.join(folder, dataset)
    sizes = {**synthetic.axis_sizes(_SIZES.value), **change["sizes"]}
    synthetic.write_for(hparams, dataset, data, sizes)
    hparams = hparams.with_dataset_defaults(open_source(dataset, data).defaults()).replace(dataset=dataset)
    hparams.save(os.path.join(folder, "hparams.json"))
    work = {
        "folder": data,
        "dataset": dataset,
        "replicas": change["replicas"],
        "result": os.path.join(folder, "result"),
    }
    with open(os.path.join(folder, "work.json"), "w") as f:
        json.dump({**work, "hparams": os.path.join(folder, "hparams.json")}, f)
    command = [sys.executable, sys.argv[0], f"--model={_MODEL.value}", f"--hparams={_HPARAMS.value}"]
    command += [f"--steps={_STEPS.value}", f"--work_file={os.path.join(folder, 'work.json')}"]
    if subprocess.run(command, env={**ENVIRONMENT, **os.environ}).returncode:
        raise UserError(f"measuring {_AXIS.value}={value} failed, see above")
    with open(work["result"]) as f:
        return {"dataset": dataset, **json.load(f)}


def measure_value(path):
    """In a value's process: measures and writes the result."""
    from tfvid import models
    from tfvid.benchmarking import growth
    from tfvid.benchmarking.measure import Setting

    with open(path) as f:
        work = json.load(f)
    hparams = models.model_class(_MODEL.value).HPARAMS.load(work["hparams"])
    setting = Setting(_MODEL.value, hparams, work["dataset"], work["folder"], _STEPS.value)
    with open(work["result"], "w") as f:
        json.dump(growth.train(setting, work["replicas"]), f)


if __name__ == "__main__":
    cli.run(main)
