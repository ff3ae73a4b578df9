"""CADDY's five networks.

Widths follow the reference's literals from two numbers: F state features (encoder F/4,
F/2, F; action network 2F) and Hd hidden features (decoder Hd, Hd, Hd/2, Hd/4).
"""

from keras import ops

from tfvid.layers.torch_init import conv2d, dense
from tfvid.models.caddy.blocks import Block, ConvLSTM, Final, Residual, Same, Up, average_pool, join, leaky_relu, tiled


class Encoder(Block):
    """The representation network: an observation to a state an eighth of its size.

    Args:
      channels_in: 3 S, the stacked frames' channels.
      widths: (first, second, F).

    Input: [N, H, W, 3 S] in [-1, 1]. Output: state [N, h, w, F], attention [N, h, w, 1]
    in (0, 1).
    """

    def __init__(self, channels_in, widths=(16, 32, 64), name="encoder"):
        super().__init__(name=name)
        first, second, features = widths
        self.channels_in, self.first = channels_in, first
        self.conv = conv2d(channels_in, first, 3, use_bias=False, name="conv")
        self.norm = self._norm(first, "norm")
        self.residuals = [
            Residual(first, first, name="residual_0"),
            Residual(first, second, 2, name="residual_1"),
            Residual(second, second, name="residual_2"),
            Residual(second, features, 2, name="residual_3"),
            Residual(features, features, name="residual_4"),
            Residual(features, features + 1, name="residual_5"),
        ]

    def build(self, input_shape=None):
        self._build(self.conv, self.channels_in)
        self._build(self.norm, self.first)
        for block in self.residuals:
            block.build()
        self.built = True

    def call(self, observations, training):
        x = leaky_relu(self.norm(average_pool(self.conv(observations), 2), training=training))
        for block in self.residuals:
            x = block(x, training=training)
        # The reference's comment says softmax; it is a sigmoid of an already activated map.
        return x[..., :-1], ops.sigmoid(x[..., -1:])


class ActionNetwork(Block):
    """Infers the distribution of the action between each two states.

    Args:
      features: F of the states.
      width: of its feature vector.
      dimension: D of the action space.
      actions_count: A.
      standardize: batch-normalise the directions' means. What moves is often so small a
        part of the frame that they otherwise start, and stay, close to 0.
    """

    def __init__(self, features, width, dimension, actions_count, standardize=False, name="action_network"):
        super().__init__(name=name)
        self.width, self.dimension = width, dimension
        self.norm = self._norm(dimension, "norm", affine=False) if standardize else None
        self.residuals = [
            Residual(features, width, 2, name="residual_0"),
            Residual(width, width, name="residual_1"),
        ]
        self.mean = dense(width, dimension, name="mean")
        self.variance = dense(width, dimension, name="variance")
        self.logits = dense(dimension, actions_count, name="logits")

    def build(self, input_shape=None):
        for block in self.residuals:
            block.build()
        if self.norm is not None:
            self.norm.build((None, None, self.dimension))
        self.mean.build((None, self.width))
        self.variance.build((None, self.width))
        self.logits.build((None, self.dimension))
        self.built = True

    def call(self, states, attention, state_noise, direction_noise, training):
        """Infers actions.

        Args:
          states: [B, T, h, w, F].
          attention: [B, T, h, w, 1].
          state_noise: [B T, D] standard normal.
          direction_noise: [B, T-1, D] standard normal.
          training: mode of the norms.

        Returns:
          A dictionary: logits [B, T-1, A]; directions_mean, directions_variance and
          sampled_directions [B, T-1, D]; states_mean, states_variance and
          sampled_states [B, T, D].
        """
        batch, steps = ops.shape(states)[0], states.shape[1]
        x = ops.reshape(states * attention, (-1, *states.shape[2:]))  # [B T, h, w, F]
        for block in self.residuals:
            x = block(x, training=training)
        vector = ops.mean(x, axis=(1, 2))  # [B T, width]
        mean, variance = self.mean(vector), ops.abs(self.variance(vector))
        sampled = mean + ops.sqrt(variance) * state_noise
        mean, variance, sampled = (
            ops.reshape(v, (batch, steps, self.dimension)) for v in (mean, variance, sampled)
        )
        directions_mean = mean[:, 1:] - mean[:, :-1]
        if self.norm is not None:
            directions_mean = self.norm(directions_mean, training=training)
        directions_variance = variance[:, 1:] + variance[:, :-1]
        directions = directions_mean + ops.sqrt(directions_variance) * direction_noise
        return {
            "logits": self.logits(directions),
            "directions_mean": directions_mean,
            "directions_variance": directions_variance,
            "sampled_directions": directions,
            "states_mean": mean,
            "states_variance": variance,
            "sampled_states": sampled,
        }


