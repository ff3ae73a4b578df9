"""Checkpoints: what one holds, how it is checked, written and read.

A checkpoint is a `tf.train.Checkpoint` with the weights by path, the moments of each
optimiser by name and path, and the step; nothing else is needed to go on, because noise
and data are functions of (seed, step). A file written by a converter may hold weights
alone: it serves to generate and to start a new run from, not to continue one.
"""

import os
import re

import tensorflow as tf
from absl import logging

from tfvid.errors import UserError

_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"


class DamagedCheckpoint(UserError):
    """A checkpoint that cannot be read, as opposed to one of another model."""


def checkpoint_of(model, optimizers=True):
    """The tf.train.Checkpoint of a model: weights by path, step, and the optimisers unless left out."""
    weights = {}
    for variable in model.weights:
        if variable.path in weights:
            raise ValueError(f"two variables are called {variable.path!r}")
        weights[variable.path] = variable.value
    parts = {"weights": weights, "step": model.step}
    if optimizers:
        parts["optimizers"] = {name: optimizer.state() for name, optimizer in model.optimizers_by_name.items()}
    return tf.train.Checkpoint(**parts)


def read_contents(path):
    """{name: shape} of what a checkpoint file holds, e.g. {"weights/dense/kernel": [3, 4], "step": []}."""
    try:
        # Not tf.train.load_checkpoint: in ram:// it takes the name, with files that begin with it, for a folder.
        shapes = tf.compat.v1.train.NewCheckpointReader(path).get_variable_to_shape_map()
    except (tf.errors.OpError, ValueError, RuntimeError) as e:
        raise DamagedCheckpoint(f"{path}: expected a checkpoint, cannot read it: {_reason(e)}") from None
    return {_unescape(k.removesuffix(_SUFFIX)): shape for k, shape in shapes.items() if k.endswith(_SUFFIX)}


def restore(model, path, optimizers=True):
    """Restores weights, step and (unless left out) optimisers.

    Raises:
      UserError: the file holds another model, or weights alone where optimisers are wanted.
      DamagedCheckpoint: it cannot be read.
    """
    saved = read_contents(path)
    if optimizers and model.optimizers_by_name and not any(k.startswith("optimizers/") for k in saved):
        raise UserError(
            f"{path}: expected weights and optimisers, received weights alone, with which training cannot be"
            " continued; start a new run from them: --checkpoint with another --output_dir"
        )
    _check_fits(model, saved, path, optimizers)
    try:
        checkpoint_of(model, optimizers).read(path).expect_partial().assert_existing_objects_matched()
    except (tf.errors.OpError, AssertionError, ValueError, IndexError, RuntimeError) as e:  # as the reader has it
        raise DamagedCheckpoint(f"{path}: expected a whole checkpoint, cannot read it: {_reason(e)}") from None


def _check_fits(model, saved, path, optimizers):
    """UserError unless the file has exactly the model's weights (and moments), shape for shape.

    Networks that only training uses may be left out of the model; what the file has of them is passed over.
    """
    expected = {f"weights/{v.path}": v.value.shape.as_list() for v in model.weights}
    if optimizers:
        for name, optimizer in model.optimizers_by_name.items():
            state = optimizer.state()
            expected[f"optimizers/{name}/counts"] = state["counts"].shape.as_list()
            for kind in ("m", "v"):
                expected.update({f"optimizers/{name}/{kind}/{p}": v.shape.as_list() for p, v in state[kind].items()})
    kinds = ("weights/", "optimizers/") if optimizers else ("weights/",)
    found = {k: shape for k, shape in saved.items() if k.startswith(kinds)}
    if not model.has_training_networks:
        passed_over = tuple(f"weights/{name}/" for name in model.TRAINING_NETWORKS)
        found = {k: shape for k, shape in found.items() if not k.startswith(passed_over)}
    complaints = []
    missing, unknown = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    shapes = sorted(k for k in set(expected) & set(found) if list(expected[k]) != list(found[k]))
    if missing:
        complaints.append(f"without {len(missing)} of its {len(expected)} arrays ({_few(missing)})")
    if unknown:
        complaints.append(f"with {len(unknown)} that it does not have ({_few(unknown)})")
    if shapes:
        first = shapes[0]
        complaints.append(
            f"with {len(shapes)} of another shape ({first}: expected {list(expected[first])}, received {found[first]})"
        )
    if complaints:
        raise UserError(
            f"{path}: expected a checkpoint of this {type(model).__name__}, received one {', '.join(complaints)}"
        )


