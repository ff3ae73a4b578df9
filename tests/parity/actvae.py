"""Replays the recordings of ACT-VAE and its pose-to-image stage through tfvid's public functions.

What a case is, is seen from the keys it holds; sizes and options come from its JSON. The
tolerances are those of the specification's last section, measured from the difference of
the original's own float32 and float64 runs.
"""

import pathlib
import types

import numpy as np
import pytest
import tensorflow as tf

from tfvid import models
from tfvid.conversion.assign import assign
from tfvid.data import penn
from tfvid.losses.adversarial import gan_loss
from tfvid.models.actvae import convert, convert_p2i
from tfvid.models.actvae import losses as losses_lib
from tfvid.models.actvae.hparams import ActVAEHParams, ActVAEP2IHParams
from tfvid.models.actvae.model_p2i import VGG_WEIGHTS
from tfvid.models.actvae.pose_maps import coloured_view, pose_maps
from tfvid.models.draws import RecordedDraws

NETWORKS = 2e-5  # of the array's largest value
LOSSES = 1e-5  # relative
VGG = "criterionVGG.vgg."  # computed further by the original than its last feature
TARGETS = 5  # frames after the source


def check(case):
    """Replays one recording."""
    kinds = {
        "in/list_txt": check_data,
        "noise/all": check_train_long,
        "out/dec_y": check_vae_step,
        "out/input1": check_forward,
        "loss/recon_unweighted_0": check_pose_losses,
        "randint1": check_train_p2i,
        "lr1": check_train_actvae,
        "out/test_forward3_pose_random": check_sample_actvae,
        "out/sample_img_random1_1": check_sample_p2i,
        "loss/vgg": check_vgg,
        "out/eval/mask": check_generator,
        "out/eval/score": check_discriminator,
        "gen_update_image/loss/total": check_p2i_losses,
    }
    for key, function in kinds.items():
        if key in case.arrays:
            function(case)
            return
    raise AssertionError(f"{case}: no replay for a recording of {', '.join(sorted(case.arrays)[:5])}")


# Models and batches from recordings.


def build_actvae(case, parameters, precision="float32"):
    """`actvae` with recorded parameters."""
    config = case.meta["config"]
    joints = parameters["image_enc_content.rnn.weight_hh_l0"].shape[1] // 2
    hparams = ActVAEHParams(
        num_joints=joints, num_actions=config["n_label"], latent_dim=config["z_dim"], batch_size=config["B"],
        lr_step_size=config["step_size"], precision=precision,
    )
    model = models.build("actvae", hparams, spec(joints))
    fill(model, parameters)
    return model


