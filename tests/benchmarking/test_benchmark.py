"""The benchmark command, at a size of seconds."""

import json

import pytest

from tests import commands
from tfvid.benchmarking import report, synthetic
from tfvid.data.source import open_source
from tfvid.errors import UserError
from tfvid.hparams import HParams


@pytest.mark.parametrize("dataset", sorted(synthetic.PUBLISHED))
def test_random_data_have_the_published_shapes(dataset, tmp_path):
    sizes, keys, defaults = synthetic.published(dataset)
    synthetic.write(str(tmp_path), dataset, clips=2)
    source = open_source(dataset, str(tmp_path))
    hparams = HParams(use_state=True).with_dataset_defaults(source.defaults())
    spec = source.spec(hparams)
    assert set(keys) <= set(spec)
    assert spec["images"].shape == [defaults["sequence_length"], *(sizes[a] for a in "HWC")]
    batch = next(iter(source.training_batches("train", hparams, 2, seed=0)))
    assert batch["images"].shape[0] == 2


def test_sizes_can_be_changed_and_wrong_ones_are_told():
    assert synthetic.published("bair", {"H": 128, "W": 96})[0]["W"] == 96
    with pytest.raises(UserError, match="expected axes of bair.*Received: Q"):
        synthetic.published("bair", {"Q": 1})
    with pytest.raises(UserError, match="--sizes=H="):
        synthetic.published("mine")


def test_share_of_the_ceiling_and_table():
    results = {
        "model": "savp", "hparams_file": "x.json", "batch_size": 2, "date": "2026-01-01", "ceiling": {"gflops": 120.0},
        "train": {"multiply_adds": 5e9, "step_seconds": 0.2, "ceiling_gflops": 100.0},
    }  # fmt: skip
    assert report.complete(results)["train"]["share_of_ceiling"] == pytest.approx(0.5)
    row = report.table([results]).splitlines()[2]
    assert "| savp | x.json | 2 | 0.200 |" in row and "| 50 % |" in row


def run(*arguments):
    return commands.run("benchmark", *arguments)


def test_wrong_flags_are_one_line():
    given = run("--model=repeat", "--hparams=hparams/bair/repeat.json", "--parts=train,guess")
    assert given.returncode == 1 and given.stderr.strip().endswith("Received: guess")


@pytest.mark.slow
def test_command_measures_and_writes(tmp_path):
    override = "sequence_length=6,long_sequence_length=6,ngf=4,ndf=4,nef=4,clip_length=4"
    done = run(
        "--model=savp", "--hparams=hparams/bair/savp.json", "--batch_size=1", "--steps=1", "--sizes=H=32,W=32",
        f"--hparams_override={override}", f"--output_dir={tmp_path}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    results = json.loads((tmp_path / "bair-savp-b1.json").read_text())
    assert results["train"]["multiply_adds"] > 0 and not results["train"]["operations_of_unknown_shape"]
    assert 0 <= results["train"]["waiting_for_data"] < 1
    assert results["generate"]["frames"] == 4 and results["generate"]["top_operations"]
    assert "savp" in (tmp_path / "README.md").read_text()


@pytest.mark.slow
def test_evaluation_is_measured(tmp_path):
    command = ["benchmark_evaluation", "--model=repeat", "--hparams=hparams/bair/repeat.json"]
    flags = ["--clips=2,5", "--num_samples=1", f"--output_dir={tmp_path}"]
    done = commands.run(*command, *flags)
    assert done.returncode == 0, done.stderr[-2000:]
    text = (tmp_path / "evaluation-bair-repeat.md").read_text()
    assert "| 2 | " in text and "| 5 | " in text and "3 clips more took" in text
    done = commands.run(*command, "--clips=0")
    assert done.returncode == 1 and "--clips: expected numbers above 0. Received: 0" in done.stderr
