"""Sampling of CAGE: solving the flow chunk by chunk, with controls; what commands and servers call."""

import numpy as np
import tensorflow as tf

from tfvid.models.cage.sampling import chunk_starts, rollout_plan, solve
from tfvid.models.draws import StatelessDraws

DECODED_AT_ONCE = 8  # frames
MOST_STAGES = 4  # function evaluations of a solver's step


class Generation:
    """The sampling half of `Cage`, which has the networks, `encode`, `decode`, `features` and `signed`."""

    def sample(self, draws_of, num_frames, initial=None, features=None, masks=None, batch_size=None, **options):
        """Generates frames after the given ones.

        Args:
          draws_of: function of a name, or of (name, evaluation number), that returns a
            `Draws` of its own: noise is asked for by place, so that solving can be a loop.
          num_frames: frames to generate.
          initial: [B, l0, H, W, 3] in [-1, 1], or None to start from nothing.
          features: [B, k, h, w, d] controls of the first k generated frames, or None.
          masks: [B, k, h, w, 1], 1 = given.
          batch_size: needed only where neither frames nor features are given.
          options: num_steps, odesolver, gamma, past_horizon, method in place of the
            hyper-parameters.

        Returns:
          [B, num_frames, H, W, 3], about [-1, 1].
        """
        h = self.hparams.replace(**options)
        first, y = self._start(draws_of, num_frames, initial, features, batch_size)
        features, masks = self._controls(y, num_frames + h.num_target_frames, features, masks)

        def solve_chunk(chunk, y, features, masks):
            return self._solve_chunk(draws_of, y, *chunk, features, masks, h)

        return self.decode(self._run_plan(solve_chunk, y, first, num_frames, initial is None, features, masks, h))

    def seeded_sample(self, seed, sample, num_frames, initial=None, features=None, masks=None, **options):
        """As `sample`, with noise from an int64 scalar tensor `seed` and the sample's number.

        Chunks share one traced function, so that the length of a video costs no tracing.
        """
        h = self.hparams.replace(**options)
        seed, sample = tf.cast(seed, tf.int64), tf.cast(sample, tf.int64)
        draws_of = _seeded_draws(seed, sample)
        first, y = self._start(draws_of, num_frames, initial, features, None)
        features, masks = self._controls(y, num_frames + h.num_target_frames, features, masks)

        def solve_chunk(chunk, y, features, masks):
            start, context_from, evaluation, stage, last = chunk
            start, context_from, evaluation = (tf.constant(v) for v in (start, context_from, evaluation))
            return self._traced_solver(h, stage, last)(
                seed, sample, y, start, context_from, evaluation, features, masks
            )

        latents = self._run_plan(solve_chunk, y, first, num_frames, initial is None, features, masks, h)
        parts = [latents[:, i : i + DECODED_AT_ONCE] for i in range(0, num_frames, DECODED_AT_ONCE)]
        return tf.concat([self.decode(part) for part in parts], axis=1)

    def _traced_solver(self, h, stage, last):
        """Traced `_solve_chunk` for one kind of chunk."""
        key = "solve", stage, last, h.num_steps, h.odesolver, h.gamma, h.corrected_rollout
        if key not in self._samplers:

            def run(seed, sample, y, start, context_from, evaluation, features, masks):
                chunk = start, context_from, evaluation, stage, last
                return self._solve_chunk(_seeded_draws(seed, sample), y, *chunk, features, masks, h)

            self._samplers[key] = tf.function(run, autograph=False, reduce_retracing=True)
        return self._samplers[key]

    def _run_plan(self, solve_chunk, y, first, num_frames, from_nothing, features, masks, h):
        """Every chunk in turn; the latents [B, num_frames, h, w, c] of the generated frames.

        A chunk is (start, context_from, evaluations before it, stage, whether the context is
        the frame before it).
        """
        targets = h.num_target_frames
        if h.method == "joint":
            plan = [(i, "first") for i in chunk_starts(first, num_frames, targets)]
        else:
            plan = rollout_plan(first, num_frames, targets)
        for number, (start, stage) in enumerate(plan):
            lowest = 2 if from_nothing and number else 0
            context_from = max(lowest, start - h.past_horizon) if h.past_horizon >= 0 and number else lowest
            context_from = min(context_from, start - 1)
            evaluations = number * h.num_steps * MOST_STAGES
            chunk = start, context_from, evaluations, stage, context_from == start - 1
            part = slice(start - first, start - first + targets)
            moved = solve_chunk(chunk, y, features[:, part], masks[:, part])
            y = tf.concat([y[:, :start], moved, y[:, start + targets :]], axis=1)
        return y[:, first : first + num_frames]

    def _start(self, draws_of, num_frames, initial, features, batch_size):
        """(number of given latents, state [B, n, h, w, c]): given latents, then noise."""
        h = self.hparams
        if initial is not None:
            batch_size = tf.shape(initial)[0]
        elif features is not None:
            batch_size = tf.shape(features)[0]
        shape = (*h.state_res, h.state_size)

        def noise(name, frames):
            return draws_of(name).normal(name, [batch_size, frames, *shape], self.wide_dtype)

        if initial is None:
            given = noise("initial_noise", 2)
        elif initial.shape[1] == 1:
            # One frame has no context: noise stands in for it.
            given = tf.concat([noise("initial_noise", 1), self.encode(initial)], axis=1)
        else:
            given = self.encode(initial)
        y = tf.concat([given, noise("start_noise", num_frames + h.num_target_frames)], axis=1)
        count = given.shape[1]
        return count, tf.ensure_shape(y, [None, count + num_frames + h.num_target_frames, *shape])

    def _controls(self, y, count, features, masks):
        """Controls of `count` generated frames, zeros where none are given."""
        shape = [tf.shape(y)[0], count, *self.hparams.state_res]
        if features is None:
            return tf.zeros([*shape, self.feature_dim], self.wide_dtype), tf.zeros([*shape, 1], self.wide_dtype)
        missing = max(count - features.shape[1], 0)
        pad = [[0, 0], [0, missing], [0, 0], [0, 0], [0, 0]]
        return tf.pad(tf.cast(features, self.wide_dtype), pad), tf.pad(tf.cast(masks, self.wide_dtype), pad)

    def _solve_chunk(self, draws_of, y, start, context_from, evaluations, stage, last, features, masks, h):
        """One solve: the latents [B, T, h, w, c] of frames start .. start+T-1 moved along the flow."""
        targets = h.num_target_frames
        condition = self._condition(features, masks, h.gamma)
        j = tf.range(targets, dtype=self.wide_dtype)

        def velocity(t, chunk, evaluation):
            times, speed = _stage_times(stage, t, j, targets, h.corrected_rollout)
            if last:
                context = tf.fill([h.num_context_frames], context_from)
            else:
                # Drawn anew at each evaluation, one for the whole batch (RIVER's trick).
                draws = draws_of("solve", evaluations + evaluation)
                context = draws.integers("context", [h.num_context_frames], start - 1, minval=context_from)
            return self._velocity(y, chunk, start, context, times, condition, h.gamma) * speed

        chunk = tf.ensure_shape(y[:, start : start + targets], [None, targets, *h.state_res, h.state_size])
        return solve(velocity, chunk, h.num_steps, h.odesolver)

    def _condition(self, features, masks, gamma):
        """Keys and values of the controls: constant over a solve; with guidance those without controls follow."""
        if gamma:
            features, masks = tf.concat([features] * 2, 0), tf.concat([masks, tf.zeros_like(masks)], 0)
        return self.regressor.condition(features, masks, self.hparams.window)

    def _velocity(self, y, chunk, start, context, times, condition, gamma):
        """Velocity of the target frames `chunk` [B, T, h, w, c]."""
        batch, targets = tf.shape(chunk)[0], chunk.shape[1]
        latents = tf.concat([tf.gather(y, context, axis=1), y[:, start - 1 : start], chunk], axis=1)
        latents = tf.ensure_shape(latents, [None, self.hparams.window, *chunk.shape[2:]])
        indices = tf.concat([context, tf.range(start - 1, start + targets)], axis=0)
        clean = self.hparams.window - targets
        times = tf.concat([tf.ones([clean], times.dtype), times], axis=0)
        copies = 2 if gamma else 1
        latents = tf.concat([latents] * copies, axis=0)
        indices, times = (tf.broadcast_to(v[None], [batch * copies, self.hparams.window]) for v in (indices, times))
        velocity, _ = self.regressor(latents, indices=indices, times=times, condition=condition)
        velocity = velocity[:, -targets:]
        if gamma:
            with_controls, without = tf.split(velocity, 2)
            velocity = (1 + gamma) * with_controls - gamma * without
        return velocity

    def generate(self, batch, seed, num_samples=1, horizon=None):
        """See `VideoModel.generate`.

        What is placed comes from the batch's `controls` and `control_masks`; without them and
        with `eval_controls`, from the true future (`true_controls`).

        Returns:
          {"images"} and, with controls, {"control_error", "control_error_repeat"
          [S, B, horizon]}: see `control_error`; and "num_controls", the tiles of each frame.
        """
        given = self.hparams.context_frames or 1
        horizon = horizon or self.hparams.sequence_length - given
        inputs = {"images": batch["images"][:, :given]}
        if "controls" in batch:
            inputs |= {k: batch[k] for k in ("controls", "control_masks")}
        elif self.hparams.eval_controls and batch["images"].shape[1] >= given + horizon:
            inputs["truth"] = batch["images"][:, given : given + horizon]
        key = num_samples, horizon, tuple(inputs)
        if key not in self._samplers:
            self._samplers[key] = tf.function(
                lambda inputs, seed: self.generated(inputs, seed, num_samples, horizon),
                autograph=False,
                reduce_retracing=True,
            )
        seed = tf.convert_to_tensor(np.int64(seed) if isinstance(seed, int) else seed)
        return self._samplers[key](inputs, tf.cast(seed, tf.int64))

    def generated(self, inputs, seed, num_samples, horizon):
        """What `generate` returns, from `images` that are given alone, and controls or `truth`."""
        initial = self.signed(inputs["images"])
        controls, masks = inputs.get("controls"), inputs.get("control_masks")
        if "truth" in inputs:
            controls, masks = self.true_controls(initial, self.signed(inputs["truth"]))
        samples, errors = [], []
        for i in range(num_samples):
            frames = tf.clip_by_value(self.seeded_sample(seed, i, horizon, initial, controls, masks), -1, 1)
            samples.append((frames + 1) / 2)
            if controls is not None:
                errors.append(self.control_error(frames, controls, masks))
        outputs = {"images": tf.stack(samples)}
        if controls is not None:
            repeated = tf.repeat(initial[:, -1:], horizon, axis=1)
            repeat = tf.repeat(self.control_error(repeated, controls, masks)[None], num_samples, axis=0)
            count = tf.reduce_sum(tf.cast(_padded(masks, horizon), self.wide_dtype), axis=[2, 3, 4])
            count = tf.repeat(count[None], num_samples, axis=0)
            outputs |= {"control_error": tf.stack(errors), "control_error_repeat": repeat, "num_controls": count}
        return outputs

    def timed_parts(self, batch):
        """{name: call} of what benchmarks measure beside a whole video: one evaluation of the vector field."""
        h, targets = self.hparams, self.hparams.num_target_frames
        y = tf.zeros([1, h.window, *h.state_res, h.state_size], self.wide_dtype)
        features, masks = self._controls(y, targets, None, None)
        condition = self._condition(features, masks, h.gamma)
        context = tf.zeros([h.num_context_frames], tf.int32)

        @tf.function(autograph=False)
        def velocity(y):
            start = h.window - targets
            return self._velocity(y, y[:, start:], start, context, tf.zeros([targets], y.dtype), condition, h.gamma)

        return {f"one ODE evaluation of {h.window} frames": lambda: velocity(y).numpy()}

    def true_controls(self, initial, truth):
        """Features of the tiles of each true frame that differ most from the frame before: (controls, masks)."""
        before = tf.concat([initial[:, -1:], truth[:, :-1]], axis=1)
        height, width = self.hparams.state_res
        change = tf.reduce_mean(tf.abs(truth - before), axis=-1)  # [B, l, H, W]
        rows, columns = truth.shape[2] // height, truth.shape[3] // width
        change = tf.reshape(change, (-1, truth.shape[1], height, rows, width, columns))
        change = tf.reshape(tf.reduce_mean(change, axis=[3, 5]), (-1, truth.shape[1], height * width))
        count = min(self.hparams.eval_controls, height * width)
        chosen = tf.reduce_sum(tf.one_hot(tf.math.top_k(change, count).indices, height * width), axis=2)
        masks = tf.cast(tf.reshape(chosen, (-1, truth.shape[1], height, width, 1)), self.wide_dtype)
        return self.features(truth) * masks, masks

    def control_error(self, frames, controls, masks):
        """How far placed features are from those of the frames in the same places.

        Args:
          frames: [B, l, H, W, 3] in [-1, 1].
          controls, masks: [B, k, h, w, d] and [B, k, h, w, 1].

        Returns:
          [B, l]: mean over the placed tiles of |placed - found| / |placed|; 0 for frames
          without any.
        """
        length = frames.shape[1]
        controls, masks = (tf.cast(_padded(x, length), self.wide_dtype) for x in (controls, masks))
        distance = tf.norm(self.features(frames) - controls, axis=-1)
        relative = distance / tf.maximum(tf.norm(controls, axis=-1), 1e-6)
        total = tf.reduce_sum(masks[..., 0] * relative, axis=[2, 3])
        return total / tf.maximum(tf.reduce_sum(masks, axis=[2, 3, 4]), 1)

    def signatures(self):
        """serving_default: given frames, controls and a seed -> a video; features: frames -> what can be placed.

        Inputs: images float32 [B, context_frames, H, W, 3] in [0, 1], controls float32
        [B, horizon, h, w, d] and control_masks [B, horizon, h, w, 1] (zeros: none), seed int64
        scalar. Output: images [B, horizon, H, W, 3]. `features` takes images
        [B, T, H, W, 3] and gives features [B, T, h, w, d].
        """
        h, frame = self.hparams, self.spec["images"].shape[1:]
        given = h.context_frames or 1
        horizon, grid = h.sequence_length - given, h.state_res

        def spec(name, *shape):
            return tf.TensorSpec([None, *shape], tf.float32, name=name)

        @tf.function(
            input_signature=[
                spec("images", given, *frame),
                spec("controls", horizon, *grid, self.feature_dim),
                spec("control_masks", horizon, *grid, 1),
                tf.TensorSpec([], tf.int64, name="seed"),
            ],
            autograph=False,
        )
        def serve(images, controls, control_masks, seed):
            inputs = {"images": images, "controls": controls, "control_masks": control_masks}
            return {"images": tf.cast(self.generated(inputs, seed, 1, horizon)["images"][0], tf.float32)}

        @tf.function(input_signature=[spec("images", None, *frame)], autograph=False)
        def features(images):
            grids = by_frame(self._grid_features, self.signed(images))
            return {"features": tf.cast(grids, tf.float32)}

        return {"serving_default": serve, "features": features}


def _seeded_draws(seed, sample):
    def draws_of(name, evaluation=0):
        return StatelessDraws(seed, evaluation, sample, f"generate/{name}")

    return draws_of


def by_frame(function, x):
    """Applies a function of [N, ...] to [B, l, ...]."""
    y = function(tf.reshape(x, (-1, *x.shape[2:])))
    length = tf.shape(x)[1] if x.shape[1] is None else x.shape[1]
    return tf.reshape(y, (tf.shape(x)[0], length, *y.shape[1:]))


def _padded(x, length):
    """x [B, k, ...] with `length` steps: zeros behind, or the first ones."""
    missing = max(length - x.shape[1], 0)
    return tf.pad(x, [[0, 0], [0, missing]] + [[0, 0]] * (x.shape.rank - 2))[:, :length]


def _stage_times(stage, t, j, targets, corrected):
    """Times of the target frames at solver time `t`, and the factor of their velocity."""
    if stage == "first":
        return tf.ones_like(j) * t, 1.0
    if stage == "warm_up":
        share = (targets - j) / targets
        return t * share, share[None, :, None, None, None]
    return (targets - 1 - j + t) / targets, 1.0 / targets if corrected else 1.0