def build_p2i(case, parameters, precision="float32", **options):
    """`actvae_p2i` with recorded parameters; networks that the recording lacks keep their own."""
    config = case.meta["config"]
    hparams = ActVAEP2IHParams(
        num_actions=config["n_label"], latent_dim=config["p2i_z"], batch_size=config["p2iB"],
        ngf=config["ngf"], g_blocks=config["g_blocks"], ndf=config["ndf"], d_blocks=config["d_blocks"],
        vgg_widths=tuple(w // config["vgg_div"] for w in (64, 128, 256, 512, 512)),
        lr_step_size=config["step_size"], precision=precision, vgg_weights="random", **options,
    )
    model = models.build("actvae_p2i", hparams, spec(hparams.num_joints, (config["H"], config["W"])))
    fill(model, parameters)
    return model


def spec(joints, size=None):
    """Of a clip of six frames."""
    result = {
        "poses": tf.TensorSpec([1 + TARGETS, joints, 2], tf.float32),
        "action_class": tf.TensorSpec([], tf.int32),
    }
    return result if size is None else {**result, "images": tf.TensorSpec([1 + TARGETS, *size, 3], tf.uint8)}


def fill(model, parameters):
    """Assigns every recorded parameter; those of networks that the recording lacks stay."""
    vgg = {k.removeprefix(VGG): v for k, v in parameters.items() if k.startswith(VGG)}
    if vgg:
        model.perceptual.network.load_torch(vgg)
    sources = {p: s for p, s in variable_map(model).items() if s.name in parameters}
    variables = types.SimpleNamespace(weights=[v for v in model.weights if v.path in sources])
    assign(variables, parameters, sources, ignorable=lambda name: name.startswith(VGG))


def variable_map(model):
    """{path: source} of either model."""
    return (convert_p2i if hasattr(model, "generator") else convert).variable_map(model)


def batch_of(arrays, images=False):
    """The recorded inputs as a batch of clips."""
    poses = [arrays["pose_source"], *(arrays[f"pose_target{i}"] for i in range(1, TARGETS + 1))]
    batch = {
        "poses": tf.constant(np.stack(poses, 1)),
        "action_class": tf.constant(arrays["action_label"][:, 0].astype(np.int32)),
    }
    if images:
        frames = [arrays["source_image"], *(arrays[f"target_image{i}"] for i in range(1, TARGETS + 1))]
        batch["images"] = tf.constant((np.stack([nhwc(f) for f in frames], 1).astype(np.float64) + 1) / 2)
        masks = [nhwc(arrays[f"mask_image{i}"])[..., :1] for i in range(1, TARGETS + 1)]
        batch["masks"] = tf.constant(np.stack([masks[0] * 0, *masks], 1))
    return batch


def nhwc(x):
    """[..., C, H, W] -> [..., H, W, C]."""
    return np.moveaxis(x, -3, -1)


def stacked_noise(arrays, rollouts, horizon=4, start=0):
    """Draws 000, 001, ... -> [rollouts, horizon + 1, B, Z]."""
    count = rollouts * (horizon + 1)
    flat = np.stack([arrays[f"{i:03d}"] for i in range(start, start + count)])
    return flat.reshape(rollouts, horizon + 1, *flat.shape[1:])


def near(actual, expected, tolerance=NETWORKS, what=""):
    """Equal but for `tolerance` times the largest recorded value."""
    expected = np.asarray(expected)
    np.testing.assert_allclose(
        np.asarray(actual), expected, rtol=0, atol=tolerance * max(np.abs(expected).max(), 1e-30), err_msg=what
    )


def same_loss(actual, expected, what=""):
    """Equal but for LOSSES."""
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=LOSSES, err_msg=what)


def in_original_form(model):
    """{the original's name: value in the original's layout} of every variable."""
    values = {}
    for path, source in variable_map(model).items():
        value = np.asarray(next(v for v in model.weights if v.path == path))
        values[source.name] = to_original(source, value)
    return values


def to_original(source, value):
    """The inverse of a map entry's transform: a permutation of axes."""
    if source.transform is None:
        return value
    probe = np.arange(value.size).reshape(_inverse_shape(source, value))
    order = source.transform(probe).reshape(-1)
    flat = np.empty(value.size, value.dtype)
    flat[order] = value.reshape(-1)
    return flat.reshape(probe.shape)


def _inverse_shape(source, value):
    """The shape whose transform has the shape of `value`."""
    axes = np.array(source.transform(np.empty(tuple(range(1, value.ndim + 1)))).shape) - 1
    shape = np.empty(value.ndim, int)
    shape[axes] = value.shape
    return tuple(shape)


# ACT-VAE.


