"""What a run writes for people: TensorBoard files and metrics.csv.

Both can be cut back to a step, so that a run which goes on from a checkpoint does not
hold anything twice.
"""

import csv
import io
import os

import numpy as np
import tensorflow as tf

from tfvid.data.records import write_atomically
from tfvid.data.video_files import encode_gif, encode_png
from tfvid.errors import UserError


class Board:
    """TensorBoard's files of one kind (train or val) of a run."""

    def __init__(self, folder):
        self._writer = tf.summary.create_file_writer(folder)

    def scalars(self, step, values):
        """{name: number} at a step."""
        with self._writer.as_default():
            for name, value in values.items():
                tf.summary.scalar(name, value, step=step)

    def animation(self, step, name, frames, fps):
        """Frames uint8 [T, H, W, C] as a GIF, which TensorBoard shows as it is."""
        self._image(step, name, encode_gif(frames, fps), frames.shape[1:3])

    def image(self, step, name, image):
        """One image, uint8 [H, W, C]."""
        self._image(step, name, encode_png(image), image.shape[:2])

    def _image(self, step, name, data, size):
        metadata = tf.compat.v1.SummaryMetadata(
            display_name=name, plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name="images")
        )
        height, width = size
        value = tf.constant([str(width).encode(), str(height).encode(), data])
        with self._writer.as_default():
            tf.summary.write(name, value, step=step, metadata=metadata)

    def hparams(self, values, run):
        """The hyper-parameters for TensorBoard's table of runs."""
        from tensorboard.plugins.hparams import api

        plain = {k: v if isinstance(v, (bool, int, float, str)) else str(v) for k, v in values.items()}
        with self._writer.as_default():
            api.hparams(plain, trial_id=run)

    def flush(self):
        """Puts everything on disk."""
        self._writer.flush()

    def close(self):
        """No more will be written."""
        self._writer.close()


def cut_board(folder, step):
    """Removes all that TensorBoard's files in `folder` say of steps after `step`."""
    if not tf.io.gfile.isdir(folder):
        return
    for name in tf.io.gfile.listdir(folder):
        path = os.path.join(folder, name)
        if ".tfevents." not in name or name.endswith(".part"):
            continue
        kept, dropped = [], 0
        try:
            for record in tf.data.TFRecordDataset(path).as_numpy_iterator():
                if tf.compat.v1.Event.FromString(record).step <= step:
                    kept.append(record)
                else:
                    dropped += 1
        except tf.errors.DataLossError:
            dropped += 1  # the last record of a run that was killed while it wrote
        if dropped:
            with tf.io.TFRecordWriter(path + ".part") as writer:
                for record in kept:
                    writer.write(record)
            tf.io.gfile.rename(path + ".part", path, overwrite=True)


class MetricsTable:
    """metrics.csv: one row for each validation; rows after `last_step` are dropped."""

    def __init__(self, path, last_step=0):
        self.path, self.rows = path, []
        if tf.io.gfile.exists(path):
            with tf.io.gfile.GFile(path, "r") as f:
                text = f.read()
            try:
                rows = list(csv.DictReader(io.StringIO(text)))
                self.rows = [r for r in rows if int(r["step"]) <= last_step]
            except (csv.Error, KeyError, TypeError, ValueError):
                raise UserError(
                    f"{path}: expected a row for each validation, with its step; move the file, the run goes on without it"
                ) from None
            if len(self.rows) < len(rows):
                self._write()

    def add(self, step, values):
        """Adds a row and replaces the file."""
        self.rows.append({"step": step, **{k: f"{float(v):.6g}" for k, v in values.items()}})
        self._write()

    def _write(self):
        columns = list(dict.fromkeys(k for row in self.rows for k in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns or ["step"], restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_atomically(self.path, text.getvalue())


def cut_samples(folder, step):
    """Removes the GIFs of steps after `step`; their names start with the step."""
    if not tf.io.gfile.isdir(folder):
        return
    for name in tf.io.gfile.listdir(folder):
        number = name.split("_")[0]
        if number.isdigit() and int(number) > step:
            tf.io.gfile.remove(os.path.join(folder, name))


def plot_over_time(curves, title, first=1):
    """A line plot of values over time steps as an image, uint8 [H, W, 3].

    Args:
      curves: {name: [T] values}.
      title: what is plotted.
      first: time step of the first value.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.2), dpi=100, layout="tight")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, values in curves.items():
        axes.plot(range(first, first + len(values)), values, label=name, marker=".", markersize=4)
    axes.set(title=title, xlabel="predicted frame")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])
