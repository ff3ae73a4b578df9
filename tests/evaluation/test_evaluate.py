"""The protocol against a brute-force computation, its files, shards and errors."""

import csv
import dataclasses
import json
import os
import pathlib
import re
import tracemalloc

import numpy as np
import pytest
import tensorflow as tf

from tests.evaluation.toy import Toy, ToySource
from tfvid.errors import UserError
from tfvid.evaluation import tables
from tfvid.evaluation.evaluate import Request, evaluate
from tfvid.evaluation.protocol import sample_seed
from tfvid.training.run_folder import RunFolder

SMALL = Request(num_samples=4, batch_size=2, num_shown=2)
QUIET = lambda line: None  # noqa: E731


def read_table(path):
    """(header, {clip: [h + 1] values with the mean}) of a CSV."""
    with open(path) as f:
        rows = list(csv.reader(f, delimiter="\t"))
    return rows[0], {int(r[0]): np.array(list(map(float, r[1:]))) for r in rows[1:]}


def brute_force(path, source, request, psnr_of):
    """{kind: [clips, h]} of the PSNR: all samples held at once, numpy alone."""
    model = RunFolder.open(path).load_model()
    hparams, count = model.hparams, source.count("test")
    length = hparams.long_sequence_length
    curves = {"max": [], "min": [], "avg": []}
    for start in range(0, count, request.batch_size):
        ids = list(range(start, min(start + request.batch_size, count)))
        padded = ids + [0] * (request.batch_size - len(ids))
        images = np.stack([source.clip(i, length)["images"] for i in padded])
        horizon = length - hparams.context_frames
        samples = np.concatenate([
            model.generate(
                {"images": tf.constant(images)}, sample_seed(request.seed, start, s), 1, horizon
            )["images"].numpy()
            for s in range(request.num_samples)
        ])  # fmt: skip
        truth = images[None, :, hparams.context_frames :] / np.float64(255)
        values = psnr_of(samples, truth)[:, : len(ids)]  # [S, B, h]
        order = values.mean(-1)
        for b in range(len(ids)):
            curves["max"].append(values[order[:, b].argmax(), b])
            curves["min"].append(values[order[:, b].argmin(), b])
            curves["avg"].append(values[:, b].mean(0))
    return {k: np.array(v) for k, v in curves.items()}


def psnr(samples, truth):
    return -10 * np.log10(np.square(samples - truth).mean((-3, -2, -1)))


def test_best_average_worst_equal_brute_force(make_run, tmp_path):
    source = ToySource(count=5)
    path = make_run(source=source)
    out = str(tmp_path / "out")
    summary = evaluate([path], out, SMALL, report=QUIET)["run"]
    expected = brute_force(path, source, SMALL, psnr)
    for kind, values in expected.items():
        header, rows = read_table(f"{out}/prediction_eval_psnr_{kind}/metrics/psnr.csv")
        assert header == ["sample_ind", *map(str, range(6)), "mean"]
        assert sorted(rows) == list(range(5))
        table = np.array([rows[i] for i in range(5)])
        np.testing.assert_allclose(table[:, :-1], values, rtol=2e-5)
        np.testing.assert_allclose(table[:, -1], values.mean(1), rtol=2e-5)
    best = summary["metrics"]["psnr"]["best"]
    means = expected["max"].mean(1)
    np.testing.assert_allclose(best["mean"], means.mean(), rtol=2e-5)
    np.testing.assert_allclose(best["se"], means.std(ddof=1) / np.sqrt(5), rtol=1e-4)
    np.testing.assert_allclose(best["per_step"]["se"], expected["max"].std(0, ddof=1) / np.sqrt(5), rtol=1e-3)
    # "max" is the worst of an error.
    mse = summary["metrics"]["mse"]
    assert mse["best"]["mean"] < mse["average"]["mean"] < mse["worst"]["mean"]
    np.testing.assert_allclose(mse["best"]["mean"], tables.summarise(tables.curve_path(out, "mse", "min"))["mean"])


def test_baseline_repeats_the_last_given_frame(make_run, tmp_path):
    source = ToySource(count=3)
    summary = evaluate([make_run(source=source)], str(tmp_path / "out"), SMALL, report=QUIET)["run"]
    images = np.stack([source.clip(i, 8)["images"] for i in range(3)]) / 255
    expected = np.square(images[:, 2:] - images[:, 1:2]).mean((-3, -2, -1))
    np.testing.assert_allclose(summary["metrics"]["mse"]["repeat"]["per_step"]["mean"], expected.mean(0), rtol=1e-5)