def check_vae_step(case):
    arrays = case.arrays
    model = build_actvae(case, case.under("param/"))
    pose_size = 2 * model.hparams.num_joints
    onehot = model.condition({"action_class": tf.constant(arrays["in/action_label"][:, 0].astype(np.int32))})
    np.testing.assert_array_equal(onehot, arrays["out/onehot"])
    assert arrays["in/emb"].shape[-1] == pose_size + onehot.shape[-1]
    emb = tf.constant(arrays["in/emb"][:, 0])
    latent, mean, log_variance, (h, c) = model.pose_network.temporal_vae.bind()(
        emb, arrays["in/z_prev"][0], arrays["noise/000"], (arrays["in/h"][0], arrays["in/c"][0])
    )
    for value, key in ((latent, "z"), (h, "h"), (c, "c")):
        near(value, arrays[f"out/{key}"][0], what=key)
    near(mean, arrays["out/mu"], what="mu")
    near(log_variance, arrays["out/logvar"], what="logvar")
    pose, (h, c) = model.pose_network.decoder.bind()(
        emb, arrays["out/z"][0], None, (arrays["in/dec_h"][0], arrays["in/dec_c"][0])
    )
    near(pose, arrays["out/dec_y"][:, 0])
    near(h, arrays["out/dec_h"][0])
    near(c, arrays["out/dec_c"][0])
    for key in arrays:
        if key.startswith("out/gaussian_maps_"):
            height, width = map(int, key.removeprefix("out/gaussian_maps_").split("x"))
            near(nchw(pose_maps(tf.constant(arrays["in/map_points"]), height, width)), arrays[key], what=key)
    view = arrays["out/visual_map"]
    near(coloured_view(tf.constant(arrays["in/map_points"]), arrays["in/colors"], *view.shape[:2])[0], view)


def nchw(x):
    """[..., H, W, C] -> [..., C, H, W]."""
    return np.moveaxis(np.asarray(x), -1, -3)


def check_forward(case):
    arrays = case.arrays
    model = build_actvae(case, case.under("param/"))
    batch = batch_of(case.under("in/"))
    noise = tf.constant(stacked_noise(case.under("noise/"), 1))
    source, condition = model.flat_poses(batch["poses"][:, 0]), model.condition(batch)
    near(tf.concat([source, condition], -1)[:, None], arrays["out/input1"])
    poses, mean, log_variance = model.rollout(source, condition, noise)
    near(poses[0], arrays["out/poses"])
    near(tf.reshape(mean, arrays["out/mu"].shape), arrays["out/mu"])
    near(tf.reshape(log_variance, arrays["out/logvar"].shape), arrays["out/logvar"])
    z = mean[:, 0] + tf.exp(0.5 * log_variance[:, 0]) * noise[0, 1:]
    near(z, arrays["out/z"])
    h = tf.concat([mean[-1, 0], log_variance[-1, 0]], -1)
    near(h, arrays["out/vae_h_last"][0])


def check_pose_losses(case):
    arrays = case.arrays
    model = build_actvae(case, case.under("param/"))
    batch = batch_of(case.under("in/"))
    noise = tf.constant(stacked_noise(case.under("noise/"), 3))
    targets = model.flat_poses(batch["poses"][:, 1:])
    weights = model.loss_weights()
    with tf.GradientTape() as tape:
        rollout = model.rollout(model.flat_poses(batch["poses"][:, 0]), model.condition(batch), noise)
        values = model.pose_losses(*rollout, targets)
        total = sum(weights[k] * v for k, v in values.items())
    gradients = tape.gradient(total, [v.value for v in model.trainable_variables])
    indices = losses_lib.alignments(model.hparams.horizon)
    for i, value in enumerate(losses_lib.pose_reconstruction(rollout[0], targets, indices)):
        same_loss(value, arrays[f"loss/recon_unweighted_{i}"])
        near(rollout[0][i], arrays[f"out/poses_{i}"])
    same_loss(weights["kl"] * values["kl"], arrays["loss/kl"])
    same_loss(weights["reconstruction"] * values["reconstruction"], arrays["loss/recon_total"])
    same_loss(total, arrays["loss/total"])
    near(tf.reshape(rollout[1][:, 0], arrays["out/mu"].shape), arrays["out/mu"])
    sources = variable_map(model)
    for variable, gradient in zip(model.trainable_variables, gradients):
        source = sources[variable.path]
        near(to_original(source, gradient.numpy()), arrays[f"grad/{source.name}"], 1e-4, source.name)


