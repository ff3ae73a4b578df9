"""Graph networks of AG2Vid: attribute embeddings, graph convolutions, box dynamics.

Bar et al., "Compositional Video Synthesis with Action Graphs", 2021, section 3; the graph
convolution is that of Johnson et al., "Image Generation from Scene Graphs", 2018.
"""

import math

import keras
from keras import ops

from tfvid.layers.scoped import scoped
from tfvid.layers.torch_init import uniform


def linear(channels_in, channels_out, use_bias=True, he_normal=False, name=None):
    """A built linear layer with PyTorch's initial values; `he_normal`: N(0, 2/fan_in) weights."""
    kernel = keras.initializers.RandomNormal(stddev=math.sqrt(2 / channels_in)) if he_normal else uniform(channels_in)
    layer = keras.layers.Dense(
        channels_out, use_bias=use_bias, kernel_initializer=kernel, bias_initializer=uniform(channels_in), name=name
    )
    layer.build((None, channels_in))
    return layer


class Perceptron(keras.layers.Layer):
    """Two linear layers with a ReLU between them and, if asked for, after them."""

    @scoped
    def __init__(self, channels_in, hidden, channels_out, use_bias=True, final_relu=False, he_normal=False, name=None):
        super().__init__(name=name)
        self.first = linear(channels_in, hidden, use_bias, he_normal, name="first")
        self.second = linear(hidden, channels_out, use_bias, he_normal, name="second")
        self.final_relu = final_relu
        self.built = True

    def call(self, x):
        x = self.second(ops.relu(self.first(x)))
        return ops.relu(x) if self.final_relu else x


def one_hot(indices, size, dtype):
    """[...] integers -> [..., size]."""
    return ops.cast(ops.equal(ops.expand_dims(indices, -1), ops.arange(size, dtype=indices.dtype)), dtype)


class AttributeEmbedding(keras.layers.Layer):
    """Look-ups of A attributes, concatenated, then mixed by a linear layer if there are several.

    Args:
      rows: number of values of each attribute.
      dim: columns of each table.
      mix: the linear layer; default: with more than one attribute.

    Input: [B, O, A] integers. Output: [B, O, A * dim].
    """

    @scoped
    def __init__(self, rows, dim, mix=None, name=None):
        super().__init__(name=name)
        self.tables = [
            self.add_weight(
                name=f"table_{i}", shape=(count, dim), initializer=keras.initializers.RandomNormal(stddev=1.0)
            )
            for i, count in enumerate(rows)
        ]
        width = len(rows) * dim
        mix = len(rows) > 1 if mix is None else mix
        self.mix = linear(width, width, name="mix") if mix else None
        self.built = True

    def call(self, objects):
        parts = [ops.take(table, objects[..., i], axis=0) for i, table in enumerate(self.tables)]
        x = ops.concatenate(parts, axis=-1)
        return x if self.mix is None else self.mix(x)


