"""CADDY through the model's contract: phases, updates, generation, play, export."""

import numpy as np
import pytest
import tensorflow as tf

from tfvid import models
from tfvid.conversion.assign import assign
from tfvid.errors import UserError
from tfvid.models.caddy import convert, terms
from tfvid.models.caddy.diagnostics import CollapseMonitor
from tfvid.models.caddy.forward import stack_frames
from tfvid.models.caddy.hparams import CaddyHParams
from tfvid.serving.export import export

SMALL = {
    "context_frames": 2, "sequence_length": 5, "actions_count": 3, "state_features": 8, "hidden_state_size": 8,
    "pretraining_steps": 1, "observations_count_start": 3, "observations_count_steps": 4,
    "ground_truth_observations_start": 2, "ground_truth_observations_end": 2, "batch_size": 2,
    "perceptual_loss_lambda": 0.0, "perceptual_loss_lambda_pretraining": 0.0,
}  # fmt: skip


def hparams_of(**changes):
    return CaddyHParams(**{**SMALL, **changes})


def build(size=(16, 32), seed=0, **changes):
    hparams = hparams_of(**changes)
    spec = {"images": tf.TensorSpec([hparams.sequence_length, *size, 3], tf.uint8)}
    return models.build("caddy", hparams, spec, seed)


def clips(count=2, length=5, size=(16, 32), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, length, *size, 3), np.uint8)


@pytest.fixture(scope="module")
def model():
    return build()


def test_phases_follow_the_schedules():
    model = build(sequence_length=9, observations_count_start=3, observations_count_steps=6)
    assert model.phase(0) == (True, 4, 2)  # update 1: pre-training
    assert model.phase(1) == (False, 5, 2)
    assert model.phase(100) == (False, 9, 2)


def test_training_goes_through_every_phase_and_lowers_the_loss():
    model = build(lr=1e-3, observations_count_start=3, sequence_length=3, pretraining_steps=5)
    images = clips(2, 3) // 8 + 96
    data = tf.data.Dataset.from_tensors({"images": images}).repeat()
    step = model.make_train_function()
    iterator = iter(data)
    logs = [{k: float(v) for k, v in step(iterator).items()} for _ in range(25)]
    assert "hidden_states_rec_loss" in logs[4] and "hidden_states_rec_loss" not in logs[5]
    assert logs[24]["avg_observations_rec_loss"] < 0.7 * logs[0]["avg_observations_rec_loss"]
    assert all(np.isfinite(v) for line in logs for v in line.values())
    usage = [logs[-1][f"action_usage_{a}"] for a in range(3)]
    assert abs(sum(usage) - 1) < 1e-5
    assert 1 <= logs[-1]["effective_actions"] <= 3.001


def test_parameters_without_a_gradient_are_left_alone():
    model = build(pretraining_steps=0, weight_decay=0.1, sequence_length=3)
    before = model.networks.state_to_hidden.conv.kernel.numpy()
    decoder = model.networks.decoder.ups[0].conv.kernel.numpy()
    model.current_phase = model.phase(0)
    model.train_step({"images": tf.constant(clips())})
    np.testing.assert_array_equal(before, model.networks.state_to_hidden.conv.kernel.numpy())
    assert not np.array_equal(decoder, model.networks.decoder.ups[0].conv.kernel.numpy())


