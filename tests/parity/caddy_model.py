"""Checks of the whole CADDY model: forward passes, losses, training, playing."""

import zlib

import numpy as np
import tensorflow as tf

from tests.parity.caddy_parts import make_vgg
from tests.parity.caddy_support import (
    SHARP,
    Comparison,
    by_name,
    channels_first,
    channels_last,
    constant,
    entries,
    joined,
    weights_by_name,
)
from tfvid import models
from tfvid.models import schedules  # noqa: F401
from tfvid.models.caddy import convert
from tfvid.models.caddy.hparams import CaddyHParams
from tfvid.models.caddy.model import Phase
from tfvid.models.draws import RecordedDraws

# Keys of the original's configuration -> ours, where the names differ.
RENAMED = {"learning_rate": "lr", "skip_frames": "frame_skip"}
FLOAT32_ABSOLUTE = 2e-7  # of the mutual information, a small difference of large terms


def hparams_of(config, shapes, precision, length=None):
    """CaddyHParams of an original configuration; widths from the recorded `shapes` {name: array}."""
    training, model = config["training"], config["model"]
    batching = training["batching"]
    stacking = batching["observation_stacking"]
    count = batching["observations_count"]
    pools = [
        training, training["loss_weights"], batching, model["action_network"],
        {k: v for k, v in model["representation_network"].items() if k == "state_features"},
        {k: v for k, v in model["dynamics_network"].items() if k == "hidden_state_size"},
    ]
    known = {f for f in CaddyHParams.__dataclass_fields__}
    values = {}
    for pool in pools:
        for key, value in pool.items():
            key = RENAMED.get(key, key)
            if key in known and not isinstance(value, dict):
                values[key] = value
    values.update(
        architecture="reduced" if "reduced" in model["architecture"] else "main",
        trainer=training["trainer"].split(".")[-1],
        actions_count=config["data"]["actions_count"],
        centroid_alpha=model["centroid_estimator"]["alpha"],
        lr_schedule=[int(v) for v in training["lr_schedule"]],
        sequence_length=length or count + stacking - 1,
        observations_count_start=min(batching["observations_count_start"], count),
        context_frames=1,
        precision=precision,
        batch_size=batching["batch_size"],
        vgg_weights="random",
    )
    encoder, decoder = "representation_network.", "rendering_network.upsample_blocks."
    values["encoder_features"] = [
        _width(shapes, f"{encoder}conv1.weight"), _width(shapes, f"{encoder}residuals.1.conv1.weight")
    ]
    values["action_features"] = _width(shapes, "action_network.0.residuals.0.conv1.weight")
    values["decoder_features"] = [_width(shapes, f"{decoder}{n}conv.weight") for n in ("0.0.", "1.0.", "2.")]
    return CaddyHParams.from_dict(values)


def _width(shapes, name):
    return int(np.shape(shapes[name])[0])


def make_model(config, weights, precision, image_size, vgg_arrays=None):
    """A model with the recorded weights ({original name: array})."""
    hparams = hparams_of(config, weights, precision)
    spec = {"images": tf.TensorSpec([hparams.sequence_length, *image_size, 3], tf.uint8)}
    model = models.build("caddy", hparams, spec)
    set_weights(model, weights)
    if vgg_arrays is not None:
        model.perceptual.vgg = make_vgg(vgg_arrays, precision)
    return model


def set_weights(model, weights):
    """Assigns every weight of the networks from the original's names."""
    variables = {v.path: v for v in model.networks.weights}
    mapped = entries(convert.networks_map(model.networks))
    assert set(variables) == set(mapped)
    for path, source in mapped.items():
        variables[path].assign(joined(source, weights))


