"""Counts the multiply-adds of a traced function: what a step costs in arithmetic alone."""

import collections
import dataclasses
import re

import numpy as np
import tensorflow as tf
from tensorflow.python.framework import op_callbacks

from tfvid.layers import xla

# A convolution of `tfvid.layers.winograd` in a graph, and what its kernel is transformed by.
_WINOGRAD = re.compile(r"__(?:inference|forward)_winograd_(?:(\d+)x\d+(_kernel_gradient)?|kernel)")


@dataclasses.dataclass
class Count:
    """Arithmetic of one call of a function.

    Attributes:
      by_kind: {type of operation: multiply-adds}.
      unknown: operations whose shapes are not known while tracing, {type: how many}.
      loops: while loops whose number of turns is not known; their body is counted once.
    """

    by_kind: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    unknown: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    loops: int = 0

    @property
    def multiply_adds(self):
        """All kinds together."""
        return sum(self.by_kind.values())


def count(function):
    """The `Count` of a concrete function, with all functions that it calls.

    Convolutions, transposed ones, their gradients and matrix products are counted; the
    rest (norms, activations, copies) is not. A convolution counts as many as the direct
    one, whatever it is computed by.
    """
    result = Count()
    _count_graph(function.graph, 1, result)
    return result


def count_run(call):
    """The `Count` of what a call computes, run once operation by operation, so that every shape is known."""
    result = Count()

    def callback(kind, inputs, attributes, outputs, op_name=None, graph=None):
        kind = tf.compat.as_str(kind)  # bytes from one of TensorFlow's two ways to run an operation
        if kind in _RULES and graph is None:
            result.by_kind[kind] += _RULES[kind](_Executed(kind, inputs, outputs, attributes))

    eager = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    op_callbacks.add_op_callback(callback)
    try:
        with xla.off():
            call()
    finally:
        op_callbacks.remove_op_callback(callback)
        tf.config.run_functions_eagerly(eager)
    return result


class _Executed:
    """An operation that has been run, as the rules read one of a graph."""

    def __init__(self, kind, inputs, outputs, attributes):
        self.type, self.inputs, self.outputs = kind, inputs, outputs
        self._attributes = {tf.compat.as_str(k): v for k, v in zip(attributes[::2], attributes[1::2])}

    def get_attr(self, name):
        value = self._attributes[name]
        return value.encode() if isinstance(value, str) else value


def _count_graph(graph, times, result):
    for op in _live(graph):
        if op.type in _RULES:
            _add(result, op.type, _RULES[op.type](op), times)
        elif op.type in ("While", "StatelessWhile"):
            limit = tf.get_static_value(op.inputs[1]) if len(op.inputs) > 1 else None
            turns = int(limit) if limit is not None and np.ndim(limit) == 0 and 0 < int(limit) < 2**31 - 1 else None
            result.loops += turns is None
            _count_called(graph, op.get_attr("body"), times * (turns or 1), result)
        elif op.type in ("If", "StatelessIf"):
            _count_called(graph, op.get_attr("then_branch"), times, result)
        elif op.type in ("PartitionedCall", "StatefulPartitionedCall"):
            name = op.get_attr("f")
            if match := _WINOGRAD.match(name.name):
                if taps := int(match[1] or 0):
                    seen = [taps, taps, op.inputs[0].shape[-1]]
                    maps = op.inputs[1] if match[2] else op.outputs[0]
                    _add(result, "Conv2D", _product(maps.shape, seen), times)
            else:
                _count_called(graph, name, times, result)


def _add(result, kind, macs, times):
    if macs is None:
        result.unknown[kind] += 1
    else:
        result.by_kind[kind] += times * macs


def _live(graph):
    """The operations that a result or a side effect needs; TensorFlow runs no others."""
    found = {}
    waiting = [t.op for t in graph.outputs] + list(graph.control_outputs)
    while waiting:
        op = waiting.pop()
        if op.name not in found:
            found[op.name] = op
            waiting += [t.op for t in op.inputs] + list(op.control_inputs)
    return list(found.values())


def _count_called(graph, name, times, result):
    called = graph._get_function(name.name)  # no public way to a function's graph
    if called is not None:
        _count_graph(called.graph, times, result)


def _elements(shape):
    return int(np.prod(shape)) if shape.is_fully_defined() else None


def _convolution(op):
    """Elements of the output times elements of the kernel that each of them sees."""
    return _product(op.outputs[0].shape, op.inputs[1].shape[:-1])


def _convolution_of_gradient(op):
    """With respect to the input: as many as forward, whose output is inputs[2]."""
    return _product(op.inputs[2].shape, op.inputs[1].shape[:-1])


def _gradient_of_kernel(op):
    return _product(op.inputs[2].shape, op.outputs[0].shape[:-1])


def _depthwise(op):
    return _product(op.outputs[0].shape, op.inputs[1].shape[:2])


def _matrix_product(op):
    transposed = op.get_attr("transpose_a") if op.type == "MatMul" else op.get_attr("adj_x")
    inner = op.inputs[0].shape[-2 if transposed else -1]
    return _product(op.outputs[0].shape, tf.TensorShape([inner]))


def _einsum(op):
    """Product of the sizes of all indices: exact for products of two tensors."""
    equation = op.get_attr("equation").decode()
    sizes = {}
    for term, tensor in zip(equation.split("->")[0].split(","), op.inputs):
        if "..." in term or not tensor.shape.is_fully_defined():
            return None
        sizes.update(zip(term, tensor.shape))
    return int(np.prod([int(s) for s in sizes.values()])) if len(op.inputs) == 2 else 0


def _product(output, kernel):
    a, b = _elements(output), _elements(tf.TensorShape(kernel))
    return None if a is None or b is None else a * b


_RULES = {
    "Conv2D": _convolution,
    "Conv3D": _convolution,
    "Conv2DBackpropInput": _convolution_of_gradient,
    "Conv3DBackpropInputV2": _convolution_of_gradient,
    "Conv2DBackpropFilter": _gradient_of_kernel,
    "Conv3DBackpropFilterV2": _gradient_of_kernel,
    "DepthwiseConv2dNative": _depthwise,
    "MatMul": _matrix_product,
    "BatchMatMulV2": _matrix_product,
    "Einsum": _einsum,
}
