"""Adversarial losses: pure functions of logits."""

from math import log

from keras import ops

from tfvid.errors import UserError
from tfvid.layers.bound import wide


def gan_loss(logits, label, kind):
    """How far `logits` are from saying `label`, averaged.

    Args:
      logits: any shape.
      label: 1 for real, 0 for generated; "GAN" and "LSGAN" take numbers between, too.
      kind: "LSGAN" mean (logit - label)^2; "GAN" mean cross-entropy of sigmoid(logit),
        less the entropy of the label itself; "SNGAN" mean softplus(-+logit).
    """
    logits = wide(logits)
    if kind == "LSGAN":
        return ops.mean(ops.square(logits - label))
    if kind == "GAN":
        return ops.mean(ops.softplus(logits) - label * logits) - _entropy(label)
    if kind == "SNGAN":
        if label not in (0, 1):
            raise UserError(f"gan_loss: expected label 0 or 1 with SNGAN. Received: label={label!r}")
        return ops.mean(ops.softplus(-logits if label else logits))
    raise UserError(f"gan_loss: expected GAN, LSGAN or SNGAN. Received: kind={kind!r}")


def _entropy(label):
    return 0.0 if label in (0, 1) else -(label * log(label) + (1 - label) * log(1 - label))
