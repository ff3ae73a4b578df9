"""From TensorFlow 1 checkpoints of recorded parameters to run folders, and what can go wrong."""

import json
import os
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from tests import commands
from tests.conversion.tf1 import with_trainer_state, write_checkpoint, write_quickly
from tests.parity.cases import find_cases
from tests.parity.savp_baselines import (
    IMAGE_ATOL,
    build_model,
    check_test_rollout,
    draws_of,
    hparams_of,
    recorded_parameters,
)
from tfvid.conversion.convert import CONVERTERS, Request, convert, published_spec
from tfvid.errors import UserError
from tfvid.models import MODELS
from tfvid.training.run_folder import RunFolder

CASES = [c for c in find_cases() if c.method == "savp" and c.name.startswith("baseline_")]
STEP = 70000


def _sizes(arrays):
    """The flags that describe the data of a case."""
    last = {key: arrays[f"in/{key}"].shape[-1] if f"in/{key}" in arrays else 0 for key in ("actions", "states")}
    return {"image_size": arrays["in/images"].shape[2:], "action_dim": last["actions"], "state_dim": last["states"]}


def _request(tmp_path, case, **changes):
    """A request whose source and hyper-parameters are on disk."""
    hparams, source = tmp_path / "model_hparams.json", tmp_path / "original" / "model-70000"
    hparams.write_text(json.dumps(hparams_of(case.meta, case.arrays)))
    if "source" not in changes:
        write_quickly(source, with_trainer_state(recorded_parameters(case.meta), STEP))
    values = {"model": case.meta["model"].split()[0], "source": str(source), "output_dir": str(tmp_path / "run")}
    return Request(**{**values, "hparams": str(hparams), **_sizes(case.arrays), **changes})


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_converted_model_gives_the_recorded_frames(tmp_path, case):
    path, report = convert(_request(tmp_path, case))
    assert path == str(tmp_path / "run" / "checkpoints" / f"ckpt-{STEP}")
    parameters = recorded_parameters(case.meta)
    assert set(report.assigned.values()) == set(parameters)
    assert "global_step" in report.ignored and not report.untouched
    model = RunFolder.open(str(tmp_path / "run")).load_model()
    assert int(model.step) == STEP
    for variable in model.weights:
        np.testing.assert_array_equal(variable, parameters[variable.path])
    if any(key.startswith("test/") for key in case.arrays):
        model.step.assign(0)
        check_test_rollout(model, case)
    else:
        model.step.assign(case.meta["iter_num"])
        inputs = model.prepare({k[3:]: tf.constant(v) for k, v in case.arrays.items() if k.startswith("in/")})
        draws = draws_of(case.arrays, "rand/", model.hparams.context_frames, inputs["images"].shape[1] - 1)
        frames = model.forward(inputs, draws, training=True)["gen_images"]
        np.testing.assert_allclose(frames, case.arrays["out/gen_images"], rtol=0, atol=IMAGE_ATOL)


@pytest.fixture(scope="module")
def case():
    """The smallest case."""
    return min(CASES, key=lambda c: sum(np.prod(s) for s in c.meta["params"].values()))


def test_files_that_the_original_wrote_beside_the_checkpoint_are_used(tmp_path, case):
    _request(tmp_path, case)
    request = _request(tmp_path, case, hparams=None, source=str(tmp_path / "original" / "model-70000"))
    (tmp_path / "model_hparams.json").rename(tmp_path / "original" / "model_hparams.json")
    (tmp_path / "original" / "options.json").write_text('{"dataset": "softmotion", "gpu_mem_frac": 0, "model": null}')
    (tmp_path / "original" / "dataset_hparams.json").write_text('{"long_sequence_length": 30, "num_epochs": null}')
    convert(request)
    expected = build_model(case.meta, case.arrays).hparams
    found = RunFolder.open(str(tmp_path / "run")).hparams
    assert found.dataset == "softmotion" and found.long_sequence_length == 30
    # What they do not say comes from the data set, what the model's file says stays.
    assert found.time_shift == 2
    fields = [k for k, v in expected.to_dict().items() if v is not None]
    assert {k: getattr(found, k) for k in fields} == {k: getattr(expected, k) for k in fields}


def _changed(tmp_path, case, **changes):
    """A checkpoint with some entries replaced, or left out where the new value is None."""
    tensors = {**with_trainer_state(recorded_parameters(case.meta), STEP), **changes}
    return write_quickly(tmp_path / "changed" / "model-1", {k: v for k, v in tensors.items() if v is not None})


