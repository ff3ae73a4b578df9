"""Spectral normalisation by one power iteration from a stored vector (Miyato et al., 2018).

The stored vector u is read, never advanced, by a forward pass: who trains decides when
(`SpectralKernel.next_u`). The raw kernel is kept.
"""

from keras import ops

from tfvid.layers.bound import BoundLayer, truncated_normal, value_of


def l2_normalize(x):
    """x / (norm of all elements + 1e-12)."""
    return x / (ops.sqrt(ops.sum(ops.square(x))) + 1e-12)


def power_iteration(kernel, u):
    """One step from `u`.

    Args:
      kernel: [..., out].
      u: [1, out].

    Returns:
      sigma: scalar, the estimate of the largest singular value. Gradients flow through
        it and the vectors, as in the original.
      u: [1, out], the advanced vector.
    """
    matrix = ops.reshape(kernel, (-1, kernel.shape[-1]))
    v = l2_normalize(ops.matmul(u, ops.transpose(matrix)))
    product = ops.matmul(v, matrix)
    u = l2_normalize(product)
    return ops.sum(product * u), u


class SpectralKernel(BoundLayer):
    """A kernel with its vector u; variables kernel, u [1, out] (not trained) and maybe bias."""

    def __init__(self, shape, name, use_bias=True):
        super().__init__(name)
        self.kernel = self.weight("kernel", shape, truncated_normal())
        # Every replica computes the same u from the same kernel.
        self.u = self.weight(
            "u", (1, shape[-1]), truncated_normal(1.0), trainable=False, aggregation="only_first_replica"
        )
        self.bias = self.weight("bias", (shape[-1],), "zeros") if use_bias else None

    def normalized(self, u=None):
        """(kernel / sigma in the compute type, advanced u), from `u` or the stored one."""
        kernel = value_of(self.kernel)
        sigma, advanced = power_iteration(kernel, value_of(self.u) if u is None else u)
        return ops.cast(kernel / sigma, self.compute_dtype), advanced

    def bind(self):
        return self.normalized


