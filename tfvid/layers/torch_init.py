"""Convolutions and dense layers that start as PyTorch's do: U(-1/sqrt(fan_in), 1/sqrt(fan_in)), biases too."""

import math

import keras

from tfvid.layers import winograd


def uniform(fan_in):
    """A fresh initializer; an instance shared by two weights would give them the same numbers."""
    bound = 1 / math.sqrt(fan_in)
    return keras.initializers.RandomUniform(-bound, bound)


def conv2d(channels_in, channels_out, kernel_size, use_bias=True, name=None, **kwargs):
    """A zero-padded "same" convolution, not yet built; `kwargs` are those of Conv2D.

    With stride 1 and an odd kernel it pads as PyTorch's `padding=kernel_size // 2`. For
    strides pad explicitly and pass `padding="valid"`.
    """
    fan_in = channels_in * kernel_size * kernel_size
    return winograd.Conv2D(
        channels_out, kernel_size, use_bias=use_bias, kernel_initializer=uniform(fan_in),
        bias_initializer=uniform(fan_in), name=name, **{"padding": "same", **kwargs},
    )


def dense(channels_in, channels_out, name=None):
    """A linear layer, not yet built."""
    return keras.layers.Dense(
        channels_out, kernel_initializer=uniform(channels_in), bias_initializer=uniform(channels_in), name=name
    )
