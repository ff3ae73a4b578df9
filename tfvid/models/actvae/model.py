"""ACT-VAE: pose sequences from one pose and an action class."""

import numpy as np
import tensorflow as tf

from tfvid.errors import UserError
from tfvid.models.actvae import losses
from tfvid.models.actvae.hparams import ActVAEHParams
from tfvid.models.actvae.neighbours import ClipNeighbours
from tfvid.models.actvae.networks import PoseNetwork
from tfvid.models.actvae.pose_maps import coloured_view, pastel_colours
from tfvid.models.draws import StatelessDraws
from tfvid.models.optimizers import Adam
from tfvid.models.video_model import VideoModel, weighted_sum


class PoseModel(VideoModel):
    """What both stages share: reading poses and classes, sampling pose sequences."""

    REQUIRED_KEYS = ("poses", "action_class")
    # Keys of the batch that `generate` reads; of those with a time axis the first frame alone.
    GENERATION_KEYS = ("poses", "action_class", "frame_step")

    @property
    def POSE_PIXELS(self):  # noqa: N802  the evaluation suite's name
        """Pixels in one unit of the poses."""
        return self.hparams.image_size / 2

    def build_pose_network(self):
        """Makes `self.pose_network`, `self.neighbours` (or None) and `self.colours` from the hyper-parameters."""
        h = self.hparams
        self._samplers = {}
        self.condition_size = h.num_actions + int(h.frame_step_conditioning)
        self.pose_network = PoseNetwork(
            h.num_joints, self.condition_size, h.latent_dim, h.pose_head, h.decoder_units
        )
        self.neighbours = None
        if h.neighbour_clips:
            bandwidth = h.neighbour_bandwidth / self.POSE_PIXELS
            self.neighbours = ClipNeighbours(
                h.neighbour_clips, h.horizon, 2 * h.num_joints, h.num_actions, bandwidth
            )
        self.colours = pastel_colours(h.num_joints)

    def check_spec(self):
        super().check_spec()
        h, shape = self.hparams, self.spec["poses"].shape
        if shape.rank != 3 or shape[-1] != 2 or shape[-2] != h.num_joints:
            raise UserError(
                f"poses: expected [T, {h.num_joints}, 2] for num_joints={h.num_joints}. Received: {shape.as_list()}"
            )
        if shape[0] is not None and shape[0] < 1 + h.targets:
            raise UserError(
                f"poses: expected at least {1 + h.targets} frames, the source and {h.targets} targets for"
                f" horizon={h.horizon}. Received: {shape.as_list()}"
            )
        if h.frame_step_conditioning and "frame_step" not in self.spec:
            raise UserError(
                f"frame_step_conditioning needs frame_step in the data, received {', '.join(sorted(self.spec))}"
            )

    def flat_poses(self, poses):
        """[..., J, 2] -> [..., 2J] in the model's float type."""
        poses = tf.cast(poses, self.wide_dtype)
        return tf.reshape(poses, tf.concat([tf.shape(poses)[:-2], [2 * self.hparams.num_joints]], 0))

    def condition(self, batch):
        """[B, K]: one-hot class, and the logarithm of the frame step where the networks are told it."""
        onehot = tf.one_hot(batch["action_class"], self.hparams.num_actions, dtype=self.wide_dtype)
        if not self.hparams.frame_step_conditioning:
            return onehot
        step = tf.math.log(tf.maximum(tf.cast(batch["frame_step"], self.wide_dtype), 1))
        return tf.concat([onehot, step[:, None]], axis=-1)

    def rollout(self, source, condition, noise):
        """Rollouts of the same clips, all as one batch.

        Args:
          source: [B, 2J].
          condition: [B, K].
          noise: [R, horizon + 1, B, Z], standard normal.

        Returns:
          poses [R, B, horizon, 2J], mean and log_variance [horizon, R, B, Z].
        """
        count, steps, batch, latent = noise.shape[0], noise.shape[1], tf.shape(source)[0], noise.shape[3]
        noise = tf.reshape(tf.transpose(noise, [1, 0, 2, 3]), [steps, count * batch, latent])
        out = self.pose_network.bind()(tf.tile(source, [count, 1]), tf.tile(condition, [count, 1]), noise)
        split = [steps - 1, count, batch, latent]
        poses = tf.reshape(out.poses, [count, batch, steps - 1, source.shape[-1]])
        return poses, tf.reshape(out.mean, split), tf.reshape(out.log_variance, split)

    def pose_weights(self):
        """The weights from which poses are sampled."""
        return [*self.pose_network.weights, *(self.neighbours.weights if self.neighbours else ())]

    def neighbour_chances(self, draws, horizon, shape):
        """What `samples` takes: uniform numbers [N, *shape], N = 0 where the model keeps no clips."""
        count = -(-horizon // self.hparams.horizon) if self.neighbours else 0
        chances = [draws.uniform(f"neighbour/{i}", shape, self.wide_dtype) for i in range(count)]
        return tf.stack(chances) if chances else tf.zeros([0, *shape], self.wide_dtype)

    def samples(self, source, condition, noise, chances):
        """Rollouts, mixed with the movements of training clips where the model keeps some.

        A movement is as long as the horizon of the training; another that begins in the pose reached goes on from
        its end. For an action of which no clip is kept the rollouts stay as they are.

        Args:
          source, condition, noise: as `rollout` takes them, noise for T steps.
          chances: [ceil(T / horizon of the training), R, B] in [0, 1): which clips.

        Returns:
          [R, B, T, 2J].
        """
        h = self.hparams
        poses, _, _ = self.rollout(source, condition, noise)
        if self.neighbours is None:
            return poses
        rollouts, shape = poses.shape[0], tf.shape(poses)
        poses = tf.reshape(poses, [-1, *poses.shape[2:]])  # [R * B, T, 2J]
        source = tf.tile(source, [rollouts, 1])
        actions = tf.tile(condition[:, : h.num_actions], [rollouts, 1])
        recall = self.neighbours.bind()
        pose, moved, mixed = source, tf.zeros_like(source), []
        for i in range(-(-poses.shape[1] // h.horizon)):
            rollout = poses[:, i * h.horizon : (i + 1) * h.horizon]
            movement, known = recall(pose, actions, tf.reshape(chances[i], [-1]))
            movement = moved[:, None] + movement[:, : rollout.shape[1]]
            share = tf.where(known, tf.constant(h.decoder_weight, poses.dtype), 1)
            mixed.append(source[:, None] + share * (rollout - source[:, None]) + h.neighbour_weight * movement)
            pose, moved = mixed[-1][:, -1], movement[:, -1]
        return tf.reshape(tf.concat(mixed, axis=1), shape)

    def sample_poses(self, batch, draws, num_samples, horizon):
        """[num_samples, B, horizon, J, 2]: rollouts from the first pose of each clip.

        The noise of a sample's first poses is the same for every horizon.
        """
        source = self.flat_poses(batch["poses"][:, 0])
        shape = [num_samples, tf.shape(source)[0], self.hparams.latent_dim]
        noise = tf.stack([draws.normal(f"latent/{t}", shape, self.wide_dtype) for t in range(horizon + 1)], axis=1)
        chances = self.neighbour_chances(draws, horizon, shape[:2])
        poses = self.samples(source, self.condition(batch), noise, chances)
        return tf.reshape(poses, [num_samples, -1, horizon, self.hparams.num_joints, 2])

    def generate(self, batch, seed, num_samples=1, horizon=None):
        """Samples from the first frame of each clip; default horizon: that of the training.

        Returns:
          {"poses": [num_samples, B, horizon, J, 2], "images": [num_samples, B, horizon, H, W, 3]
          in [0, 1]}: generated frames, or for `actvae` coloured views of the poses.
        """
        key = num_samples, horizon or self.hparams.horizon
        if key not in self._samplers:
            self._samplers[key] = tf.function(
                lambda inputs, seed: self.generated(inputs, StatelessDraws(seed, stream="generate"), *key),
                reduce_retracing=True,
            )
        seed = tf.convert_to_tensor(np.int64(seed) if isinstance(seed, int) else seed)
        return self._samplers[key](self._first_frames(batch), tf.cast(seed, tf.int64))

    def _first_frames(self, batch):
        keys = [k for k in self.GENERATION_KEYS if k in self.spec and k in batch]
        return {k: batch[k][:, :1] if self.spec[k].shape.rank > 0 else batch[k] for k in keys}

    def generated(self, inputs, draws, num_samples, horizon):
        """What `generate` returns, from first frames and `draws`."""
        raise NotImplementedError

    def signatures(self):
        """serving_default: the first frame of each clip, its action and a seed -> one sample.

        Inputs: poses float32 [B, 1, J, 2], action_class int32 [B], frame_step int32 [B] where
        the model is told it, images float32 [B, 1, H, W, 3] in [0, 1] (actvae_p2i), seed
        int64 scalar. Outputs: poses [B, horizon, J, 2], images [B, horizon, H, W, 3].
        """
        keys = [k for k in self.GENERATION_KEYS if k in self.spec and self._serves(k)]
        specs = []
        for key in keys:
            shape, dtype = self.spec[key].shape, self.spec[key].dtype
            specs.append(
                tf.TensorSpec(
                    [None, 1, *shape[1:]] if shape.rank else [None], tf.float32 if shape.rank else dtype, name=key
                )
            )

        @tf.function(input_signature=[*specs, tf.TensorSpec([], tf.int64, name="seed")])
        def serve(*values):
            inputs = dict(zip(keys, values[:-1]))
            draws = StatelessDraws(values[-1], stream="generate")
            samples = self.generated(inputs, draws, 1, self.hparams.horizon)
            return {k: tf.cast(v[0], tf.float32) for k, v in samples.items()}

        return {"serving_default": serve}

    def _serves(self, key):
        return key != "frame_step" or self.hparams.frame_step_conditioning

    def learning_rate(self):
        """Rate of the update that follows `step` finished ones; the original's schedule runs one step ahead."""
        passed = tf.cast((self.step + 1) // self.hparams.lr_step_size, tf.float64)
        return self.hparams.lr * tf.pow(tf.constant(self.hparams.lr_gamma, tf.float64), passed)

    def learning_rates(self):
        return {"lr": self.learning_rate()}

    def adam(self, variables, name):
        """The original's optimiser for a set of variables."""
        h = self.hparams
        return Adam(
            variables, beta1=h.beta1, beta2=h.beta2, epsilon=1e-8, form="torch", weight_decay=h.weight_decay, name=name
        )


class ActVAE(PoseModel):
    """Pose sequences from one pose and an action class.

    Batch: `poses` [B, T, J, 2] (the first is the source), `action_class` [B], with
    frame_step_conditioning also `frame_step` [B]. No image is used.
    """

    HPARAMS = ActVAEHParams
    OPTIONAL_KEYS = ("frame_step",)

    def __init__(self, hparams, spec, seed=0, name=None):
        super().__init__(hparams, spec, seed=seed, name=name)
        self.build_pose_network()
        networks = {"temporal_vae": self.pose_network.temporal_vae, "decoder": self.pose_network.decoder}
        self.finish_build({k: self.adam(n.trainable_variables, k) for k, n in networks.items()})

    def see_training_clips(self, clips):
        """Keeps clips as neighbours of those to come."""
        if self.neighbours is None:
            return
        h, poses, actions = self.hparams, [], []
        forms = 2 if h.flip_probability else 1
        for batch in clips(-(-h.neighbour_clips // forms)):
            valid = batch["valid"]
            poses.append(tf.cast(batch["poses"][:, : 1 + h.horizon], self.wide_dtype)[valid])
            actions.append(tf.one_hot(batch["action_class"][valid], h.num_actions, dtype=self.wide_dtype))
        poses, actions = tf.concat(poses, 0), tf.concat(actions, 0)
        if h.flip_probability:
            poses, actions = tf.concat([poses, self.mirrored(poses)], 0), tf.concat([actions, actions], 0)
        self.neighbours.fill(self.flat_poses(poses), actions)

    def train_step(self, batch, draws=None):
        """One update of both networks; `draws` replaces the step's own noise."""
        draws = draws or self.train_draws()
        source, targets, condition = self._training_clips(batch, draws)
        shape = [self.hparams.rollouts, self.hparams.horizon + 1, tf.shape(source)[0], self.hparams.latent_dim]
        noise = draws.normal("latents", shape, self.wide_dtype)
        with tf.GradientTape() as tape:
            values = self.pose_losses(*self.rollout(source, condition, noise), targets)
            total = weighted_sum(values, self.loss_weights())
        optimizers = self.optimizers_by_name
        gradients = tape.gradient(total, {k: o.targets for k, o in optimizers.items()})
        logs = {}
        for name in optimizers:
            logs |= self.apply_gradients(name, gradients[name], self.learning_rate())
        self.finish_step()
        return {"loss": total, **values, **logs}

    def _training_clips(self, batch, draws):
        """Source [B, 2J], targets [B, T-1, 2J] and condition, augmented."""
        poses = self.augmented(tf.cast(batch["poses"], self.wide_dtype), draws)
        poses = self.flat_poses(poses)
        return poses[:, 0], poses[:, 1:], self.condition(batch)

    def augmented(self, poses, draws):
        """The poses, some mirrored, each clip scaled, turned and shifted as a whole, where asked for."""
        h, batch = self.hparams, tf.shape(poses)[0]
        if h.flip_probability:
            flip = draws.bernoulli("flip", [batch], h.flip_probability)
            poses = tf.where(flip[:, None, None, None], self.mirrored(poses), poses)
        if not (h.jitter_scale or h.jitter_rotation or h.jitter_shift):
            return poses
        noise = 2 * draws.uniform("jitter", [4, batch], self.wide_dtype) - 1
        scale, angle = 1 + h.jitter_scale * noise[0], h.jitter_rotation * np.pi / 180 * noise[1]
        cosine, sine = scale * tf.cos(angle), scale * tf.sin(angle)
        turn = tf.stack([tf.stack([cosine, -sine], -1), tf.stack([sine, cosine], -1)], -2)  # [B, 2, 2]
        shift = h.jitter_shift / self.POSE_PIXELS * tf.transpose(noise[2:])
        return tf.einsum("btjc,bdc->btjd", poses, turn) + shift[:, None, None]

    def mirrored(self, poses):
        """The poses in the mirror image: pixel x becomes S - 1 - x, left joints become right ones."""
        swapped = tf.gather(poses, self.hparams.flip_joints, axis=-2)
        return tf.stack([-swapped[..., 0] - 2 / self.hparams.image_size, swapped[..., 1]], axis=-1)

    def pose_losses(self, poses, mean, log_variance, targets):
        """{"reconstruction", "kl"[, "best"][, "spread"]} without weights."""
        h = self.hparams
        indices = losses.alignments(h.horizon, h.shifted_targets, h.rollouts)
        reconstruction = tf.add_n(losses.pose_reconstruction(poses, targets, indices))
        # Of the first rollout only, as the original has it.
        divergence = losses.gaussian_divergence(mean[:, 0], log_variance[:, 0])
        if h.kl_per_sample:
            divergence /= tf.cast(tf.shape(targets)[0], divergence.dtype)
        else:  # gradients are averaged over replicas, while this is a sum over the global batch
            divergence *= self.distribute_strategy.num_replicas_in_sync
        values = {"reconstruction": reconstruction, "kl": divergence}
        if h.best_weight:
            values["best"] = losses.best_reconstruction(poses, targets[:, : h.horizon])
        if h.diversity_weight:
            values["spread"] = losses.pairwise_distance(poses)
        return values

    def loss_weights(self):
        """{name: weight}."""
        h = self.hparams
        return {
            "reconstruction": h.recon_weight,
            "kl": h.kl_weight,
            "best": h.recon_weight * h.rollouts * h.best_weight,
            "spread": -h.recon_weight * h.diversity_weight / max(h.rollouts - 1, 1),
        }

    def test_step(self, batch):
        """Joint errors in pixels of each clip, those of copying the source pose beside them."""
        h = self.hparams
        source, targets = batch["poses"][:, :1], batch["poses"][:, 1 : 1 + h.horizon]
        draws = StatelessDraws(self.seed, stream="validation")
        samples = self.sample_poses(batch, draws, h.eval_samples, h.horizon)
        errors = self.pixel_errors(samples, targets)  # [S, B]
        return {
            "joint_error_px": tf.reduce_mean(errors, 0),
            "joint_error_px_best": tf.reduce_min(errors, 0),
            "joint_error_px_copy": self.pixel_errors(source, targets),
        }

    def pixel_errors(self, poses, truth):
        """Mean distance of the joints in pixels: [..., T, J, 2] -> [...]."""
        difference = tf.cast(poses, self.wide_dtype) - tf.cast(truth, self.wide_dtype)
        return self.POSE_PIXELS * tf.reduce_mean(tf.norm(difference, axis=-1), [-2, -1])

    def generated(self, inputs, draws, num_samples, horizon):
        poses = self.sample_poses(inputs, draws, num_samples, horizon)
        return {"images": self.views(poses), "poses": poses}

    def timed_parts(self, batch):
        """{name: call} of what benchmarks measure beside a whole video: the poses of a training batch of clips."""
        h = self.hparams
        clips = {k: tf.repeat(v[:1], h.batch_size, axis=0) for k, v in self._first_frames(batch).items()}

        @tf.function(autograph=False)
        def sample(clips, seed):
            return self.sample_poses(clips, StatelessDraws(seed, stream="generate"), 1, h.horizon)

        seed = tf.constant(0, tf.int64)
        return {f"{h.horizon} poses of {h.batch_size} clips": lambda: sample(clips, seed).numpy()}

    def views(self, poses):
        """Pictures of poses, of the size of the data's frames where it has some: [..., H, W, 3] in [0, 1]."""
        size = (self.hparams.image_size,) * 2
        if "images" in self.spec:
            size = tuple(self.spec["images"].shape[1:3])
        return coloured_view(tf.cast(poses, self.wide_dtype), self.colours, *size)

    def truth_frames(self, batch, horizon):
        return self.views(batch["poses"][:, 1 : 1 + horizon])
