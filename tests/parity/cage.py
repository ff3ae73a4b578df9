"""Recorded cases of CAGE: what is compared with what, and how closely (end of the specification)."""

import dataclasses

import numpy as np
import tensorflow as tf

from tests.parity import cage_demo, cage_networks
from tests.parity.cage_support import assert_close, fill, first, last, of_kind, ordered_draws, parameters_of
from tfvid import models
from tfvid.models.cage import convert
from tfvid.models.cage.hparams import CageHParams
from tfvid.models.cage.model import Cage
from tfvid.models.draws import RecordedDraws


def check(case):
    """Runs one case."""
    kind = case.meta["case"]
    runners = {**RUNNERS, **cage_networks.RUNNERS}
    known = [prefix for prefix in runners if kind.startswith(prefix)]
    if not known:
        raise NotImplementedError(f"no comparison for a case of the kind {kind!r}")
    runners[max(known, key=len)](case)


def hparams_of(config, **changes):
    """The recorded configuration as our hyper-parameters; a key that has no place is an error."""
    regressor, autoencoder = config["vector_field_regressor"], config["autoencoder"]
    shape, vit = autoencoder["ddconfig"], config["dino"]
    own = {k: v for k, v in config.items() if k not in ("vector_field_regressor", "autoencoder", "dino")}
    own |= {k: v for k, v in regressor.items() if k not in ("num_frames", "feats_dim")}
    assert vit.get("mlp_ratio", 4) == 4 and vit.get("interpolate_offset", 0.1) == 0.1 and not shape.get("double_z")
    return CageHParams.from_dict(
        {
            **own,
            "dino_version": "tiny",
            "vit_shape": [
                vit["embed_dim"],
                vit["depth"],
                vit["num_heads"],
                vit["patch_size"],
                vit["img_size"] // vit["patch_size"],
            ],
            "autoencoder_type": autoencoder["type"],
            "autoencoder_config": "custom",
            "autoencoder_levels": shape["ch_mult"],
            "autoencoder_width": shape["ch"],
            "autoencoder_blocks": shape["num_res_blocks"],
            "autoencoder_resolution": shape["resolution"],
            "autoencoder_attention": shape["attn_resolutions"],
            "autoencoder_z_channels": shape["z_channels"],
            "num_embeddings": shape["n_embed"],
            **changes,
        }
    )


def build(case, **changes):
    """The tiny full model with the recorded weights, for frames that give the configuration's `state_res`."""
    name = parameters_of(case)
    shared, own = case.sibling_meta(name)["config"], case.meta.get("config", {})
    config = {**shared, **own}
    for part in ("dino", "autoencoder", "vector_field_regressor"):
        config[part] = {**shared[part], **own.get(part, {})}
    hparams = hparams_of(config, **changes)
    factor = 2 ** (len(hparams.autoencoder_levels) - 1)
    spec = {"images": tf.TensorSpec([None, *(s * factor for s in hparams.state_res), 3], tf.float32)}
    with models.float_policy("float32"):
        model = Cage(hparams, spec)
    parameters = {k[len("param/") :]: v for k, v in case.sibling(name).items() if k.startswith("param/")}
    fill(full_map(model), parameters, ("time_projection", "mask_token", "num_batches_tracked"))
    return model


def full_map(model):
    return (
        convert.regressor_map("vector_field_regressor.", model.regressor)
        | convert.autoencoder_map("ae.", model.autoencoder)
        | convert.vit_map("dino.", model.vit)
    )


