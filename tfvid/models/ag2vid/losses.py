"""Losses of AG2Vid (specification section 3; Bar et al. 2021, section 3.4)."""

from keras import ops

from tfvid.losses.reconstruction import mean_absolute

# Weights of the five VGG-19 levels (pix2pixHD).
VGG_WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)


def adversarial(scores, real, mode, for_generator=False):
    """Mean over the scores of one scale.

    Args:
      scores: any shape.
      real: what they are to be taken for.
      mode: "hinge", "ls", "original" (cross-entropy of logits) or "w".
      for_generator: the generator's form of the hinge loss, -mean(scores).
    """
    if mode == "hinge":
        if for_generator:
            return -ops.mean(scores)
        return ops.mean(ops.maximum(0.0, 1 - scores if real else 1 + scores))
    if mode == "ls":
        return ops.mean(ops.square(scores - (1.0 if real else 0.0)))
    if mode == "original":
        return ops.mean(ops.softplus(-scores if real else scores))
    if mode == "w":
        return -ops.mean(scores) if real else ops.mean(scores)
    raise ValueError(f"expected hinge, ls, original or w. Received: mode={mode!r}")


def multiscale_adversarial(scores, real, mode, for_generator=False):
    """Mean over scales; `scores` is a list over scales."""
    losses = [adversarial(s, real, mode, for_generator) for s in scores]
    return sum(losses[1:], losses[0]) / len(losses)


def feature_matching(fake, real):
    """Sum over scales and layers but the last of mean |fake - real| / number of scales; no gradient to `real`."""
    total = 0.0
    for fake_features, real_features in zip(fake, real):
        for f, r in zip(fake_features[:-1], real_features[:-1]):
            total = total + mean_absolute(f - ops.stop_gradient(r))
    return total / len(fake)


def perceptual(fake, real):
    """Weighted mean |difference| of the five VGG-19 levels; no gradient to `real`."""
    terms = [w * mean_absolute(f - ops.stop_gradient(r)) for w, f, r in zip(VGG_WEIGHTS, fake, real)]
    return sum(terms[1:], terms[0])


def box_loss(predicted, boxes, objects, masked_mean=False):
    """Smooth L1 distance (beta 1) of boxes after the first frame.

    Args:
      predicted, boxes: [B, T, O, 4].
      objects: [B, O, A]; the image node and padding have attributes that sum to zero.
      masked_mean: divide by the number of real elements; the original divides by all,
        so that its scale hangs on the padding.
    """
    difference = ops.abs(predicted[:, 1:] - boxes[:, 1:])
    loss = ops.where(difference < 1, 0.5 * ops.square(difference), difference - 0.5)
    mask = ops.cast(ops.not_equal(ops.sum(objects, axis=-1), 0), loss.dtype)[:, None, :, None]
    mask = ops.broadcast_to(mask, ops.shape(loss))
    if masked_mean:
        return ops.sum(loss * mask) / ops.maximum(ops.sum(mask), 1)
    return ops.mean(loss * mask)