def test_files_of_the_original_layout_and_the_page(make_run, tmp_path):
    out = str(tmp_path / "out")
    evaluate([make_run()], out, SMALL, report=QUIET)
    for kind in ("max", "avg", "min"):
        folder = f"{out}/prediction_eval_ssim_{kind}"
        assert sorted(os.listdir(f"{folder}/inputs")) == [
            f"context_image_{i:05d}_{t:02d}.png" for i in range(2) for t in range(2)
        ]
        assert sorted(os.listdir(f"{folder}/outputs")) == [
            f"gen_image_{i:05d}_{t:02d}.png" for i in range(2) for t in range(6)
        ]
    page = pathlib.Path(f"{out}/index.html").read_text()
    for source in set(re.findall(r'src="([^"]+)"', page)):
        assert os.path.exists(os.path.join(out, source)), source
    assert "gifs/00001_psnr_max.gif" in page and "plots/psnr.png" in page
    summary = json.loads(pathlib.Path(f"{out}/summary.json").read_text())
    assert summary["protocol"]["samples"] == 4 and summary["protocol"]["step"] == 3
    assert summary["protocol"]["deterministic"] is False
    assert "lpips" in summary["skipped"] and "download_weights.py --network=lpips_alex" in summary["skipped"]["lpips"]


def test_only_metrics_writes_no_images(make_run, tmp_path):
    out = str(tmp_path / "out")
    evaluate([make_run()], out, Request(num_samples=2, only_metrics=True), report=QUIET)
    assert not os.path.exists(f"{out}/gifs") and not os.path.exists(f"{out}/prediction_eval_psnr_max/outputs")


def test_deterministic_model_is_sampled_twice_only(make_run, tmp_path):
    path = make_run(noise=0.0)
    summary = evaluate([path], str(tmp_path / "out"), Request(num_samples=10**6), report=QUIET)["run"]
    assert summary["protocol"]["deterministic"] is True
    metric = summary["metrics"]["psnr"]
    assert metric["best"] == metric["average"] == metric["worst"]
    np.testing.assert_allclose(metric["best"]["mean"], metric["repeat"]["mean"], rtol=1e-6)


def test_shards_merge_to_the_same_bytes(make_run, tmp_path):
    path = make_run(source=ToySource(count=7))
    whole, parts = str(tmp_path / "whole"), str(tmp_path / "parts")
    evaluate([path], whole, SMALL, report=QUIET)
    for i in (2, 0):
        assert evaluate([path], parts, Request(**{**vars(SMALL), "shard": (i, 3)}), report=QUIET) is None
        assert not os.path.exists(f"{parts}/summary.json")
    evaluate([path], parts, Request(**{**vars(SMALL), "shard": (1, 3)}), report=QUIET)
    for name in ("psnr", "ssim", "mse"):
        for kind in ("max", "avg", "min", "repeat"):
            one, other = (pathlib.Path(tables.curve_path(f, name, kind)).read_text() for f in (whole, parts))
            assert one == other
    one, other = (json.loads(pathlib.Path(f"{f}/summary.json").read_text()) for f in (whole, parts))
    assert {k: v for k, v in one.items() if k != "seconds"} == {k: v for k, v in other.items() if k != "seconds"}
    assert sorted(os.listdir(f"{whole}/gifs")) == sorted(os.listdir(f"{parts}/gifs"))


def test_same_seed_same_numbers_other_seed_others(make_run, tmp_path):
    path = make_run()
    results = [
        evaluate([path], str(tmp_path / str(i)), Request(num_samples=2, seed=s, only_metrics=True), report=QUIET)
        for i, s in enumerate((1, 1, 2))
    ]
    first, again, other = (r["run"]["metrics"]["psnr"]["best"] for r in results)
    assert first == again and first["mean"] != other["mean"]


def test_comparison_predicts_the_same_frames(make_run, tmp_path):
    source = ToySource(count=3)
    a = make_run("a", source, noise=0.0)
    b = make_run("b", source, gain=0.5, noise=0.0, context_frames=1)
    out = str(tmp_path / "compare")
    summaries = evaluate([a, b], out, SMALL, report=QUIET)
    assert list(summaries) == ["a", "b"]
    # The model with one context frame is given the last of the two, so that both baselines agree.
    for name in ("psnr", "ssim", "mse"):
        assert summaries["a"]["metrics"][name]["repeat"] == summaries["b"]["metrics"][name]["repeat"]
    images = np.stack([source.clip(i, 8)["images"] for i in range(3)]) / 255
    expected = np.square(images[:, 2:] - 0.5 * images[:, 1:2]).mean()
    np.testing.assert_allclose(summaries["b"]["metrics"]["mse"]["average"]["mean"], expected, rtol=1e-5)
    with open(f"{out}/comparison.csv") as f:
        rows = list(csv.DictReader(f))
    assert {r["model"] for r in rows} == {"a", "b"} and {r["statistic"] for r in rows} >= {"best", "repeat"}
    assert set(json.loads(pathlib.Path(f"{out}/comparison.json").read_text())["models"]) == {"a", "b"}
    page = pathlib.Path(f"{out}/index.html").read_text()
    assert page.count('class="clip"') == 2 * (1 + 1 + 2)  # truth, baseline and one prediction of each model
    markdown = pathlib.Path(f"{out}/comparison.md").read_text()
    assert "| model |" in markdown and "repeat last frame" in markdown


