"""TensorBoard files, metrics.csv and samples: nothing twice after a run goes on."""

import os

import numpy as np
import pytest
import tensorflow as tf

from tfvid.training.logs import Board, MetricsTable, cut_board, cut_samples, plot_over_time
from tfvid.training.progress import Progress, duration


def events(folder):
    """[(step, tag)] of all files, and {tag: bytes of the first image}."""
    found, images = [], {}
    for name in sorted(os.listdir(folder)):
        for record in tf.data.TFRecordDataset(os.path.join(folder, name)).as_numpy_iterator():
            event = tf.compat.v1.Event.FromString(record)
            for value in event.summary.value:
                found.append((event.step, value.tag))
                if value.metadata.plugin_data.plugin_name == "images":
                    images[value.tag] = value.tensor.string_val[2]
    return found, images


def test_board_writes_scalars_gifs_and_hparams(tmp_path):
    board = Board(str(tmp_path))
    board.scalars(3, {"mse": 0.5})
    board.animation(3, "clip", np.zeros([4, 8, 8, 3], "uint8"), 5)
    board.image(3, "plot", plot_over_time({"best": [1.0, 2.0], "repeat": [0.5, 0.2]}, "PSNR"))
    board.hparams({"lr": 0.1, "layers": [1, 2], "name": None}, "run")
    board.close()
    found, images = events(str(tmp_path))
    assert (3, "mse") in found
    assert images["clip"][:6] == b"GIF89a" and images["plot"][1:4] == b"PNG"
    assert "_hparams_/session_start_info" in [tag for _, tag in found]


def test_cut_board_removes_later_steps_and_a_broken_end(tmp_path):
    for steps in ([1, 2, 3], [4, 5]):
        board = Board(str(tmp_path))
        for step in steps:
            board.scalars(step, {"mse": step})
        board.close()
    last = sorted(tmp_path.iterdir())[-1]
    last.write_bytes(last.read_bytes() + b"\x10\x00\x00")
    cut_board(str(tmp_path), 2)
    assert events(str(tmp_path))[0] == [(1, "mse"), (2, "mse")]
    cut_board(str(tmp_path / "nothing"), 2)


def test_metrics_table_goes_on_without_duplicates(tmp_path):
    path = str(tmp_path / "metrics.csv")
    table = MetricsTable(path)
    for step in (2, 4, 6):
        table.add(step, {"mse": step / 10})
    table = MetricsTable(path, last_step=4)
    table.add(6, {"mse": 0.25, "psnr": 20})
    assert (tmp_path / "metrics.csv").read_text() == "step,mse,psnr\n2,0.2,\n4,0.4,\n6,0.25,20\n"
    MetricsTable(path, last_step=0)
    assert (tmp_path / "metrics.csv").read_text() == "step\n"


def test_cut_samples(tmp_path):
    for step in (2, 4, 6):
        (tmp_path / f"{step:08d}_clip_0.gif").write_text("")
    (tmp_path / "mine.gif").write_text("")
    cut_samples(str(tmp_path), 4)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["00000002_clip_0.gif", "00000004_clip_0.gif", "mine.gif"]


class Screen:
    """A stream that keeps what is written."""

    def __init__(self, terminal):
        self.text, self._terminal = "", terminal

    def write(self, text):
        self.text += text

    def flush(self):
        pass

    def isatty(self):
        return self._terminal


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_shows_throughput_waiting_and_time_left(terminal, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    screen = Screen(terminal)
    progress = Progress(target=100, start=10, batch_size=8, stream=screen)
    now[0] = 103.0
    progress.update(11, {"mse": 0.5}, waited=1.0)
    assert "11/100" in screen.text and "first step 3.0 s" in screen.text
    now[0] = 115.0
    progress.leave_out(2.0)
    line = progress.line(31, {"mse": 0.123456, "g_grad_norm": 3, "g_skipped": 0}, waited=2.0)
    assert "2 steps/s" in line and "16 clips/s" in line and "data wait 10%" in line and "left 0:35" in line
    assert "mse 0.1235" in line and "grad_norm" not in line and "skipped" not in line
    progress.note("a line that stays")
    assert screen.text.endswith("a line that stays\n")


def test_a_file_gets_a_line_now_and_then(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    screen = Screen(terminal=False)
    progress = Progress(1000, 0, 1, screen, seconds_between=30)
    for step in range(1, 1000):
        now[0] += 0.1
        progress.update(step, {}, 0.0)
    assert screen.text.count("\n") == 4
    progress.update(1000, {}, 0.0, force=True)
    assert "1000/1000" in screen.text


def test_duration():
    assert [duration(s) for s in (0, 61, 3661.6)] == ["0:00", "1:01", "1:01:02"]
