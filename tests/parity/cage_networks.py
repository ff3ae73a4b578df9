"""Recorded parts of CAGE in isolation, at tiny and at published sizes."""

import dataclasses
import zlib

import numpy as np
import tensorflow as tf

from tests.parity.cage_support import assert_close, fill, first, last, of_kind, parameters_of
from tfvid.models.cage import convert, geometry
from tfvid.models.cage.hparams import CageHParams
from tfvid.models.cage.model import Cage
from tfvid.models.cage.networks_regressor import (
    CrossLayer,
    GridEmbedding,
    SpatialLayer,
    TemporalLayer,
    VectorFieldRegressor,
    gather_tokens,
    time_embedding,
)
from tfvid.models.cage.networks_vit import VisionTransformer
from tfvid.models.cage.networks_vqgan import VQGAN, VQGANConfig
from tfvid.models.cage.networks_vqvae import VQVAE
from tfvid.models.cage.sampling import SOLVERS, solve

UNUSED = ("time_projection", "mask_token")


# Building.


def regressor(config):
    """A VectorFieldRegressor of a recorded configuration."""
    keys = (
        "inner_dim",
        "num_heads",
        "fc_dim",
        "depth",
        "mid_depth",
        "max_relative_position",
        "masking_ratio",
        "causal",
    )
    return VectorFieldRegressor(
        state_size=config["state_size"],
        state_res=config["state_res"],
        feature_dim=config["feats_dim"],
        **{k: config[k] for k in keys},
    )


def vqgan(config):
    """A VQGAN of a recorded configuration."""
    fields = VQGANConfig.__dataclass_fields__
    return VQGAN(VQGANConfig(**{k: tuple(v) if isinstance(v, list) else v for k, v in config.items() if k in fields}))


def vit(config, kind):
    """A VisionTransformer of a recorded configuration."""
    patch = config["patch_size"]
    return VisionTransformer(
        config["embed_dim"],
        config["depth"],
        config["num_heads"],
        patch_size=patch,
        position_grid=config["img_size"] // patch,
        kind=kind,
        mlp_ratio=config.get("mlp_ratio", 4),
    )


def recipe(name, shape, seed):
    """The value that the recordings' recipe gives to a parameter."""
    state = np.random.RandomState((zlib.crc32(name.encode()) ^ seed) % 2**32)
    x = state.standard_normal(int(np.prod(shape))).reshape(shape)
    tables = ("cls_token", "mask_token", "pos_embed", "msk_token")
    if name.endswith(("embedding.weight", "row_embed.weight", "col_embed.weight", "embeddings_table", *tables)):
        x = 0.5 * x
    elif name.endswith("running_mean"):
        x = 0.1 * x
    elif name.endswith("running_var"):
        x = np.exp(0.2 * x)
    elif name.endswith("gamma") or (len(shape) == 1 and name.endswith("weight")):
        x = 1 + 0.1 * x
    elif name.endswith("bias"):
        x = 0.1 * x
    elif len(shape) >= 2:
        x = x / np.sqrt(np.prod(shape[1:]))
    return x.astype(np.float32)


def recipe_input(name, shape, seed):
    """An input that the recordings' recipe gives."""
    state = np.random.RandomState((zlib.crc32(name.encode()) ^ seed) % 2**32)
    return state.standard_normal(int(np.prod(shape))).reshape(shape).astype(np.float32)


def fill_by_recipe(case, entries):
    """Every parameter of the recipe, under the names that the recording lists."""
    shapes = case.meta["param_names_shapes"]
    values = {n: recipe(n, tuple(s), case.meta["seed"]) for n, s in shapes.items() if "num_batches" not in n}
    fill(entries, values, UNUSED)


def inputs_by_recipe(case):
    return {n: recipe_input(n, tuple(s), case.meta["seed"]) for n, s in case.meta["recipe_inputs"].items()}


def stored(case, prefix=""):
    """The parameters of the case, or those of the tiny full model under `prefix`."""
    arrays, start = (case.arrays, "param/")
    if case.meta.get("params_file"):
        arrays, start = case.sibling(parameters_of(case)), "param/" + case.meta.get("params_prefix", prefix)
    return {k[len(start) :]: v for k, v in arrays.items() if k.startswith(start)}


# The regressor.


