"""Discrete actions: Gumbel-softmax samples, and what the samples leave open (variations)."""

import keras
from keras import ops


def gumbel_softmax(log_probabilities, uniform, temperature, hard=False):
    """A differentiable sample of a categorical distribution.

    Args:
      log_probabilities: [..., A].
      uniform: U[0, 1) of the same shape.
      temperature: number or scalar tensor; towards 0 samples become one-hot.
      hard: one-hot samples with the gradient of the soft ones.

    Returns:
      [..., A] on the simplex.
    """
    gumbel = -ops.log(-ops.log(uniform + 1e-20) + 1e-20)
    soft = ops.softmax((log_probabilities + gumbel) / temperature, axis=-1)
    if not hard:
        return soft
    one_hot = ops.one_hot(ops.argmax(soft, axis=-1), soft.shape[-1], dtype=soft.dtype)
    return ops.stop_gradient(one_hot - soft) + soft


class CentroidEstimator(keras.layers.Layer):
    """Where each action lies in the space of directions; a running estimate, not trained.

    Args:
      actions_count: A.
      dimension: D.
      alpha: share of the new batch in the estimate.
    """

    def __init__(self, actions_count, dimension, alpha=0.1, name="centroid_estimator"):
        super().__init__(name=name)
        self.shape, self.alpha = (actions_count, dimension), alpha

    def build(self, input_shape=None):
        self.centroids = self.add_weight(
            name="centroids", shape=self.shape, initializer=keras.initializers.RandomNormal(stddev=1.0),
            trainable=False, autocast=False, aggregation="only_first_replica",
        )
        self.built = True

    def update(self, probabilities, directions_mean, reduce_sum=lambda x: x):
        """Moves the centroids towards the batch's means of directions.

        Args:
          probabilities: [..., A] of the actions.
          directions_mean: [..., D].
          reduce_sum: sums a tensor over replicas.
        """
        p = ops.reshape(ops.stop_gradient(probabilities), (-1, self.shape[0]))
        d = ops.reshape(ops.stop_gradient(directions_mean), (-1, self.shape[1]))
        sums = reduce_sum(ops.matmul(ops.transpose(p), d))  # [A, D]
        weights = reduce_sum(ops.sum(p, axis=0))[:, None]
        self.centroids.assign((1 - self.alpha) * self.centroids + self.alpha * sums / weights)

    def variations(self, samples, directions):
        """Where each direction lies around its action's centroid.

        Args:
          samples: [..., A] of the actions.
          directions: [..., D] sampled directions.

        Returns:
          [..., D]: sum_a sample_a (direction - centroid_a).
        """
        centroids = ops.cast(self.centroids, directions.dtype)
        return ops.sum(samples, axis=-1, keepdims=True) * directions - ops.matmul(samples, centroids)

    def distances(self):
        """Mean L2 distance between two different centroids; 0 where A is 1."""
        count = self.shape[0]
        centroids = ops.convert_to_tensor(self.centroids)
        squares = ops.sum(ops.square(centroids[:, None] - centroids[None]), axis=-1)
        return ops.sum(ops.sqrt(squares)) / max(count * (count - 1), 1)
