"""Vector quantisation (van den Oord et al., "Neural Discrete Representation Learning", 2017)."""

import keras
from keras import ops


class Quantizer(keras.layers.Layer):
    """Replaces each vector by the nearest code.

    Args:
      num_codes, dim: size of the codebook.
      commitment: weight of the term that trains the codebook. Both of CAGE's autoencoders
        put it there (the "legacy" form of taming-transformers) and not on the term that
        trains the encoder, as the paper does.
    """

    def __init__(self, num_codes, dim, commitment=0.25, name=None):
        # In the codes' own precision: in bfloat16 neighbouring codes are as near as each other.
        super().__init__(name=name, autocast=False)
        bound = 1 / num_codes
        self.codes = self.add_weight(
            name="codes",
            shape=(num_codes, dim),
            initializer=keras.initializers.RandomUniform(-bound, bound),
            autocast=False,
        )
        self.commitment = commitment
        self.built = True

    def indices(self, z):
        """[..., dim] -> [...] int32 numbers of the nearest codes (squared distance)."""
        z = ops.cast(z, self.variable_dtype)
        distance = ops.sum(ops.square(self.codes), axis=1) - 2 * ops.matmul(z, ops.transpose(self.codes))
        return ops.argmin(distance, axis=-1)

    def look_up(self, indices):
        """[...] -> [..., dim]."""
        return ops.take(self.codes, indices, axis=0)

    def call(self, z):
        """Returns the nearest codes with a straight-through gradient, and the loss."""
        z = ops.cast(z, self.variable_dtype)
        nearest = self.look_up(ops.stop_gradient(self.indices(z)))
        to_encoder = ops.mean(ops.square(ops.stop_gradient(nearest) - z))
        to_codes = ops.mean(ops.square(nearest - ops.stop_gradient(z)))
        loss = to_encoder + self.commitment * to_codes
        return z + ops.stop_gradient(nearest - z), loss