class Dynamics(Block):
    """The recurrent network: one step of (state, action, variation) to hidden features.

    Args:
      features: F of the states.
      hidden: Hd, channels of the first memory and of the output.
      auxiliary: A + D, length of action and variation together.
      size: (h, w) of the states, both even.
    """

    def __init__(self, features, hidden, auxiliary, size, name="dynamics"):
        super().__init__(name=name)
        height, width = size
        half = (height // 2, width // 2)
        widths = (hidden, 2 * hidden, hidden)
        self.memories = [
            ConvLSTM(features + auxiliary, widths[0], size, name="memory_0"),
            ConvLSTM(2 * hidden + auxiliary, widths[1], half, name="memory_1"),
            ConvLSTM(hidden + auxiliary, widths[2], size, name="memory_2"),
        ]
        self.norms = [self._norm(w, f"norm_{i}") for i, w in enumerate(widths)]
        self.blocks = [
            Same(hidden + auxiliary, 2 * hidden, 2, name="block_0"),
            Up(2 * hidden + auxiliary, hidden, late=True, name="block_1"),
            Same(hidden + auxiliary, hidden, name="block_2"),
        ]

    def build(self, input_shape=None):
        for memory, norm, block in zip(self.memories, self.norms, self.blocks):
            memory.build()
            self._build(norm, norm.width)
            block.build()
        self.built = True

    def initial_memory(self, batch_size):
        """The learnt start: [(hidden, cell)] of the three memories."""
        return [memory.initial_memory(batch_size) for memory in self.memories]

    def call(self, state, action, variation, memory, training):
        """One step; a pure function of its arguments in evaluation.

        Args:
          state: [B, h, w, F].
          action: [B, A], a point of the simplex.
          variation: [B, D].
          memory: as `initial_memory` gives it.
          training: mode of the norms.

        Returns:
          Hidden features [B, h, w, Hd] and the next memory.
        """
        x, following, control = state, [], ops.concatenate([action, variation], axis=-1)
        # The control as maps, of both sizes, once for all six blocks.
        maps = {cell.size: tiled(control, cell.size) for cell in self.memories[:2]}
        for cell, norm, block, before in zip(self.memories, self.norms, self.blocks, memory):
            control = ops.cast(maps[cell.size], x.dtype)
            after = cell([x, control], before)
            following.append(after)
            x = block(join([norm(after[0], training=training), control]), training=training)
        return x, following


class Decoder(Block):
    """The rendering network: hidden features to images at three resolutions.

    Args:
      channels_in: Hd.
      widths: of the features at a quarter, half and full resolution.

    Input: [N, h, w, Hd]. Output: [[N, 8h, 8w, 3], half, quarter] in [-1, 1].
    """

    def __init__(self, channels_in, widths=(128, 64, 32), name="decoder"):
        super().__init__(name=name)
        quarter, half, full = widths
        self.ups = [
            Up(channels_in, quarter, name="up_0"), Up(quarter, half, name="up_1"), Up(half, full, name="up_2"),
        ]
        self.residuals = [Residual(quarter, quarter, name="residual_0"), Residual(half, half, name="residual_1")]
        self.images = [
            Final(quarter, 3, 3, name="image_0"), Final(half, 3, 3, name="image_1"), Final(full, 3, 7, name="image_2"),
        ]

    def build(self, input_shape=None):
        for block in (*self.ups, *self.residuals, *self.images):
            block.build()
        self.built = True

    def call(self, hidden, training, full_only=False):
        """Draws; `full_only` computes the highest resolution alone (a list of one)."""
        x, images = hidden, []
        for i, up in enumerate(self.ups):
            x = up(x, training=training)
            if i < len(self.residuals):
                x = self.residuals[i](x, training=training)
            if not full_only or i == len(self.ups) - 1:
                images.append(self.images[i](x))
        return images[::-1]


class StateToHidden(Block):
    """3x3 convolution from a state to hidden features; used in pre-training alone."""

    def __init__(self, features, hidden, name="state_to_hidden"):
        super().__init__(name=name)
        self.features = features
        self.conv = conv2d(features, hidden, 3, name="conv")

    def build(self, input_shape=None):
        self._build(self.conv, self.features)
        self.built = True

    def call(self, states):
        return self.conv(states)
