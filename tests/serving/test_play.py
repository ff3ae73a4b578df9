"""Playing: sessions, scripts and videos, the page's server, and a SavedModel alone."""

import asyncio
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import urllib.request

import numpy as np
import pytest
import tensorflow as tf

from tests import commands
from tfvid import models
from tfvid.data.video_files import encode_png, read_video
from tfvid.errors import UserError
from tfvid.models.caddy.hparams import CaddyHParams
from tfvid.serving import play, players
from tfvid.serving.export import export
from tfvid.training.run_folder import RunFolder

SIZE, ACTIONS = (16, 32), 3
ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder of a tiny CADDY with a start frame beside it."""
    hparams = CaddyHParams(
        context_frames=1, sequence_length=4, observations_count_start=3, actions_count=ACTIONS, state_features=8,
        hidden_state_size=8, observation_stacking=2, perceptual_loss_lambda=0.0,
        perceptual_loss_lambda_pretraining=0.0,
    )  # fmt: skip
    spec = {"images": tf.TensorSpec([4, *SIZE, 3], tf.uint8)}
    path = str(tmp_path_factory.mktemp("run"))
    folder = RunFolder.create(path, "caddy", hparams, spec, dataset="none")
    folder.save_weights(models.build("caddy", hparams, spec))
    frame = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    pathlib.Path(path, "start.png").write_bytes(encode_png(frame))
    return path


@pytest.fixture(scope="module")
def opened(run):
    return players.open_player(run)


class Clock:
    """Seconds that a test sets."""

    now = 0.0

    def __call__(self):
        return self.now


def test_a_session_repeats_itself(opened):
    player, starts = opened
    session = play.Session(player, starts)
    first = [session.press(a) for a in (0, 2, 1)]
    assert first[0].shape == (*SIZE, 3) and first[0].dtype == np.uint8
    np.testing.assert_array_equal(session.restart(), starts[0, -1])
    for frame, action in zip(first, (0, 2, 1)):
        np.testing.assert_array_equal(session.press(action), frame)
    assert session.recording.actions == [0, 2, 1] and session.latency > 0
    with pytest.raises(UserError, match="expected an action from 0 to 2. Received: 3"):
        session.press(3)
    assert session.recording.actions == [0, 2, 1]


def test_start_frames_of_another_size_are_refused(opened):
    with pytest.raises(UserError, match="start frames of 16 x 32 pixels. Received: 16 x 16"):
        play.Session(opened[0], np.zeros((1, 1, 16, 16, 3), np.uint8))


def test_a_saved_game_can_be_seen_again(opened, tmp_path):
    clock = Clock()
    session = play.Session(*opened, clock)
    for i, action in enumerate((1, 0)):
        clock.now = 0.4 * (i + 1)
        session.press(action)
    folder = play.save(session.recording, str(tmp_path / "game"), fps=5)
    assert json.loads(pathlib.Path(folder, "play.json").read_text()) == {
        "actions": [2, 1], "seconds": [0.0, 0.4, 0.8], "fps": 5,
    }
    frames, _ = read_video(f"{folder}/frames")
    np.testing.assert_array_equal(frames, np.stack(session.recording.frames))
    assert len(read_video(f"{folder}/video.gif")[0]) == 3
    assert read_video(f"{folder}/actions.mp4")[0].shape[1] >= 128
    assert len(read_video(f"{folder}/timecoded.mp4")[0]) == 5


def test_timecoded_frames_carry_what_is_left():
    frames = np.arange(3, dtype=np.uint8).reshape(3, 1, 1, 1)
    assert list(play.timecoded(frames, [0.0, 0.3, 0.6], fps=5).ravel()) == [0, 1, 1, 2]


def test_a_script_plays_games_one_after_the_other(opened, tmp_path):
    session = play.Session(*opened)
    folders = play.run_script(session, play.parse_script("1, 2,0,3", ACTIONS), str(tmp_path), fps=5)
    assert [pathlib.Path(f).name for f in folders] == ["0000", "0001"]
    assert [json.loads(pathlib.Path(f, "play.json").read_text())["actions"] for f in folders] == [[1, 2], [3]]
    again = play.run_script(play.Session(*opened), [0], str(tmp_path), fps=5)
    assert pathlib.Path(again[0]).name == "0002"


@pytest.mark.parametrize("text", ["", "4", "1,x", "-1", "1;2"])
def test_scripts_that_are_none(text):
    with pytest.raises(UserError, match="--script: expected actions from 1 to 3"):
        play.parse_script(text, ACTIONS)


def test_a_saved_model_plays_the_same(run, opened, tmp_path):
    path = export(RunFolder.open(run).load_model(), str(tmp_path), 1, "caddy")
    player, starts = players.open_player(path)
    assert starts is None and player.stacking == 2 and player.actions_count == ACTIONS and player.size == SIZE
    session, other = play.Session(player, opened[1]), play.Session(*opened)
    for action in (0, 1, 2):
        assert np.abs(session.press(action).astype(int) - other.press(action)).max() <= 1


def test_other_models_are_not_played(tmp_path):
    with pytest.raises(UserError, match="expected a run folder"):
        players.open_player(str(tmp_path))
    with pytest.raises(UserError, match="a model that is played step by step .caddy.. Received: object"):
        players.player_of(object())


def test_the_command_writes_a_video(run, tmp_path):
    result = commands.run("play", f"--checkpoint={run}", "--script=1,3,2", f"--output_dir={tmp_path}")
    assert result.returncode == 0, result.stderr
    assert len(read_video(str(tmp_path / "0000" / "video.gif"))[0]) == 4
    wrong = commands.run("play", f"--checkpoint={run}", "--script=9")
    assert wrong.returncode == 1
    assert wrong.stderr.strip().splitlines()[-1] == (
        "error: --script: expected actions from 1 to 3, or 0, joined by commas. Received: '9'"
    )


def test_the_page_plays_over_its_socket(opened, tmp_path):
    pytest.importorskip("aiohttp")
    from aiohttp.test_utils import TestClient, TestServer

    from tfvid.serving.play_web import make_app

    async def visit():
        async with TestClient(TestServer(make_app(*opened, str(tmp_path), title="demo"))) as client:
            for path, word in (("/", "<canvas"), ("/play.css", "canvas"), ("/play.js", "WebSocket")):
                response = await client.get(path)
                assert response.status == 200 and word in await response.text()
            assert "{{title}}" not in await (await client.get("/")).text()
            channel = await client.ws_connect("/play")
            assert await channel.receive_json() == {"type": "hello", "actions": 3, "size": list(SIZE)}
            assert (await channel.receive_json())["steps"] == 0
            assert (await channel.receive_bytes())[:4] == b"\x89PNG"
            await channel.send_json({"type": "action", "action": 1})
            answer = await channel.receive_json()
            assert (answer["type"], answer["steps"], answer["action"]) == ("frame", 1, 1)
            assert answer["milliseconds"] > 0
            frame = await channel.receive_bytes()
            for bad in ("nonsense", "[1]", '{"type": "action", "action": 7}', '{"type": "action", "action": true}', "3"):
                await channel.send_str(bad)
                assert (await channel.receive_json())["type"] == "error", bad
            await channel.send_json({"type": "download", "format": "gif"})
            assert (await channel.receive_json())["format"] == "gif"
            assert (await channel.receive_bytes())[:3] == b"GIF"
            await channel.send_json({"type": "restart"})
            assert (await channel.receive_json())["steps"] == 0
            await channel.receive_bytes()
            await channel.send_json({"type": "action", "action": 1})
            await channel.receive_json()
            assert await channel.receive_bytes() == frame
            await channel.send_json({"type": "save"})
            saved = await channel.receive_json()
            assert pathlib.Path(saved["folder"], "video.mp4").exists()

    asyncio.run(visit())


def test_the_command_serves_the_page_where_it_says(run, tmp_path):
    pytest.importorskip("aiohttp")
    command = [sys.executable, "scripts/play.py", f"--checkpoint={run}", "--web", "--port=0", "--open_browser"]
    environment = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY")}
    with subprocess.Popen(
        [*command, f"--output_dir={tmp_path}"], cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment
    ) as server:
        try:
            line = server.stdout.readline()
            url = re.match(r"play at (http://localhost:[1-9]\d+/) ", line)[1]
            page = urllib.request.urlopen(url, timeout=60).read().decode()
            assert "<canvas" in page and f"play {pathlib.Path(run).name}" in page
            port = url.split(":")[2].strip("/")
            second = commands.run("play", f"--checkpoint={run}", "--web", f"--port={port}")
            assert second.returncode == 1
            assert second.stderr.strip().splitlines()[-1].startswith(f"error: --port: cannot listen on 127.0.0.1:{port}: ")
        finally:
            server.send_signal(signal.SIGINT)
        assert server.wait(60) == 0


def test_interpolation_ends_at_the_two_actions(run, opened, tmp_path):
    session = play.Session(*opened)
    networks = RunFolder.open(run).load_model().networks
    rows = play.interpolate(session, networks, 0, 2, [0.0, 0.5, 1.0], steps=2)
    assert rows.shape == (3, 3, *SIZE, 3)
    for row, action in ((rows[0], 0), (rows[2], 2)):
        session.restart()
        # Played on their own, the two actions have no variation.
        np.testing.assert_array_equal(row[1:], [session.press(action), session.press(action)])
    path = play.save_interpolation(rows, [0.0, 0.5, 1.0], str(tmp_path), fps=5)
    assert read_video(path)[0].shape == (3, 3 * SIZE[0], SIZE[1], 3)
    assert (tmp_path / "0.50" / "00002.png").exists()
