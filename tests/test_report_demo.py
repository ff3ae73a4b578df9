"""The end of `make demo`: where to look, and failure where the demo is not better than the baseline."""

import json

from tests import commands


def report(tmp_path, psnr=20.0):
    metrics = {
        "mse": {"higher_is_better": False, "average": {"mean": 0.01}, "repeat": {"mean": 0.02}},
        "psnr": {"higher_is_better": True, "average": {"mean": psnr}, "repeat": {"mean": 18.0}},
        "ssim": {"higher_is_better": True, "average": {"mean": 0.9}, "repeat": {"mean": 0.8}},
    }
    folder = tmp_path / "evaluation" / "test"
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps({"metrics": metrics}))
    return run(tmp_path)


def run(path):
    return commands.run("report_demo", f"--run_dir={path}")


def test_better_than_the_baseline(tmp_path):
    done = report(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "index.html" in done.stdout and f"tensorboard --logdir={tmp_path}" in done.stdout


def test_not_better_fails_and_names_the_metric(tmp_path):
    done = report(tmp_path, psnr=18.0)
    assert done.returncode == 1
    assert done.stderr.strip().endswith("does not beat repeating the last frame in psnr")


def test_without_an_evaluation(tmp_path):
    done = run(tmp_path)
    assert done.returncode == 1 and "summary.json: expected what scripts/evaluate.py writes" in done.stderr