def check_regressor(case):
    real = case.meta["case"].startswith("real_")
    model = regressor(case.meta["config"])
    entries = convert.regressor_map("", model)
    if real:
        fill_by_recipe(case, entries)
        arrays = inputs_by_recipe(case)
        arrays["feats_masks"] = (arrays["feats_masks_normal"] > 1.2816).astype(np.float32)
    else:
        own = case if case.under("param/") else dataclasses.replace(case, name=of_kind(case, "net_vfr"))
        fill(entries, own.under("param/"), UNUSED)
        arrays = {k: case.arrays[f"in/{k}"] for k in ("input_latents", "feats", "feats_masks")}
    for mode in ("masked", "unmasked"):
        if f"{mode}/out" in case.arrays:
            check_regressor_mode(case, model, entries, arrays, mode)


def check_regressor_mode(case, model, entries, arrays, mode):
    latents = tf.constant(last(arrays["input_latents"]))
    order = tf.constant(case.arrays[f"{mode}/draw_noise"]) if mode == "masked" else None
    variables = [v for v, _ in entries.values()]
    with tf.GradientTape() as tape:
        condition = model.condition(
            tf.constant(last(arrays["feats"])), tf.constant(last(arrays["feats_masks"])), latents.shape[1]
        )
        velocity, kept = model(
            latents,
            indices=tf.constant(case.arrays["in/indices"]),
            times=tf.constant(case.arrays["in/timestamps"]),
            condition=condition,
            order=order,
        )
        out = tf.transpose(velocity, (0, 1, 4, 2, 3))
        objective = tf.reduce_mean(
            out * np.cos(np.arange(out.shape.num_elements())).reshape(out.shape).astype("float32")
        )
    assert_close(out, case.arrays[f"{mode}/out"], mode)
    if mode == "masked":
        np.testing.assert_array_equal(kept, case.arrays["masked/selected_masks"][:, 0, 0] > 0.5)
    norms = {k: v for k, v in case.arrays.items() if k.startswith(f"{mode}/gradnorm/")}
    if norms:
        gradients = tape.gradient(objective, [v.value for v in variables])
        compare_norms(dict(zip(entries, gradients)), norms, f"{mode}/gradnorm/", 1e-4)


def compare_norms(gradients, recorded, prefix, rtol, floor=1e-4):
    """Norms above `floor` of the largest; the rest must stay below a tenth of that (rounding noise)."""
    largest = max(float(v) for v in recorded.values())
    compared = 0
    for name, gradient in gradients.items():
        if prefix + name not in recorded:
            continue
        norm = 0.0 if gradient is None else np.linalg.norm(tf.convert_to_tensor(gradient))
        expected = float(recorded[prefix + name])
        if expected > floor * largest:
            np.testing.assert_allclose(norm, expected, rtol, err_msg=name)
            compared += 1
        else:
            assert norm < 2 * floor * largest, name
    assert compared


def check_blocks(case):
    a, dims = case.arrays, case.meta["dims"]
    arguments = (dims["dim"], dims["num_heads"], dims["fc_dim"])

    def parameters(part):
        # Parameters stand under "<part>/param/" or "param/<part>.".
        for prefix in (f"{part}/param/", f"param/{part}."):
            found = {k[len(prefix) :]: v for k, v in a.items() if k.startswith(prefix)}
            if found:
                return found
        raise AssertionError(f"no parameters of {part}")

    spatial = SpatialLayer(*arguments)
    fill(convert.timed_map("", spatial), parameters("spatial"))
    x, embedding = tf.constant(a["spatial/x"])[:, None], tf.constant(a["spatial/time_embeddings"])[:, None]
    assert_close(spatial(x, embedding)[:, 0], a["spatial/out"], "spatial")
    for causal, key in ((False, "temporal/out"), (True, "temporal/out_causal")):
        temporal = TemporalLayer(*arguments, dims["max_relative_position"], causal)
        fill(convert.timed_map("", temporal), parameters("temporal"))
        inputs = (tf.constant(a["temporal/x"]), tf.constant(a["temporal/time_embeddings"]))
        assert_close(temporal(*inputs, tf.constant(a["temporal/indices"])), a[key], key)
    cross = CrossLayer(*arguments)
    fill(convert.cross_map("", cross), parameters("cross"))
    assert_close(
        cross(tf.constant(a["cross/x"]), memory=cross.memory(tf.constant(a["cross/memory"]))), a["cross/out"], "cross"
    )
    for kind in ("even", "odd"):
        recorded = a[f"time/embedding_{kind}"]
        assert_close(time_embedding(tf.constant(a["time/t"]), recorded.shape[-1]), recorded, f"time {kind}")
    learned = a["pos/learned"]
    table = GridEmbedding(learned.shape[1])
    values = parameters("pos_learned")
    table.rows.assign(values["row_embed.weight"])
    table.columns.assign(values["col_embed.weight"])
    grid = np.asarray(table.grid(*learned.shape[2:])).reshape(*learned.shape[2:], -1)
    assert_close(first(grid), learned[0], "positions")


