"""CADDY's losses: pure functions of tensors, in their float type.

Section 3 and the appendix of Menapace et al. 2021; where the program differs from the
paper, the program is followed and the docstring says so.
"""

from keras import ops

from tfvid.layers.resize import reduce_bilinear, resize_bilinear
from tfvid.losses.reconstruction import mean_absolute

SMALLEST = 2.220446049250313e-16  # what takes the place of smaller probabilities in a logarithm
MINIMUM_VARIANCE = 0.05
TINY = 1e-30


def real_frames(observations, count):
    """The newest frame of each of the last `count` observations: [B, count, H, W, 3]."""
    return observations[:, observations.shape[1] - count :, ..., :3]


def resize_targets(frames, size):
    """Frames [B, T, H, W, 3] reduced bilinearly to `size` (h, w)."""
    height, width = frames.shape[2:4]
    flat = ops.reshape(frames, (-1, height, width, frames.shape[-1]))
    if height == size[0] and width == size[1]:
        return frames
    factor = height // size[0]
    exact = factor % 2 == 0 and height == factor * size[0] and width == factor * size[1]
    flat = reduce_bilinear(flat, factor) if exact else resize_bilinear(flat, size)
    return ops.reshape(flat, (-1, frames.shape[1], *size, frames.shape[-1]))


def observations_l1(observations, reconstruction):
    """Mean absolute error of reconstructed frames.

    Args:
      observations: [B, T, H, W, 3 S]; the newest frame counts.
      reconstruction: [B, T or T-1, h, w, 3]; of T-1 frames the first stands for time 1.
    """
    target = resize_targets(real_frames(observations, reconstruction.shape[1]), reconstruction.shape[2:4])
    return mean_absolute(target - reconstruction)


def perceptual_components(targets, reconstructions, masks=None):
    """What the perceptual loss weighs: (total, level 1, ..., level 4).

    The original accumulates its total in the tensor of the first level, so that its
    first component is the total: the levels count 1, 2, 2, 2, 2 times in the sum.

    Args:
      targets, reconstructions: the five lists of VGG features [N, h, w, C]; targets get
        no gradient.
      masks: None, or the motion weight [N, h, w, 1] at each level's size.
    """
    levels = []
    for i, (target, value) in enumerate(zip(targets, reconstructions, strict=True)):
        difference = ops.stop_gradient(target) - value
        if masks is None:
            levels.append(mean_absolute(difference))
            continue
        weighted = ops.sum(ops.abs(difference) * masks[i], axis=(1, 2, 3))
        levels.append(ops.mean(weighted / (ops.sum(masks[i], axis=(1, 2, 3)) * difference.shape[-1])))
    return [sum(levels[1:], levels[0]), *levels[1:]]


def motion_weights(observations, reconstruction, bias=0.0):
    """How much each pixel moves, in the real or the reconstructed frames; no gradient.

    Args:
      observations: [B, T, H, W, 3 S].
      reconstruction: [B, T or T-1, H, W, 3]; before T-1 frames stands the first real one.
      bias: added to every weight.

    Returns:
      [B, T, H, W, 1]; 1 at the first frame.
    """
    real = observations[..., :3]
    if reconstruction.shape[1] < real.shape[1]:
        reconstruction = ops.concatenate([real[:, :1], reconstruction], axis=1)
    moves = [ops.abs(x[:, 1:] - x[:, :-1]) for x in (real, reconstruction)]
    weights = ops.sum(moves[0] + moves[1], axis=-1, keepdims=True) + bias
    return ops.stop_gradient(ops.concatenate([ops.ones_like(weights[:, :1]), weights], axis=1))


def foreground(observations, count):
    """Squared difference of each pixel of the last `count` real frames to the batch's mean frame; no gradient.

    Args:
      observations: [B, T, H, W, 3 S].

    Returns:
      [B, count, H, W, 1], summed over the channels.
    """
    background = ops.mean(observations[..., :3], axis=(0, 1))
    differences = ops.square(real_frames(observations, count) - background)
    return ops.stop_gradient(ops.sum(differences, axis=-1, keepdims=True))


