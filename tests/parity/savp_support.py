"""What the SAVP checks share: building a recorded model, comparing outputs and gradients."""

import numpy as np
import tensorflow as tf

from tfvid import models
from tfvid.models.draws import RecordedDraws
from tfvid.models.savp.hparams import SAVPHParams

INPUTS = ("images", "actions", "states", "pix_distribs")
LOSS_RTOL = 1e-4
# specs/savp.md section 14; the order matters: the first that fits a name holds.
OUTPUT_TOLERANCES = (
    ("gen_flows_rgb", {"atol": 2e-4}),
    ("gen_flows", {"atol": 1e-4}),
    ("feature", {"rtol": 2e-4, "atol": 2e-5}),
    ("", {"atol": 2e-5}),
)
GRADIENT_RTOL, GRADIENT_SHARE = 1e-2, 5e-5
LATER_NORM_RTOL, LATER_NORM_SHARE = 5e-2, 3e-4


def build(case, params, inputs, **more):
    """The model of a case, with its parameters, at its step."""
    hparams = SAVPHParams.from_dict({**case.meta["model_hparams"], **more})
    spec = {k: tf.TensorSpec(inputs[k].shape[1:], tf.float32) for k in INPUTS if k in inputs}
    model = models.build("savp", hparams, spec)
    load(model.weights, params)
    model.step.assign(case.meta["global_step"])
    return model


def load(weights, params):
    """Assigns {original name: array}: every variable, every array."""
    paths = {v.path: v for v in weights}
    assert set(paths) == set(params), sorted(set(paths) ^ set(params))
    for name, value in params.items():
        assert tuple(paths[name].shape) == value.shape, (name, paths[name].shape, value.shape)
        paths[name].assign(value)


def recorded_draws(values):
    """RecordedDraws of arrays by name; masks are recorded as 0 and 1."""
    return RecordedDraws({k: v.astype(bool) if v.dtype == np.uint8 else v for k, v in values.items()})


def inputs_of(model, arrays):
    """The model's inputs from recorded arrays."""
    return model.prepare({k: tf.constant(v) for k, v in arrays.items() if k in INPUTS})


def variables_of(model):
    """{path: TensorFlow variable} of what is trained."""
    return {v.path: v.value for v in model.trainable_variables}


def rollout_outputs(outputs):
    """What `SAVP.forward` returns, under the original's names and axes."""
    from tfvid.layers.warps import flow_to_rgb

    named = {}
    for rollout, suffix in (("posterior", "_enc"), ("prior", "")):
        video = outputs.get(rollout, {})
        for key, name in (("image", "gen_images"), ("state", "gen_states"), ("pix_distrib", "gen_pix_distribs"),
                          ("flows", "gen_flows")):
            if key in video:
                named[name + suffix] = video[key]
        if "masks" in video:
            named[f"masks{suffix}"] = video["masks"][..., None, :]
        for key, name in (("candidates", "transformed_images"), ("pix_candidates", "transformed_pix_distribs")):
            if key in video:
                named[name + suffix] = np.swapaxes(video[key], -1, -2)
        if "flows" in video:
            flows = tf.experimental.numpy.moveaxis(video["flows"], -2, -1)  # [B, T, H, W, K, 2]
            rgb = flow_to_rgb(flows, axes=(0, 2, 3, 4))
            named[f"gen_flows_rgb{suffix}"] = np.swapaxes(rgb, -1, -2)
    named.update({k: v for k, v in outputs.items() if k not in ("posterior", "prior")})
    return named


def check_outputs(found, expected):
    """Every recorded output, by the tolerance of its group."""
    for name, value in expected.items():
        if name.startswith("ground_truth_sampling_mean"):
            value = np.nan_to_num(value)  # the original's mean over no step at all
        tolerance = next(t for part, t in OUTPUT_TOLERANCES if part in name)
        assert_close(found[name], value, name=name, **tolerance)


def assert_close(found, expected, *, rtol=0.0, atol=0.0, name=""):
    """np.testing with shapes compared first."""
    found = np.asarray(found)
    assert found.shape == np.shape(expected), f"{name}: shape {found.shape}, recorded {np.shape(expected)}"
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=atol, err_msg=name)


def check_without_gradient(gradients, without):
    """Those variables have none, or zeros where both rollouts run as one batch; all others have one."""
    assert {name for name, g in gradients.items() if g is None} <= set(without)
    for name in without:
        assert gradients[name] is None or not np.any(gradients[name]), name


def check_gradients(found, values, norms, later=False):
    """||g - ref|| <= 1e-2 ||ref|| + 5e-5 G, and norms, G being the norm of all reference gradients together."""
    if not norms:
        assert not values
        return
    total = np.sqrt(sum(np.square(n, dtype=np.float64) for n in norms.values()))
    for name, reference in values.items():
        error = np.linalg.norm(np.asarray(found[name]) - reference)
        limit = GRADIENT_RTOL * np.linalg.norm(reference) + GRADIENT_SHARE * total
        assert error <= limit, f"{name}: {error} > {limit}"
    rtol, share = (LATER_NORM_RTOL, LATER_NORM_SHARE) if later else (GRADIENT_RTOL, GRADIENT_SHARE)
    for name, norm in norms.items():
        gradient = np.linalg.norm(np.asarray(found[name])) if found[name] is not None else 0.0
        assert abs(gradient - norm) <= rtol * norm + share * total, f"{name}: norm {gradient}, recorded {norm}"
