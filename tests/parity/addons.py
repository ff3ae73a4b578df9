"""Pieces of tensorflow-addons 0.23 against what stands in for them (README, "Replacements").

Where tfvid's piece deliberately differs, the recorded value is reached by the settings
that make up the difference, and the difference itself is asserted.
"""

import re

import keras
import numpy as np
import tensorflow as tf

from tfvid.layers.norms import INSTANCE_EPSILON, instance_norm
from tfvid.layers.sampling import dense_image_warp, interpolate_bilinear
from tfvid.layers.spectral_norm import power_iteration
from tfvid.models.optimizers import Adam


def check(case):
    """Every piece of the case; a piece that no function here knows is an error."""
    pieces = {key.split("/")[0] for key in case.arrays}
    tolerance = float(case.meta["tolerance"])

    def close(value, expected, what):
        value = keras.ops.convert_to_numpy(value)
        np.testing.assert_allclose(value, expected, rtol=tolerance, atol=tolerance, err_msg=what)

    for piece in sorted(pieces):
        arrays = case.under(f"{piece}/")
        if piece == "moving_average":
            arrays["gradients"] = case.arrays["adamw/gradients"]  # as its description says
        CHECKS[piece](arrays, case.meta["pieces"].get(piece, ""), close)


def setting(text, name):
    """The number after `name` in a description such as "decay=0.9, epsilon 0.001"."""
    return float(re.search(rf"{re.escape(name)}[ =(]*([0-9.eE+-]+)", text)[1].rstrip("."))


def differ(a, b):
    """Asserts that two arrays are not equal within rounding: the deliberate difference is one."""
    assert np.abs(np.array(a) - np.array(b)).max() > 1e-4


def check_dense_image_warp(arrays, text, close):
    close(dense_image_warp(arrays["image"], arrays["flow"]), arrays["output"], "dense_image_warp")


def check_interpolate_bilinear(arrays, text, close):
    for key in arrays:
        if key.startswith("output_"):
            points = arrays["query"] if key == "output_ij" else arrays["query"][..., ::-1]
            close(interpolate_bilinear(arrays["grid"], points), arrays[key], key)


def check_instance_norm(arrays, text, close):
    epsilon = setting(text, "epsilon")
    x = tf.constant(arrays["input"])
    # c x / sqrt(c^2 variance + epsilon) = x / sqrt(variance + epsilon / c^2)
    scaled = instance_norm(x * (INSTANCE_EPSILON / epsilon) ** 0.5, arrays["gamma"], arrays["beta"])
    close(scaled, arrays["output"], "instance norm with the recorded epsilon")
    # Ours has TensorFlow 1's epsilon, which the published SAVP weights were trained with.
    assert INSTANCE_EPSILON < epsilon
    differ(instance_norm(x, arrays["gamma"], arrays["beta"]), arrays["output"])


def check_spectral_norm(arrays, text, close):
    assert setting(text, "power_iterations") == 1
    raw, u, x = tf.constant(arrays["kernel"]), tf.constant(arrays["u"]), arrays["input"]
    calls = sorted(key for key in arrays if key.startswith("output_training_call"))
    assert calls
    for i, key in enumerate(calls):
        sigma, u = power_iteration(raw, u)
        close(u, arrays[f"u_after_call{i}"], f"u after call {i}")
        close(raw / sigma, arrays[f"kernel_after_call{i}"], f"kernel of call {i}")
        close(tf.matmul(x, raw / sigma), arrays[key], key)
    # Ours keeps the raw kernel; the wrapper of tensorflow-addons overwrote it.
    differ(raw, arrays[f"kernel_after_call{len(calls) - 1}"])


def check_gelu(arrays, text, close):
    close(keras.ops.gelu(arrays["input"], approximate=False), arrays["output_exact"], "exact")
    close(keras.ops.gelu(arrays["input"], approximate=True), arrays["output_tanh"], "tanh")


def check_adamw(arrays, text, close):
    decay, rate = setting(text, "weight_decay"), setting(text, "learning_rate")

    def train(weight_decay):
        variable = keras.Variable(arrays["initial"], name="variable")
        optimizer = Adam([variable], epsilon=1e-7, weight_decay=weight_decay, decoupled=True, name="adamw")
        path = []
        for gradient in arrays["gradients"]:
            optimizer.apply([tf.constant(gradient)], [variable], rate)
            path.append(keras.ops.convert_to_numpy(variable))
        return path

    # The same value of weight_decay means lr * weight_decay here, as in PyTorch and Keras.
    for i, value in enumerate(train(decay / rate)):
        close(value, arrays[f"after_step{i}"], f"step {i}")
    differ(train(decay)[-1], arrays[f"after_step{len(arrays['gradients']) - 1}"])


def check_moving_average(arrays, text, close):
    rate, decay = setting(text, "SGD"), setting(text, "average_decay")
    variable = tf.Variable(arrays["initial"])
    average = tf.train.ExponentialMovingAverage(decay)
    average.apply([variable])
    for i, gradient in enumerate(arrays["gradients"]):
        variable.assign_sub(rate * gradient)
        average.apply([variable])
        close(variable, arrays[f"variable_after_step{i}"], f"variable after step {i}")
    close(average.average(variable), arrays[f"average_after_step{len(arrays['gradients']) - 1}"], "average")


CHECKS = {
    "adamw": check_adamw,
    "dense_image_warp": check_dense_image_warp,
    "gelu": check_gelu,
    "instance_norm": check_instance_norm,
    "interpolate_bilinear": check_interpolate_bilinear,
    "moving_average": check_moving_average,
    "spectral_norm": check_spectral_norm,
}