def check_train_actvae(case):
    arrays = case.arrays
    model = build_actvae(case, case.under("param0/"))
    weights = model.loss_weights()
    i = 1
    while f"lr{i}" in arrays:
        same_loss(model.learning_rate(), arrays[f"lr{i}"], "learning rate")
        draws = RecordedDraws({"latents": stacked_noise(case.under(f"noise{i}/"), 3)})
        logs = model.train_step(batch_of(case.under(f"in{i}/")), draws)
        assert not draws.unused()
        same_loss(weights["kl"] * logs["kl"], arrays[f"loss{i}/kl"])
        same_loss(weights["reconstruction"] * logs["reconstruction"], arrays[f"loss{i}/recon_total"])
        compare_parameters(model, case.under(f"param{i}/"), 2e-6)
        i += 1
    assert i > 1


def compare_parameters(model, expected, tolerance):
    """Absolute differences of all recorded parameters."""
    if not expected:
        return
    actual = in_original_form(model)
    for name, value in expected.items():
        np.testing.assert_allclose(actual[name], value, rtol=0, atol=tolerance, err_msg=name)


def check_train_long(case):
    arrays = case.arrays
    path = penn_poses(case)
    if path is None:
        pytest.skip("needs data/penn/penn_test_poses.npz beside the recordings")
    with np.load(path) as f:
        poses, actions = f["poses_norm128"], f["action_id"]
    model = build_actvae(case, case.under("param0/"))
    weights = model.loss_weights()

    @tf.function
    def step(poses, actions, noise):
        class Given:
            def normal(self, name, shape, dtype):
                return noise

        return model.train_step({"poses": poses, "action_class": actions}, Given())

    kl, reconstruction = [], []
    for rows, noise in zip(arrays["in/window_index"], arrays["noise/all"]):
        logs = step(tf.constant(poses[rows], tf.float32), tf.constant(actions[rows], tf.int32), tf.constant(noise))
        kl.append(weights["kl"] * logs["kl"].numpy())
        reconstruction.append(weights["reconstruction"] * logs["reconstruction"].numpy())
    same_loss(kl, arrays["loss/kl"])
    same_loss(reconstruction, arrays["loss/recon_total"])
    last = case.under(f"param{len(arrays['in/window_index'])}/")
    assert last
    compare_parameters(model, last, 5e-6)


def penn_poses(case):
    """The real poses beside the recordings, or None."""
    for root in (case.root.parent, pathlib.Path(__file__).parents[3] / "shared"):
        path = root / "data" / "penn" / "penn_test_poses.npz"
        if path.exists():
            return path
    return None


def check_sample_actvae(case):
    arrays = case.arrays
    model = build_actvae(case, case.under("param/"))
    model.colours = arrays["in/colors"]
    batch = batch_of(case.under("in/"))
    first = {k: v[:1] for k, v in batch.items()}
    samples = sampled(model, first, stacked_noise(case.under("noise_test_forward3/"), 1))
    same_view(model, np.concatenate([first["poses"][0, :1], samples[0, 0]]), arrays["out/test_forward3_pose_random"])
    same_view(model, first["poses"][0, :TARGETS], arrays["out/test_forward3_pose_real"])
    same_view(model, batch["poses"][:, 0], arrays["out/sample_x_save_pose"])
    for t in range(1, TARGETS + 1):
        same_view(model, batch["poses"][:, t], arrays[f"out/sample_x_target_pose{t}"])
    for item, poses in enumerate(sampled_items(model, batch, case)):
        for r in range(poses.shape[0]):
            for t in range(poses.shape[2]):
                same_view(model, poses[r, 0, t], arrays[f"out/sample_pose_random{r + 1}_{t + 1}"][item])


def same_view(model, poses, expected):
    """Coloured views of [..., J, 2] at the size of the recorded ones."""
    near(nchw(coloured_view(tf.constant(poses), model.colours, *expected.shape[-2:])), expected)