def states_mse(states, reconstructed):
    """Mean squared error of states; the real ones get no gradient."""
    return ops.mean(ops.square(ops.stop_gradient(states) - reconstructed))


def hidden_states_mse(hidden, reference):
    """Mean squared error of the dynamics' output [B, T-1, ...] and the last T-1 of `reference` (no gradient)."""
    return ops.mean(ops.square(hidden - ops.stop_gradient(reference[:, reference.shape[1] - hidden.shape[1] :])))


def entropy(probabilities):
    """Mean entropy in nats of distributions [..., A]."""
    return -ops.mean(ops.sum(probabilities * ops.log(ops.maximum(probabilities, SMALLEST)), axis=-1))


def entropy_of_logits(logits):
    """Mean entropy in nats of softmax(logits) [..., A]."""
    return -ops.mean(ops.sum(ops.softmax(logits, axis=-1) * ops.log_softmax(logits, axis=-1), axis=-1))


def directions_kl(mean, variance):
    """Mean KL divergence of N(mean, variance) [..., D] to the standard normal."""
    # The floor changes no variance that occurs; an exact 0 would make the loss infinite.
    terms = 1 + ops.log(ops.maximum(variance, TINY)) - ops.square(mean) - variance
    return -0.5 * ops.mean(ops.sum(terms, axis=-1))


def states_distribution_kl(mean, variance, reference_mean, reference_variance):
    """Mean KL divergence of N(mean, variance) to N(reference_mean, reference_variance), [..., D].

    Variances get no gradient. The logarithms take them as they are, the ratios at least
    0.05, as in the original, so that the value is a divergence only above that.
    """
    variance, reference_variance = ops.stop_gradient(variance), ops.stop_gradient(reference_variance)
    logarithms = ops.log(ops.maximum(reference_variance, TINY)) - ops.log(ops.maximum(variance, TINY))
    variance = ops.maximum(variance, MINIMUM_VARIANCE)
    reference_variance = ops.maximum(reference_variance, MINIMUM_VARIANCE)
    squared = ops.square(reference_mean - mean)
    terms = logarithms - 1 + variance / reference_variance + squared / reference_variance
    return 0.5 * ops.mean(ops.sum(terms, axis=-1))


def joint_matrix(p, q, reduce_sum=lambda x: x):
    """The symmetric joint distribution [A, A] of two sets of probabilities [..., A].

    Args:
      p, q: probabilities of real and reconstructed actions, in the same order.
      reduce_sum: sums a tensor over replicas.
    """
    count = p.shape[-1]
    flat_p, flat_q = ops.reshape(p, (-1, count)), ops.reshape(q, (-1, count))
    joint = reduce_sum(ops.matmul(ops.transpose(flat_p), flat_q))
    joint = (joint + ops.transpose(joint)) / 2
    return joint / ops.sum(joint)


def mutual_information_loss(joint, entropy_weight=1.0):
    """The negative mutual information of a joint distribution [A, A].

    -sum_ij P_ij (log P_ij - w log P_i - w log P_j); entries and marginals below 2.2e-16
    are replaced by it and get no gradient.
    """

    def clamped(x):
        return ops.where(x < SMALLEST, ops.full_like(x, SMALLEST), x)

    rows = clamped(ops.sum(joint, axis=1, keepdims=True))
    columns = clamped(ops.sum(joint, axis=0, keepdims=True))
    joint = clamped(joint)
    logs = ops.log(joint) - entropy_weight * ops.log(rows) - entropy_weight * ops.log(columns)
    return -ops.sum(joint * logs)


def smooth_joint(running, joint, alpha):
    """The running joint distribution with a share `alpha` of the batch's; gradient through the batch alone."""
    return (1 - alpha) * ops.stop_gradient(running) + alpha * joint


def stored_joint(joint):
    """What becomes of a smoothed joint distribution in the running one: no gradient, nothing below 2.2e-16."""
    return ops.stop_gradient(ops.maximum(joint, SMALLEST))
