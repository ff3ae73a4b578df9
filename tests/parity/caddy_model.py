"""Checks of the whole CADDY model: forward passes, losses, training, playing."""

import zlib

import numpy as np
import tensorflow as tf

from tests.parity.caddy_parts import make_vgg, vgg_state, vgg_widths
from tests.parity.caddy_support import (
    RELATIVE,
    Comparison,
    by_name,
    channels_first,
    channels_last,
    configuration,
    constant,
    entries,
    joined,
    stated,
    weights_by_name,
)
from tfvid import models
from tfvid.models.caddy import convert, terms
from tfvid.models.caddy.hparams import CaddyHParams
from tfvid.models.draws import RecordedDraws

# Keys of the original's configuration -> ours, where the names differ.
RENAMED = {"learning_rate": "lr", "skip_frames": "frame_skip"}
FLOAT32_ABSOLUTE = 2e-7  # of the mutual information, a small difference of large terms
# Single scalars in float32: the KL of the state distributions divides by small variances; 7.4e-5 was measured
# in losses_main_full while the float64 run is equal to 1e-9.
LOGGED_RELATIVE = 2e-4


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
    # An ignored key with a value that tfvid refuses is refused here, too.
    known = {*CaddyHParams.__dataclass_fields__, *CaddyHParams.IGNORED_KEYS}
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
    return CaddyHParams.from_dict(values, quiet=True)


def _width(shapes, name):
    return int(np.shape(shapes[name])[0])


def make_model(config, weights, precision, image_size, vgg_arrays=None):
    """A model with the recorded weights ({original name: array})."""
    hparams = hparams_of(config, weights, precision)
    if vgg_arrays is None:  # no losses, so that frames may be smaller than VGG needs them
        hparams = hparams.replace(perceptual_loss_lambda=0.0, perceptual_loss_lambda_pretraining=0.0)
    else:
        state = vgg_state(vgg_arrays)
        hparams = hparams.replace(vgg_widths=vgg_widths(state))
    spec = {"images": tf.TensorSpec([hparams.sequence_length, *image_size, 3], tf.uint8)}
    model = models.build("caddy", hparams, spec)
    set_weights(model, weights)
    if vgg_arrays is not None:
        model.perceptual.network.load_torch(state)
    return model


def set_weights(model, weights):
    """Assigns every weight of the networks from the original's names."""
    variables = {v.path: v for v in model.networks.weights}
    mapped = entries(convert.networks_map(model.networks))
    assert set(variables) == set(mapped)
    for path, source in mapped.items():
        variables[path].assign(joined(source, weights))