def sampled(model, batch, noise):
    """`sample_poses` with recorded noise [S, horizon + 1, B, Z]."""
    draws = RecordedDraws({f"latent/{t}": noise[:, t] for t in range(noise.shape[1])})
    poses = model.sample_poses(batch, draws, noise.shape[0], noise.shape[1] - 1)
    assert not draws.unused()
    return poses.numpy()


def sampled_items(model, batch, case):
    """Two rollouts of each item alone: [2, 1, horizon, J, 2] for each."""
    noise = case.under("noise_sample/")
    for item in range(batch["poses"].shape[0]):
        own = stacked_noise(noise, 2, start=10 * item)
        yield sampled(model, {k: v[item : item + 1] for k, v in batch.items()}, own)


# Pose to image.


def check_vgg(case):
    arrays = case.arrays
    model = build_p2i(case, case.under("param/"))
    with tf.GradientTape() as tape:
        x, y = (tf.constant(nhwc(arrays[f"in/{k}"])) for k in "xy")
        tape.watch(x)
        features = model.vgg_features(x)
        targets = model.vgg_features(y)
        loss = losses_lib.perceptual_l1(features, targets, VGG_WEIGHTS)
    for i, (f, t) in enumerate(zip(features, targets)):
        near(nchw(f), arrays[f"out/feature_x{i}"])
        same_loss(losses_lib.l1_loss(f, t), arrays[f"loss/l1_{i}"])
    same_loss(loss, arrays["loss/vgg"])
    same_loss(loss, arrays["loss/vgg_5d_input"])  # the same frames, folded from [B, T]
    near(nchw(tape.gradient(loss, x)), arrays["grad/x"], 1e-4)


def check_generator(case):
    arrays = case.arrays
    parameters = case.under("param/")
    joints = arrays["in/pose_maps"].shape[1] // 2
    model = build_p2i(case, parameters, vgg_weight=0.0)
    image, maps = (tf.constant(nhwc(arrays[f"in/{k}"]), model.wide_dtype) for k in ("image", "pose_maps"))
    labels = arrays["in/label"].astype(np.int32).reshape(-1)
    onehot = tf.one_hot(labels, model.hparams.num_actions, dtype=model.wide_dtype)
    source_maps, target_maps = maps[..., :joints], maps[..., joints:]
    for mode, training in (("eval", False), ("train", True)):
        stages = generator_stages(model.generator, image, maps, onehot, training)
        for name, value in stages.items():
            near(nchw(value), arrays[f"out/{mode}/{name}"], what=f"{mode} {name}")
        if training:  # the stages above have moved the statistics
            fill(model, parameters)
        frame = model.generator(image, source_maps, target_maps, onehot, training=training)
        near(nchw(frame.image), arrays[f"out/{mode}/image"])
        near(nchw(frame.mask), arrays[f"out/{mode}/mask"])
        if not training:
            encode, draw = model.generator.bind()
            frame = draw(image, encode(image, source_maps), target_maps, onehot)
            near(nchw(frame.image), arrays[f"out/{mode}/image"])
    compare_buffers(model, case.under("out/train/buffer/"))


def generator_stages(net, image, maps, onehot, training):
    """Intermediate maps by their recorded names."""
    x1 = net.image_encoder(image, training=training)
    x2 = net.pose_encoder(maps, training=training)
    stages = {"stream1_down": x1, "stream2_down": x2}
    for i, block in enumerate(net.blocks):
        x1, x2 = block(x1, x2, training=training)
        stages |= {f"att{i}_x1": x1, f"att{i}_x2": x2}
    x = stages["up1_convT"] = net.up1(x1)
    x = stages["up2_convT"] = net.up2(tf.nn.relu(net.up1_norm(x, onehot, training=training)))
    stages["head_raw"] = net.head(tf.nn.relu(net.up2_norm(x, onehot, training=training)))
    return stages