def run_forward(model, observations, noise, call, mapping=None, actions=None, training=False):
    """A whole forward pass as the JSON's `call` describes it."""
    precision = model.networks.variable_dtype
    observations = constant(channels_last(observations), precision)
    noise = {k: constant(v, precision) for k, v in noise.items()}
    temperature = call.get("gumbel_temperature", model.hparams.gumbel_temperature_start)
    if call.get("pretraining"):
        return model.networks.pretraining(observations, noise, temperature=temperature, training=training)
    sampler = call.get("action_sampler")
    chosen = None
    if sampler == "OneHotActionSampler":
        chosen = "most_probable"
    elif sampler == "GroundTruthActionSampler":
        table = np.array([mapping[str(a)] for a in range(len(mapping))])
        chosen = table[actions[:, : observations.shape[1] - 1]]
    return model.networks.closed_loop(
        observations, noise, ground_truth=call["ground_truth_observations_init"], temperature=temperature,
        training=training, actions=chosen, zero_variations="action_variation_sampler" in call,
    )


def recorded_outputs(outputs):
    """{recorded name: array in the recording's layout} of a forward pass."""
    result = {f"multiresolution/{r}": channels_first(image) for r, image in enumerate(outputs["images"])}
    for prefix in ("", "reconstructed_"):
        for kind in ("directions", "states"):
            pair = [outputs[f"{prefix}{kind}_mean"], outputs[f"{prefix}{kind}_variance"]]
            result[f"{prefix}{kind}_distribution"] = np.stack(pair, axis=2)
    for key, value in outputs.items():
        if key != "images" and not key.endswith(("_mean", "_variance")):
            result[key] = channels_first(value, (5,))
    # The original keeps the attention of the frames after the first alone.
    result["reconstructed_attention"] = result["reconstructed_attention"][:, 1:]
    return result


def check_forward(case):
    """All outputs and changed buffers of one forward pass."""
    meta, a = case.meta, case.arrays
    name = meta["case"].split("_")[1]
    shared = case.sibling(f"forward_{name}_full_train")
    params = {k[6:]: v for k, v in case.sibling(f"params_{name}").items() if k.startswith("param/")}
    observations = shared["input/observations"]
    training = meta["case"].endswith("_train")
    noise = case.under("noise/")
    for precision in ("float64", "float32"):
        model = make_model(meta["config"], params, precision, observations.shape[-2:])
        outputs = recorded_outputs(
            run_forward(
                model, observations, noise, meta["call"], meta.get("ground_truth_to_model_mapping"),
                shared["input/actions"], training,
            )
        )
        comparison = Comparison(case, precision)
        for key in [k for k in a if k.startswith("out/")]:
            comparison.check(key, outputs[key[4:]])
        mapped = convert.networks_map(model.networks)
        now = weights_by_name(model.networks, mapped, params)
        for key in [k for k in a if k.startswith("after/")]:
            comparison.check(key, now[key[6:]])
        comparison.finish(20)


def check_params(case):
    """Shared weights: every name is known and every shape fits."""
    params = case.under("param/")
    config = case.meta["config"]
    width, height = config["model"]["representation_network"]["target_input_size"]
    model = make_model(config, params, "float32", (height, width), case.arrays)
    mapped = entries(convert.networks_map(model.networks))
    assert {n for s in mapped.values() for n in s.names} == set(params)
    for name, value in weights_by_name(model.networks, mapped, params).items():
        np.testing.assert_array_equal(value, params[name], err_msg=name)


def check_losses(case):
    """Every logged scalar, the total, its gradients, and each term's gradient norms."""
    meta = case.meta
    _, name, kind = meta["case"].split("_")
    shared = case.sibling(f"forward_{name}_full_train")
    noise_case = case.sibling(f"forward_{name}_{'full' if kind == 'full' else 'pretraining'}_train")
    weights = case.sibling(f"params_{name}")
    params = {k[6:]: v for k, v in weights.items() if k.startswith("param/")}
    observations = shared["input/observations"]
    noise = {k[6:]: v for k, v in noise_case.items() if k.startswith("noise/")}
    for precision in ("float64", "float32"):
        model = make_model(meta["config"], params, precision, observations.shape[-2:], weights)
        _check_losses(case, precision, model, observations, noise, params, kind == "pretraining")