def run_forward(model, observations, noise, call, mapping=None, actions=None, training=False):
    """A whole forward pass as the JSON's `call` describes it; its temperature is always given."""
    precision = model.networks.variable_dtype
    observations = constant(channels_last(observations), precision)
    noise = {k: constant(v, precision) for k, v in noise.items()}
    temperature = call["gumbel_temperature"]
    if call.get("pretraining"):
        return model.networks.pretraining(observations, noise, temperature=temperature, training=training)
    sampler = call.get("action_sampler")
    chosen = None
    if sampler == "OneHotActionSampler":
        chosen = "most_probable"
    elif sampler == "GroundTruthActionSampler":
        chosen = np.vectorize(lambda a: mapping[str(a)])(actions[:, : observations.shape[1] - 1])
    else:
        assert sampler is None, f"unknown action sampler {sampler}"
    variations = call.get("action_variation_sampler")
    assert variations in (None, "ZeroActionVariationSampler"), f"unknown variation sampler {variations}"
    return model.networks.closed_loop(
        observations, noise, ground_truth=call["ground_truth_observations_init"], temperature=temperature,
        training=training, actions=chosen, zero_variations=variations is not None,
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
    folder, cfg, _ = configuration(case, "forward")
    shared = inputs_of(case, folder, cfg)
    params = {k[6:]: v for k, v in case.sibling(f"{folder}params_{cfg}").items() if k.startswith("param/")}
    observations = shared["input/observations"]
    training = bool(case.under("after/"))  # in evaluation mode nothing changes
    call = {"gumbel_temperature": meta["config"]["model"]["action_network"]["gumbel_temperature"], **meta["call"]}
    noise = case.under("noise/")
    for precision in ("float64", "float32"):
        model = make_model(meta["config"], params, precision, observations.shape[-2:])
        outputs = recorded_outputs(
            run_forward(
                model, observations, noise, call, meta.get("ground_truth_to_model_mapping"),
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


def inputs_of(case, folder, cfg):
    """The arrays of the case that holds a configuration's observations: this one or the one that the others share."""
    return case.arrays if "input/observations" in case.arrays else case.sibling(f"{folder}forward_{cfg}_full_train")


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
    folder, cfg, rest = configuration(case, "losses")
    shared = inputs_of(case, folder, cfg)
    noise_case = case.sibling(f"{folder}forward_{cfg}_{rest}_train")
    weights = case.sibling(f"{folder}params_{cfg}")
    pretraining = "term/hidden_states_rec" in case.arrays
    params = {k[6:]: v for k, v in weights.items() if k.startswith("param/")}
    observations = shared["input/observations"]
    noise = {k[6:]: v for k, v in noise_case.items() if k.startswith("noise/")}
    for precision in ("float64", "float32"):
        model = make_model(meta["config"], params, precision, observations.shape[-2:], weights)
        _check_losses(case, precision, model, observations, noise, params, pretraining)


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
    comparison.relative = LOGGED_RELATIVE
    check_information(comparison, "info/", logs, model.hparams, pretraining)
    check_terms(comparison, logs)
    comparison.relative = RELATIVE
    comparison.check("total", total)
    if model.mi_matrix is not None:
        comparison.check("mi_matrix_after", model.mi_matrix)
    mapped = convert.networks_map(model.networks)
    found = by_name(mapped, dict(zip([v.path for v in variables], gradients)), params)
    missing = set(meta["parameters_without_gradient"])
    assert {n for v, g in zip(variables, gradients) if g is None for n in entries(mapped)[v.path].names} == {
        n for n in missing if "centroid" not in n
    }
    check_gradients(comparison, found, model.hparams, pretraining)
    comparison.finish(60)


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
        if term == "perceptual_term" and "avg_perceptual_loss" not in logs:
            continue  # without a weight it is not computed
        if term == "perceptual_term":
            levels = [k for k in logs if k.startswith("perceptual_loss_r") and "_l" in k.removeprefix("perceptual_")]
            levels = [k for k in levels if k.count("_") == 3]
            resolutions = len({k.split("_")[2] for k in levels})
            value = sum(logs[k] for k in levels) / resolutions
        else:
            value = logs[names[term]]
        comparison.check(key, value, absolute=FLOAT32_ABSOLUTE)


def check_information(comparison, prefix, logs, hparams, pretraining):
    """Every scalar that the original logs; a perceptual loss without a weight is not computed."""
    weight = terms.weight_of(hparams, "perceptual_loss", pretraining)
    unweighted = not (any(weight) if isinstance(weight, tuple) else weight)
    for key in [k for k in comparison.case.arrays if k.startswith(prefix)]:
        name = key[len(prefix) :]
        if not (unweighted and name.startswith(("perceptual_loss", "avg_perceptual_loss", "loss_component_perceptual"))):
            comparison.check(key, logs[name], absolute=FLOAT32_ABSOLUTE)


def check_gradients(comparison, found, hparams, pretraining):
    """Gradients: equal in float64; in float32 a cosine of 0.9 each and 0.99 in the median.

    Single tensors are not comparable in float32: a rounding difference flips signs (section 15 of the
    specification: equally valid evaluations differ by up to 10 %; 0.968 was measured in losses_stacked_full).
    """
    cosines = []
    a = comparison.case.arrays
    for name in [k[5:] for k in a if k.startswith("grad/")]:
        reference, value = a[f"grad/{name}"].astype("float64"), np.asarray(found[name], "float64")
        if name.endswith("mean_fc.bias") and not mean_bias_is_trained(hparams, pretraining):
            # Exactly 0 in theory: what is recorded is rounding noise.
            assert np.abs(value - reference).max() <= 1e-7, name
            continue
        if comparison.precision == "float64":
            comparison.check(f"grad/{name}", value)
            comparison.check(f"gradnorm/{name}", np.linalg.norm(value))
            continue
        cosine = np.sum(value * reference) / max(np.linalg.norm(value) * np.linalg.norm(reference), 1e-30)
        cosines.append(cosine)
        if cosine < 0.9:
            comparison.failures.append(f"grad/{name}: cosine {cosine:.4f}")
    if cosines and np.median(cosines) < 0.99:
        comparison.failures.append(f"gradients: median cosine {np.median(cosines):.4f}")


def mean_bias_is_trained(hparams, pretraining):
    """Whether a term tells the states' means from their differences; else the gradient of their bias is 0 in theory."""
    return bool(terms.weight_of(hparams, "action_state_distribution_kl", pretraining))


def statistics_of(model, outputs, count, ground_truth, temperature):
    """What `train_step` logs beside the losses."""
    return {
        **terms.statistics(outputs, model.networks.centroids),
        "observations_count": count, "ground_truth_observations": ground_truth, "gumbel_temperature": temperature,
    }


def check_train(case):
    """Two updates of the original's trainer: logs, weights, statistics after each."""
    a, meta = case.arrays, case.meta
    initial = case.under("initial/")
    count = len(case.under("input/observations/"))
    for precision in ("float64", "float32"):
        shape = a["input/observations/0"].shape
        model = make_model(meta["config"], initial, precision, shape[-2:], a)
        comparison, rounding = Comparison(case, precision), False
        for i in range(count):
            logs = one_update(model, case, i, precision)
            pretraining = model.current_phase.pretraining
            rounding |= not mean_bias_is_trained(model.hparams, pretraining)
            check_update(comparison, model, i, logs, pretraining)
            if i == 0:
                check_weights(comparison, model, "after1/", initial, rounding)
        check_weights(comparison, model, "final/", initial, rounding)
        comparison.finish(300 if precision == "float64" else 100)


def one_update(model, case, i, precision):
    """`train_step` on the recorded observations and noise of iteration `i`."""
    observations = constant(channels_last(case.arrays[f"input/observations/{i}"]), precision)
    noise = {k: v for k, v in case.under(f"noise/{i}/").items() if not k.startswith("unused_")}
    draws = RecordedDraws(noise)
    model.train_draws = lambda: draws
    if model.hparams.observations_at(int(model.step) + 1) != observations.shape[1]:
        model.step.assign_add(1)  # the original counts the step at which T changes and does not train in it
    model.current_phase = model.phase(int(model.step))
    # The clip that the recorded stacks were made of: the first one's history, then the newest frames.
    history = [observations[:, :1, ..., 3 * s : 3 * s + 3] for s in range(model.hparams.observation_stacking - 1, 0, -1)]
    images = tf.concat([*history, observations[..., :3]], axis=1) / 2 + 0.5
    logs = model.train_step({"images": images})
    assert not draws.unused(), draws.unused()
    return logs


def check_update(comparison, model, i, logs, pretraining):
    """What an update logged. In float32 iteration 0 to 1e-5, later totals to 1e-4 (single terms to 5 %)."""
    case, prefix = comparison.case, f"iter/{i}/info/"
    if comparison.precision == "float64":
        check_information(comparison, prefix, logs, model.hparams, pretraining)
        comparison.check(f"iter/{i}/lr", model_lr(model))
        if f"iter/{i}/mi_matrix" in case.arrays:
            comparison.check(f"iter/{i}/mi_matrix", model.mi_matrix)
        return
    comparison.relative = 1e-5 if i == 0 else 1e-4
    comparison.check(f"{prefix}loss", logs["loss"])
    if i == 0:
        for key in ("avg_observations_rec_loss", "avg_perceptual_loss", "states_rec_loss", "hidden_states_rec_loss"):
            if prefix + key in case.arrays and key in logs:
                comparison.check(prefix + key, logs[key])
        key = "action_mutual_information_loss"
        comparison.check(prefix + key, logs[key], absolute=FLOAT32_ABSOLUTE)
    comparison.relative = RELATIVE


def model_lr(model):
    """lr of the update that was just done."""
    model.step.assign_sub(1)
    lr = model.learning_rate()
    model.step.assign_add(1)
    return lr


def check_weights(comparison, model, prefix, initial, rounding):
    """Weights after updates: equal in float64; in float32 by the direction of their update.

    rounding: the gradient of the mean's bias was rounding noise in some update.
    """
    case = comparison.case
    now = weights_by_name(model.networks, convert.networks_map(model.networks), initial)
    # Adam divides by the root of a gradient that is rounding noise in single elements: 1.2e-4 of the reference's
    # own deviation was measured.
    comparison.amplified = 1e-3
    cosines = []
    for key in [k for k in case.arrays if k.startswith(prefix)]:
        name = key[len(prefix) :]
        skip = name.endswith("mean_fc.bias") and rounding
        if comparison.precision == "float64":
            if not skip:
                comparison.check(key, now[name])
            continue
        buffer = "running_" in name or name.endswith(("num_batches_tracked", "estimated_centroids"))
        if buffer and prefix == "after1/":
            comparison.check(key, now[name])
        elif not buffer and not skip:
            cosine = update_cosine(case.arrays[key], now[name], initial[name])
            cosines.append(cosine)
            if cosine < 0.8:
                comparison.failures.append(f"{key}: update cosine {cosine:.3f}")
    if cosines and np.median(cosines) < 0.99:
        comparison.failures.append(f"{prefix}: median update cosine {np.median(cosines):.4f}")
    comparison.amplified = 0.0


def update_cosine(reference, value, initial):
    """Cosine of two updates; 1 where neither moves."""
    first, second = (np.ravel(x).astype("float64") - np.ravel(initial) for x in (reference, value))
    norms = np.linalg.norm(first) * np.linalg.norm(second)
    return float(first @ second / norms) if norms else float(not first.any() and not second.any())


def check_sample(case):
    """Interactive play: plain, with variations, and between two actions."""
    a, meta = case.arrays, case.meta
    params = case.under("param/")
    start = a["input/observation"]
    for precision in ("float64", "float32"):
        model = make_model(meta["config"], params, precision, start.shape[-2:])
        comparison = Comparison(case, precision)
        for mode in sorted({k.split("/")[0] for k in a if "/frame/" in k}):
            steps = len(case.under(f"{mode}/frame/"))
            choices = [_choice(model, case, mode, t, precision) for t in range(steps)]
            observation = constant(channels_last(start[None]), precision)
            memory = model.networks.dynamics.initial_memory(1)
            state = {"observation": observation}
            for i, (hidden, cell) in enumerate(memory):
                state.update({f"hidden_{i}": hidden, f"cell_{i}": cell})
            for t, (action, variation) in enumerate(choices):
                frame, state = model.play(state, tf.constant([action]), variation)
                comparison.check(f"{mode}/frame/{t}", channels_first(frame * 2 - 1)[0])
            comparison.check(f"{mode}/observation_last", channels_first(state["observation"])[0])
        comparison.finish(6)


def _choice(model, case, mode, t, precision):
    a = case.arrays
    if mode != "interpolation":
        variation = constant(a[f"noisy/variation/{t}"], precision) if mode == "noisy" else None
        return int(a["input/actions"][t]), variation
    plan = case.meta["interpolation"]
    action, variation = model.networks.interpolation(plan["first"], plan["second"], plan["factors"][t])
    return action, variation[None]


def formula_weights(meta):
    """Weights that are not stored but made from their names (see the JSON's notes)."""
    return {
        name: formula_value(name, shape, meta["salt"], meta["batchnorm"]) for name, shape in meta["shapes"].items()
    }


def formula_value(name, shape, salt, norms):
    """One weight: f(z), z seeded by the name and the case's salt."""
    z = np.random.RandomState((zlib.crc32(name.encode()) ^ salt) & 0x7FFFFFFF).standard_normal(shape)
    owner, leaf = name.rsplit(".", 1)
    if leaf == "num_batches_tracked":
        return np.array(3, "int64")
    if leaf == "running_var":
        value = np.exp(0.3 * z)
    elif leaf == "running_mean":
        value = 0.1 * z
    elif owner in norms:
        value = 1 + 0.2 * z if leaf == "weight" else 0.2 * z
    elif "initial_hidden" in leaf:
        value = 0.4 * z
    elif "centroids" in leaf:
        value = 0.7 * z
    elif name.endswith("variance_fc.bias"):
        value = 1.5 + 0.2 * z
    elif np.ndim(z) >= 2:
        value = 1.5 * z / np.sqrt(np.prod(np.shape(z)[1:]))
    else:
        value = 0.1 * z
    return np.asarray(value, "float32")


def check_fullwidth(case):
    """The published widths: VGG-19, or a whole model with its gradient norms."""
    a, meta = case.arrays, case.meta
    weights = formula_weights(meta)
    for precision in ("float64", "float32"):
        comparison = Comparison(case, precision)
        if "in" in a:
            vgg = make_vgg(weights, precision, prefix="")
            for i, value in enumerate(vgg(constant(channels_last(a["in"]), precision))):
                comparison.check(f"out/{i}", channels_first(value))
            comparison.finish(5)
            continue
        _check_fullwidth_model(comparison, weights, precision)
        comparison.finish(40)


def _check_fullwidth_model(comparison, weights, precision):
    case, meta = comparison.case, comparison.case.meta
    observations = case.arrays["input/observations"]
    call = {
        "ground_truth_observations_init": int(stated(case, r"(\d+) ground-truth frame", 1)),
        "gumbel_temperature": stated(case, r"temperature ([\d.]*\d)", 0.7),
    }
    for mode in ("train", "eval"):
        model = make_model(meta["config"], weights, precision, observations.shape[-2:])
        variables = model.networks.trainable_variables
        with tf.GradientTape() as tape:
            outputs = run_forward(model, observations, case.under("noise/"), call, training=mode == "train")
            distribution = tf.stack([outputs["states_mean"], outputs["states_variance"]], axis=2)
            parts = [
                outputs["images"][0], outputs["action_logits"], outputs["reconstructed_action_logits"], distribution
            ]
            total = tf.add_n([tf.reduce_mean(tf.square(part)) for part in parts])
        found = recorded_outputs(outputs)
        for key in [k for k in case.arrays if k.startswith(f"{mode}/out/")]:
            name = key[len(mode) + 5 :]
            value = found[name.removesuffix("_every_nth_channel")]
            if name.endswith("_every_nth_channel"):
                value = value[:, :, :: value.shape[2] // case.arrays[key].shape[2]]
            comparison.check(key, value)
        if mode == "train":
            comparison.check("train/loss", total)
            if precision == "float64":  # see check_gradients
                gradients = tape.gradient(total, [v.value for v in variables])
                mapped = convert.networks_map(model.networks)
                for name, value in by_name(mapped, dict(zip([v.path for v in variables], gradients)), weights).items():
                    comparison.check(f"gradnorm/{name}", np.linalg.norm(value))