class GraphConvolution(keras.layers.Layer):
    """One layer of message passing over directed edges.

    Args:
      object_dim, edge_dim: sizes of the input vectors.
      hidden: Hh, size of the messages.
      object_out, edge_out: sizes of the output vectors.
      pooling: "avg" divides the sum of messages by their number; "sum" does not (the
        original accepts "sum" and averages all the same).
    """

    @scoped
    def __init__(self, object_dim, edge_dim, hidden, object_out, edge_out=None, pooling="avg", name=None):
        super().__init__(name=name)
        self.hidden, self.edge_out, self.pooling = hidden, edge_out or object_out, pooling
        self.messages = Perceptron(
            2 * object_dim + edge_dim,
            hidden,
            2 * hidden + self.edge_out,
            final_relu=True,
            he_normal=True,
            name="messages",
        )
        self.update = Perceptron(hidden, hidden, object_out, final_relu=True, he_normal=True, name="update")
        self.built = True

    def call(self, objects, edge_vectors, edges, active):
        """Returns (objects [B, O, object_out], edge vectors [B, K, edge_out]).

        Args:
          objects: [B, O, object_dim].
          edge_vectors: [B, K, edge_dim].
          edges: [B, K, 2] integer (subject, object) indices.
          active: [B, K] boolean; other edges pass no message, but get a new vector.
        """
        count = objects.shape[1]
        subject = one_hot(edges[..., 0], count, objects.dtype)  # [B, K, O]
        target = one_hot(edges[..., 1], count, objects.dtype)
        inputs = [ops.matmul(subject, objects), edge_vectors, ops.matmul(target, objects)]
        z = self.messages(ops.concatenate(inputs, axis=-1))
        to_subject = z[..., : self.hidden]
        new_edges = z[..., self.hidden : self.hidden + self.edge_out]
        to_target = z[..., self.hidden + self.edge_out :]
        weight = ops.cast(active, objects.dtype)[..., None]
        subject, target = subject * weight, target * weight
        pooled = ops.einsum("bko,bkh->boh", subject, to_subject) + ops.einsum("bko,bkh->boh", target, to_target)
        if self.pooling == "avg":
            incidences = ops.sum(subject + target, axis=1)[..., None]  # [B, O, 1]
            pooled = pooled / ops.maximum(incidences, 1)
        return self.update(pooled), new_edges


def as_it_is(step):
    """`step`."""
    return step


def action_progress(actions, steps):
    """[B, N, 7] actions -> [B, steps, N] float32 progress r: 0 where an action starts, 1 where it ends.

    Always in float32, as in the original: whether an edge is active hangs on it.
    """
    start, end = ops.cast(actions[..., 3], "float32"), ops.cast(actions[..., 4], "float32")
    rate = end - start + 1e-6
    return ops.stack([(t / steps) * rate + start for t in range(steps)], axis=1)


def clocked_edges(actions, steps, padding_id):
    """The action edges at each step.

    Args:
      actions: [B, N, 7] float: subject, action id, object, f1, f2, x_end, y_end.
      steps: T_f.
      padding_id: the action id that stands for no action.

    Returns:
      edges: [B, steps, N, 3] int32 (subject, id or padding, object).
      progress: [B, steps, N] float32.
      destinations: [B, steps, N, 2].
    """
    progress = action_progress(actions, steps)
    running = ops.logical_and(progress >= 0, progress <= 1)
    rows = ops.cast(actions[..., :3], "int32")[:, None]  # [B, 1, N, 3]
    ids = ops.where(running, rows[..., 1], padding_id)
    subject = ops.broadcast_to(rows[..., 0], ops.shape(ids))
    target = ops.broadcast_to(rows[..., 2], ops.shape(ids))
    destination = ops.broadcast_to(actions[:, None, :, 5:7], (*ops.shape(ids), 2))
    return ops.stack([subject, ids, target], axis=-1), progress, destination


class ActionEmbedding(keras.layers.Layer):
    """Vectors of action edges: a table whose last three columns give way to destination and progress."""

    @scoped
    def __init__(self, count, dim, name=None):
        super().__init__(name=name)
        self.table = self.add_weight(
            name="table", shape=(count, dim), initializer=keras.initializers.RandomNormal(stddev=1.0)
        )
        self.built = True

    def call(self, ids, destination, progress):
        """[B, N] ids, [B, N, 2] destinations, [B, N] progress -> [B, N, dim]."""
        looked_up = ops.take(self.table, ids, axis=0)[..., :-3]
        dtype = looked_up.dtype
        return ops.concatenate([looked_up, ops.cast(destination, dtype), ops.cast(progress, dtype)[..., None]], axis=-1)


