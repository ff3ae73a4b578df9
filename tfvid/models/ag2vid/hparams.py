"""Hyper-parameters of AG2Vid, named as the original program's flags (data/args.py)."""

import dataclasses
import typing

from tfvid.hparams import HParams, HParamsError, hp
from tfvid.models.ag2vid.networks_video import UPSAMPLINGS, parse_norm, parse_spade


@dataclasses.dataclass(frozen=True)
class AG2VidHParams(HParams):
    """Fields of `AG2Vid`; the defaults are the original's for CATER.

    `sequence_length` is the length of the clips that train the boxes (the original's
    4 * frames_per_action_graph); of each, `frames_per_action` frames train the frames.
    """

    batch_size: int = hp(3, "clips in a step, over all devices", low=1)
    max_steps: int = hp(1000000, "training steps", low=0)
    lr: float = hp(1e-4, "learning rate of all three optimisers", low=0)
    beta1: float = hp(0.5, "decay of Adam's first moment", low=0, high=1)
    beta2: float = hp(0.999, "decay of Adam's second moment", low=0, high=1)

    # The vocabulary.
    attribute_sizes: tuple[int, ...] = hp(
        (6, 10, 3, 4), "values of each attribute, 0 (image node, padding) included", low=1
    )
    num_predicates: int = hp(8, "static relations, padding (the last one) included", low=1)
    num_actions: int = hp(7, "actions, padding (the last one) included", low=1)

    # The graph.
    image_node: bool = hp(True, "a node for the whole image, to which every object is related (CATER)")
    graph_only: bool = hp(False, "train and use the boxes alone, without frames")
    embedding_dim: int = hp(128, "E, size of attribute, relation and action embeddings", low=4)
    gconv_dim: int = hp(128, "G, size of object vectors; equal to embedding_dim", low=4)
    gconv_hidden_dim: int = hp(512, "size of messages in graph convolutions", low=1)
    gconv_num_layers: int = hp(3, "graph convolutions", low=1)
    gconv_pooling: str = hp(
        "avg", "how messages are pooled; the original averages whatever is said", choices=("avg", "sum")
    )
    only_temporal: bool = hp(False, "use action edges only")
    coupled_motion_appearance: bool = hp(False, "object vectors of the frames are those that move the boxes")

    # The frames.
    frames_per_action: int = hp(4, "frames of a clip that trains the frames, given ones included", low=2)
    n_frames_G: int = hp(2, "frames that a frame depends on, itself included", low=2)
    ngf: int = hp(64, "width of the generator", low=1)
    num_upsampling_layers: str = hp("normal", "depth of the generator", choices=tuple(UPSAMPLINGS))
    norm_G: str = hp("spectralspadesyncbatch3x3", "[spectral]spade<syncbatch|batch|instance>3x3")
    aspect_ratio: float = hp(1.0, "width / height of the frames; the original's are square", low=0.01)
    nff: int = hp(32, "width of the flow network", low=1)
    n_downsample_F: int = hp(3, "halvings in the flow network", low=0)
    n_blocks_F: int = hp(6, "residual blocks of the flow network", low=0)
    flow_multiplier: float = hp(20.0, "pixels that a flow output of 1 stands for")
    flow_deconv: bool = hp(False, "up-sample by transposed convolutions in the flow network")
    norm_F: str = hp("spectralsyncbatch", "[spectral]syncbatch, batch or instance")
    align_corners: bool = hp(False, "a flow of zero is the identity; the original's is a slight zoom")
    bp_prev: bool = hp(False, "train on generated previous frames and through them")

    # The discriminator.
    num_D: int = hp(2, "scales", low=1)
    n_layers_D: int = hp(4, "layers of each scale", low=2)
    ndf: int = hp(64, "width", low=1)
    norm_D: str = hp("spectralinstance", "[spectral]syncbatch, batch or instance")

    # The losses.
    gan_mode: str = hp("hinge", "adversarial loss", choices=("ls", "original", "w", "hinge"))
    no_ganFeat_loss: bool = hp(False, "leave feature matching out")
    no_vgg_loss: bool = hp(False, "leave the VGG loss out")
    lambda_feat: float = hp(10.0, "weight of feature matching", low=0)
    lambda_vgg: float = hp(10.0, "weight of the VGG loss", low=0)
    lambda_F_warp: float = hp(10.0, "weight of the warped previous frame against the frame", low=0)
    discriminator_img_loss_weight: float = hp(1.0, "weight of the adversarial loss", low=0)
    bbox_pred_loss_weight: float = hp(10.0, "weight of the box loss", low=0)
    masked_box_loss: bool = hp(False, "average the box loss over real objects; the original counts padding too")
    vgg_weights: str | None = hp(
        None, "file of torchvision's VGG-19; 'random' takes fixed random features; needed unless no_vgg_loss"
    )
    vgg_widths: tuple[int, int, int, int, int] = hp((64, 128, 256, 512, 512), "channels of VGG's stages", low=1)

    IGNORED_KEYS: typing.ClassVar[dict] = {
        key: None
        for key in (  # flags of the original that have no effect there, or none here
            "frames_per_action_graph initial_frames_per_sample num_iterations"
            " num_val_samples shuffle_val loader_num_workers include_relationships number_of_objects"
            " dataset_size grid_size mask_size g_mask_dim mask_noise_dim normalization activation netD_subarch"
            " netD netG model name label2coco checkpoints_dir cache_data num_workers worker_id n_frames_D print_every"
            " checkpoint_every output_dir run_name timing checkpoint_name checkpoint_gan_name checkpoint_graph_name"
            " restore_checkpoint freeze_graph use_cuda gpu_ids norm_E resize_or_crop load_size fine_size no_flip label_nc"
            " contain_dontcare_label output_nc init_type init_variance z_dim no_instance nef niter niter_decay optimizer"
            " D_steps_per_G no_TTUR lambda_kld debug lambda_obj discriminator_obj_loss_weight"
            " discriminator_temporal_loss_weight mask_pred_loss_weight pool_size ac_loss_weight resolution full_test"
            " image_size gan_loss_type d_normalization d_padding d_activation d_obj_arch crop_size vocab semantic_nc"
        ).split()
    } | {"mlp_normalization": ("none",), "layout_arch": ("graph",), "use_actions_loss": (1,)}

    @classmethod
    def from_dict(cls, values, source="hyper-parameters", quiet=False):
        return super().from_dict(cls._of_run_args(values) if "learning_rate" in values else values, source, quiet)

    @classmethod
    def _of_run_args(cls, values):
        """The original's run_args.json, all its flags and the vocabulary, in our words; ours beside them stand."""
        found = {"lr": values["learning_rate"], "image_node": values.get("dataset") != "smth_else"}
        if "coupled_motion_apperance" in values:
            found["coupled_motion_appearance"] = values["coupled_motion_apperance"]
        if isinstance(values.get("frames_per_action_graph"), int):
            found["sequence_length"] = 4 * values["frames_per_action_graph"]
        vocabulary = values.get("vocab")
        if vocabulary is not None:
            try:
                found["attribute_sizes"] = [max(v.values()) + 1 for v in vocabulary["attributes"].values()]
                found["num_predicates"] = len(vocabulary["pred_name_to_idx"])
                found["num_actions"] = len(vocabulary["action_name_to_idx"])
            except (AttributeError, KeyError, TypeError, ValueError):
                raise HParamsError(
                    "vocab: expected attributes, pred_name_to_idx and action_name_to_idx, as in run_args.json"
                ) from None
        found |= {k: v for k, v in values.items() if k not in ("learning_rate", "coupled_motion_apperance")}
        found["gconv_pooling"] = "avg"  # what the original does whatever it is told
        if found.get("dataset") == "smth_else":
            found["dataset"] = "something"
        switches = {f.name for f in dataclasses.fields(cls) if f.type in (bool, "bool")}
        return {k: bool(v) if k in switches and v in (0, 1) else v for k, v in found.items()}

    def validate(self):
        super().validate()
        self.require(self.gconv_dim == self.embedding_dim, "gconv_dim", f"embedding_dim={self.embedding_dim}")
        self.require(
            self.frames_per_action >= self.n_frames_G, "frames_per_action", f"at least n_frames_G={self.n_frames_G}"
        )
        if self.sequence_length:
            self.require(
                self.graph_only or self.frames_per_action <= self.sequence_length,
                "frames_per_action",
                f"at most sequence_length={self.sequence_length}",
            )
        if self.context_frames:
            self.require(
                self.context_frames >= self.n_frames_G - 1,
                "context_frames",
                f"at least n_frames_G - 1 = {self.n_frames_G - 1}",
            )
        if self.long_sequence_length:
            self.require(
                self.graph_only or self.long_sequence_length >= self.n_frames_G,
                "long_sequence_length",
                f"at least n_frames_G={self.n_frames_G}",
            )
        most = 3 * self.gconv_dim
        self.require(0 < len(self.attribute_sizes) <= most, "attribute_sizes", f"1 to {most} attributes")
        self.require(self.num_upsampling_layers != "most" or self.ngf > 1, "ngf", "at least 2 with the layers 'most'")
        for key, parse in (("norm_G", parse_spade), ("norm_D", parse_norm), ("norm_F", parse_norm)):
            try:
                parse(getattr(self, key))
            except ValueError as e:
                raise HParamsError(f"hyper-parameter {key}: {e}") from None

    def check_labels(self, labels):
        attributes = [len(v) for k, v in labels.items() if k.startswith("objects/")]
        if attributes:
            self.require(attributes == list(self.attribute_sizes), "attribute_sizes", f"the data's, {attributes}")
        for key, field in (("relations", "num_predicates"), ("timed_actions", "num_actions")):
            if key in labels:
                count = len(labels[key])
                self.require(count + 1 == getattr(self, field), field, f"{count + 1}, the data's {count} and padding")

    @property
    def condition_channels(self):
        """sem: channels of the map that conditions the generator."""
        return len(self.attribute_sizes) * self.embedding_dim

    @property
    def appearance_dim(self):
        """Size of one attribute's embedding in the generator's layouts (384 / A where G = 128)."""
        return 3 * self.gconv_dim // len(self.attribute_sizes)