ERRORS = {
    "missing": ({"generator/conv2/weights": None}, r"it has no 'generator/conv2/weights'"),
    "renamed": (
        {"generator/conv2/weights": None, "generator/conv2/weight": np.zeros(3, np.float32)},
        r"it has no 'generator/conv2/weights'; nearest: 'generator/conv2/weight'",
    ),
    "more": ({"generator/conv9/weights": np.zeros(3, np.float32)}, r"it holds 'generator/conv9/weights'.*nearest"),
    "shape": (
        {"generator/conv2/biases": np.zeros([999], np.float32)},
        r"'generator/conv2/biases': expected what gives generator/conv2/biases the shape \[\d+\], received shape \[999\]",
    ),
    "nan": ({"generator/conv2/biases": "nan"}, "expected finite values"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_a_checkpoint_that_does_not_fit(tmp_path, case, name):
    changes, message = ERRORS[name]
    shape = case.meta["params"]["generator/conv2/biases"]
    changes = {k: np.full(shape, np.nan, np.float32) if isinstance(v, str) else v for k, v in changes.items()}
    request = _request(tmp_path, case, source=_changed(tmp_path, case, **changes))
    with pytest.raises(UserError, match=message) as e:
        convert(request)
    assert "\n" not in str(e.value) and request.source in str(e.value)
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_of_another_model(tmp_path, case):
    tensors = {"generator/rnn/savp_cell/h0/conv_pool2d/kernel": np.zeros([5, 5, 14, 32], np.float32)}
    source = write_quickly(tmp_path / "savp" / "model-1", tensors)
    with pytest.raises(UserError, match="expected a checkpoint of this"):
        convert(_request(tmp_path, case, source=source))


def test_an_output_folder_with_files_is_left_alone(tmp_path, case):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="--output_dir: expected a new or empty folder"):
        convert(_request(tmp_path, case))
    assert os.listdir(tmp_path / "run") == ["mine.txt"]


def test_unknown_data(tmp_path, case):
    sizes = {"image_size": None, "action_dim": None, "state_dim": None}
    with pytest.raises(UserError, match="--image_size: expected height,width,channels"):
        convert(_request(tmp_path, case, **sizes))
    request = _request(tmp_path, case)
    pathlib.Path(request.hparams).write_text("{}")
    with pytest.raises(UserError, match="context_frames: expected a value"):
        convert(request)


def test_models_without_weights_and_unknown_ones(tmp_path):
    with pytest.raises(UserError, match="--model: expected one with weights"):
        convert(Request("repeat", "x", str(tmp_path / "run")))
    with pytest.raises(UserError, match="--model: expected one of"):
        convert(Request("svap", "x", str(tmp_path / "run")))


def test_every_model_with_weights_has_a_converter():
    assert set(CONVERTERS) | {"repeat"} >= set(MODELS)


def test_published_data():
    from tfvid.models.baselines.hparams import SNAHParams

    values = {"dataset": "bair", "sequence_length": 12, "context_frames": 2}
    spec = published_spec(SNAHParams(**values, use_state=True))
    assert {k: v.shape.as_list() for k, v in spec.items()} == {
        "images": [12, 64, 64, 3], "actions": [11, 4], "states": [12, 3]
    }  # fmt: skip
    assert set(published_spec(SNAHParams(**values))) == {"images"}
    spec = published_spec(SNAHParams(**values, use_state=True, frame_skip=1, scale_size=32))
    assert spec["actions"].shape == (11, 8) and spec["images"].shape == (12, 32, 32, 3)


def test_the_command(tmp_path, case):
    source = write_checkpoint(
        tmp_path / "logs" / "model-70000", with_trainer_state(recorded_parameters(case.meta), STEP)
    )
    request = _request(tmp_path, case, source=os.path.dirname(source))
    flags = {
        "model": request.model, "source": request.source, "output_dir": request.output_dir, "hparams": request.hparams,
        "image_size": ",".join(map(str, request.image_size)), "action_dim": request.action_dim,
        "state_dim": request.state_dim,
    }  # fmt: skip

    def run(**changes):
        return commands.run("convert_checkpoint", *(f"--{k}={v}" for k, v in {**flags, **changes}.items()))

    result = run()
    assert result.returncode == 0, result.stderr
    assert f"{len(case.meta['params'])} variables filled" in result.stdout
    result = run(source=request.hparams, output_dir=str(tmp_path / "other"))
    assert result.returncode == 1
    lines = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert len(lines) == 1 and "cannot read it as a TensorFlow checkpoint" in lines[0]
    assert "Traceback" not in result.stderr