def training_draws(draws, batch, hparams):
    """Names for the draws of one forward pass, walked through in call order."""
    it = iter(draws)

    def take(function):
        name, value = next(it)
        assert name.startswith(function), f"expected {function}, recorded {name}"
        return value

    values = {"reference": take("randint")}
    values["context"] = np.stack([take("randint") for _ in range(batch)])
    if not hparams.no_scale_inv:
        values["scale"], values["shift"] = take("rand"), take("rand")
    values["select"] = last(take("bernoulli")) > 0.5
    values["noise"] = last(take("randn_like"))
    values["times"] = take("rand").reshape(batch, -1)
    values["drop_context"] = take("rand").reshape(1)
    context = hparams.num_context_frames
    shape = (batch, context + 1, *values["noise"].shape[2:])
    values["drop_reference"], values["replacement"] = np.ones(1, "float32"), np.zeros(shape, "float32")
    if values["drop_context"][0] < hparams.no_context_p:
        values["drop_reference"] = take("rand").reshape(1)
        replacement = last(take("randn_like"))
        values["replacement"][:, : replacement.shape[1]] = replacement
    values["order"] = take("rand")
    assert next(it, None) is None, "more draws were recorded than a forward pass has"
    return RecordedDraws(values)


def check_forward(case):
    observations = last(case.arrays["in/observations"])
    model = build(case)
    draws = training_draws(ordered_draws(case.arrays), len(observations), model.hparams)
    inputs = model.training_inputs(tf.constant(observations), draws)
    variables = model.optimizers_by_name["regressor"].targets
    with tf.GradientTape() as tape:
        loss = model.flow_loss(inputs)
    gradients = tape.gradient(loss, variables)
    assert_close(loss, case.arrays["loss/flow_matching_loss"], "loss")
    np.testing.assert_allclose(inputs["num_controls"], case.arrays["out/num_controls"], 1e-6)
    compare_inputs(case.arrays, inputs)
    compare_gradients(case.arrays, "gradnorm/", model, gradients, norms=True)
    full = of_kind(case, case.meta["case"].replace("forward", "losses_grads"))
    if full:
        compare_gradients(case.sibling(full), "grad/", model, gradients, norms=False)


def compare_inputs(arrays, inputs):
    """What the regressor is given, and asked for."""
    np.testing.assert_array_equal(inputs["indices"], arrays["mid/selected_frames_indices"])
    np.testing.assert_array_equal(first(inputs["masks"]), arrays["mid/feats_masks"])
    np.testing.assert_allclose(inputs["times"], arrays["mid/timestamps"], 0, 1e-7)
    assert_close(first(inputs["latents"]), arrays["mid/input_latents"], "latents")
    # Only what is shown counts: elsewhere the regressor sees its mask token.
    shown = arrays["mid/feats_masks"]
    assert_close(first(inputs["features"]) * shown, arrays["mid/feats"] * shown, "features")
    targets = arrays["out/target_vectors"]
    assert_close(first(inputs["target"])[:, -targets.shape[1] :], targets, "target")


def compare_gradients(arrays, prefix, model, gradients, norms):
    by_variable = {id(v): g for v, g in zip(model.optimizers_by_name["regressor"].targets, gradients)}
    entries = convert.regressor_map("vector_field_regressor.", model.regressor)
    compared = 0
    for name, (variable, transform) in entries.items():
        key = next(
            (k for k in (prefix + name, prefix + name.removeprefix("vector_field_regressor.")) if k in arrays), None
        )
        if key is None:
            continue
        gradient = tf.convert_to_tensor(by_variable[id(variable)]).numpy()
        compared += 1
        if norms:
            np.testing.assert_allclose(np.linalg.norm(gradient), arrays[key], 1e-4, 1e-7, err_msg=name)
            continue
        keep = trainable_entries(name, gradient.shape, model)
        recorded = transform(arrays[key]) if transform else arrays[key]
        assert_close(gradient * keep, recorded * keep, name, 5e-5)
    assert compared


def trainable_entries(name, shape, model):
    """0 where the gradient is exactly zero in theory and the recording holds rounding noise."""
    keep = np.ones(shape, "float32")
    if name.endswith("in_proj_bias"):
        width = shape[0] // 3
        keep[width : 2 * width] = 0
    if ".spatial." in name and name.endswith("time_qkv.weight"):
        width = shape[1] // 3
        keep[:, width : 2 * width] = 0
    return keep


