"""The best weights by a validation metric (`checkpoints/best/`), and an end when it no longer improves.

Which step was best, and how many validations ago, is read from the rows of metrics.csv, so
that a run that goes on decides as an uninterrupted one does.
"""

import os

import tensorflow as tf

from tfvid.errors import UserError
from tfvid.training.callbacks import Timed
from tfvid.training.checkpoints import best_folder, checkpoint_of, list_checkpoints
from tfvid.training.logs import MetricsTable


def check(hparams, validation_freq, splits, workers):
    """UserError where the hyper-parameters ask for what cannot be done."""
    if not hparams.monitor:
        return
    if not validation_freq or "val" not in splits:
        raise UserError(
            f"monitor={hparams.monitor}: expected validations (a val split and --validation_freq above 0)."
            f" Received: splits {', '.join(splits)}, --validation_freq={validation_freq}"
        )
    if hparams.patience and workers > 1:
        raise UserError(f"patience: expected 0 with several workers. Received: {hparams.patience} with {workers} workers")


def best_step(rows, hparams):
    """(step of the best row, number of rows after it); (None, 0) without rows.

    Raises:
      UserError: the validation has no such metric.
    """
    if not rows:
        return None, 0
    if hparams.monitor not in rows[-1]:
        have = ", ".join(k for k in rows[-1] if k != "step")
        raise UserError(f"monitor: expected one of the validation's metrics, {have}. Received: {hparams.monitor!r}")
    sign = 1 if hparams.monitor_mode == "min" else -1
    values = [sign * float(row.get(hparams.monitor) or "nan") for row in rows]
    finite = [v if v == v else float("inf") for v in values]  # NaN is never the best
    index = finite.index(min(finite))
    return int(rows[index]["step"]), len(rows) - 1 - index


def finished(path, last_step, hparams):
    """The best step of a run folder that `patience` has ended at `last_step`, else None."""
    if not (hparams.monitor and hparams.patience):
        return None
    return ran_out(MetricsTable(os.path.join(path, "metrics.csv"), last_step).rows, hparams)


def ran_out(rows, hparams):
    """The best step where `patience` validations after it were no better, else None."""
    if not (hparams.monitor and hparams.patience):
        return None
    step, since = best_step(rows, hparams)
    return step if since >= hparams.patience else None


class BestWeights(Timed):
    """Keeps the weights of the best validation. Its place is after validation and saving."""

    def __init__(self, hparams, table, checkpoints_folder, every, target, progress):
        super().__init__(every, target, progress)
        self._hparams, self._table = hparams, table
        self._checkpoints, self._folder = checkpoints_folder, best_folder(checkpoints_folder)

    def on_train_begin(self, logs=None):
        start = self.model.host_step
        self._remove(lambda step: step > start)  # of a future that was never saved
        step, _ = best_step(self._table.rows, self._hparams)
        if step == start and step not in list_checkpoints(self._folder):
            self._write(step)

    def act(self, step):
        best, _ = best_step(self._table.rows, self._hparams)
        if best == step:
            self._write(step)
        if step in list_checkpoints(self._checkpoints):  # the run never goes back behind it
            self._remove(lambda s: s != best)
        if ran_out(self._table.rows, self._hparams) is not None:
            self._progress.note(
                f"{self._hparams.monitor} was best at step {best}, {self._hparams.patience} validations ago: ends here"
            )
            self.model.stop_training = True

    def _write(self, step):
        path = os.path.join(self._folder, f"ckpt-{step}")
        try:
            tf.io.gfile.makedirs(self._folder)
            checkpoint_of(self.model, optimizers=False).write(path)
        except tf.errors.OpError as e:
            raise UserError(f"{path}: cannot write the best weights: {e.message}") from None

    def _remove(self, chosen):
        for step, path in list_checkpoints(self._folder).items():
            if chosen(step):
                for file in tf.io.gfile.glob(f"{path}.*"):
                    tf.io.gfile.remove(file)
