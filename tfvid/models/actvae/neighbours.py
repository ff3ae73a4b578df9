"""Movements of training clips that began in a similar pose.

The Nadaraya-Watson estimator (Nadaraya 1964, Watson 1964) of the distribution of movements given a pose and an
action, sampled instead of averaged: a stored clip is drawn with a probability that falls with the distance of its
first pose. Not of the original program.
"""

from keras import ops

from tfvid.layers.bound import BoundLayer, value_of


class ClipNeighbours(BoundLayer):
    """Stored clips, and the movements of those that began like a given pose under the same action.

    Args:
      clips: places for clips; free ones are never drawn.
      horizon: poses of a clip after its first.
      pose_size: 2J.
      num_actions: K.
      bandwidth: standard deviation of the Gaussian kernel of the distance of two poses, which is the root of the
        mean squared distance of their joints after their centres have been laid upon each other; in the poses' unit.
    """

    def __init__(self, clips, horizon, pose_size, num_actions, bandwidth, name="neighbours"):
        super().__init__(name)
        self.bandwidth = bandwidth
        self.poses = self.weight("poses", (clips, 1 + horizon, pose_size), "zeros", trainable=False)
        self.actions = self.weight("actions", (clips, num_actions), "zeros", trainable=False)  # free places: all zeros

    def fill(self, poses, actions):
        """Stores as many clips as there are places for.

        Args:
          poses: [N, 1 + horizon, 2J].
          actions: [N, K], one-hot.
        """
        places = self.poses.shape[0]
        for variable, values in ((self.poses, poses), (self.actions, actions)):
            values = ops.convert_to_tensor(values[:places])
            free = [(0, places - values.shape[0])] + [(0, 0)] * (len(values.shape) - 1)
            variable.assign(ops.cast(ops.pad(values, free), variable.dtype))

    def bind(self):
        stored, known_actions = value_of(self.poses), ops.transpose(value_of(self.actions))
        first, movements = _centred(stored[:, 0]), stored[:, 1:] - stored[:, :1]
        scale = -1 / (2 * self.bandwidth**2 * (stored.shape[-1] // 2))

        def recall(poses, actions, chance):
            """The movement of one stored clip for each pose.

            Args:
              poses: [N, 2J], in the weights' type.
              actions: [N, K], one-hot.
              chance: [N] in [0, 1), which of the clips.

            Returns:
              movement [N, horizon, 2J] from the pose, and known [N, 1, 1]: whether a clip of the action is stored
              (the movement is zero where none is).
            """
            same = ops.matmul(actions, known_actions) > 0.5
            logits = ops.where(same, scale * _squared_distances(_centred(poses), first), ops.cast(-1e30, poses.dtype))
            # The first whose cumulative share exceeds the chance; never one behind the last possible.
            shares = ops.cumsum(ops.exp(logits - ops.max(logits, axis=-1, keepdims=True)), axis=-1)
            limit = ops.minimum(chance, 1 - 1e-6)[:, None] * shares[:, -1:]
            movement = ops.take(movements, ops.argmax(shares > limit, axis=-1), axis=0)
            known = ops.any(same, axis=-1)[:, None, None]
            return ops.where(known, movement, ops.zeros_like(movement)), known

        return recall


def _centred(poses):
    """[N, 2J] with the mean of the joints at zero."""
    joints = ops.reshape(poses, (-1, poses.shape[-1] // 2, 2))
    return ops.reshape(joints - ops.mean(joints, axis=1, keepdims=True), (-1, poses.shape[-1]))


def _squared_distances(a, b):
    """[N, D] and [M, D] -> [N, M]."""
    squares = ops.sum(ops.square(a), axis=-1)[:, None] + ops.sum(ops.square(b), axis=-1)
    return ops.maximum(squares - 2 * ops.matmul(a, ops.transpose(b)), 0)
