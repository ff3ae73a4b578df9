"""The table of results is filled from summaries alone."""

import pathlib

import pytest

from tfvid.errors import UserError
from tfvid.evaluation.evaluate import Request, evaluate
from tfvid.evaluation.results import write_results


def test_measured_numbers_only(make_run, tmp_path):
    out = str(tmp_path / "out")
    summary = evaluate([make_run()], out, Request(num_samples=2, only_metrics=True), report=lambda line: None)["run"]
    path = tmp_path / "RESULTS.md"
    write_results([f"{out}/summary.json"], str(path))
    lines = path.read_text().splitlines()
    assert "## toy" in lines
    (row,) = [line for line in lines if "| psnr |" in line]
    cells = [c.strip() for c in row.strip("|").split("|")]
    assert cells[:4] == ["run", "toy", "psnr", "higher"]
    assert cells[4].startswith(f"{summary['metrics']['psnr']['best']['mean']:.4g}")
    assert cells[8] == "" and cells[9:] == ["5", "2"]


def test_another_file_is_refused(tmp_path):
    path = tmp_path / "other.json"
    path.write_text("{}")
    with pytest.raises(UserError, match="expected what scripts/evaluate.py writes"):
        write_results([str(path)], str(tmp_path / "RESULTS.md"))
    assert not pathlib.Path(tmp_path / "RESULTS.md").exists()