def check_misc(case):
    a = case.arrays
    image, window = tf.constant(last(a["st/image"])), tf.constant(a["st/z_where"])
    assert_close(first(geometry.transform(image, window)), a["st/forward_bilinear_border"], "bilinear")
    inverse = geometry.transform(image, window, inverse=True, nearest=True)
    assert_close(first(inverse), a["st/inverse_nearest_zeros"], "nearest")
    resized = geometry.transform(image, window, size=a["st/forward_resized_out"].shape[2:])
    assert_close(first(resized), a["st/forward_resized_out"], "resized")
    ones = tf.ones((len(window), *a["st/allowed"].shape[2:], 1))
    allowed = geometry.transform(ones, window, inverse=True, nearest=True)
    np.testing.assert_array_equal(first(allowed), a["st/allowed"])
    kept = np.argsort(a["mask/noise"], axis=-1, kind="stable")[:, : a["mask/x_masked"].shape[2]]
    np.testing.assert_array_equal(gather_tokens(tf.constant(a["mask/x"]), tf.constant(kept)), a["mask/x_masked"])
    check_learning_rate(a)
    for count, evaluations in zip(a["ode/num_steps"], a["ode/euler_evaluations"]):
        asked = []
        solve(lambda t, y, k: asked.append(float(t)) or tf.zeros_like(y), tf.zeros([1]), int(count), "euler")
        assert len(asked) == evaluations * len(SOLVERS["euler"][0])


def check_learning_rate(arrays):
    # The recording's arguments: lr 1e-4, 5000 steps of warm-up, 100000 in all (specification section 14).
    hparams = CageHParams()
    for step, value in zip(arrays["lr/steps"], arrays["lr/value"]):
        holder = type("Step", (), {"hparams": hparams, "step": tf.constant(int(step), tf.int64)})()
        np.testing.assert_allclose(Cage.learning_rate(holder), value, 1e-5, 1e-12)


# The autoencoders.


def check_vqgan(case):
    real = case.meta["case"].startswith("real_")
    model = vqgan(case.meta["config"])
    if real:
        fill_by_recipe(case, convert.vqgan_map("", model))
        x = np.clip(inputs_by_recipe(case)["x"], -1, 1)
    else:
        fill(convert.vqgan_map("", model), stored(case, "ae."))
        x = case.arrays["in/x"]
    x = tf.constant(last(x))
    latents = model.encode(x)
    assert_close(first(latents), case.arrays["out/latents"], "latents")
    np.testing.assert_array_equal(np.asarray(model.quantizer.indices(latents)).reshape(-1), case.arrays["out/indices"])
    assert_close(first(model.decode(latents)), case.arrays["out/decoded"], "decoded")
    not_quantized = first(model.decode(latents, quantize=False))
    assert_close(not_quantized, case.arrays["out/decoded_not_quantized"], "decoded, not quantised")
    if "train/vq_loss" in case.arrays:
        check_autoencoder_training(case, model, x, convert.vqgan_map("", model), "train/reconstruction")


def check_autoencoder_training(case, model, x, entries, key):
    with tf.GradientTape() as tape:
        reconstruction, loss = model(x, training=True)
        objective = loss + tf.reduce_mean(tf.square(reconstruction - x))
    np.testing.assert_allclose(loss, case.arrays["train/vq_loss"], 1e-5)
    assert_close(first(reconstruction), case.arrays[key].reshape(-1, *case.arrays[key].shape[-3:]), key, 1e-4)
    norms = {k: v for k, v in case.arrays.items() if k.startswith("train/gradnorm/")}
    gradients = tape.gradient(objective, [v.value for v, _ in entries.values()])
    compare_norms(dict(zip(entries, gradients)), norms, "train/gradnorm/", 1e-4)
    for name, recorded in case.under("train/after/").items():
        assert_close(entries[name][0].numpy(), recorded, name)


