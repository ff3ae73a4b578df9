"""Layers that are built in their constructor and whose weights can be read once for many uses."""

import keras
from keras import ops


class BoundLayer(keras.layers.Layer):
    """A layer in two parts: reading weights (`bind`) and computing with them.

    `bind()` reads the weights, casts them to the compute type, derives from them what
    depends on nothing else (fused kernels, spectral norms), and returns a pure function
    of tensors. A recurrent network binds its layers once and applies the functions at
    each time step, so that nothing is derived, and no gradient summed, more than once.

    A subclass makes its weights and children in its constructor, children within
    `with self.scope():`, so that a variable's path is that of the tree of names.
    """

    def __init__(self, name):
        super().__init__(name=name, autocast=False)
        self.built = True

    def scope(self):
        """Context in which children are made."""
        return keras.name_scope(self.name, caller=self)

    def weight(self, name, shape, initializer, trainable=True, aggregation="none"):
        """Makes a weight of this layer."""
        return self.add_weight(
            name=name, shape=shape, initializer=initializer, trainable=trainable, aggregation=aggregation
        )

    def read(self, variable):
        """The value of a weight in the compute type."""
        return ops.cast(variable, self.compute_dtype)

    def bind(self):
        """Returns a function of tensors that uses the weights as they are now."""
        raise NotImplementedError

    def call(self, *args):
        return self.bind()(*args)


def value_of(variable):
    """The value of a variable now, in its own type; `ops.convert_to_tensor` would give the variable back."""
    return ops.cast(variable, variable.dtype)


def wide(x):
    """`x` in float32 at least: for norms, sums and losses under a narrow compute type."""
    return ops.cast(x, "float32") if keras.backend.standardize_dtype(x.dtype) in ("bfloat16", "float16") else x


def truncated_normal(stddev=0.02):
    """A fresh initialiser: normal, cut at two standard deviations."""
    return keras.initializers.TruncatedNormal(stddev=stddev)
