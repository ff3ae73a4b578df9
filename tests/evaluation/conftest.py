"""Run folders of the toy model."""

import pytest
import tensorflow as tf

from tests.evaluation import toy
from tfvid import models
from tfvid.evaluation import runs
from tfvid.training.run_folder import RunFolder, checkpoint_of


@pytest.fixture
def make_run(tmp_path, monkeypatch):
    """Function (name, source, gain, **hparams) -> path of a run folder; commands read `source` from then on."""
    monkeypatch.setitem(models.MODELS, "toy", "tests.evaluation.toy:Toy")

    def make(name="run", source=None, gain=1.0, **changes):
        source = source or toy.ToySource()
        monkeypatch.setattr(runs, "open_source", lambda dataset, input_dir=None, skip_corrupt=False: source)
        hparams = toy.ToyHParams(dataset="toy", **changes).with_dataset_defaults(source.defaults())
        run = RunFolder.create(str(tmp_path / name), "toy", hparams, source.spec(hparams), dataset="toy")
        model = run.build_model()
        model.gain.assign(gain)
        model.step.assign(3)
        tf.io.gfile.makedirs(run.checkpoints)
        checkpoint_of(model).write(f"{run.checkpoints}/ckpt-3")
        manager = tf.train.CheckpointManager(checkpoint_of(model), run.checkpoints, 1, checkpoint_name="ckpt")
        manager.save(checkpoint_number=3)
        return run.path

    return make


@pytest.fixture(autouse=True)
def no_weights(tmp_path, monkeypatch):
    """No converted networks, whatever lies in the cache of the machine."""
    monkeypatch.setenv("TFVID_WEIGHTS", str(tmp_path / "weights"))
