"""A run on disk: what a training leaves, and all that is needed to use its model.

    hparams.json   merged hyper-parameters
    run.json       model name, seed, data set, shapes of the data, version
    checkpoints/   ckpt-<step>: weights, optimisers, step
    train/ val/    TensorBoard
    metrics.csv    one line for each validation
    samples/       GIFs
"""

import json
import os

import tensorflow as tf

import tfvid
from tfvid import models
from tfvid.errors import UserError
from tfvid.hparams import read_json_object


def checkpoint_of(model):
    """The tf.train.Checkpoint of all that a model needs to go on: weights by path, optimisers, step."""
    weights = {}
    for variable in model.weights:
        if variable.path in weights:
            raise ValueError(f"two variables are called {variable.path!r}")
        weights[variable.path] = variable.value
    optimizers = {name: optimizer.state() for name, optimizer in model.optimizers_by_name.items()}
    return tf.train.Checkpoint(weights=weights, optimizers=optimizers, step=model.step)


class RunFolder:
    """One run folder; `create` writes a new one, `open` reads an existing one."""

    def __init__(self, path, info, hparams):
        self.path, self.info, self.hparams = path, info, hparams

    @classmethod
    def create(cls, path, model_name, hparams, spec, seed=0, **more):
        """Writes hparams.json and run.json; `more` is kept in run.json (dataset, input_dir, ...)."""
        info = {
            "model": model_name,
            "seed": int(seed),
            "spec": {k: {"shape": s.shape.as_list(), "dtype": s.dtype.name} for k, s in spec.items()},
            "version": tfvid.__version__,
            **more,
        }
        tf.io.gfile.makedirs(path)
        hparams.save(os.path.join(path, "hparams.json"))
        with tf.io.gfile.GFile(os.path.join(path, "run.json"), "w") as f:
            f.write(json.dumps(info, indent=2) + "\n")
        return cls(path, info, hparams)

    @classmethod
    def open(cls, path):
        """Reads a run folder; UserError where it is none or damaged."""
        if not tf.io.gfile.isdir(path) or not tf.io.gfile.exists(os.path.join(path, "run.json")):
            raise UserError(f"{path}: expected a run folder (run.json, hparams.json, checkpoints/), found none")
        info = read_json_object(os.path.join(path, "run.json"))
        missing = [k for k in ("model", "seed", "spec") if k not in info]
        if missing:
            raise UserError(f"{path}/run.json: expected the keys model, seed and spec, missing {', '.join(missing)}")
        cls_hparams = models.model_class(info["model"]).HPARAMS
        return cls(path, info, cls_hparams.load(os.path.join(path, "hparams.json")))

    @property
    def model_name(self):
        """Key of `tfvid.models.MODELS`."""
        return self.info["model"]

    @property
    def spec(self):
        """{key: tf.TensorSpec} of one element of the data."""
        return {k: tf.TensorSpec(s["shape"], s["dtype"]) for k, s in self.info["spec"].items()}

    @property
    def checkpoints(self):
        """The folder of checkpoints."""
        return os.path.join(self.path, "checkpoints")

    def build_model(self):
        """The model with fresh weights; call it under the strategy's scope."""
        return models.build(self.model_name, self.hparams, self.spec, seed=self.info["seed"])

    def load_model(self, step=None):
        """The model with the weights of the last checkpoint, or of the one at `step`."""
        path = os.path.join(self.checkpoints, f"ckpt-{step}") if step else tf.train.latest_checkpoint(self.checkpoints)
        if not path:
            raise UserError(f"{self.checkpoints}: expected a checkpoint, found none; train first")
        model = self.build_model()
        restore(model, path)
        return model


def restore(model, path):
    """Restores weights, optimisers and step; UserError where the file does not fit the model."""
    try:
        checkpoint_of(model).read(path).assert_existing_objects_matched()
    except (tf.errors.OpError, AssertionError, ValueError) as e:
        reason = str(getattr(e, "message", None) or e).splitlines()[0]
        raise UserError(f"{path}: expected a checkpoint of this {type(model).__name__}, received: {reason}") from None
