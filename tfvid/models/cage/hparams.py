"""Hyper-parameters of CAGE; the keys are the last parts of the original's YAML paths."""

import dataclasses
import typing

from tfvid.hparams import HParams, hp
from tfvid.models.cage.networks_regressor import GridEmbedding, num_kept
from tfvid.models.cage.networks_vit import DINOV2, MAE
from tfvid.models.cage.networks_vqgan import CONFIGS


@dataclasses.dataclass(frozen=True)
class AutoencoderHParams(HParams):
    """Shape of the autoencoder, the same fields where it is trained and where it is frozen."""

    state_size: int = hp(8, "c, channels of a latent", low=1)
    autoencoder_type: str = hp("ldm-vq", "latent diffusion's VQGAN, or CAGE's own VQVAE", choices=("ldm-vq", "ours"))
    autoencoder_config: str = hp("f16", "shape of the VQGAN", choices=(*CONFIGS, "custom"))
    autoencoder_width: int = hp(32, "channels of the first layer (own VQVAE, custom VQGAN)", low=1)
    autoencoder_groups: int = hp(32, "groups of the norms of the own VQVAE", low=1)
    autoencoder_levels: tuple[int, ...] = hp((1, 1, 1, 2), "widths of the levels of a custom VQGAN", low=1)
    autoencoder_blocks: int = hp(1, "residual blocks a level of a custom VQGAN", low=1)
    autoencoder_resolution: int = hp(64, "nominal resolution of a custom VQGAN", low=1)
    autoencoder_attention: tuple[int, ...] = hp((16,), "nominal resolutions with attention of a custom VQGAN", low=1)
    autoencoder_z_channels: int | None = hp(
        None, "channels before quant_conv of a custom VQGAN; null: state_size", low=1
    )
    num_embeddings: int = hp(8192, "codes of the own VQVAE and of a custom VQGAN", low=1)

    def validate(self):
        super().validate()
        if self.autoencoder_type == "ldm-vq":
            if self.autoencoder_config == "custom":
                self.require(
                    self.autoencoder_width % 32 == 0, "autoencoder_width", "a multiple of the norms' 32 groups"
                )
                self.require(self.autoencoder_levels, "autoencoder_levels", "at least one level")
            else:
                size = CONFIGS[self.autoencoder_config].embed_dim
                self.require(self.state_size == size, "state_size", f"{size}, that of {self.autoencoder_config}")
        else:
            groups = self.autoencoder_groups
            self.require(
                self.autoencoder_width % groups == 0, "autoencoder_width", f"a multiple of autoencoder_groups={groups}"
            )


@dataclasses.dataclass(frozen=True)
class CageAutoencoderHParams(AutoencoderHParams):
    """Fields of `CageAutoencoder`; losses and their weights are those of taming-transformers."""

    batch_size: int = hp(8, "clips in a step, over all devices", low=1)
    max_steps: int = hp(300000, "training steps", low=0)
    frames_per_clip: int = hp(1, "random frames of each clip that a step sees", low=1)
    lr: float = hp(4.5e-6 * 8, "learning rate of both networks", low=0)
    num_warmup_steps: int = hp(0, "steps of linear warm-up", low=0)
    beta1: float = hp(0.5, "decay of Adam's first moment", low=0, high=1)
    beta2: float = hp(0.9, "decay of Adam's second moment", low=0, high=1)
    reconstruction: str = hp("l1", "mean absolute or mean squared error of the frames", choices=("l1", "l2"))
    codebook_weight: float = hp(1.0, "weight of the quantiser's loss", low=0)
    perceptual_weight: float = hp(1.0, "weight of LPIPS (VGG-16); 0: none", low=0)
    perceptual_weights: str | None = hp(
        None, "folder of converted networks; null: the default one; 'random': fixed random features"
    )
    gan_weight: float = hp(0.8, "weight of the adversarial loss, beside the adaptive one; 0: no discriminator", low=0)
    gan_start: int = hp(50000, "step from which the discriminator takes part", low=0)
    adaptive_gan_weight: bool = hp(
        True, "balance the adversarial against the reconstruction loss by their gradients at the last layer"
    )
    ndf: int = hp(64, "channels of the discriminator's first layer", low=1)
    d_layers: int = hp(3, "layers of stride 2 of the discriminator", low=1)


