"""Strict assignment: everything used or ignored by rule, everything filled, nothing half done."""

import keras
import numpy as np
import pytest

from tfvid.conversion import assign as assign_lib
from tfvid.conversion.assign import Source, assign
from tfvid.errors import UserError


def _model():
    model = keras.Sequential([keras.layers.Conv2D(4, 3, name="conv"), keras.layers.Dense(5, name="dense")])
    model.build((None, 8, 8, 2))
    return model


def _map(model):
    conv, dense = model.layers
    return {
        conv.kernel.path: Source("conv.weight", assign_lib.conv2d_kernel),
        conv.bias.path: "conv.bias",
        dense.kernel.path: Source(("fc.a", "fc.b"), lambda a, b: assign_lib.dense_kernel(np.concatenate([a, b]))),
        dense.bias.path: Source("fc.bias"),
    }


def _tensors():
    rng = np.random.default_rng(0)
    shapes = {"conv.weight": (4, 2, 3, 3), "conv.bias": (4,), "fc.a": (2, 4), "fc.b": (3, 4), "fc.bias": (5,)}
    return {k: rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}


def test_layouts_and_joined_tensors():
    model, tensors = _model(), _tensors()
    report = assign(model, {**tensors, "step": np.array(3)}, _map(model), lambda name: name == "step")
    conv, dense = model.layers
    np.testing.assert_array_equal(conv.kernel.numpy()[1, 2, 0, 3], tensors["conv.weight"][3, 0, 1, 2])
    np.testing.assert_array_equal(dense.kernel, np.concatenate([tensors["fc.a"], tensors["fc.b"]]).T)
    assert report.ignored == ("step",) and len(report.assigned) == 4
    assert str(report) == "4 variables filled, 1 entries of the file ignored by rule"


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda t: t.pop("conv.bias"), "it has no 'conv.bias'"),
        (lambda t: t.update({"conv.biases": t.pop("conv.bias")}), "no 'conv.bias'; nearest: 'conv.biases'"),
        (lambda t: t.update(extra=np.zeros(1)), "holds 'extra', for which the model has no variable"),
        (lambda t: t.update({"conv.bias": np.zeros(5)}), r"'conv.bias': expected what gives .* the shape \[4\]"),
        (lambda t: t.update({"conv.weight": np.zeros((4, 2))}), "'conv.weight' of shape .* does not fit"),
        (lambda t: t.update({"fc.b": np.zeros((3, 7))}), r"'fc.a', 'fc.b'\) of shape \(2, 4\), \(3, 7\) does not fit"),
        (lambda t: t.update({"fc.bias": np.array(["a"] * 5)}), "expected numbers, received <U1"),
        (lambda t: t.update({"fc.bias": np.full(5, np.inf)}), "expected finite values"),
    ],
)
def test_errors_change_nothing(change, message):
    model, tensors = _model(), _tensors()
    before = [w.numpy() for w in model.weights]
    change(tensors)
    with pytest.raises(UserError, match=f"file.pt: .*{message}") as e:
        assign(model, tensors, _map(model), source="file.pt")
    assert "\n" not in str(e.value)
    for old, new in zip(before, model.weights):
        np.testing.assert_array_equal(old, new)


def test_a_map_that_leaves_variables_out_is_a_programming_error():
    model = _model()
    entries = _map(model)
    entries.pop(model.layers[0].bias.path)
    with pytest.raises(ValueError, match="the map and the variables of Sequential differ"):
        assign(model, _tensors(), entries)


def test_optional_groups_are_there_or_not():
    model, tensors = _model(), _tensors()
    conv = model.layers[0]
    group = {conv.kernel.path, conv.bias.path}

    def optional(path):
        return path in group

    kernel = conv.kernel.numpy()
    absent = {k: v for k, v in tensors.items() if not k.startswith("conv")}
    report = assign(model, absent, _map(model), optional=optional)
    assert set(report.untouched) == group
    np.testing.assert_array_equal(kernel, conv.kernel)
    half = {k: v for k, v in tensors.items() if k != "conv.bias"}
    with pytest.raises(UserError, match="it has no 'conv.bias'"):
        assign(model, half, _map(model), optional=optional)


def test_kernel_layouts():
    conv = np.arange(2 * 3 * 5 * 7).reshape(2, 3, 5, 7)
    assert assign_lib.conv2d_kernel(conv).shape == (5, 7, 3, 2)
    assert assign_lib.conv2d_kernel(conv)[4, 6, 2, 1] == conv[1, 2, 4, 6]
    # [in, out, h, w] -> [h, w, out, in]
    assert assign_lib.conv2d_transpose_kernel(conv)[4, 6, 2, 1] == conv[1, 2, 4, 6]
    assert assign_lib.conv3d_kernel(conv[..., None])[4, 6, 0, 2, 1] == conv[1, 2, 4, 6]
    assert assign_lib.dense_kernel(conv[0, 0])[3, 2] == conv[0, 0, 2, 3]
