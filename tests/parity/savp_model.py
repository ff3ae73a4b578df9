"""Recorded SAVP models: forward passes, losses, gradients, updates, sampling, variants of the generator.

Tolerances are those of specs/savp.md section 14 where the JSON's are too strict for
float32, else the JSON's.
"""

import re

import numpy as np
import tensorflow as tf

from tests.parity import savp_sampling
from tests.parity.savp_support import (
    INPUTS,
    LOSS_RTOL,
    assert_close,
    build,
    check_gradients,
    check_outputs,
    check_without_gradient,
    inputs_of,
    load,
    recorded_draws,
    rollout_outputs,
    variables_of,
)
from tfvid.models.savp import losses as losses_lib
from tfvid.models.savp.networks_generator import OUTPUTS
from tfvid.models.video_model import weighted_sum

LATER_LOSS_RTOL = 3e-4
PARAMETER_ATOL, VECTOR_ATOL = 2e-6, 1e-5
# What the original calls the outputs of a rollout with latents of the prior.
PRIOR_OUTPUTS = (
    "gen_images", "gen_states", "gen_pix_distribs", "gen_flows", "gen_flows_rgb", "masks", "transformed_images",
    "transformed_pix_distribs", "ground_truth_sampling_mean",
)


def check(case):
    """Parameters (nothing to run), forward, losses, training, sampling or a variant."""
    arrays = case.arrays
    if any(k.startswith("cot/") for k in arrays):
        return _check_variant(case)
    if "sequence_length" in case.meta:  # a rollout in test mode has a length of its own
        return savp_sampling.check(case)
    if any(k.startswith("out/") for k in arrays):
        return _check_forward(case)
    if any(k.startswith("it0/") for k in arrays):
        return _check_training(case)
    if "g_loss" in arrays:
        return _check_losses(case)
    build(case, case.under("param/"), _inputs(case))
    return None


def _sibling(case, part):
    """The name of another part of the same recording."""
    return f"{case.name.rsplit('_', 1)[0]}_{part}"


def _inputs(case):
    """Inputs of the recording, wherever they lie."""
    arrays = case.arrays if any(k.startswith("in/") for k in case.arrays) else case.sibling(_sibling(case, "forward"))
    return {k[3:]: v for k, v in arrays.items() if k.startswith("in/")}


def _params(case):
    arrays = case.arrays
    if not any(k.startswith("param/") for k in arrays):
        arrays = case.sibling(_sibling(case, "params"))
    return {k[6:]: v for k, v in arrays.items() if k.startswith("param/")}


def _recorded_calls(names):
    """The calls of the discriminators of which something is recorded."""
    calls = {m.group(1) for m in (re.fullmatch(r"discrim_\w+?_sn_[a-z0-9]+_(\w+)", n) for n in names) if m}
    return [c for c in ("real", "fake", "enc_real", "enc_fake") if c in calls]


def _recorded_rollouts(names):
    """The rollouts of which something is recorded, posterior first."""
    calls = _recorded_calls(names)
    posterior = any(n.endswith("_enc") for n in names) or "enc_fake" in calls
    prior = any(n in names for n in PRIOR_OUTPUTS) or "fake" in calls
    return (("posterior",) if posterior else ()) + (("prior",) if prior else ())


def _forward(model, case, tape=None):
    """(inputs, outputs) with every output that a rollout can give."""
    inputs = inputs_of(model, _inputs(case))
    expected = case.under("out/")
    rollouts = _recorded_rollouts(expected) if expected else None
    outputs = model.forward(inputs, recorded_draws(case.under("rand/")), True, rollouts=rollouts, keep=OUTPUTS)
    return inputs, outputs


def _check_variant(case):
    model = build(case, _params(case), _inputs(case))
    variables = variables_of(model)
    with tf.GradientTape() as tape:
        _, outputs = _forward(model, case)
        named = rollout_outputs(outputs)
        total = tf.add_n([
            tf.reduce_sum(named[key] * tf.constant(cotangent)) for key, cotangent in case.under("cot/").items()
        ])
    check_outputs(named, case.under("out/"))
    gradients = tape.gradient(total, list(variables.values()))
    gradients = dict(zip(variables, gradients))
    check_without_gradient(gradients, case.meta["variables_without_gradient"])
    check_gradients(gradients, case.under("grad/"), case.under("gradnorm/"))


