"""Measures how fast a model trains and generates, and where the time goes.

    python scripts/benchmark.py --model=savp --hparams=hparams/bair/savp.json --batch_size=2

Without --input_dir the data are random numbers of the data set's published shape, written as records and read by the
same pipeline. Training and generation run in processes of their own, each for its own peak memory and in the
environment that scripts/train.py and scripts/generate.py run in. The convolution ceiling (one 3x3 convolution,
8 x 64 x 64 x 128 to 128 channels, float32) is measured in the same run, once by itself and again between the timed
steps and videos, as the speed of many machines changes with the minute; the share of the ceiling is that of the
ceiling between the steps and counts two operations for each multiply-add of convolutions and matrix products.
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
_BATCH_SIZE = flags.DEFINE_integer("batch_size", None, "clips in a training step; default: the file's", lower_bound=1)
_DATASET = flags.DEFINE_string("dataset", None, "data set; default: the file's")
_INPUT_DIR = flags.DEFINE_string("input_dir", None, "real data instead of random numbers")
_SIZES = flags.DEFINE_string("sizes", "", "axes of the random data, e.g. H=128,W=128; default: as published")
_STEPS = flags.DEFINE_integer("steps", 10, "steps and videos to time; the median counts", lower_bound=1)
_PARTS = flags.DEFINE_list("parts", ["ceiling", "train", "generate"], "what to measure")
_OUTPUT_DIR = flags.DEFINE_string("output_dir", "benchmarks/results", "where results are kept; empty: nowhere")
_NAME = flags.DEFINE_string("name", None, "name of the result's files; default: <data set>-<file's stem>-b<batch>")
_WORK = flags.DEFINE_string("work_file", None, "internal: what a part's process measures, as JSON")


def main():
    from tfvid.benchmarking import measure

    if _WORK.value:
        measure_part(_WORK.value)
        return
    unknown = sorted(set(_PARTS.value) - set(measure.PARTS))
    if unknown:
        raise UserError(f"--parts: expected some of {', '.join(measure.PARTS)}. Received: {', '.join(unknown)}")
    from tfvid.benchmarking import report

    with tempfile.TemporaryDirectory() as folder:
        hparams, work = prepare(folder)
        results = {
            "model": _MODEL.value,
            "hparams_file": _HPARAMS.value + (f" ({_OVERRIDE.value})" if _OVERRIDE.value else ""),
            "batch_size": hparams.batch_size,
            "date": datetime.date.today().isoformat(),
            "command": "python scripts/benchmark.py " + " ".join(sys.argv[1:]),
            "machine": measure.machine(),
        }
        for part in _PARTS.value:
            results[part] = run_part(part, folder, work)
    report.complete(results)
    print(report.text(results))
    if _OUTPUT_DIR.value:
        stem = os.path.splitext(os.path.basename(_HPARAMS.value))[0]
        name = _NAME.value or f"{work['dataset']}-{stem}-b{hparams.batch_size}"
        print(report.save(results, _OUTPUT_DIR.value, name))


def prepare(folder):
    """(hyper-parameters, what a part's process must know); writes random data into `folder` where none are given."""
    from tfvid import models
    from tfvid.benchmarking import synthetic
    from tfvid.data.source import open_source

    extra = {"batch_size": _BATCH_SIZE.value} if _BATCH_SIZE.value else {}
    hparams = models.model_class(_MODEL.value).HPARAMS.load(_HPARAMS.value, _OVERRIDE.value, extra)
    dataset = synthetic.dataset_of(hparams, _HPARAMS.value, _DATASET.value)
    data = _INPUT_DIR.value
    if not data:
        data = os.path.join(folder, dataset)
        synthetic.write_for(hparams, dataset, data, synthetic.axis_sizes(_SIZES.value))
    hparams = hparams.with_dataset_defaults(open_source(dataset, data).defaults()).replace(dataset=dataset)
    hparams.save(os.path.join(folder, "hparams.json"))
    return hparams, {"model": _MODEL.value, "dataset": dataset, "folder": data, "steps": _STEPS.value}


def run_part(part, folder, work):
    """Measures one part in a process of its own; its results."""
    hparams_file = os.path.join(folder, "hparams.json")
    work_file = os.path.join(folder, f"{part}.json")
    with open(work_file, "w") as f:
        json.dump({**work, "part": part, "hparams": hparams_file, "result": f"{work_file}.result"}, f)
    command = [sys.executable, sys.argv[0], f"--model={_MODEL.value}", f"--hparams={hparams_file}"]
    environment = {**(ENVIRONMENT if part == "train" else {}), **os.environ}
    done = subprocess.run([*command, f"--work_file={work_file}"], env=environment)
    if done.returncode:
        raise UserError(f"measuring {part} failed, see above")
    with open(f"{work_file}.result") as f:
        return json.load(f)


def measure_part(path):
    """In a part's process: measures and writes the result."""
    from tfvid import models
    from tfvid.benchmarking.measure import Setting, measure

    with open(path) as f:
        work = json.load(f)
    hparams = models.model_class(work["model"]).HPARAMS.load(work["hparams"])
    setting = Setting(work["model"], hparams, work["dataset"], work["folder"], work["steps"])
    result = measure(work["part"], setting)
    with open(work["result"], "w") as f:
        json.dump(result, f)


if __name__ == "__main__":
    cli.run(main)
