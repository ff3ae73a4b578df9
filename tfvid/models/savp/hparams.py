"""Hyper-parameters of SAVP: names and defaults of the original's `SAVPVideoPredictionModel`."""

import dataclasses
import typing

import tensorflow as tf

from tfvid.hparams import hp
from tfvid.models import schedules
from tfvid.models.trainable_hparams import OLD_KEYS, LatentHParams

KINDS = ("image_sn", "images_sn", "video_sn")


@dataclasses.dataclass(frozen=True)
class SAVPHParams(LatentHParams):
    """SAVP and its ablations: VAE, GAN and deterministic models are SAVP with weights of 0.

    Source: Lee et al., "Stochastic Adversarial Video Prediction" (2018);
    alexlee-gk/video_prediction, video_prediction/models/{base_model,savp_model}.py.
    """

    # Losses.
    l1_weight: float = hp(1.0, "weight of the mean absolute error of the frames", low=0)
    l2_weight: float = hp(0.0, "weight of the mean squared error of the frames", low=0)
    tv_weight: float = hp(0.0, "weight of the total variation of the flows; needs transformation=flow", low=0)
    image_sn_gan_weight: float = hp(0.0, "GAN on single frames, prior rollout", low=0)
    image_sn_vae_gan_weight: float = hp(0.0, "GAN on single frames, posterior rollout", low=0)
    images_sn_gan_weight: float = hp(0.0, "GAN on each frame of a clip, prior rollout", low=0)
    images_sn_vae_gan_weight: float = hp(0.0, "GAN on each frame of a clip, posterior rollout", low=0)
    video_sn_gan_weight: float = hp(0.0, "GAN on clips, prior rollout", low=0)
    video_sn_vae_gan_weight: float = hp(0.0, "GAN on clips, posterior rollout", low=0)
    gan_feature_l2_weight: float = hp(0.0, "squared error of discriminator features, prior rollout", low=0)
    gan_feature_cdist_weight: float = hp(0.0, "cosine distance of discriminator features, prior rollout", low=0)
    vae_gan_feature_l2_weight: float = hp(0.0, "squared error of discriminator features, posterior rollout", low=0)
    vae_gan_feature_cdist_weight: float = hp(0.0, "cosine distance of features, posterior rollout", low=0)
    gan_loss_type: str = hp("LSGAN", "form of the adversarial losses", choices=("GAN", "LSGAN", "SNGAN"))
    joint_gan_optimization: bool = hp(
        False, "both optimisers step on the losses before either update; False: the discriminators step first"
    )
    loss_on_future_only: bool = hp(
        False, "losses and clips leave out the predictions of context frames, as the programs of the paper did"
    )
    share_clip_offsets: bool = hp(
        False, "real and generated clips start at the same frame; False: each at its own random frame"
    )

    # Discriminators.
    ndf: int = hp(32, "channels of the first discriminator layer", low=1)
    clip_length: int = hp(10, "frames of the clips that the images and video discriminators see", low=1)
    use_same_discriminator: bool = hp(False, "one set of discriminators judges both rollouts")

    # Latents.
    nz: int = hp(8, "size of the latent of a step; 0: a deterministic model", low=0)
    nef: int = hp(64, "channels of the first encoder layer", low=1)
    n_layers: int = hp(3, "convolutions of the encoder", low=1)
    use_e_rnn: bool = hp(False, "recurrent layer after the encoder's convolutions")
    learn_prior: bool = hp(False, "learnt prior of the latents; False: standard normal")
    num_samples: int = hp(8, "samples of each clip shown in TensorBoard", low=1)

    # Generator.
    ngf: int = hp(32, "channels of the generator's first layer", low=1)
    norm_layer: str = hp(
        "instance",
        "norm of generator and encoder; batch: the original's, which only ever uses the initial statistics",
        choices=("instance", "layer", "batch", "none"),
    )
    activation_layer: str = hp("relu", "activation of the generator", choices=("relu", "elu"))
    downsample_layer: str = hp(
        "conv_pool2d", "strided convolution, or convolution and mean pooling",
        choices=("conv2d", "conv_pool2d", "conv_pool2d_v2"),
    )
    upsample_layer: str = hp(
        "upsample_conv2d", "transposed convolution, or bilinear up-sampling and convolution",
        choices=("deconv2d", "upsample_conv2d", "upsample_conv2d_v2"),
    )
    transformation: str = hp(
        "cdna", "warps: one kernel a frame, one kernel a pixel, or a flow field", choices=("cdna", "dna", "flow")
    )
    kernel_size: tuple[int, int] = hp((5, 5), "height and width of the cdna and dna kernels", low=1)
    num_transformed_images: int = hp(4, "warps of each of the last frames; 0: no warps", low=0)
    last_frames: int = hp(1, "how many of the last frames are warped", low=1)
    prev_image_background: bool = hp(True, "the last frame is a candidate")
    first_image_background: bool = hp(True, "the first frame is a candidate")
    last_image_background: bool = hp(False, "the last context frame is a candidate, within the context too")
    last_context_image_background: bool = hp(False, "the last context frame known so far is a candidate")
    context_images_background: bool = hp(
        False, "all context frames are candidates, in place of the three backgrounds before"
    )
    generate_scratch_image: bool = hp(True, "a synthesised frame is a candidate")
    dependent_mask: bool = hp(True, "masks see the candidates")
    where_add: str = hp(
        "all", "layers that see action, state and latent", choices=("input", "all", "middle")
    )
    use_tile_concat: bool = hp(
        True, "action, state and latent become constant channels; False: a dense layer adds them to the features"
    )
    learn_initial_state: bool = hp(False, "learnt initial states of the recurrent layers; False: zeros")
    rnn: str = hp("lstm", "recurrent layer of the latents", choices=("lstm", "gru"))
    conv_rnn: str = hp("lstm", "recurrent layers of the generator", choices=("lstm", "gru"))
    conv_rnn_norm_layer: str = hp("instance", "norm in conv_rnn", choices=("instance", "layer", "none"))
    use_rnn_z: bool = hp(True, "latents pass a recurrent layer")
    ablation_conv_rnn_norm: bool = hp(False, "norm after the recurrent layers instead of within")
    ablation_rnn: bool = hp(False, "plain convolutions in place of the recurrent layers")

    # Feeding of true frames after the context, in training.
    schedule_sampling: str = hp(
        "inverse_sigmoid", "how the share of true frames falls", choices=("none", "inverse_sigmoid", "linear")
    )
    schedule_sampling_k: float = hp(900.0, "time scale of inverse_sigmoid, in steps", low=0)
    schedule_sampling_steps: tuple[int, int] = hp((0, 100000), "first and last step of the fall", low=0)

    IGNORED_KEYS: typing.ClassVar[dict] = {
        **OLD_KEYS,
        "dilation_rate": None,  # the original warps without it, whatever it is
    }

    def validate(self):
        super().validate()
        self._validate_latents()
        self._validate_discriminators()
        self._validate_generator()
        if self.schedule_sampling == "linear":
            start, end = self.schedule_sampling_steps
            self.require(start < end, "schedule_sampling_steps", "[first, last] with first < last")
        if self.schedule_sampling == "inverse_sigmoid":
            self.require(self.schedule_sampling_k > 0, "schedule_sampling_k", "a value > 0 with inverse_sigmoid")
        self.require(
            self.l1_weight or self.l2_weight or self.state_weight or self.gan_kinds or self.vae_gan_kinds,
            "l1_weight", "a weight > 0 for at least one loss of the frames",
        )

    def _validate_latents(self):
        for key in ("kl_weight", "learn_prior", "use_e_rnn"):
            self.require(self.nz or not getattr(self, key), key, "0 or false with nz=0, which has no latents")
        for kind in KINDS:
            key = f"{kind}_vae_gan_weight"
            self.require(self.nz or not getattr(self, key), key, "0 with nz=0, which has no posterior rollout")

    def _validate_discriminators(self):
        for form, kinds in (("gan", self.gan_kinds), ("vae_gan", self.vae_gan_kinds)):
            for norm in ("l2", "cdist"):
                key = f"{form}_feature_{norm}_weight"
                expected = f"0 where every *_sn_{form}_weight is 0, as no discriminator gives features"
                self.require(kinds or not getattr(self, key), key, expected)
        clips = [k for k in self.discriminator_kinds if k != "image_sn"]
        if "video_sn" in clips:
            self.require(self.clip_length >= 4, "clip_length", "4 frames or more for the video discriminator")
        if clips and self.sequence_length and self.context_frames:
            frames = self.loss_frames(self.sequence_length)
            self.require(self.clip_length <= frames, "clip_length", f"at most the {frames} predicted frames judged")

    def _validate_generator(self):
        candidates = (
            self.num_transformed_images or self.prev_image_background or self.first_image_background
            or self.last_image_background or self.last_context_image_background
            or self.context_images_background or self.generate_scratch_image
        )
        self.require(candidates, "num_transformed_images", "at least one warp, background or scratch image")
        self.require(not self.tv_weight or self.has_flows, "tv_weight", "0 without flows (transformation=flow)")
        if self.ablation_conv_rnn_norm:
            self.require(self.conv_rnn_norm_layer != "none", "conv_rnn_norm_layer", "a norm to put after conv_rnn")
            self.require(not self.ablation_rnn, "ablation_conv_rnn_norm", "false with ablation_rnn, which has no RNN")

    @property
    def has_flows(self):
        """Whether the generator predicts flow fields."""
        return self.transformation == "flow" and self.num_transformed_images > 0

    @property
    def gan_kinds(self):
        """Discriminators that judge the prior rollout, e.g. ("video_sn",)."""
        return tuple(k for k in KINDS if getattr(self, f"{k}_gan_weight"))

    @property
    def vae_gan_kinds(self):
        """Discriminators that judge the posterior rollout."""
        return tuple(k for k in KINDS if getattr(self, f"{k}_vae_gan_weight"))

    @property
    def discriminator_kinds(self):
        """Discriminators that exist: those with either weight."""
        return tuple(k for k in KINDS if k in self.gan_kinds or k in self.vae_gan_kinds)

    def loss_frames(self, sequence_length):
        """How many of a clip's predictions have a loss."""
        return sequence_length - (self.context_frames if self.loss_on_future_only else 1)

    def ground_truth_probability(self, step):
        """Probability that a true frame is fed after the context, a scalar tensor."""
        start, end = self.schedule_sampling_steps
        if self.schedule_sampling == "none":
            return tf.constant(0.0)
        if self.schedule_sampling == "linear":
            return 1 - schedules.linear_ramp(step, start, end)
        k = self.schedule_sampling_k
        step = tf.cast(step, "float32")
        # exp overflows to inf at large steps, which is a probability of 0.
        probability = k / (k + tf.exp((step - start) / k))
        return tf.where(step < start, 1.0, probability)
