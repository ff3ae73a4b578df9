"""The load test in C: compiles against TensorFlow's wheel, and measures an exported model."""

import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from tests.serving.test_export import ServedToy
from tests.toy_model import toy_hparams, toy_spec
from tfvid.serving.export import export

FOLDER = pathlib.Path(__file__).parents[2] / "examples" / "serving"


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("cc") or not shutil.which("make"), reason="needs a C compiler and make")
def test_requests_a_second_latencies_and_constant_memory(tmp_path):
    path = export(ServedToy(toy_hparams(), toy_spec()), str(tmp_path / "toy"), batching=True)
    program = tmp_path / "load_test"
    make = ["make", "-C", str(FOLDER), f"PY={sys.executable}", f"OUT={program}", str(program)]
    made = subprocess.run(make, capture_output=True, text=True)
    assert made.returncode == 0 and "warning" not in made.stderr, made.stderr
    done = _run(program, path, "--requests=48", "--memory_requests=1000", "--batch=2")
    assert done.returncode == 0, done.stderr
    rows = re.findall(
        r"^\| (\d+) \| 48 \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| [\d.]+ \|$", done.stdout, re.M
    )
    assert [int(r[0]) for r in rows] == [1, 4, 16]
    for _, rate, *latencies in rows:
        assert float(rate) > 0 and sorted(map(float, latencies)) == list(map(float, latencies))
    # A leak of one answer a request would be 12 kB x 900.
    growth = float(re.search(r"memory over 1000 requests: .* ([+-][\d.]+) MB$", done.stdout, re.M)[1])
    assert growth < 5
    for arguments, message in [
        ((path, "--signature=play"), "error: the SavedModel has no signature: play"),
        ((tmp_path / "none",), f"error: {tmp_path / 'none'}: Could not find SavedModel"),
        ((path, "--requests=many"), "error: --requests: expected a number"),
        ((), "error: usage: load_test MODEL_DIR"),
    ]:
        wrong = _run(program, *arguments)
        assert wrong.returncode == 1 and message in wrong.stderr.splitlines()[-1]


def _run(program, *arguments):
    env = {"TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.run([str(program), *map(str, arguments)], capture_output=True, text=True, env=env)