def compare_buffers(model, expected):
    """Running statistics after a call, relative to each array's largest value; counts exactly."""
    assert expected
    actual = in_original_form(model)
    for name, value in expected.items():
        near(actual[name], value, what=name)


def check_discriminator(case):
    arrays = case.arrays
    model = build_p2i(case, case.under("param/"), vgg_weight=0.0)
    fake, real = (tf.constant(nhwc(arrays[f"in/{k}"]), model.wide_dtype) for k in ("fake", "real"))

    def score(x, training):
        return model.discriminator(x[..., :3], x[..., 3:], training=training)

    for mode, training in (("eval", False), ("train", True)):
        scores, features = score(fake, training)
        near(nchw(scores), arrays[f"out/{mode}/score"])
        for i, feature in enumerate(features):
            near(nchw(feature), arrays[f"out/{mode}/feature{i}"])
    compare_buffers(model, case.under("out/train/buffer_after_one_forward/"))
    fake_scores, real_scores = score(fake, True)[0], score(real, True)[0]
    same_loss(gan_loss(fake_scores, 0, "LSGAN") + gan_loss(real_scores, 1, "LSGAN"), arrays["out/train/dis_loss"])
    same_loss(gan_loss(fake_scores, 1, "LSGAN"), arrays["out/train/gen_loss"])


def check_p2i_losses(case):
    """Each mode from the same recorded state.

    In float64: TensorFlow sums a channel on one core in the order of memory, so that float32 batch statistics of
    the pose maps, nearly all of one value, are off by 1e-5, which frames show and ReLUs near 0 turn into 1 % of a
    gradient's norm; in float64 seven other configurations agree to 3e-6 and 1e-5.
    """
    parameters = case.under("param/")
    model = build_p2i(case, parameters, precision="float64")
    batch = batch_of(case.under("in/"), images=True)
    modes = sorted({k.split("/")[0] for k in case.arrays if "/loss/" in k})
    assert len(modes) > 2
    for mode in modes:
        fill(model, parameters)
        check_mode(case, model, model.clip(batch), mode)


def check_mode(case, model, clip, mode):
    """One of the four forms of update: losses, gradient norms, statistics after it."""
    recorded = case.under(f"{mode}/")
    number = mode.removeprefix("class_update").removeprefix("gen_update_image")
    index = int(number) - 1 if number else int(recorded["randint"][0])
    poses = clip.poses[:, index]
    if number:
        draws = RecordedDraws({"latents": stacked_noise(case.under(f"{mode}/noise/"), 1)})
        rollout = model.generated_poses(clip, draws)
        near(rollout[:, : recorded["out/rollout_poses"].shape[1]], recorded["out/rollout_poses"], what=mode)
        poses = rollout[:, index]
    names = {"gan": "gen_adv_pair"}
    if mode.startswith("class_update"):
        network, names = "discriminator", {"discriminator_gan": "dis_adv_pair"}
        values, gradients = model.discriminator_gradients(clip, poses, index)
    elif number:
        network, (values, gradients) = "generator", model.adversarial_gradients(clip, poses)
    else:
        network, (values, gradients) = "generator", model.generator_gradients(clip, index)
        names |= {"reconstruction": "recon_target", "vgg": "vgg_target", "feature": "feature"}
    weights = model.loss_weights()
    assert set(values) == set(names)
    for ours, theirs in names.items():
        same_loss(weights[ours] * values[ours], recorded[f"loss/{theirs}"], f"{mode} {theirs}")
    if "loss/total" in recorded:
        same_loss(sum(weights[k] * v for k, v in values.items()), recorded["loss/total"], mode)
    check_gradient_norms(case, model, network, gradients, mode)
    compare_buffers(model, case.under(f"{mode}/buffer_after/"))
    fill(model, case.under("param/"))
    check_forward_of_mode(model, clip, poses, index, recorded, mode)


