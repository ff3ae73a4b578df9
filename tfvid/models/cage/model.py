"""CAGE: composition and animation by features placed on a grid (Davtyan et al., AAAI 2025).

A regressor of velocities generates T frames at a time in the latents of a frozen
autoencoder, given one reference frame, one earlier frame, and features of a frozen vision
transformer put at chosen places of chosen frames.
"""

import numpy as np
import tensorflow as tf

from tfvid.errors import UserError
from tfvid.models.cage.augmentation import colour_jitter
from tfvid.models.cage.frozen import load_autoencoder, load_vit, make_autoencoder, make_vit
from tfvid.models.cage.geometry import transform
from tfvid.models.cage.hparams import CageHParams
from tfvid.models.cage.networks_regressor import VectorFieldRegressor, no_drop
from tfvid.models.cage.sampling import chunk_starts, rollout_plan, solve
from tfvid.models.draws import StatelessDraws
from tfvid.models.optimizers import Adam
from tfvid.models.video_model import VideoModel


class Cage(VideoModel):
    """Generates latents of T frames by flow matching; see the module's docstring.

    Batch: `images` [B, T', H, W, 3], at least num_context_frames + 1 + num_target_frames
    frames; where the data hold them, `latents` [B, T', h, w, c] and `features`
    [B, T', h, w, d] of these frames are used instead of computing them (`cached`). For
    sampling, `controls` [B, k, h, w, d] and `control_masks` [B, k, h, w, 1] of generated
    frames 0 .. k-1.
    """

    HPARAMS = CageHParams
    OPTIONAL_KEYS = ("latents", "features")

    def __init__(self, hparams, spec, seed=0, name="cage"):
        super().__init__(hparams, spec, seed=seed, name=name)
        self.autoencoder, self.vit = make_autoencoder(hparams), make_vit(hparams)
        self.autoencoder.trainable = self.vit.trainable = False
        self._check_sizes()
        self._samplers = {}
        self.feature_dim = self.vit.dim * hparams.num_dino_layers
        h = hparams
        self.regressor = VectorFieldRegressor(
            state_size=h.state_size,
            state_res=h.state_res,
            feature_dim=self.feature_dim,
            inner_dim=h.inner_dim,
            num_heads=h.num_heads,
            fc_dim=h.fc_dim,
            depth=h.depth,
            mid_depth=h.mid_depth,
            max_relative_position=h.max_relative_position,
            masking_ratio=h.masking_ratio,
            causal=h.causal,
            name="vector_field_regressor",
        )
        adam = Adam(
            self.regressor.trainable_variables,
            beta1=h.beta1,
            beta2=h.beta2,
            form="torch",
            weight_decay=h.weight_decay,
            decoupled=True,
            name="regressor",
        )
        self.finish_build({"regressor": adam})

    def _check_sizes(self):
        h, (height, width) = self.hparams, self.spec["images"].shape[1:3]
        grid = (height // self.autoencoder.factor, width // self.autoencoder.factor)
        if grid != h.state_res or height % self.autoencoder.factor or width % self.autoencoder.factor:
            raise UserError(
                f"state_res: expected {grid}, the frames' {height}x{width} over {self.autoencoder.factor}."
                f" Received: state_res={h.state_res}"
            )
        if self.autoencoder.latent_channels != h.state_size:
            raise UserError(
                f"state_size: expected {self.autoencoder.latent_channels}, that of the autoencoder."
                f" Received: state_size={h.state_size}"
            )

    def check_spec(self):
        super().check_spec()
        shape, least = self.spec["images"].shape, self.hparams.window
        if shape.rank != 4 or shape[-1] != 3 or (shape[0] is not None and shape[0] < least):
            raise UserError(f"images: expected [T, H, W, 3] with at least {least} frames. Received: {shape.as_list()}")

    def begin_training(self):
        """Takes the frozen networks from `autoencoder_checkpoint` and `vit_checkpoint`."""
        load_autoencoder(self.autoencoder, self.hparams, self.hparams.autoencoder_checkpoint)
        load_vit(self.vit, self.hparams.vit_checkpoint)

    # The frozen networks.

    def signed(self, images):
        """uint8, or float in [0, 1] -> [-1, 1]."""
        return tf.cast(images, self._float) / 127.5 - 1 if images.dtype == tf.uint8 else images * 2 - 1

    def encode(self, frames):
        """[B, l, H, W, 3] in [-1, 1] -> latents [B, l, h, w, c]; no gradient."""
        return tf.stop_gradient(_by_frame(self.autoencoder.encode, frames))

    def decode(self, latents):
        """Latents -> frames, about [-1, 1]."""
        return _by_frame(self.autoencoder.decode, latents)

    def features(self, frames):
        """[B, l, H, W, 3] in [-1, 1] -> [B, l, h, w, d]; no gradient."""
        return tf.stop_gradient(_by_frame(self._grid_features, frames))

    def _grid_features(self, frames):
        h = self.hparams
        return self.vit.features(frames, h.state_res, h.num_dino_layers, h.feature_image_size)

    # Training.

    def train_step(self, batch):
        """One update of the regressor."""
        draws = self.train_draws()
        images = self.signed(self.augmented(batch["images"], draws))
        inputs = self.training_inputs(images, draws, self.cached(batch))
        with tf.GradientTape() as tape:
            loss = self.flow_loss(inputs, self.dropout(draws))
        gradients = tape.gradient(loss, self.optimizers_by_name["regressor"].targets)
        lr = self.learning_rate()
        logs = self.apply_gradients("regressor", gradients, lr, clip=self._clip)
        self.finish_step()
        return {"flow_matching_loss": loss, "num_controls": inputs["num_controls"], "lr": lr, **logs}

    def augmented(self, images, draws):
        """uint8 [B, T, H, W, 3], some clips mirrored, all with other colours, where asked for."""
        h, batch = self.hparams, tf.shape(images)[0]
        if h.random_horizontal_flip:
            flip = draws.bernoulli("flip", [batch], 0.5)
            images = tf.where(flip[:, None, None, None, None], images[:, :, :, ::-1], images)
        if h.aug:
            changed = colour_jitter(tf.cast(images, tf.float32), draws.uniform("jitter", [batch, 4]))
            images = tf.cast(changed, tf.uint8)
        return images

    def cached(self, batch):
        """What the data hold of the frozen networks' outputs and training can use: {"latents", "features"}.

        Latents belong to frames as they are stored, features to whole frames: augmentation
        and random windows (without `no_scale_inv`) need both computed anew.
        """
        h, known = self.hparams, {}
        if "latents" in batch and not (h.random_horizontal_flip or h.aug):
            known["latents"] = tf.cast(batch["latents"], self._float)
            if "features" in batch and h.no_scale_inv:
                known["features"] = tf.cast(batch["features"], self._float)
        return known

    def training_inputs(self, images, draws, known=None, drop_context=True):
        """Draws frames, windows, controls and noise; everything before the regressor.

        Args:
          images: [B, T', H, W, 3] in [-1, 1].
          draws: a `Draws`.
          known: latents and features of all frames, as `cached` gives them.
          drop_context: replace context by noise as often as the hyper-parameters say.

        Returns:
          A dictionary: `latents` (noised), `target` (the velocity), `indices`, `times`,
          `features`, `masks`, `order`, `num_controls`.
        """
        h, (batch, total) = self.hparams, tf.unstack(tf.shape(images)[:2])
        context, targets = h.num_context_frames, h.num_target_frames
        reference = draws.integers("reference", [batch], total - targets, minval=context)
        earlier = draws.integers("context", [batch, context], reference[:, None])
        following = reference[:, None] + 1 + tf.range(targets)
        indices = tf.concat([tf.sort(earlier, axis=1), reference[:, None], following], axis=1)
        known = known or {}

        def chosen(x):
            return tf.ensure_shape(tf.gather(x, indices, batch_dims=1), [None, h.window, *x.shape[2:]])

        frames = chosen(images)
        latents = chosen(known["latents"]) if "latents" in known else self.encode(frames)
        if "features" in known:
            features = chosen(known["features"])[:, -targets:]
            allowed = tf.ones_like(features[..., :1])
        else:
            features, allowed = self.window_features(frames[:, -targets:], draws)
        shown = draws.bernoulli("select", tf.shape(allowed), h.feats_select_prob)
        masks = allowed * tf.cast(shown, allowed.dtype)
        noised, target, times = self.noised(latents, draws)
        noised = self.dropped_context(noised, draws) if drop_context else noised
        order = draws.uniform("order", [batch, h.state_res[0] * h.state_res[1]])
        return {
            "latents": noised,
            "target": target,
            "indices": indices,
            "times": times,
            "features": features,
            "masks": masks,
            "order": order,
            "num_controls": tf.reduce_mean(tf.reduce_sum(masks, axis=(2, 3, 4))),
        }

    def window_features(self, frames, draws):
        """Features of random windows, put back at their places, and where they are known.

        Args:
          frames: [B, T, H, W, 3].

        Returns:
          features [B, T, h, w, d], allowed [B, T, h, w, 1] (1 inside the window).
        """
        batch, count = tf.shape(frames)[0], frames.shape[1]
        if self.hparams.no_scale_inv:
            features = self.features(frames)
            return features, tf.ones_like(features[..., :1])
        scale = 0.5 * draws.uniform("scale", [batch * count, 2]) + 0.5
        shift = 0.75 * (2 * draws.uniform("shift", [batch * count, 2]) - 1)
        window = tf.concat([scale, shift], axis=1)
        flat = tf.reshape(frames, (-1, *frames.shape[2:]))
        crops = tf.reshape(transform(flat, window), tf.shape(frames))
        features = self.features(tf.ensure_shape(crops, frames.shape))
        ones = tf.ones_like(features[..., :1])

        def put_back(x):
            y = transform(tf.reshape(x, (-1, *x.shape[2:])), window, inverse=True, nearest=True)
            return tf.reshape(y, (-1, count, *x.shape[2:]))

        return put_back(features), put_back(ones)

    def noised(self, latents, draws):
        """(x_t, velocity, times [B, l]) of latents [B, l, h, w, c]; the given frames stay clean."""
        h, batch = self.hparams, tf.shape(latents)[0]
        clean, targets = h.window - h.num_target_frames, h.num_target_frames
        noise = draws.normal("noise", tf.shape(latents), latents.dtype)
        drawn = draws.uniform("times", [batch, 1 if h.same_t else targets], latents.dtype)
        times = tf.concat([tf.ones([batch, clean], latents.dtype), tf.broadcast_to(drawn, [batch, targets])], axis=1)
        t, rest = times[:, :, None, None, None], 1 - h.sigma
        return (1 - rest * t) * noise + t * latents, latents - rest * noise, times

    def dropped_context(self, latents, draws):
        """Replaces the context, or context and reference, by noise: one coin for the whole batch."""
        h = self.hparams
        context = h.num_context_frames
        without_context = draws.uniform("drop_context", [1])[0] < h.no_context_p
        without_reference = draws.uniform("drop_reference", [1])[0] < h.no_reference_p
        noise = draws.normal("replacement", tf.shape(latents[:, : context + 1]), latents.dtype)
        replaced = tf.range(context + 1) < tf.where(without_reference, context + 1, context)
        replaced = tf.logical_and(replaced, without_context)[None, :, None, None, None]
        first = tf.where(replaced, noise, latents[:, : context + 1])
        return tf.concat([first, latents[:, context + 1 :]], axis=1)

    def flow_loss(self, inputs, drop=no_drop):
        """Mean squared error of the velocity of the target frames, at the positions kept."""
        targets = self.hparams.num_target_frames
        condition = self.regressor.condition(inputs["features"], inputs["masks"], self.hparams.window)
        velocity, kept = self.regressor(
            inputs["latents"],
            indices=inputs["indices"],
            times=inputs["times"],
            condition=condition,
            order=inputs["order"],
            drop=drop,
        )
        error = tf.square(velocity[:, -targets:] - inputs["target"][:, -targets:])
        kept = tf.cast(kept, error.dtype)[:, None, :, :, None]
        count = tf.reduce_sum(kept) * targets * error.shape[-1]
        return tf.reduce_sum(kept * error) / count

    def test_step(self, batch):
        """Error of the velocity at all positions, context given, with the controls and without any."""
        draws = StatelessDraws(self.seed, stream="validation")
        images, targets = self.signed(batch["images"]), self.hparams.num_target_frames
        inputs = self.training_inputs(images, draws, self.cached(batch), drop_context=False)
        losses = {}
        for name, masks in (("", inputs["masks"]), ("_without_controls", tf.zeros_like(inputs["masks"]))):
            condition = self.regressor.condition(inputs["features"], masks, self.hparams.window)
            velocity, _ = self.regressor(inputs["latents"], inputs["indices"], inputs["times"], condition)
            error = tf.square(velocity[:, -targets:] - inputs["target"][:, -targets:])
            losses[f"flow_matching_loss{name}"] = tf.reduce_mean(error, axis=[1, 2, 3, 4])
        return losses

    def dropout(self, draws):
        """The function that the networks call to drop out."""
        rate = self.hparams.dropout
        if not rate:
            return no_drop

        def drop(name, x):
            keep = draws.uniform(f"dropout/{name}", tf.shape(x)) >= rate
            return tf.where(keep, x / (1 - rate), tf.zeros_like(x))

        return drop

    def learning_rates(self):
        return {"lr": self.learning_rate()}

    def learning_rate(self):
        """Linear warm-up from 0, then polynomial decay to end_lr."""
        # In float64: near the end 1 - share loses its digits in float32.
        h, step = self.hparams, tf.cast(self.step, tf.float64)
        warm = h.lr * step / max(h.num_warmup_steps, 1)
        share = (step - h.num_warmup_steps) / (h.num_training_steps - h.num_warmup_steps)
        decayed = (h.lr - h.end_lr) * tf.pow(tf.clip_by_value(1 - share, 0, 1), h.lr_power) + h.end_lr
        return tf.cast(tf.where(step < h.num_warmup_steps, warm, decayed), tf.float32)

    def _clip(self, norm):
        """Factor of the gradients, PyTorch's form, only after the warm-up."""
        h = self.hparams
        if not h.max_grad_norm:
            return tf.ones_like(norm)
        factor = tf.minimum(1.0, h.max_grad_norm / (norm + 1e-6))
        return tf.where(self.step > h.num_warmup_steps, factor, tf.ones_like(factor))

    # Sampling.

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
        if h.method == "joint":
            plan = [(i, "first") for i in chunk_starts(first, num_frames, h.num_target_frames)]
        else:
            plan = rollout_plan(first, num_frames, h.num_target_frames)
        from_nothing = initial is None
        for number, (start, stage) in enumerate(plan):
            y = self._solve_chunk(draws_of, y, start, stage, first, number, from_nothing, features, masks, h)
        return self.decode(y[:, first : first + num_frames])

    def _start(self, draws_of, num_frames, initial, features, batch_size):
        """(number of given latents, state [B, n, h, w, c]): given latents, then noise."""
        h = self.hparams
        if initial is not None:
            batch_size = tf.shape(initial)[0]
        elif features is not None:
            batch_size = tf.shape(features)[0]
        shape = (*h.state_res, h.state_size)

        def noise(name, frames):
            return draws_of(name).normal(name, [batch_size, frames, *shape], self._float)

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
            return tf.zeros([*shape, self.feature_dim], self._float), tf.zeros([*shape, 1], self._float)
        missing = max(count - features.shape[1], 0)
        pad = [[0, 0], [0, missing], [0, 0], [0, 0], [0, 0]]
        return tf.pad(tf.cast(features, self._float), pad), tf.pad(tf.cast(masks, self._float), pad)

    def _solve_chunk(self, draws_of, y, start, stage, first, number, from_nothing, features, masks, h):
        """One solve: the state with frames start .. start+T-1 moved along the flow."""
        targets = h.num_target_frames
        offset = start - first
        features, masks = features[:, offset : offset + targets], masks[:, offset : offset + targets]
        condition = self._condition(features, masks, h.gamma)
        lowest = 2 if from_nothing and number else 0
        context_from = max(lowest, start - h.past_horizon) if h.past_horizon >= 0 and number else lowest
        context_from = min(context_from, start - 1)
        j = tf.range(targets, dtype=self._float)

        def velocity(t, chunk, evaluation):
            times, speed = _stage_times(stage, t, j, targets, h.corrected_rollout)
            if context_from == start - 1:
                context = tf.fill([h.num_context_frames], context_from)
            else:
                # Drawn anew at each evaluation, one for the whole batch (RIVER's trick).
                draws = draws_of(f"solve_{number}", evaluation)
                context = draws.integers("context", [h.num_context_frames], start - 1, minval=context_from)
            return self._velocity(y, chunk, start, context, times, condition, h.gamma) * speed

        moved = solve(velocity, y[:, start : start + targets], h.num_steps, h.odesolver)
        return tf.concat([y[:, :start], moved, y[:, start + targets :]], axis=1)

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
                lambda inputs, seed: self.generated(inputs, seed, num_samples, horizon), reduce_retracing=True
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

            def draws_of(name, evaluation=0, sample=i):
                return StatelessDraws(seed, evaluation, 0, f"generate/{sample}/{name}")

            frames = tf.clip_by_value(self.sample(draws_of, horizon, initial, controls, masks), -1, 1)
            samples.append((frames + 1) / 2)
            if controls is not None:
                errors.append(self.control_error(frames, controls, masks))
        outputs = {"images": tf.stack(samples)}
        if controls is not None:
            repeated = tf.repeat(initial[:, -1:], horizon, axis=1)
            repeat = tf.repeat(self.control_error(repeated, controls, masks)[None], num_samples, axis=0)
            count = tf.reduce_sum(tf.cast(_padded(masks, horizon), self._float), axis=[2, 3, 4])
            count = tf.repeat(count[None], num_samples, axis=0)
            outputs |= {"control_error": tf.stack(errors), "control_error_repeat": repeat, "num_controls": count}
        return outputs

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
        masks = tf.cast(tf.reshape(chosen, (-1, truth.shape[1], height, width, 1)), self._float)
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
        controls, masks = (tf.cast(_padded(x, length), self._float) for x in (controls, masks))
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
            ]
        )
        def serve(images, controls, control_masks, seed):
            inputs = {"images": images, "controls": controls, "control_masks": control_masks}
            return {"images": tf.cast(self.generated(inputs, seed, 1, horizon)["images"][0], tf.float32)}

        @tf.function(input_signature=[spec("images", None, *frame)])
        def features(images):
            grids = _by_frame(self._grid_features, self.signed(images))
            return {"features": tf.cast(grids, tf.float32)}

        return {"serving_default": serve, "features": features}

    @property
    def _float(self):
        return tf.float64 if self.hparams.precision == "float64" else tf.float32


def _by_frame(function, x):
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
