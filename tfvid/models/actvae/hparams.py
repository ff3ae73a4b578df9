"""Hyper-parameters of ACT-VAE and of its pose-to-image stage.

Defaults are the original's (its Penn configuration and what is fixed in its code).
"""

import dataclasses

from tfvid.hparams import HParams, hp

# Penn Action: head, then left and right of shoulders, elbows, wrists, hips, knees, ankles.
PENN_FLIP = (0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11)


@dataclasses.dataclass(frozen=True)
class PoseHParams(HParams):
    """What describes the pose network; the pose-to-image stage holds a frozen one."""

    batch_size: int = hp(24, "clips in a step, over all devices", low=1)
    num_joints: int = hp(13, "joints of a pose", low=1)
    num_actions: int = hp(9, "action classes", low=1)
    latent_dim: int = hp(512, "size of the latent code", low=1)
    horizon: int = hp(4, "poses that a rollout is trained to generate", low=1)
    pose_head: str = hp(
        "hidden", "pose = the decoder's hidden state (original), or source pose + linear map of it",
        choices=("hidden", "residual"),
    )
    decoder_units: int = hp(256, "LSTM units of the decoder with pose_head=residual", low=1)
    frame_step_conditioning: bool = hp(False, "tell the networks how many video frames lie between two poses")
    neighbour_clips: int = hp(
        0, "training clips that the model keeps, their mirror images too where flip_probability is above 0; a sample is"
        " then mixed with the movement of one that begins in a similar pose; 0: none", low=0,
    )
    neighbour_bandwidth: float = hp(
        3.0, "pixels by which a joint of such a pose differs, typically (Gaussian kernel)", low=1e-6
    )
    neighbour_weight: float = hp(0.3, "share of that movement that a sample takes over, with neighbour_clips", low=0)
    decoder_weight: float = hp(0.5, "what the decoder's movement counts beside it, with neighbour_clips", low=0)
    image_size: int = hp(128, "side in pixels of the square that pose coordinates refer to", low=1)

    lr: float = hp(2e-4, "learning rate", low=0)
    beta1: float = hp(0.5, "Adam's first moment", low=0, high=1)
    beta2: float = hp(0.999, "Adam's second moment", low=0, high=1)
    weight_decay: float = hp(1e-4, "L2 decay added to the gradient", low=0)
    lr_step_size: int = hp(100000, "steps after which the learning rate is multiplied by lr_gamma", low=1)
    lr_gamma: float = hp(0.5, "factor of the learning rate", low=0, high=1)

    def validate(self):
        super().validate()
        for key in ("beta1", "beta2"):
            self.require(getattr(self, key) < 1, key, "a value < 1")
        if self.context_frames is not None:
            self.require(self.context_frames == 1, "context_frames", "1, the source frame")
        if self.sequence_length:  # 0, all that there are, is checked once it is known
            self.require(
                self.sequence_length >= 1 + self.targets, "sequence_length",
                f"at least {1 + self.targets}: the source and {self.targets} targets for horizon={self.horizon}",
            )

    def check_labels(self, labels):
        count = len(labels.get("action_class", ()))
        self.require(count <= self.num_actions, "num_actions", f"at least {count}, the data's")

    @property
    def targets(self):
        """Frames after the source that a training step uses."""
        return self.horizon + 1


@dataclasses.dataclass(frozen=True)
class ActVAEHParams(PoseHParams):
    """Of `actvae`."""

    max_steps: int = hp(20000, "training steps", low=0)
    recon_weight: float = hp(200.0, "weight of the mean absolute error of each of the three rollouts", low=0)
    kl_weight: float = hp(0.002, "weight of the divergence of the latent codes, summed over the batch too", low=0)
    kl_per_sample: bool = hp(False, "mean of the divergence over the batch; kl_weight 0.048 then is 0.002 at batch 24")
    shifted_targets: bool = hp(True, "train two of the three rollouts on shifted frames, as the original does")
    rollouts: int = hp(3, "rollouts of each clip in a step; the original's shifted targets need 3", low=1)
    best_weight: float = hp(
        0.0, "what the error of each clip's best rollout counts beside the mean of all; keeps the rollouts apart where"
        " the future is open", low=0,
    )
    diversity_weight: float = hp(
        0.0, "what the distance between rollouts counts against their error; 1: the energy score (calibrated spread)",
        low=0,
    )
    jitter_scale: float = hp(0.0, "training poses are scaled by up to this share, about the centre", low=0, high=0.9)
    jitter_rotation: float = hp(0.0, "training poses are turned by up to so many degrees", low=0, high=180)
    jitter_shift: float = hp(0.0, "training poses are shifted by up to so many pixels", low=0)
    flip_probability: float = hp(0.0, "share of training clips that are mirrored, joints swapped", low=0, high=1)
    flip_joints: tuple[int, ...] = hp(PENN_FLIP, "the joint that takes each joint's place in a mirrored pose", low=0)
    eval_samples: int = hp(5, "rollouts a clip in validation", low=1)

    def validate(self):
        super().validate()
        self.require(self.rollouts == 3 or not self.shifted_targets, "rollouts", "3, as shifted_targets is true")
        for key in ("best_weight", "diversity_weight"):
            self.require(not (getattr(self, key) and self.shifted_targets), key, "0, as shifted_targets is true")
        self.require(self.rollouts > 1 or not self.diversity_weight, "rollouts", "2 at least, as diversity_weight is above 0")
        if self.flip_probability:
            self.require(
                sorted(self.flip_joints) == list(range(self.num_joints)), "flip_joints",
                f"each of 0..{self.num_joints - 1} once",
            )

    @property
    def targets(self):
        return self.horizon + 1 if self.shifted_targets else self.horizon


@dataclasses.dataclass(frozen=True)
class ActVAEP2IHParams(PoseHParams):
    """Of `actvae_p2i`; the first block must be that of the frozen `actvae`."""

    max_steps: int = hp(300000, "training steps", low=0)
    pose_checkpoint: str | None = hp(None, "run folder of the actvae that generates the poses")
    ngf: int = hp(64, "channels of the generator's first layer", low=1)
    g_blocks: int = hp(9, "attention blocks of the generator", low=1)
    ndf: int = hp(64, "channels of the discriminator's first layer", low=1)
    d_blocks: int = hp(3, "residual blocks of the discriminator", low=0)
    recon_weight: float = hp(30.0, "weight of the mean absolute error of the frame", low=0)
    foreground_weight: float = hp(10.0, "what the person's pixels count more in it", low=0)
    gan_weight: float = hp(5.0, "weight of the adversarial losses", low=0)
    feature_weight: float = hp(1.0, "weight of the discriminator's features", low=0)
    vgg_weight: float = hp(5.0, "weight of the VGG-19 features; 0: no VGG", low=0)
    vgg_weights: str | None = hp(
        None, "file of torchvision's VGG-19; 'random' takes fixed random features; needed unless vgg_weight is 0"
    )
    vgg_preprocess: str = hp(
        "none", "what VGG is fed with: frames in [-1, 1] (original), or normalised as it was trained",
        choices=("none", "imagenet"),
    )
    vgg_widths: tuple[int, int, int, int, int] = hp(
        (64, 128, 256, 512, 512), "channels of VGG's stages; other values are for tests", low=1
    )

    def validate(self):
        super().validate()
        for key in ("crop_size", "random_crop_size"):
            self.require(not getattr(self, key), key, "0, as poses refer to whole frames")