def check_train(case):
    training = case.meta["training_config"]
    optimizer = training["optimizer"]
    weights = training.get("loss_weights", {})
    model = build(
        case,
        **weights,
        lr=optimizer["learning_rate"],
        weight_decay=optimizer["weight_decay"],
        num_warmup_steps=optimizer["num_warmup_steps"],
        num_training_steps=optimizer["num_training_steps"],
    )
    iterations = len({k.split("/")[0] for k in case.arrays if k.startswith("it") and k.endswith("/loss")})
    for i in range(iterations):
        prefix = f"it{i}/"
        observations = last(case.arrays[f"{prefix}observations"])
        draws = training_draws(ordered_draws(case.arrays, f"{prefix}draw/"), len(observations), model.hparams)
        model.train_draws = lambda draws=draws: draws
        model.signed = tf.convert_to_tensor
        np.testing.assert_allclose(model.learning_rate(), case.arrays[f"{prefix}lr"], 1e-5)
        logs = model.train_step({"images": observations})
        total = model.hparams.flow_matching_loss * logs["flow_matching_loss"]
        np.testing.assert_allclose(total, case.arrays[f"{prefix}loss"], 1e-5)
        if f"{prefix}grad_total_norm_before_clip" in case.arrays:
            recorded = case.arrays[f"{prefix}grad_total_norm_before_clip"]
            np.testing.assert_allclose(logs["regressor_grad_norm"], recorded, 1e-4)
    compare_final(case, model)


def compare_final(case, model):
    squares, count = 0.0, 0
    for name, (variable, transform) in convert.regressor_map("vector_field_regressor.", model.regressor).items():
        recorded = (
            case.arrays[f"final/{name}"] if f"final/{name}" in case.arrays else case.arrays[f"param_final/{name}"]
        )
        recorded = transform(recorded) if transform else recorded
        difference = (variable.numpy() - recorded) * trainable_entries(name, variable.shape, model)
        np.testing.assert_allclose(difference, np.zeros_like(difference), 0, 1e-4, err_msg=name)
        squares, count = squares + np.sum(difference**2), count + difference.size
    assert np.sqrt(squares / count) < 1e-6


def check_sample(case):
    arguments = case.meta["arguments"]
    frames = case.arrays["out/frames"]
    model = build(case)
    draws = iter(ordered_draws(case.arrays))
    given = arguments["n_initial_frames"]
    values = {}
    if given < 2:
        values["initial_noise"] = last(next(draws)[1])
    values["start_noise"] = last(next(draws)[1])
    contexts = [v for name, v in draws if name.startswith("randint")]
    evaluated = iter(contexts)

    def draws_of(name, evaluation=None):
        if name in values:
            return RecordedDraws({name: values[name]})
        return RecordedDraws({"context": next(evaluated)})

    key = next((k for k in case.arrays if k in ("in/initial_frames", "in/initial")), None)
    initial = tf.constant(last(case.arrays[key])) if key else None
    sampled = model.sample(
        draws_of,
        arguments["num_frames"],
        initial,
        tf.constant(last(case.arrays["in/feats"])),
        tf.constant(last(case.arrays[next(k for k in case.arrays if k.startswith("in/") and "mask" in k)])),
        num_steps=arguments["num_steps"],
        odesolver=arguments["odesolver"],
        gamma=float(arguments["gamma"]),
        past_horizon=arguments["past_horizon"],
        method=arguments["method"],
    )
    assert next(evaluated, None) is None, "fewer function evaluations than recorded"
    assert_close(first(sampled), frames[:, given:], "frames")


def check_parameters(case):
    """Every recorded parameter has a place; shapes are checked as they are assigned."""
    build(case)


def check_gradients(case):
    """The full gradients belong to the `forward` of the same suffix."""
    kind = case.meta["case"].replace("losses_grads", "forward")
    name = of_kind(case, kind)
    assert name, f"no case of the kind {kind!r}, whose gradients these are"
    check_forward(dataclasses.replace(case, name=name))


RUNNERS = {
    "forward": check_forward,
    "losses_grads": check_gradients,
    "train": check_train,
    "sample_": check_sample,
    "model_params": check_parameters,
    "data": cage_demo.check_data,
    "demo": lambda case: cage_demo.check_demo(case, build(case)),
}
