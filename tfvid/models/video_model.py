"""The contract that every model of tfvid keeps.

A `VideoModel` is built completely in its constructor (every variable, every optimiser
slot), from hyper-parameters and a description of the data, under the caller's strategy
scope. `tfvid.models.build` is the one way to make one.
"""

import contextlib
import time
import typing

import keras
import tensorflow as tf

from tfvid.errors import UserError
from tfvid.hparams import HParams
from tfvid.models import optimizers as optimizers_lib
from tfvid.models.draws import StatelessDraws
from tfvid.models.fused_norm import fused_batch_norm

_training_networks_wanted = [True]


@contextlib.contextmanager
def without_training_networks():
    """Within it a model is made without the networks that only training uses, its `TRAINING_NETWORKS`."""
    _training_networks_wanted.append(False)
    try:
        yield
    finally:
        _training_networks_wanted.pop()


class VideoModel(keras.Model):
    """Base of all models.

    A subclass sets `HPARAMS` (its dataclass), builds its networks in `__init__`, calls
    `finish_build(optimizers)` at the end of it, and implements `train_step`, `test_step`
    and `generate`. `train_step` reads as a list: draw noise, forward, losses, gradients,
    apply, metrics:

        def train_step(self, batch):
            draws = self.train_draws()
            with tf.GradientTape() as tape:
                outputs = self.forward(self.prepare(batch), draws)
                losses = self.losses(outputs)
                total = weighted_sum(losses, weights)
            grads = tape.gradient(total, self.optimizers_by_name["generator"].targets)
            logs = self.apply_gradients("generator", grads, lr)
            self.finish_step()
            return {**losses, **logs}

    Attributes:
      hparams: the merged hyper-parameters.
      spec: {key: tf.TensorSpec} of one batch element without the batch axis, as the
        pipeline gives it (time axis first where there is one).
      seed: the run's seed.
      step: int64 variable, the number of finished training steps.
      has_training_networks: False where `TRAINING_NETWORKS` were left out; such a model only generates.
      optimizers_by_name: {name: Adam}.
      host_step: `step` as a Python integer, during `fit`.
      data_wait: seconds that `fit` has waited for batches.
    """

    HPARAMS: typing.ClassVar[type] = HParams
    # Keys of the batch that the model cannot do without / makes use of when present.
    REQUIRED_KEYS: typing.ClassVar[tuple] = ("images",)
    OPTIONAL_KEYS: typing.ClassVar[tuple] = ()
    # First parts of the paths of weights that only training uses: a constructor makes them if `has_training_networks`.
    TRAINING_NETWORKS: typing.ClassVar[tuple] = ()

    def __init__(self, hparams, spec, seed=0, name=None):
        super().__init__(name=name)
        if not isinstance(hparams, self.HPARAMS):
            raise TypeError(f"expected {self.HPARAMS.__name__}. Received: hparams={type(hparams).__name__}")
        self.hparams = hparams
        self.spec = dict(spec)
        self.seed = int(seed)
        self.has_training_networks = _training_networks_wanted[-1]
        with tf.init_scope():
            self.step = tf.Variable(
                0, dtype=tf.int64, trainable=False, name="step",
                aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
            )
        self.optimizers_by_name = {}
        self._step_functions = {}
        self._test_sums = None
        self.host_step, self.data_wait = 0, 0.0

    def finish_build(self, optimizers):
        """Registers {name: Adam}; the last line of a subclass' constructor."""
        self.optimizers_by_name = dict(optimizers)
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        for layer in self._flatten_layers():
            if hasattr(layer, "replicas"):  # norms whose statistics are those of the global batch
                layer.replicas = replicas
                layer.fused = fused_batch_norm if replicas == 1 else None
        self.built = True
        self.compile(optimizer=None, run_eagerly=False, jit_compile=False)

    # What a subclass implements.

    def train_step(self, batch):
        """One update; returns {name: scalar} of means over the local batch."""
        raise NotImplementedError

    def test_step(self, batch):
        """Validation losses and metrics; returns {name: scalar or [B]}.

        A value of shape [B] (one for each element) is averaged over the elements that
        the batch's `valid` marks, exactly; a scalar is taken as a mean over the batch.
        """
        raise NotImplementedError

    def generate(self, batch, seed, num_samples=1, horizon=None):
        """Samples futures.

        Args:
          batch: the batch dictionary; only what is known at test time is used (context
            frames, actions, ...), whatever else it holds.
          seed: integer or int64 scalar tensor; the same seed gives the same samples.
          num_samples: samples for each batch element.
          horizon: frames to predict after the context; None: as many as the batch or
            the hyper-parameters' sequence_length ask for.

        Returns:
          {"images": [num_samples, B, horizon, H, W, C] in [0, 1], ...}; further keys
          (poses, boxes, states, ...) lead with [num_samples, B, horizon].
        """
        raise NotImplementedError

    def signatures(self):
        """{name: tf.function with an input signature} for `tfvid.serving.export`."""
        raise NotImplementedError

    def begin_training(self):
        """Called once, before the first step of a new run (not when one goes on): takes what else it starts from."""

    def see_training_clips(self, clips):
        """Called once, before the first step of a new run, when its weights are there: takes what it keeps of the data.

        Args:
          clips: function of a number -> batches with `valid` [B] of at most so many training clips, the same ones
            for every worker, from all over the data.
        """

    def prepare_training(self):
        """Makes, or refuses, what training alone needs, such as the network of a perceptual loss.

        Called whenever training is about to start, before a step is traced: a variable
        that is made within a trace costs a second one.
        """

    def phase(self, step):
        """A hashable value that is constant while one traced training step serves.

        A model whose graph changes with the step (a curriculum, a pre-training phase)
        returns another value for each form; `train_step` may read `self.current_phase`.
        """
        return None

    def learning_rates(self):
        """{name: scalar} logged beside the losses."""
        return {}

    def truth_frames(self, batch, horizon):
        """[B, horizon, H, W, C] in [0, 1]: the frames that `generate` should have given, or None."""
        start = self.hparams.context_frames
        return self.images_to_float(batch["images"][:, start : start + horizon])

    # What a subclass uses.

    def train_draws(self, stream="train"):
        """Noise of this step and this replica; call it in `train_step`."""
        context = tf.distribute.get_replica_context()
        replica = context.replica_id_in_sync_group if context else 0
        return StatelessDraws(self.seed, self.step, replica, stream)

    @property
    def wide_dtype(self):
        """Float type of what must not be narrower than float32: pixels, noise, poses, boxes."""
        return tf.float64 if self.hparams.precision == "float64" else tf.float32

    def images_to_float(self, images):
        """uint8 [0, 255] or float [0, 1] -> float32 (float64 in that precision) in [0, 1]."""
        # At least float32: pixels in bfloat16 would lose two of their eight bits.
        floats = tf.cast(images, self.wide_dtype)
        return floats / 255 if images.dtype == tf.uint8 else floats

    def apply_gradients(self, name, gradients, lr, variables=None, clip=None, loss=None):
        """Averages over replicas, checks, clips, applies; the only way a gradient reaches a variable.

        Args:
          name: of the optimiser.
          gradients: of the mean loss over the local batch, one (or None) for each variable.
          lr: learning rate.
          variables: those the gradients are of; default: all of this optimiser.
          clip: function from the norm of all gradients to the factor that they are
            multiplied by; default: the one that hparams.clip_norm asks for.
          loss: what the gradients are of, for a model with large weights: without clipping
            and on one device each gradient is applied, and its memory free, as soon as it
            is made. Nothing is changed where the loss is not finite; a gradient that is
            not finite itself leaves its own variable alone.

        Returns:
          {"<name>_grad_norm": before clipping, "<name>_skipped": 1.0 where the norm (or
          the loss) was not finite and nothing was changed (but see `loss`)}.
        """
        optimizer = self.optimizers_by_name[name]
        variables = optimizer.targets if variables is None else variables
        present = [tf.convert_to_tensor(g) for g in gradients if g is not None]
        context = tf.distribute.get_replica_context()
        if not present:
            raise ValueError(f"no gradient reaches any variable of {name!r}")
        if context.num_replicas_in_sync > 1:
            present = context.all_reduce(tf.distribute.ReduceOp.MEAN, present)
        halves = optimizers_lib.half_squares(present)
        norm = optimizers_lib.global_norm(halves)
        ok = tf.math.is_finite(norm)
        if clip is None and self.hparams.clip_norm:
            limit = tf.constant(self.hparams.clip_norm, norm.dtype)
            clip = lambda norm: limit / tf.maximum(norm, limit)  # noqa: E731
        oks = ok
        if clip is not None:
            factor = clip(norm)
            present = [g * tf.cast(factor, g.dtype) for g in present]
        elif loss is not None and context.num_replicas_in_sync == 1:
            finite = tf.math.is_finite(loss)
            ok = tf.logical_and(ok, finite)
            oks = [tf.logical_and(finite, tf.math.is_finite(half)) for half in halves]
        it = iter(present)
        gradients = [None if g is None else next(it) for g in gradients]
        optimizer.apply(gradients, variables, lr, oks)
        return {f"{name}_grad_norm": norm, f"{name}_skipped": 1.0 - tf.cast(ok, norm.dtype)}

    def finish_step(self):
        """Advances `step`; the last thing a `train_step` does."""
        self.step.assign_add(1)

    def check_spec(self):
        """Raises UserError unless the data has what the model needs; called by `build`."""
        missing = [k for k in self.REQUIRED_KEYS if k not in self.spec]
        if missing:
            raise UserError(
                f"{type(self).__name__} needs {', '.join(self.REQUIRED_KEYS)} in the data,"
                f" received {', '.join(sorted(self.spec))}"
            )

    # How Keras' `fit` and `evaluate` run the steps (several devices, several graphs).

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        """Nothing: the constructor has built everything."""

    def make_train_function(self, force=False):
        """One traced function for each `phase`, for any strategy."""
        if force:
            self._step_functions = {}
        self.prepare_training()
        self.host_step = int(self.step.numpy())

        def train_function(iterator):
            self.current_phase = self.phase(self.host_step)
            # The batch is fetched outside the traced function, to see what fetching costs.
            start = time.perf_counter()
            batch = next(iterator)
            self.data_wait += time.perf_counter() - start
            logs = self.traced_train_step()(batch)
            self.host_step += 1
            return logs

        self.train_function = train_function
        return train_function

    def traced_train_step(self):
        """The traced training step of the current phase, a tf.function of a batch."""
        return self._step_function(self.train_step, _means, self.current_phase)

    def make_test_function(self, force=False):
        """Means over all valid elements of the batches since `reset_metrics`."""
        if force:
            self._step_functions = {}

        def test_function(iterator):
            sums = self._step_function(self._test_sums_step, _sums, None)(next(iterator))
            if self._test_sums is not None:
                sums = {k: v + self._test_sums[k] for k, v in sums.items()}
            self._test_sums = sums
            return {k: v / sums[_COUNT] for k, v in sums.items() if k != _COUNT}

        self.test_function = test_function
        return test_function

    def reset_metrics(self):
        super().reset_metrics()
        self._test_sums = None

    @property
    def metrics(self):
        """None: steps return their values, so that no metric object shadows them."""
        return []

    def _test_sums_step(self, batch):
        """Sums over the valid elements of what `test_step` returns, and their number."""
        size = tf.shape(tf.nest.flatten(batch)[0])[0]
        valid = batch.get("valid")
        valid = tf.ones([size], tf.bool) if valid is None else valid
        count = tf.reduce_sum(tf.cast(valid, tf.float64))
        sums = {_COUNT: count}
        for key, value in self.test_step(batch).items():
            value = tf.cast(value, tf.float64)
            if value.shape.rank == 0:
                sums[key] = tf.where(count > 0, value * count, 0)
            else:
                sums[key] = tf.reduce_sum(tf.where(valid, value, 0))
        return sums

    def _step_function(self, step, reduce, phase):
        """`step` on every replica and its results over all of them, traced once."""
        key = (step.__name__, phase)
        if key not in self._step_functions:

            def run(batch):
                strategy = self.distribute_strategy
                return reduce(strategy, strategy.run(step, args=(batch,)))

            self._step_functions[key] = run if self.run_eagerly else tf.function(run, reduce_retracing=True)
        return self._step_functions[key]


_COUNT = "/count"


def _means(strategy, logs):
    return {k: strategy.reduce(tf.distribute.ReduceOp.MEAN, v, axis=None) for k, v in logs.items()}


def _sums(strategy, logs):
    return {k: strategy.reduce(tf.distribute.ReduceOp.SUM, v, axis=None) for k, v in logs.items()}


def weighted_sum(losses, weights):
    """Sum of weight * loss by name; a loss without a weight is an error.

    Args:
      losses: {name: scalar tensor}.
      weights: {name: number or scalar tensor}, at least the names in `losses`.
    """
    missing = sorted(set(losses) - set(weights))
    if missing:
        raise KeyError(f"losses without a weight: {', '.join(missing)}")

    def weight(name, dtype):  # a cast would round a number to float32 first
        value = weights[name]
        return tf.cast(value, dtype) if tf.is_tensor(value) else tf.constant(value, dtype)

    return tf.add_n([weight(name, loss.dtype) * loss for name, loss in losses.items()])
