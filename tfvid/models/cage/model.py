"""CAGE: composition and animation by features placed on a grid (Davtyan et al., AAAI 2025).

A regressor of velocities generates T frames at a time in the latents of a frozen
autoencoder, given one reference frame, one earlier frame, and features of a frozen vision
transformer put at chosen places of chosen frames.
"""

import tensorflow as tf

from tfvid.errors import UserError
from tfvid.models.cage.augmentation import colour_jitter
from tfvid.models.cage.frozen import load_autoencoder, load_vit, make_autoencoder, make_vit
from tfvid.models.cage.generation import Generation, by_frame
from tfvid.models.cage.geometry import transform
from tfvid.models.cage.hparams import CageHParams
from tfvid.models.cage.networks_regressor import VectorFieldRegressor, no_drop
from tfvid.models.draws import StatelessDraws
from tfvid.models.optimizers import Adam
from tfvid.models.video_model import VideoModel


class Cage(Generation, VideoModel):
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
        return tf.cast(images, self.wide_dtype) / 127.5 - 1 if images.dtype == tf.uint8 else images * 2 - 1

    def encode(self, frames):
        """[B, l, H, W, 3] in [-1, 1] -> latents [B, l, h, w, c] times `latent_scale`; no gradient."""
        return self.unscaled_latents(frames) * self.hparams.latent_scale

    def unscaled_latents(self, frames):
        """What the autoencoder makes of frames; what records hold under the key `latents`."""
        return tf.cast(tf.stop_gradient(by_frame(self.autoencoder.encode, frames)), self.wide_dtype)

    def decode(self, latents):
        """What `encode` returns -> frames, about [-1, 1]."""
        return tf.cast(by_frame(self.autoencoder.decode, latents / self.hparams.latent_scale), self.wide_dtype)

    def features(self, frames):
        """[B, l, H, W, 3] in [-1, 1] -> [B, l, h, w, d]; no gradient."""
        return tf.cast(tf.stop_gradient(by_frame(self._grid_features, frames)), self.wide_dtype)

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
            total = self.hparams.flow_matching_loss * loss
        gradients = tape.gradient(total, self.optimizers_by_name["regressor"].targets)
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
            known["latents"] = tf.cast(batch["latents"], self.wide_dtype) * h.latent_scale
            if "features" in batch and h.no_scale_inv:
                known["features"] = tf.cast(batch["features"], self.wide_dtype)
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
        share = self._early(1.0, h.feats_select_prob) if drop_context else h.feats_select_prob
        shown = draws.bernoulli("select", tf.shape(allowed), share)
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
        without_context = draws.uniform("drop_context", [1])[0] < self._early(1.0, h.no_context_p)
        without_reference = draws.uniform("drop_reference", [1])[0] < self._early(1.0, h.no_reference_p)
        noise = draws.normal("replacement", tf.shape(latents[:, : context + 1]), latents.dtype)
        replaced = tf.range(context + 1) < tf.where(without_reference, context + 1, context)
        replaced = tf.logical_and(replaced, without_context)[None, :, None, None, None]
        first = tf.where(replaced, noise, latents[:, : context + 1])
        return tf.concat([first, latents[:, context + 1 :]], axis=1)

    def _early(self, value, later):
        """`value` in the first `controls_first_steps` steps, then `later`."""
        steps = self.hparams.controls_first_steps
        return tf.where(self.step < steps, value, later) if steps else later

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
        factor = tf.minimum(h.max_grad_norm / (norm + 1e-6), 1.0)
        return tf.where(self.step > h.num_warmup_steps, factor, tf.ones_like(factor))
