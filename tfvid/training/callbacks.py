"""What happens between two steps: watching, validating, drawing, saving, stopping."""

import signal
import threading
import time

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from tfvid.errors import UserError
from tfvid.training import samples


class StepLogs(keras.callbacks.Callback):
    """Brings what steps return to the host and hands it to the observers, in order.

    A value is fetched when it is needed, several steps at a time on an accelerator: each
    fetch waits for the device, which would otherwise work ahead.

    Args:
      observers: callables of (step, {name: float}).
      every: steps between two fetches.
      needed: steps (a callable of the step) after which the values must be there.
    """

    def __init__(self, observers, every, needed):
        super().__init__()
        self._observers, self._every, self._needed = observers, every, needed
        self._pending = []

    def on_train_batch_end(self, batch, logs=None):
        step = self.model.host_step
        self._pending.append((step, logs))
        if step % self._every == 0 or self._needed(step):
            self.flush()

    def flush(self):
        """Hands on what is pending."""
        pending, self._pending = self._pending, []
        for step, logs in pending:
            values = {k: float(v) for k, v in logs.items()}
            for observe in self._observers:
                observe(step, values)

    def on_train_end(self, logs=None):
        self.flush()


class NaNGuard:
    """Stops a run whose updates are skipped too often in a row, because gradients are not finite.

    A skipped update changes nothing (`VideoModel.apply_gradients`), so a single bad batch
    does no harm: it is counted and reported.

    Args:
      limit: steps in a row with a skipped update that end the run.
      kept: callable that says in words what is left to go on from.
    """

    def __init__(self, limit, kept):
        self._limit, self._kept = limit, kept
        self.skipped = self._in_a_row = 0
        self._first = None

    def __call__(self, step, values):
        skipped = [k.removesuffix("_skipped") for k, v in values.items() if k.endswith("_skipped") and v > 0]
        if not skipped:
            self._in_a_row = 0
            return
        self.skipped += 1
        self._in_a_row += 1
        if self._in_a_row == 1:
            self._first = f"step {step}: {self._cause(values, skipped)}"
            logging.warning("%s; the update was skipped", self._first)
        if self._in_a_row >= self._limit:
            raise UserError(
                f"{self._first}; {self._in_a_row} updates in a row were skipped (max_skipped_updates), up to step"
                f" {step}. {self._kept()}. A smaller lr or --hparams_override=clip_norm=1 may help"
            )

    @staticmethod
    def _cause(values, skipped):
        losses = {k: v for k, v in values.items() if not k.endswith(("_skipped", "_grad_norm"))}
        for name, value in losses.items():
            if not np.isfinite(value):
                return f"expected finite losses, received {name}={value}"
        return f"expected finite gradients, received {values.get(skipped[0] + '_grad_norm')} as norm of {skipped[0]}"


class Scalars:
    """Writes a step's values into TensorBoard every `every` steps, with rates."""

    def __init__(self, board, every, model):
        self._board, self._every, self._model = board, every, model

    def __call__(self, step, values):
        if step % self._every == 0:
            rates = {f"lr/{k}": float(v) for k, v in self._model.learning_rates().items()}
            self._board.scalars(step, {**values, **rates})


class Timed(keras.callbacks.Callback):
    """A callback that does something long at some steps, which is no part of the throughput.

    Args:
      every: steps between two times; 0: never.
      target: the last step, at which it is done as well.
      progress: the `Progress` that must leave the time out.
    """

    def __init__(self, every, target, progress):
        super().__init__()
        self._every, self._target, self._progress = every, target, progress

    def due(self, step):
        """Whether it is done after `step`."""
        return bool(self._every) and (step % self._every == 0 or step == self._target)

    def on_train_batch_end(self, batch, logs=None):
        if self.due(self.model.host_step):
            start = time.monotonic()
            self.act(self.model.host_step)
            self._progress.leave_out(time.monotonic() - start)

    def act(self, step):
        """What is done."""
        raise NotImplementedError


class Validation(Timed):
    """Means of `test_step` over validation clips: TensorBoard, metrics.csv and a line.

    Args:
      batches, number: what `evaluate` takes, and how many batches there are.
      board, table: a `Board` and a `MetricsTable`, or None where another worker writes.
    """

    def __init__(self, batches, number, board, table, *timed):
        super().__init__(*timed)
        self._batches, self._number = batches, number
        self._board, self._table = board, table

    def act(self, step):
        values = self.model.evaluate(self._batches, steps=self._number, verbose=0, return_dict=True)
        if self._board:
            self._board.scalars(step, values)
            self._table.add(step, values)
            shown = " · ".join(f"{k} {v:.4g}" for k, v in values.items())
            self._progress.note(f"validation at step {step}: {shown}")


class Samples(Timed):
    """GIFs and plots of what the model generates for a few clips."""

    def __init__(self, batch, num_samples, seed, board, folder, *timed):
        super().__init__(*timed)
        self._batch, self._num_samples, self._seed = batch, num_samples, seed
        self._board, self._folder = board, folder

    def act(self, step):
        judged = samples.judge(self.model, self._batch, self._seed, self._num_samples)
        if judged is not None:
            samples.write(judged, self._batch, self.model, step, self._board, self._folder)


class Saving(Timed):
    """Checkpoints; what was logged until then is put on disk first, so that none of it is lost."""

    def __init__(self, checkpoints, boards, *timed):
        super().__init__(*timed)
        self._checkpoints, self._boards = checkpoints, boards
        self._saved = None

    def act(self, step):
        for board in self._boards:
            board.flush()
        self._checkpoints.save()
        self._saved = step

    def on_train_end(self, logs=None):
        if self._saved != self.model.host_step:
            self.act(self.model.host_step)


class StopSignals(keras.callbacks.Callback):
    """Ends the training after the current step on SIGTERM or SIGINT; a second one ends it at once.

    Used as a context manager around `fit`. Several workers agree on the step, every
    `every` steps.

    Attributes:
      received: the signal's number, or None.
    """

    def __init__(self, strategy=None, every=10):
        super().__init__()
        self.received = None
        self._every, self._before = every, {}
        self._agree = None
        if strategy is not None:
            self._agree = tf.function(
                lambda flag: strategy.reduce("SUM", strategy.run(tf.identity, (flag,)), axis=None)
            )

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number, frame):
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = number

    def on_train_batch_end(self, batch, logs=None):
        if self._agree is None:
            self.model.stop_training |= self.received is not None
        elif self.model.host_step % self._every == 0:
            number = float(self._agree(tf.constant(float(self.received or 0))))
            if number:
                self.received = self.received or signal.SIGTERM
                self.model.stop_training = True


class Profile(keras.callbacks.Callback):
    """Records TensorFlow's profile of the steps `first` to `last` into a folder."""

    def __init__(self, first, last, folder):
        super().__init__()
        self._first, self._last, self._folder = first, last, folder
        self._running = False

    def on_train_batch_begin(self, batch, logs=None):
        if self.model.host_step + 1 == self._first:
            tf.profiler.experimental.start(self._folder)
            self._running = True

    def on_train_batch_end(self, batch, logs=None):
        if self._running and self.model.host_step >= self._last:
            self._stop()

    def on_train_end(self, logs=None):
        self._stop()

    def _stop(self):
        if self._running:
            tf.profiler.experimental.stop()
            self._running = False
