"""Checkpoints as the original writes them, in both formats of PyTorch."""

import os
import shutil

import numpy as np
import pytest
import tensorflow as tf

from tests.parity.cases import BESIDE, BUNDLED
from tfvid import models
from tfvid.conversion.assign import assign
from tfvid.conversion.convert import Request, convert
from tfvid.errors import UserError
from tfvid.evaluation import runs
from tfvid.models.actvae import convert as actvae
from tfvid.models.actvae import convert_p2i as p2i
from tfvid.models.actvae.hparams import ActVAEHParams, ActVAEP2IHParams

FOLDER = next(
    (r / "actvae" / "checkpoints" for r in (BESIDE, BUNDLED) if (r / "actvae" / "checkpoints").is_dir()), None
)
# The pose-to-image stage's recordings are too large to be bundled.
needs_p2i = pytest.mark.skipif(not (FOLDER / "p2i_expected.npz").exists(), reason="no recorded checkpoint of it")


def expected(name):
    """{name inside the original program: array}."""
    with np.load(FOLDER / f"{name}_expected.npz") as f:
        return {k.removeprefix("module."): f[k] for k in f.files}


def shape_of(arrays):
    """(latent size, number of actions) from recorded weights."""
    latent = arrays["image_enc_vae.rnn.weight_hh_l0"].shape[1] // 2
    return latent, arrays["image_enc_vae.rnn.weight_ih_l0"].shape[1] - 26 - latent


@pytest.mark.parametrize("form", ["legacy", "zip"])
@pytest.mark.parametrize(
    ("name", "module"), [("actvae", actvae), pytest.param("p2i", p2i, marks=needs_p2i)], ids=["actvae", "p2i"]
)
def test_files_hold_the_expected_arrays(name, module, form):
    arrays = expected(name)
    found = module.read_source(os.fspath(FOLDER / f"{name}_{form}"))
    for key, value in found.items():
        if not module.is_ignorable(key):
            np.testing.assert_array_equal(value, arrays[key], err_msg=key)
    assert {k for k in found if not module.is_ignorable(k)} == {k for k in arrays if not k.startswith("criterionVGG")}


@pytest.mark.parametrize("form", ["legacy", "zip"])
def test_convert_writes_a_run_folder(tmp_path, form):
    latent, actions = shape_of(expected("actvae"))
    request = Request(
        model="actvae", source=os.fspath(FOLDER / f"actvae_{form}"), output_dir=os.fspath(tmp_path / "run"),
        hparams_override=f"latent_dim={latent},num_actions={actions}", dataset="penn",
    )
    _, report = convert(request)
    assert len(report.assigned) == 8
    (trial,) = runs.open_trials([request.output_dir])
    assert (trial.context, trial.default_horizon) == (1, 4)  # though no data set is there to say so
    model = trial.run.load_model()
    finished = {int(f.stem.rpartition("_")[2]) + 1 for f in (FOLDER / f"actvae_{form}").glob("*_im_encode_*.pt")}
    assert {int(model.step)} == finished
    cell = model.pose_network.temporal_vae.cell
    np.testing.assert_array_equal(cell.kernel, expected("actvae")["image_enc_vae.rnn.weight_ih_l0"].T)


def p2i_model(arrays):
    """A model with the sizes of the recorded checkpoint."""
    latent, actions = shape_of(arrays)
    blocks = 1 + max(int(k.split(".")[2]) for k in arrays if k.startswith("generator.att."))
    d_blocks = 1 + max(int(k.split(".")[2]) for k in arrays if k.startswith("classifier.model_res."))
    hparams = ActVAEP2IHParams(
        latent_dim=latent, num_actions=actions, g_blocks=blocks, d_blocks=d_blocks, vgg_weight=0.0, image_size=32,
        ngf=arrays["generator.model_stream1_down.1.weight"].shape[0],
        ndf=arrays["classifier.model1.1.weight"].shape[0],
    )
    return models.build("actvae_p2i", hparams, p2i.data_spec(hparams), trainable=False)


@needs_p2i
def test_published_archive_has_no_numbers_and_no_discriminator(tmp_path):
    arrays = expected("p2i")
    for source in (FOLDER / "p2i_legacy").iterdir():
        for middle in ("im_encode_content", "im_encode_vae", "generator"):
            if middle in source.name:
                shutil.copy(source, tmp_path / f"{middle}.pt")
    model = p2i_model(arrays)
    before = model.discriminator.first.conv.kernel.numpy()
    report = assign(
        model, p2i.read_source(os.fspath(tmp_path)), p2i.variable_map(model), p2i.is_ignorable, p2i.is_optional
    )
    assert report.untouched
    np.testing.assert_array_equal(before, model.discriminator.first.conv.kernel)
    values = {v.path: np.asarray(v) for v in model.weights}
    for path, source in p2i.variable_map(model).items():
        if not p2i.is_optional(path):
            value = arrays[source.name] if source.transform is None else source.transform(arrays[source.name])
            np.testing.assert_array_equal(values[path], value, err_msg=path)


def test_a_missing_network_is_named(tmp_path):
    for source in (FOLDER / "actvae_zip").iterdir():
        if "vae_0" in source.name:
            shutil.copy(source, tmp_path / source.name)
    with pytest.raises(UserError, match="im_encode_content"):
        actvae.read_source(os.fspath(tmp_path))


def test_networks_trained_on_several_gpus(monkeypatch):
    source = os.fspath(FOLDER / "actvae_zip")
    plain, read = actvae.read_source(source), actvae.torch_file.read

    def read_prefixed(path):
        return {"a": {f"module.{k}": v for k, v in read(path)["a"].items()}}

    monkeypatch.setattr(actvae.torch_file, "read", read_prefixed)
    assert actvae.read_source(source).keys() == plain.keys()


def test_residual_models_have_no_original():
    hparams = ActVAEHParams(latent_dim=4, pose_head="residual", decoder_units=8)
    spec = {"poses": tf.TensorSpec([6, 13, 2], tf.float32), "action_class": tf.TensorSpec([], tf.int32)}
    with pytest.raises(UserError, match="pose_head"):
        actvae.variable_map(models.build("actvae", hparams, spec))
