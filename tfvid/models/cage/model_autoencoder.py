"""Training of the autoencoders whose latents CAGE generates.

CAGE takes its autoencoders from elsewhere: the VQGAN of taming-transformers (Esser et al.,
"Taming Transformers for High-Resolution Image Synthesis", CVPR 2021) and a VQVAE. Both
are trained here with the losses of taming-transformers.
"""

import keras
import tensorflow as tf
from keras import ops

from tfvid.errors import UserError
from tfvid.metrics import weights as network_weights
from tfvid.metrics.frames import psnr
from tfvid.metrics.lpips import LPIPS, SMALLEST
from tfvid.models import float_policy
from tfvid.models.cage.frozen import make_autoencoder
from tfvid.models.cage.hparams import CageAutoencoderHParams
from tfvid.models.cage.networks_discriminator import PatchDiscriminator, smallest_side
from tfvid.models.cage.networks_vqgan import VQGAN
from tfvid.models.optimizers import Adam
from tfvid.models.video_model import VideoModel

SEED = 16  # of random perceptual features
LARGEST_BALANCE = 1e4  # of the adaptive weight


def hinge_loss(real, fake):
    """The discriminator's: mean of relu(1 - real) and relu(1 + fake), halved."""
    return 0.5 * (ops.mean(ops.relu(1 - real)) + ops.mean(ops.relu(1 + fake)))


class Perceptual:
    """LPIPS on VGG-16, made on first use, so that encoding needs no file of it.

    Args:
      where: folder of converted networks, None for the default one, "random" for fixed
        random features.
      precision: the model's.
    """

    def __init__(self, where, precision):
        self._where, self._precision = where, "float64" if precision == "float64" else "float32"
        self._network = None

    @property
    def network(self):
        """The `LPIPS`; UserError where its weights are not there."""
        if self._network is None:
            with tf.init_scope(), float_policy(self._precision):
                self._network = self._random() if self._where == "random" else self._stored()
            self._network.trainable = False
        return self._network

    def _stored(self):
        try:
            return network_weights.load("lpips_vgg", self._where)
        except network_weights.WeightsMissing as e:
            raise UserError(f"{e}; or set perceptual_weight to 0") from None

    def _random(self):
        keras.utils.set_random_seed(SEED)
        network = LPIPS("vgg", widths=(8, 16, 32, 64, 64))
        network.build()
        return network


