"""Hyper-parameters that SAVP and its trained baselines share, and the schedules they describe.

Names and defaults are those of the original project (alexlee-gk/video_prediction,
`TrainableVideoPredictionModel`), so that its `model_hparams.json` files load unchanged.
"""

import dataclasses
import typing

import tensorflow as tf

from tfvid.hparams import HParams, hp
from tfvid.models import schedules

# Keys that the original drops silently (its models before 2019), and keys without any effect.
_DROPPED_GAN_WEIGHTS = tuple(
    f"{kind}{form}_weight" for kind in ("acvideo_", "image_", "tuple_", "video_", "") for form in ("gan", "vae_gan")
)
_DROPPED = ("num_gpus", "e_net", "d_conditional", "d_downsample_layer", "d_net", "d_use_gt_inputs")

OLD_KEYS = {
    "repeat": None,
    "z_l1_weight": None,
    **dict.fromkeys(_DROPPED + _DROPPED_GAN_WEIGHTS),
    # The original crashes with any other value than 0.
    "vgg_cdist_weight": (0,),
    "feature_l2_weight": (0,),
    "ae_l2_weight": (0,),
}

# What only a model with discriminators or flows can honour: harmless while it is off.
ADVERSARIAL_KEYS = {
    "clip_length": None,
    "gan_loss_type": None,
    "joint_gan_optimization": None,
    "tv_weight": (0,),
    **{f"{kind}_sn_{form}_weight": (0,) for kind in ("image", "images", "video") for form in ("gan", "vae_gan")},
    **{f"{form}_feature_{norm}_weight": (0,) for form in ("gan", "vae_gan") for norm in ("l2", "cdist")},
}

# What only a model with latents can honour.
LATENT_KEYS = {"kl_weight": (0,), "kl_anneal": None, "kl_anneal_k": None, "kl_anneal_steps": None}


@dataclasses.dataclass(frozen=True)
class TrainableHParams(HParams):
    """What every trained model of the SAVP family has."""

    lr: float = hp(0.001, "learning rate", low=0)
    end_lr: float = hp(0.0, "learning rate at the end of the linear decay", low=0)
    decay_steps: tuple[int, int] = hp((200000, 300000), "first and last step of the linear decay; both 0: none", low=0)
    lr_boundaries: tuple[int, ...] = hp((0,), "the rate falls tenfold after each of these steps; 0: none", low=0)
    beta1: float = hp(0.9, "Adam's first moment", low=0, high=1)
    beta2: float = hp(0.999, "Adam's second moment", low=0, high=1)
    l1_weight: float = hp(0.0, "weight of the mean absolute error of the frames", low=0)
    l2_weight: float = hp(1.0, "weight of the mean squared error of the frames", low=0)
    state_weight: float = hp(0.0, "weight of the mean squared error of the states", low=0)

    IGNORED_KEYS: typing.ClassVar[dict] = OLD_KEYS

    def validate(self):
        super().validate()
        self.require(self.beta1 < 1 and self.beta2 < 1, "beta1" if self.beta1 >= 1 else "beta2", "a value < 1")
        start, end = self.decay_steps
        self.require(start <= end, "decay_steps", "[first, last] with first <= last")
        boundaries = self.lr_boundaries
        self.require(list(boundaries) == sorted(boundaries), "lr_boundaries", "steps in rising order")

    def learning_rate(self, step):
        """The rate of the update that follows `step` finished ones, a scalar tensor."""
        if any(self.lr_boundaries):
            return self.lr * schedules.piecewise(step, self.lr_boundaries, 0.1)
        if any(self.decay_steps):
            return self.lr + (self.end_lr - self.lr) * schedules.linear_ramp(step, *self.decay_steps)
        return tf.constant(self.lr)


@dataclasses.dataclass(frozen=True)
class LatentHParams(TrainableHParams):
    """What the models with a latent code have besides."""

    kl_weight: float = hp(0.0, "weight of the divergence from the prior, after annealing", low=0)
    kl_anneal: str = hp("linear", "how the weight grows", choices=("none", "linear", "sigmoid"))
    kl_anneal_k: float = hp(-1.0, "time scale of the sigmoid, in steps; must be set for it")
    kl_anneal_steps: tuple[int, int] = hp((50000, 100000), "first and last step of the linear growth", low=0)

    def validate(self):
        super().validate()
        if not self.kl_weight:
            return
        if self.kl_anneal == "linear":
            start, end = self.kl_anneal_steps
            self.require(start < end, "kl_anneal_steps", "[first, last] with first < last")
        if self.kl_anneal == "sigmoid":
            self.require(self.kl_anneal_k > 0, "kl_anneal_k", "a value > 0 with kl_anneal=sigmoid")

    def annealed_kl_weight(self, step):
        """The weight at the update that follows `step` finished ones, a scalar tensor."""
        if self.kl_anneal == "none":
            return tf.constant(self.kl_weight)
        if self.kl_anneal == "linear":
            return self.kl_weight * schedules.linear_ramp(step, *self.kl_anneal_steps)
        k = self.kl_anneal_k
        return self.kl_weight / (1 + k * tf.exp(-tf.cast(step, "float32") / k))
