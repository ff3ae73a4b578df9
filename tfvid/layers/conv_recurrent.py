"""Convolutional LSTM and GRU cells of SAVP: 5x5, zero-padded, normed inside.

Inputs of a step: a map x [B, H, W, in], an optional vector [B, S] and the state, None
where it is all zeros (half of the convolution then has nothing to do). The
vector is either tiled into channels after x (`tile=True`) or goes through a dense layer
without bias whose output is added to the convolution before the norm.
"""

from keras import ops

from tfvid.layers.bound import BoundLayer, truncated_normal
from tfvid.layers.constant_channels import conv_constant
from tfvid.layers.convolutions import conv2d
from tfvid.layers.norms import Norm
from tfvid.layers.over_steps import convolution

SIZE = 5


class ConvLSTMCell(BoundLayer):
    """Gates i, j, f, o; c' = c sigmoid(f + 1) + sigmoid(i) tanh(j), normed; h' = tanh(c') sigmoid(o).

    With a norm, the normed c' is the state. "instance" norms the four gates together
    (scope input_transform_forget_output), "layer" each by itself.

    Args:
      inputs: channels of x.
      units: channels of the state.
      vector: size of the vector, 0 for none.
      tile: see above.
      norm: "instance", "layer" or "none".
    """

    def __init__(self, inputs, units, vector=0, tile=True, norm="instance", name="basic_conv2dlstm_cell"):
        super().__init__(name)
        self.units, self.norm = units, norm
        self.channels = (inputs, vector if tile else 0, units)
        self.kernel = self.weight("kernel", (SIZE, SIZE, sum(self.channels), 4 * units), truncated_normal())
        dense = vector and not tile
        self.weights_of_vector = self.weight("weights", (vector, 4 * units), truncated_normal()) if dense else None
        self.bias = self.weight("bias", (4 * units,), "zeros") if norm == "none" else None
        with self.scope():
            if norm == "layer":
                self.norms = [Norm(norm, units, gate) for gate in ("input", "transform", "forget", "output")]
            elif norm == "instance":
                self.norms = [Norm(norm, 4 * units, "input_transform_forget_output")]
            self.state_norm = None if norm == "none" else Norm(norm, units, "state")

    @property
    def widest_kernel(self):
        """[5, 5, in, out] of the convolution with most multiplications."""
        return self.kernel

    def bind(self):
        gates = _bind_gates(self)
        norms = [] if self.norm == "none" else [norm.bind() for norm in self.norms]
        state_norm = None if self.state_norm is None else self.state_norm.bind()

        def step(x, vector, state):
            c, h = state or (None, None)
            g = gates(x, vector, [] if h is None else [h])
            g = norms[0](g) if len(norms) == 1 else g
            parts = ops.split(g, 4, axis=-1)
            i, j, f, o = [n(p) for n, p in zip(norms, parts)] if len(norms) == 4 else parts
            new = ops.sigmoid(i) * ops.tanh(j)
            c = new if c is None else c * ops.sigmoid(f + 1) + new
            c = c if state_norm is None else state_norm(c)
            h = ops.tanh(c) * ops.sigmoid(o)
            return h, (c, h)

        return step


class ConvGRUCell(BoundLayer):
    """Gates r, u; candidate of (x, h, r h): the original reuses (x, h), so h is there twice.

    h' = u h + (1 - u) tanh(candidate). Arguments as for ConvLSTMCell.
    """

    def __init__(self, inputs, units, vector=0, tile=True, norm="instance", name="conv2dgru_cell"):
        super().__init__(name)
        self.units, self.norm = units, norm
        channels = (inputs, vector if tile else 0, units)
        dense = 0 if tile else vector
        gate_norms = {"instance": ("reset_update",), "layer": ("reset", "update"), "none": ()}[norm]
        state_norms = () if norm == "none" else ("state",)
        with self.scope():
            self.gates = _ConvGates("gates", channels, 2 * units, dense, norm, gate_norms, start=1.0)
            channels = (*channels[:2], 2 * units)
            self.candidate = _ConvGates("candidate", channels, units, dense, norm, state_norms)

    @property
    def widest_kernel(self):
        """[5, 5, in, out] of the convolution with most multiplications."""
        return self.gates.kernel

    def bind(self):
        gates, candidate = self.gates.bind(), self.candidate.bind()

        def step(x, vector, state):
            h = state[0] if state else None
            r, u = ops.split(ops.sigmoid(gates(x, vector, [] if h is None else [h])), 2, axis=-1)
            states = [] if h is None else [h, r * h]
            new = (1 - u) * ops.tanh(candidate(x, vector, states))
            h = new if h is None else u * h + new
            return h, (h,)

        return step


class _ConvGates(BoundLayer):
    """One normed convolution of the GRU; `start` is the initial bias, or beta."""

    def __init__(self, name, channels, outputs, dense, norm, norm_names, start=0.0):
        super().__init__(name)
        self.channels = channels
        self.kernel = self.weight("kernel", (SIZE, SIZE, sum(channels), outputs), truncated_normal())
        self.weights_of_vector = self.weight("weights", (dense, outputs), truncated_normal()) if dense else None
        bias = "ones" if start else "zeros"
        self.bias = None if norm_names else self.weight("bias", (outputs,), bias)
        with self.scope():
            self.norms = [Norm(norm, outputs // len(norm_names), n, beta=start) for n in norm_names]

    def bind(self):
        gates = _bind_gates(self)
        norms = [norm.bind() for norm in self.norms]

        def apply(x, vector, states):
            g = gates(x, vector, states)
            if not norms:
                return g
            parts = ops.split(g, len(norms), axis=-1) if len(norms) > 1 else [g]
            parts = [n(p) for n, p in zip(norms, parts)]
            return parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=-1)

        return apply


def _bind_gates(layer):
    """(x, vector, list of states) -> their convolution, bias or dense(vector) added.

    `layer.channels`: of x, of the tiled vector and of the states, in the order in which the kernel has them.
    """
    kernel = layer.read(layer.kernel)
    bias = None if layer.bias is None else layer.read(layer.bias)
    dense = None if layer.weights_of_vector is None else layer.read(layer.weights_of_vector)
    inputs, tiled, _ = layer.channels
    of_x, of_vector, of_states = ops.split(kernel, (inputs, inputs + tiled), axis=2)
    of_maps = ops.concatenate([of_x, of_states], axis=2) if tiled else kernel
    convolve = convolution(of_maps)

    def gates(x, vector, states):
        g = convolve(ops.concatenate([x, *states], axis=-1)) if states else conv2d(x, of_x)
        if tiled:
            g = g + conv_constant(vector, of_vector, x.shape[1:3], g.shape[1:3])
        if dense is not None:
            g = g + ops.matmul(vector, dense)[:, None, None, :]
        return g if bias is None else g + bias

    return gates


# Name in the hyper-parameters -> cell.
CONV_CELLS = {"lstm": ConvLSTMCell, "gru": ConvGRUCell}
