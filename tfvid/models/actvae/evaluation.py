"""How good generated pose sequences are: errors in pixels, diversity, and whether the action matters.

The original has no metrics; this is the protocol of the figures in README. Poses are in
network units; `pixels` is how many pixels a unit has. "Copy" repeats the source pose: any
model of use must beat it.
"""

import numpy as np
import tensorflow as tf

from tfvid.metrics.poses import average_pairwise_distance
from tfvid.models.draws import StatelessDraws

PCK_SHARES = (0.05, 0.1)  # of the image's side
PAIR_SAMPLES = 20  # whose pairs give the average pairwise distance
PAIR_CLIPS = 2000  # at most, whose pairs give that of the true movements
LABEL_SAMPLES = 20
KNOWN_ERROR_POWERS = (1.0, 1.5, 2.0)  # of noise in `error_at_distance`
MAX_ROLLOUTS = 4096  # at once


def stateless_draws(seed):
    """Function of a sample's number -> its draws, for `sample_all`."""
    return lambda sample: StatelessDraws(seed, sample, stream="evaluate")


def sample_all(model, clips, num_samples, horizon, draws):
    """Samples for every clip.

    Args:
      model: an `ActVAE`.
      clips: {"poses" [N, T, J, 2], "action_class" [N], "frame_step" [N] where used}.
      draws: see `stateless_draws`; asked once a sample, in order, for "latents" [horizon + 1, N, Z] and what
        `neighbour_chances` asks for.

    Returns:
      float32 [num_samples, N, horizon, J, 2].
    """
    count = len(clips["action_class"])
    source = model.flat_poses(tf.constant(clips["poses"][:, 0]))
    condition = model.condition({k: tf.constant(v) for k, v in clips.items() if k != "poses"})
    sample = tf.function(lambda *inputs: model.samples(*inputs)[0], reduce_retracing=True)
    samples = np.empty((num_samples, count, horizon, *clips["poses"].shape[2:]), np.float32)
    for s in range(num_samples):
        drawn = draws(s)
        noise = tf.cast(drawn.normal("latents", [horizon + 1, count, model.hparams.latent_dim]), model.wide_dtype)
        chances = model.neighbour_chances(drawn, horizon, [1, count])
        for start in range(0, count, MAX_ROLLOUTS):
            part = slice(start, start + MAX_ROLLOUTS)
            poses = sample(source[part], condition[part], noise[None, :, part], chances[:, :, part])
            samples[s, part] = np.reshape(poses, samples[s, part].shape)
    return samples


def errors(samples, truth, pixels):
    """[S, N, T, J]: distance of every joint in pixels."""
    return pixels * np.linalg.norm(samples - truth, axis=-1)


def pose_metrics(samples, truth, source, pixels):
    """The protocol's figures.

    Args:
      samples: [S, N, T, J, 2].
      truth: [N, T, J, 2].
      source: [N, J, 2].

    Returns:
      {name: number or list}; distances in pixels but for `apd` (network units).
    """
    e = errors(samples, truth, pixels)
    side = 2 * pixels
    centre = samples.mean(0)
    result = {
        "joint_error_px": e.mean(),
        "joint_error_px_per_step": e.mean((0, 1, 3)).tolist(),
        "joint_error_px_best": e.mean((2, 3)).min(0).mean(),
        "joint_error_px_of_mean": errors(centre, truth, pixels).mean(),
        "l1": np.abs(samples - truth).mean(),
        "std_px": pixels * samples.std(0).mean(),
        "apd": _mean_pairwise_distance(samples[:PAIR_SAMPLES]),
        "motion_px": errors(samples, source[:, None], pixels).mean(),
    }
    for share in PCK_SHARES:
        result[f"pck_{share:g}"] = (e < share * side).mean()
    return {k: v if isinstance(v, list) else float(v) for k, v in result.items()}


def _mean_pairwise_distance(samples):
    """Mean over the clips of `average_pairwise_distance`, in float64."""
    return float(np.mean(average_pairwise_distance(samples.astype(np.float64))))


def error_at_distance(centre, truth, pixels, distance, num_samples=50, seed=0):
    """Mean error of independent noise of a given average pairwise distance about `centre`.

    The noise knows more than a model can: how far from the truth every joint of `centre`
    is, but not on which side. Its standard deviation is that error to the power that costs
    least, of KNOWN_ERROR_POWERS. Samples that keep `distance` with a smaller error know
    something of the side.

    Args:
      centre: [N, T, J, 2], the mean prediction.
      truth: [N, T, J, 2].
      distance: average pairwise distance to reach, in the units of the poses.

    Returns:
      Pixels.
    """
    noise = np.random.default_rng(seed % 2**64).standard_normal((num_samples, *centre.shape))
    error = np.linalg.norm(centre - truth, axis=-1, keepdims=True)
    found = []
    for power in KNOWN_ERROR_POWERS:
        samples = noise * error**power
        samples *= distance / _mean_pairwise_distance(samples[:PAIR_SAMPLES])
        found.append(errors(centre + samples, truth, pixels).mean())
    return float(min(found))


