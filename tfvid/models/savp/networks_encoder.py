"""Posterior and learnt prior: frames (and actions) to the latents' distribution at each step."""

from keras import ops

from tfvid.layers.bound import BoundLayer, wide
from tfvid.layers.convolutions import Conv2D, Dense, leaky_relu, with_vector
from tfvid.layers.norms import norm_layer
from tfvid.layers.recurrent import CELLS


class EncoderLayer(BoundLayer):
    """4x4 convolution with stride 2, maybe a norm, leaky ReLU. [B, H, W, in] -> [B, H/2, W/2, out]."""

    def __init__(self, name, inputs, outputs, norm):
        super().__init__(name)
        with self.scope():
            self.conv = Conv2D(inputs, outputs, 4, stride=2, padding="one")
            self.norm = norm_layer(norm, outputs)

    def bind(self):
        conv, norm = self.conv.bind(), self.norm.bind()
        return lambda x: leaky_relu(norm(conv(x)), 0.2)


class ConvEncoder(BoundLayer):
    """`n_layers` EncoderLayers and a mean over the map: [B, H, W, inputs] -> [B, outputs]."""

    def __init__(self, name, inputs, hparams):
        super().__init__(name)
        widths = [hparams.nef * min(2**i, 4) for i in range(hparams.n_layers)]
        with self.scope():
            self.make_layers(inputs, widths, hparams.norm_layer)
        self.outputs = widths[-1]

    def make_layers(self, inputs, widths, norm):
        """layer_1 .. layer_n; the first has no norm."""
        self.layers = []
        for i, width in enumerate(widths):
            self.layers.append(EncoderLayer(f"layer_{i + 1}", inputs, width, norm if i else "none"))
            inputs = width

    def bind(self):
        layers = [layer.bind() for layer in self.layers]

        def encode(x):
            for layer in layers:
                x = layer(x)
            return ops.cast(ops.mean(wide(x), axis=(1, 2)), x.dtype)

        return encode


class Head(BoundLayer):
    """A dense layer under a name of its own: <name>/dense/{kernel,bias}."""

    def __init__(self, name, inputs, outputs):
        super().__init__(name)
        with self.scope():
            self.dense = Dense(inputs, outputs)

    def bind(self):
        return self.dense.bind()


class RNN(BoundLayer):
    """A recurrent cell over time under the name <kind>/rnn: [B, T, in] -> [B, T, units]."""

    def __init__(self, kind, inputs, units):
        super().__init__(kind)
        with self.scope():
            self.inner = _InnerRNN(kind, inputs, units)

    def bind(self):
        step = self.inner.cell.bind()

        def run(x):
            state, outputs = self.inner.cell.zero_state(ops.shape(x)[0]), []
            for t in range(x.shape[1]):
                y, state = step(x[:, t], state)
                outputs.append(y)
            return ops.stack(outputs, axis=1)

        return run


class _InnerRNN(BoundLayer):
    def __init__(self, kind, inputs, units):
        super().__init__("rnn")
        with self.scope():
            self.cell = CELLS[kind](inputs, units)


class LatentEncoder(ConvEncoder):
    """Pairs of successive frames -> mean and log variance of the latent of each step.

    Args:
      name: "encoder" (posterior) or "prior".
      channels: of a frame.
      actions: size of an action, 0 for none.
      hparams: SAVPHParams.
      recurrent: whether a dense layer and an RNN follow the convolutions.
    """

    def __init__(self, name, channels, actions, hparams, recurrent):
        super().__init__(name, 2 * channels + actions, hparams)
        width = 4 * hparams.nef
        with self.scope():
            self.dense = Head(f"layer_{hparams.n_layers + 1}", self.outputs, width) if recurrent else None
            self.rnn = RNN(hparams.rnn, width, width) if recurrent else None
            features = width if recurrent else self.outputs
            self.z_mu = Head("z_mu", features, hparams.nz)
            self.z_log_sigma_sq = Head("z_log_sigma_sq", features, hparams.nz)

    def bind(self):
        """encode(images [B, T, H, W, C], actions [B, T-1, A] or None, length) -> mu, log_sigma_sq.

        Both are [B, length, nz]; `length` >= T-1 steps, those without frames being
        features of 0 (None: T-1). float32 at least.
        """
        conv, mean, log_variance = super().bind(), self.z_mu.bind(), self.z_log_sigma_sq.bind()
        dense, rnn = (self.dense.bind(), self.rnn.bind()) if self.rnn else (None, None)

        def encode(images, actions=None, length=None):
            steps = images.shape[1] - 1
            length = steps if length is None else length
            features = self._pair_features(conv, images, actions, steps)
            if length > steps:
                features = ops.pad(features, ((0, 0), (0, length - steps), (0, 0)))
            if rnn is not None:
                features = rnn(dense(features))
            mu, log_sigma_sq = wide(mean(features)), wide(log_variance(features))
            return mu, ops.clip(log_sigma_sq, -10.0, 10.0)

        return encode

    def _pair_features(self, conv, images, actions, steps):
        batch = ops.shape(images)[0]
        if steps == 0:
            return ops.zeros((batch, 0, self.outputs), self.compute_dtype)
        pairs = ops.concatenate([images[:, :-1], images[:, 1:]], axis=-1)  # [B, T-1, H, W, 2C]
        pairs = ops.cast(ops.reshape(pairs, (-1, *pairs.shape[2:])), self.compute_dtype)
        if actions is not None:
            vector = ops.cast(ops.reshape(actions[:, :steps], (-1, actions.shape[-1])), self.compute_dtype)
            pairs = with_vector([pairs], vector)
        return ops.reshape(conv(pairs), (batch, steps, self.outputs))