def _check_forward(case):
    model = build(case, _params(case), _inputs(case))
    inputs, outputs = _forward(model, case)
    named = {
        **rollout_outputs(outputs),
        "learning_rate": model.hparams.learning_rate(model.step),
        "kl_weight": model.kl_weight(),
    }
    expected = case.under("out/")
    draws = recorded_draws(case.under("rand/"))
    if model.discriminator is not None:
        calls, kinds = _recorded_calls(expected), model.hparams.discriminator_kinds
        judged, _ = model.judge("pass1", inputs, outputs, draws, dict.fromkeys(calls, kinds))
        named.update(_discriminator_outputs(judged))
    if "gen_images_samples" in expected:
        named["gen_images_samples"] = savp_sampling.training_samples(model, inputs, draws)
        if "gen_images_samples_avg" in expected:
            named["gen_images_samples_avg"] = np.mean(named["gen_images_samples"], axis=-1)
    check_outputs(named, expected)


def _discriminator_outputs(judged):
    """The original's names and axes: every output has its first two axes swapped at its boundary."""
    named = {}
    for call, kinds in judged.items():
        for kind, (logits, features) in kinds.items():
            values = {f"discrim_{kind}_logits_{call}": logits}
            values.update({f"discrim_{kind}_feature{i}_{call}": f for i, f in enumerate(features)})
            swap = kind == "image_sn"  # batch first inside, so that swapping moves it
            named.update({k: np.swapaxes(v, 0, 1) if swap else np.asarray(v) for k, v in values.items()})
    return named


def _check_losses(case):
    model = build(case, _params(case), _inputs(case))
    h, arrays = model.hparams, case.arrays
    inputs, draws = inputs_of(model, _inputs(case)), recorded_draws(case.under("rand/"))
    variables = variables_of(model)
    with tf.GradientTape(persistent=True) as tape:
        outputs = model.forward(inputs, draws, True)
        losses, d_losses = model.frame_losses(inputs, outputs), {}
        if model.discriminator is not None:
            judged, _ = model.judge("pass1", inputs, outputs, draws, model.calls_of_discriminators())
            losses.update(losses_lib.generator_adversarial_losses(h, judged))
            d_losses = losses_lib.discriminator_losses(h, judged)
        weights = losses_lib.generator_weights(h, model.kl_weight())
        g_loss = weighted_sum(losses, weights)
        d_loss = weighted_sum(d_losses, losses_lib.discriminator_weights(h)) if d_losses else tf.constant(0.0)
    d_weights = losses_lib.discriminator_weights(h)
    for prefix, found, found_weights in (("g_losses/", losses, weights), ("d_losses/", d_losses, d_weights)):
        recorded = case.under(prefix)
        values = {k: v for k, v in recorded.items() if not k.endswith("/weight")}
        assert set(values) == set(found)
        for name, value in values.items():
            assert_close(found[name], value, rtol=LOSS_RTOL, name=f"{prefix}{name}")
            assert_close(found_weights[name], recorded[f"{name}/weight"], rtol=1e-6, name=f"{prefix}{name}/weight")
    assert_close(g_loss, arrays["g_loss"], rtol=LOSS_RTOL, name="g_loss")
    assert_close(d_loss, arrays["d_loss"], rtol=LOSS_RTOL, atol=1e-12, name="d_loss")
    assert_close(h.learning_rate(model.step), arrays["learning_rate"], rtol=1e-6, name="learning_rate")
    rollout = outputs["prior"]["image"] if "prior" in outputs else None
    savp_sampling.check_metrics(case.under("metrics/"), rollout, inputs["image"], h.context_frames)
    for scope, total, prefix, key in (
        ("generator", g_loss, "g_grad", "generator_variables_without_gradient"),
        ("discriminator", d_loss, "d_grad", "discriminator_variables_without_gradient"),
    ):
        own = {n: v for n, v in variables.items() if n.startswith(f"{scope}/")}
        if not own:
            continue
        gradients = dict(zip(own, tape.gradient(total, list(own.values()))))
        check_without_gradient(gradients, case.meta[key])
        suffix = "_pre" if scope == "generator" else ""
        check_gradients(gradients, case.under(f"{prefix}{suffix}/"), case.under(f"{prefix}norm{suffix}/"))


