"""SAVP from TensorFlow 1 checkpoints written from recorded parameters, with the original's full hparams file."""

import json

import numpy as np
import pytest
import tensorflow as tf

from tests.conversion.tf1 import with_trainer_state, write_quickly
from tests.parity.cases import find_cases
from tests.parity.savp_support import INPUTS, check_outputs, inputs_of, recorded_draws, rollout_outputs
from tfvid.conversion.convert import Request, convert
from tfvid.models.savp.networks_generator import OUTPUTS
from tfvid.training.run_folder import RunFolder

CASES = [c for c in find_cases() if c.method == "savp" and c.name.endswith("_forward") and "case" in c.meta]
STEP = 300000


def _parameters(case):
    arrays = {**case.sibling(f"{case.meta['case']}_params"), **case.arrays}
    return {k[6:]: v for k, v in arrays.items() if k.startswith("param/")}


def _convert(tmp_path, case, tensors):
    """Model with a checkpoint's weights, by way of its run folder, and the report."""
    hparams = tmp_path / "model_hparams.json"
    hparams.write_text(json.dumps(case.meta["all_hparams"]))
    inputs = case.under("in/")
    sizes = {f"{k[:-1]}_dim": inputs[k].shape[-1] if k in inputs else 0 for k in ("actions", "states")}
    source = write_quickly(tmp_path / "original" / f"model-{STEP}", tensors)
    _, report = convert(
        Request(
            "savp", source, str(tmp_path / "run"), str(hparams), image_size=inputs["images"].shape[2:],
            # The recorded sampling graph may be longer than the trained one.
            hparams_override=f"sequence_length={inputs['images'].shape[1]}", **sizes,
        )
    )  # fmt: skip
    return RunFolder.open(str(tmp_path / "run")).load_model(), report


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_converted_model_gives_the_recorded_frames(tmp_path, case):
    parameters = _parameters(case)
    model, report = _convert(tmp_path, case, with_trainer_state(parameters, STEP))
    assert set(report.assigned.values()) == set(parameters) and not report.untouched
    assert int(model.step) == STEP
    for variable in model.weights:
        np.testing.assert_array_equal(variable, parameters[variable.path])
    model.step.assign(case.meta["global_step"])  # of the recording, for its scheduled sampling
    inputs = inputs_of(model, {k: v for k, v in case.under("in/").items() if k in INPUTS})
    expected = {k: v for k, v in case.under("out/").items() if k in ("gen_images", "gen_images_enc", "gen_states")}
    rollouts = ("posterior", "prior") if "gen_images_enc" in expected else ("prior",)
    outputs = model.forward(inputs, recorded_draws(case.under("rand/")), True, rollouts=rollouts, keep=OUTPUTS)
    check_outputs(rollout_outputs(outputs), expected)


def test_checkpoints_of_before_december_2018(tmp_path):
    """The cell had another name, and the discriminators were other ones: they stay as they are initialised."""
    case = next(
        (c for c in CASES if any(k.startswith("discriminator/") for k in _parameters(c))), None
    )  # fmt: skip
    if case is None:
        pytest.skip("no recording with discriminators here")
    parameters = _parameters(case)
    generator = {k.replace("savp_cell", "dna_cell"): v for k, v in parameters.items() if k.startswith("generator/")}
    old = {
        "discriminator/video_sn_conv0_0/conv3d/kernel": np.zeros([3, 3, 3, 3, 2], np.float32),
        "discriminator_encoder/video_sn_conv0_0/conv3d/kernel": np.zeros([3, 3, 3, 3, 2], np.float32),
    }
    model, report = _convert(tmp_path, case, with_trainer_state({**generator, **old}, STEP))
    assert set(old) < set(report.ignored)
    assert set(report.untouched) == {k for k in parameters if k.startswith("discriminator/")}
    for variable in model.generator.weights:
        np.testing.assert_array_equal(variable, parameters[variable.path])
    assert "left as they were initialised" in str(report)
    tf.debugging.assert_all_finite(model.discriminator.weights[0].value, "fresh weights")
