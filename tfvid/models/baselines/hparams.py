"""Hyper-parameters of the baselines: names and defaults of the original project's models."""

import dataclasses
import typing

from tfvid.hparams import HParams, hp
from tfvid.models.trainable_hparams import (
    ADVERSARIAL_KEYS,
    LATENT_KEYS,
    OLD_KEYS,
    LatentHParams,
    TrainableHParams,
)


class _Recurrent:
    """Checks that the recurrent baselines share."""

    def validate(self):
        super().validate()
        self.require(
            self.l1_weight or self.l2_weight,
            "l2_weight",
            "l1_weight or l2_weight > 0: a model needs a loss of its frames",
        )
        k = self.schedule_sampling_k
        self.require(k > 0 or k == -1, "schedule_sampling_k", "a value > 0, or -1 for never")
        if self.transformation == "dna":
            self.require(self.num_masks == 1, "num_masks", "1 with transformation=dna, which has one kernel a pixel")


@dataclasses.dataclass(frozen=True)
class SNAHParams(_Recurrent, TrainableHParams):
    """Skip-connection Neural Advection (Ebert et al., 2017)."""

    batch_size: int = hp(32, "clips in a step, over all devices", low=1)
    ngf: int = hp(16, "channels of the first recurrent layer", low=1)
    transformation: str = hp("cdna", "warps: one kernel a frame, or one a pixel", choices=("cdna", "dna"))
    kernel_size: tuple[int, int] = hp((5, 5), "height and width of the kernels", low=1)
    num_masks: int = hp(10, "warps of the last frame; 1 with dna", low=1)
    first_image_background: bool = hp(True, "the first frame is a candidate; False: the last one")
    generate_scratch_image: bool = hp(True, "a synthesised frame is a candidate, with cdna")
    schedule_sampling_k: float = hp(900.0, "time scale of the feeding of true frames, in steps; -1: never", low=-1)

    IGNORED_KEYS: typing.ClassVar[dict] = {**OLD_KEYS, **ADVERSARIAL_KEYS, **LATENT_KEYS}


@dataclasses.dataclass(frozen=True)
class SV2PHParams(_Recurrent, LatentHParams):
    """Stochastic Variational Video Prediction (Babaeizadeh et al., 2018)."""

    batch_size: int = hp(32, "clips in a step, over all devices", low=1)
    max_steps: int = hp(200000, "training steps", low=0)
    decay_steps: tuple[int, int] = hp((0, 0), "first and last step of the linear decay; both 0: none", low=0)
    kl_weight: float = hp(0.08, "weight of the divergence from the prior, after annealing", low=0)
    kl_anneal_steps: tuple[int, int] = hp((100000, 120000), "first and last step of the linear growth", low=0)
    transformation: str = hp("cdna", "warps: one 5x5 kernel a frame, or one a pixel", choices=("cdna", "dna"))
    num_masks: int = hp(10, "kernels; all but the last warp the last frame; 1 with dna", low=1)
    schedule_sampling_k: float = hp(900.0, "time scale of the feeding of true frames, in steps; -1: never", low=-1)
    stochastic_model: bool = hp(True, "latents; False: a deterministic model")
    multi_latent: bool = hp(False, "a fresh latent for each step (time-variant); False: one for the clip")
    latent_std_min: float = hp(-5.0, "added to the posterior's log variance, which a ReLU keeps from falling below it")
    latent_channels: int = hp(1, "channels of the latent map", low=1)
    num_iterations_1st_stage: int = hp(50000, "steps before the posterior's samples are used", low=0)

    IGNORED_KEYS: typing.ClassVar[dict] = {**OLD_KEYS, **ADVERSARIAL_KEYS}


@dataclasses.dataclass(frozen=True)
class DNAHParams(_Recurrent, TrainableHParams):
    """Convolutional dynamic neural advection (Finn et al., 2016)."""

    batch_size: int = hp(32, "clips in a step, over all devices", low=1)
    transformation: str = hp(
        "cdna", "warps: one kernel a frame (the original's other choices crash)", choices=("cdna",)
    )
    kernel_size: tuple[int, int] = hp((9, 9), "height and width of the kernels", low=1)
    num_masks: int = hp(10, "kernels; all but the last warp the last frame", low=1)
    schedule_sampling_k: float = hp(900.0, "time scale of the feeding of true frames, in steps; -1: never", low=-1)

    IGNORED_KEYS: typing.ClassVar[dict] = {**OLD_KEYS, **ADVERSARIAL_KEYS, **LATENT_KEYS}


@dataclasses.dataclass(frozen=True)
class RepeatHParams(HParams):
    """The last context frame, repeated: nothing to train."""

    max_steps: int = hp(0, "training steps: there is nothing to train", low=0)

    IGNORED_KEYS: typing.ClassVar[dict] = {"repeat": None}