def check_gradient_norms(case, model, network, gradients, mode):
    """Of the network that the mode updates; the original computes others' for nothing."""
    sources = variable_map(model)
    zero = set(case.meta["zero_gradient_keys"])
    compared = 0
    for variable, gradient in zip(model.optimizers_by_name[network].targets, gradients):
        key = f"{mode}/gradnorm/{sources[variable.path].name}"
        if key in zero:
            continue
        noise = recorded_noise(case, key)
        np.testing.assert_allclose(np.linalg.norm(gradient), case.arrays[key], rtol=1e-3, atol=noise, err_msg=key)
        compared += 1
    assert compared


def recorded_noise(case, key):
    """Twice what the original's own float32 and float64 runs of this case differ by: a ReLU input near 0 may flip."""
    return 2 * case.meta.get("float32_noise_by_key", {}).get(key, (0.0,))[0]


def check_forward_of_mode(model, clip, poses, index, recorded, mode):
    """Pose maps, the generated frame, and the discriminator's features of it."""
    maps = model.maps(poses)
    near(nchw(tf.concat([clip.source_maps, maps], -1)), recorded["out/generator_pose_maps"], what=mode)
    frame = model.generator(clip.image, clip.source_maps, maps, clip.onehot, training=True).image
    near(nchw(frame), recorded["out/generator_image"], what=mode)
    if "loss/feature_l1_0" not in recorded:
        return
    _, fake = model.discriminator(frame, maps, training=True)
    _, real = model.discriminator(model.scaled(clip.frames[:, index]), maps, training=True)
    for i, value in enumerate(losses_lib.feature_matching(fake, real)):
        same_loss(value, recorded[f"loss/feature_l1_{i}"], f"feature {i}")


def check_train_p2i(case):
    """In float64: a ReLU input within float32 rounding of 0 changes a gradient by 20 %."""
    arrays = case.arrays
    model = build_p2i(case, case.under("param0/"), precision="float64")
    weights = model.loss_weights()
    names = {
        "reconstruction": ("recon_target", "reconstruction"), "vgg": ("vgg_target", "vgg"),
        "feature": ("feature", "feature"), "gan": ("gen_adv_pair", "gan"),
        "generated_gan": ("gen_adv_pair2", "gan"), "discriminator_gan": ("dis_adv_pair", "discriminator_gan"),
        "generated_discriminator_gan": ("dis_adv_pair2", "discriminator_gan"),
    }
    i, rate = 1, 0.0
    while f"lr{i}" in arrays:
        same_loss(model.learning_rate(), arrays[f"lr{i}"], "learning rate")
        rate += float(arrays[f"lr{i}"])
        noise, (first, generated, second) = case.under(f"noise{i}/"), arrays[f"randint{i}"]
        draws = RecordedDraws(
            {
                "discriminator_frame": first, "generated_frame": generated, "generator_frame": second,
                "discriminator/latents": stacked_noise(noise, 1),
                "generator/latents": stacked_noise(noise, 1, start=5),
            }
        )
        logs = model.train_step(batch_of(case.under(f"in{i}/"), images=True), draws)
        assert not draws.unused()
        for ours, (theirs, weight) in names.items():
            same_loss(weights[weight] * logs[ours], arrays[f"loss{i}/{theirs}"], f"iteration {i} {theirs}")
        compare_p2i_state(model, case, i, rate)
        i += 1
    assert i > 1


def compare_p2i_state(model, case, i, rate):
    """Parameters and statistics after iteration `i`; `rate`: sum of the learning rates so far."""
    noisy = set(case.meta["zero_gradient_parameters"])
    actual, expected = in_original_form(model), case.under(f"param{i}/")
    assert expected
    for name, value in expected.items():
        if name in noisy:
            tolerance = 2 * 2 * rate  # Adam makes steps of the rate from rounding; two updates an iteration
        elif name.endswith("running_mean") and name in behind_noisy(noisy):
            tolerance = 1e-3
        elif name.endswith(("running_mean", "running_var")):
            tolerance = NETWORKS * max(np.abs(value).max(), 1)
        else:
            tolerance = 5e-6 if i > 1 else 1e-5
        tolerance = max(tolerance, recorded_noise(case, f"param{i}/{name}"))
        np.testing.assert_allclose(actual[name], value, rtol=0, atol=tolerance, err_msg=f"iteration {i} {name}")


