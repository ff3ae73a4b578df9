"""Convolutions of a recurrent network whose kernels' gradients are taken for several time steps together.

One step of a few clips is a poor load for the gradient of a kernel: it is as large as the kernel, however small the
maps, and has to be added to those of the other steps. The maps of several steps behind each other along the batch axis
make it one convolution, up to four times as fast: the same sum in another order. Until all of them are there, the
gradients of the convolutions' results are kept.

    gradients = KernelGradients(steps)
    with gradients.collecting():
        step = cell.bind()               # its layers call `convolution`
    step = gradients.shared(step)        # in place of shared_function(step)
"""

import contextlib
import threading

from tfvid.layers import winograd
from tfvid.layers.shared_function import shared_function
from tfvid.layers.xla import tf

# Steps whose maps are convolved together; with more it is hardly faster.
GROUP = 6

_state = threading.local()


def convolution(kernel):
    """A convolution of stride 1 of many maps, over zeros.

    Args:
      kernel: [k, k, in, out], k odd.

    Returns:
      Function x [N, H, W, in] -> [N, H, W, out].
    """
    bound = winograd.BoundConv2D(kernel)
    collector = getattr(_state, "collector", None)
    return bound if collector is None else collector.put_off(bound)


class KernelGradients:
    """Puts off the gradients of one network's kernels in one graph; in eager execution they are those of each step.

    Each call of a convolution takes a token, whose gradient is that of the call's result. The tokens of several calls
    come from one operation, whose gradient, that of the kernel, is therefore taken when those of all calls are there.

    Args:
      steps: how often the network's step is called, at most.
    """

    def __init__(self, steps):
        self._steps, self._kernels, self._calls = steps, [], {}

    @contextlib.contextmanager
    def collecting(self, enabled=True):
        """Context in which the network is bound, to be called within the function that is traced now, not in a loop."""
        before = getattr(_state, "collector", None)
        _state.collector = self if enabled and not tf.executing_eagerly() else None
        try:
            yield
        finally:
            _state.collector = before

    def put_off(self, bound):
        """The convolution `bound`, to be called once a step, with its kernel's gradient taken for several steps."""
        index = len(self._kernels)
        self._kernels.append(_Kernel(bound, self._steps))

        def put_off(x):
            token, _ = self._calls[index]
            self._calls[index] = token, x

            @tf.custom_gradient
            def apply(x, token):
                return bound(x), lambda upstream: (bound.input_gradient(x, upstream), upstream)

            return apply(x, token)

        return put_off

    def shared(self, step):
        """`shared_function(step)` of the bound network's step."""
        if not self._kernels:
            return shared_function(step)

        def with_tokens(tokens, *args):
            self._calls = {i: (token, None) for i, token in enumerate(tokens)}
            result = step(*args)
            return result, [x for _, x in self._calls.values()]

        function, times = shared_function(with_tokens), iter(range(self._steps))

        def call(*args):
            t = next(times)
            result, maps = function([kernel.tokens[t] for kernel in self._kernels], *args)
            for kernel, x in zip(self._kernels, maps):
                kernel.maps[t] = x
            return result

        return call


class _Kernel:
    """The tokens of a kernel's calls and, once they were made, the maps that it convolved; None in a step without."""

    def __init__(self, bound, steps):
        self._bound, self.maps, self.tokens = bound, [None] * steps, []
        for start in range(0, steps, GROUP):
            self.tokens += self._group(start, min(start + GROUP, steps))

    def _group(self, start, stop):
        @tf.custom_gradient
        def tokens(kernel):
            zero = tf.zeros([], kernel.dtype)
            # Of unknown shape: what becomes their gradient has that of a result.
            tokens = [tf.raw_ops.PlaceholderWithDefault(input=zero, shape=None) for _ in range(start, stop)]
            return tokens, lambda *upstreams: self._gradient(kernel, self.maps[start:stop], upstreams)

        return tokens(self._bound.kernel)

    def _gradient(self, kernel, maps, upstreams):
        # Where a result was not used, the gradient is a zero as shapeless as the token.
        pairs = [(x, dy) for x, dy in zip(maps, upstreams) if x is not None and dy.shape.rank is not None]
        if not pairs:
            return tf.zeros_like(kernel)
        return self._bound.kernel_gradient(*(tf.concat(parts, axis=0) for parts in zip(*pairs)))
