"""The pose-to-image stage of ACT-VAE: frames from one image, its pose, target poses and the action."""

import typing

import tensorflow as tf

from tfvid.errors import UserError
from tfvid.losses.adversarial import gan_loss
from tfvid.metrics.frames import psnr
from tfvid.models.actvae import losses
from tfvid.models.actvae.hparams import ActVAEP2IHParams
from tfvid.models.actvae.model import PoseModel
from tfvid.models.actvae.networks_p2i import Discriminator, Generator
from tfvid.models.actvae.pose_maps import pose_maps
from tfvid.models.draws import StatelessDraws
from tfvid.models.perceptual import PerceptualVGG
from tfvid.models.video_model import weighted_sum

# What must be the same in the frozen pose network.
POSE_NETWORK_KEYS = (
    "num_joints", "num_actions", "latent_dim", "pose_head", "decoder_units", "frame_step_conditioning", "image_size",
    "neighbour_clips",
)  # fmt: skip
NEIGHBOUR_KEYS = ("neighbour_bandwidth", "neighbour_weight", "decoder_weight", "horizon")  # where it keeps clips
# As many as share the reading of the generator's weights well: a frame takes a third less time than alone.
FRAMES_AT_ONCE = 8
VGG_WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)
# Mean and deviation that torchvision's networks were trained with.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Clip(typing.NamedTuple):
    """A batch as the networks take it; images in [-1, 1].

    Attributes:
      image: [B, H, W, 3], the source frame.
      source: [B, 2J], its pose.
      source_maps: [B, H, W, J].
      onehot: [B, K], the action.
      condition: of the pose network.
      poses: [B, T-1, J, 2], of the target frames.
      frames: [B, T-1, H, W, 3], target frames as the batch has them.
      masks: function of a target's index -> [B, H, W, 1].
    """

    image: typing.Any
    source: typing.Any
    source_maps: typing.Any
    onehot: typing.Any
    condition: typing.Any
    poses: typing.Any
    frames: typing.Any
    masks: typing.Any


