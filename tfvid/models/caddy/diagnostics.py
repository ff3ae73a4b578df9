"""Watching for what users of CADDY suffer from: actions that collapse into one."""

import math

import numpy as np

# A run is said to have collapsed where one action is used more often than this share of
# all steps, or where real and reconstructed actions share less than this part of the
# most that they could.
DOMINANT = 0.95
INFORMATION = 0.02


class CollapseMonitor:
    """Says, from time to time, whether the learnt actions have collapsed.

    Args:
      hparams: CaddyHParams; looked at every `collapse_window` steps once
        `pretraining_steps` and one window are over.
    """

    def __init__(self, hparams):
        self._window, self._first = hparams.collapse_window, hparams.pretraining_steps + hparams.collapse_window
        self._count = hparams.actions_count
        self._plain = hparams.action_mutual_information_entropy_lambda == 1

    def due(self, step):
        """Whether to look after `step` updates."""
        return self._count > 1 and step >= self._first and step % self._window == 0

    def message(self, step, usage, information_loss, distance):
        """One line of warning, or None.

        Args:
          step: finished updates.
          usage: [A], share of each action over the last window.
          information_loss: the negative mutual information.
          distance: mean distance of the centroids.
        """
        usage = np.asarray(usage)
        reasons = []
        if usage.max() > DOMINANT:
            reasons.append(f"action {usage.argmax()} takes {usage.max():.0%} of all steps")
        most = math.log(self._count)
        if self._plain and -information_loss < INFORMATION * most:
            reasons.append(
                f"real and reconstructed actions share {-information_loss:.4f} of at most {most:.2f} nats"
            )
        if not reasons:
            return None
        histogram = " ".join(f"{share:.2f}" for share in usage)
        return (
            f"step {step}: the actions have collapsed: {'; '.join(reasons)} (usage {histogram}, distance of the"
            f" centroids {distance:.3g}). A larger action_mutual_information_lambda or"
            " action_directions_kl_lambda, or a longer pretraining, may help"
        )