class CageAutoencoder(VideoModel):
    """A VQGAN or VQVAE of single frames, and its discriminator.

    Batch: `images` [B, T, H, W, 3]; a step sees `frames_per_clip` of them.
    """

    HPARAMS = CageAutoencoderHParams
    TRAINING_NETWORKS = ("discriminator",)

    def __init__(self, hparams, spec, seed=0, name="cage_autoencoder"):
        super().__init__(hparams, spec, seed=seed, name=name)
        h = hparams
        self.autoencoder = make_autoencoder(h)
        self._perceptual = Perceptual(h.perceptual_weights, h.precision)
        networks = {"autoencoder": self.autoencoder}
        if h.gan_weight and self.has_training_networks:
            self.discriminator = PatchDiscriminator(h.ndf, h.d_layers)
            networks["discriminator"] = self.discriminator
        self.finish_build(
            {
                k: Adam(n.trainable_variables, beta1=h.beta1, beta2=h.beta2, form="torch", name=k)
                for k, n in networks.items()
            }
        )

    def check_spec(self):
        super().check_spec()
        shape, factor = self.spec["images"].shape, self.autoencoder.factor
        if shape.rank != 4 or shape[-1] != 3 or shape[1] % factor or shape[2] % factor:
            raise UserError(
                f"images: expected [T, H, W, 3] with H and W multiples of {factor}. Received: {shape.as_list()}"
            )

    def phase(self, step):
        """Whether the discriminator takes part."""
        return bool(self.hparams.gan_weight) and step >= self.hparams.gan_start

    def prepare_training(self):
        h, side = self.hparams, min(self.spec["images"].shape[1:3])
        if h.gan_weight and side < smallest_side(h.d_layers):
            raise UserError(
                f"d_layers: expected fewer than {h.d_layers} for frames whose shorter side is {side} pixels: that many"
                f" need {smallest_side(h.d_layers)}; or set gan_weight to 0. Received: d_layers={h.d_layers}"
            )
        if h.perceptual_weight and side < SMALLEST["vgg"]:
            raise UserError(
                f"perceptual_weight: expected 0 for frames whose shorter side is below {SMALLEST['vgg']} pixels, here"
                f" {side}. Received: perceptual_weight={h.perceptual_weight}"
            )
        if h.perceptual_weight:
            self.perceptual  # noqa: B018  made, or refused

    @property
    def perceptual(self):
        """LPIPS on VGG-16, neither trained nor saved with the model."""
        return self._perceptual.network

    def signed(self, images):
        """Frames of a batch in [-1, 1]."""
        return self.images_to_float(images) * 2 - 1

    # Training.

    def train_step(self, batch):
        """One update of the autoencoder, then one of the discriminator on the same frames."""
        draws = self.train_draws()
        frames = self.chosen_frames(batch["images"], draws)
        adversarial = getattr(self, "current_phase", None)
        adversarial = self.phase(int(self.step)) if adversarial is None else adversarial
        with tf.GradientTape(persistent=True) as tape:
            reconstruction, codebook = (tf.cast(x, frames.dtype) for x in self.autoencoder(frames, training=True))
            losses = self.frame_losses(frames, reconstruction)
            fidelity = losses["reconstruction"] + self.hparams.perceptual_weight * losses.get("perceptual", 0.0)
            total = fidelity + self.hparams.codebook_weight * codebook
            if adversarial:
                losses["gan"] = -tf.reduce_mean(self.scores(reconstruction))
        targets = self.optimizers_by_name["autoencoder"].targets
        if adversarial:
            losses["gan_balance"] = self.balance(tape, fidelity, losses["gan"])
            weight = self.hparams.gan_weight * losses["gan_balance"]
            gradients = tape.gradient([total, losses["gan"]], targets, [tf.ones_like(total), weight])
        else:
            gradients = tape.gradient(total, targets)
        del tape
        logs = {"codebook": codebook, **losses}
        logs |= self.apply_gradients("autoencoder", gradients, self.learning_rate())
        if adversarial:
            logs |= self.discriminator_update(frames, tf.stop_gradient(reconstruction))
        self.finish_step()
        return logs

    def chosen_frames(self, images, draws):
        """[B, T, H, W, 3] -> [B * frames_per_clip, H, W, 3] in [-1, 1]."""
        count = self.hparams.frames_per_clip
        index = draws.integers("frames", [tf.shape(images)[0], count], tf.shape(images)[1])
        chosen = tf.gather(images, index, batch_dims=1)
        return self.signed(tf.reshape(chosen, (-1, *images.shape[2:])))

    def frame_losses(self, frames, reconstruction):
        """{"reconstruction"[, "perceptual"]} without weights."""
        difference = reconstruction - frames
        l1 = self.hparams.reconstruction == "l1"
        losses = {"reconstruction": tf.reduce_mean(tf.abs(difference) if l1 else tf.square(difference))}
        if self.hparams.perceptual_weight:
            truth = tf.nest.map_structure(tf.stop_gradient, self.perceptual.features((frames + 1) / 2))
            distance = self.perceptual.distance(truth, self.perceptual.features((reconstruction + 1) / 2))
            losses["perceptual"] = tf.reduce_mean(tf.cast(distance, difference.dtype))
        return losses

    def balance(self, tape, fidelity, gan):
        """Ratio of the gradients of both losses at the decoder's last kernel, a constant."""
        if not self.hparams.adaptive_gan_weight:
            return tf.ones_like(gan)
        vqgan = isinstance(self.autoencoder, VQGAN)
        last = (self.autoencoder.decoder.conv_out if vqgan else self.autoencoder.decoder_out).kernel.value
        norms = [tf.norm(tf.convert_to_tensor(tape.gradient(loss, last))) for loss in (fidelity, gan)]
        return tf.stop_gradient(tf.clip_by_value(norms[0] / (norms[1] + 1e-4), 0.0, LARGEST_BALANCE))

    def scores(self, frames):
        """The discriminator's, in the type of the losses."""
        return tf.cast(self.discriminator(frames, training=True), frames.dtype)

    def discriminator_update(self, real, fake):
        """One update; the reconstructions are those of before the autoencoder's."""
        with tf.GradientTape() as tape:
            scores = [self.scores(x) for x in (real, fake)]
            loss = hinge_loss(*scores)
        gradients = tape.gradient(loss, self.optimizers_by_name["discriminator"].targets)
        logs = self.apply_gradients("discriminator", gradients, self.learning_rate())
        real_mean, fake_mean = (tf.reduce_mean(s) for s in scores)
        return {"discriminator": loss, "logits_real": real_mean, "logits_fake": fake_mean, **logs}

    def learning_rate(self):
        """Constant after a linear warm-up."""
        h = self.hparams
        share = tf.cast(self.step + 1, tf.float32) / max(h.num_warmup_steps, 1)
        return h.lr * tf.minimum(share, 1.0)

    def learning_rates(self):
        return {"lr": self.learning_rate()}

    def test_step(self, batch):
        """Of every frame of a clip: mean absolute error, PSNR; the share of the codebook in use; the latents' deviation."""
        images = self.images_to_float(batch["images"])
        latents = self.encode(images)
        frames = self.decode(latents)
        codes = self.autoencoder.quantizer.indices(tf.reshape(latents, (-1, latents.shape[-1])))
        size = self.autoencoder.quantizer.codes.shape[0]
        used = tf.math.bincount(tf.cast(codes, tf.int32), minlength=size, maxlength=size) > 0
        return {
            "l1": tf.reduce_mean(tf.abs(frames - images), [1, 2, 3, 4]),
            "psnr": tf.reduce_mean(psnr(frames, images, floor=1e-10), axis=1),
            "codes_used": tf.reduce_mean(tf.cast(used, tf.float32)),
            "latent_std": tf.math.reduce_std(latents, axis=[1, 2, 3, 4]),
        }

    # Use.

    def encode(self, images):
        """[B, l, H, W, 3] in [0, 1] -> latents [B, l, h, w, c], not quantised."""
        return _by_frame(self.autoencoder.encode, images * 2 - 1)

    def decode(self, latents):
        """Latents, quantised here -> frames in [0, 1]."""
        frames = self.images_to_float(_by_frame(self.autoencoder.decode, latents))
        return tf.clip_by_value((frames + 1) / 2, 0.0, 1.0)

    def generate(self, batch, seed, num_samples=1, horizon=None):
        """The reconstructions of the frames after the given ones; nothing is random."""
        given = self.hparams.context_frames or 1
        frames = batch["images"][:, given : None if horizon is None else given + horizon]
        frames = self.decode(self.encode(self.images_to_float(frames)))
        return {"images": tf.repeat(frames[None], num_samples, axis=0)}

    def signatures(self):
        """serving_default: frames and a seed (without effect) -> reconstructions; encode, decode.

        Frames are float32 [B, T, H, W, 3] in [0, 1], latents float32 [B, T, h, w, c].
        """
        height, width = self.spec["images"].shape[1:3]
        factor, channels = self.autoencoder.factor, self.autoencoder.latent_channels
        images = tf.TensorSpec([None, None, height, width, 3], tf.float32, name="images")
        latents = tf.TensorSpec([None, None, height // factor, width // factor, channels], tf.float32, name="latents")

        @tf.function(input_signature=[images, tf.TensorSpec([], tf.int64, name="seed")])
        def serve(images, seed):
            return {"images": tf.cast(self.decode(self.encode(images)), tf.float32)}

        @tf.function(input_signature=[images])
        def encode(images):
            return {"latents": tf.cast(self.encode(images), tf.float32)}

        @tf.function(input_signature=[latents])
        def decode(latents):
            return {"images": tf.cast(self.decode(latents), tf.float32)}

        return {"serving_default": serve, "encode": encode, "decode": decode}


def _by_frame(function, x):
    """Applies a function of [N, ...] to [B, l, ...]."""
    y = function(tf.reshape(x, (-1, *x.shape[2:])))
    return tf.reshape(y, tf.concat([tf.shape(x)[:2], tf.shape(y)[1:]], 0))
