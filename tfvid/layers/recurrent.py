"""LSTM and GRU cells in TensorFlow 1's form, so that its checkpoints load as they are."""

from keras import ops

from tfvid.layers.bound import BoundLayer


class LSTMCell(BoundLayer):
    """Gates i, j, f, o in that order in one kernel; 1 is added to f at run time.

    Variables: kernel [inputs + units, 4 units], bias. State: (c, h), each [B, units]; None: zeros.
    """

    def __init__(self, inputs, units, name="basic_lstm_cell"):
        super().__init__(name)
        self.units = units
        self.kernel = self.weight("kernel", (inputs + units, 4 * units), "glorot_uniform")
        self.bias = self.weight("bias", (4 * units,), "zeros")

    def zero_state(self, batch):
        """(c, h) of zeros."""
        zeros = ops.zeros((batch, self.units), self.compute_dtype)
        return zeros, zeros

    def bind(self):
        kernel, bias = self.read(self.kernel), self.read(self.bias)

        def step(x, state):
            c, h = state or self.zero_state(ops.shape(x)[0])
            i, j, f, o = ops.split(ops.matmul(ops.concatenate([x, h], -1), kernel) + bias, 4, axis=-1)
            c = c * ops.sigmoid(f + 1) + ops.sigmoid(i) * ops.tanh(j)
            h = ops.tanh(c) * ops.sigmoid(o)
            return h, (c, h)

        return step


class GRUCell(BoundLayer):
    """Gates r, u; candidate of (x, r * h); h' = u h + (1 - u) candidate.

    Variables: gates/kernel [inputs + units, 2 units], gates/bias (initially 1),
    candidate/kernel [inputs + units, units], candidate/bias. State: (h,), None: zeros.
    """

    def __init__(self, inputs, units, name="gru_cell"):
        super().__init__(name)
        self.units = units
        with self.scope():
            self.gates = _Affine(inputs + units, 2 * units, "gates", "ones")
            self.candidate = _Affine(inputs + units, units, "candidate", "zeros")

    def zero_state(self, batch):
        """(h,) of zeros."""
        return (ops.zeros((batch, self.units), self.compute_dtype),)

    def bind(self):
        gates, candidate = self.gates.bind(), self.candidate.bind()

        def step(x, state):
            (h,) = state or self.zero_state(ops.shape(x)[0])
            r, u = ops.split(ops.sigmoid(gates(ops.concatenate([x, h], -1))), 2, axis=-1)
            h = u * h + (1 - u) * ops.tanh(candidate(ops.concatenate([x, r * h], -1)))
            return h, (h,)

        return step


class _Affine(BoundLayer):
    def __init__(self, inputs, outputs, name, bias):
        super().__init__(name)
        self.kernel = self.weight("kernel", (inputs, outputs), "glorot_uniform")
        self.bias = self.weight("bias", (outputs,), bias)

    def bind(self):
        kernel, bias = self.read(self.kernel), self.read(self.bias)
        return lambda x: ops.matmul(x, kernel) + bias


# Name in the hyper-parameters -> cell.
CELLS = {"lstm": LSTMCell, "gru": GRUCell}
