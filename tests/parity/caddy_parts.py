"""Checks of CADDY's layers, networks and loss functions alone."""

import numpy as np
import tensorflow as tf

from tests.parity.caddy_support import Comparison, by_name, channels_first, channels_last, constant, stated
from tfvid.layers.vgg import VGGFeatures
from tfvid.models import float_policy
from tfvid.models.caddy import actions, blocks, convert, losses, networks

PRECISIONS = ("float64", "float32")
ALPHA = r"alpha ([\d.]*\d)"  # in the texts of a case


def check_layers(case):
    """Every layer of a `layers` case, in both float types."""
    groups = sorted({key.split("/")[0] for key in case.arrays})
    for precision in PRECISIONS:
        comparison = Comparison(case, precision)
        for group in groups:
            if group == "gumbel" and precision == "float32":
                _check_gumbel(comparison, precision)
            elif group == "gumbel":
                continue
            elif group == "centroids":
                _check_centroids(comparison, precision)
            else:
                make, names, call = _layer(case, group)
                _check_block(comparison, precision, group, make, names, call)
        comparison.finish(len(groups))


def _layer(case, group):
    """(constructor, function from the layer to its names, function that calls it) of a recorded layer."""
    params = case.under(f"{group}/param/")
    source = case.arrays[f"{group}/in/0"].shape
    result = case.arrays[f"{group}/eval/out/0"].shape
    kind = group.split("_")[0]
    if kind == "residual":
        affine = "bn2.weight" in params

        def make():
            return blocks.Residual(source[1], result[1], _factor(source, result), affine, "noact" not in group)

        return make, convert.residual_map, _single
    if kind == "same":
        return lambda: blocks.Same(source[1], result[1], _factor(source, result)), convert.same_map, _single
    if kind == "up":
        mode = "nearest" if "nearest" in group else "bilinear"
        return lambda: blocks.Up(source[1], result[1], "late" in group, mode), convert.up_map, _single
    if kind == "final":
        size = params["conv.weight"].shape[-1]

        def plain_call(layer, inputs, training):
            return [layer(inputs[0])]

        return lambda: blocks.Final(source[1], result[1], size), _final_map, plain_call
    return _memory(case, group, params, result)