class ActVAEP2I(PoseModel):
    """Frames of a person in given or generated poses.

    Batch: `images` [B, T, H, W, 3], `poses` [B, T, J, 2] (the first frame is the source),
    `action_class` [B]; the person's pixels from `masks` [B, T, H, W, 1], from `boxes`
    [B, T, 1, 4], or else from the extent of the pose.

    The pose network is frozen; a new run takes it from `pose_checkpoint`.
    """

    HPARAMS = ActVAEP2IHParams
    REQUIRED_KEYS = ("images", "poses", "action_class")
    OPTIONAL_KEYS = ("frame_step", "masks", "boxes")
    TRAINING_NETWORKS = ("discriminator",)
    GENERATION_KEYS = ("images", *PoseModel.GENERATION_KEYS)

    def __init__(self, hparams, spec, seed=0, name=None):
        super().__init__(hparams, spec, seed=seed, name=name)
        h = hparams
        self.height, self.width, _ = spec["images"].shape[1:]
        self.build_pose_network()
        self.pose_network.trainable = False
        self.generator = Generator(h.num_joints, h.num_actions, h.ngf, h.g_blocks)
        networks = {"generator": self.generator}
        if self.has_training_networks:
            networks["discriminator"] = self.discriminator = Discriminator(3 + h.num_joints, h.ndf, h.d_blocks)
        self.perceptual = PerceptualVGG(h.vgg_weights, h.precision, "set vgg_weight to 0", h.vgg_widths)
        self.finish_build({k: self.adam(n.trainable_variables, k) for k, n in networks.items()})

    def begin_training(self):
        """Takes the frozen pose network from `pose_checkpoint`."""
        self.load_pose_network(self.hparams.pose_checkpoint)

    def load_pose_network(self, path):
        """Fills the pose network from a run folder of `actvae`.

        Raises:
          UserError: no such run, of another model, or with other sizes.
        """
        from tfvid.training.run_folder import RunFolder

        if not path:
            raise UserError(
                "--pose_checkpoint: expected the run folder of the actvae that generates the poses. Received: none"
            )
        run = RunFolder.open(path)
        if run.model_name != "actvae":
            raise UserError(f"--pose_checkpoint: expected a run of actvae. Received: {path}, a run of {run.model_name}")
        keys = (*POSE_NETWORK_KEYS, *(NEIGHBOUR_KEYS if run.hparams.neighbour_clips else ()))
        theirs = {key: getattr(run.hparams, key) for key in keys}
        different = [key for key in keys if getattr(self.hparams, key) != theirs[key]]
        if different:
            first, values = different[0], ",".join(f"{key}={theirs[key]}" for key in different)
            raise UserError(
                f"{first}: expected {theirs[first]!r} as in --pose_checkpoint={path}."
                f" Received: {first}={getattr(self.hparams, first)!r}; --hparams_override={values} takes over what differs"
            )
        for ours, value in zip(self.pose_weights(), run.load_model(training_networks=False).pose_weights(), strict=True):
            ours.assign(value)

    def prepare_training(self):
        if self.hparams.vgg_weight:
            self.perceptual.network  # noqa: B018  made, or refused

    def check_spec(self):
        super().check_spec()
        shape = self.spec["images"].shape
        # The generator halves and doubles twice; 16 is what the discriminator's reflected borders and VGG need.
        if shape.rank != 4 or shape[-1] != 3 or shape[1] % 4 or shape[2] % 4 or min(shape[1:3]) < 16:
            raise UserError(
                "images: expected [T, H, W, 3] with H and W multiples of 4 and at least 16."
                f" Received: {shape.as_list()}"
            )

    def clip(self, batch):
        """Reads a batch; see `Clip`."""
        poses = tf.cast(batch["poses"], self.wide_dtype)
        return Clip(
            image=self.scaled(batch["images"][:, 0]),
            source=self.flat_poses(poses[:, 0]),
            source_maps=self.maps(poses[:, 0]),
            onehot=tf.one_hot(batch["action_class"], self.hparams.num_actions, dtype=self.wide_dtype),
            condition=self.condition(batch),
            poses=poses[:, 1:],
            frames=batch["images"][:, 1:],
            masks=lambda i: self.foreground(batch, i + 1),
        )

    def scaled(self, images):
        """Frames of a batch in [-1, 1]."""
        return self.images_to_float(images) * 2 - 1

    def maps(self, poses):
        """[B, J, 2] or [B, 2J] -> [B, H, W, J]."""
        poses = tf.reshape(poses, [-1, self.hparams.num_joints, 2])
        return pose_maps(tf.cast(poses, self.wide_dtype), self.height, self.width)

    def foreground(self, batch, t):
        """[B, H, W, 1]: 1 on the person in frame `t` of the batch, else 0."""
        if "masks" in batch:
            return tf.cast(batch["masks"][:, t], self.wide_dtype)
        if "boxes" in batch:
            box = tf.cast(batch["boxes"][:, t, 0], self.wide_dtype)  # x0, y0, x1, y1 in [0, 1]
        else:
            joints = (tf.cast(batch["poses"][:, t], self.wide_dtype) + 1) / 2
            box = tf.concat([tf.reduce_min(joints, 1), tf.reduce_max(joints, 1)], axis=-1)
        inside = []
        for axis, size in ((1, self.height), (0, self.width)):
            centres = (tf.range(size, dtype=self.wide_dtype) + 0.5) / size
            inside.append((centres > box[:, axis, None]) & (centres < box[:, axis + 2, None]))
        return tf.cast(inside[0][:, :, None, None] & inside[1][:, None, :, None], self.wide_dtype)

    # Training.

    def train_step(self, batch, draws=None):
        """Two updates of the discriminator, two of the generator; `draws` replaces the step's own noise."""
        shared = draws or StatelessDraws(self.seed, self.step, 0, "frames")  # one choice for all replicas
        draws = draws or self.train_draws()
        clip = self.clip(batch)
        horizon = self.hparams.horizon
        first = shared.integers("discriminator_frame", [], horizon + 1)
        generated = shared.integers("generated_frame", [], horizon)
        second = shared.integers("generator_frame", [], horizon + 1)
        logs = {}
        logs |= self.update("discriminator", *self.discriminator_gradients(clip, clip.poses[:, first], first))
        poses = self.generated_poses(clip, draws.scope("discriminator"))[:, generated]
        logs |= self.update("discriminator", *self.discriminator_gradients(clip, poses, generated), prefix="generated_")
        logs |= self.update("generator", *self.generator_gradients(clip, second))
        poses = self.generated_poses(clip, draws.scope("generator"))[:, generated]
        logs |= self.update("generator", *self.adversarial_gradients(clip, poses), prefix="generated_")
        self.finish_step()
        return logs

    def update(self, name, values, gradients, prefix=""):
        """Applies the gradients; returns losses and logs, their names after `prefix`."""
        logs = {**values, **self.apply_gradients(name, gradients, self.learning_rate())}
        return {f"{prefix}{k}": v for k, v in logs.items()}

    def generated_poses(self, clip, draws):
        """[B, horizon, 2J]: one sample of the frozen pose network for each clip."""
        horizon, batch = self.hparams.horizon, tf.shape(clip.source)[0]
        noise = draws.normal("latents", [1, horizon + 1, batch, self.hparams.latent_dim], self.wide_dtype)
        chances = self.neighbour_chances(draws, horizon, [1, batch])
        return self.samples(clip.source, clip.condition, noise, chances)[0]

    def discriminator_gradients(self, clip, poses, index):
        """Against frames in `poses` ([B, J, 2] or [B, 2J]); real is target `index` in its true pose.

        Returns:
          ({name: loss}, gradients of the discriminator).
        """
        maps = self.maps(poses)
        # Outside the tape: the discriminator's update needs no gradient of the generator.
        fake = self.generator(clip.image, clip.source_maps, maps, clip.onehot, training=True).image
        real, real_maps = self.scaled(clip.frames[:, index]), self.maps(clip.poses[:, index])
        with tf.GradientTape() as tape:
            # In turn, not as one batch: each has its own batch statistics.
            fake_scores, _ = self.discriminator(fake, maps, training=True)
            real_scores, _ = self.discriminator(real, real_maps, training=True)
            values = {"discriminator_gan": gan_loss(fake_scores, 0, "LSGAN") + gan_loss(real_scores, 1, "LSGAN")}
            total = weighted_sum(values, self.loss_weights())
        return values, tape.gradient(total, self.optimizers_by_name["discriminator"].targets)

    def generator_gradients(self, clip, index):
        """All losses of the frame in the true pose of target `index`: ({name: loss}, gradients)."""
        maps, target = self.maps(clip.poses[:, index]), self.scaled(clip.frames[:, index])
        mask = clip.masks(index)
        with tf.GradientTape() as tape:
            fake = self.generator(clip.image, clip.source_maps, maps, clip.onehot, training=True).image
            # The original scores this batch twice: once for the adversarial loss, once for the features.
            scores, features = self.discriminator(fake, maps, training=True, updates=2)
            with tape.stop_recording():
                _, real_features = self.discriminator(target, maps, training=True)
            values = {
                "reconstruction": losses.foreground_l1(fake, target, mask, self.hparams.foreground_weight),
                "gan": gan_loss(scores, 1, "LSGAN"),
                "feature": tf.add_n(losses.feature_matching(features, real_features)),
            }
            if self.hparams.vgg_weight:
                with tape.stop_recording():
                    target_features = self.vgg_features(target)
                values["vgg"] = losses.perceptual_l1(self.vgg_features(fake), target_features, VGG_WEIGHTS)
            total = weighted_sum(values, self.loss_weights())
        return values, tape.gradient(total, self.optimizers_by_name["generator"].targets)

    def adversarial_gradients(self, clip, poses):
        """The adversarial loss alone, in poses without a true frame: ({name: loss}, gradients)."""
        maps = self.maps(poses)
        with tf.GradientTape() as tape:
            fake = self.generator(clip.image, clip.source_maps, maps, clip.onehot, training=True).image
            scores, _ = self.discriminator(fake, maps, training=True)
            values = {"gan": gan_loss(scores, 1, "LSGAN")}
            total = weighted_sum(values, self.loss_weights())
        return values, tape.gradient(total, self.optimizers_by_name["generator"].targets)

    def loss_weights(self):
        """{name: weight}."""
        h = self.hparams
        return {
            "discriminator_gan": h.gan_weight,
            "gan": h.gan_weight,
            "reconstruction": h.recon_weight,
            "feature": h.feature_weight,
            "vgg": h.vgg_weight,
        }

    def vgg_features(self, images):
        """VGG-19 features of frames in [-1, 1]."""
        if self.hparams.vgg_preprocess == "imagenet":
            mean, std = (tf.constant(v, images.dtype) for v in (IMAGENET_MEAN, IMAGENET_STD))
            images = ((images + 1) / 2 - mean) / std
        return self.perceptual.network(images)

    def test_step(self, batch):
        """Frames in the true poses against the true frames; "copy" shows the source frame instead."""
        clip = self.clip(batch)
        horizon = self.hparams.horizon
        frames = self.render(clip, clip.poses[None, :, :horizon])[0]  # [B, T, H, W, 3]
        truth = self.images_to_float(clip.frames[:, :horizon])
        copy = tf.repeat(((clip.image + 1) / 2)[:, None], horizon, axis=1)

        def mean_psnr(images):
            return tf.reduce_mean(psnr(images, truth, floor=1e-10), axis=1)

        return {
            "l1": tf.reduce_mean(tf.abs(frames - truth), [1, 2, 3, 4]),
            "psnr": mean_psnr(frames),
            "psnr_copy": mean_psnr(copy),
        }

    # Sampling.

    def generated(self, inputs, draws, num_samples, horizon):
        poses = self.sample_poses(inputs, draws, num_samples, horizon)
        return {"images": self.render(self.clip(inputs), poses), "poses": poses}

    def render(self, clip, poses):
        """Frames in [0, 1] of each source in poses [S, B, T, J, 2]: [S, B, T, H, W, 3].

        The source is encoded once for all frames, which are then made FRAMES_AT_ONCE by FRAMES_AT_ONCE, whatever
        samples, clips and times they belong to: memory does not grow with these.
        """
        samples, horizon = poses.shape[0], poses.shape[2]
        clips = tf.shape(poses)[1]
        encode, draw = self.generator.bind()
        sources = (clip.image, encode(clip.image, clip.source_maps), clip.onehot)
        flat = tf.reshape(poses, [-1, *poses.shape[3:]])  # [S * B * T, J, 2]
        count = samples * clips * horizon

        def some_frames(start, chunks):
            stop = tf.minimum(start + FRAMES_AT_ONCE, count)
            index = (tf.range(start, stop) // horizon) % clips
            image, encoded, onehot = tf.nest.map_structure(lambda x: tf.gather(x, index), sources)
            frames = (draw(image, encoded, self.maps(flat[start:stop]), onehot).image + 1) / 2
            return stop, chunks.write(start // FRAMES_AT_ONCE, tf.clip_by_value(frames, 0.0, 1.0))

        number = -(-count // FRAMES_AT_ONCE)
        shape = [None, self.height, self.width, 3]  # the last chunk may be shorter
        chunks = tf.TensorArray(self.wide_dtype, number, infer_shape=False, element_shape=shape)
        _, chunks = tf.while_loop(lambda start, _: start < count, some_frames, (0, chunks), parallel_iterations=1)
        return tf.reshape(chunks.concat(), [samples, clips, horizon, self.height, self.width, 3])