def _check_losses(case, precision, model, observations, noise, params, pretraining):
    a, meta = case.arrays, case.meta
    ground_truth = meta["ground_truth_observations"]
    call = {"gumbel_temperature": meta["gumbel_temperature"], "pretraining": pretraining,
            "ground_truth_observations_init": ground_truth}
    if model.mi_matrix is not None:
        model.mi_matrix.assign(a["mi_matrix_before"])
    variables = model.optimizers_by_name["generator"].targets
    real = constant(channels_last(observations), precision)
    with tf.GradientTape() as tape:
        outputs = run_forward(model, observations, noise, call, training=True)
        total, logs = model.losses(outputs, real, pretraining, training=True)
    gradients = tape.gradient(total, [v.value for v in variables])
    comparison = Comparison(case, precision)
    logs.update(statistics_of(model, outputs, len(observations[0]), ground_truth, meta["gumbel_temperature"]))
    check_information(comparison, "info/", logs)
    comparison.check("total", total)
    check_terms(comparison, logs)
    if model.mi_matrix is not None:
        comparison.check("mi_matrix_after", model.mi_matrix)
    mapped = convert.networks_map(model.networks)
    found = by_name(mapped, dict(zip([v.path for v in variables], gradients)), params)
    missing = set(meta["parameters_without_gradient"])
    assert {n for v, g in zip(variables, gradients) if g is None for n in entries(mapped)[v.path].names} == {
        n for n in missing if "centroid" not in n
    }
    check_gradients(comparison, found, model.hparams, pretraining)
    comparison.finish(100)


def check_terms(comparison, logs):
    """`term/<name>`: the unweighted terms that the original's loss classes gave."""
    names = {
        "observations_rec": "avg_observations_rec_loss", "states_rec": "states_rec_loss",
        "entropy": "entropy_loss", "directions_kl": "action_directions_kl_loss",
        "mutual_information": "action_mutual_information_loss", "hidden_states_rec": "hidden_states_rec_loss",
        "state_distribution_kl": "action_state_distribution_kl_loss",
    }
    for key in [k for k in comparison.case.arrays if k.startswith("term/")]:
        term = key[5:]
        if term == "perceptual_term":
            levels = [k for k in logs if k.startswith("perceptual_loss_r") and "_l" in k.removeprefix("perceptual_")]
            levels = [k for k in levels if k.count("_") == 3]
            resolutions = len({k.split("_")[2] for k in levels})
            value = sum(logs[k] for k in levels) / resolutions
        else:
            value = logs[names[term]]
        comparison.check(key, value, absolute=FLOAT32_ABSOLUTE)


def check_information(comparison, prefix, logs):
    """Every scalar that the original logs."""
    for key in [k for k in comparison.case.arrays if k.startswith(prefix)]:
        comparison.check(key, logs[key[len(prefix) :]], absolute=FLOAT32_ABSOLUTE)


def check_gradients(comparison, found, hparams, pretraining):
    """Gradients: equal in float64; a cosine of 0.99 in float32 (see the specification's section 15)."""
    a = comparison.case.arrays
    weight = "action_state_distribution_kl_lambda" + ("_pretraining" if pretraining else "")
    for name in [k[5:] for k in a if k.startswith("grad/")]:
        reference, value = a[f"grad/{name}"].astype("float64"), np.asarray(found[name], "float64")
        if name.endswith("mean_fc.bias") and not getattr(hparams, weight):
            # Exactly 0 in theory: what is recorded is rounding noise.
            assert np.abs(value - reference).max() <= 1e-7, name
            continue
        if comparison.precision == "float64":
            comparison.check(f"grad/{name}", value)
            comparison.check(f"gradnorm/{name}", np.linalg.norm(value))
            continue
        cosine = np.sum(value * reference) / max(np.linalg.norm(value) * np.linalg.norm(reference), 1e-30)
        comparison.count += 1
        if cosine < 0.99:
            comparison.failures.append(f"grad/{name}: cosine {cosine:.4f}")


def statistics_of(model, outputs, count, ground_truth, temperature):
    """What `train_step` logs beside the losses."""
    from tfvid.models.caddy import terms

    return {
        **terms.statistics(outputs, model.networks.centroids),
        "observations_count": count, "ground_truth_observations": ground_truth, "gumbel_temperature": temperature,
    }


__all__ = ["check_forward", "check_losses", "check_params", "Phase", "RecordedDraws", "zlib", "SHARP"]
