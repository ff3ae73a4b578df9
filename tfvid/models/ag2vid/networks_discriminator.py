"""The discriminator of AG2Vid: patches of frames beside a layout that knows the actions.

Bar et al. 2021, section 3.4; the patch networks are those of Wang et al., "High-Resolution
Image Synthesis and Semantic Manipulation with Conditional GANs", 2018.
"""

import keras
from keras import ops

from tfvid.layers.scoped import scoped
from tfvid.layers.torch_conv import TorchConv2D
from tfvid.models.ag2vid.layout import concat_layouts, halve_layout, make_layout
from tfvid.models.ag2vid.networks_graph import (
    ActionEmbedding,
    AttributeEmbedding,
    GraphConvolution,
    Perceptron,
    as_it_is,
    linear,
)
from tfvid.models.ag2vid.networks_video import convolve_layouts, leaky_relu, make_norm, normalize_calls, parse_norm


def halve(x):
    """3x3 average pooling with stride 2 and padding 1 that does not count the padding."""
    padded = ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    ones = ops.pad(ops.ones_like(x[:1, :, :, :1]), ((0, 0), (1, 1), (1, 1), (0, 0)))
    total = ops.average_pool(padded, 3, strides=2, padding="valid")
    return total / ops.average_pool(ones, 3, strides=2, padding="valid")


class PatchDiscriminator(keras.layers.Layer):
    """4x4 convolutions that score overlapping patches.

    Args:
      channels_in: channels. width: ndf.
      num_layers: n_layers_D; the network has one convolution more.
      norm: "spectralinstance", ...
    """

    @scoped
    def __init__(self, channels_in, *, width=64, num_layers=4, norm="spectralinstance", name=None):
        super().__init__(name=name)
        spectral, kind = parse_norm(norm)
        self.convolutions = [TorchConv2D(channels_in, width, 4, strides=2, padding=2, name="convolution_0")]
        self.norms = [None]
        channels = width
        for i in range(1, num_layers):
            wider = min(2 * channels, 512)
            strides = 1 if i == num_layers - 1 else 2
            self.convolutions.append(
                TorchConv2D(
                    channels,
                    wider,
                    4,
                    strides=strides,
                    padding=2,
                    use_bias=False,
                    spectral=spectral,
                    name=f"convolution_{i}",
                )
            )
            self.norms.append(make_norm(kind, wider, True, f"norm_{i}"))
            channels = wider
        self.convolutions.append(TorchConv2D(channels, 1, 4, padding=2, name=f"convolution_{num_layers}"))
        self.built = True

    def call(self, x, training, layouts=(), calls=1):
        """Returns the list of features after each group, the last being the scores [N, h, w, 1].

        `layouts`, if any, stand for channels after those of `x`.
        """
        features = []
        for i, convolution in enumerate(self.convolutions):
            if i == 0 and layouts:
                x = convolve_layouts(convolution, layouts, x, training, calls, images_first=True)
            else:
                x = convolution(x, training=training, calls=calls)
            if 0 < i < len(self.convolutions) - 1:
                x = normalize_calls(self.norms[i], x, training, calls)
            if i < len(self.convolutions) - 1:
                x = leaky_relu(x)
            features.append(x)
        return features


