"""Files of generate: names, content, determinism, errors."""

import os
import pathlib
import re
import shutil

import numpy as np
import pytest

from tests.evaluation.toy import ToySource
from tfvid.data.video_files import read_image, read_video
from tfvid.errors import UserError
from tfvid.evaluation import runs
from tfvid.evaluation.generation import Request, generate

SMALL = Request(num_samples=2, num_videos=3, batch_size=2)


def contents(folder):
    return {n: pathlib.Path(os.path.join(folder, n)).read_bytes() for n in sorted(os.listdir(folder))}


def test_files_and_their_frames(make_run, tmp_path, capsys):
    source = ToySource(count=5)
    out = str(tmp_path / "out")
    page = generate(make_run(source=source, noise=0.0), out, SMALL)
    names = set(os.listdir(out))
    assert {f"gen_image_{i:05d}_{s:02d}.gif" for i in range(3) for s in range(2)} <= names
    assert {f"gen_image_{i:05d}_{s:02d}_{t:02d}.png" for i in range(3) for s in range(2) for t in range(6)} <= names
    assert not [n for n in names if n.startswith("gen_image_00003")]
    last = source.clip(1, 2)["images"][1]
    np.testing.assert_allclose(read_image(f"{out}/gen_image_00001_00_00.png").astype(int), last, atol=1)
    frames, fps = read_video(f"{out}/gen_image_00001_00.gif")
    assert frames.shape == (8, 16, 16, 3) or len(frames) <= 8  # equal frames may be stored as one
    for gif in re.findall(r'src="([^"]+)"', pathlib.Path(page).read_text()):
        assert gif in names
    assert "index.html" in capsys.readouterr().out


def test_same_seed_same_files(make_run, tmp_path):
    path = make_run()
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        generate(path, str(tmp_path / name), Request(**{**vars(SMALL), "seed": seed}), report=lambda line: None)
    a, b, c = (contents(tmp_path / n) for n in "abc")
    assert a == b
    assert a["gen_image_00000_00_05.png"] != c["gen_image_00000_00_05.png"]
    assert a["gen_image_00000_00_05.png"] != a["gen_image_00000_01_05.png"]


def test_shards_write_the_files_and_the_page_of_one_process(make_run, tmp_path):
    path = make_run(source=ToySource(count=7))
    request, quiet = {**vars(SMALL), "num_videos": 5}, lambda line: None
    whole, parts = str(tmp_path / "whole"), str(tmp_path / "parts")
    generate(path, whole, Request(**request), report=quiet)
    for i in (2, 0):
        assert generate(path, parts, Request(**{**request, "shard": (i, 3)}), report=quiet) is None
        assert not os.path.exists(f"{parts}/index.html")
    said = []
    with pytest.raises(UserError, match="0-of-3.json: expected a shard of the same command"):
        generate(path, parts, Request(**{**request, "shard": (1, 3), "seed": 1}), report=quiet)
    generate(path, parts, Request(**{**request, "shard": (1, 3)}), report=said.append)
    shutil.rmtree(f"{parts}/shards")
    assert contents(whole) == contents(parts) and said


def test_grey_frames_and_longer_horizon(make_run, tmp_path):
    source = ToySource(count=2, frames=12, channels=1)
    out = str(tmp_path / "out")
    path = make_run(source=source, long_sequence_length=8)
    generate(path, out, Request(num_samples=1, horizon=10), report=lambda line: None)
    assert "gen_image_00000_00_09.png" in os.listdir(out)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"horizon": 0}, "--horizon: expected at least 1"),
        ({"horizon": 50}, "expected clips of 52 frames, found 8"),
        ({"num_samples": 0}, "--num_samples: expected at least 1"),
        ({"fps": 0.0}, "--fps: expected a number from 0.01 to 1000"),
    ],
)
def test_errors_are_one_line(make_run, tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        generate(make_run(), str(tmp_path / "out"), Request(**{**vars(SMALL), **changes}))


@pytest.mark.parametrize("path", ["runs/a", "runs/a/", "runs/a/checkpoints/ckpt-5.index", "runs/a/checkpoints/best/ckpt-5"])
def test_results_of_a_checkpoint_lie_in_its_run_folder(path):
    assert runs.default_folder(path, "generated", "test") == "runs/a/generated/test"
