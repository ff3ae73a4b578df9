"""The temporal VAE and the pose decoder of ACT-VAE, and their rollout.

Xu, Wang, Wang, Yu and Jia, "Conditional Temporal Variational AutoEncoder for Action
Video Prediction", 2021 (arXiv 2108.05658); original: xiaogang00/ACT-VAE.

Nothing sees the future: the latent code follows a learnt stochastic transition, and
training and sampling run the same graph. Poses are flat, [N, 2J] as x0, y0, x1, y1, ...
"""

import typing

import keras
from keras import ops

from tfvid.layers.bound import BoundLayer
from tfvid.layers.rollout import rollout as run
from tfvid.layers.torch_lstm import TorchLSTMCell


class Rollout(typing.NamedTuple):
    """What `PoseNetwork` gives.

    Attributes:
      poses: [N, horizon, 2J].
      mean, log_variance: [horizon, N, Z] of the latent codes.
    """

    poses: typing.Any
    mean: typing.Any
    log_variance: typing.Any


class TemporalVAE(BoundLayer):
    """Latent code of a step from pose, condition and the code before it.

    The hidden state of an LSTM of 2Z units is (mean, log variance), so that both lie in
    (-1, 1) and the code never becomes deterministic.
    """

    def __init__(self, pose_size, condition_size, latent_dim, name="temporal_vae"):
        super().__init__(name)
        self.latent_dim = latent_dim
        with self.scope():
            self.cell = TorchLSTMCell(pose_size + condition_size + latent_dim, 2 * latent_dim, "cell")

    def bind(self):
        cell = self.cell.bind()

        def step(inputs, latent, noise, state):
            hidden, state = cell(ops.concatenate([inputs, latent], axis=-1), state)
            mean, log_variance = ops.split(hidden, 2, axis=-1)
            latent = mean + ops.exp(0.5 * log_variance) * noise
            return latent, mean, log_variance, state

        return step


class PoseDecoder(BoundLayer):
    """Next pose from pose, condition and latent code.

    head="hidden", the original: the LSTM's hidden state is the pose itself, without a
    path from the present pose. head="residual": a linear map of the hidden state, which
    starts at zero, is added to the source pose, so that an untrained network stands still.

    Args:
      units: of the LSTM with head="residual"; "hidden" has one for each coordinate.
    """

    def __init__(self, pose_size, condition_size, latent_dim, head="hidden", units=0, name="pose_decoder"):
        super().__init__(name)
        self.head = head
        units = pose_size if head == "hidden" else units
        with self.scope():
            self.cell = TorchLSTMCell(pose_size + condition_size + latent_dim, units, "cell")
        if head == "residual":
            self.output_kernel = self.weight("output_kernel", (units, pose_size), "zeros")
            self.output_bias = self.weight("output_bias", (pose_size,), "zeros")

    def bind(self):
        cell = self.cell.bind()
        if self.head == "residual":
            kernel, bias = self.read(self.output_kernel), self.read(self.output_bias)

        def step(inputs, latent, source, state):
            hidden, state = cell(ops.concatenate([inputs, latent], axis=-1), state)
            if self.head == "residual":
                return source + ops.matmul(hidden, kernel) + bias, state
            return hidden, state

        return step


class PoseNetwork(BoundLayer):
    """Both networks and their rollout.

    Args:
      num_joints: J.
      condition_size: numbers that describe the clip (the action, and what else is known).
      latent_dim: Z.
      head, decoder_units: see `PoseDecoder`.
    """

    def __init__(self, num_joints, condition_size, latent_dim, head="hidden", decoder_units=0, name="pose_network"):
        super().__init__(name)
        sizes = (2 * num_joints, condition_size, latent_dim)
        with self.scope():
            self.temporal_vae = TemporalVAE(*sizes)
            self.decoder = PoseDecoder(*sizes, head=head, units=decoder_units)

    def bind(self):
        vae, decoder = self.temporal_vae.bind(), self.decoder.bind()

        def rollout(source, condition, noise):
            """Poses after `source` [N, 2J] under `condition` [N, K] with `noise` [horizon + 1, N, Z].

            noise[0] is the code before the first step.
            """
            dtype = keras.backend.standardize_dtype(source.dtype)
            source, condition, noise = (ops.cast(x, self.compute_dtype) for x in (source, condition, noise))

            def step(carry, noise):
                pose, latent, vae_state, decoder_state = carry
                inputs = ops.concatenate([pose, condition], axis=-1)
                latent, mean, log_variance, vae_state = vae(inputs, latent, noise, vae_state)
                pose, decoder_state = decoder(inputs, latent, source, decoder_state)
                return (pose, mean, log_variance), (pose, latent, vae_state, decoder_state)

            batch = ops.shape(source)[0]
            states = self.temporal_vae.cell.zero_state(batch), self.decoder.cell.zero_state(batch)
            outputs, _ = run(step, (source, noise[0], *states), noise[1:], noise.shape[0] - 1)
            poses, mean, log_variance = (ops.cast(x, dtype) for x in outputs)
            return Rollout(ops.transpose(poses, (1, 0, 2)), mean, log_variance)

        return rollout