def label_control(model, clips, horizon, draws, pixels):
    """What another action class changes, with the same noise.

    Args:
      draws: as in `evaluate`.

    Returns:
      {"label_shift_px": distance between the mean predictions under both classes,
      "joint_error_px_wrong_label": mean error under the wrong one}.
    """
    wrong = (clips["action_class"] + 1) % model.hparams.num_actions
    truth = clips["poses"][:, 1 : 1 + horizon]
    right, other = (
        sample_all(model, {**clips, "action_class": labels}, LABEL_SAMPLES, horizon, draws())
        for labels in (clips["action_class"], wrong.astype(np.int32))
    )
    return {
        "label_shift_px": float(errors(right.mean(0), other.mean(0), pixels).mean()),
        "joint_error_px_wrong_label": float(errors(other, truth, pixels).mean()),
    }


def evaluate(model, clips, num_samples=50, horizon=None, seed=0, draws=None, distance=None):
    """All figures of a model on clips, and those of copying the source pose.

    Args:
      clips: {"poses" [N, T, J, 2] with T > horizon, "action_class" [N], ...} as arrays.
      draws: function without arguments that gives what `stateless_draws` gives, anew for
        each pass; default: from `seed`.
      distance: where given, `error_at_distance` about the mean of the samples is told, too.

    Returns:
      {"model": {...}, "copy": {...}, "per_action": {class: joint error}, "clips": N,
      "apd_of_true_motion": average pairwise distance of the clips' own movements (of PAIR_CLIPS
      clips, evenly spaced, where there are more), ...}.
    """
    horizon = horizon or model.hparams.horizon
    draws = draws or (lambda: stateless_draws(seed))
    pixels = model.POSE_PIXELS
    source, truth = clips["poses"][:, 0], clips["poses"][:, 1 : 1 + horizon]
    samples = sample_all(model, clips, num_samples, horizon, draws())
    figures = {
        **pose_metrics(samples, truth, source, pixels),
        **label_control(model, clips, horizon, draws, pixels),
    }
    of_clip = errors(samples, truth, pixels).mean((0, 2, 3))
    still = np.repeat(source[:, None], horizon, axis=1)
    spaced = np.unique(np.linspace(0, len(truth) - 1, min(len(truth), PAIR_CLIPS)).astype(int))
    bound = {}
    if distance is not None:
        error = error_at_distance(samples.mean(0), truth, pixels, distance, seed=seed)
        bound = {"error_at_distance": {"distance": distance, "joint_error_px": error}}
    return {
        **bound,
        "apd_of_true_motion": _mean_pairwise_distance((truth - still)[spaced, None]),
        "model": figures,
        "copy": pose_metrics(still[None], truth, source, pixels),
        "per_action": {
            int(a): float(of_clip[clips["action_class"] == a].mean()) for a in np.unique(clips["action_class"])
        },
        "clips": len(truth),
        "num_samples": num_samples,
        "horizon": horizon,
    }


def read_clips(source, split, hparams, length, batch_size=64):
    """Every clip of a split as `evaluate` takes them.

    Args:
      source: a `tfvid.data.source.Source`.
      length: frames of a clip.
    """
    keys = ("poses", "action_class", "frame_step")
    found = {}
    for batch in source.evaluation_batches(split, hparams, batch_size, length=length):
        valid = batch["valid"].numpy()
        for key in keys:
            if key in batch:
                found.setdefault(key, []).append(batch[key].numpy()[valid])
    return {k: np.concatenate(v) for k, v in found.items()}


def table(result):
    """The figures of `evaluate` as text: a line for each, model and copy side by side."""
    lines = [f"{'':28}{'model':>12}{'copy pose':>12}"]
    for name, value in result["model"].items():
        other = result["copy"].get(name)
        if isinstance(value, list):
            for t, v in enumerate(value):
                lines.append(f"{f'{name} {t + 1}':28}{v:12.3f}{other[t]:12.3f}")
        else:
            lines.append(f"{name:28}{value:12.3f}" + ("" if other is None else f"{other:12.3f}"))
    lines.append(f"apd of the true movements: {result['apd_of_true_motion']:.3f}")
    if bound := result.get("error_at_distance"):
        lines.append(
            f"apd {bound['distance']:g} by independent noise about the mean sample, growing with the error that"
            f" every joint has: joint_error_px {bound['joint_error_px']:.3f}"
        )
    return "\n".join(lines)