@dataclasses.dataclass(frozen=True)
class CageHParams(AutoencoderHParams):
    """Fields of `Cage`; the defaults are the original's for BAIR at 256 pixels."""

    batch_size: int = hp(16, "clips in a step, over all devices", low=1)
    max_steps: int = hp(100000, "training steps", low=0)
    lr: float = hp(1e-4, "learning rate after the warm-up", low=0)
    end_lr: float = hp(1e-7, "learning rate at the end", low=0)
    num_warmup_steps: int = hp(5000, "steps of linear warm-up; gradients are clipped only after them", low=0)
    num_training_steps: int = hp(100000, "steps after which the learning rate stays at end_lr", low=1)
    lr_power: float = hp(0.5, "power of the decay of the learning rate", low=0)
    beta1: float = hp(0.9, "decay of Adam's first moment", low=0, high=1)
    beta2: float = hp(0.999, "decay of Adam's second moment", low=0, high=1)
    weight_decay: float = hp(5e-6, "decoupled weight decay of every trained weight", low=0)
    max_grad_norm: float = hp(1.0, "norm to which gradients are clipped after the warm-up; 0: never", low=0)
    flow_matching_loss: float = hp(1.0, "weight of the loss", low=0)

    # The training pairs.
    num_target_frames: int = hp(3, "T, frames denoised together", low=1)
    num_context_frames: int = hp(1, "C, earlier frames seen beside the reference", low=1)
    latent_scale: float = hp(
        1.0,
        "factor on the latents. About 1 / latent_std of the autoencoder's validation keeps signal and noise comparable:"
        " the flow learns little of latents far smaller than its noise; 1 as the original",
        low=1e-6,
    )
    sigma: float = hp(1e-7, "width of the flow's end", low=0)
    no_context_p: float = hp(0.5, "probability that a batch trains without context", low=0, high=1)
    no_reference_p: float = hp(0.2, "probability that such a batch trains without reference, too", low=0, high=1)
    feats_select_prob: float = hp(0.1, "share of control features shown in training", low=0, high=1)
    controls_first_steps: int = hp(
        0,
        "first steps that see every control feature and no given frame: attention to controls, which else comes late,"
        " is then learnt within hundreds of steps; 0 as the original",
        low=0,
    )
    no_scale_inv: bool = hp(False, "features of the whole frame instead of random windows")
    same_t: bool = hp(False, "one time for all target frames")
    random_horizontal_flip: bool = hp(False, "mirror half of the training clips")
    aug: bool = hp(False, "change brightness, contrast, saturation and hue of each training clip")

    # The regressor.
    state_res: tuple[int, int] = hp((16, 16), "(h, w) of the latents", low=1, high=GridEmbedding.SIZE)
    inner_dim: int = hp(768, "D, width", low=2)
    depth: int = hp(9, "blocks", low=1)
    mid_depth: int = hp(5, "blocks in the middle that attend to the control features", low=0)
    fc_dim: int = hp(3072, "hidden width of the feed-forward networks", low=1)
    num_heads: int = hp(8, "heads", low=1)
    dropout: float = hp(0.05, "rate of dropout", low=0, high=0.99)
    max_relative_position: int = hp(8, "M, distance of frames beyond which all are alike", low=0)
    masking_ratio: float = hp(0.4, "share of positions left out in training", low=0, high=0.95)
    causal: bool = hp(False, "frames do not see later ones")

    # The frozen networks.
    feature_backbone: str = hp("dino", "network of the control features", choices=("dino", "mae"))
    dino_version: str = hp("dinov2_vitb14", "its published name", choices=(*DINOV2, *MAE, "tiny"))
    num_dino_layers: int = hp(2, "last layers whose features are stacked", low=1)
    vit_shape: tuple[int, int, int, int, int] | None = hp(
        None, "width, depth, heads, patch size and stored grid of another ViT (dino_version=tiny)", low=1
    )
    feature_image_size: int = hp(224, "side to which frames are resized for the ViT", low=1)
    autoencoder_checkpoint: str | None = hp(None, "run folder of cage_autoencoder that gives the frozen autoencoder")
    vit_checkpoint: str | None = hp(None, "file of the ViT (hub or Hugging Face); 'random': fixed random features")

    # Sampling.
    num_steps: int = hp(20, "steps of the ODE solver", low=1)
    odesolver: str = hp("euler", "ODE solver", choices=("euler", "midpoint", "heun", "rk4"))
    method: str = hp("joint", "T frames at a time, or rolling", choices=("joint", "rollout"))
    gamma: float = hp(0.0, "guidance: how far to go beyond the velocity without controls", low=0)
    past_horizon: int = hp(-1, "frames back from which context is drawn; -1: all", low=-1)
    eval_controls: int = hp(
        0, "tiles of each true future frame that evaluation and samples show to the model; 0: none", low=0
    )
    corrected_rollout: bool = hp(
        False, "divide the rolling stage's velocity by T, as its times ask for; the original does not"
    )

    IGNORED_KEYS: typing.ClassVar[dict] = {
        key: None for key in ("condition_frames", "frames_to_generate", "alpha_start", "num_workers", "albumentations")
    }

    def validate(self):
        super().validate()
        self.require(self.inner_dim % self.num_heads == 0, "inner_dim", f"a multiple of num_heads={self.num_heads}")
        self.require(self.inner_dim % 2 == 0, "inner_dim", "an even width: half for the column, half for the row")
        self.require(self.mid_depth <= self.depth, "mid_depth", f"at most depth={self.depth}")
        tiny = self.dino_version == "tiny"
        self.require((self.vit_shape is not None) == tiny, "vit_shape", "a value exactly where dino_version is tiny")
        self.require(
            self.dino_version in (MAE if self.feature_backbone == "mae" else DINOV2) or tiny,
            "dino_version",
            f"a {self.feature_backbone} network",
        )
        self._validate_vit()
        if self.num_training_steps <= self.num_warmup_steps:
            self.require(False, "num_training_steps", f"more than num_warmup_steps={self.num_warmup_steps}")
        positions = self.state_res[0] * self.state_res[1]
        self.require(
            num_kept(positions, self.masking_ratio), "masking_ratio", f"a share that keeps one of {positions} positions"
        )

    def _validate_vit(self):
        width, depth, heads, patch = self.vit
        self.require(self.num_dino_layers <= depth, "num_dino_layers", f"at most the {depth} layers of the network")
        self.require(self.feature_image_size >= patch, "feature_image_size", f"at least a patch of {patch} pixels")
        self.require(width % heads == 0, "vit_shape", f"a width that {heads} heads divide")
        if self.feature_backbone == "mae":
            self.require(width % 4 == 0, "vit_shape", "a width that 4 divides: sines and cosines of columns and rows")

    @property
    def vit(self):
        """(width, depth, heads, patch size) of the vision transformer."""
        if self.vit_shape:
            return self.vit_shape[:4]
        return MAE[self.dino_version] if self.feature_backbone == "mae" else (*DINOV2[self.dino_version], 14)

    @property
    def window(self):
        """Frames that the regressor sees at once."""
        return 1 + self.num_target_frames + self.num_context_frames
