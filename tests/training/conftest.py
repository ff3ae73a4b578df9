"""What the tests of training share: the toy model, its data set, and a way to train in this process."""

import io

import pytest

from tests.toy_model import write_toy_dataset
from tfvid import models
from tfvid.training.loop import train
from tfvid.training.options import TrainOptions


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    """MODELS with the toy model; TensorFlow as it was, once the test is over."""
    from tensorflow.python.framework import config

    monkeypatch.setitem(models.MODELS, "toy", "tests.toy_model:Toy")
    monkeypatch.delenv("TF_CONFIG", raising=False)
    yield
    config.disable_op_determinism()


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory):
    """Folder of the toy data set."""
    folder = str(tmp_path_factory.mktemp("toy"))
    write_toy_dataset(folder)
    return folder


@pytest.fixture
def train_toy(toy_data):
    """Trains the toy into a folder; returns (result, what was printed)."""

    def run(output_dir, overrides="", **options):
        values = {
            "model": "toy", "dataset": "toy", "input_dir": toy_data, "output_dir": str(output_dir), "max_steps": 6,
            "hparams_override": "batch_size=4" + ("," + overrides if overrides else ""), "summary_freq": 1,
            "validation_freq": 2, "image_summary_freq": 0, "save_freq": 2, "validation_clips": 6, "sample_clips": 2,
            "num_samples": 3, **options,
        }  # fmt: skip
        stream = io.StringIO()
        return train(TrainOptions(**values), stream), stream.getvalue()

    return run
