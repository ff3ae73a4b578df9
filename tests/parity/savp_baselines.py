"""Checks the recorded baselines of the SAVP project: cases savp/baseline_*."""

import zlib

import numpy as np
import tensorflow as tf

from tfvid import models
from tfvid.models.draws import RecordedDraws

# specs/savp.md, section 14: deviations of a correct float32 implementation.
IMAGE_ATOL, STATE_ATOL = 2e-5, 2e-5
LOSS_RTOL, LATER_LOSS_RTOL = 1e-4, 3e-4
GRADIENT_RTOL, GRADIENT_SHARE = 1e-2, 5e-5
PROBE_ATOL, DELTA_RTOL = 5e-5, 5e-3
# Values that a variable without a true gradient takes after Adam are rounding noise, scaled to lr.
NOISE_STEPS = 2.5


def check(case):
    """Forward pass, loss, gradients, two updates and a test rollout, as far as the case has them."""
    meta, arrays = case.meta, case.arrays
    model = build_model(meta, arrays)
    set_parameters(model, meta)
    _check_forward(model, meta, arrays)
    if any(key.startswith("train/") for key in arrays):
        _check_training(model, meta, case)
    if any(key.startswith("test/") for key in arrays):
        set_parameters(model, meta)
        model.step.assign(0)  # the recorded test graph starts anew; only its schedules show it
        check_test_rollout(model, case)


def build_model(meta, arrays, **more):
    """The model of a case with its hyper-parameters and fresh weights."""
    name = meta["model"].split()[0]
    spec = {
        key: tf.TensorSpec(arrays[f"in/{key}"].shape[1:], tf.float32)
        for key in ("images", "actions", "states")
        if f"in/{key}" in arrays
    }
    return models.build(name, models.model_class(name).HPARAMS.from_dict({**hparams_of(meta, arrays), **more}), spec)


def hparams_of(meta, arrays):
    """The recorded hyper-parameters as a dictionary."""
    if "model_hparams" in meta:
        return meta["model_hparams"]
    # `construct_model` was called directly, with arguments instead of hyper-parameters.
    arguments = dict(meta["kwargs"])
    arguments["schedule_sampling_k"] = arguments.pop("k")
    length = arrays["in/images"].shape[1]
    shuffles = sum(key.startswith("rand/") for key in arrays)  # one for each step after the context
    return {"sequence_length": length, "context_frames": length - 1 - shuffles, **arguments}


def recorded_parameters(meta):
    """{name in the original: array} by the formula in the JSON."""
    return {name: _parameter(name, shape, meta["SALT"]) for name, shape in meta["params"].items()}


def _parameter(name, shape, salt):
    r = np.random.RandomState((zlib.crc32(name.encode()) + salt) % 2**32).randn(*shape)
    scale = {
        "gamma": lambda: 1 + 0.2 * r,
        "beta": lambda: 0.2 * r,
        "biases": lambda: 0.1 * r,
        "weights": lambda: r * np.sqrt(1.6 / np.prod(shape[:-1])),
    }
    return scale[name.rpartition("/")[2]]().astype(np.float32)


def set_parameters(model, meta):
    """Fills the model; every recorded parameter has its variable and the other way round."""
    parameters = recorded_parameters(meta)
    names = {v.path: v for v in model.weights}
    assert set(names) == set(parameters)
    for name, variable in names.items():
        assert list(variable.shape) == list(parameters[name].shape), name
        variable.assign(parameters[name])
    for optimizer in model.optimizers_by_name.values():
        for slot in (*optimizer.m, *optimizer.v, optimizer.counts):
            slot.assign(tf.zeros_like(slot))
    model.step.assign(meta.get("global_step", meta.get("iter_num", 0)))


def draws_of(arrays, prefix, context, steps):
    """The recorded draws under the names that the models ask for.

    They are numbered in the order of the original's graph: the prior rollout (its
    latents, then one shuffle for each step after the context), then the posterior one.
    """
    names = sorted(k for k in arrays if k.startswith(prefix))
    first = min((int(k.split("/")[-1][:2]) for k in names), default=0)
    values, rollout, t = {}, "prior" if first == 0 else "posterior", context
    for name in names:
        if name.endswith("normal"):
            if f"{rollout}/latents" in values:
                rollout, t = "posterior", context
            values[f"{rollout}/latents"] = arrays[name]
        else:
            values[f"{rollout}/shuffle/{t}"] = arrays[name]
            t += 1
    assert t in (context, steps), "scheduled sampling shuffles at every step after the context, or never"
    return RecordedDraws(values)


def _check_forward(model, meta, arrays):
    inputs = _inputs(model, arrays, "in/")
    steps = inputs["images"].shape[1] - 1
    context = model.hparams.context_frames
    draws = draws_of(arrays, "rand/", context, steps)
    variables = model.generator.trainable_weights
    with tf.GradientTape() as tape:
        outputs = model.forward(inputs, draws, training=True)
        used = {k[: -len("_enc")]: v for k, v in outputs.items() if k.endswith("_enc")} or outputs
        losses = {k: tf.reduce_mean(v) for k, v in model.losses(used, inputs).items()}
        weights = model.loss_weights()
        total = tf.add_n([weights[k] * v for k, v in losses.items()])
    assert draws.unused() == []
    _check_outputs(outputs, arrays, "out/", model)
    _check_losses(losses, weights, total, arrays)
    gradients = tape.gradient(total, [v.value for v in variables])
    _check_gradients({v.path: g for v, g in zip(variables, gradients)}, arrays)