def behind_noisy(noisy):
    """Running means of the norms that follow a convolution whose bias has no gradient."""
    result = set()
    for name in noisy:
        layer = name.removesuffix(".bias")
        head, _, index = layer.rpartition(".")
        result.add(f"{head}.{int(index) + 1}.running_mean")
        if "model_stream1_up_" in layer:  # the conditional norm stands beside the sequence
            result.add(f"{head}_bn.bn.running_mean")
    return result


def check_sample_p2i(case):
    arrays = case.arrays
    model = build_p2i(case, case.under("param/"), vgg_weight=0.0)
    model.colours = arrays["in/colors"]
    inputs = case.under("in/")
    batch = batch_of(inputs)
    source = (nhwc(inputs["source_image"]).astype(np.float64) + 1) / 2
    batch["images"] = tf.constant(source[:, None])
    first = {k: v[:1] for k, v in batch.items()}

    def frames(batch, poses):
        """[S, T, 3, H, W] in [-1, 1] of a batch of one."""
        return nchw(model.render(model.clip(batch), tf.constant(poses))[:, 0]) * 2 - 1

    poses = sampled(model, first, stacked_noise(case.under("noise_test_forward/"), 1))
    same_view(model, np.concatenate([first["poses"][0, :1], poses[0, 0]]), arrays["out/test_forward_pose_random"])
    same_view(model, first["poses"][0, :TARGETS], arrays["out/test_forward_pose_real"])
    expected = arrays["out/test_forward_img_random"]
    near(np.concatenate([inputs["source_image"][:1], frames(first, poses)[0]]), expected)
    for item, poses in enumerate(sampled_items(model, batch, case)):
        one = {k: v[item : item + 1] for k, v in batch.items()}
        images = frames(one, poses)
        for t in range(images.shape[1]):
            for r in range(images.shape[0]):
                near(images[r, t], arrays[f"out/sample_img_random{r + 1}_{t + 1}"][item])
            distance = np.abs(images[0, t] - images[1, t])
            np.testing.assert_allclose(distance, arrays[f"out/sample_distance{t + 1}"][item], rtol=0, atol=1e-4)
        last = frames(one, one["poses"][None, :, 4:5])
        near(last[0, 0], arrays["out/sample_img_from_true_pose4"][item])


# Data.


def check_data(case):
    arrays = case.arrays
    size = int(arrays["imsize"])
    lines = [line for line in arrays["in/list_txt"].item().split("\n") if line.strip()]
    n = 0
    while f"in/images_{n}" in arrays:
        window = penn.parse_list_line(lines[n], f"line {n + 1}")
        clip = penn.window_clip(window, list(arrays[f"in/images_{n}"]), size)
        images = nchw(clip["images"]).astype(np.float64) / 127.5 - 1
        np.testing.assert_allclose(images, arrays[f"out/image_{n}"], rtol=0, atol=1e-6)
        np.testing.assert_allclose(clip["poses"], arrays[f"out/pose_{n}"], rtol=0, atol=1e-6)
        masks = np.repeat(penn.box_masks(clip["boxes"], size)[1:, None, :, :], 3, axis=1)
        np.testing.assert_array_equal(masks, arrays[f"out/mask_{n}"])
        assert clip["action_class"] == arrays[f"out/action_{n}"][0]
        video, frame, gap = arrays[f"out/seq_image_gap_{n}"]
        assert (window.video, window.frames[0], window.frames[1] - window.frames[0]) == (video, frame, gap)
        n += 1
    assert n
