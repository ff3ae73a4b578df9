"""Checks of CADDY's data windows, schedules and metrics."""

import pathlib
import re

import numpy as np

from tests.parity.caddy_parts import make_vgg
from tests.parity.caddy_support import channels_first, channels_last
from tfvid.data.caddy_videos import CaddyVideos, read_annotated_video, summed_rewards
from tfvid.data.preparation import cut_into_clips
from tfvid.metrics import actions, detection, distributions
from tfvid.metrics import frames as frame_metrics
from tfvid.models.caddy import losses
from tfvid.models.caddy.forward import stack_frames
from tfvid.models.caddy.hparams import CaddyHParams

HPARAMS = pathlib.Path(__file__).parents[2] / "hparams"


def check_data(case):
    """Windows of the original's data set, its schedules, and its fixed-length videos."""
    folder = (case.folder / case.name).parent / "data_videos"
    variants = [v for v in case.meta.values() if isinstance(v, dict) and "observations_count" in v]
    names = [k for k, v in case.meta.items() if isinstance(v, dict) and "observations_count" in v]
    assert variants
    for name, variant in zip(names, variants):
        check_windows(case, folder, name, variant)
    for key, value in case.meta.items():
        if key.startswith("schedule_"):
            check_schedule(key, value)
        elif key.startswith("ground_truth_schedule"):
            check_ground_truth_schedule(key, value)
    if "subsample_split_resize" in case.meta:
        check_subsampling(case, folder)


