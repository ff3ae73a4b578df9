"""Plots of a metric over the predicted steps, with standard errors."""

import io

import numpy as np
import tensorflow as tf


def plot_steps(path, title, curves, first_frame, training_length=None):
    """Writes a PNG: one line with a band of one standard error for each curve.

    Args:
      title: of the vertical axis.
      curves: {label: (summary, style)}; a summary is `CurveSummary.result`, a style a
        dictionary of matplotlib's line properties.
      first_frame: number of the first predicted frame, counted from 1.
      training_length: frames of a training clip; a vertical line marks where it ends.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4), dpi=120)
    last = first_frame
    for label, (summary, style) in curves.items():
        mean, error = (_array(summary["per_step"][k]) for k in ("mean", "se"))
        x = np.arange(first_frame, first_frame + len(mean))
        last = max(last, x[-1])
        line = axes.plot(x, mean, label=label, **style)[0]
        if np.isfinite(error).any():
            error = np.nan_to_num(error)
            axes.fill_between(x, mean - error, mean + error, color=line.get_color(), alpha=0.2, linewidth=0)
    if training_length and first_frame <= training_length < last:
        axes.axvline(training_length, color="0.5", linestyle=":", label="end of a training clip")
    axes.set_xlabel("frame")
    axes.set_ylabel(title)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.tight_layout()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    pyplot.close(figure)
    with tf.io.gfile.GFile(path, "wb") as f:
        f.write(buffer.getvalue())


def _array(values):
    return np.array([np.nan if v is None else v for v in values])
