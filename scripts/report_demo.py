"""Says where the demo's results are, and fails where they do not beat "repeat the last frame".

    python scripts/report_demo.py --run_dir=runs/demo/savp

Reads the summary that scripts/evaluate.py wrote. The average sample must have a lower MSE and a higher PSNR and SSIM
than the repeated last context frame, each as a mean over all test clips and time steps.
"""

import json
import os

from absl import flags

from tfvid import cli
from tfvid.errors import UserError

_RUN_DIR = flags.DEFINE_string("run_dir", None, "run folder of the demo", required=True)
_EVALUATION = flags.DEFINE_string("evaluation_dir", None, "what evaluate wrote; default: RUN_DIR/evaluation/test")
METRICS = ("mse", "psnr", "ssim")


def compare(summary, metrics=METRICS):
    """[(metric, average of the samples, repeated frame, whether the model is better)].

    Args:
      summary: what summary.json holds.
      metrics: names that must be in it.
    """
    rows = []
    for name in metrics:
        if name not in summary["metrics"]:
            raise UserError(f"summary.json: expected the metrics {', '.join(metrics)}. Received no {name}")
        metric = summary["metrics"][name]
        ours, repeated = metric["average"]["mean"], metric["repeat"]["mean"]
        rows.append((name, ours, repeated, ours > repeated if metric["higher_is_better"] else ours < repeated))
    return rows


def main():
    run, evaluation = _RUN_DIR.value, _EVALUATION.value or os.path.join(_RUN_DIR.value, "evaluation", "test")
    path = os.path.join(evaluation, "summary.json")
    if not os.path.exists(path):
        raise UserError(f"{path}: expected what scripts/evaluate.py writes, found nothing")
    with open(path) as f:
        rows = compare(json.load(f))
    print("\nmetric  average sample  repeat last frame")
    for name, ours, repeated, better in rows:
        print(f"{name:7} {ours:14.4f}  {repeated:17.4f}  {'better' if better else 'NOT BETTER'}")
    print(f"\nvideos, tables and plots:  {os.path.join(evaluation, 'index.html')}")
    print(f"more samples as GIFs:      {os.path.join(run, 'generated', 'test')}")
    print(f"training:                  .venv/bin/tensorboard --logdir={run}")
    worse = [name for name, _, _, better in rows if not better]
    if worse:
        raise UserError(f"the demo does not beat repeating the last frame in {', '.join(worse)}")


if __name__ == "__main__":
    cli.run(main)