class ActionDiscriminator(keras.layers.Layer):
    """Scores frames beside a layout of object states that follow the actions.

    Args:
      attribute_rows, num_actions: the vocabularies.
      embedding_dim, graph_dim, hidden_dim: as in the graph model.
      num_scales: num_D. width, num_layers, norm: of each PatchDiscriminator.
      share: as in the graph model.
    """

    @scoped
    def __init__(
        self,
        attribute_rows,
        num_predicates,
        num_actions,
        *,
        embedding_dim,
        graph_dim,
        hidden_dim,
        num_scales=2,
        width=64,
        num_layers=4,
        norm="spectralinstance",
        pooling="avg",
        share=as_it_is,
        name=None,
    ):
        super().__init__(name=name)
        self.share = share
        wide = len(attribute_rows) * embedding_dim
        self.action_padding = num_actions - 1
        self.attributes = AttributeEmbedding(attribute_rows, embedding_dim, name="attributes")
        self.actions = ActionEmbedding(num_actions, embedding_dim, name="actions")
        # Part of the original's checkpoints, without any effect.
        self.predicates = self.add_weight(
            name="predicates", shape=(num_predicates, embedding_dim), trainable=False, initializer="zeros"
        )
        self.first_net = Perceptron(
            wide, embedding_dim, embedding_dim, use_bias=False, final_relu=True, name="first_net"
        )
        self.object_net = Perceptron(embedding_dim + 4, wide, wide, use_bias=False, final_relu=True, name="object_net")
        self.convolutions = [
            GraphConvolution(wide, embedding_dim, hidden_dim, graph_dim, pooling=pooling, name="convolution_0"),
            GraphConvolution(graph_dim, graph_dim, hidden_dim, graph_dim, pooling=pooling, name="convolution_1"),
        ]
        self.mix = linear(wide + graph_dim, 2 * graph_dim, name="mix")
        self.scales = [
            PatchDiscriminator(3 + 2 * graph_dim, width=width, num_layers=num_layers, norm=norm, name=f"scale_{i}")
            for i in range(num_scales)
        ]
        self.built = True

    def object_states(self, objects, boxes, clocked):
        """[B, T, O, 2 G]: vectors of the layout of each frame.

        Args:
          objects: [B, O, A]. boxes: [B, T, O, 4], the true ones.
          clocked: (edges [B, T, N, 3], progress [B, T, N], destinations [B, T, N, 2]).
        """
        edges, progress, destinations = clocked
        embedded = self.attributes(objects)
        state, states, step = self.first_net(embedded), [], self.share(self._step)
        for t in range(boxes.shape[1]):
            # Carried on to the next frame, as in the original.
            state = step(state, boxes[:, t], edges[:, t], destinations[:, t], progress[:, t])
            states.append(state)
        states = ops.stack(states, axis=1)
        embedded = ops.repeat(embedded[:, None], boxes.shape[1], axis=1)
        return self.mix(ops.concatenate([embedded, states], axis=-1))

    def _step(self, state, boxes, edges, destinations, progress):
        x = self.object_net(ops.concatenate([state, ops.cast(boxes, state.dtype)], axis=-1))
        vectors = self.actions(edges[..., 1], destinations, progress)
        pairs = ops.stack([edges[..., 0], edges[..., 2]], axis=-1)
        active = ops.not_equal(edges[..., 1], self.action_padding)
        for convolution in self.convolutions:
            x, vectors = convolution(x, vectors, pairs, active)
        return x

    def layout(self, objects, boxes, clocked, height, width):
        """The layout that frames are judged beside, frames folded into its batch axis; it depends on no frame."""
        states = self.object_states(objects, boxes, clocked)
        present = ops.broadcast_to(ops.not_equal(objects[:, None, :, 0], 0), ops.shape(boxes)[:3])
        states, boxes, present = (ops.reshape(v, (-1, *v.shape[2:])) for v in (states, boxes, present))
        return make_layout(states, ops.cast(boxes, states.dtype), present, height, width)

    def score(self, frames, layout, training, calls=1):
        """Judges frames [B, T, H, W, 3] beside their layout: for each scale, the list of features.

        With `calls` > 1, frames [calls * B, T, H, W, 3] are those of calls one after another, all beside the one
        layout.
        """
        frames = ops.reshape(frames, (-1, *frames.shape[2:]))
        layout = concat_layouts([layout] * calls) if calls > 1 else layout
        outputs = []
        for i, scale in enumerate(self.scales):
            if i > 0:
                frames, layout = halve(frames), halve_layout(layout)
            outputs.append(scale(frames, training=training, layouts=(layout,), calls=calls))
        return outputs

    def call(self, frames, objects, boxes, clocked, training):
        """`score` of frames beside `layout` of the rest."""
        return self.score(frames, self.layout(objects, boxes, clocked, *frames.shape[2:4]), training)
