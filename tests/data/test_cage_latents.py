"""Latents and features computed once: the records hold what the networks give for the stored frames."""

import numpy as np
import pytest
import tensorflow as tf

from tests.models import cage_tiny
from tfvid import models
from tfvid.data.prepare import prepare
from tfvid.data.source import open_source
from tfvid.errors import UserError
from tfvid.models.cage.hparams import CageHParams
from tfvid.training.run_folder import RunFolder

SPEC = {"images": tf.TensorSpec([7, 16, 16, 3], tf.uint8)}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """(data set, runs of cage and cage_autoencoder)."""
    folder = tmp_path_factory.mktemp("cage")
    options = {"size": 16, "clip_length": 7, "train_clips": 3, "val_clips": 0, "test_clips": 1}
    prepare("demo", None, str(folder / "demo"), options, processes=0, progress=False)
    model = models.build("cage", CageHParams(**{**cage_tiny.CAGE, "state_res": (4, 4)}), SPEC)
    RunFolder.create(str(folder / "cage"), "cage", model.hparams, SPEC).save_weights(model)
    other = cage_tiny.autoencoder()
    RunFolder.create(str(folder / "other"), "cage_autoencoder", other.hparams, cage_tiny.SPEC).save_weights(other)
    return folder, model


def test_records_hold_what_the_networks_give(folders, tmp_path):
    folder, model = folders
    options = {"run": str(folder / "cage"), "features": True}
    info = prepare("cage_latents", str(folder / "demo"), str(tmp_path), options, processes=0, progress=False)
    assert info.fields["latents"].shape == (4, 4, 4) and info.fields["features"].shape == (4, 4, 8)
    assert info.splits["train"]["clips"] == 3 and info.labels == {
        "action_labels": ["stay", "right", "left", "down", "up"]
    }
    batch = next(iter(open_source("demo", tmp_path).training_batches("train", model.hparams, 2, 0)))
    frames = model.signed(batch["images"])
    np.testing.assert_allclose(batch["latents"], model.encode(frames), 1e-5, 1e-5)
    np.testing.assert_allclose(batch["features"], model.features(frames), 1e-5, 1e-5)
    assert set(model.cached(batch)) == {"latents"}


@pytest.mark.parametrize(
    "options, message",
    [
        ({}, "--run: expected the run folder"),
        ({"run": "nowhere"}, "expected a run folder"),
        ({"run": "other", "features": True}, "--features: expected --run to be a run of cage"),
        ({"run": "other"}, r"--source_dir: expected frames .16, 24, 3. as the run's. Received: .16, 16, 3."),
    ],
)
def test_what_does_not_fit(folders, tmp_path, options, message):
    folder, _ = folders
    if options.get("run") == "other":
        options = {**options, "run": str(folder / "other")}
    with pytest.raises(UserError, match=message):
        prepare("cage_latents", str(folder / "demo"), str(tmp_path / "out"), options, processes=0, progress=False)