def check_vqvae(case):
    config, real = case.meta["config"], case.meta["case"].startswith("real_")
    if real:
        codes = config["vector_quantizer"]
        model = VQVAE(codes["embedding_dimension"], codes["num_embeddings"])
        fill_by_recipe(case, convert.vqvae_map("", model))
        x, prefix = np.clip(inputs_by_recipe(case)["x"], -1, 1), "out"
    else:
        model = VQVAE(
            config["latent_channels"],
            config["num_embeddings"],
            config["encoder_mid_channels"],
            config["decoder_mid_channels"],
            config["groups"],
        )
        fill(convert.vqvae_map("", model), case.under("param/"))
        x, prefix = case.arrays["in/x"].reshape(-1, *case.arrays["in/x"].shape[-3:]), "eval"
    x = tf.constant(last(x))
    latents = model.encode(x)
    recorded = {k: v.reshape(-1, *v.shape[-3:]) if v.ndim > 3 else v for k, v in case.under(f"{prefix}/").items()}
    assert_close(first(latents), recorded["latents"], "latents")
    indices = next(v for k, v in recorded.items() if "indices" in k)
    np.testing.assert_array_equal(np.asarray(model.quantizer.indices(latents)).reshape(-1), indices.reshape(-1))
    assert_close(first(model.decode(latents)), recorded["reconstructed_images"], "reconstruction", 1e-4)
    np.testing.assert_allclose(model.quantizer(latents)[1], recorded["vq_loss"], 1e-5)
    if not real:
        key = "train/reconstructed_images"
        check_autoencoder_training(case, model, x, convert.vqvae_map("", model), key)


# The vision transformers.


def check_dino(case):
    model = vit(case.meta["config"], "dino")
    if case.meta["case"].startswith("real_"):
        fill_by_recipe(case, convert.vit_map("", model))
        # The names count from the end: layer_minus2 stands before layer_minus1.
        check_layers(case, model, inputs_by_recipe(case)["x"], sorted(k for k in case.arrays if "layer_" in k)[::-1])
        return
    fill(convert.vit_map("", model), stored(case, "dino."), UNUSED)
    check_layers(case, model, case.arrays["in/x"], sorted(k for k in case.arrays if k.startswith("out/layer_")))
    assert_close(first(model(tf.constant(last(case.arrays["native/x"])))), case.arrays["native/out"], "native")
    frames, recorded = case.arrays["model/frames"], case.arrays["model/get_features"]
    images = tf.constant(last(frames.reshape(-1, *frames.shape[-3:])))
    value = model.features(images, recorded.shape[-2:], recorded.shape[2] // model.dim)
    assert_close(first(value), recorded.reshape(-1, *recorded.shape[-3:]), "get_features")


def check_layers(case, model, x, keys):
    """The outputs of the last layers, under `keys` from the first to the last."""
    features = np.split(np.asarray(model(tf.constant(last(x)), num_layers=len(keys))), len(keys), -1)
    for key, value in zip(keys, features, strict=True):
        assert_close(first(value), case.arrays[key], key)


def check_mae(case):
    model = vit(case.meta["config"], "mae")
    if case.meta["case"].startswith("real_"):
        positions = np.array(model.position_table)
        shapes = {k: v for k, v in case.meta["param_names_shapes"].items() if k != "pos_embed"}
        values = {n: recipe(n, tuple(s), case.meta["seed"]) for n, s in shapes.items()}
        fill(convert.vit_map("", model), {**values, "pos_embed": positions}, (*UNUSED, "decoder"))
        x = inputs_by_recipe(case)["x"]
    else:
        recorded = case.under("param/")
        # The fixed table is ours to compute.
        assert_close(model.position_table, recorded["pos_embed"], "positions")
        fill(convert.vit_map("", model), recorded, (*UNUSED, "decoder"))
        x = case.arrays["in/x"]
    tokens = np.asarray(model(tf.constant(last(x))))
    assert_close(tokens.reshape(len(tokens), -1, model.dim), case.arrays["out/tokens_unshuffled"], "tokens")


RUNNERS = {
    "net_vfr": check_regressor,
    "net_vfr_causal": check_regressor,
    "real_vfr": check_regressor,
    "net_blocks": check_blocks,
    "net_misc": check_misc,
    "net_ae_taming": check_vqgan,
    "real_ae_f": check_vqgan,
    "net_ae_ours": check_vqvae,
    "real_ae_ours": check_vqvae,
    "net_dino": check_dino,
    "real_dino": check_dino,
    "net_mae": check_mae,
    "real_mae": check_mae,
}