def _factor(source, result):
    """The smallest factor of average pooling that makes these sizes of each other."""
    fits = [f for f in range(1, source[2] + 1) if tuple(s // f for s in source[2:]) == tuple(result[2:])]
    assert fits, f"no pooling makes {result} of {source}"
    return fits[0]


def _memory(case, group, params, result):
    alone = "input_gate.weight" in params
    weight = params["input_gate.weight" if alone else "cell.input_gate.weight"]
    channels = weight.shape[0]

    def make():
        return blocks.ConvLSTM(weight.shape[1] - channels, channels, result[2:])

    def cell(layer, inputs, training):
        return layer(inputs[:-2], tuple(inputs[-2:]))

    def two_steps(layer, inputs, training):
        memory = layer.initial_memory(inputs[0].shape[0])
        first = layer([inputs[0], inputs[1]], memory)
        return [first[0], layer([inputs[2], inputs[1]], first)[0]]

    return make, convert.gates_map if alone else convert.memory_map, cell if alone else two_steps


def _final_map(layer, prefix=""):
    return convert.conv_map(layer.conv, f"{prefix}conv.")


def _single(layer, inputs, training):
    return [layer(inputs[0], training=training)]


def _check_block(comparison, precision, group, make, names, call, params=None):
    """Outputs, gradients and statistics of one layer or network in both modes."""
    case = comparison.case
    params = case.under(f"{group}/param/")
    inputs = _indexed(case, f"{group}/in/")
    images = (5,) if group == "action" else (4, 5)  # its rank 4 is (B, T, 2, D)
    proj = _indexed(case, f"{group}/proj/")
    for mode in ("train", "eval"):
        with float_policy(precision):
            layer = make()
            layer.build()
        mapped = names(layer)
        weights = {v.path: v for v in layer.weights if v.path in mapped}
        for path, source in mapped.items():
            values = [params[name] for name in source.names]
            weights[path].assign(source.transform(*values) if source.transform else values[0])
        tensors = [constant(channels_last(x, images), precision) for x in inputs]
        trained = [v for v in weights.values() if v.trainable]
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            outputs = call(layer, tensors, mode == "train")
            total = tf.add_n(
                [
                    tf.reduce_sum(o * constant(channels_last(p, images), precision))
                    for o, p in zip(outputs, proj, strict=True)
                ]
            )
        gradients = tape.gradient(total, [*tensors, *[v.value for v in trained]])
        for i, output in enumerate(outputs):
            comparison.check(f"{group}/{mode}/out/{i}", channels_first(output, images))
        after = case.under(f"{group}/{mode}/after/")
        now = by_name(mapped, {p: np.asarray(v.value) for p, v in weights.items()}, params)
        for name in after:
            comparison.check(f"{group}/{mode}/after/{name}", now[name])
        if precision == "float64":  # a rounding difference flips signs in float32
            for i in range(len(tensors)):
                comparison.check(f"{group}/{mode}/gradin/{i}", channels_first(gradients[i], images))
            grads = dict(zip([v.path for v in trained], gradients[len(tensors) :]))
            for name, value in by_name(mapped, grads, params).items():
                comparison.check(f"{group}/{mode}/gradparam/{name}", value)


def _indexed(case, prefix):
    found = case.under(prefix)
    return [found[str(i)] for i in range(len(found))]


def _check_gumbel(comparison, precision):
    case = comparison.case
    log_p = constant(case.arrays["gumbel/log_probabilities"], precision)
    uniform = constant(case.arrays["gumbel/uniform"], precision)
    weights = tf.reshape(tf.range(tf.size(log_p)), log_p.shape)
    weights = tf.cast(weights, log_p.dtype) / 10
    for key in case.arrays:
        if not key.startswith(("gumbel/hard_t", "gumbel/soft_t")) or key.endswith("/grad"):
            continue
        with tf.GradientTape() as tape:
            tape.watch(log_p)
            sample = actions.gumbel_softmax(log_p, uniform, float(key.split("_t")[1]), "hard" in key)
            total = tf.reduce_sum(sample * weights)
        comparison.check(key, sample)
        comparison.check(f"{key}/grad", tape.gradient(total, log_p))


def _check_centroids(comparison, precision):
    a = comparison.case.under("centroids/")
    with float_policy(precision):
        estimator = actions.CentroidEstimator(*a["before"].shape, alpha=stated(comparison.case, ALPHA, 0.1))
        estimator.build()
    estimator.centroids.assign(a["before"])
    estimator.update(constant(a["assignments"], precision), constant(a["priors"][:, 0], precision))
    comparison.check("centroids/after", estimator.centroids)
    points, sample = constant(a["points"], precision), constant(a["sample"], precision)
    with tf.GradientTape() as tape:
        tape.watch([points, sample])
        variations = estimator.variations(sample, points)
        total = tf.reduce_sum(variations * constant(a["proj"], precision))
    gradients = tape.gradient(total, [points, sample])
    comparison.check("centroids/variations", variations)
    comparison.check("centroids/gradpoints", gradients[0])
    comparison.check("centroids/gradsample", gradients[1])


def check_networks(case):
    """The five sub-networks, in both float types."""
    for precision in PRECISIONS:
        comparison = Comparison(case, precision)
        for group in ("representation", "action", "dynamics", "rendering", "state_to_hidden"):
            make, names, call = _network(case, group)
            _check_block(comparison, precision, group, lambda: make(), names, lambda *a: call(*a, precision))
        comparison.finish(20)


def _network(case, group):
    params = case.under(f"{group}/param/")
    if group == "representation":
        widths = (params["conv1.weight"].shape[0], params["residuals.1.conv1.weight"].shape[0])
        features = params["residuals.3.conv1.weight"].shape[0]
        channels = params["conv1.weight"].shape[1]
        return lambda: networks.Encoder(channels, (*widths, features)), convert.encoder_map, _plain_network
    if group == "action":
        width, features = params["residuals.0.conv1.weight"].shape[:2]
        count, dimension = params["final_fc.weight"].shape
        noise = case.under("action/noise/")

        def call(layer, inputs, training, precision):
            r = layer(
                inputs[0], inputs[1], constant(noise["states"], precision), constant(noise["directions"], precision),
                training=training,
            )
            directions = tf.stack([r["directions_mean"], r["directions_variance"]], axis=2)
            states = tf.stack([r["states_mean"], r["states_variance"]], axis=2)
            return [r["logits"], directions, r["sampled_directions"], states, r["sampled_states"]]

        return lambda: networks.ActionNetwork(features, width, dimension, count), convert.action_map, call
    if group == "dynamics":
        features, size = case.arrays["dynamics/in/0"].shape[1], case.arrays["dynamics/in/0"].shape[2:]
        hidden = case.arrays["dynamics/eval/out/0"].shape[1]
        auxiliary = sum(case.arrays[f"dynamics/in/{i}"].shape[1] for i in (1, 2))

        def call(layer, inputs, training, precision):
            memory = layer.initial_memory(inputs[0].shape[0])
            first, memory = layer(*inputs[:3], memory, training=training)
            return [first, layer(*inputs[3:], memory, training=training)[0]]

        return lambda: networks.Dynamics(features, hidden, auxiliary, size), convert.dynamics_map, call
    if group == "rendering":
        weights = [params[f"upsample_blocks.{n}conv.weight"] for n in ("0.0.", "1.0.", "2.")]
        widths = tuple(w.shape[0] for w in weights)
        return lambda: networks.Decoder(weights[0].shape[1], widths), convert.decoder_map, _plain_network
    hidden, features = params["0.weight"].shape[:2]
    return (
        lambda: networks.StateToHidden(features, hidden), convert.state_to_hidden_map,
        lambda layer, inputs, training, precision: [layer(inputs[0])],
    )


def _plain_network(layer, inputs, training, precision):
    return list(layer(inputs[0], training=training))


def vgg_state(arrays, prefix="vgg/param/"):
    """Recorded `slice<k>.<i>.weight` under torchvision's names."""
    return {
        "features." + key[len(prefix) :].split(".", 1)[1]: value
        for key, value in arrays.items() if key.startswith(prefix)
    }


def vgg_widths(state):
    """Channels of the five stages."""
    return tuple(int(state[f"features.{i}.weight"].shape[0]) for i in (0, 5, 10, 19, 28))


def make_vgg(arrays, precision, prefix="vgg/param/"):
    """VGG-19 with the recorded widths and weights."""
    state = vgg_state(arrays, prefix)
    with float_policy(precision):
        vgg = VGGFeatures(19, widths=vgg_widths(state))
        vgg.build((None, None, None, 3))
    vgg.load_torch(state)
    vgg.trainable = False
    return vgg


def check_loss_functions(case):
    """Every loss with its gradients."""
    a = case.arrays
    comparison = Comparison(case, "float64")
    vgg = make_vgg(a, "float64")
    for i, value in enumerate(vgg(constant(channels_last(a["vgg/in"]), "float64"))):
        comparison.check(f"vgg/out/{i}", channels_first(value))
    for name in sorted({k.split("/")[0] for k in a if k.endswith("/out") and "/" in k}):
        if name.startswith(("smooth_", "motion_", "vgg")) or name == "kl_categorical_unused":
            continue  # below; a class that nothing in the original uses
        _check_loss(comparison, name, name, _loss(name))
    _check_smooth(comparison)
    _check_perceptual(comparison, vgg)
    comparison.finish(20)


def _loss(name):
    """The function of the recorded loss; arguments a and b in the order of the original's class."""
    kind, _, option = name.partition("_lamb")

    def mutual(a, b):
        return losses.mutual_information_loss(losses.joint_matrix(a, b), float(option or 1.0))

    if kind.startswith("mutual_information"):
        return mutual
    if kind.startswith("observations_l1"):
        return losses.observations_l1
    return {
        "entropy_logits": losses.entropy_of_logits,
        "entropy_probabilities": losses.entropy,
        "hidden_states_mse_shift": losses.hidden_states_mse,
        "kl_gaussian": lambda a: losses.directions_kl(a[:, :, 0], a[:, :, 1]),
        "kl_general": lambda a, b: losses.states_distribution_kl(a[:, :, 0], a[:, :, 1], b[:, :, 0], b[:, :, 1]),
        "states_mse": losses.states_mse,
    }[kind]


def _check_loss(comparison, group, name, function):
    found = comparison.case.under(f"{group}/")
    inputs = [constant(channels_last(found[f"in/{n}"], (5,)), "float64") for n in "ab" if f"in/{n}" in found]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        value = function(*inputs)
    # A mutual information is a small difference of large float32 terms: 2e-7 as the specification says.
    comparison.check(f"{group}/out", value, absolute=2e-7 if "mutual_information" in group else 1e-15)
    for letter, gradient in zip("ab", tape.gradient(value, inputs)):
        if f"grad/{letter}" in found:
            comparison.check(f"{group}/grad/{letter}", channels_first(gradient, (5,)))


def _check_smooth(comparison):
    a, alpha = comparison.case.arrays, stated(comparison.case, ALPHA, 0.2)
    running = constant(a["smooth_mutual_information/matrix0"], "float64")
    comparison.check("smooth_mutual_information/matrix0", np.full(running.shape, 1 / running.shape[0] ** 2))
    calls = sorted({k.split("/")[1] for k in a if k.startswith("smooth_") and k.endswith("/out")}, key=int)
    for i in calls:
        joints = []

        def function(p, q):
            joints.append(losses.smooth_joint(running, losses.joint_matrix(p, q), alpha))
            return losses.mutual_information_loss(joints[-1])

        _check_loss(comparison, f"smooth_mutual_information/{i}", "smooth", function)
        running = losses.stored_joint(joints[-1])
        comparison.check(f"smooth_mutual_information/matrix{int(i) + 1}", running)


def _check_perceptual(comparison, vgg):
    a = comparison.case.arrays
    real = constant(channels_last(a["perceptual/in/a"]), "float64")
    fake = constant(channels_last(a["perceptual/in/b"]), "float64")
    target = losses.resize_targets(losses.real_frames(real, fake.shape[1]), fake.shape[2:4])
    features = vgg(tf.reshape(target, (-1, *target.shape[2:])))
    with tf.GradientTape() as tape:
        tape.watch(fake)
        values = losses.perceptual_components(features, vgg(tf.reshape(fake, (-1, *fake.shape[2:]))))
        total = tf.add_n(values)
    for i, value in enumerate(values):
        comparison.check(f"perceptual/component/{i}", value)
    comparison.check("perceptual/total", values[0])
    comparison.check("perceptual/sum_of_components", total)
    comparison.check("perceptual/grad_of_sum_of_components/b", channels_first(tape.gradient(total, fake)))
    _check_motion(comparison, vgg)


def _check_motion(comparison, vgg):
    from tfvid.layers.resize import resize_bilinear

    a = comparison.case.arrays
    real = constant(channels_last(a["motion_mask/in/a"]), "float64")
    fake = constant(channels_last(a["motion_mask/in/b"]), "float64")
    mask = losses.motion_weights(real, fake, bias=0.1)
    comparison.check("motion_mask/out", channels_first(mask))
    count = fake.shape[1]
    targets = vgg(tf.reshape(losses.real_frames(real, count), (-1, *real.shape[2:4], 3)))
    values = vgg(tf.reshape(fake, (-1, *fake.shape[2:])))
    flat = tf.reshape(mask[:, mask.shape[1] - count :], (-1, *mask.shape[2:]))
    masks = [resize_bilinear(flat, v.shape[1:3]) for v in values]
    comparison.check("motion_mask/weighted_perceptual_total", losses.perceptual_components(targets, values, masks)[0])