def check_windows(case, folder, name, variant):
    """Every recorded window: frames, stacks, annotations."""
    count, skip, stacking = (variant[k] for k in ("observations_count", "skip_frames", "observation_stacking"))
    span = count + (count - 1) * skip
    crop = tuple(variant["crop"]) if variant["crop"] else None
    videos = [read_annotated_video(str(p), crop, tuple(variant["size"])) for p in sorted(folder.iterdir())]
    windows = [(v, s) for v, video in enumerate(videos) for s in range(max(len(video["images"]) - span + 1, 0))]
    assert len(windows) == variant["length"]
    recorded = case.under(f"{name}/")
    for i, index in enumerate(recorded["indices"]):
        v, start = windows[index]
        assert (v, start) == (recorded["video_index"][i], recorded["initial_frames"][i])
        history = min(stacking - 1, start // (skip + 1))
        first = start - history * (skip + 1)
        frames = videos[v]["images"][first : start + span : skip + 1].astype("float32") / 255 * 2 - 1
        observations = channels_first(stack_frames(frames[None], stacking, history))[0]
        np.testing.assert_allclose(observations, recorded["observations"][i], atol=1e-6)
        places = [start + k * (skip + 1) for k in range(count)]
        rewards = summed_rewards(videos[v]["rewards"], skip)
        for key, values in (("actions", videos[v]["actions"]), ("dones", videos[v]["dones"]), ("rewards", rewards)):
            np.testing.assert_allclose([values[p] for p in places], recorded[key][i], rtol=1e-6, err_msg=key)


def check_schedule(key, table):
    """The published configuration's schedules at recorded steps."""
    hparams = CaddyHParams.load(str(HPARAMS / key.split("_")[-1] / "caddy.json"))
    ours = {
        "observations_count": hparams.observations_at,
        "ground_truth_observations": hparams.ground_truth_at,
        "gumbel_temperature": hparams.temperature_at,
    }
    for row in table["rows"]:
        values = dict(zip(table["columns"], row))
        k = values.pop("global_step")
        for name, value in values.items():
            assert abs(ours[name](k) - value) <= 1e-12, f"{key}: {name} at {k}: {ours[name](k)}, recorded {value}"


def check_ground_truth_schedule(key, rows):
    """`ground_truth_schedule_<start>_to_<end>_in_<steps>`."""
    start, end, steps = (int(x) for x in re.fullmatch(r".*_(\d+)_to_(\d+)_in_(\d+)", key).groups())
    hparams = CaddyHParams(
        ground_truth_observations_start=start, ground_truth_observations_end=end, ground_truth_observations_steps=steps
    )
    for k, value in rows:
        assert hparams.ground_truth_at(k) == value, k


def check_subsampling(case, folder):
    """Every n-th frame, cropped, resized, cut into clips; the original drops a last block that fits exactly."""
    meta = case.meta["subsample_split_resize"]
    call = meta["call"]
    skip, length = (int(re.search(rf"{name} (\d+)", call).group(1)) for name in ("frame_skip", "length"))
    crop, size = (re.search(rf"{name} \(([\d, ]+)\)", call) for name in ("crop", "size"))
    crop, size = (found and tuple(int(x) for x in found.group(1).split(",")) for found in (crop, size))
    video = re.search(r"video (\d+)", call).group(1)
    options = {"resample": "bicubic" if "bicubic" in call else "bilinear"}
    assert options["resample"] in CaddyVideos.OPTIONS["resample"].choices
    clip = read_annotated_video(str(folder / video), crop, size, options["resample"])
    kept = {"images": clip["images"][:: skip + 1], "action_labels": np.array(clip["actions"])[:: skip + 1][:-1]}
    clips = list(cut_into_clips(kept, length))[: meta["videos"]]
    assert len(clips) == len(case.arrays["subsample/frames"]) == meta["videos"]
    for i, found in enumerate(clips):
        np.testing.assert_array_equal(found["images"], case.arrays["subsample/frames"][i])
        np.testing.assert_array_equal(found["action_labels"], case.arrays["subsample/actions"][i][: length - 1])


def check_metrics(case):
    """The evaluation's metrics."""
    a = case.arrays
    real, fake = channels_last(a["reference"]), channels_last(a["generated"])
    np.testing.assert_allclose(frame_metrics.mse(fake, real), a["mse"], rtol=1e-5)
    np.testing.assert_allclose(frame_metrics.psnr(fake, real, epsilon=1e-8), a["psnr"], rtol=1e-5)
    np.testing.assert_allclose(frame_metrics.ssim(fake, real, downsample=True), a["ssim"], rtol=1e-4, atol=1e-5)
    large = [channels_last(a[f"ssim_large/{n}"]).astype("float32") / 255 for n in ("generated", "reference")]
    np.testing.assert_allclose(
        frame_metrics.ssim(*large, downsample=True), a["ssim_large/value"], rtol=1e-4, atol=1e-5
    )
    mask = frame_metrics.motion_mask(real)
    np.testing.assert_allclose(channels_first(mask), a["motion_mask"], atol=1e-6)
    np.testing.assert_allclose(frame_metrics.masked_mse(fake, real, mask), a["motion_masked_mse"], rtol=1e-5, atol=1e-9)
    check_cosine(a, real, fake)
    check_sequence_loss(a, real, fake)
    check_distance(case)
    check_detection(case)
    check_actions(case)


def check_cosine(a, real, fake):
    """Cosine of VGG features, inputs as the original normalises them."""
    vgg = make_vgg(a, "float32")
    first, second = (vgg(((x - 0.5) / (0.5 + 1e-6)).reshape(-1, *x.shape[2:])) for x in (real, fake))
    value = np.reshape(frame_metrics.cosine_similarity(first, second), a["vgg_cosine_similarity"].shape)
    np.testing.assert_allclose(value, a["vgg_cosine_similarity"], rtol=1e-5)


def check_sequence_loss(a, real, fake):
    """L1 at each position of images in [-1, 1]; a sequence that lacks the first frame is 0 there."""
    whole, real, fake = fake, real * 2 - 1, (fake * 2 - 1)[:, 1:]
    values = [
        float(losses.observations_l1(real[:, t : t + 1], fake[:, t - 1 : t])) for t in range(1, real.shape[1])
    ]
    np.testing.assert_allclose([0.0, *values], a["sequence_loss/positions"], rtol=1e-5)
    np.testing.assert_allclose(np.mean(values), a["sequence_loss/average"], rtol=1e-5)
    errors = np.mean(frame_metrics.mse(whole, (real + 1) / 2), axis=0)
    np.testing.assert_allclose(errors, a["sequence_loss_mse/positions"], rtol=1e-5)
    np.testing.assert_allclose(np.mean(errors), a["sequence_loss_mse/average"], rtol=1e-5)


def check_distance(case):
    """Frechet distance of two sets of features."""
    statistics = []
    for name in "ab":
        statistics.append(distributions.GaussianStatistics(case.arrays[f"frechet/{name}"].shape[1]))
        statistics[-1].update(case.arrays[f"frechet/{name}"])
    value = distributions.frechet_distance_of(*statistics)
    np.testing.assert_allclose(value, case.meta["results"]["frechet_distance"], rtol=1e-4)


def check_detection(case):
    """The paddle's detector; distances and misses, by position and together."""
    a = case.arrays
    frames = channels_last(a["platform/frames_u8"])
    np.testing.assert_array_equal(detection.paddle_positions(frames), a["platform/positions"])
    np.testing.assert_array_equal(detection.paddle_positions(frames.astype("float32") / 255), a["platform/positions"])
    for name in ("detection1d", "detection2d"):
        found = detection.detection_statistics(a[f"{name}/reference"], a[f"{name}/generated"])
        for key, value in case.meta["results"][name].items():
            _, metric, position = key.split("/")
            ours = found[metric][-1 if position == "global" else int(position)]
            assert np.isclose(ours, value, rtol=1e-5, equal_nan=True), f"{name}: {key}: {ours}, recorded {value}"


def check_actions(case):
    """Hungarian accuracy, variance within actions, linear classification."""
    a, results = case.arrays, case.meta["results"]
    mapping = results["hungarian"]["ground_truth_to_model_mapping"]
    accuracy, found = actions.action_accuracy(
        a["hungarian/ground_truth"], a["hungarian/predictions"], len(mapping)
    )
    assert abs(accuracy - results["hungarian"]["accuracy"]) < 1e-6
    assert {str(k): int(v) for k, v in enumerate(found)} == mapping
    vectors, labels = a["actions/vectors"], a["actions/labels"]
    statistics = actions.action_variance(vectors, labels)
    for key, value in results["action_variance"].items():
        _, metric, label = key.split("/")
        if (metric, label) == ("avg_variance", "mean"):
            ours = statistics["avg_variance_mean"]
        else:
            ours = statistics[metric][label if label == "global" else int(label)]
        np.testing.assert_allclose(ours, value, rtol=2e-4, atol=1e-5, err_msg=key)
    delta = 100 * actions.delta_mse(vectors, labels)
    assert abs(delta - results["delta_mse_percent_as_in_the_paper"]) < 1e-2
    # "rbf" and "poly" machines are not in the paper's tables and not in tfvid. The original's "linear" is an
    # unseeded iteration that stops near the optimum: one movement more or less was measured in 1 of 60 random sets.
    recorded = results["action_classification"]
    for name, function, off in (("linear", actions.delta_accuracy, 1), ("linear_ovo", actions.delta_accuracy_pairs, 0)):
        accuracy, each = function(vectors, labels)
        assert abs(accuracy - recorded[f"{name}/action_accuracy"]) < off / len(labels) + 1e-6, name
        for label, value in each.items():
            allowed = off / np.sum(labels == label) + 1e-6
            assert abs(value - recorded[f"{name}/action_accuracy/{label}"]) < allowed, name