class Checkpoints:
    """The numbered checkpoints of one run: `ckpt-<step>`, the last `keep` of them.

    TensorFlow writes the files of a checkpoint under other names first and its index last,
    so that one with an index is complete.
    """

    def __init__(self, model, folder, keep=3):
        self.model, self.folder = model, folder
        self._manager = tf.train.CheckpointManager(checkpoint_of(model), folder, max_to_keep=keep)

    @property
    def last(self):
        """Path of the last one, or None."""
        return max(list_checkpoints(self.folder).items(), default=(0, None))[1]

    def save(self):
        """Writes the model's state; returns the path. A failure leaves the older ones as they are."""
        step = int(self.model.step.numpy())
        bad = [v.path for v in self.model.weights if not _finite(v.value)]
        kept = f"; the last good checkpoint is {self.last}" if self.last else ""
        if bad:
            raise UserError(f"step {step}: expected finite weights, received NaN or infinity in {_few(bad)}{kept}")
        try:
            return self._manager.save(checkpoint_number=step)
        except tf.errors.OpError as e:
            self.clean()
            raise UserError(f"{self.folder}: cannot write the checkpoint of step {step}: {_reason(e)}{kept}") from None

    def restore_last(self):
        """Restores the newest checkpoint that can be read; returns its step, or None without any.

        A damaged one is passed over with a warning that names it; if all are damaged the
        last error is raised, since a restart from scratch would not be what was asked for.
        """
        error = None
        for _, path in sorted(list_checkpoints(self.folder).items(), reverse=True):
            try:
                restore(self.model, path)
            except DamagedCheckpoint as e:
                logging.warning("%s; going back to the checkpoint before it", e)
                error = e
                continue
            return int(self.model.step.numpy())
        if error:
            raise error
        return None

    def clean(self):
        """Deletes what interrupted or failed writes have left: whatever belongs to no index."""
        complete = list_checkpoints(self.folder)
        for name in _names(self.folder):
            part = re.match(r"ckpt-(\d+)[._]", name)
            if part and (int(part.group(1)) not in complete or "temp" in name):
                path = os.path.join(self.folder, name.rstrip("/"))
                (tf.io.gfile.rmtree if tf.io.gfile.isdir(path) else tf.io.gfile.remove)(path)


def list_checkpoints(folder):
    """{step: path} of the complete checkpoints in a folder."""
    found = (re.fullmatch(r"ckpt-(\d+)\.index", name) for name in _names(folder))
    return {int(m.group(1)): os.path.join(folder, f"ckpt-{m.group(1)}") for m in found if m}


def best_folder(folder):
    """Where the best weights by a validation metric lie; see `tfvid.training.best`."""
    return os.path.join(folder, "best")


def last_checkpoint(folder, step=None):
    """Path of the checkpoint to use; UserError where there is none.

    The one at `step`, else the best one where the run keeps it, else the last one.
    """
    best, found = list_checkpoints(best_folder(folder)), list_checkpoints(folder)
    if best and step is None:
        return best[max(best)]
    found = {**best, **found}
    if not found:
        raise UserError(f"{folder}: expected a checkpoint, found none; train first")
    if step is not None and step not in found:
        raise UserError(f"{folder}: expected a checkpoint of step {step}, found those of {sorted(found)}")
    return found[max(found) if step is None else step]


def _names(folder):
    return tf.io.gfile.listdir(folder) if tf.io.gfile.isdir(folder) else []


def _finite(value):
    return not value.dtype.is_floating or bool(tf.reduce_all(tf.math.is_finite(value)))


def _unescape(key):
    """Trackable's names: `.S` stands for a slash, `..` for a dot."""
    return re.sub(r"\.(S|\.)", lambda m: "/" if m.group(1) == "S" else ".", key)


def _few(names, limit=3):
    rest = f", {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest


def _reason(error):
    text = getattr(error, "message", None) or str(error) or type(error).__name__
    return text.strip().splitlines()[0][:300] if text.strip() else type(error).__name__