def _inputs(model, arrays, prefix):
    return model.prepare({
        key: tf.constant(arrays[prefix + key]) for key in ("images", "actions", "states") if prefix + key in arrays
    })


def _check_outputs(outputs, arrays, prefix, model):
    for key in [k for k in arrays if k.startswith(prefix)]:
        name, expected = key[len(prefix) :], arrays[key]
        if name == "learning_rate":
            value = model.hparams.learning_rate(model.step)
        elif name == "kl_weight":
            value = model.hparams.annealed_kl_weight(model.step)
        else:
            value = np.array(outputs[name])
            if name.startswith("zs_"):
                value = np.swapaxes(value, 0, 1)  # the original swaps the first two axes of every output
            if name.startswith("masks"):
                value = value.reshape(expected.shape)
        atol = STATE_ATOL if "states" in name else IMAGE_ATOL
        np.testing.assert_allclose(value, expected, rtol=1e-6, atol=atol, err_msg=key)


def _check_losses(losses, weights, total, arrays):
    if "l2_loss" in arrays:
        np.testing.assert_allclose(losses["gen_l2_loss"], arrays["l2_loss"], rtol=LOSS_RTOL)
        return
    recorded = {k[len("g_losses/") :] for k in arrays if k.startswith("g_losses/") and not k.endswith("/weight")}
    assert recorded == set(losses)
    for name in recorded:
        np.testing.assert_allclose(losses[name], arrays[f"g_losses/{name}"], rtol=LOSS_RTOL, err_msg=name)
        np.testing.assert_allclose(weights[name], arrays[f"g_losses/{name}/weight"], rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(total, arrays["g_loss"], rtol=LOSS_RTOL)


def _check_gradients(gradients, arrays):
    norms = {k[len("gradnorm/") :]: v for k, v in arrays.items() if k.startswith("gradnorm/")}
    everything = np.sqrt(sum(float(v) ** 2 for v in norms.values()))
    for name, gradient in gradients.items():
        gradient = np.zeros(1) if gradient is None else np.array(gradient)
        expected_norm = norms.get(name, 0.0)
        limit = GRADIENT_RTOL * expected_norm + GRADIENT_SHARE * everything
        assert abs(np.linalg.norm(gradient) - expected_norm) <= limit, name
        if f"grad/{name}" in arrays:
            difference = np.linalg.norm(gradient - arrays[f"grad/{name}"])
            assert difference <= limit, f"{name}: {difference} > {limit}"


def _check_training(model, meta, case):
    arrays, context = case.arrays, model.hparams.context_frames
    set_parameters(model, meta)
    inputs = _inputs(model, arrays, "in/")
    steps = inputs["images"].shape[1] - 1
    before = {v.path: v.numpy() for v in model.weights}
    count = len(arrays["train/g_loss"])
    for i in range(count):
        draws = draws_of(arrays, f"train/it{i}/rand/", context, steps)
        logs = model.train_on(inputs, draws)
        assert draws.unused() == []
        rtol = LATER_LOSS_RTOL if i else LOSS_RTOL
        np.testing.assert_allclose(logs["g_loss"], arrays["train/g_loss"][i], rtol=rtol, err_msg=f"iteration {i}")
    assert int(model.step) == meta["global_step"] + count
    for variable in model.weights:
        name = variable.path
        _check_update(name, before[name], variable.numpy(), arrays, NOISE_STEPS * model.hparams.lr * count)


def _check_update(name, before, after, arrays, bound):
    delta = after - before
    probe = arrays[f"train/final_probe/{name}"]
    np.testing.assert_allclose(after.ravel()[: len(probe)], probe, rtol=0, atol=PROBE_ATOL, err_msg=name)
    mean, std, norm = arrays[f"train/delta_stats/{name}"]
    np.testing.assert_allclose(np.linalg.norm(delta), norm, rtol=DELTA_RTOL, atol=1e-7, err_msg=name)
    np.testing.assert_allclose(delta.std(), std, rtol=DELTA_RTOL, atol=PROBE_ATOL, err_msg=name)
    np.testing.assert_allclose(delta.mean(), mean, rtol=DELTA_RTOL, atol=PROBE_ATOL, err_msg=name)
    assert np.abs(delta).max() <= bound


def check_test_rollout(model, case):
    """The rollout in test mode, alone and through `sample`."""
    arrays = case.arrays
    inputs = _inputs(model, arrays, "test/in/")
    steps, context = inputs["images"].shape[1] - 1, model.hparams.context_frames
    draws = draws_of(arrays, "test/rand/", context, steps)
    latents = model.sample_latents(draws, tf.shape(inputs["images"])[0], steps)
    outputs = model.rollout(inputs, steps, latents=latents)
    assert draws.unused() == []
    _check_outputs(outputs, arrays, "test/out/", model)
    # And through the public way: frames behind the context, from context frames alone.
    known = {k: v if v is None or k == "actions" else v[:, :context] for k, v in inputs.items()}
    result = model.sample(known, draws, 1, steps - context + 1)
    expected = arrays["test/out/gen_images"][:, context - 1 :]
    np.testing.assert_allclose(result["images"][0], expected, rtol=0, atol=IMAGE_ATOL)
