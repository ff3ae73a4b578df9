"""Recorded sampling: test-mode rollouts, metrics of frames, best, average and worst of samples."""

import numpy as np
import tensorflow as tf

from tests.parity.savp_support import (
    assert_close,
    build,
    check_outputs,
    inputs_of,
    recorded_draws,
    rollout_outputs,
)
from tfvid.metrics import frames
from tfvid.models.savp.networks_generator import OUTPUTS

METRIC_ATOL = 1e-4  # of PSNR in dB; the others are of order 1
IMAGE_ATOL = 2e-5


def check(case):
    """One pass over all frames, then samples of the future from the context alone."""
    params = case.sibling(f"{case.name.rsplit('_', 1)[0]}_params")
    inputs = case.under("in/")
    model = build(case, {k[6:]: v for k, v in params.items() if k.startswith("param/")}, inputs)
    assert inputs["images"].shape[1] == case.meta["sequence_length"]
    model.step.assign(0)  # the recorded test graph starts anew; only its schedules show it
    prepared, expected = inputs_of(model, inputs), case.under("out/")
    rollouts = ("posterior", "prior") if model.hparams.nz else ("prior",)
    draws = recorded_draws(case.under("rand/"))
    outputs = model.forward(prepared, draws, False, rollouts=rollouts, keep=OUTPUTS)
    named = {
        **rollout_outputs(outputs),
        "learning_rate": model.hparams.learning_rate(model.step),
        "kl_weight": model.kl_weight(),
    }
    check_outputs(named, expected)
    context = model.hparams.context_frames
    check_metrics(case.under("metrics/"), outputs["prior"]["image"], prepared["image"], context)
    samples = _check_sample(model, prepared, case, outputs["prior"]["image"])
    if samples:
        _check_evaluation(case.under("eval/"), samples, prepared["image"].numpy(), context, case.meta)


def _check_sample(model, inputs, case, expected):
    """`SAVP.sample` from the context frames equals the pass over all frames; gives all evaluation samples."""
    context, horizon = model.hparams.context_frames, case.meta["sequence_length"] - model.hparams.context_frames

    def sample(rand):
        rand = {k: v[: context - 1] if k == "eps_posterior" else v for k, v in rand.items()}
        known = {k: v if k == "action" else v[:, :context] for k, v in inputs.items()}
        return model.sample(known, recorded_draws(rand), horizon, context=True)["image"][0].numpy()

    assert_close(sample(case.under("rand/")), expected, atol=IMAGE_ATOL, name="sample")
    rand = case.under("rand/eval/")
    count = case.meta.get("eval_num_samples", 0)
    if not rand:  # nothing is drawn: every sample is the same
        return [sample({})] * count
    return [sample({k: v[i] for k, v in rand.items()}) for i in range(count)]


def training_samples(model, inputs, draws):
    """The original's visualisation rollouts, with true frames fed as in training: [B, T-1, H, W, C, S]."""
    h = model.hparams
    total, steps = inputs["image"].shape[1], inputs["image"].shape[1] - 1
    batch, count = inputs["image"].shape[0], h.num_samples
    tiled = {k: tf.concat([v] * count, axis=0) for k, v in inputs.items()}

    def noise(name, length):
        return tf.reshape(draws.normal(name, [length, count, batch, h.nz]), [length, count * batch, h.nz])

    images, actions = inputs["image"], inputs.get("action")
    if h.learn_prior:
        mu, log_sigma_sq = model.generator.prior.bind()(images[:, : h.context_frames], actions, steps)
        mu, log_sigma_sq = (tf.concat([x] * count, axis=0) for x in (mu, log_sigma_sq))
        latents = mu + tf.exp(log_sigma_sq / 2) * tf.transpose(noise("eps_prior_samples", steps), [1, 0, 2])
    else:
        mu, log_sigma_sq = model.generator.encoder.bind()(images, actions)
        eps = tf.transpose(draws.normal("eps_posterior", [steps, batch, h.nz]), [1, 0, 2])
        posterior = tf.concat([mu + tf.exp(log_sigma_sq / 2) * eps] * count, axis=0)
        fresh = tf.transpose(noise("z_prior_samples", total - h.context_frames), [1, 0, 2])
        latents = tf.concat([posterior[:, : h.context_frames - 1], fresh], axis=1)
    mask, _ = model._ground_truth(tiled, draws, "gt_sampling_samples", total, True)
    (video,) = model.generator.unroll(model.generator.bind(), tiled, [latents], [mask], total - h.context_frames)
    video = np.reshape(video["image"], (count, batch, *video["image"].shape[1:]))
    return np.moveaxis(video, 0, -1)


# Metrics as recorded: each of predicted, true frames [B, t, H, W, C] -> [B, t].
METRICS = {
    "psnr": lambda a, b: frames.psnr(a, b),
    "mse": lambda a, b: frames.mse(a, b),
    "ssim": lambda a, b: frames.ssim(a, b),
    # The recording stands in for LPIPS with minus the mean absolute difference.
    "lpips": lambda a, b: -np.mean(np.abs(a - b), axis=(-3, -2, -1)),
}


def _per_frame(metric, predicted, truth):
    flat = [np.reshape(x, (-1, *x.shape[2:])) for x in (predicted, truth)]
    return np.reshape(np.asarray(METRICS[metric](*flat)), predicted.shape[:2])


def check_metrics(recorded, predicted, truth, context):
    """Means over the future frames."""
    if predicted is None:
        return
    future, true = np.asarray(predicted)[:, context - 1 :], np.asarray(truth)[:, context:]
    for name, value in recorded.items():
        assert_close(np.mean(_per_frame(name, future, true)), value, atol=METRIC_ATOL, rtol=1e-5, name=name)


def _check_evaluation(recorded, samples, truth, context, meta):
    samples = np.stack(samples)  # [S, B, T-1, H, W, C]
    future, true = samples[:, :, context - 1 :], truth[:, context:]
    scores = {m: np.stack([_per_frame(m, s, true) for s in future]) for m in METRICS}  # [S, B, t]
    for name, value in recorded.items():
        head, _, task = name.partition("/")
        if head == "eval_diversity":
            count = meta["eval_num_samples_for_diversity"]
            pairs = [-_per_frame("lpips", future[i], future[i - 1]) for i in range(1, min(count + 1, len(future)))]
            assert_close(sum(pairs, np.zeros(true.shape[:2])) / count, value, atol=METRIC_ATOL, name=name)
            continue
        metric = head.rsplit("_", 1)[1]
        best = {"max": np.argmax, "min": np.argmin}
        rows = np.arange(truth.shape[0])
        chosen = None if task == "avg" else best[task](scores[metric].mean(axis=-1), axis=0)
        source = samples if head.startswith("eval_gen_images") else scores[metric]
        found = source.mean(axis=0) if task == "avg" else source[chosen, rows]
        assert_close(found, value, atol=METRIC_ATOL if source is not samples else IMAGE_ATOL, name=name)
