"""Growth: the line through two points, what each axis changes, the command at a size of seconds."""

import json

import pytest

from tests import commands
from tfvid.benchmarking import growth
from tfvid.errors import UserError


def test_factors_are_those_to_the_line_through_the_two_smallest():
    assert growth.factors([(1, 3.0), (2, 5.0), (4, 9.0), (8, 34.0)]) == [None, None, 1.0, 2.0]
    assert growth.factors([(4, 1.0)]) == [None]


def test_each_axis_changes_one_thing():
    assert growth.changes("batch", 8, 2) == {"overrides": {"batch_size": 8}, "sizes": {}, "replicas": 1}
    frames = {"batch_size": 2, "sequence_length": 8, "long_sequence_length": 8}
    assert growth.changes("frames", 8, 2) == {"overrides": frames, "sizes": {}, "replicas": 1}
    assert growth.changes("resolution", 64, 2)["sizes"] == {"H": 64, "W": 64}
    assert growth.changes("replicas", 4, 2) == {"overrides": {"batch_size": 8}, "sizes": {}, "replicas": 4}
    with pytest.raises(UserError, match="--axis: expected one of batch, frames, resolution, replicas"):
        growth.changes("depth", 1, 1)


def test_table_counts_pixels_and_cores():
    points = [
        {"value": v, "step_seconds": t, "step_cpu_seconds": 2 * t, "first_step_seconds": 9, "peak_rss_bytes": m}
        for v, t, m in ((32, 1.0, 1e9), (64, 4.0, 2e9), (128, 32.0, 6e9))
    ]
    rows = growth.table({"axis": "resolution", "points": points}).splitlines()
    assert rows[0].startswith("| pixels of a frame | step s |")
    # 16384 pixels on the lines through (1024, 1 s) and (4096, 4 s), (1024, 1 GB) and (4096, 2 GB): 16 s, 6 GB.
    assert rows[4] == "| 16,384 | 32.000 | 2.00 | 1.95 | 2.0 | 6000 | 1.00 | 9.0 |"


def run(*arguments):
    return commands.run("benchmark_growth", "--model=savp", *arguments, timeout=1200)


def test_wrong_values_are_one_line():
    given = run("--hparams=hparams/demo/savp.json", "--values=1,x")
    assert given.returncode == 1 and given.stderr.strip().endswith(
        "--values: expected positive integers. Received: '1,x'"
    )


@pytest.mark.slow
def test_command_measures_replicas_and_writes(tmp_path):
    override = "sequence_length=5,long_sequence_length=5,ngf=4,ndf=4,nef=4,clip_length=4"
    done = run(
        "--hparams=hparams/demo/savp.json", f"--hparams_override={override}", "--axis=replicas", "--values=1,2",
        "--batch_size=1", "--steps=2", f"--output_dir={tmp_path}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    results = json.loads((tmp_path / "demo-savp-replicas.json").read_text())
    assert [p["value"] for p in results["points"]] == [1, 2]
    assert all(p["step_seconds"] > 0 and p["peak_rss_bytes"] > 1e7 for p in results["points"])
    assert "| devices | step s |" in (tmp_path / "demo-savp-replicas.md").read_text()
