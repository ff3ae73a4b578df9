"""Result files: CSV curves in the layout of SAVP's evaluation, summaries of them, merging of shards.

    prediction_eval_<metric>_<max|avg|min>/metrics/<metric>.csv
    prediction_eval_diversity/metrics/diversity.csv
    baseline_repeat_<metric>/metrics/<metric>.csv

Tab separated; header `sample_ind`, one column for each predicted step, `mean`; one row
for each sequence. Everything is written and read row by row.
"""

import csv
import heapq
import json
import os

import numpy as np
import tensorflow as tf

from tfvid.errors import UserError


def curve_path(folder, metric, kind):
    """Path of the CSV of a metric; kind is max, avg, min or repeat (the baseline)."""
    if metric == "diversity":
        task = "prediction_eval_diversity"
    elif kind == "repeat":
        task = f"baseline_repeat_{metric}"
    else:
        task = f"prediction_eval_{metric}_{kind}"
    return os.path.join(folder, task, "metrics", f"{metric}.csv")


class CurveWriter:
    """Writes one CSV, one row at a time; use it as a context manager."""

    def __init__(self, path, horizon):
        tf.io.gfile.makedirs(os.path.dirname(path))
        self._file = tf.io.gfile.GFile(path, "w")
        self._writer = csv.writer(self._file, delimiter="\t", lineterminator="\n")
        self._writer.writerow(["sample_ind", *range(horizon), "mean"])

    def write(self, index, curve):
        """One sequence: its index and its [h] values."""
        curve = np.asarray(curve, np.float64)
        mean = np.nanmean(curve) if np.isfinite(curve).any() else np.nan
        self._writer.writerow([int(index), *map(_number, curve), _number(mean)])

    def close(self):
        self._file.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def read_curves(path):
    """Generator of (index, values [h] float64) of each row."""
    with tf.io.gfile.GFile(path, "r") as f:
        rows = csv.reader(_lines(f), delimiter="\t")
        header = next(rows, None)
        if not header or header[0] != "sample_ind" or header[-1] != "mean":
            raise UserError(f"{path}: expected a table with the columns sample_ind, steps, mean. Received: {header}")
        for row in rows:
            if len(row) != len(header):
                raise UserError(f"{path}: expected {len(header)} columns in each row, received {len(row)}")
            yield int(row[0]), np.array([float(v) for v in row[1:-1]])


class CurveSummary:
    """Running mean and standard error of curves, step by step and of their time means."""

    def __init__(self):
        self.count = 0
        self._steps = self._mean = None

    def update(self, curve):
        """Adds one [h] curve; NaN where a step has no value."""
        if self._steps is None:
            self._steps, self._mean = _Moments(len(curve)), _Moments(1)
        self.count += 1
        self._steps.update(curve)
        self._mean.update(np.array([np.nanmean(curve) if np.isfinite(curve).any() else np.nan]))

    def result(self):
        """{"mean", "std", "se", "per_step": {"mean", "std", "se"}} of plain numbers, None where there is none.

        std: sample standard deviation over the sequences (divisor N - 1); se = std / sqrt(N).
        """
        if self._steps is None:
            return None
        per_step = {k: [_json_number(v) for v in values] for k, values in self._steps.result().items()}
        whole = {k: _json_number(v[0]) for k, v in self._mean.result().items()}
        return {**whole, "count": self.count, "per_step": per_step}


class _Moments:
    """Welford's running mean and variance of each column, NaN left out."""

    def __init__(self, columns):
        self.n, self.mean, self.m2 = np.zeros(columns), np.zeros(columns), np.zeros(columns)

    def update(self, values):
        present = np.isfinite(values)
        values = np.where(present, values, 0)
        self.n += present
        delta = np.where(present, values - self.mean, 0)
        self.mean += delta / np.maximum(self.n, 1)
        self.m2 += delta * np.where(present, values - self.mean, 0)

    def result(self):
        n = self.n
        mean = np.where(n > 0, self.mean, np.nan)
        std = np.where(n > 1, np.sqrt(self.m2 / np.maximum(n - 1, 1)), np.nan)
        return {"mean": mean, "std": std, "se": std / np.sqrt(np.maximum(n, 1))}


def summarise(path, sign=1):
    """`CurveSummary.result` of a CSV file, its values multiplied by `sign`."""
    summary = CurveSummary()
    for _, curve in read_curves(path):
        summary.update(sign * curve)
    return summary.result()


def merge_curves(paths, target):
    """Joins CSV files of disjoint sequences into one, in the order of the sequences."""
    streams = [read_curves(p) for p in paths]
    writer, previous = None, -1
    try:
        for index, curve in heapq.merge(*streams, key=lambda row: row[0]):
            if index == previous:
                raise UserError(f"{target}: sequence {index} is in more than one shard")
            writer = writer or CurveWriter(target, len(curve))
            writer.write(index, curve)
            previous = index
    finally:
        if writer:
            writer.close()


def write_json(path, value):
    """Writes an object; NaN and infinities are refused, they are no JSON."""
    with tf.io.gfile.GFile(path, "w") as f:
        f.write(json.dumps(value, indent=2, allow_nan=False) + "\n")


def markdown_table(header, rows):
    """A Markdown table of strings."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def text_table(header, rows):
    """The same table with aligned columns, for the terminal."""
    widths = [max(len(r[i]) for r in (header, *rows)) for i in range(len(header))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths)).rstrip() for row in (header, *rows))


def format_value(summary, digits=4):
    """"mean ± standard error" of a `CurveSummary.result`, "-" where there is none."""
    if summary is None or summary["mean"] is None:
        return "-"
    error = "" if summary["se"] is None else f" ± {summary['se']:.{max(digits - 2, 2)}g}"
    return f"{summary['mean']:.{digits}g}{error}"


def _number(value):
    return repr(float(value))


def _json_number(value):
    return float(value) if np.isfinite(value) else None


def _lines(file):
    # GFile's iterator keeps the line end; csv wants an iterator of strings, which this is.
    yield from file
