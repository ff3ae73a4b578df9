"""Every model in MODELS is exported and served; what must hold is in `harness.check_served`."""

import pathlib

import pytest
import tensorflow as tf

from tests.serving.harness import check_served
from tfvid import models
from tfvid.serving.export import export
from tfvid.serving.saved_model import read_signatures

IMAGES = {"images": tf.TensorSpec([6, 32, 32, 3], tf.uint8)}
ROBOT = {
    **IMAGES,
    "actions": tf.TensorSpec([5, 4], tf.float32),
    "states": tf.TensorSpec([6, 3], tf.float32),
}
LENGTHS = {"context_frames": 2, "sequence_length": 6, "long_sequence_length": 6}
SMALL_SAVP = {**LENGTHS, "ngf": 4, "nef": 4, "ndf": 4, "nz": 2}

# name of the case: (model, hyper-parameters, spec of the data, whether the seed is without effect)
CASES = {
    "savp": ("savp", SMALL_SAVP, IMAGES, False),
    "repeat": ("repeat", LENGTHS, IMAGES, True),
}
WITH_ACTIONS = ("savp", SMALL_SAVP, ROBOT, False)
SLOW_CASES = {
    "sna": ("sna", LENGTHS, ROBOT, True),
    "sv2p": ("sv2p", LENGTHS, IMAGES, False),
    "dna": ("dna", LENGTHS, ROBOT, True),
}


def check(case, tmp_path):
    name, values, spec, deterministic = case
    hparams = models.model_class(name).HPARAMS(**values)
    model = models.build(name, hparams, spec, seed=1, trainable=False)
    path = pathlib.Path(export(model, str(tmp_path / "served"), model_name=name))
    images = check_served(path, tmp_path, deterministic)["images"]
    assert images.shape == (2, 4, *spec["images"].shape[1:])
    assert images.min() >= 0 and images.max() <= 1
    return read_signatures(path)


@pytest.mark.parametrize("case", CASES)
def test_model_is_served(case, tmp_path):
    check(CASES[case], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("case", SLOW_CASES)
def test_baseline_is_served(case, tmp_path):
    check(SLOW_CASES[case], tmp_path)


def test_inputs_and_outputs_carry_the_names_of_the_batch(tmp_path):
    signature = check(WITH_ACTIONS, tmp_path)["serving_default"]
    assert signature["inputs"]["actions"] == {"shape": [None, 5, 4], "dtype": "float32"}
    assert set(signature["inputs"]) == {"images", "actions", "states", "seed"}
    assert set(signature["outputs"]) == {"images", "states"}
