"""Measures what evaluating costs as the test set grows: seconds a clip and peak memory.

    python scripts/benchmark_evaluation.py --model=savp --hparams=hparams/demo/savp.json --clips=10,100,1000

The model has random weights and the data are random numbers of the data set's shape: neither changes the cost. Each
number of clips is evaluated by scripts/evaluate.py in a process of its own, whose peak resident memory is taken.
"""

import datetime
import json
import os
import subprocess
import sys
import tempfile
import time

from absl import flags

from tfvid import cli
from tfvid.errors import UserError

_MODEL = flags.DEFINE_string("model", None, "model to evaluate", required=True)
_HPARAMS = flags.DEFINE_string("hparams", None, "JSON file of hyper-parameters", required=True)
_OVERRIDE = flags.DEFINE_string("hparams_override", "", "name=value,name=value on top of the file")
_DATASET = flags.DEFINE_string("dataset", None, "data set whose shape the data have; default: the file's")
_CLIPS = flags.DEFINE_list("clips", ["10", "100", "1000"], "numbers of test clips")
_SAMPLES = flags.DEFINE_integer("num_samples", 2, "samples of each clip", lower_bound=1)
_METRICS = flags.DEFINE_string("metrics", "psnr,ssim,mse", "metrics, as of scripts/evaluate.py")
_OUTPUT_DIR = flags.DEFINE_string("output_dir", "benchmarks/results", "where the results are kept")


def main():
    from tfvid.benchmarking import measure, report, synthetic

    numbers = [int(n) if n.isdecimal() else 0 for n in _CLIPS.value]
    if not numbers or min(numbers) < 1:
        raise UserError(f"--clips: expected numbers above 0. Received: {','.join(_CLIPS.value)}")
    with tempfile.TemporaryDirectory() as folder:
        data, run = os.path.join(folder, "data"), os.path.join(folder, "run")
        hparams = write_run(run, data, max(numbers), synthetic)
        rows = [evaluate(run, n, os.path.join(folder, str(n))) for n in numbers]
    results = {
        "model": _MODEL.value, "dataset": hparams.dataset, "samples": _SAMPLES.value, "metrics": _METRICS.value,
        "date": datetime.date.today().isoformat(), "machine": measure.machine(), "rows": rows,
        "command": "python scripts/benchmark_evaluation.py " + " ".join(sys.argv[1:]),
    }  # fmt: skip
    print(report.evaluation_text(results))
    os.makedirs(_OUTPUT_DIR.value, exist_ok=True)
    stem = os.path.join(_OUTPUT_DIR.value, f"evaluation-{hparams.dataset}-{_MODEL.value}")
    with open(f"{stem}.md", "w") as f:
        f.write(report.evaluation_text(results))
    print(f"{stem}.md")


def write_run(path, data, clips, synthetic):
    """A run folder with random weights and the records it is tried on; returns the hyper-parameters."""
    from tfvid import models
    from tfvid.data.source import open_source
    from tfvid.training.run_folder import RunFolder

    hparams = models.model_class(_MODEL.value).HPARAMS.load(_HPARAMS.value, _OVERRIDE.value)
    dataset = synthetic.dataset_of(hparams, _HPARAMS.value, _DATASET.value)
    synthetic.write_for(hparams, dataset, data, clips=clips)
    source = open_source(dataset, data)
    hparams = hparams.with_dataset_defaults(source.defaults()).replace(dataset=dataset)
    run = RunFolder.create(path, _MODEL.value, hparams, source.spec(hparams), dataset=dataset, input_dir=data)
    run.save_weights(run.build_model(trainable=False))
    return hparams


def evaluate(run, clips, output):
    """{"clips", "seconds", "peak_rss_bytes"} of one evaluation."""
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "evaluate.py")
    command = [
        sys.executable, script, f"--checkpoint={run}", f"--output_dir={output}", f"--num_videos={clips}",
        f"--num_samples={_SAMPLES.value}", f"--metrics={_METRICS.value}", "--only_metrics",
    ]  # fmt: skip
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise UserError(f"evaluating {clips} clips failed, see above")
    with open(os.path.join(output, "summary.json")) as f:
        evaluated = json.load(f)["protocol"]["clips"]
    unit = 1 if sys.platform == "darwin" else 1024  # bytes of ru_maxrss
    return {"clips": evaluated, "seconds": time.perf_counter() - start, "peak_rss_bytes": usage.ru_maxrss * unit}


if __name__ == "__main__":
    cli.run(main)