def _check_training(case):
    model = build(case, _params(case), _inputs(case))
    batch = {k: tf.constant(v) for k, v in _inputs(case).items()}
    untrained = {k: v for k, v in _params(case).items() if k.startswith("discriminator/")}
    captured = {}
    apply = model.apply_gradients

    def capture(name, gradients, lr, variables=None):
        targets = model.optimizers_by_name[name].targets
        captured.update({v.path: g for v, g in zip(targets, gradients)})
        return apply(name, gradients, lr, variables)

    model.apply_gradients = capture
    iteration = 0
    rates = []
    while any(k.startswith(f"it{iteration}/") for k in case.arrays):
        recorded = case.under(f"it{iteration}/")
        draws = recorded_draws({k[5:]: v for k, v in recorded.items() if k.startswith("rand/")})
        model.train_draws = lambda draws=draws: draws
        captured.clear()
        rates.append(float(model.hparams.learning_rate(model.step)))
        logs = model.train_step(batch)
        assert draws.unused() == []
        if model.hparams.joint_gan_optimization:  # the original never updates its discriminators then
            load([v for v in model.weights if v.path in untrained], untrained)
        _check_iteration(recorded, logs, captured, iteration)
        iteration += 1
    assert int(model.step) == int(case.arrays["final_global_step"])
    _check_final(case, {v.path: np.asarray(v) for v in model.weights}, max(rates) * iteration)


def _check_iteration(recorded, logs, gradients, iteration):
    rtol = LATER_LOSS_RTOL if iteration else LOSS_RTOL
    for name, value in recorded.items():
        group, _, loss = name.partition("/")
        found = {
            "d_loss": lambda: logs.get("d_loss", 0.0),
            "g_loss": lambda: logs["g_loss"],
            "g_loss_post": lambda: logs.get("g_loss_post", logs["g_loss"]),
            "d_losses": lambda loss=loss: logs[loss],
            "g_losses": lambda loss=loss: logs[loss],
            "g_losses_post": lambda loss=loss: logs.get(f"{loss}_post", logs[loss]),
        }.get(group)
        if found is not None:
            assert_close(found(), value, rtol=rtol, atol=1e-12, name=name)
    for prefix in ("d_grad", "g_grad"):
        scope = "discriminator/" if prefix == "d_grad" else "generator/"
        own = {k: g for k, g in gradients.items() if k.startswith(scope)}
        values = {k[len(prefix) + 1 :]: v for k, v in recorded.items() if k.startswith(f"{prefix}/")}
        norms = {k[len(prefix) + 5 :]: v for k, v in recorded.items() if k.startswith(f"{prefix}norm/")}
        check_gradients(own, values, norms, later=iteration > 0)


def _check_final(case, found, most):
    """Totals and shares over the stable elements of all parameters together; see section 14."""
    initial, stable, final = _params(case), case.under("stable/"), case.under("final/")
    errors, moves, close, count = 0.0, 0.0, 0, 0
    for name, value in final.items():
        difference = np.abs(found[name] - value)
        if name.endswith("/u"):
            assert difference.max() <= VECTOR_ATOL, name
            continue
        assert difference.max() <= 2.5 * most, f"{name}: {difference.max()} > {2.5 * most}"
        mask = stable[name].astype(bool) if name in stable else np.ones(value.shape, bool)
        errors += np.sum(np.square(difference[mask], dtype=np.float64))
        moves += np.sum(np.square((value - initial[name])[mask], dtype=np.float64))
        close += np.sum(difference[mask] <= PARAMETER_ATOL)
        count += mask.sum()
    assert np.sqrt(errors) <= 0.03 * np.sqrt(moves), f"{np.sqrt(errors)} > 0.03 * {np.sqrt(moves)}"
    assert close >= 0.9 * count, f"{close / count:.1%} within {PARAMETER_ATOL}"


__all__ = ["INPUTS", "check"]
