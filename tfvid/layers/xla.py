"""Where XLA compiles parts of a graph on the CPU.

XLA gains where many small operations stand between few large ones that it knows how to compute, and costs seconds and
memory to compile each shape: so it is used part by part, where that was measured to be faster. All else stays
TensorFlow's. A graph that must run without XLA is traced within `off()`.
"""

import contextlib
import functools
import threading

import keras

tf = None
if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

_state = threading.local()


@contextlib.contextmanager
def off():
    """Context in which everything is traced, or run, as TensorFlow's own operations."""
    before = getattr(_state, "off", False)
    _state.off = True
    try:
        yield
    finally:
        _state.off = before


def allowed(dtype):
    """Whether parts of a graph may be compiled: float32 on one CPU, as nothing else was measured."""
    return (
        not getattr(_state, "off", False)
        and keras.backend.standardize_dtype(dtype) == "float32"
        and on_cpu()
    )


def on_cpu():
    """Whether one CPU is all that TensorFlow has."""
    return tf is not None and [device.device_type for device in tf.config.list_logical_devices()] == ["CPU"]


def compiled(function):
    """`function` as one that XLA compiles, once for each shape."""
    return tf.function(function, jit_compile=True, autograph=False)


def compiled_with_gradient(function, *tensors, **options):
    """`function(*tensors, **options)` and its gradient, each compiled once for each shape.

    The gradient is taken within its own function, which keeps nothing of the forward pass but `tensors`; that of a
    compiled function would be compiled again for every graph that it stands in.

    Args:
      function: of one result, of a module (it is the key under which what was compiled is kept).
      tensors: of one float type.
      options: plain Python values.
    """
    forward, backward = _with_gradient(function)

    @tf.custom_gradient
    def run(*tensors):
        return forward(*tensors, **options), lambda upstream: backward(upstream, *tensors, **options)

    return run(*(tf.convert_to_tensor(x) for x in tensors))


@functools.cache
def _with_gradient(function):
    def backward(upstream, *tensors, **options):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(tensors)
            result = function(*tensors, **options)
        return tape.gradient(result, tensors, upstream)

    backward.__name__ = f"{function.__name__}_gradient"
    return compiled(function), compiled(backward)
