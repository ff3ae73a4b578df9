"""CADDY: playable video generation, a discrete action per step learnt without labels.

Menapace, Lathuiliere, Tulyakov, Siarohin, Ricci, "Playable Video Generation", CVPR 2021.
"""

import typing

import tensorflow as tf
from absl import logging

from tfvid.errors import UserError
from tfvid.layers import xla
from tfvid.models import schedules
from tfvid.models.caddy import diagnostics, losses, terms
from tfvid.models.caddy.forward import CaddyNetworks, stack_frames
from tfvid.models.caddy.hparams import CaddyHParams
from tfvid.models.draws import StatelessDraws
from tfvid.models.optimizers import Adam
from tfvid.models.perceptual import PerceptualVGG, loss_by_slices
from tfvid.models.video_model import VideoModel


class Phase(typing.NamedTuple):
    """What one traced training step is made for."""

    pretraining: bool
    observations: int
    ground_truth: int


class Caddy(VideoModel):
    """CADDY in its "main" and "reduced" forms.

    Batch keys: `images` (from which actions are inferred); `action_labels` are used by
    evaluation alone.
    """

    HPARAMS = CaddyHParams
    OPTIONAL_KEYS = ("action_labels",)

    def __init__(self, hparams, spec, seed=0, name="caddy"):
        super().__init__(hparams, spec, seed, name)
        for key in ("context_frames", "sequence_length"):
            hparams.require(getattr(hparams, key), key, "a positive number, here or from the data set")
        height, width, channels = spec["images"].shape[-3:]
        _check_size(height, width, channels, hparams.perceptual)
        self.image_size = (height, width)
        self.networks = CaddyNetworks(hparams, self.image_size)
        self.networks.build()
        count = hparams.actions_count
        self.mi_matrix = None
        if hparams.trainer == "smooth_mi_trainer":
            self.mi_matrix = self._running("mi_matrix", (count, count), 1 / count**2)
        # Share of each action among the most probable ones, over the last collapse_window steps.
        self.action_usage = self._running("action_usage", (count,), 1 / count)
        self.perceptual = PerceptualVGG(
            hparams.vgg_weights, hparams.precision,
            "set perceptual_loss_lambda and perceptual_loss_lambda_pretraining to 0", hparams.vgg_widths,
        )
        self._collapse = diagnostics.CollapseMonitor(hparams)
        self._generators = {}
        self.finish_build(
            {
                "generator": Adam(
                    self.networks.trainable_variables, beta1=hparams.beta1, beta2=hparams.beta2, epsilon=1e-8,
                    form="torch", weight_decay=hparams.weight_decay, name="generator",
                )
            }
        )

    def _running(self, name, shape, value):
        def constant(shape, dtype):  # Keras' own would round the number to float32
            return tf.fill(shape, tf.constant(value, dtype))

        return self.add_weight(
            name=name, shape=shape, initializer=constant, trainable=False, autocast=False,
            aggregation="only_first_replica",
        )

    # Training.

    def prepare_training(self):
        if self.hparams.perceptual:
            self.perceptual.network  # noqa: B018  made, or refused

    def phase(self, step):
        """The graph of the update after `step`: its phase, number of observations, real ones seen."""
        k = step + 1
        count = self.hparams.observations_at(k)
        return Phase(self.hparams.is_pretraining(k), count, min(self.hparams.ground_truth_at(k), count - 1))

    @tf.autograph.experimental.do_not_convert
    def train_step(self, batch):
        """One update of everything; `current_phase` says which."""
        phase = self.current_phase
        observations = self.observations(batch["images"], phase.observations)
        noise = self.noise(self.train_draws(), observations)
        temperature = self._temperature(self.step + 1)
        variables = self.optimizers_by_name["generator"].targets
        # Winograd's method, which play and VGG gain by, gains the networks a tenth and takes 0.3 GB: each size of map is
        # compiled.
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([v.value for v in variables])
            with xla.off():
                outputs = self.forward(observations, noise, phase, temperature, training=True)
            total, logs = self.losses(outputs, observations, phase.pretraining, training=True)
        gradients = tape.gradient(total, [v.value for v in variables])
        logs.update(terms.statistics(outputs, self.networks.centroids))
        logs.update(self._track_usage(outputs["action_logits"]))
        logs.update(self.apply_gradients("generator", gradients, self.learning_rate()))
        logs.update(
            gumbel_temperature=temperature, observations_count=float(phase.observations),
            ground_truth_observations=float(phase.ground_truth),
        )
        self.finish_step()
        return {k: tf.convert_to_tensor(v) for k, v in logs.items()}

    def observations(self, images, count):
        """The first `count` observations of clips [B, T, H, W, 3]: [B, count, H, W, 3 S] in [-1, 1].

        A clip of `sequence_length` frames begins with the history that stacking asks for;
        in a shorter one the first frame is repeated.
        """
        stacking = self.hparams.observation_stacking
        history = min(stacking - 1, images.shape[1] - count)
        if history < 0:
            raise UserError(f"expected clips of at least {count} frames, received {images.shape[1]}")
        images = self.images_to_float(images[:, : history + count]) * 2 - 1
        return stack_frames(images, stacking, history)

    def noise(self, draws, observations):
        """All noise of a forward pass, see `CaddyNetworks`."""
        dtype = observations.dtype
        batch, steps = tf.shape(observations)[0], observations.shape[1]
        dimension, count = self.hparams.action_space_dimension, self.hparams.actions_count
        result = {}
        for prefix in ("", "rec_"):
            name = f"{prefix}action_states"
            result[name] = self._normal(draws, name, [batch * steps, dimension], dtype)
            name = f"{prefix}action_directions"
            result[name] = self._normal(draws, name, [batch, steps - 1, dimension], dtype)
        if self.hparams.use_gumbel:
            shape = [batch * (steps - 1), count]
            result["gumbel_uniform"] = draws.uniform("gumbel_uniform", shape, dtype)
        return result

    def _normal(self, draws, name, shape, dtype):
        factor = self.hparams.direction_noise
        value = draws.normal(name, shape, dtype)
        return value if factor == 1 else factor * value

    def forward(self, observations, noise, phase, temperature, training):
        """The forward pass of a phase."""
        if phase.pretraining:
            return self.networks.pretraining(
                observations, noise, temperature=temperature, training=training, reduce_sum=_reduce_sum
            )
        return self.networks.closed_loop(
            observations, noise, ground_truth=phase.ground_truth, temperature=temperature, training=training,
            reduce_sum=_reduce_sum,
        )

    def losses(self, outputs, observations, pretraining, training):
        """The total loss and every term of it, by the original's names."""
        weight = terms.weight_of(self.hparams, "perceptual_loss", pretraining)
        vgg = self.perceptual.network if _positive(weight) else None
        values, information = terms.reconstruction_terms(
            outputs, observations, vgg, terms.component_weights(weight), self.hparams.reconstruction_foreground_weight,
            loss_by_slices if training else None,
        )
        values.update(terms.state_terms(outputs, pretraining))
        values["action_mutual_information"] = self.mutual_information_loss(outputs, training)
        total, more = terms.total_loss(values, self.hparams, pretraining)
        return total, {**information, **more}

    def mutual_information_loss(self, outputs, training):
        """Of the batch, or of the running joint distribution, which training moves."""
        p, q = (tf.nn.softmax(outputs[f"{prefix}action_logits"]) for prefix in ("", "reconstructed_"))
        joint = losses.joint_matrix(p, q, _reduce_sum)
        if self.mi_matrix is not None and training:
            running = tf.convert_to_tensor(self.mi_matrix)
            joint = losses.smooth_joint(running, joint, self.hparams.mutual_information_estimation_alpha)
            self.mi_matrix.assign(losses.stored_joint(joint))
        return losses.mutual_information_loss(joint, self.hparams.action_mutual_information_entropy_lambda)

    def learning_rate(self):
        """lr of the next update, a scalar tensor."""
        # The schedule counts finished updates and changes at, not after, a boundary.
        factor = schedules.piecewise(self.step + 1, self.hparams.lr_schedule, self.hparams.lr_gamma, "float64")
        return self.hparams.lr * factor

    def learning_rates(self):
        return {"generator": self.learning_rate()}

    def _temperature(self, k):
        return tf.cast(self.hparams.temperature_at(tf.cast(k, tf.float64)), self.networks.variable_dtype)

    def _track_usage(self, logits):
        """Moves `action_usage` and returns its histogram."""
        count = self.hparams.actions_count
        chosen = tf.one_hot(tf.argmax(logits, axis=-1), count, dtype=logits.dtype)
        total = _reduce_sum(tf.reduce_sum(chosen, axis=(0, 1)))
        share = 1 / self.hparams.collapse_window
        usage = (1 - share) * tf.convert_to_tensor(self.action_usage) + share * total / tf.reduce_sum(total)
        self.action_usage.assign(usage)
        return {f"action_usage_{a}": usage[a] for a in range(count)} | {
            "effective_actions": tf.exp(losses.entropy(usage[None]))
        }

    def make_train_function(self, force=False):
        step = super().make_train_function(force)

        def train_function(iterator):
            logs = step(iterator)
            if self._collapse.due(self.host_step):
                message = self._collapse.message(
                    self.host_step, self.action_usage.numpy(), float(logs["action_mutual_information_loss"]),
                    float(logs["average_centroids_distance"]),
                )
                if message:
                    logging.warning("%s", message)
            return logs

        self.train_function = train_function
        return train_function

    # Validation and generation.

    @tf.autograph.experimental.do_not_convert
    def test_step(self, batch):
        """The closed loop from the first frame, with the actions that it infers."""
        count = batch["images"].shape[1]
        observations = self.observations(batch["images"], count)
        noise = self.noise(StatelessDraws(self.seed, 0, stream="validation"), observations)
        phase = Phase(False, count, 1)
        # The temperature of the last update, as in the original.
        outputs = self.forward(observations, noise, phase, self._temperature(self.step), training=False)
        _, logs = self.losses(outputs, observations, False, training=False)
        real = losses.real_frames(observations, count - 1)
        squared = tf.reduce_mean(tf.square(real - outputs["images"][0]) / 4, axis=(2, 3, 4))  # [B, T-1] in [0, 1]
        logs["psnr"] = tf.reduce_mean(-10 * tf.math.log(squared + 1e-8) / tf.math.log(tf.cast(10, squared.dtype)), 1)
        chosen = tf.one_hot(tf.argmax(outputs["action_logits"], -1), self.hparams.actions_count, dtype=squared.dtype)
        usage = tf.reduce_mean(chosen, axis=(0, 1))
        logs["effective_actions"] = tf.exp(losses.entropy(usage[None]))
        logs.update({f"action_usage_{a}": usage[a] for a in range(self.hparams.actions_count)})
        logs["average_centroids_distance"] = self.networks.centroids.distances()
        return logs

    def generate(self, batch, seed, num_samples=1, horizon=None, actions=None):
        """Continues the first `context_frames` frames.

        Args:
          batch: `images` [B, N, H, W, 3]; without `actions` N must cover the horizon, as
            the actions are those inferred from the real sequence (the most probable ones,
            with variation 0: the paper's protocol).
          seed: of the inference's noise.
          num_samples: samples; they differ where inferred actions do.
          horizon: frames after the context; None: all of the batch, or of sequence_length.
          actions: [B, horizon] integers in [0, A): action k leads to frame context + k.

        Returns:
          images [S, B, horizon, H, W, 3] in [0, 1]; actions [S, B, horizon], the actions
          played; action_directions [S, B, horizon, D], as inferred (zeros for given
          actions).
        """
        images = tf.convert_to_tensor(batch["images"])
        context, frames = self.hparams.context_frames, images.shape[1]
        if horizon is None:
            horizon = frames - context if frames > context else self.hparams.sequence_length - context
        if horizon < 1 or frames < context:
            raise UserError(f"expected at least {context} context frames and a horizon of 1, received {frames} frames")
        if actions is None and frames < context + horizon:
            raise UserError(
                f"CADDY infers its actions from the frames to reconstruct: expected {context + horizon} frames, or"
                f" actions [B, {horizon}]. Received: {frames} frames"
            )
        if actions is not None:
            actions = tf.convert_to_tensor(actions, tf.int32)
            _check_actions(actions, horizon, self.hparams.actions_count)
        used = context if actions is not None else context + horizon
        # One function a horizon and a way to choose actions; more samples are a larger batch.
        key = (horizon, actions is None)
        if key not in self._generators:
            self._generators[key] = tf.function(
                lambda images, seed, count, actions: self._generate(images, seed, count, horizon, actions)
            )
        seed = tf.convert_to_tensor(seed, tf.int64)
        return self._generators[key](images[:, :used], seed, tf.constant(num_samples), actions)

    def _generate(self, images, seed, num_samples, horizon, actions):
        context, count = self.hparams.context_frames, self.hparams.actions_count
        batch = tf.shape(images)[0]
        images = tf.repeat(images[None], num_samples, axis=0)
        images = tf.reshape(images, [num_samples * batch, *images.shape[2:]])
        observations = stack_frames(self.images_to_float(images) * 2 - 1, self.hparams.observation_stacking)
        chosen, directions = self._inferred(observations, StatelessDraws(seed, stream="generate"))
        if actions is not None:
            given = tf.tile(actions, [num_samples, 1])
            chosen = tf.concat([chosen, given], axis=1)
            missing = tf.zeros([tf.shape(given)[0], horizon, self.hparams.action_space_dimension], directions.dtype)
            directions = tf.concat([directions, missing], axis=1)
        samples = tf.one_hot(chosen, count, dtype=observations.dtype)
        frames = self.networks.rollout(observations, samples, tf.zeros_like(directions), context)

        def future(x):
            return tf.reshape(x[:, context - 1 :], [num_samples, batch, horizon, *x.shape[2:]])

        return {
            "images": future(frames) / 2 + 0.5, "actions": future(chosen), "action_directions": future(directions)
        }

    def _inferred(self, observations, draws):
        """The most probable actions [B, T-1] (int32) between observations, and their directions."""
        batch, steps = tf.shape(observations)[0], observations.shape[1]
        dimension = self.hparams.action_space_dimension
        if steps == 1:
            return tf.zeros([batch, 0], tf.int32), tf.zeros([batch, 0, dimension], observations.dtype)
        states, attention = self.networks.encode_sequence(observations, False)
        noise = {
            name: self._normal(draws, name, shape, observations.dtype)
            for name, shape in (
                ("action_states", [batch * steps, dimension]), ("action_directions", [batch, steps - 1, dimension]),
            )
        }
        inferred = self.networks.infer(states, attention, noise, False)
        return tf.argmax(inferred["action_logits"], -1, output_type=tf.int32), inferred["sampled_directions"]

    # Playing.

    def start(self, frames):
        """The state of a game that begins with real frames.

        Args:
          frames: [B, S, H, W, 3], uint8 or float in [0, 1], oldest first.

        Returns:
          {"observation": [B, H, W, 3 S], "hidden_0", "cell_0", ..., "cell_2"}: the
          stacked frames and the three memories as they begin.
        """
        frames = self.images_to_float(frames) * 2 - 1
        observation = stack_frames(frames, self.hparams.observation_stacking)[:, -1]
        return {"observation": observation, **_named(self.networks.dynamics.initial_memory(tf.shape(frames)[0]))}

    def play(self, state, action, variation=None):
        """One step of a game, a pure function.

        Args:
          state: as `start` or the last step gave it.
          action: [B] integers in [0, A).
          variation: [B, D] within the action's cluster; None: its centroid.

        Returns:
          frame [B, H, W, 3] in [0, 1], the next state.
        """
        observation = state["observation"]
        one_hot = tf.one_hot(action, self.hparams.actions_count, dtype=observation.dtype)
        if variation is None:
            variation = tf.zeros([tf.shape(observation)[0], self.hparams.action_space_dimension], observation.dtype)
        memory = [(state[f"hidden_{i}"], state[f"cell_{i}"]) for i in range(3)]
        frame, observation, memory = self.networks.play(observation, one_hot, variation, memory)
        return frame / 2 + 0.5, {"observation": observation, **_named(memory)}

    def timed_parts(self, batch):
        """{name: call} of what benchmarks measure beside a whole video: one played step."""
        state = self.start(batch["images"][:, : self.hparams.observation_stacking])
        play, action = tf.function(self.play, autograph=False), tf.zeros([tf.shape(batch["images"])[0]], tf.int32)
        return {"one played step": lambda: play(state, action)[0].numpy()}

    def signatures(self):
        """serving_default: context frames and actions to a video; start and step: a game.

        serving_default: images [B, context, H, W, 3] in [0, 1], actions [B, horizon], seed
          -> images [B, horizon, H, W, 3].
        start: images [B, S, H, W, 3] -> the state.
        step: the state, action [B], variation [B, D] -> frame and the next state.
        """
        hparams, (height, width), dtype = self.hparams, self.image_size, self.wide_dtype
        horizon = hparams.sequence_length - hparams.context_frames

        def frames(count, name):
            return tf.TensorSpec([None, count, height, width, 3], dtype, name)

        state = tf.nest.map_structure(
            lambda t: tf.TensorSpec([None, *t.shape[1:]], t.dtype),
            self.start(tf.zeros([1, hparams.observation_stacking, height, width, 3], dtype)),
        )
        spec = {k: tf.TensorSpec(s.shape, s.dtype, k) for k, s in state.items()}

        def generate(images, actions, seed):
            outputs = self._generate(images, seed, 1, horizon, actions)
            return {"images": outputs["images"][0]}

        def step(action, variation, **state):
            frame, state = self.play(state, action, variation)
            return {"frame": frame, **state}

        return {
            "serving_default": tf.function(
                generate,
                input_signature=[
                    frames(hparams.context_frames, "images"), tf.TensorSpec([None, horizon], tf.int32, "actions"),
                    tf.TensorSpec([], tf.int64, "seed"),
                ],
            ),
            "start": tf.function(self._start_signature, input_signature=[frames(hparams.observation_stacking, "images")]),
            "step": _bound(
                step, tf.TensorSpec([None], tf.int32, "action"),
                tf.TensorSpec([None, hparams.action_space_dimension], dtype, "variation"), spec,
            ),
        }

    def _start_signature(self, images):
        return self.start(images)


