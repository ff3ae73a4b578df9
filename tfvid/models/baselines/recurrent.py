"""What SNA, SV2P and DNA share: rollout, scheduled sampling, losses, steps, generation."""

import tensorflow as tf

from tfvid.errors import UserError
from tfvid.models.baselines.networks import RecurrentPredictor
from tfvid.models.draws import StatelessDraws
from tfvid.models.optimizers import Adam
from tfvid.models.video_model import VideoModel, weighted_sum

# What the original feeds where the data has no actions or states.
ACTION_SIZE, STATE_SIZE = 4, 3


class RecurrentBaseline(VideoModel):
    """Base of the recurrent baselines; a subclass gives its `variant` and, with latents, more.

    The original feeds zeros where actions or states are missing in SV2P and cannot do
    without them in the others; here all three do as SV2P. It also works at 64x64 only
    in SNA; here every size divisible by 8 will do.

    Outputs of a rollout of T - 1 steps, batch-major: `gen_images` [B, T-1, H, W, C] (frame
    t + 1 predicted from frame t), `gen_states` [B, T-1, S], `masks` [B, T-1, H, W, 1, M].
    """

    OPTIONAL_KEYS = ("actions", "states")

    def __init__(self, hparams, spec, seed=0, name=None):
        super().__init__(hparams, spec, seed, name)
        self.image = tuple(self.spec["images"].shape[1:])  # (H, W, C)
        if any(side % 8 for side in self.image[:2]):
            raise UserError(
                f"{type(self).__name__}: expected a height and width divisible by 8."
                f" Received: {self.image[0]}x{self.image[1]}"
            )
        self.action_size = self._size("actions", ACTION_SIZE)
        self.state_size = self._size("states", STATE_SIZE)
        self.generator = RecurrentPredictor(
            self.variant(), self.image, self.action_size, self.state_size, conditional="actions" in self.spec,
            **self.latent_arguments(),
        )
        h = self.hparams
        self.finish_build({
            "generator": Adam(self.generator.trainable_weights, beta1=h.beta1, beta2=h.beta2, name="generator")
        })

    def _size(self, key, missing):
        return self.spec[key].shape[-1] if key in self.spec else missing

    # What a subclass implements.

    def variant(self):
        """The network's `Variant`."""
        raise NotImplementedError

    def latent_arguments(self):
        """Arguments of `RecurrentPredictor` for the latents."""
        return {}

    def forward(self, inputs, draws, steps, ground_truth):
        """Every rollout, as the recordings of the original name them (suffix _enc: posterior)."""
        return self.rollout(inputs, steps, ground_truth(draws.scope("prior")))

    def training_outputs(self, inputs, draws, steps, ground_truth):
        """{gen_images, gen_states, ...} of the rollout that the losses are of."""
        return self.rollout(inputs, steps, ground_truth(draws.scope("prior")))

    def loss_weights(self):
        """{loss: weight} of the losses that exist at this step."""
        h = self.hparams
        weights = {"gen_l1_loss": h.l1_weight, "gen_l2_loss": h.l2_weight, "gen_state_loss": h.state_weight}
        return {name: weight for name, weight in weights.items() if weight}

    def sample_latents(self, draws, batch, steps):
        """One latent map (or None) for each step, from the prior."""
        return [None] * steps

    # The parts of a step.

    def prepare(self, batch):
        """Float inputs: images [B, T, H, W, C]; actions [B, *, A] or None; states [B, *, S] or None."""
        wide = tf.float64 if self.hparams.precision == "float64" else tf.float32
        inputs = {"images": self.images_to_float(batch["images"])}
        for key in self.OPTIONAL_KEYS:
            inputs[key] = tf.cast(batch[key], wide) if key in self.spec else None
        return inputs

    def rollout(self, inputs, steps, ground_truth, latents=None):
        """Predicts `steps` frames, one after the other.

        Args:
          inputs: as `prepare` gives them; at least the context frames.
          steps: number of frames.
          ground_truth: function of the step t (from 0) that returns None (the model's own
            prediction is fed), or booleans [B] of where frame t is; not called within the
            context, whose frames are all fed.
          latents: one latent map for each step, or None.

        Returns:
          {"gen_images", "gen_states", "masks"}, see the class.
        """
        images = inputs["images"]
        batch = tf.shape(images)[0]
        actions = self._actions(inputs, batch, steps)
        state = tf.zeros([batch, self.state_size], images.dtype)
        if inputs["states"] is not None:
            state = inputs["states"][:, 0]
        step, recurrent = self.generator.bind(), self.generator.zero_state(batch)
        generated, states, masks = [], [], []
        for t in range(steps):
            if t < self.hparams.context_frames:
                image = images[:, t]
            else:
                image = generated[-1]
                true = ground_truth(t)
                if true is not None:
                    image = tf.where(true[:, None, None, None], images[:, t], image)
            latent = latents[t] if latents else None
            image, mask, state, recurrent = step(image, images[:, 0], actions[:, t], state, latent, recurrent)
            generated.append(image)
            states.append(state)
            masks.append(mask[..., None, :])
        return {"gen_images": tf.stack(generated, 1), "gen_states": tf.stack(states, 1), "masks": tf.stack(masks, 1)}

    def _actions(self, inputs, batch, steps):
        if inputs["actions"] is None:
            return tf.zeros([batch, steps, self.action_size], inputs["images"].dtype)
        given = inputs["actions"].shape[1]
        if given is not None and given < steps:
            raise UserError(f"actions: expected {steps} steps to predict {steps} frames. Received: {given}")
        return inputs["actions"][:, :steps]

    def scheduled_sampling(self, batch):
        """Returns a function of draws that gives the `ground_truth` of a training rollout.

        At step t after the context a fresh permutation of the batch decides which
        round(B * k / (k + exp(step / k))) elements are fed their true frame.
        """
        k = self.hparams.schedule_sampling_k
        if k == -1:
            return self.own_predictions
        ratio = tf.exp(tf.cast(self.step, tf.float32) / k)
        count = tf.cast(tf.round(tf.cast(batch, tf.float32) * (k / (k + ratio))), tf.int32)  # half to even

        def of_draws(draws):
            def ground_truth(t):
                order = draws.permutation(f"shuffle/{t}", batch)
                return tf.argsort(order) < count  # the rank of each element

            return ground_truth

        return of_draws

    @staticmethod
    def own_predictions(draws):
        """The `ground_truth` of validation and generation: no true frame after the context."""
        return lambda t: None

    def losses(self, outputs, inputs):
        """{name: [B]} of the losses that have a weight, of all predictions, those of context frames included."""
        steps = outputs["gen_images"].shape[1]
        error = inputs["images"][:, 1 : steps + 1] - outputs["gen_images"]
        losses = {
            "gen_l1_loss": lambda: tf.reduce_mean(tf.abs(error), axis=[1, 2, 3, 4]),
            "gen_l2_loss": lambda: tf.reduce_mean(tf.square(error), axis=[1, 2, 3, 4]),
            "gen_state_loss": lambda: self._state_loss(outputs["gen_states"], inputs),
            "gen_kl_loss": lambda: self.kl_loss(outputs),
        }
        return {name: losses[name]() for name in self.loss_weights()}

    def _state_loss(self, predicted, inputs):
        return tf.reduce_mean(tf.square(inputs["states"][:, 1 : predicted.shape[1] + 1] - predicted), axis=[1, 2])

    def kl_loss(self, outputs):
        """[B] divergence of the posterior from the prior."""
        raise NotImplementedError

    def check_spec(self):
        super().check_spec()
        h = self.hparams
        if getattr(h, "state_weight", 0) and "states" not in self.spec:
            raise UserError("hyper-parameter state_weight: expected 0 for data without states. Received:"
                            f" state_weight={h.state_weight}")  # fmt: skip

    # The contract.

    def train_step(self, batch):
        inputs, draws = self.prepare(batch), self.train_draws()
        return self.train_on(inputs, draws)

    def train_on(self, inputs, draws):
        """One update with given noise; see `train_step`."""
        steps = inputs["images"].shape[1] - 1
        optimizer = self.optimizers_by_name["generator"]
        with tf.GradientTape() as tape:
            ground_truth = self.scheduled_sampling(tf.shape(inputs["images"])[0])
            outputs = self.training_outputs(inputs, draws, steps, ground_truth)
            losses = {name: tf.reduce_mean(value) for name, value in self.losses(outputs, inputs).items()}
            total = weighted_sum(losses, self.loss_weights())
        gradients = tape.gradient(total, [v.value for v in optimizer.targets])
        logs = self.apply_gradients("generator", gradients, self.hparams.learning_rate(self.step))
        self.finish_step()
        return {"g_loss": total, **losses, **logs}

    def test_step(self, batch):
        inputs, draws = self.prepare(batch), self.train_draws("val")
        steps = inputs["images"].shape[1] - 1
        outputs = self.training_outputs(inputs, draws, steps, self.own_predictions)
        losses = self.losses(outputs, inputs)
        return {"g_loss": weighted_sum(losses, self.loss_weights()), **losses}

    def learning_rates(self):
        return {"learning_rate": self.hparams.learning_rate(self.step)}

    def default_horizon(self, batch):
        """Frames after the context: all that the batch has, else what training predicts."""
        length, context = batch["images"].shape[1], self.hparams.context_frames
        if length is not None and length > context:
            return length - context
        return self.hparams.sequence_length - context

    @property
    def stochastic(self):
        """Whether samples differ."""
        return False

    def generate(self, batch, seed, num_samples=1, horizon=None):
        """See `VideoModel.generate`; `states` [num_samples, B, horizon, S] too where the data has them."""
        horizon = horizon or self.default_horizon(batch)
        inputs = self.prepare(batch)
        return self.generate_from(inputs, StatelessDraws(seed, stream="generate"), num_samples, horizon)

    def generate_from(self, inputs, draws, num_samples, horizon):
        """`generate` with given noise and float inputs."""
        context = self.hparams.context_frames
        steps = context - 1 + horizon
        size = tf.shape(inputs["images"])[0]
        repeats = num_samples if self.stochastic else 1
        inputs = {k: None if v is None else tf.tile(v, [repeats] + [1] * (v.shape.rank - 1)) for k, v in inputs.items()}
        latents = self.sample_latents(draws, size * repeats, steps)
        outputs = self.rollout(inputs, steps, lambda t: None, latents)
        keys = {"images": "gen_images"} | ({"states": "gen_states"} if "states" in self.spec else {})
        result = {}
        for key, name in keys.items():
            value = outputs[name][:, context - 1 :]
            value = tf.reshape(value, [repeats, size, *value.shape[1:]])
            result[key] = tf.repeat(value, num_samples // repeats, axis=0)
        return result

    def signatures(self):
        """`serving_default`: images [B, context, H, W, C] in [0, 1], actions, states, seed -> images, states.

        As many frames as a long clip of the hyper-parameters has after its context.
        """
        h = self.hparams
        horizon = (h.long_sequence_length or h.sequence_length) - h.context_frames
        signature = {"images": tf.TensorSpec([None, h.context_frames, *self.image], tf.float32, name="images")}
        if "actions" in self.spec:
            shape = [None, h.context_frames - 1 + horizon, self.action_size]
            signature["actions"] = tf.TensorSpec(shape, tf.float32, name="actions")
        if "states" in self.spec:
            signature["states"] = tf.TensorSpec([None, 1, self.state_size], tf.float32, name="states")
        seed = tf.TensorSpec([], tf.int64, name="seed")

        @tf.function(input_signature=[signature, seed])
        def predict(inputs, seed):
            outputs = self.generate(inputs, seed, horizon=horizon)
            return {key: tf.cast(value[0], tf.float32) for key, value in outputs.items()}

        return {"serving_default": predict}
