"""Layers that make their parts in their constructor, with paths that follow the tree of names."""

import functools
import inspect

import keras


def scoped(init):
    """Decorates the `__init__` of a layer: what it makes has the layer's name in front of its path.

    Keras opens a layer's name scope for `build` only. The constructor must have a
    parameter `name`; where none is given, the layer's parts are named as if it were not there.
    """
    signature = inspect.signature(init)

    @functools.wraps(init)
    def wrapped(self, *args, **kwargs):
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        name = bound.arguments["name"]
        if not name:
            init(self, *args, **kwargs)
            return
        with keras.name_scope(name, caller=self):
            init(self, *args, **kwargs)

    wrapped.__signature__ = signature  # Keras reads the arguments of a constructor
    return wrapped
