"""Batch normalisation with PyTorch's running statistics."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="tfvid")
class BatchNorm(keras.layers.Layer):
    """Normalises each channel; the running variance accumulates the unbiased one.

    `keras.layers.BatchNormalization` accumulates the biased variance, PyTorch's
    BatchNorm N/(N-1) of it (N values a channel), so that the two differ in evaluation
    after few or small batches. The normalisation itself uses the biased variance in both.

    Under several replicas the statistics are those of the global batch. `replicas`, and
    `fused`, a kernel of the backend that does the same faster, are set by
    `VideoModel.finish_build`.

    Args:
      momentum: share of the new batch in the running statistics (PyTorch's convention,
        1 minus that of Keras).
      epsilon: added to the variance.
      affine: learn a scale and a shift; False where there is none or where they are
        given to each call.
      scale_initializer: of the learnt scale.

    Input: [..., C]. Output: the same shape.
    """

    def __init__(self, momentum=0.1, epsilon=1e-5, affine=True, scale_initializer="ones", name=None, **kwargs):
        super().__init__(name=name, **kwargs)
        self.scale_initializer = keras.initializers.get(scale_initializer)
        self.momentum, self.epsilon, self.affine = momentum, epsilon, affine
        self.replicas = 1
        # Function (x, scale, shift, mean, variance, epsilon, momentum, training) -> (y, next mean, next variance)
        # or None where it does not take x.
        self.fused = None

    def build(self, input_shape):
        shape = (input_shape[-1],)

        def statistic(name, initializer, shape=shape, dtype=None):
            return self.add_weight(
                name=name, shape=shape, dtype=dtype, initializer=initializer, trainable=False, autocast=False,
                aggregation="only_first_replica",
            )

        self.scale = self.shift = None
        if self.affine:
            self.scale = self.add_weight(name="scale", shape=shape, initializer=self.scale_initializer, autocast=False)
            self.shift = self.add_weight(name="shift", shape=shape, initializer="zeros", autocast=False)
        self.running_mean = statistic("running_mean", "zeros")
        self.running_variance = statistic("running_variance", "ones")
        self.num_batches_tracked = statistic("num_batches_tracked", "zeros", (), "int64")
        self.built = True

    def call(self, x, training, scale=None, shift=None, updates=1):
        """Normalises `x`.

        Args:
          x: [..., C].
          training: True normalises with the batch's statistics and updates the running
            ones; False normalises with the running ones.
          scale, shift: what takes the place of the learnt ones (conditional
            normalisation), broadcast against `x`.
          updates: how often the running statistics move towards this batch's, for a batch
            that the original runs several times.
        """
        dtype = x.dtype
        x = ops.cast(x, self.variable_dtype)  # statistics in bfloat16 would be far off
        momentum = 1 - (1 - self.momentum) ** updates  # that many moves in one
        if self.fused is not None and scale is None and shift is None:
            result = self.fused(
                x, self.scale, self.shift, self.running_mean, self.running_variance, self.epsilon, momentum,
                training,
            )
            if result is not None:
                if training:
                    self._store(*result[1:], updates)
                return ops.cast(result[0], dtype)
        if training:
            axes = tuple(range(len(x.shape) - 1))
            mean, variance = ops.moments(x, axes, synchronized=self.replicas > 1)
            self._track(x, mean, variance, momentum, updates)
        else:
            mean, variance = self.running_mean, self.running_variance
        scale = self.scale if scale is None else ops.cast(scale, x.dtype)
        shift = self.shift if shift is None else ops.cast(shift, x.dtype)
        factor = ops.rsqrt(variance + self.epsilon)
        if scale is not None:
            factor = factor * scale
        offset = -mean * factor if shift is None else shift - mean * factor
        return ops.cast(x * factor + offset, dtype)

    def _track(self, x, mean, variance, momentum, updates):
        """Moves the running statistics towards those of the batch."""
        count = ops.cast(ops.size(x[..., 0]) * self.replicas, self.variable_dtype)
        unbiased = variance * (count / ops.maximum(count - 1, 1))
        mean, unbiased = ops.stop_gradient(mean), ops.stop_gradient(unbiased)
        self._store(
            self.running_mean * (1 - momentum) + mean * momentum,
            self.running_variance * (1 - momentum) + unbiased * momentum,
            updates,
        )

    def _store(self, mean, variance, updates):
        self.running_mean.assign(mean)
        self.running_variance.assign(variance)
        self.num_batches_tracked.assign_add(updates)

    def get_config(self):
        return {
            **super().get_config(), "momentum": self.momentum, "epsilon": self.epsilon, "affine": self.affine,
            "scale_initializer": keras.initializers.serialize(self.scale_initializer),
        }
