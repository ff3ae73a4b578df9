"""SAVP: Stochastic Adversarial Video Prediction (Lee et al., 2018), training and sampling."""

import keras
import tensorflow as tf
from absl import logging

from tfvid.errors import UserError
from tfvid.layers import xla
from tfvid.layers.over_steps import KernelGradients
from tfvid.layers.rollout import UNROLL_LIMIT
from tfvid.layers.shared_function import shared_function
from tfvid.models.draws import StatelessDraws
from tfvid.models.optimizers import Adam
from tfvid.models.savp import losses as losses_lib
from tfvid.models.savp.hparams import SAVPHParams
from tfvid.models.savp.networks_discriminator import DiscriminatorSet
from tfvid.models.savp.networks_generator import Generator
from tfvid.models.video_model import VideoModel, weighted_sum

# Batch key -> name inside the generator.
INPUTS = {"images": "image", "actions": "action", "states": "state", "pix_distribs": "pix_distrib"}
# Below this probability no true frame is fed at all, as in the original.
LEAST_PROBABILITY = 0.001


class SAVP(VideoModel):
    """Predicts frames by warping and blending; trained as VAE and GAN together.

    Paper: https://arxiv.org/abs/1804.01523. Weights of 0 give the paper's ablations: GAN
    only, VAE only, and with nz=0 a deterministic model.

    Batch: images [B, T, H, W, C] (T = sequence_length; H and W divisible by 8 at 64
    pixels); actions [B, T-1, A], states [B, T, D], pix_distribs [B, T, H, W, P] where the
    data has them.

    Args:
      hparams: SAVPHParams with context_frames and sequence_length set.
      spec: {key: tf.TensorSpec} of one batch element.
      seed: of the run.

    Example:
      hparams = SAVPHParams(context_frames=2, sequence_length=12)
      model = models.build("savp", hparams, {"images": tf.TensorSpec([12, 64, 64, 3], "uint8")})
      videos = model.generate({"images": frames}, seed=0, num_samples=5, horizon=28)["images"]
    """

    HPARAMS = SAVPHParams
    OPTIONAL_KEYS = ("actions", "states", "pix_distribs")
    TRAINING_NETWORKS = ("discriminator",)

    def __init__(self, hparams, spec, seed=0, name="savp"):
        super().__init__(hparams, spec, seed, name=name)
        sizes = _checked_sizes(hparams, spec)
        shape = sizes["images"]
        self.input_keys = [k for k in INPUTS if k in spec]
        self.generator = Generator(shape, sizes["actions"], sizes["states"], hparams)
        optimizers = {"generator": self._adam("generator", self.generator.trainable_variables)}
        self.discriminator = self.posterior_discriminator = None
        kinds = hparams.discriminator_kinds
        if kinds and self.has_training_networks:
            self.discriminator = self.posterior_discriminator = DiscriminatorSet("discriminator", kinds, shape, hparams)
            if hparams.nz and not hparams.use_same_discriminator:
                with keras.name_scope("discriminator"):
                    self.posterior_discriminator = DiscriminatorSet("encoder", kinds, shape, hparams)
            variables = [v for s in self.discriminator_sets.values() for v in s.trainable_variables]
            optimizers["discriminator"] = self._adam("discriminator", variables)
        self._samplers = {}
        self.finish_build(optimizers)

    def _adam(self, name, variables):
        h = self.hparams
        return Adam(variables, beta1=h.beta1, beta2=h.beta2, epsilon=1e-8, form="keras", name=name)

    @property
    def discriminator_sets(self):
        """{name: DiscriminatorSet}: "prior" and, where it is another one, "posterior"."""
        if self.discriminator is None:
            return {}
        sets = {"prior": self.discriminator}
        if self.posterior_discriminator is not self.discriminator:
            sets["posterior"] = self.posterior_discriminator
        return sets

    def learning_rates(self):
        return {"learning_rate": self.hparams.learning_rate(self.step), "kl_weight": self.kl_weight()}

    def kl_weight(self):
        """The annealed weight at this step."""
        return self.hparams.annealed_kl_weight(self.step)

    # One training step.

    # Nothing below branches on a tensor: without AutoGraph tracing takes half the time.
    @tf.autograph.experimental.do_not_convert
    def train_step(self, batch):
        """Discriminators first, then the generator against the updated ones (spec section 3.4)."""
        draws, rate = self.train_draws(), self.hparams.learning_rate(self.step)
        generator = self.optimizers_by_name["generator"]
        weights = losses_lib.generator_weights(self.hparams, self.kl_weight())
        inputs = self.prepare(batch)
        # Only what is watched is differentiated: never a discriminator on the generator's tape.
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([v.value for v in generator.targets])
            outputs = self.forward(inputs, draws, training=True)
            shared = self.frame_losses(inputs, outputs)
            logs, adversarial = self._adversarial_step(tape, inputs, outputs, draws, rate)
            total = weighted_sum({**shared, **adversarial["post"]}, weights)
        gradients = tape.gradient(total, [v.value for v in generator.targets])
        logs.update(self.apply_gradients("generator", gradients, rate))
        before = {**shared, **adversarial["pre"]}
        logs.update(before, g_loss=weighted_sum(before, weights))
        if adversarial["post"] is not adversarial["pre"]:
            logs.update({f"{k}_post": v for k, v in adversarial["post"].items()}, g_loss_post=total)
        if "ground_truth_sampling_mean" in outputs:
            logs["ground_truth_sampling_mean"] = outputs["ground_truth_sampling_mean"]
        self.finish_step()
        return logs

    def _adversarial_step(self, tape, inputs, outputs, draws, rate):
        """Updates the discriminators.

        Returns:
          logs of the update, and {"pre": losses of the generator before it, "post": those
          that it minimises}. The same dictionary twice where both are one.
        """
        if self.discriminator is None:
            return {}, dict.fromkeys(("pre", "post"), {})
        vectors = {name: s.vectors() for name, s in self.discriminator_sets.items()}
        if self.hparams.joint_gan_optimization:
            gradients, losses, judged, advanced = self._first_pass(inputs, outputs, draws, vectors, tape)
            pre = post = losses_lib.generator_adversarial_losses(self.hparams, judged)
            with tape.stop_recording():
                logs = self._update_discriminators(gradients, losses, advanced, rate)
        else:
            with tape.stop_recording():
                gradients, losses, judged, advanced = self._first_pass(inputs, outputs, draws, vectors)
                pre = losses_lib.generator_adversarial_losses(self.hparams, judged)
                logs = self._update_discriminators(gradients, losses, advanced, rate)
            # The updated kernels, from the vectors of before the update, on fresh clips.
            calls = self.calls_of_generator()
            judged, _ = self.judge("pass2", inputs, outputs, draws, calls, vectors)
            post = losses_lib.generator_adversarial_losses(self.hparams, judged)
        return logs, {"pre": pre, "post": post}

    def _first_pass(self, inputs, outputs, draws, vectors, outer=None):
        """Gradients and losses of the discriminators, and all that they said."""
        calls = self.calls_of_discriminators()
        variables = [v.value for v in self.optimizers_by_name["discriminator"].targets]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            judged, advanced = self.judge("pass1", inputs, outputs, draws, calls, vectors)
            losses = losses_lib.discriminator_losses(self.hparams, judged)
            total = weighted_sum(losses, losses_lib.discriminator_weights(self.hparams))
        if outer is None:
            return tape.gradient(total, variables), {**losses, "d_loss": total}, judged, advanced
        with outer.stop_recording():
            gradients = tape.gradient(total, variables)
        return gradients, {**losses, "d_loss": total}, judged, advanced

    def _update_discriminators(self, gradients, losses, advanced, rate):
        logs = self.apply_gradients("discriminator", gradients, rate)
        for name, discriminators in self.discriminator_sets.items():
            discriminators.assign_vectors(advanced[name])
        return {**losses, **logs}

    # Forward passes.

    def prepare(self, batch):
        """The batch under the generator's names, in floats, of sequence_length frames at most."""
        inputs = {}
        for key in self.input_keys:
            value = tf.convert_to_tensor(batch[key])
            inputs[INPUTS[key]] = self.images_to_float(value) if key == "images" else tf.cast(value, self.wide_dtype)
        return inputs

    def forward(self, inputs, draws, training, rollouts=None, keep=None):
        """The rollouts with posterior and with prior latents.

        Args:
          inputs: what `prepare` returns, all T frames.
          draws: noise: eps_posterior [T-1, B, nz]; z_prior [T-C, B, nz] or, with a learnt
            prior, eps_prior [T-1, B, nz]; in training gt_sampling, gt_sampling_enc [T-1-C, B].
          training: whether true frames are fed after the context by the schedule.
          rollouts: subset of ("posterior", "prior"); None: those that the losses need.
          keep: outputs of the rollouts; None: those that the losses need.

        Returns:
          {"posterior": {"image" [B, T-1, H, W, C], ...}, "prior": ..., "zs_mu_enc",
          "zs_log_sigma_sq_enc", "zs_mu_prior", "zs_log_sigma_sq_prior" [B, T-1, nz],
          "ground_truth_sampling_mean[_enc]"}, what there is.
        """
        h = self.hparams
        rollouts = self._needed_rollouts() if rollouts is None else rollouts
        keep = self._needed_outputs() if keep is None else keep
        frames = inputs["image"].shape[1]
        result, latents = self._latents(inputs, draws, frames, rollouts)
        ground_truth = []
        for name in rollouts:
            suffix = "_enc" if name == "posterior" else ""
            mask, mean = self._ground_truth(inputs, draws, f"gt_sampling{suffix}", frames, training)
            ground_truth.append(mask)
            result[f"ground_truth_sampling_mean{suffix}"] = mean
        shared = h.context_frames - 1 if len(rollouts) == 2 and not h.learn_prior else 0
        kernels = KernelGradients(frames - 1)
        with kernels.collecting(training and frames - 1 <= UNROLL_LIMIT):
            step = self.generator.bind(keep)
        videos = self.generator.unroll(
            kernels.shared(step),
            inputs,
            [latents[name] for name in rollouts],
            ground_truth,
            frames - h.context_frames,
            shared,
            keep,
        )
        return {**result, **dict(zip(rollouts, videos))}

    def _needed_rollouts(self):
        h = self.hparams
        if not h.nz:
            return ("prior",)
        return ("posterior", "prior") if h.gan_kinds else ("posterior",)

    def _needed_outputs(self):
        h = self.hparams
        return ("image", *(["state"] if h.state_weight else []), *(["flows"] if h.tv_weight else []))

    def _latents(self, inputs, draws, frames, rollouts):
        """(distributions, {rollout: latents [B, T-1, nz]})."""
        h, result = self.hparams, {}
        if not h.nz:
            return result, dict.fromkeys(rollouts)
        images, actions = inputs["image"], inputs.get("action")
        batch, steps, context = _batch_size(images), frames - 1, h.context_frames
        mu, log_sigma_sq = self.generator.encoder.bind()(images, actions)
        result["zs_mu_enc"], result["zs_log_sigma_sq_enc"] = mu, log_sigma_sq
        posterior = _sample(mu, log_sigma_sq, draws.normal("eps_posterior", [steps, batch, h.nz], mu.dtype))
        latents = {"posterior": posterior}
        if h.learn_prior:
            prior = self.generator.prior.bind()(images[:, :context], actions, steps)
            result["zs_mu_prior"], result["zs_log_sigma_sq_prior"] = prior
            if "prior" in rollouts:
                latents["prior"] = _sample(*prior, draws.normal("eps_prior", [steps, batch, h.nz], mu.dtype))
        elif "prior" in rollouts:
            noise = draws.normal("z_prior", [frames - context, batch, h.nz], mu.dtype)
            latents["prior"] = tf.concat([posterior[:, : context - 1], _time_second(noise)], axis=1)
        return result, latents

    def _ground_truth(self, inputs, draws, name, frames, training):
        """(mask [B, T-1-C] or None, its mean)."""
        length = frames - 1 - self.hparams.context_frames
        if not training or self.hparams.schedule_sampling == "none" or length == 0:
            return None, tf.constant(0.0)
        probability = self.hparams.ground_truth_probability(self.step)
        mask = draws.bernoulli(name, [length, _batch_size(inputs["image"])], probability)
        mask = _time_second(tf.logical_and(mask, probability >= LEAST_PROBABILITY))
        return mask, tf.reduce_mean(tf.cast(mask, tf.float32))

    def frame_losses(self, inputs, outputs):
        """The generator's losses that ask no discriminator, {name: scalar}."""
        first = self._first_judged()
        rollout = outputs["posterior" if self.hparams.nz else "prior"]
        targets = {"images": inputs["image"][:, 1 + first :]}
        if "state" in inputs:
            targets["states"] = inputs["state"][:, 1 + first :]
        judged = {k: v[:, first:] for k, v in rollout.items()}
        losses = losses_lib.reconstruction_losses(self.hparams, targets, judged)
        if self.hparams.nz:
            posterior, prior = (
                tuple(outputs[f"zs_{part}_{name}"][:, first:] for part in ("mu", "log_sigma_sq"))
                if f"zs_mu_{name}" in outputs
                else None
                for name in ("enc", "prior")
            )
            losses.update(losses_lib.latent_losses(self.hparams, posterior, prior))
        return losses

    def _first_judged(self):
        """Index of the first prediction that has a loss."""
        return self.hparams.context_frames - 1 if self.hparams.loss_on_future_only else 0

    # Discriminators.

    def calls_of_discriminators(self):
        """{call: kinds} that the discriminators' losses need."""
        h = self.hparams
        calls = {"real": h.gan_kinds, "fake": h.gan_kinds, "enc_real": h.vae_gan_kinds, "enc_fake": h.vae_gan_kinds}
        return {call: kinds for call, kinds in calls.items() if kinds}

    def calls_of_generator(self):
        """{call: kinds} that the generator's losses need: real videos for feature matching only."""
        h, calls = self.hparams, self.calls_of_discriminators()
        if not (h.gan_feature_l2_weight or h.gan_feature_cdist_weight):
            calls.pop("real", None)
        if not (h.vae_gan_feature_l2_weight or h.vae_gan_feature_cdist_weight):
            calls.pop("enc_real", None)
        return calls

    def judge(self, stage, inputs, outputs, draws, calls, vectors=None):
        """Asks the discriminators; one call of a network for all videos that it judges with gradients.

        Args:
          stage: "pass1" or "pass2", names the draws.
          inputs, outputs: of `forward`.
          draws: discrim/<stage>/<call>/t_sample, t_start: int32 [B].
          calls: {"real", "fake", "enc_real", "enc_fake": kinds of discriminators}.
          vectors: {set: what DiscriminatorSet.vectors returns}; None: as stored.

        Returns:
          {call: {kind: (logits, features)}}, {set: advanced vectors}.
        """
        first, groups = self._first_judged(), {}
        for call, kinds in calls.items():
            name = "posterior" if call.startswith("enc_") and "posterior" in self.discriminator_sets else "prior"
            # For the generator true videos have no gradient, so they stay out of the others' batch.
            apart = stage == "pass2" and call.endswith("real")
            groups.setdefault((name, tuple(kinds), apart), []).append(call)
        bound = {
            name: discriminators.bind(vectors and vectors[name])
            for name, discriminators in self.discriminator_sets.items()
        }
        judged = {}
        offsets = self._offsets(stage, inputs, draws, calls)
        for (name, kinds, _), members in groups.items():
            videos = [self._video(call, inputs, outputs)[:, first:] for call in members]
            answers = bound[name][0](videos, [offsets[call] for call in members], kinds)
            judged.update(zip(members, answers))
        return judged, {name: advanced for name, (_, advanced) in bound.items()}

    def _video(self, call, inputs, outputs):
        if call.endswith("real"):
            return inputs["image"][:, 1:]
        return outputs["posterior" if call == "enc_fake" else "prior"]["image"]

    def _offsets(self, stage, inputs, draws, calls):
        """{call: {"t_sample", "t_start": int32 [B]}}: what each judged video's discriminators look at."""
        batch = _batch_size(inputs["image"])
        frames = inputs["image"].shape[1] - 1 - self._first_judged()
        kinds = {k for group in calls.values() for k in group}

        def draw(call, kinds):
            offsets = {}
            if "image_sn" in kinds:
                offsets["t_sample"] = draws.integers(f"discrim/{stage}/{call}/t_sample", [batch], frames)
            if set(kinds) - {"image_sn"}:
                starts = frames - self.hparams.clip_length + 1
                offsets["t_start"] = draws.integers(f"discrim/{stage}/{call}/t_start", [batch], starts)
            return offsets

        if self.hparams.share_clip_offsets:
            return dict.fromkeys(calls, draw("all", kinds))
        return {call: draw(call, group) for call, group in calls.items()}

    # Validation and sampling.

    @tf.autograph.experimental.do_not_convert
    def test_step(self, batch):
        """Losses without discriminators, and error and PSNR of one sample of the future."""
        context = tf.distribute.get_replica_context()
        replica = context.replica_id_in_sync_group if context else 0
        draws = StatelessDraws(self.seed, self.step, replica, "val")
        inputs = self.prepare(batch)
        rollouts = ("posterior", "prior") if self.hparams.nz else ("prior",)
        outputs = self.forward(inputs, draws, training=False, rollouts=rollouts)
        logs = self.frame_losses(inputs, outputs)
        future = self.hparams.context_frames
        error = tf.square(outputs["prior"]["image"][:, future - 1 :] - inputs["image"][:, future:])
        mse = tf.reduce_mean(error, axis=[2, 3, 4])  # [B, T-C]
        psnr = -10.0 * tf.math.log(tf.maximum(mse, 1e-10)) / tf.math.log(tf.constant(10.0, mse.dtype))
        valid = tf.cast(batch["valid"], mse.dtype) if "valid" in batch else tf.ones_like(mse[:, 0])
        count = tf.maximum(tf.reduce_sum(valid), 1)
        for name, value in (("mse", mse), ("psnr", psnr)):
            logs[name] = tf.reduce_sum(tf.reduce_mean(value, axis=1) * valid) / count
        return logs

    def generate(self, batch, seed, num_samples=1, horizon=None):
        """Samples futures; see `VideoModel.generate`.

        Needs the context frames, states of the context and all actions up to the last
        prediction. Further outputs, where the model has them: "states" [S, B, horizon, D],
        "flows" [S, B, horizon, H, W, 2, K], "pix_distribs" [S, B, horizon, H, W, P].
        """
        inputs, horizon = self._sampling_inputs(batch, horizon)
        keep = ["image", *(k for k in ("state", "pix_distrib") if k in inputs)]
        keep += ["flows"] if self.hparams.has_flows else []
        key = (int(num_samples), horizon)
        if key not in self._samplers:

            def run(inputs, seed):
                draws = StatelessDraws(seed, stream="generate")
                return self.sample(inputs, draws, horizon, int(num_samples), keep)

            self._samplers[key] = tf.function(run, reduce_retracing=True, autograph=False)
        sampler = self._samplers[key]
        seed = tf.cast(seed, tf.int64) if tf.is_tensor(seed) else tf.constant(int(seed), tf.int64)
        videos = sampler(inputs, seed)
        names = {"image": "images", "state": "states", "flows": "flows", "pix_distrib": "pix_distribs"}
        return {names[k]: v for k, v in videos.items()}

    def sample(self, inputs, draws, horizon, num_samples=1, keep=("image",), context=False):
        """Rollouts with prior latents.

        Args:
          inputs: as `prepare` returns them, C frames or more of which C are used.
          draws: eps_posterior [C-1, S B, nz] and z_prior [horizon, S B, nz], or with a
            learnt prior eps_prior [C-1+horizon, S B, nz]; sample s of element b at s B + b.
          horizon: frames after the context.
          num_samples: S.
          keep: outputs of the generator.
          context: whether the one-step predictions of context frames 1 .. C-1 come first.

        Returns:
          {output: [S, B, horizon (+ C - 1), ...]}.
        """
        h, first = self.hparams, inputs["image"]
        steps, frames = h.context_frames - 1 + horizon, h.context_frames
        known = {k: v[:, : steps if k == "action" else frames] for k, v in inputs.items()}
        copies = num_samples if h.nz else 1
        tiled = {k: tf.concat([v] * copies, axis=0) for k, v in known.items()}
        latents = self._sampled_latents(known, draws, horizon, copies) if h.nz else None
        (video,) = self.generator.unroll(self._sampling_step(keep), tiled, [latents], [None], horizon, keep=keep)
        result = {}
        for key, value in video.items():
            value = value if context else value[:, frames - 1 :]
            value = tf.reshape(value, tf.concat([[copies, tf.shape(first)[0]], tf.shape(value)[1:]], axis=0))
            result[key] = tf.repeat(value, num_samples // copies, axis=0) if copies < num_samples else value
        return result

    def _sampling_step(self, keep):
        """One step of the cell, compiled by XLA where that is faster: all but the first, which has other states."""
        step = self.generator.bind(keep)
        plain = shared_function(step)
        if tf.executing_eagerly() or not self.generator.cell.gains_by_xla():
            return plain
        compiled = xla.compiled(step)
        return lambda carry, *inputs: (plain if None in carry["states"] else compiled)(carry, *inputs)

    def _sampled_latents(self, known, draws, horizon, copies):
        h = self.hparams
        images, actions = known["image"], known.get("action")
        total = _batch_size(images) * copies

        def tile(distribution):
            return [tf.concat([x] * copies, axis=0) for x in distribution]

        if h.learn_prior:
            prior = tile(self.generator.prior.bind()(images, actions, h.context_frames - 1 + horizon))
            noise = draws.normal("eps_prior", [h.context_frames - 1 + horizon, total, h.nz], prior[0].dtype)
            return _sample(*prior, noise)
        noise = _time_second(draws.normal("z_prior", [horizon, total, h.nz], self.wide_dtype))
        if h.context_frames == 1:  # no pair of frames for the posterior
            return noise
        posterior = tile(self.generator.encoder.bind()(images, actions))
        noise_of_context = draws.normal("eps_posterior", [h.context_frames - 1, total, h.nz], self.wide_dtype)
        given = _sample(*posterior, noise_of_context)
        return tf.concat([given, noise], axis=1)

    def _sampling_inputs(self, batch, horizon):
        """(inputs, horizon) of `generate`, checked."""
        context = self.hparams.context_frames
        missing = [k for k in self.input_keys if k not in batch]
        if missing:
            raise UserError(f"generate: expected {', '.join(self.input_keys)}. Received no {', '.join(missing)}")
        inputs = self.prepare(batch)
        given = {k: v.shape[1] for k, v in inputs.items()}
        for key, length in given.items():
            if key != "action" and length < context:
                raise UserError(f"generate: expected {context} context frames. Received: {length} of {key}")
        if horizon is None:
            asked = self.hparams.sequence_length - context
            by_actions = given["action"] + 1 - context if "action" in given else asked
            horizon = given["image"] - context if given["image"] > context else by_actions
        horizon = int(horizon)
        if horizon < 1:
            raise UserError(f"generate: expected a horizon of 1 frame or more. Received: horizon={horizon}")
        needed = context - 1 + horizon
        if "action" in given and given["action"] < needed:
            raise UserError(
                f"generate: expected {needed} actions for {context} context frames and horizon {horizon}."
                f" Received: {given['action']}"
            )
        lengths = {"action": needed}
        return {k: v[:, : lengths.get(k, context)] for k, v in inputs.items()}, horizon

    def signatures(self):
        """serving_default: context frames (and states, actions) and a seed -> one sample of the future.

        Inputs: images float32 [B, C, H, W, channels] in [0, 1], actions [B, C-1+horizon, A],
        states [B, C, D], pix_distribs [B, C, H, W, P] where the model uses them, seed int64
        scalar. Outputs: images [B, horizon, H, W, channels] in [0, 1], and states,
        pix_distribs. horizon = long_sequence_length (or sequence_length) - C.
        """
        h = self.hparams
        horizon = (h.long_sequence_length or h.sequence_length) - h.context_frames
        specs = []
        for key in self.input_keys:
            length = h.context_frames - 1 + horizon if key == "actions" else h.context_frames
            specs.append(tf.TensorSpec([None, length, *self.spec[key].shape[1:]], tf.float32, name=key))
        specs.append(tf.TensorSpec([], tf.int64, name="seed"))
        names = {"image": "images", "state": "states", "pix_distrib": "pix_distribs"}

        @tf.function(input_signature=specs, autograph=False)
        def serve(*values):
            inputs = self.prepare(dict(zip(self.input_keys, values[:-1])))
            keep = [k for k in names if k in inputs]
            videos = self.sample(inputs, StatelessDraws(values[-1], stream="generate"), horizon, keep=keep)
            return {names[k]: tf.cast(v[0], tf.float32) for k, v in videos.items()}

        return {"serving_default": serve}


def _checked_sizes(hparams, spec):
    """{"images": (H, W, C), "actions": A, "states": D}; UserError where the data does not fit."""
    if "images" not in spec:
        raise UserError(f"SAVP needs images in the data, received {', '.join(sorted(spec))}")
    for key in ("context_frames", "sequence_length"):
        hparams.require(getattr(hparams, key) is not None, key, "a value, here or from the data set")
    shape = tuple(spec["images"].shape[1:])
    height, width = shape[:2]
    side = min(height, width)
    factor = 2 ** (2 + (side >= 64) + (side >= 128) + (side >= 256))
    if side < 32 or height % factor or width % factor:
        raise UserError(
            f"SAVP: expected frames of 32 pixels or more with sides divisible by {factor}. Received: {height}x{width}"
        )
    if hparams.nz:
        expected = f"at most {side.bit_length() - 1} for frames of {height}x{width}, which each layer halves"
        hparams.require(side >> hparams.n_layers, "n_layers", expected)
    sizes = {"images": shape}
    for key in ("actions", "states"):
        sizes[key] = int(spec[key].shape[-1]) if key in spec else 0
    hparams.require(not hparams.state_weight or sizes["states"], "state_weight", "0 where the data has no states")
    normed = hparams.norm_layer == "instance" and (hparams.conv_rnn_norm_layer == "instance" or hparams.ablation_rnn)
    if not hparams.use_tile_concat and normed and (hparams.nz or sizes["actions"] or sizes["states"]):
        logging.warning(
            "use_tile_concat=False with instance norm: the norm removes what action, state and latent add,"
            " so they have no effect on the frames; use norm_layer and conv_rnn_norm_layer layer or none"
        )
    return sizes


def _batch_size(x):
    """The batch size: an integer where it is known, else a tensor."""
    return x.shape[0] if x.shape[0] is not None else tf.shape(x)[0]


def _time_second(x):
    """[T, B, ...] <-> [B, T, ...]."""
    return tf.transpose(x, [1, 0, *range(2, x.shape.rank)])


def _sample(mu, log_sigma_sq, noise):
    """mu + sigma * noise; noise [T, B, nz] time first, the others [B, T, nz]."""
    return mu + tf.exp(0.5 * log_sigma_sq) * _time_second(noise)