def test_one_seed_gives_one_run():
    first, second = build(seed=3), build(seed=3)
    for model in (first, second):
        model.current_phase = model.phase(0)
        model.train_step({"images": tf.constant(clips())})
    for a, b in zip(first.weights, second.weights, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_the_perceptual_loss_asks_for_its_file_and_takes_random_features():
    changes = {"perceptual_loss_lambda": 1.0, "perceptual_loss_lambda_pretraining": 1.0, "sequence_length": 3}
    model = build((64, 64), **changes)
    model.current_phase = model.phase(0)
    images = tf.constant(clips(1, 3, (64, 64)))
    with pytest.raises(UserError, match="vgg_weights: expected the file of torchvision's VGG-19"):
        model.train_step({"images": images})
    model = build((64, 64), vgg_weights="random", vgg_widths=(2, 2, 2, 2, 2), **changes)
    model.current_phase = model.phase(0)
    logs = model.train_step({"images": images})
    levels = [float(logs[f"perceptual_loss_r0_l{k}"]) for k in range(5)]
    assert levels[0] > sum(levels[1:]) > 0
    assert not [w.path for w in model.weights if "vgg" in w.path or "features" in w.path]


def test_what_differs_from_the_mean_frame_counts_more_where_asked():
    """One of 8 x 8 pixels is 1 in one of two frames and is drawn as 0.5, which is the mean."""
    observations = np.zeros((1, 2, 8, 8, 3), np.float32)
    observations[0, 1, 2, 3] = 1
    images = [np.zeros((1, 1, s, s, 3), np.float32) for s in (8, 4, 2)]
    images[0][0, 0, 2, 3] = 0.5
    outputs = {"images": [tf.constant(x) for x in images]}
    for weight, expected in ((0.0, 0.5 / 64), (2.0, 0.5 / 64 * (1 + 2 * 0.75))):  # 3 channels, 0.5 from the mean
        _, logs = terms.reconstruction_terms(outputs, tf.constant(observations), foreground_weight=weight)
        assert float(logs["observations_rec_loss_r0"]) == pytest.approx(expected, rel=1e-6)


def test_standardized_directions_keep_their_size_however_little_moves():
    """A plain network gives frames that differ in a few pixels directions near 0; these have deviation 1."""
    images = np.zeros((3, 5, 16, 32, 3), np.uint8)
    for t in range(5):
        images[np.arange(3), t, 12, 4 + np.array([1, 2, 4]) * t] = 255
    sizes = {}
    for standardize in (False, True):
        model = build(standardize_directions=standardize)
        states, attention = model.networks.encode_sequence(model.observations(tf.constant(images), 5), True)
        noise = {"action_states": np.zeros([15, 2], "float32"), "action_directions": np.zeros([3, 4, 2], "float32")}
        directions = model.networks.infer(states, attention, noise, True)["directions_mean"].numpy()
        sizes[standardize] = directions.std((0, 1))
    np.testing.assert_allclose(sizes[True], 1, rtol=1e-2)
    assert (sizes[False] < 0.5).all(), sizes


def test_without_direction_noise_the_draws_do_not_matter():
    model = build(direction_noise=0.0)
    noise = model.noise(model.train_draws(), model.observations(tf.constant(clips()), 5))
    assert not any(np.any(noise[k]) for k in noise if "action_" in k) and np.any(noise["gumbel_uniform"])


def test_without_gumbel_no_uniform_noise_is_drawn():
    model = build(use_gumbel=False)
    noise = model.noise(model.train_draws(), model.observations(tf.constant(clips()), 5))
    assert sorted(noise) == ["action_directions", "action_states", "rec_action_directions", "rec_action_states"]


def test_validation_keeps_the_temperature_of_the_last_update(model, monkeypatch):
    class Seen(Exception):
        pass

    def forward(self, observations, noise, phase, temperature, training):
        raise Seen(float(temperature))

    monkeypatch.setattr(type(model), "forward", forward)
    monkeypatch.setattr(type(model.hparams), "temperature_at", lambda self, k: k)
    with pytest.raises(Seen, match=f"^{float(model.step)}$"):
        model.test_step({"images": tf.constant(clips())})


def test_stacks_repeat_the_first_frame_unless_there_is_a_history():
    frames = np.arange(5, dtype="float32").reshape(1, 5, 1, 1, 1) * np.ones((1, 1, 1, 1, 3), "float32")
    stacked = np.array(stack_frames(frames, 3))[0, :, 0, 0, ::3]
    np.testing.assert_array_equal(stacked[:3], [[0, 0, 0], [1, 0, 0], [2, 1, 0]])
    stacked = np.array(stack_frames(frames, 3, history=2))[0, :, 0, 0, ::3]
    np.testing.assert_array_equal(stacked, [[2, 1, 0], [3, 2, 1], [4, 3, 2]])


@pytest.mark.parametrize("stacking", [1, 3])
def test_given_actions_are_played_as_the_interactive_steps_play_them(stacking):
    """One context frame: generate and the played game are the same function."""
    model = build(observation_stacking=stacking, context_frames=1, sequence_length=7, observations_count_start=3)
    images, actions = clips(2, 1), np.array([[0, 2, 1, 1], [2, 2, 0, 1]], np.int32)
    video = model.generate({"images": images}, seed=0, horizon=4, actions=actions)["images"][0]
    state = model.start(tf.repeat(tf.constant(images), stacking, axis=1))
    for t in range(4):
        frame, state = model.play(state, actions[:, t])
        np.testing.assert_allclose(frame, video[:, t], atol=1e-5)


def test_generation_reconstructs_by_inferred_actions(model):
    batch = {"images": clips(2, 6)}
    first = model.generate(batch, seed=1, num_samples=2)
    assert first["images"].shape == (2, 2, 4, 16, 32, 3)
    assert first["actions"].shape == (2, 2, 4) and first["action_directions"].shape == (2, 2, 4, 2)
    assert 0 <= np.min(first["images"]) and np.max(first["images"]) <= 1
    again = model.generate(batch, seed=1, num_samples=2)
    np.testing.assert_array_equal(first["images"], again["images"])
    other = model.generate(batch, seed=2, num_samples=2)
    assert not np.array_equal(first["action_directions"], other["action_directions"])
    # The actions alone tell the rest: frames of the future are not looked at otherwise.
    replay = model.generate({"images": batch["images"][:, :2]}, seed=1, actions=first["actions"][0], horizon=4)
    # The action between the two context frames is drawn from a sequence of another length.
    assert replay["images"].shape == (1, 2, 4, 16, 32, 3)
    np.testing.assert_array_equal(replay["actions"][0], first["actions"][0])


@pytest.mark.parametrize(
    ("frames", "arguments", "message"),
    [
        (2, {"horizon": 3}, "infers its actions from the frames to reconstruct: expected 5 frames"),
        (1, {}, "expected at least 2 context frames"),
        (2, {"horizon": 2, "actions": [[0, 3], [0, 0]]}, "expected integers from 0 to 2. Received: 0 to 3"),
        (2, {"horizon": 2, "actions": [[0], [0]]}, "actions: expected 2 of them"),
    ],
)
def test_mistakes_of_generation(model, frames, arguments, message):
    with pytest.raises(UserError, match=message):
        model.generate({"images": clips(2, frames)}, seed=0, **arguments)


@pytest.mark.parametrize("size", [(24, 32), (32, 40)])
def test_sizes_that_do_not_fit(size):
    with pytest.raises(UserError, match="that 16 divides"):
        build(size)


@pytest.mark.parametrize("key", ["context_frames", "sequence_length"])
def test_lengths_that_no_one_gave(key):
    hparams = hparams_of(**{key: None})
    with pytest.raises(UserError, match=f"hyper-parameter {key}: expected a positive number, here or from the data set"):
        models.build("caddy", hparams, {"images": tf.TensorSpec([5, 16, 32, 3], tf.uint8)})


def test_validation_gives_one_psnr_a_clip(model):
    logs = model.test_step({"images": tf.constant(clips(3, 5))})
    assert logs["psnr"].shape == (3,)
    assert 0 < float(logs["psnr"][0]) < 60
    assert np.isfinite(float(logs["loss"]))


def test_the_exported_game_is_the_models(model, tmp_path):
    path = export(model, str(tmp_path), 1, "caddy")
    served = tf.saved_model.load(path)
    images, action = clips(2, 1) / np.float32(255), np.array([1, 2], np.int32)
    state = served.signatures["start"](images=tf.constant(images))
    assert set(state) == {"observation", *(f"{n}_{i}" for n in ("hidden", "cell") for i in range(3))}
    out = served.signatures["step"](action=tf.constant(action), variation=tf.zeros([2, 2]), **state)
    ours = model.start(images)
    frame, ours = model.play(ours, action)
    np.testing.assert_allclose(out.pop("frame"), frame, atol=1e-6)
    for name, value in ours.items():
        np.testing.assert_allclose(out[name], value, atol=1e-5)
    clip = tf.constant(clips(2, 2) / np.float32(255))
    actions = tf.constant([[0, 1, 2], [2, 2, 0]])
    video = served.signatures["serving_default"](images=clip, actions=actions, seed=tf.constant(4, tf.int64))["images"]
    expected = model.generate({"images": clip}, seed=4, horizon=3, actions=actions)["images"][0]
    np.testing.assert_allclose(video, expected, atol=1e-5)


def test_a_published_file_fills_every_weight():
    """The map is one to one: arrays under the published names come back out of the variables."""
    model, other = build(seed=1), build(seed=2)
    tensors = published(other)
    report = assign(
        model, {**tensors, "optimizer.state": np.zeros(2)}, convert.variable_map(model), convert.is_ignorable,
        convert.is_optional,
    )
    assert report.ignored == ("optimizer.state",)
    for a, b in zip(model.networks.weights, other.networks.weights, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=a.path)
    del tensors["model.dynamics_network.recurrent_layers_blocks.0.0.cell.cell_gate.bias"]
    with pytest.raises(UserError, match="it has no 'model.dynamics_network.recurrent_layers_blocks.0.0.cell.cell_gate"):
        assign(model, tensors, convert.variable_map(model), convert.is_ignorable, convert.is_optional)


def test_forms_of_published_files(monkeypatch):
    """With and without what surrounds the weights, and as DataParallel names them."""
    state = {"a.weight": np.ones(2, "float16"), "b": np.zeros(())}
    parallel = {f"module.{name}": array for name, array in state.items()}
    estimate = {"matrix_estimator.estimated_matrix": np.ones((2, 2))}
    trained = {"optimizer": {"state": {0: {"step": 9, "exp_avg": np.ones(2)}}}, "step": 1234, "mi_estimator": estimate}
    for saved in ({"model": state, **trained}, {"model": parallel, **trained}, state, parallel):
        monkeypatch.setattr(convert.torch_file, "read", lambda path: saved)  # noqa: B023  used at once
        tensors = convert.read_source("x.pth.tar")
        assert {n for n in tensors if not convert.is_ignorable(n)} == {"model.a.weight", "model.b"}
        if "model" in saved:
            assert tensors["step"] == 1234 and "mi_estimator.matrix_estimator.estimated_matrix" in tensors
    monkeypatch.setattr(convert.torch_file, "read", lambda path: [1])
    with pytest.raises(UserError, match="x.pth.tar: expected a dictionary. Received: list"):
        convert.read_source("x.pth.tar")


def test_the_frames_of_published_models():
    assert convert.data_spec(hparams_of(dataset="tennis"))["images"].shape == (5, 96, 256, 3)
    with pytest.raises(UserError, match="--image_size: expected height,width,channels .*Received: 'kth'"):
        convert.data_spec(hparams_of(dataset="kth"))


def published(model):
    """{name in a .pth.tar: array in PyTorch's layout} of a model's weights."""
    variables, result = {v.path: v.numpy() for v in model.weights}, {}
    for path, source in convert.variable_map(model).items():
        value = variables[path]
        if source.name == "action_usage":
            continue
        if path.endswith("gates/kernel"):
            parts = np.split(np.transpose(value, (3, 2, 0, 1)), 4)
        elif path.endswith("gates/bias"):
            parts = np.split(value, 4)
        elif value.ndim == 4:
            parts = [np.transpose(value, (3, 2, 0, 1))]
        elif value.ndim == 3:
            parts = [np.transpose(value, (2, 0, 1))]
        elif path.endswith("kernel"):
            parts = [value.T]
        else:
            parts = [value]
        result.update(zip(source.names, parts, strict=True))
    return result


def test_collapsed_actions_are_reported_once_a_window():
    monitor = CollapseMonitor(hparams_of(pretraining_steps=100, collapse_window=50))
    assert not monitor.due(100) and monitor.due(150) and not monitor.due(160)
    assert monitor.message(150, [0.3, 0.4, 0.3], -0.5, 1.0) is None
    assert "action 1 takes 97% of all steps" in monitor.message(150, [0.02, 0.97, 0.01], -0.5, 1.0)
    line = monitor.message(150, [0.3, 0.4, 0.3], -0.001, 0.02)
    assert "0.0010 of at most 1.10 nats" in line and "\n" not in line


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"observations_count_start": 6}, "observations_count_start: expected at most 5"),
        ({"observation_stacking": 4}, "observations_count_start: expected at most 2"),
        ({"perceptual_loss_lambda": [1.0, 2.0]}, "perceptual_loss_lambda: expected one number or five"),
        ({"gumbel_temperature_end": 2.0}, "gumbel_temperature_start: expected at least"),
        ({"state_features": 6}, "state_features: expected a multiple of 4"),
    ],
)
def test_hyper_parameters_that_do_not_fit(changes, message):
    with pytest.raises(UserError, match=message):
        hparams_of(**changes)
