"""Checkpoints as the original program writes them: weights are read, the rest is ignored by rule."""

import numpy as np
import pytest

from tests.conversion.test_torch_file import _tensor, _zip
from tests.models import ag2vid_tiny as tiny
from tfvid.conversion.convert import Request, convert
from tfvid.errors import UserError
from tfvid.models.ag2vid import convert as ag2vid
from tfvid.training.run_folder import RunFolder

_STORAGES = {2: "Half", 4: "Float", 8: "Double"}
# Layouts of PyTorch from ours: the inverse of what is read.
_BACK = {4: (3, 2, 0, 1), 2: (1, 0)}


def original_arrays(model):
    """{name in the file: array} that the converter reads back as the weights of `model`."""
    variables = {v.path: v for v in model.weights}
    arrays = {}
    for path, source in ag2vid.variable_map(model).items():
        value = variables[path].numpy()
        if source.transform is not None and value.ndim in _BACK:
            value = value.transpose(_BACK[value.ndim])
        elif source.transform is not None:  # v of a spectral norm: (k_y, k_x, in) -> (in, k_y, k_x)
            kernel = variables[path.rpartition("/")[0] + "/kernel"].shape
            value = value.reshape(kernel[0], kernel[1], -1).transpose(2, 0, 1).reshape(-1)
        arrays[source.name] = np.array(value, np.float32, order="C")
    return arrays


def write(path, arrays, **more):
    """A file of torch.save with `arrays`, names grouped by their first part."""
    content, storages = dict(more), {}
    for number, (name, value) in enumerate(arrays.items()):
        group, _, rest = name.partition(".")
        strides = tuple(s // value.itemsize for s in value.strides)
        storages[str(number)] = value.tobytes()
        content.setdefault(group, {})[rest] = _tensor(
            _STORAGES[value.itemsize], str(number), value.size, value.shape, strides
        )
    return _zip(path, content, storages)


def overrides():
    parts = [f"{k}={v}".replace(" ", "") for k, v in tiny.SIZES.items()]
    return ",".join(parts)


def request(tmp_path, source, **more):
    return Request(
        model="ag2vid", source=source, output_dir=str(tmp_path / "run"), hparams_override=overrides(), **more
    )


@pytest.fixture(scope="module")
def original():
    return original_arrays(tiny.build(seed=5))


def test_every_weight_arrives(tmp_path, original):
    more = {"vocab": {"a": ["b", {"0": 1}]}, "counters": {"t": 1234, "epoch": 2}, "optim_state_gen": {"state": {}}}
    arrays = {**original, "model_state.acts_to_boxes.module.mask_net.0.weight": np.zeros((2, 2), np.float32)}
    source = write(tmp_path / "itr_1234.pt", arrays, gans_model_state={}, **more)
    _, report = convert(request(tmp_path, source))
    assert not report.untouched
    loaded = RunFolder.open(str(tmp_path / "run")).load_model()
    assert int(loaded.step) == 1234
    for name, value in original_arrays(loaded).items():
        np.testing.assert_array_equal(value, original[name], err_msg=name)


def test_other_wrappers_and_half_precision(tmp_path, original):
    """Networks saved from within another DataParallel, or from none, and in float16 or float64."""
    renamed = {}
    for i, (name, value) in enumerate(original.items()):
        group, _, rest = name.partition(".")
        rest = rest.replace(".module.", ".", 1) if i % 2 else f"module.{rest}"
        renamed[f"{group}.{rest}"] = value.astype(np.float16 if i % 3 else np.float64)
    source = write(tmp_path / "itr_7.pt", renamed, counters={"t": 7, "epoch": 0})
    convert(request(tmp_path, source, image_size=(64, 64, 3)))
    loaded = RunFolder.open(str(tmp_path / "run")).load_model()
    assert tuple(loaded.spec["images"].shape[1:]) == (64, 64, 3) and "timed_actions" in loaded.spec
    for name, value in original_arrays(loaded).items():
        np.testing.assert_allclose(value, original[name], 1e-3, 1e-6, err_msg=name)


def test_a_file_without_the_discriminator(tmp_path, original):
    arrays = {k: v for k, v in original.items() if k.startswith("model_state")}
    _, report = convert(request(tmp_path, write(tmp_path / "f.pt", arrays)))
    assert report.untouched and all(p.startswith("discriminator/") for p in report.untouched)


def test_what_does_not_fit_is_one_line(tmp_path, original):
    strange = {**original, "model_state.acts_to_frames.module.weight": np.zeros((2, 2), np.float32)}
    with pytest.raises(UserError, match="it holds 'model_state.acts_to_frames.module.weight'"):
        convert(request(tmp_path, write(tmp_path / "f.pt", strange)))
    fewer = dict(original)
    del fewer["model_state.layout_to_video.module.netG.fc.weight"]
    with pytest.raises(UserError, match="it has no 'model_state.layout_to_video.module.netG.fc.weight'"):
        convert(request(tmp_path, write(tmp_path / "g.pt", fewer)))
    with pytest.raises(UserError, match="expected a checkpoint of AG2Vid with model_state"):
        convert(request(tmp_path, write(tmp_path / "h.pt", {"weights.a": np.zeros((2, 2), np.float32)})))
    assert not (tmp_path / "run").exists()
