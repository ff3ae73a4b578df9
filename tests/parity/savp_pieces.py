"""Recorded building blocks, networks and schedules of SAVP: outputs, gradients, advanced vectors.

A piece is found by the start of its name; sizes and options come from its arrays.
"""

import ast
import re

import keras
import numpy as np
import tensorflow as tf

from tests.parity.savp_support import assert_close, load
from tfvid.data.softmotion import pixel_distributions
from tfvid.layers import conv_recurrent, convolutions, norms, recurrent, warps
from tfvid.layers.constant_channels import tile
from tfvid.layers.spectral_norm import SpectralKernel
from tfvid.losses import adversarial, latent, reconstruction
from tfvid.metrics import frames
from tfvid.models.savp import networks_discriminator, networks_encoder
from tfvid.models.savp.hparams import SAVPHParams

# The JSON's: forward, and gradients by norm.
FORWARD = {"atol": 1e-5, "rtol": 1e-4}
# specs/savp.md section 14: instance norm at a variance near its epsilon amplifies rounding.
SMALL_VARIANCE = {"atol": 1e-4, "rtol": 1e-4}
GRADIENT_RTOL = 1e-3
METRIC = {"atol": 1e-4, "rtol": 1e-4}
VECTOR_ATOL = 1e-5


def check(case):
    """Every piece of the case; a piece without a check here is an error."""
    groups = {}
    for key, value in case.arrays.items():
        piece, _, rest = key.partition("/")
        groups.setdefault(piece, {})[rest] = value
    for piece, arrays in groups.items():
        if piece == "schedules":
            _check_schedules(arrays, case.meta["pieces"])
        else:
            _check_piece(piece, arrays)


def _check_schedules(arrays, pieces):
    steps = arrays["steps"]
    for piece, text in pieces.items():
        name = piece.removeprefix("schedules/")
        h = SAVPHParams.from_dict(ast.literal_eval(re.search(r"hparams (\{.*?\})", text).group(1)))
        found = {
            "learning_rate": h.learning_rate,
            "kl_weight": h.annealed_kl_weight,
            "schedule_sampling_prob": h.ground_truth_probability,
        }
        for key, function in found.items():
            values = [float(function(tf.constant(s, tf.int64))) for s in steps]
            assert_close(values, arrays[f"{name}/{key}"], rtol=1e-4, atol=1e-7, name=f"{name}/{key}")


def _check_piece(piece, arrays):
    def under(prefix):
        return {k[len(prefix):]: v for k, v in arrays.items() if k.startswith(prefix)}

    inputs, params, expected = under("in/"), under("param/"), under("out/")
    runner = next((r for start, r in RUNNERS if piece.startswith(start)), None)
    assert runner is not None, f"no check for the piece {piece!r}"
    tensors = {k: tf.Variable(v) for k, v in inputs.items()}
    with tf.GradientTape() as tape:
        outputs, layer, advanced = _three(runner(piece, tensors, params, arrays))
        terms = [tf.reduce_sum(tf.cast(outputs[k], c.dtype) * c) for k, c in under("cot/").items()]
        total = tf.add_n(terms) if terms else None
    tolerance = SMALL_VARIANCE if _has_small_variance(piece, inputs) else METRIC if "metric" in piece else FORWARD
    for name, value in expected.items():
        assert_close(outputs[name], value, name=f"{piece}/{name}", **tolerance)
    variables = {**{f"in/{k}": v for k, v in tensors.items()}, **_by_param_name(layer, params)}
    gradients = under("grad/")
    found = tape.gradient(total, [variables[k] for k in gradients]) if gradients else []
    for (name, value), gradient in zip(gradients.items(), found):
        error, norm = np.linalg.norm(np.asarray(gradient) - value), np.linalg.norm(value)
        share = tolerance["rtol"] * 10 if tolerance is SMALL_VARIANCE else GRADIENT_RTOL
        # A bias in front of a norm has no true gradient: both are rounding noise.
        floor = 1e-5 * np.linalg.norm([np.linalg.norm(g) for g in gradients.values()])
        assert error <= share * norm + floor, f"{piece}: gradient of {name}: {error} > {share} * {norm}"
    for name, value in under("u_after/").items():
        assert_close(advanced[name], value, atol=VECTOR_ATOL, name=f"{piece}/u_after/{name}")


