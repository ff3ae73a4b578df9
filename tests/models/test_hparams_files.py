"""Every file under hparams/ loads, and the original project's own files load unchanged."""

import json
import pathlib

import pytest
import tensorflow as tf

from tests.parity.cases import find_cases
from tfvid import models
from tfvid.hparams import HParamsError

FOLDER = pathlib.Path(__file__).parents[2] / "hparams"
FILES = sorted(FOLDER.glob("*/*.json"))
# Forms of SAVP, named as in its paper.
ABLATIONS = ("gan", "vae", "deterministic")
SAVP_FAMILY = ("savp", "sna", "sv2p", "dna", "repeat")
SIZES = {"ngf": 2, "nef": 2, "ndf": 2, "num_masks": 2, "nz": 2}

# Keys and defaults of the original, from its `parse_hparams`: base, trained models, then each model's own.
TRAINED = {
    "context_frames": 2, "sequence_length": 12, "repeat": 1,
    "batch_size": 16, "lr": 0.001, "end_lr": 0.0, "decay_steps": [200000, 300000], "lr_boundaries": [0],
    "max_steps": 300000, "beta1": 0.9, "beta2": 0.999, "clip_length": 10, "l1_weight": 0.0, "l2_weight": 1.0,
    "vgg_cdist_weight": 0.0, "feature_l2_weight": 0.0, "ae_l2_weight": 0.0, "state_weight": 0.0, "tv_weight": 0.0,
    "image_sn_gan_weight": 0.0, "image_sn_vae_gan_weight": 0.0, "images_sn_gan_weight": 0.0,
    "images_sn_vae_gan_weight": 0.0, "video_sn_gan_weight": 0.0, "video_sn_vae_gan_weight": 0.0,
    "gan_feature_l2_weight": 0.0, "gan_feature_cdist_weight": 0.0, "vae_gan_feature_l2_weight": 0.0,
    "vae_gan_feature_cdist_weight": 0.0, "gan_loss_type": "LSGAN", "joint_gan_optimization": False,
    "kl_weight": 0.0, "kl_anneal": "linear", "kl_anneal_k": -1.0, "kl_anneal_steps": [50000, 100000],
    "z_l1_weight": 0.0,
}  # fmt: skip
OLD = {
    "num_gpus": 1, "e_net": "n_layer", "d_conditional": True, "d_downsample_layer": "conv_pool2d", "d_net": "legacy",
    "d_use_gt_inputs": True, "acvideo_gan_weight": 0.0, "acvideo_vae_gan_weight": 0.0, "image_gan_weight": 0.0,
    "image_vae_gan_weight": 0.0, "tuple_gan_weight": 0.0, "tuple_vae_gan_weight": 0.0, "video_gan_weight": 1.0,
    "video_vae_gan_weight": 0.0, "gan_weight": 0.0, "vae_gan_weight": 0.0,
}  # fmt: skip
ORIGINAL = {
    "savp": {
        **TRAINED, "l1_weight": 1.0, "l2_weight": 0.0, "n_layers": 3, "ndf": 32, "norm_layer": "instance",
        "use_same_discriminator": False, "ngf": 32, "downsample_layer": "conv_pool2d",
        "upsample_layer": "upsample_conv2d", "activation_layer": "relu", "transformation": "cdna",
        "kernel_size": [5, 5], "dilation_rate": [1, 1], "where_add": "all", "use_tile_concat": True,
        "learn_initial_state": False, "rnn": "lstm", "conv_rnn": "lstm", "conv_rnn_norm_layer": "instance",
        "num_transformed_images": 4, "last_frames": 1, "prev_image_background": True,
        "first_image_background": True, "last_image_background": False, "last_context_image_background": False,
        "context_images_background": False, "generate_scratch_image": True, "dependent_mask": True,
        "schedule_sampling": "inverse_sigmoid", "schedule_sampling_k": 900.0,
        "schedule_sampling_steps": [0, 100000], "use_e_rnn": False, "learn_prior": False, "nz": 8,
        "num_samples": 8, "nef": 64, "use_rnn_z": True, "ablation_conv_rnn_norm": False, "ablation_rnn": False,
    },
    "sna": {
        **TRAINED, "batch_size": 32, "ngf": 16, "transformation": "cdna", "kernel_size": [5, 5], "num_masks": 10,
        "first_image_background": True, "generate_scratch_image": True, "schedule_sampling_k": 900.0,
    },
    "sv2p": {
        **TRAINED, "batch_size": 32, "kl_weight": 0.08, "transformation": "cdna", "num_masks": 10,
        "schedule_sampling_k": 900.0, "stochastic_model": True, "multi_latent": False, "latent_std_min": -5.0,
        "latent_channels": 1, "num_iterations_1st_stage": 50000, "kl_anneal_steps": [100000, 120000],
        "max_steps": 200000, "decay_steps": [0, 0],
    },
    "dna": {
        **TRAINED, "batch_size": 32, "transformation": "cdna", "kernel_size": [9, 9], "num_masks": 10,
        "schedule_sampling_k": 900.0,
    },
}  # fmt: skip


