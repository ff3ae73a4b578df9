"""What SNA, SV2P and DNA share: rollout, scheduled sampling, losses, steps, generation."""

import tensorflow as tf

from tfvid.errors import UserError
from tfvid.layers.rollout import rollout
from tfvid.layers.shared_function import shared_function
from tfvid.models.baselines.networks import RecurrentPredictor
from tfvid.models.draws import StatelessDraws
from tfvid.models.optimizers import Adam
from tfvid.models.video_model import VideoModel, weighted_sum

# What the original feeds where the data has no actions or states.
ACTION_SIZE, STATE_SIZE = 4, 3
LOOP_FROM = 6  # steps from which generation is a loop


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
            self.variant(),
            self.image,
            self.action_size,
            self.state_size,
            conditional="actions" in self.spec,
            **self.latent_arguments(),
        )
        self._samplers = {}
        h = self.hparams
        self.finish_build(
            {"generator": Adam(self.generator.trainable_weights, beta1=h.beta1, beta2=h.beta2, name="generator")}
        )

    def _size(self, key, missing):
        return self.spec[key].shape[-1] if key in self.spec else missing

    @property
    def clip_length(self):
        """Frames of a training clip."""
        return self.hparams.sequence_length or self.spec["images"].shape[0]

    # What a subclass implements.

    def variant(self):
        """The network's `Variant`."""
        raise NotImplementedError

    def latent_arguments(self):
        """Arguments of `RecurrentPredictor` for the latents."""
        return {}

    def forward(self, inputs, draws, training):
        """Every rollout, as the recordings of the original name them (suffix _enc: posterior)."""
        return self.training_outputs(inputs, draws, training)

    def training_outputs(self, inputs, draws, training):
        """{gen_images, gen_states, ...} of the rollout that the losses are of."""
        return self.rollout_of(inputs, draws.scope("prior"), training)

    def rollout_of(self, inputs, draws, training, latents=None):
        """`rollout` of whole clips, with scheduled sampling in training."""
        images = inputs["images"]
        steps = images.shape[1] - 1
        ground_truth = self.scheduled_sampling(draws, _batch_size(images), steps) if training else None
        return self.rollout(inputs, steps, ground_truth, latents)

    def loss_weights(self):
        """{loss: weight} of the losses that exist at this step."""
        h = self.hparams
        weights = {"gen_l1_loss": h.l1_weight, "gen_l2_loss": h.l2_weight, "gen_state_loss": h.state_weight}
        return {name: weight for name, weight in weights.items() if weight}

    def sample_latents(self, draws, batch, steps):
        """Latents for `rollout` from the prior."""
        return None

    # The parts of a step.

    def prepare(self, batch):
        """Float inputs: images [B, T, H, W, C]; actions [B, *, A] or None; states [B, *, S] or None."""
        inputs = {"images": self.images_to_float(batch["images"])}
        for key in self.OPTIONAL_KEYS:
            inputs[key] = tf.cast(batch[key], self.wide_dtype) if key in self.spec else None
        return inputs

    def rollout(self, inputs, steps, ground_truth=None, latents=None, unroll=None):
        """Predicts `steps` frames, one after the other.

        Args:
          inputs: as `prepare` gives them; at least the context frames, which are all fed.
          steps: number of frames, the context's included.
          ground_truth: booleans [steps - C, B]: where the true frame is fed after the
            context; None: the model's own prediction always is.
          latents: a latent map for the clip [B, H/8, W/8, Z] or one a step [steps, B, ...].
          unroll: see `tfvid.layers.rollout`.

        Returns:
          {"gen_images", "gen_states", "masks"}, see the class.
        """
        context = min(self.hparams.context_frames, steps)
        images = _swap_time(inputs["images"][:, : steps if ground_truth is not None else context])
        given = {"action": _swap_time(self._actions(inputs, steps))}
        fixed_latent = latents if latents is None or latents.shape.rank == 4 else None
        if fixed_latent is None and latents is not None:
            given["latent"] = latents
        step, first = shared_function(self.generator.bind()), images[0]

        def advance(carry, x):
            image, state, recurrent = carry
            if "image" in x:
                true = x["image"]
                image = tf.where(x["true"][:, None, None, None], true, image) if "true" in x else true
            latent = x.get("latent", fixed_latent)
            image, masks, state, recurrent = step(image, first, x["action"], state, latent, recurrent)
            return (image, state, masks), (image, state, recurrent)

        carry = (tf.zeros_like(first), self._first_state(inputs), self.generator.zero_state(tf.shape(first)[0]))
        known = {k: v[:context] for k, v in given.items()} | {"image": images[:context]}
        outputs, carry = rollout(advance, carry, known, context, unroll)
        if steps > context:
            rest = {k: v[context:] for k, v in given.items()}
            if ground_truth is not None:
                rest |= {"image": images[context:], "true": ground_truth}
            future, _ = rollout(advance, carry, rest, steps - context, unroll)
            outputs = [tf.concat([a, b], axis=0) for a, b in zip(outputs, future)]
        frames, states, masks = [_swap_time(x) for x in outputs]
        return {"gen_images": frames, "gen_states": states, "masks": masks[..., None, :]}

    def _first_state(self, inputs):
        if inputs["states"] is not None:
            return inputs["states"][:, 0]
        return tf.zeros([tf.shape(inputs["images"])[0], self.state_size], inputs["images"].dtype)

    def _actions(self, inputs, steps):
        if inputs["actions"] is None:
            images = inputs["images"]
            return tf.zeros([tf.shape(images)[0], steps, self.action_size], images.dtype)
        self._check_actions(inputs, steps)
        return inputs["actions"][:, :steps]

    @staticmethod
    def _check_actions(inputs, steps):
        given = None if inputs["actions"] is None else inputs["actions"].shape[1]
        if given is not None and given < steps:
            raise UserError(f"actions: expected {steps} steps to predict {steps} frames. Received: {given}")

    def scheduled_sampling(self, draws, batch, steps):
        """The `ground_truth` of a training rollout.

        At each step after the context a fresh permutation of the batch decides which
        round(B * k / (k + exp(step / k))) elements are fed their true frame.
        """
        k, context = self.hparams.schedule_sampling_k, self.hparams.context_frames
        if k == -1 or steps <= context:
            return None
        ratio = tf.exp(tf.cast(self.step, tf.float32) / k)
        count = tf.cast(tf.round(tf.cast(batch, tf.float32) * (k / (k + ratio))), tf.int32)  # half to even
        orders = [draws.permutation(f"shuffle/{t}", batch) for t in range(context, steps)]
        return tf.stack([tf.argsort(order) < count for order in orders])  # the rank of each element

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

    @tf.autograph.experimental.do_not_convert
    def train_step(self, batch):
        inputs, draws = self.prepare(batch), self.train_draws()
        return self.train_on(inputs, draws)

    def train_on(self, inputs, draws):
        """One update with given noise; see `train_step`."""
        optimizer = self.optimizers_by_name["generator"]
        with tf.GradientTape() as tape:
            outputs = self.training_outputs(inputs, draws, training=True)
            losses = {name: tf.reduce_mean(value) for name, value in self.losses(outputs, inputs).items()}
            total = weighted_sum(losses, self.loss_weights())
        gradients = tape.gradient(total, [v.value for v in optimizer.targets])
        logs = self.apply_gradients("generator", gradients, self.hparams.learning_rate(self.step))
        self.finish_step()
        return {"g_loss": total, **losses, **logs}

    @tf.autograph.experimental.do_not_convert
    def test_step(self, batch):
        """Losses of the rollout that training optimises, and error and PSNR of one sample of the future."""
        inputs, draws = self.prepare(batch), self.train_draws("val")
        losses = self.losses(self.training_outputs(inputs, draws, training=False), inputs)
        context, steps = self.hparams.context_frames, inputs["images"].shape[1] - 1
        latents = self.sample_latents(draws.scope("sample"), _batch_size(inputs["images"]), steps)
        predicted = self.rollout(inputs, steps, latents=latents)["gen_images"][:, context - 1 :]
        mse = tf.reduce_mean(tf.square(predicted - inputs["images"][:, context:]), axis=[2, 3, 4])  # [B, T-C]
        psnr = -10.0 * tf.math.log(tf.maximum(mse, 1e-10)) / tf.math.log(tf.constant(10.0, mse.dtype))
        total = weighted_sum(losses, self.loss_weights())
        return {"g_loss": total, **losses, "mse": tf.reduce_mean(mse, 1), "psnr": tf.reduce_mean(psnr, 1)}

    def learning_rates(self):
        return {"learning_rate": self.hparams.learning_rate(self.step)}

    @property
    def stochastic(self):
        """Whether samples differ."""
        return False

    def generate(self, batch, seed, num_samples=1, horizon=None):
        """See `VideoModel.generate`; `states` [num_samples, B, horizon, S] too where the data has them.

        Needs the context frames, the first state and all actions up to the last prediction.
        """
        inputs, horizon = self._sampling_inputs(batch, horizon)
        key = (int(num_samples), horizon)
        if key not in self._samplers:

            def run(inputs, seed):
                return self.sample(inputs, StatelessDraws(seed, stream="generate"), *key)

            self._samplers[key] = tf.function(run, reduce_retracing=True, autograph=False)
        seed = tf.cast(seed, tf.int64) if tf.is_tensor(seed) else tf.constant(int(seed), tf.int64)
        return self._samplers[key](inputs, seed)

    def _sampling_inputs(self, batch, horizon):
        """(inputs that `sample` needs, horizon), checked."""
        context = self.hparams.context_frames
        missing = [k for k in ("images", *self.OPTIONAL_KEYS) if k in self.spec and k not in batch]
        if missing:
            raise UserError(f"generate: expected {', '.join(self.spec)}. Received no {', '.join(missing)}")
        inputs = self.prepare({k: tf.convert_to_tensor(v) for k, v in batch.items() if k in self.spec})
        frames = inputs["images"].shape[1]
        if frames < context:
            raise UserError(f"generate: expected {context} context frames. Received: {frames}")
        if horizon is None:
            horizon = (frames if frames > context else self.clip_length) - context
        if horizon < 1:
            raise UserError(f"generate: expected a horizon of 1 frame or more. Received: horizon={horizon}")
        lengths = {"images": context, "states": 1, "actions": context - 1 + int(horizon)}
        self._check_actions(inputs, lengths["actions"])
        return {k: None if v is None else v[:, : lengths[k]] for k, v in inputs.items()}, int(horizon)

    def sample(self, inputs, draws, num_samples, horizon):
        """Futures of given noise.

        Args:
          inputs: as `prepare` gives them, of which the context is used.
          draws: noise; sample s of element b has the index s B + b.

        Returns:
          {"images": [num_samples, B, horizon, H, W, C], "states" where the data has them}.
        """
        context = self.hparams.context_frames
        steps = context - 1 + horizon
        size = _batch_size(inputs["images"])
        copies = num_samples if self.stochastic else 1
        tiled = {k: None if v is None else tf.concat([v] * copies, axis=0) for k, v in inputs.items()}
        latents = self.sample_latents(draws, size * copies, steps)
        # Without gradients a loop is as fast as an unrolled graph, and far quicker to trace.
        outputs = self.rollout(tiled, steps, latents=latents, unroll=steps <= LOOP_FROM)
        keys = {"images": "gen_images"} | ({"states": "gen_states"} if "states" in self.spec else {})
        result = {}
        for key, name in keys.items():
            value = outputs[name][:, context - 1 :]
            value = tf.reshape(value, tf.concat([[copies, size], tf.shape(value)[1:]], axis=0))
            value = tf.ensure_shape(value, [copies, None, horizon, *outputs[name].shape[2:]])
            result[key] = tf.repeat(value, num_samples // copies, axis=0)
        return result

    def signatures(self):
        """serving_default: context frames, actions, states and a seed -> one sample of the future.

        Inputs: images float32 [B, C, H, W, channels] in [0, 1]; actions [B, C-1+horizon, A]
        and states [B, C, S] where the data has them; seed int64 scalar. Outputs: images
        [B, horizon, H, W, channels] in [0, 1], states. horizon = long_sequence_length (or
        sequence_length) - C.
        """
        h = self.hparams
        horizon = (h.long_sequence_length or self.clip_length) - h.context_frames
        keys = [k for k in ("images", *self.OPTIONAL_KEYS) if k in self.spec]
        lengths = {"images": h.context_frames, "states": h.context_frames, "actions": h.context_frames - 1 + horizon}
        specs = [tf.TensorSpec([None, lengths[k], *self.spec[k].shape[1:]], tf.float32, name=k) for k in keys]

        @tf.function(input_signature=[*specs, tf.TensorSpec([], tf.int64, name="seed")], autograph=False)
        def serve(*values):
            inputs = self.prepare(dict(zip(keys, values[:-1])))
            videos = self.sample(inputs, StatelessDraws(values[-1], stream="generate"), 1, horizon)
            return {k: tf.cast(v[0], tf.float32) for k, v in videos.items()}

        return {"serving_default": serve}


def _batch_size(x):
    """The batch size: an integer where it is known, else a tensor."""
    return x.shape[0] if x.shape[0] is not None else tf.shape(x)[0]


def _swap_time(x):
    """[B, T, ...] <-> [T, B, ...]."""
    return tf.transpose(x, [1, 0, *range(2, x.shape.rank)])
