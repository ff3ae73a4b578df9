"""A run on disk: what a training leaves, and all that is needed to use its model.

hparams.json   merged hyper-parameters
run.json       model name, seed, data set, shapes of the data, version
checkpoints/   ckpt-<step>: weights, optimisers, step; best/: the best weights by hparams.monitor
train/ val/    TensorBoard
metrics.csv    one line for each validation
samples/       GIFs
.lock          held by the process that trains
"""

import json
import os

import tensorflow as tf

import tfvid
from tfvid import models
from tfvid.data.records import write_atomically
from tfvid.errors import UserError
from tfvid.hparams import read_json_object
from tfvid.training.checkpoints import checkpoint_of, last_checkpoint, restore

__all__ = ["RunFolder", "checkpoint_of", "restore", "weights_path"]


class RunFolder:
    """One run folder; `create` writes a new one, `open` reads an existing one."""

    def __init__(self, path, info, hparams):
        self.path, self.info, self.hparams = path, info, hparams

    @classmethod
    def planned(cls, path, model_name, hparams, spec, seed=0, **more):
        """What `create` would write, without writing it."""
        info = {
            "model": model_name,
            "seed": int(seed),
            "spec": {k: {"shape": s.shape.as_list(), "dtype": s.dtype.name} for k, s in spec.items()},
            "version": tfvid.__version__,
            **more,
        }
        return cls(path, info, hparams)

    @classmethod
    def create(cls, path, model_name, hparams, spec, seed=0, **more):
        """Writes hparams.json and run.json; `more` is kept in run.json (dataset, input_dir, ...)."""
        run = cls.planned(path, model_name, hparams, spec, seed, **more)
        tf.io.gfile.makedirs(path)
        hparams.save(os.path.join(path, "hparams.json"))
        # Last, and in one piece: a folder with run.json is a run folder.
        write_atomically(os.path.join(path, "run.json"), json.dumps(run.info, indent=2) + "\n")
        return run

    @classmethod
    def open(cls, path):
        """Reads a run folder; UserError where it is none or damaged."""
        if not tf.io.gfile.isdir(path) or not tf.io.gfile.exists(os.path.join(path, "run.json")):
            raise UserError(f"{path}: expected a run folder (run.json, hparams.json, checkpoints/), found none")
        info = read_json_object(os.path.join(path, "run.json"))
        missing = [k for k in ("model", "seed", "spec") if k not in info]
        if missing:
            raise UserError(f"{path}/run.json: expected the keys model, seed and spec, missing {', '.join(missing)}")
        _check_types(info, f"{path}/run.json")
        cls_hparams = models.model_class(info["model"]).HPARAMS
        run = cls(path, info, cls_hparams.load(os.path.join(path, "hparams.json")))
        try:
            images = run.spec.get("images")
        except (KeyError, TypeError, ValueError) as e:
            raise UserError(f"{path}/run.json: spec: expected a shape and a dtype for each key: {e}") from None
        if images is not None and images.shape.rank != 4:
            raise UserError(f"{path}/run.json: spec: expected images [T, H, W, C]. Received: {images.shape}")
        return run

    def differences(self, other, changeable=()):
        """In words, where `other` has another model, seed, data or hyper-parameters; "" where nowhere.

        Args:
          changeable: names of hyper-parameters that may differ.
        """
        names = ("model", "seed", "dataset", "spec", "training_clips", "checkpoint")
        pairs = [(k, self.info.get(k), other.info.get(k)) for k in names]
        if self.model_name == other.model_name:
            mine, others = self.hparams.to_dict(), other.hparams.to_dict()
            pairs += [(k, mine[k], others[k]) for k in mine if k not in changeable and k != "dataset"]
        different = [f"{k}: {a!r} in the run, {b!r} now" for k, a, b in pairs if a != b]
        more = f" and {len(different) - 4} more" if len(different) > 4 else ""
        return ", ".join(different[:4]) + more

    def has_only_settings(self):
        """Whether nothing was trained, or written about it, yet."""
        names = {name.rstrip("/") for name in tf.io.gfile.listdir(self.path)}
        saved = tf.io.gfile.isdir(self.checkpoints) and tf.io.gfile.listdir(self.checkpoints)
        return not saved and names <= {"hparams.json", "run.json", ".lock", "checkpoints"}

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

    def build_model(self, **kinds):
        """The model with fresh weights; `kinds` as in `tfvid.models.build`. Call it under the strategy's scope."""
        return models.build(self.model_name, self.hparams, self.spec, seed=self.info["seed"], **kinds)

    def load_model(self, step=None, training_networks=True):
        """The model with the weights of the best or last checkpoint, or of the one at `step`; not to train.

        `training_networks=False` leaves out what only training uses, such as discriminators.
        """
        path = last_checkpoint(self.checkpoints, step)
        model = self.build_model(trainable=False, training_networks=training_networks)
        restore(model, path, optimizers=False)
        return model

    def save_weights(self, model):
        """Writes weights and step as the only checkpoint, for converters; returns its path."""
        manager = tf.train.CheckpointManager(checkpoint_of(model, optimizers=False), self.checkpoints, max_to_keep=1)
        return manager.save(checkpoint_number=int(model.step.numpy()))


def _check_types(info, path):
    """UserError where a value of run.json, which a user may have edited, has another type."""
    kinds = {
        "model": str, "seed": int, "spec": dict, "dataset": (str, type(None)), "input_dir": (str, type(None)),
        "labels": (dict, type(None)),
    }  # fmt: skip
    for key, kind in kinds.items():
        if key in info and not isinstance(info[key], kind):
            words = {str: "a string", int: "an integer", dict: "an object"}
            expected = words[kind[0] if isinstance(kind, tuple) else kind]
            raise UserError(f"{path}: {key}: expected {expected}. Received: {info[key]!r}")


def weights_path(path):
    """The checkpoint that `path` means: a run folder's last one, or a file without its suffix.

    Raises:
      UserError: neither is there.
    """
    if tf.io.gfile.exists(os.path.join(path, "run.json")):
        return last_checkpoint(RunFolder.open(path).checkpoints)
    prefix = path.removesuffix(".index")
    if not tf.io.gfile.exists(prefix + ".index"):
        raise UserError(f"--checkpoint: expected a run folder or a checkpoint in one. Received: {path}")
    return prefix