def model_of(path):
    """The model of a file: `<model>[_<variant>].json`; SAVP's ablations go by their own names."""
    stem = path.stem
    if stem.split("_")[0] in ABLATIONS:
        return "savp"
    names = [m for m in models.MODELS if stem == m or stem.startswith(f"{m}_")]
    assert names, f"{path}: expected <model>[_<variant>].json with a model of {sorted(models.MODELS)}"
    return max(names, key=len)


def _warnings(caplog):
    return [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_every_file_loads(path, caplog):
    model = model_of(path)
    hparams_class = models.model_class(model).HPARAMS
    hparams = hparams_class.load(str(path))
    # hparams/demo also holds files for the demo data sets of single methods, as demo_figures.
    assert hparams.dataset.split("_")[0] == path.parent.name
    assert not _warnings(caplog)
    defaults = hparams_class().to_dict()
    same = [k for k, v in json.loads(path.read_text()).items() if k != "dataset" and defaults[k] == v]
    assert not same or model not in SAVP_FAMILY, f"{path}: keys with their default value: {same}"


@pytest.mark.parametrize(
    "path", [f for f in FILES if model_of(f) in SAVP_FAMILY], ids=lambda p: f"{p.parent.name}-{p.stem}"
)
def test_every_file_of_the_savp_family_builds(path):
    model = model_of(path)
    hparams = models.model_class(model).HPARAMS.load(str(path))
    hparams = hparams.with_dataset_defaults({"context_frames": 2, "sequence_length": 12, "use_state": False})
    small = {k: v for k, v in SIZES.items() if getattr(hparams, k, 0)}
    spec = {"images": tf.TensorSpec([12, 32, 32, 3], tf.uint8)}
    if hparams.use_state:
        spec |= {"actions": tf.TensorSpec([11, 4], tf.float32), "states": tf.TensorSpec([12, 3], tf.float32)}
    built = models.build(model, hparams.replace(**small), spec, trainable=False)
    assert built.weights or model == "repeat"


@pytest.mark.parametrize("model", ORIGINAL)
@pytest.mark.parametrize("old", [{}, OLD], ids=["last", "old"])
def test_an_original_file_with_every_key(tmp_path, caplog, model, old):
    path = tmp_path / "model_hparams.json"
    path.write_text(json.dumps({**ORIGINAL[model], **old}))
    hparams_class = models.model_class(model).HPARAMS
    hparams = hparams_class.load(str(path))
    assert hparams == hparams_class(context_frames=2, sequence_length=12)
    (warning,) = _warnings(caplog)
    assert str(path) in warning and "\n" not in warning
    fields = hparams.to_dict()
    ignored = {k for k in {**ORIGINAL[model], **old} if k not in fields}
    assert set(warning.partition("without effect: ")[2].split(", ")) == ignored
    assert {"repeat", *old} <= ignored


@pytest.mark.parametrize("model", ORIGINAL)
def test_old_keys_that_would_change_something_are_refused(tmp_path, model):
    path = tmp_path / "model_hparams.json"
    path.write_text(json.dumps({**ORIGINAL[model], "vgg_cdist_weight": 1.0}))
    with pytest.raises(HParamsError, match="vgg_cdist_weight is not supported: expected one of"):
        models.model_class(model).HPARAMS.load(str(path))
    if model != "savp":
        path.write_text(json.dumps({**ORIGINAL[model], "video_sn_gan_weight": 0.1}))
        with pytest.raises(HParamsError, match="video_sn_gan_weight is not supported"):
            models.model_class(model).HPARAMS.load(str(path))


RECORDED = [c for c in find_cases() if c.method == "savp" and {"all_hparams", "model_hparams"} <= set(c.meta)]


@pytest.mark.parametrize("case", RECORDED, ids=str)
def test_the_full_files_of_the_recordings(case):
    hparams_class = models.model_class(case.meta.get("model", "savp").split()[0]).HPARAMS
    hparams = hparams_class.from_dict(case.meta["all_hparams"])
    stated = hparams_class.from_dict({**case.meta["model_hparams"], "sequence_length": hparams.sequence_length})
    # Both say the same: the defaults here are those of the original.
    assert hparams == stated
