"""What a model generates for a few validation clips, drawn for people.

For each clip the best, the average and the worst of several samples by PSNR: one row
each, with truth, prediction and error side by side, as a GIF.
"""

import dataclasses
import os

import numpy as np
import tensorflow as tf

from tfvid.data.video_files import write_gif
from tfvid.metrics import frames as frame_metrics
from tfvid.training.logs import plot_over_time


@dataclasses.dataclass(frozen=True)
class Judged:
    """Samples beside the truth.

    Attributes:
      truth: [B, T, H, W, C] float in [0, 1], the frames after the context.
      samples: [S, B, T, H, W, C] float in [0, 1].
      scores: {metric: [S, B, T]}.
      repeat: {metric: [B, T]}, of the last context frame repeated.
    """

    truth: np.ndarray
    samples: np.ndarray
    scores: dict
    repeat: dict

    def chosen(self, clip):
        """{"best" | "average" | "worst": index of a sample} by PSNR; one of a single sample."""
        score = self.scores["psnr"][:, clip].mean(axis=-1)
        if len(score) == 1:
            return {"prediction": 0}
        average = int(np.argmin(np.abs(score - score.mean())))
        return {"best": int(np.argmax(score)), "average": average, "worst": int(np.argmin(score))}

    def curves(self, metric):
        """{name: [T]}: mean over clips of the best, average and worst sample, and of the repeated frame."""
        values = self.scores[metric]
        best = np.take_along_axis(values, values.mean(-1).argmax(0)[None, :, None], 0)[0]
        worst = np.take_along_axis(values, values.mean(-1).argmin(0)[None, :, None], 0)[0]
        found = {"best": best, "average": values.mean(0), "worst": worst} if len(values) > 1 else {"model": values[0]}
        return {k: v.mean(0) for k, v in {**found, "repeat last frame": self.repeat[metric]}.items()}


def judge(model, batch, seed, num_samples):
    """Generates for a batch and measures; a `Judged`, or None where frames cannot be compared."""
    outputs = model.generate(batch, seed=seed, num_samples=num_samples)
    if "images" not in outputs:
        return None
    samples = np.asarray(outputs["images"], "float32")  # [S, B, T, H, W, C]
    truth = model.truth_frames(batch, samples.shape[2])
    if truth is None or tuple(truth.shape) != samples.shape[1:]:
        return None
    truth = np.asarray(truth, "float32")
    start = (model.hparams.context_frames or 1) - 1
    last = np.asarray(model.images_to_float(batch["images"][:, start : start + 1]), "float32")
    last = np.broadcast_to(last, truth.shape) if last.shape[2:] == truth.shape[2:] else truth
    metrics = {"psnr": lambda p, t: frame_metrics.psnr(p, t, floor=1e-10)}
    if min(truth.shape[2:4]) >= 11:
        metrics["ssim"] = frame_metrics.ssim
    scores = {k: np.stack([np.asarray(m(s, truth)) for s in samples]) for k, m in metrics.items()}
    return Judged(truth, samples, scores, {k: np.asarray(m(last, truth)) for k, m in metrics.items()})


def animation(judged, clip, context):
    """One clip's rows (best, average, worst), each truth | prediction | error; uint8 [T, H', W', C].

    Args:
      context: [T0, H, W, C] float, frames shown before the predicted ones.
    """
    truth = np.concatenate([context, judged.truth[clip]])
    rows = []
    for index in judged.chosen(clip).values():
        predicted = np.concatenate([context, judged.samples[index, clip]])
        rows.append(np.concatenate([truth, predicted, np.abs(predicted - truth)], axis=2))
    frames = np.concatenate(rows, axis=1)
    enlarge = max(1, 96 // truth.shape[1])
    frames = frames.repeat(enlarge, axis=1).repeat(enlarge, axis=2)
    return np.nan_to_num(np.clip(frames * 255 + 0.5, 0, 255)).astype("uint8")  # NaN, of a run that diverges, is black


def write(judged, batch, model, step, board, folder, fps=5):
    """Puts GIFs, plots and means of `judged` into TensorBoard and the folder of samples."""
    tf.io.gfile.makedirs(folder)
    context = model.hparams.context_frames or 1
    shown = np.asarray(model.images_to_float(batch["images"][:, :context]), "float32")
    for clip in range(len(judged.truth)):
        frames = animation(judged, clip, shown[clip])
        frames = frames if frames.shape[-1] in (1, 3) else frames[..., :1]
        name = f"clip_{clip}"
        write_gif(os.path.join(folder, f"{step:08d}_{name}.gif"), frames, fps)
        rows = "_".join(judged.chosen(clip))
        board.animation(step, f"samples/{name}/truth_prediction_error_of_{rows}", frames, fps)
    for metric in judged.scores:
        curves = judged.curves(metric)
        board.image(step, f"over_time/{metric}", plot_over_time(curves, metric.upper()))
        board.scalars(step, {f"samples/{metric}_{k.replace(' ', '_')}": float(v.mean()) for k, v in curves.items()})