def _check_size(height, width, channels, perceptual):
    if channels != 3:
        raise UserError(f"caddy: expected RGB frames. Received: {channels} channels")
    if height % 16 or width % 16:
        raise UserError(f"caddy: expected a height and width that 16 divides. Received: {height} x {width}")
    if perceptual and min(height, width) < 64:
        raise UserError(
            f"caddy: expected frames of at least 64 x 64 where the perceptual loss is used. Received: {height} x {width}"
        )


def _check_actions(actions, horizon, count):
    if actions.shape[-1] != horizon:
        raise UserError(f"actions: expected {horizon} of them, one a frame. Received: {actions.shape[-1]}")
    low, high = int(tf.reduce_min(actions)), int(tf.reduce_max(actions))
    if low < 0 or high >= count:
        raise UserError(f"actions: expected integers from 0 to {count - 1}. Received: {low} to {high}")


def _positive(weight):
    return any(weight) if isinstance(weight, tuple) else bool(weight)


def _named(memory):
    """[(hidden, cell), ...] -> {"hidden_0", "cell_0", ...}."""
    names = ("hidden", "cell")
    return {f"{name}_{i}": value for i, pair in enumerate(memory) for name, value in zip(names, pair)}


def _bound(step, action, variation, state):
    """A tf.function of (action, variation, **state) with fixed specs."""
    names = list(state)

    def call(action, variation, *values):
        return step(action, variation, **dict(zip(names, values)))

    return tf.function(call, input_signature=[action, variation, *state.values()])


def _reduce_sum(x):
    """The sum of `x` over replicas, with its gradient."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return x
    return context.all_reduce(tf.distribute.ReduceOp.SUM, x)
