"""Hyper-parameters of CADDY.

Keys keep the last component of the original's configuration path
(`training.loss_weights.states_rec_lambda` -> `states_rec_lambda`), but for what tfvid
calls the same in every model: `lr`, `sequence_length` (observations_count plus the
history that stacking needs), `context_frames` (ground_truth_observations_init),
`frame_skip` (skip_frames).
"""

import dataclasses
import math
import typing

from keras import ops

from tfvid.hparams import HParams, hp

TRAINERS = ("trainer", "smooth_mi_trainer")
Weights = float | tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class CaddyHParams(HParams):
    """Hyper-parameters of CADDY; the defaults are those of the BAIR configuration."""

    # The networks.
    architecture: str = hp("main", "full model or the smaller one (Breakout)", choices=("main", "reduced"))
    actions_count: int = hp(7, "A, discrete actions to learn", low=1)
    action_space_dimension: int = hp(2, "D, dimension of the space of action directions", low=1)
    observation_stacking: int = hp(1, "S, frames that an observation holds, newest first", low=1)
    state_features: int = hp(64, "F, channels of a state", low=1)
    hidden_state_size: int | None = hp(None, "Hd, channels of the dynamics; null: 128 (main) or 64 (reduced)", low=1)
    encoder_features: tuple[int, ...] | None = hp(None, "first two widths of the encoder; null: F/4, F/2", low=1)
    action_features: int | None = hp(None, "width of the action network; null: 2 F", low=1)
    decoder_features: tuple[int, ...] | None = hp(
        None, "widths of the decoder at quarter, half and full size; null: Hd, Hd/2, Hd/4", low=1
    )

    # The actions.
    use_gumbel: bool = hp(True, "sample actions by Gumbel-softmax; false: their plain probabilities")
    hard_gumbel: bool = hp(False, "one-hot samples with a straight-through gradient")
    use_variations: bool = hp(True, "give the dynamics the variation within the action's cluster")
    direction_noise: float = hp(
        1.0, "not in the original: factor of the noise in states and directions; 0 takes their means, so that a short"
        " training is not drowned in it", low=0,
    )
    standardize_directions: bool = hp(
        False, "batch-normalise the means of the directions, for things that are small in the frame; false, as in the"
        " original"
    )
    centroid_alpha: float = hp(0.1, "share of a batch in the running centroids", low=0, high=1)
    gumbel_temperature_start: float = hp(1.0, "temperature at the first step", low=1e-6)
    gumbel_temperature_end: float = hp(0.4, "temperature after the last step of its schedule", low=1e-6)
    gumbel_temperature_steps: int = hp(20000, "steps from the first to the last temperature", low=1)

    # The phases.
    pretraining_steps: int = hp(1000, "steps in which every state is decoded directly", low=0)
    observations_count_start: int = hp(7, "observations of a clip at the first step", low=2)
    observations_count_steps: int = hp(25000, "steps until all observations of sequence_length are used", low=1)
    ground_truth_observations_start: int = hp(6, "real observations seen at the first step", low=1)
    ground_truth_observations_end: int = hp(6, "real observations seen at the end", low=1)
    ground_truth_observations_steps: int = hp(16000, "steps of that schedule", low=1)

    # The optimiser.
    batch_size: int = hp(8, "clips in a step, over all devices", low=1)
    lr: float = hp(4e-4, "learning rate of Adam", low=0)
    beta1: float = hp(0.9, "decay of Adam's first moment", low=0, high=1)
    beta2: float = hp(0.999, "decay of Adam's second moment", low=0, high=1)
    weight_decay: float = hp(1e-6, "L2 penalty added to the gradient of every weight", low=0)
    lr_schedule: tuple[int, ...] = hp((300000, 10000000000), "steps at which lr is multiplied by lr_gamma", low=0)
    lr_gamma: float = hp(0.3333, "factor of lr at each step of lr_schedule", low=0)

    # The losses.
    trainer: str = hp(
        "smooth_mi_trainer", "mutual information of a running joint distribution, or of the batch alone",
        choices=TRAINERS,
    )
    mutual_information_estimation_alpha: float = hp(
        0.2, "share of a batch in the running joint distribution", low=0, high=1
    )
    action_mutual_information_entropy_lambda: float = hp(1.0, "weight of the entropies in the mutual information")
    reconstruction_loss_lambda: float = hp(1.0, "L1 of the frames at three resolutions", low=0)
    reconstruction_foreground_weight: float = hp(
        0.0, "not in the original: extra weight in that L1 of a pixel for its squared difference to the mean frame",
        low=0,
    )
    perceptual_loss_lambda: Weights = hp(1.0, "VGG features; one weight, or five (total, levels 2 to 5)", low=0)
    states_rec_lambda: float = hp(0.2, "states of generated frames against real ones", low=0)
    entropy_lambda: float = hp(0.0, "entropy of each action's probabilities", low=0)
    action_directions_kl_lambda: float = hp(1e-4, "KL of the directions to a standard normal", low=0)
    action_mutual_information_lambda: float = hp(0.15, "mutual information of real and reconstructed actions", low=0)
    action_state_distribution_kl_lambda: float = hp(0.0, "KL of reconstructed to real state distributions", low=0)
    reconstruction_loss_lambda_pretraining: float = hp(1.0, "the same, in pre-training", low=0)
    perceptual_loss_lambda_pretraining: Weights = hp(1.0, "the same, in pre-training", low=0)
    states_rec_lambda_pretraining: float = hp(0.2, "the same, in pre-training", low=0)
    entropy_lambda_pretraining: float = hp(0.0, "the same, in pre-training", low=0)
    action_directions_kl_lambda_pretraining: float = hp(1e-4, "the same, in pre-training", low=0)
    action_mutual_information_lambda_pretraining: float = hp(0.15, "the same, in pre-training", low=0)
    action_state_distribution_kl_lambda_pretraining: float = hp(0.0, "the same, in pre-training", low=0)
    hidden_states_rec_lambda_pretraining: float = hp(1.0, "hidden states against those of the real states", low=0)
    vgg_weights: str | None = hp(
        None,
        "file of torchvision's VGG-19 (vgg19-*.pth) for the perceptual loss; 'random' takes fixed random"
        " features; needed unless perceptual_loss_lambda is 0",
    )
    vgg_widths: tuple[int, int, int, int, int] = hp((64, 128, 256, 512, 512), "channels of VGG's stages", low=1)

    # Watching.
    collapse_window: int = hp(500, "steps over which the use of actions is averaged before a warning", low=1)

    IGNORED_KEYS: typing.ClassVar[dict] = {
        "embedding_mlp_size": None,
        "random_noise_size": None,
        "input_shape": None,
        "action_divergence_lambda": None,
        "action_divergence_lambda_pretraining": None,
        "action_direction_plotting_freq": None,
        "motion_weights_bias": None,
        "gumbel_temperature": None,
        "use_motion_weights": (False,),  # raises an error in the original, too
        "use_ground_truth_actions": (False,),
        "pretraining_detach": (False,),
        "ensamble_size": (1,),
    }

    @property
    def hidden_size(self):
        """Hd."""
        return self.hidden_state_size or {"main": 128, "reduced": 64}[self.architecture]

    @property
    def encoder_widths(self):
        """First two widths of the encoder."""
        return self.encoder_features or (self.state_features // 4, self.state_features // 2)

    @property
    def action_width(self):
        """Width of the action network."""
        return self.action_features or 2 * self.state_features

    @property
    def decoder_widths(self):
        """Widths of the decoder at a quarter, half and the full size."""
        return self.decoder_features or (self.hidden_size, self.hidden_size // 2, self.hidden_size // 4)

    @property
    def observations_count(self):
        """Observations of a whole training clip: its frames without the stacked history."""
        return self.sequence_length - self.observation_stacking + 1

    @property
    def perceptual(self):
        """Whether any perceptual loss has a weight."""
        both = (self.perceptual_loss_lambda, self.perceptual_loss_lambda_pretraining)
        return any(any(w) if isinstance(w, tuple) else w for w in both)

    def validate(self):
        super().validate()
        for key, count in (("encoder_features", 2), ("decoder_features", 3)):
            value = getattr(self, key)
            self.require(value is None or len(value) == count, key, f"{count} numbers or null")
        for key in ("perceptual_loss_lambda", "perceptual_loss_lambda_pretraining"):
            value = getattr(self, key)
            self.require(not isinstance(value, tuple) or len(value) == 5, key, "one number or five")
        for key in ("state_features", "hidden_state_size"):
            value = getattr(self, key)
            self.require(value is None or value % 4 == 0, key, "a multiple of 4")
        for name in ("gumbel_temperature", "ground_truth_observations"):
            start, end = getattr(self, f"{name}_start"), getattr(self, f"{name}_end")
            self.require(start >= end, f"{name}_start", f"at least {name}_end={end}")
        if self.sequence_length:
            self.require(
                self.observations_count_start <= self.observations_count, "observations_count_start",
                f"at most {self.observations_count} (sequence_length={self.sequence_length} less the"
                f" {self.observation_stacking - 1} frames that observation_stacking takes as history)",
            )

    # Schedules; k is the global step, 1 at the first update.

    def is_pretraining(self, k):
        """Whether update k belongs to the first phase."""
        return k <= self.pretraining_steps

    def observations_at(self, k):
        """T of update k (Python integer)."""
        start, end = self.observations_count_start, self.observations_count
        return min(end, start + (end - start) * k // self.observations_count_steps)

    def ground_truth_at(self, k):
        """G of update k before it is capped to T - 1 (Python integer)."""
        start, end = self.ground_truth_observations_start, self.ground_truth_observations_end
        return max(end, math.ceil(start - (start - end) * k / self.ground_truth_observations_steps))

    def temperature_at(self, k):
        """Temperature of the Gumbel-softmax at update k: a number, or a float tensor where k is one."""
        start, end = self.gumbel_temperature_start, self.gumbel_temperature_end
        value = start - (start - end) * k / self.gumbel_temperature_steps
        return max(value, end) if isinstance(value, float) else ops.maximum(value, end)
