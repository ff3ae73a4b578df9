"""CADDY's forward passes: pre-training, the closed loop, and one played step."""

from keras import ops

from tfvid.layers import xla
from tfvid.models.caddy.actions import CentroidEstimator, gumbel_softmax
from tfvid.models.caddy.blocks import Block
from tfvid.models.caddy.networks import ActionNetwork, Decoder, Dynamics, Encoder, StateToHidden

# What the action network returns, and how a forward pass calls it.
ACTION_KEYS = (
    "logits", "directions_mean", "directions_variance", "sampled_directions", "states_mean", "states_variance",
    "sampled_states",
)


class CaddyNetworks(Block):
    """The five networks and the centroids, with the passes through all of them.

    B batch, T observations, S stacked frames (newest first in the channels), A actions,
    D dimensions of the action space, H x W images, h x w = H/8 x W/8 states. Noise is
    given as a dictionary: action_states [B T, D] and action_directions [B, T-1, D]
    (normal), gumbel_uniform [B (T-1), A] (uniform; not without use_gumbel), and rec_action_states,
    rec_action_directions of the same shapes for the reconstructed sequence.

    Args:
      hparams: CaddyHParams.
      image_size: (H, W).
    """

    def __init__(self, hparams, image_size, name="networks"):
        super().__init__(name=name)
        self.hparams, self.stacking = hparams, hparams.observation_stacking
        size = (image_size[0] // 8, image_size[1] // 8)
        features, hidden = hparams.state_features, hparams.hidden_size
        actions, dimension = hparams.actions_count, hparams.action_space_dimension
        self.encoder = Encoder(3 * self.stacking, (*hparams.encoder_widths, features))
        self.action_network = ActionNetwork(
            features, hparams.action_width, dimension, actions, hparams.standardize_directions
        )
        self.dynamics = Dynamics(features, hidden, actions + dimension, size)
        self.decoder = Decoder(hidden, hparams.decoder_widths)
        self.state_to_hidden = StateToHidden(features, hidden)
        self.centroids = CentroidEstimator(actions, dimension, hparams.centroid_alpha)

    def build(self, input_shape=None):
        for part in (
            self.encoder, self.action_network, self.dynamics, self.decoder, self.state_to_hidden, self.centroids
        ):
            part.build()
        self.built = True

    # Pieces.

    def encode_sequence(self, observations, training):
        """[B, T, H, W, 3 S] -> states [B, T, h, w, F], attention [B, T, h, w, 1]; one batch."""
        with xla.off():  # Winograd's transformed maps of all frames at once would take gigabytes
            state, attention = self.encoder(_fold(observations), training=training)
        return _unfold(state, observations), _unfold(attention, observations)

    def infer(self, states, attention, noise, training, prefix=""):
        """The action network on a sequence; `prefix` of the noise's and the results' names."""
        rec = "rec_" if prefix else ""
        result = self.action_network(
            states, attention, noise[f"{rec}action_states"], noise[f"{rec}action_directions"], training=training
        )
        names = {"logits": "action_logits"}
        return {f"{prefix}{names.get(k, k)}": self._wide(result[k]) for k in ACTION_KEYS}

    def choose(self, inferred, noise, temperature, actions=None, zero_variations=False):
        """The actions to play, and their variations.

        Args:
          inferred: what `infer` returned for the real sequence.
          noise: gumbel_uniform, where actions are sampled.
          temperature: of the Gumbel-softmax.
          actions: None samples; "most_probable" takes the likeliest; [B, T-1] integers
            are played as they are.
          zero_variations: play the centroids.

        Returns:
          samples [B, T-1, A], variations [B, T-1, D].
        """
        logits = inferred["action_logits"]
        count = logits.shape[-1]
        if actions is None:
            samples = self._sample(logits, noise, temperature)
        else:
            if isinstance(actions, str):
                if actions != "most_probable":
                    raise ValueError(f"expected None, 'most_probable' or integers. Received: actions={actions!r}")
                actions = ops.argmax(logits, axis=-1)
            samples = ops.one_hot(actions, count, dtype=logits.dtype)
        directions = inferred["sampled_directions"]
        if zero_variations or not self.hparams.use_variations:
            return samples, ops.zeros_like(directions)
        return samples, self.centroids.variations(samples, directions)

    def _sample(self, logits, noise, temperature):
        if not self.hparams.use_gumbel:
            return ops.softmax(logits, axis=-1)
        uniform = ops.reshape(noise["gumbel_uniform"], ops.shape(logits))
        return gumbel_softmax(ops.log_softmax(logits, axis=-1), uniform, temperature, self.hparams.hard_gumbel)

    def restack(self, frames, t, ground_truth, observations):
        """The observation at `t` >= `ground_truth` from generated frames, newest first.

        Args:
          frames: {frame index: [B, H, W, 3]} of generated frames.
          t: index of the observation.
          ground_truth: G, the number of real observations at the start.
          observations: [B, T, H, W, 3 S], of which G-1 fills what is older than frame G.
        """
        newest = [frames[j] for j in range(t, max(ground_truth, t + 1 - self.stacking) - 1, -1)]
        older = 3 * (self.stacking - len(newest))
        if older:
            newest.append(ops.cast(observations[:, ground_truth - 1, ..., :older], newest[0].dtype))
        return ops.concatenate(newest, axis=-1) if len(newest) > 1 else newest[0]

    # Whole passes.

    def closed_loop(
        self, observations, noise, *, ground_truth, temperature, training, actions=None, zero_variations=False,
        reduce_sum=lambda x: x,
    ):
        """The main phase: from `ground_truth` observations on the generator sees its own frames.

        Args:
          observations: [B, T, H, W, 3 S] in [-1, 1], T >= 2.
          noise: see the class.
          ground_truth: G >= 1; G >= T shows it every real observation.
          temperature: of the Gumbel-softmax.
          training: batch statistics, and an update of the centroids.
          actions, zero_variations: see `choose`.
          reduce_sum: sums a tensor over replicas.

        Returns:
          A dictionary: images (list of [B, T-1, H, W, 3], half, quarter), hidden_states
          [B, T-1, h, w, Hd], states, attention, samples, variations, selected_actions,
          the keys of `infer`, and the same with "reconstructed_" of the generated
          sequence.
        """
        steps = observations.shape[1]
        states, attention = self.encode_sequence(observations, training)
        inferred = self.infer(states, attention, noise, training)
        if training:
            self._update_centroids(inferred, reduce_sum)
        samples, variations = self.choose(inferred, noise, temperature, actions, zero_variations)

        memory = self.dynamics.initial_memory(ops.shape(observations)[0])
        state, frames, images, hiddens = states[:, 0], {}, [], []
        seen, seen_attention = [state], [attention[:, 0]]
        for t in range(steps - 1):
            hidden, memory = self.dynamics(state, samples[:, t], variations[:, t], memory, training=training)
            hiddens.append(hidden)
            images.append(self.decoder(hidden, training=training))
            frames[t + 1] = images[-1][0]
            if t + 1 < ground_truth:
                state, focus = states[:, t + 1], attention[:, t + 1]
            else:
                observation = self.restack(frames, t + 1, ground_truth, observations)
                state, focus = self.encoder(observation, training=training)
            seen.append(state)
            seen_attention.append(focus)
        rec_states, rec_attention = ops.stack(seen, axis=1), ops.stack(seen_attention, axis=1)
        return {
            "images": [self._wide(ops.stack([image[r] for image in images], axis=1)) for r in range(3)],
            "hidden_states": self._wide(ops.stack(hiddens, axis=1)),
            **self._common(states, attention, samples, variations, inferred),
            "reconstructed_states": self._wide(rec_states),
            "reconstructed_attention": rec_attention,
            **self.infer(rec_states, rec_attention, noise, training, "reconstructed_"),
        }

    def pretraining(self, observations, noise, *, temperature, training, reduce_sum=lambda x: x):
        """The first phase: every state is decoded directly, the dynamics see real states.

        Returns:
          As `closed_loop`, but images of all T observations, and
          reconstructed_hidden_states [B, T, h, w, Hd], which the dynamics regress onto.
        """
        steps = observations.shape[1]
        states, attention = self.encode_sequence(observations, training)
        inferred = self.infer(states, attention, noise, training)
        if training:
            self._update_centroids(inferred, reduce_sum)
        samples, variations = self.choose(inferred, noise, temperature)

        direct = self.state_to_hidden(_fold(states))  # [B T, h, w, Hd]
        images = [_unfold(image, observations) for image in self.decoder(direct, training=training)]
        memory = self.dynamics.initial_memory(ops.shape(observations)[0])
        hiddens = []
        for t in range(steps - 1):
            hidden, memory = self.dynamics(states[:, t], samples[:, t], variations[:, t], memory, training=training)
            hiddens.append(hidden)
        rec_states, rec_attention = self.encode_sequence(stack_frames(images[0], self.stacking), training)
        return {
            "images": [self._wide(image) for image in images],
            "hidden_states": self._wide(ops.stack(hiddens, axis=1)),
            "reconstructed_hidden_states": self._wide(_unfold(direct, observations)),
            **self._common(states, attention, samples, variations, inferred),
            "reconstructed_states": self._wide(rec_states),
            "reconstructed_attention": rec_attention,
            **self.infer(rec_states, rec_attention, noise, training, "reconstructed_"),
        }

    def rollout(self, observations, samples, variations, ground_truth):
        """Generated frames alone, in evaluation mode: `closed_loop` without the inference.

        Args:
          observations: [B, G', H, W, 3 S]; the first `ground_truth` are used.
          samples: [B, N, A].
          variations: [B, N, D].
          ground_truth: G >= 1.

        Returns:
          [B, N, H, W, 3] in [-1, 1]: frame t+1 at place t.
        """
        known, _ = self.encode_sequence(observations[:, :ground_truth], False)
        memory = self.dynamics.initial_memory(ops.shape(observations)[0])
        state, frames, count = known[:, 0], {}, samples.shape[1]
        for t in range(count):
            hidden, memory = self.dynamics(state, samples[:, t], variations[:, t], memory, training=False)
            frames[t + 1] = self.decoder(hidden, training=False, full_only=True)[0]
            if t + 1 == count:
                break
            if t + 1 < ground_truth:
                state = known[:, t + 1]
            else:
                state, _ = self.encoder(self.restack(frames, t + 1, ground_truth, observations), training=False)
        return self._wide(ops.stack([frames[t + 1] for t in range(count)], axis=1))

    def play(self, observation, action, variation, memory):
        """One interactive step, a pure function.

        Args:
          observation: [B, H, W, 3 S] in [-1, 1].
          action: [B, A] one-hot.
          variation: [B, D]; zeros play the action's centroid.
          memory: from `dynamics.initial_memory` or the step before.

        Returns:
          frame [B, H, W, 3] in [-1, 1], the next observation, the next memory.
        """
        state, _ = self.encoder(observation, training=False)
        hidden, memory = self.dynamics(state, action, variation, memory, training=False)
        frame = self._wide(self.decoder(hidden, training=False, full_only=True)[0])
        following = frame if self.stacking == 1 else ops.concatenate([frame, observation[..., :-3]], axis=-1)
        return frame, following, memory

    def interpolation(self, first, second, factor):
        """The action and variation that lie between two actions' centroids.

        Args:
          first, second: actions, 0-based.
          factor: 0 is `first`, 1 is `second`.

        Returns:
          action (Python integer), variation [D].
        """
        centroids = ops.convert_to_tensor(self.centroids.centroids)
        target = centroids[first] + factor * (centroids[second] - centroids[first])
        action = first if factor <= 0.5 else second
        return action, target - centroids[action]

    def _update_centroids(self, inferred, reduce_sum):
        probabilities = ops.softmax(inferred["action_logits"], axis=-1)
        self.centroids.update(probabilities, inferred["directions_mean"], reduce_sum)

    def _wide(self, x):
        """At least float32, for losses and samples under mixed_bfloat16."""
        return ops.cast(x, self.variable_dtype)

    def _common(self, states, attention, samples, variations, inferred):
        return {
            "states": self._wide(states),
            "attention": attention,
            "action_samples": samples,
            "action_variations": variations,
            "selected_actions": ops.argmax(samples, axis=-1),
            **inferred,
        }


def stack_frames(frames, stacking, history=0):
    """Observations of S frames each, newest first, from a sequence of frames.

    Args:
      frames: [B, history + T, H, W, 3].
      stacking: S.
      history: frames before the first observation's newest; where S asks for more, the
        first frame is repeated.

    Returns:
      [B, T, H, W, 3 S].
    """
    count = frames.shape[1]
    if stacking == 1:
        return frames[:, history:]
    slots = [
        ops.take(frames, [max(t - i, 0) for t in range(history, count)], axis=1) for i in range(stacking)
    ]
    return ops.concatenate(slots, axis=-1)


def _fold(x):
    return ops.reshape(x, (-1, *x.shape[2:]))


def _unfold(x, like):
    return ops.reshape(x, (-1, like.shape[1], *x.shape[1:]))