class ActionGraphModel(keras.layers.Layer):
    """Moves boxes along an action graph, step after step.

    Args:
      attribute_rows: number of values of each attribute.
      num_predicates, num_actions: sizes of the vocabularies; the last id of each is
        the padding.
      embedding_dim: E. graph_dim: G, equal to E. hidden_dim: Hh.
      num_layers: graph convolutions.
      only_actions: leave the static edges out.
      pooling: of the graph convolutions.
      share: function of the step of a frame that gives what is called at every frame;
        it may be one function of the graph.
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
        num_layers,
        only_actions=False,
        pooling="avg",
        share=as_it_is,
        name=None,
    ):
        super().__init__(name=name)
        width = len(attribute_rows) * embedding_dim
        self.only_actions, self.share = only_actions, share
        self.predicate_padding, self.action_padding = num_predicates - 1, num_actions - 1
        self.embedding_dim = embedding_dim
        self.attributes = AttributeEmbedding(attribute_rows, embedding_dim, name="attributes")
        self.predicates = self.add_weight(
            name="predicates",
            shape=(num_predicates, embedding_dim),
            initializer=keras.initializers.RandomNormal(stddev=1.0),
        )
        self.actions = ActionEmbedding(num_actions, embedding_dim, name="actions")
        self.object_net = Perceptron(width + 4, width, width, use_bias=False, final_relu=True, name="object_net")
        self.convolutions = []
        for i in range(num_layers):
            dims = (width, embedding_dim) if i == 0 else (graph_dim, graph_dim)
            self.convolutions.append(
                GraphConvolution(*dims, hidden_dim, graph_dim, pooling=pooling, name=f"convolution_{i}")
            )
        self.box_net = Perceptron(graph_dim, hidden_dim, 4, name="box_net")
        self.built = True

    def call(self, objects, triplets, actions, first_boxes):
        """Rolls the boxes out.

        Args:
          objects: [B, O, A] integer attributes.
          triplets: [B, T, K, 3] integer static relations; T is the number of frames.
          actions: [B, N, 7] float.
          first_boxes: [B, O, 4], boxes of the first frame (x0, y0, w, h).

        Returns:
          vectors [B, T, O, G] (zeros at the first frame), boxes [B, T, O, 4], and the
          clocked edges: edges [B, T, N, 3], progress [B, T, N], destinations [B, T, N, 2].
        """
        edges, progress, destinations = self.clock(triplets, actions)
        embedded = self.attributes(objects)
        boxes = [first_boxes]
        vectors = [ops.zeros_like(ops.repeat(first_boxes[..., :1], self.embedding_dim, axis=-1))]
        step = self.share(self._step)
        for t in range(1, triplets.shape[1]):
            moved, box = step(embedded, boxes[-1], triplets[:, t], edges[:, t], destinations[:, t], progress[:, t])
            vectors.append(moved)
            boxes.append(box)
        return ops.stack(vectors, axis=1), ops.stack(boxes, axis=1), (edges, progress, destinations)

    def clock(self, triplets, actions):
        """(edges, progress, destinations) of `clocked_edges` at the steps of `triplets`."""
        return clocked_edges(actions, triplets.shape[1], self.action_padding)

    def _step(self, embedded, boxes, triplets, edges, destination, progress):
        x = self.object_net(ops.concatenate([embedded, ops.cast(boxes, embedded.dtype)], axis=-1))
        vectors = self.actions(edges[..., 1], destination, progress)
        pairs = ops.stack([edges[..., 0], edges[..., 2]], axis=-1)
        active = ops.not_equal(edges[..., 1], self.action_padding)
        if not self.only_actions:
            triplets = ops.cast(triplets, "int32")
            static = ops.take(self.predicates, triplets[..., 1], axis=0)
            vectors = ops.concatenate([ops.cast(static, vectors.dtype), vectors], axis=1)
            pairs = ops.concatenate([ops.stack([triplets[..., 0], triplets[..., 2]], axis=-1), pairs], axis=1)
            known = ops.not_equal(triplets[..., 1], self.predicate_padding)
            active = ops.concatenate([known, active], axis=1)
        for convolution in self.convolutions:
            x, vectors = convolution(x, vectors, pairs, active)
        return x, boxes + self.box_net(x)