def test_frames_smaller_than_a_window_leave_that_metric_out(make_run, tmp_path):
    path, lines = make_run(source=ToySource(count=2, size=8)), []
    request = dataclasses.replace(SMALL, metrics=("psnr", "ssim", "ssim_skimage"))
    summary = evaluate([path], str(tmp_path / "out"), request, report=lines.append)["run"]
    assert set(summary["metrics"]) == {"psnr", "ssim_skimage"}
    assert "ssim is left out: it needs frames with sides of 11 pixels and more, these have 8" in lines


def test_boxes_have_their_own_metric(make_run, tmp_path):
    path = make_run(source=ToySource(count=2, boxes=True))
    summary = evaluate([path], str(tmp_path / "out"), SMALL, report=QUIET)["run"]
    assert set(summary["metrics"]) == {"psnr", "ssim", "mse", "box_iou", "box_iou_30", "box_iou_50"}
    means = [summary["metrics"][name]["average"]["mean"] for name in ("box_iou_30", "box_iou_50", "box_iou")]
    assert 0 <= means[1] <= means[0] <= 1 and 0 < means[2] < 1


@pytest.mark.parametrize(
    "request_, message",
    [
        (Request(metrics=("psnrr",)), "unknown metric 'psnrr'; did you mean 'psnr'"),
        (Request(metrics=("pose_error",)), "pose_error compares poses"),
        (Request(horizon=0), "--horizon: expected at least 1 predicted frame. Received: 0"),
        (Request(horizon=100), "expected clips of 102 frames, found 8"),
        (Request(num_samples=0), "--num_samples: expected at least 1. Received: 0"),
        (Request(shard=(3, 3)), "--shard: expected i/n with 0 <= i < n. Received: 3/3"),
        (Request(num_videos=-1), "--num_videos"),
        (Request(metrics=("lpips",), num_samples=1), "--metrics: none is left"),
    ],
)
def test_errors_are_one_line(make_run, tmp_path, request_, message):
    with pytest.raises(UserError, match=message) as e:
        evaluate([make_run()], str(tmp_path / "out"), request_, report=QUIET)
    assert "\n" not in str(e.value)


def test_no_run_folder(tmp_path):
    with pytest.raises(UserError, match="expected a run folder"):
        evaluate([str(tmp_path / "nothing")], str(tmp_path / "out"), SMALL, report=QUIET)


def test_output_that_cannot_be_written(make_run, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(UserError, match="--output_dir: expected a folder that can be written"):
        evaluate([make_run()], str(blocked / "out"), SMALL, report=QUIET)


def test_runs_of_other_frames_are_not_compared(make_run, tmp_path):
    a = make_run("a")
    b = make_run("b", frame_skip=1)
    with pytest.raises(UserError, match="runs that see the same frames"):
        evaluate([a, b], str(tmp_path / "out"), SMALL, report=QUIET)


def test_the_same_run_twice_is_refused(make_run, tmp_path):
    a = make_run("a")
    with pytest.raises(UserError, match="expected different runs"):
        evaluate([a, a], str(tmp_path / "out"), SMALL, report=QUIET)


def test_memory_does_not_grow_with_clips(make_run, tmp_path):
    """Python's own allocations, numpy's arrays included, at their peak."""

    def peak(count):
        path = make_run(f"run{count}", ToySource(count=count))
        tracemalloc.start()
        request = Request(num_samples=2, batch_size=5, only_metrics=True)
        evaluate([path], str(tmp_path / str(count)), request, report=QUIET)
        result = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return result

    peak(5)  # imports and traces
    few, many = peak(10), peak(100)
    assert many < 1.3 * few, (few, many)


def test_baseline_is_of_the_same_kind_as_the_truth(make_run, tmp_path, monkeypatch):
    """A model that predicts another view of the data (here: the negative) is compared with that view repeated."""

    def negative(self, batch, horizon):
        start = self.hparams.context_frames
        return 1 - self.images_to_float(batch["images"][:, start : start + horizon])

    path = make_run(source=ToySource(count=2))
    plain = evaluate([path], str(tmp_path / "a"), Request(num_samples=1, only_metrics=True), report=QUIET)
    monkeypatch.setattr(Toy, "truth_frames", negative)
    other = evaluate([path], str(tmp_path / "b"), Request(num_samples=1, only_metrics=True), report=QUIET)
    one, two = (r["run"]["metrics"]["mse"] for r in (plain, other))
    np.testing.assert_allclose(one["repeat"]["mean"], two["repeat"]["mean"], rtol=1e-5)
    assert two["average"]["mean"] > 5 * one["average"]["mean"]
