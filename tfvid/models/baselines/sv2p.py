"""SV2P: Stochastic Variational Video Prediction.

Source: Babaeizadeh, Finn, Erhan, Campbell, Levine (2018); alexlee-gk/video_prediction,
models/sv2p_model.py.
"""

import tensorflow as tf

from tfvid.errors import UserError
from tfvid.models.baselines.dna import CHANNELS
from tfvid.models.baselines.hparams import SV2PHParams
from tfvid.models.baselines.networks import Variant
from tfvid.models.baselines.recurrent import RecurrentBaseline

KERNEL_SIZE = (5, 5)


class SV2P(RecurrentBaseline):
    """DNA's network with a latent map, of the clip or (`multi_latent`) of each step.

    The posterior sees all frames of a training clip along the channels, so its weights
    belong to one `sequence_length`; the prior is standard normal and serves any length.
    Before `num_iterations_1st_stage` steps the posterior's samples are not used.
    """

    HPARAMS = SV2PHParams

    def variant(self):
        h = self.hparams
        return Variant(
            channels=CHANNELS,
            transformation=h.transformation,
            kernel_size=KERNEL_SIZE,
            num_masks=h.num_masks,
            scratch_image=True,
            first_image_background=False,
            use_all_warps=False,
            relu_before_softmax=False,
            relu_after_upsampling=False,
            relu_on_pixel_kernels=False,
        )

    def latent_arguments(self):
        h = self.hparams
        if not h.stochastic_model:
            return {}
        return {"latent": h.latent_channels, "encoder_frames": self.clip_length}

    def loss_weights(self):
        weights = super().loss_weights()
        if self.hparams.kl_weight and self.stochastic:
            weights["gen_kl_loss"] = self.hparams.annealed_kl_weight(self.step)
        return weights

    @property
    def stochastic(self):
        return self.hparams.stochastic_model

    def _noise(self, draws, batch, steps):
        """Standard normal latents: [steps, B, H/8, W/8, latent], or without the time axis for one of the clip."""
        height, width, _ = self.image
        shape = [batch, height // 8, width // 8, self.hparams.latent_channels]
        return draws.normal("latents", [steps, *shape] if self.hparams.multi_latent else shape, self.wide_dtype)

    def sample_latents(self, draws, batch, steps):
        return self._noise(draws.scope("prior"), batch, steps) if self.stochastic else None

    def posterior(self, inputs):
        """(mean, log variance), each [B, H/8, W/8, latent], of whole training clips."""
        images = inputs["images"]
        length, height, width, channels = images.shape[1:]
        if length != self.clip_length:
            raise UserError(f"SV2P's posterior: expected clips of {self.clip_length} frames. Received: {length}")
        frames = tf.reshape(tf.transpose(images, [0, 2, 3, 1, 4]), [-1, height, width, length * channels])
        mean, log_variance = self.generator.bind_encoder()(frames)
        return mean, log_variance + self.hparams.latent_std_min

    def forward(self, inputs, draws, training):
        latents = self.sample_latents(draws, tf.shape(inputs["images"])[0], inputs["images"].shape[1] - 1)
        outputs = self.rollout_of(inputs, draws.scope("prior"), training, latents)
        if self.stochastic:
            posterior = self.training_outputs(inputs, draws, training)
            outputs.update({f"{name}_enc": value for name, value in posterior.items()})
        return outputs

    def training_outputs(self, inputs, draws, training):
        """The posterior rollout, with its `zs_mu` and `zs_log_sigma_sq` [B, H/8, W/8, latent]."""
        if not self.stochastic:
            return super().training_outputs(inputs, draws, training)
        draws = draws.scope("posterior")
        mean, log_variance = self.posterior(inputs)
        noise = self._noise(draws, tf.shape(mean)[0], inputs["images"].shape[1] - 1)
        sample = mean + tf.exp(log_variance / 2) * noise
        latents = tf.where(self.step < self.hparams.num_iterations_1st_stage, noise, sample)
        outputs = self.rollout_of(inputs, draws, training, latents)
        return {**outputs, "zs_mu": mean, "zs_log_sigma_sq": log_variance}

    def kl_loss(self, outputs):
        """[B]: summed over the channels, averaged over the map."""
        mean, log_variance = outputs["zs_mu"], outputs["zs_log_sigma_sq"]
        terms = 1 + log_variance - tf.square(mean) - tf.exp(log_variance)
        return -0.5 * tf.reduce_mean(tf.reduce_sum(terms, axis=-1), axis=[1, 2])
