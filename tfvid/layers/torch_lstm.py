"""The LSTM cell in PyTorch's form: two biases, gates i, f, g, o, no forget bias of 1."""

from keras import ops

from tfvid.layers.bound import BoundLayer
from tfvid.layers.torch_init import uniform


class TorchLSTMCell(BoundLayer):
    """`torch.nn.LSTM` of one layer, one step.

    a = x W + b_input + h R + b_recurrent;  c' = s(f) c + s(i) tanh(g);  h' = s(o) tanh(c').
    Both biases are kept: under weight decay and Adam their sum would move at another rate.

    Variables: kernel [inputs, 4 units], recurrent_kernel [units, 4 units], bias_input and
    bias_recurrent [4 units], all U(-1/sqrt(units), 1/sqrt(units)). State: (h, c), each
    [B, units].
    """

    def __init__(self, inputs, units, name):
        super().__init__(name)
        self.units = units
        self.kernel = self.weight("kernel", (inputs, 4 * units), uniform(units))
        self.recurrent_kernel = self.weight("recurrent_kernel", (units, 4 * units), uniform(units))
        self.bias_input = self.weight("bias_input", (4 * units,), uniform(units))
        self.bias_recurrent = self.weight("bias_recurrent", (4 * units,), uniform(units))

    def zero_state(self, batch):
        """(h, c) of zeros."""
        zeros = ops.zeros((batch, self.units), self.compute_dtype)
        return zeros, zeros

    def bind(self):
        kernel, recurrent = self.read(self.kernel), self.read(self.recurrent_kernel)
        bias = self.read(self.bias_input) + self.read(self.bias_recurrent)

        def step(x, state):
            h, c = state
            i, f, g, o = ops.split(ops.matmul(x, kernel) + ops.matmul(h, recurrent) + bias, 4, axis=-1)
            c = ops.sigmoid(f) * c + ops.sigmoid(i) * ops.tanh(g)
            h = ops.sigmoid(o) * ops.tanh(c)
            return h, (h, c)

        return step
