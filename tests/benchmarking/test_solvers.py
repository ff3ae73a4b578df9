"""Comparing CAGE's solvers."""

import numpy as np
import tensorflow as tf

from tests.models import cage_tiny
from tfvid.benchmarking import solvers


def test_more_evaluations_come_closer_and_the_reference_is_exact():
    model = cage_tiny.cage()
    frames = tf.constant(np.random.default_rng(0).uniform(-1, 1, (2, 1, *cage_tiny.SIZE, 3)), tf.float32)
    rows = solvers.compare(model, frames, tried=(("euler", 1), ("euler", 8), ("rk4", 2)), reference=("rk4", 2))
    assert [row["evaluations"] for row in rows] == [1, 8, 8]
    assert rows[0]["error"] > rows[1]["error"] > 0 and rows[2]["error"] == 0
    lines = solvers.table(rows).splitlines()
    assert len(lines) == 5 and lines[2].startswith("| euler | 1 | 1 |") and lines[3].startswith("| rk4 | 2 | 8 |")


def test_no_more_evaluations_are_tried_than_the_published_euler_twice():
    assert max(steps * len(solvers.SOLVERS[name][0]) for name, steps in solvers.TRIED) == 40
