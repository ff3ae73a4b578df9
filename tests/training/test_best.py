"""The best weights by a validation metric, and early stopping."""

import csv

import numpy as np
import pytest

from tests.toy_model import weights_of
from tfvid.errors import UserError
from tfvid.training import best
from tfvid.training.run_folder import RunFolder

# Large steps, so that the validation error goes up and down.
WILD = "lr=1.0,monitor=mse"


def rows_of(path):
    with open(path / "metrics.csv", newline="") as f:
        return [(int(r["step"]), float(r["mse"])) for r in csv.DictReader(f)]


def best_weights(path):
    names = sorted(p.name for p in (path / "checkpoints" / "best").iterdir() if p.suffix == ".index")
    assert len(names) == 1
    return int(names[0].removesuffix(".index").split("-")[1]), weights_of(RunFolder.open(str(path)).load_model())


def test_best_weights_are_kept_and_used(tmp_path, train_toy):
    train_toy(tmp_path / "run", WILD, keep=9, max_steps=12)
    rows = rows_of(tmp_path / "run")
    step, weights = best_weights(tmp_path / "run")
    assert step == min(rows, key=lambda row: row[1])[0] < 12
    run = RunFolder.open(str(tmp_path / "run"))
    of_step = weights_of(run.load_model(step))
    last = weights_of(run.load_model(12))
    assert all(np.array_equal(weights[k], of_step[k]) for k in weights)
    assert any(not np.array_equal(weights[k], last[k]) for k in weights)


def test_a_run_in_parts_keeps_the_same(tmp_path, train_toy):
    train_toy(tmp_path / "whole", WILD, max_steps=12)
    train_toy(tmp_path / "parts", WILD, max_steps=5)
    train_toy(tmp_path / "parts", WILD, max_steps=12)
    (a, whole), (b, parts) = best_weights(tmp_path / "whole"), best_weights(tmp_path / "parts")
    # The first part validates after its last step too.
    extra = min(rows_of(tmp_path / "parts"), key=lambda row: row[1])[0]
    assert b == extra and (a == b or extra == 5)
    if a == b:
        assert all(np.array_equal(whole[k], parts[k]) for k in whole)


def test_training_ends_when_nothing_gets_better(tmp_path, train_toy):
    result, text = train_toy(tmp_path / "run", WILD + ",patience=2", max_steps=60)
    rows = rows_of(tmp_path / "run")
    step = min(rows, key=lambda row: row[1])[0]
    assert result.step == rows[-1][0] == step + 4 < 60 and result.exit_status == 0
    assert f"mse was best at step {step}, 2 validations ago" in text
    result, text = train_toy(tmp_path / "run", WILD + ",patience=2", max_steps=60)
    assert result.step == step + 4 and f"finished: no better mse since step {step}" in text


def test_the_mode_and_nan():
    rows = [{"step": s, "psnr": v} for s, v in ((1, "3"), (2, "nan"), (3, "5"), (4, "4"))]
    hparams = type("H", (), {"monitor": "psnr", "monitor_mode": "max", "patience": 1})()
    assert best.best_step(rows, hparams) == (3, 1) and best.ran_out(rows, hparams) == 3
    hparams.monitor_mode = "min"
    assert best.best_step(rows, hparams) == (1, 3)
    hparams.patience = 4
    assert best.ran_out(rows, hparams) is None


def test_mistakes_are_one_line(tmp_path, train_toy):
    with pytest.raises(UserError, match="monitor: expected one of the validation's metrics, mse. Received: 'ssim'"):
        train_toy(tmp_path / "a", "monitor=ssim")
    with pytest.raises(UserError, match="monitor=mse: expected validations"):
        train_toy(tmp_path / "b", "monitor=mse", validation_freq=0)
    with pytest.raises(UserError, match="monitor_mode: expected one of"):
        train_toy(tmp_path / "c", "monitor_mode=lowest")
