"""The page of `play.py --web` in a real browser: keys, buttons, frames, counters, downloads."""

import asyncio
import time

import numpy as np
import pytest

from tests.serving import devtools
from tfvid.data.video_files import read_video
from tfvid.serving import play
from tfvid.serving.players import Player

SIZE, ACTIONS = (32, 48), 3


def counting_player():
    """A model without weights whose frames say which actions were played: red counts them, green is the last."""

    def start(images):
        return {"sum": 0}

    def step(state, action, variation):
        total = state["sum"] + 1 + int(action[0])
        frame = np.zeros((1, *SIZE, 3), np.float32)
        frame[..., 0], frame[..., 1] = 20 * total / 255, 60 * (1 + int(action[0])) / 255
        frame[:, :, : SIZE[1] // 2, 2] = 1  # not the same on both sides
        return frame, {"sum": total}

    return Player(start, step, ACTIONS, SIZE, 1, 1)


def drawn(frame):
    """What the canvas holds for a frame."""
    return np.concatenate([frame, np.full((*frame.shape[:2], 1), 255)], axis=-1).ravel().tolist()


PIXELS = (
    "Array.from(document.getElementById('screen').getContext('2d')"
    f".getImageData(0, 0, {SIZE[1]}, {SIZE[0]}).data)"
)


def steps_are(number):
    return f"document.getElementById('screen').dataset.steps === '{number}'"


def text_of(name):
    return f"document.getElementById('{name}').textContent"


def test_the_page_plays_in_a_browser(tmp_path):
    pytest.importorskip("aiohttp")
    devtools.chromium()
    from aiohttp.test_utils import TestServer

    from tfvid.serving.play_web import make_app

    starts = np.random.default_rng(0).integers(0, 256, (2, 1, *SIZE, 3), np.uint8)

    async def visit():
        app = make_app(counting_player(), starts, str(tmp_path / "played"), title="demo game")
        async with TestServer(app) as server, devtools.open_page(str(server.make_url("/")), tmp_path) as page:
            await page.save_downloads(tmp_path)
            await page.wait(steps_are(0))
            assert await page.value("document.title") == "demo game: play"
            assert await page.value("document.querySelectorAll('#actions button').length") == ACTIONS
            assert await page.value(PIXELS) == drawn(starts[0, 0])
            session = play.Session(counting_player(), starts)

            await page.key("2")
            await page.wait(steps_are(1))
            assert await page.value(PIXELS) == drawn(session.press(1))
            await page.click("#actions button[data-action='2']")
            await page.wait(steps_are(2))
            assert await page.value(PIXELS) == drawn(session.press(2))
            assert await page.value(text_of("action")) == "3" and await page.value(text_of("steps")) == "2"
            for name in ("latency", "model", "rate"):
                assert float(await page.value(text_of(name))) >= 0, name
            await page.key("9")  # no such action

            await page.click("button[data-download='gif']")
            await page.wait(f"{text_of('status')}.startsWith('GIF of')")
            await check_download(tmp_path / "play.gif", session.recording.frames)

            await page.key("0")
            await page.wait(steps_are(0))
            assert await page.value(PIXELS) == drawn(starts[1, 0])
            await page.key("1")
            await page.wait(steps_are(1))
            await page.key("s")
            await page.wait(f"{text_of('status')}.startsWith('saved to')")
            assert (tmp_path / "played" / "0000" / "video.mp4").exists()
            assert not page.errors

    asyncio.run(visit())


async def check_download(path, frames):
    """The downloaded GIF has the game's frames, its colours being a palette's."""
    end = time.monotonic() + devtools.PATIENCE
    while not path.exists() and time.monotonic() < end:
        await asyncio.sleep(0.05)
    read = read_video(str(path))[0]
    assert read.shape == (len(frames), *SIZE, 3)
    assert np.abs(read[1:].astype(int) - np.stack(frames[1:])).max() <= 16
