"""Losses of ACT-VAE and of its pose-to-image stage; pure functions."""

from keras import ops

from tfvid.losses.reconstruction import l1_loss


def alignments(horizon, shifted=True, count=3):
    """Indices of the true frame that each step of each rollout is compared with.

    The original trains three rollouts on the same clip: one as it is, one that skips the
    last-but-one target, one that starts a frame later. The steps are from 0, the first
    target; the shifted forms need `horizon + 1` targets.

    Args:
      shifted: False compares all `count` rollouts with the clip as it is.
    """
    plain = list(range(horizon))
    if not shifted:
        return [plain] * count
    return [plain, [*range(horizon - 1), horizon], list(range(1, horizon + 1))]


def pose_reconstruction(rollouts, targets, indices):
    """[mean absolute error of each rollout].

    Args:
      rollouts: [R, B, horizon, 2J].
      targets: [B, T, 2J].
      indices: R lists of `horizon` indices into T.
    """
    return [l1_loss(rollouts[r], ops.take(targets, index, axis=1)) for r, index in enumerate(indices)]


def best_reconstruction(rollouts, targets):
    """Mean absolute error of each clip's best rollout, the mean over the clips.

    Args:
      rollouts: [R, B, horizon, 2J].
      targets: [B, horizon, 2J].
    """
    return ops.mean(ops.min(ops.mean(ops.abs(rollouts - targets), axis=(2, 3)), axis=0))


def pairwise_distance(rollouts):
    """Sum over all pairs of rollouts of their mean absolute difference.

    The errors of R rollouts, summed, less 1 / (R - 1) of it are R times the energy score of
    each coordinate (Gneiting and Raftery, 2007), which the true distribution minimises.

    Args:
      rollouts: [R, B, horizon, 2J].
    """
    count = rollouts.shape[0]
    return sum(l1_loss(rollouts[i], rollouts[j]) for i in range(count) for j in range(i))


def gaussian_divergence(mean, log_variance):
    """Divergence of N(mean, exp(log_variance)) from N(0, 1), SUMMED over all elements, the batch too."""
    return -0.5 * ops.sum(1 + log_variance - ops.square(mean) - ops.exp(log_variance))


def foreground_l1(predicted, target, mask, foreground_weight):
    """Mean absolute error in which the pixels of the person count (1 + foreground_weight) times.

    Args:
      predicted, target: [N, H, W, C].
      mask: [N, H, W, 1], 1 on the person.
    """
    return ops.mean((1 + foreground_weight * mask) * ops.abs(predicted - target))


def perceptual_l1(features, targets, weights):
    """Weighted sum of the mean absolute differences of feature maps; `targets` get no gradient."""
    return sum(w * l1_loss(f, ops.stop_gradient(t)) for f, t, w in zip(features, targets, weights, strict=True))


def feature_matching(fake, real):
    """[mean absolute difference of each discriminator feature]."""
    return [l1_loss(f, r) for f, r in zip(fake, real, strict=True)]