def _has_small_variance(piece, inputs):
    """Whether the variance of a map that is normed alone is as small as the epsilon."""
    return piece.startswith("instance_norm") and inputs["x"].var(axis=(1, 2)).min() < 10 * norms.INSTANCE_EPSILON


def _three(result):
    result = result if isinstance(result, tuple) else (result,)
    outputs, layer, advanced = (*result, None, None)[:3]
    return (outputs if isinstance(outputs, dict) else {"y": outputs}), layer, advanced


def _by_param_name(layer, params):
    if layer is None:
        return {}
    weights, prefix = _weights(layer, params)
    return {f"param/{v.path.removeprefix(prefix)}": v.value for v in weights}


def _weights(layer, params):
    """(weights, the part of their paths that the recording leaves out)."""
    paths = {v.path for v in layer.weights}
    prefix = "" if paths == set(params) else f"{layer.name}/"
    return layer.weights, prefix


def _loaded(layer, params):
    _, prefix = _weights(layer, params)
    load(layer.weights, {prefix + k: v for k, v in params.items()})
    return layer


# Convolutions.


def _conv(piece, x, params, arrays):
    kind = next(iter(params)).split("/")[0]
    kernel = params[f"{kind}/kernel"].shape
    inputs, outputs = (kernel[3], kernel[2]) if kind == "deconv2d" else (kernel[2], kernel[3])
    stride = -(-arrays["in/x"].shape[1] // arrays["out/y"].shape[1]) if kind == "conv2d" else 1
    layer = _loaded(convolutions.Conv2D(inputs, outputs, kernel[0], kind, stride), params)
    return layer.bind()(x["x"]), layer


def _upsample(piece, x, params, arrays):
    if "nearest" in piece:
        return tf.repeat(tf.repeat(x["x"], 2, axis=1), 2, axis=2)
    # The original's SAME transposed convolution with the bilinear taps: a 4x4 kernel on the diagonal.
    channels = x["x"].shape[-1]
    taps = np.outer(convolutions.BILINEAR, convolutions.BILINEAR)[:, :, None, None] * np.eye(channels)
    return keras.ops.conv_transpose(x["x"], taps.astype("float32"), 2, "same", data_format="channels_last")


def _dense(piece, x, params, arrays):
    layer = _loaded(convolutions.Dense(*params["dense/kernel"].shape), params)
    return layer.bind()(x["x"]), layer


def _norm(piece, x, params, arrays):
    kind = piece.split("_")[0]
    layer = _loaded(norms.norm_layer(kind, x["x"].shape[-1]), params)
    return layer.bind()(x["x"]), layer


def _spectral(piece, x, params, arrays):
    name = next(k for k in params if k.endswith("/kernel"))
    shape, rank = params[name].shape, len(params[name].shape) - 2
    if rank == 3:  # its bias lies beside the kernel's scope
        layer = networks_discriminator.SpectralConv("l", shape[-2], shape[-1], shape[0], (1,) * rank)
        spectral = layer.spectral
    else:
        with keras.name_scope("l"):
            layer = spectral = SpectralKernel(shape, name.split("/")[1])
    _loaded(layer, params)
    kernel, advanced = spectral.normalized()
    y = keras.ops.conv(x["x"], kernel, 1, "valid", data_format="channels_last") if rank else x["x"] @ kernel
    return y + tf.convert_to_tensor(layer.bias), layer, {spectral.u.path: advanced}


# Warps.


def _warp(piece, x, params, arrays):
    images = [x[k] for k in sorted(x) if k.startswith("image")]
    rate = re.search(r"rate(\d+)", piece)
    rate = (int(rate.group(1)),) * 2 if rate else (1, 1)
    if piece.startswith("flow"):
        return tf.einsum("bhwkc->bhwck", warps.flow_warp(images[0], x["flows"]))
    warp = warps.dna_warp if piece.startswith("dna") else warps.cdna_warp
    shares = tf.split(tf.convert_to_tensor(x["kernels"]), len(images), axis=-1)
    # Of several images the original warps each without the rate.
    rate = rate if len(images) == 1 else (1, 1)
    warped = [warp(tf.convert_to_tensor(i), k, rate) for i, k in zip(images, shares)]
    return tf.einsum("bhwnc->bhwcn", tf.concat(warped, axis=3))


def _identity_kernel(piece, x, params, arrays):
    return warps.identity_kernel(arrays["out/y"].shape)


# Recurrent cells.


def _conv_rnn(piece, x, params, arrays):
    units = x["h"].shape[-1]
    leaves = {k.rsplit("/", 2)[-2] for k in params if k.endswith("gamma")}
    together = {"input_transform_forget_output", "reset_update"}
    norm = "none" if not leaves else "instance" if leaves & together else "layer"
    cell = conv_recurrent.ConvLSTMCell if "lstm" in piece else conv_recurrent.ConvGRUCell
    vector = x["v"].shape[-1] if "v" in x else 0
    layer = _loaded(cell(x["x"].shape[-1], units, vector, tile=False, norm=norm), params)
    state = (x["c"], x["h"]) if "lstm" in piece else (x["h"],)
    y, state = layer.bind()(x["x"], x.get("v"), tuple(map(tf.convert_to_tensor, state)))
    return {"y": y, "h": state[-1], "c": state[0]}, layer


def _rnn(piece, x, params, arrays):
    cell = recurrent.LSTMCell if piece.startswith("lstm") else recurrent.GRUCell
    name = next(iter(params)).split("/")[0]
    layer = _loaded(cell(x["x"].shape[-1], x["h"].shape[-1], name=name), params)
    state = (x["c"], x["h"]) if "c" in x else (x["h"],)
    y, state = layer.bind()(x["x"], state)
    return {"y": y, "c": state[0]}, layer


# Networks.


def _encoder_hparams(params, nz=1, **more):
    n_layers = sum(re.fullmatch(r"layer_\d+/conv2d/kernel", k) is not None for k in params)
    nef = params["layer_1/conv2d/kernel"].shape[-1]
    scopes = {"InstanceNorm": "instance", "LayerNorm": "layer", "batch_normalization": "batch"}
    norm = next((scopes[k.split("/")[1]] for k in params if k.split("/")[1] in scopes), "none")
    return SAVPHParams(nef=nef, n_layers=n_layers, nz=nz, norm_layer=norm, **more)


def _encoder(piece, x, params, arrays):
    inputs = params["layer_1/conv2d/kernel"].shape[2]
    layer = _loaded(networks_encoder.ConvEncoder("encoder", inputs, _encoder_hparams(params)), params)
    return layer.bind()(x["x"]), layer


def _latent_encoder(piece, x, params, arrays):
    recurrent_kind = "gru" if any(k.startswith("gru/") for k in params) else "lstm"
    hparams = _encoder_hparams(params, params["z_mu/dense/bias"].shape[0], rnn=recurrent_kind)
    actions = x["actions"].shape[-1] if "actions" in x else 0
    has_rnn = any(k.startswith(("gru/", "lstm/")) for k in params)
    channels = x["images"].shape[-1]
    layer = _loaded(networks_encoder.LatentEncoder("encoder", channels, actions, hparams, has_rnn), params)
    images = tf.einsum("tbhwc->bthwc", x["images"])
    vectors = tf.einsum("tba->bta", x["actions"]) if actions else None
    length = arrays["out/zs_mu"].shape[0]
    if piece.startswith("prior"):
        images = images[:, : _context_of_prior(arrays)]
    mu, log_sigma_sq = layer.bind()(images, vectors, length)
    return {"zs_mu": tf.einsum("btz->tbz", mu), "zs_log_sigma_sq": tf.einsum("btz->tbz", log_sigma_sq)}, layer


def _context_of_prior(arrays):
    """How many frames the recorded prior saw: those behind have no gradient."""
    return 1 + np.flatnonzero(np.any(arrays["grad/in/images"], axis=(1, 2, 3, 4))).max()


def _discriminator(piece, x, params, arrays):
    video = piece.startswith("video")
    images = tf.einsum("tbhwc->bthwc", x["x"]) if video else tf.convert_to_tensor(x["x"])
    name = "video" if video else "image"
    ndf = next(v for k, v in params.items() if k.startswith("sn_conv0_0/") and k.endswith("kernel")).shape[-1]
    layer = _loaded(networks_discriminator.SpectralDiscriminator(name, tuple(images.shape[1:]), ndf), params)
    judge, advanced = layer.bind()
    logits, features = judge(images)
    outputs = [*features, logits]
    swap = (lambda y: tf.experimental.numpy.swapaxes(y, 0, 1)) if video else (lambda y: y)
    vectors = {s.u.path.removeprefix(f"{name}/"): u for s, u in zip(layer.spectral_kernels, advanced)}
    return {f"layer{i}": swap(y) for i, y in enumerate(outputs)}, layer, vectors


def _discriminator_given_video(piece, x, params, arrays):
    kinds = tuple(dict.fromkeys(f"{k.split('/')[0]}_sn" for k in params))
    ndf = next(v for k, v in params.items() if "sn_conv0_0/" in k and k.endswith("kernel")).shape[-1]
    # Time comes first in what is recorded of clips; image_sn has none.
    clips = [arrays[k] for k in ("out/discrim_images_sn_feature0", "out/discrim_video_sn_feature0") if k in arrays]
    clip_length = clips[0].shape[0] if clips else 1
    hparams = SAVPHParams(ndf=ndf, clip_length=clip_length)
    videos = tf.einsum("tbhwc->bthwc", x["targets"])
    layer = networks_discriminator.DiscriminatorSet("discriminator", kinds, tuple(videos.shape[2:]), hparams)
    _loaded(layer, params)
    offsets = {k[5:]: tf.constant(v, tf.int32) for k, v in arrays.items() if k.startswith("rand/")}
    (answers,) = layer.bind()[0]([videos], [offsets], kinds)
    outputs = {}
    for kind, (logits, features) in answers.items():
        swap = (lambda y: y) if kind == "image_sn" else (lambda y: tf.experimental.numpy.swapaxes(y, 0, 1))
        outputs[f"discrim_{kind}_logits"] = swap(logits)
        outputs.update({f"discrim_{kind}_feature{i}": swap(f) for i, f in enumerate(features)})
    return outputs, layer


# Losses and metrics.


def _gan_loss(piece, x, params, arrays):
    _, kind, label = piece.rsplit("_", 2)
    return adversarial.gan_loss(tf.convert_to_tensor(x["logits"]), float(label), kind)


def _metric(piece, x, params, arrays):
    return getattr(frames, piece.split("_")[1])(x["a"].numpy(), x["b"].numpy())


def _pixel_distribution(piece, x, params, arrays):
    height, width = arrays["out/y"].shape[1:]
    positions = np.reshape(x["pos"].numpy(), (-1, 2))  # each position one map
    maps = [np.reshape(pixel_distributions(p[None, None], height, width), (height, width)) for p in positions]
    return np.stack(maps)


RUNNERS = (
    ("upsample2d_", _upsample),
    (("conv2d", "conv_pool2d", "upsample_conv2d", "deconv2d"), _conv),
    ("dense", _dense),
    ("lrelu", lambda p, x, *_: convolutions.leaky_relu(tf.convert_to_tensor(x["x"]), int(p[5:]) / 10)),
    (("instance_norm", "layer_norm", "batch_norm"), _norm),
    ("spectral_", _spectral),
    (("cdna_", "dna_", "flow_warp"), _warp),
    ("identity_kernel", _identity_kernel),
    ("kernel_normalization", lambda p, x, *_: warps.normalize_kernels(x["kernels"], (-3, -2))),
    ("flow_to_rgb", lambda p, x, *_: warps.flow_to_rgb(x["flows"])),
    ("pixel_distribution", _pixel_distribution),
    ("tile_concat", lambda p, x, *_: tf.concat([x["x"], tile(tf.convert_to_tensor(x["v"]), x["x"])], axis=-1)),
    (("convlstm_", "convgru_"), _conv_rnn),
    (("lstm_cell", "gru_cell"), _rnn),
    ("l1_loss", lambda p, x, *_: reconstruction.l1_loss(x["pred"] + 0.0, x["target"] + 0.0)),
    ("l2_loss", lambda p, x, *_: reconstruction.l2_loss(x["pred"] + 0.0, x["target"] + 0.0)),
    ("cosine_distance", lambda p, x, *_: reconstruction.cosine_distance(x["pred"] + 0.0, x["target"] + 0.0)),
    ("charbonnier_loss", lambda p, x, *_: reconstruction.charbonnier_loss(x["pred"] + 0.0)),
    ("gan_loss", _gan_loss),
    ("kl_standard", lambda p, x, *_: latent.kl_standard_normal(x["mu"], x["log_sigma_sq"])),
    ("kl_two", lambda p, x, *_: latent.kl_normal(x["mu"], x["log_sigma_sq"], x["mu2"], x["log_sigma2_sq"])),
    ("metric_", _metric),
    ("encoder", _encoder),
    (("posterior", "prior"), _latent_encoder),
    ("discriminator_given_video", _discriminator_given_video),
    (("image_sn_discriminator", "video_sn_discriminator"), _discriminator),
)
