"""The page of `generate.py --web` in a real browser: selecting, dragging over time, leaving empty, generating."""

import asyncio
import types

import numpy as np
import pytest

from tests.serving import devtools
from tfvid.evaluation.compositions import Composition

HEIGHT, WIDTH = 32, 48


def stand_in():
    """A model without weights: grid of 4 x 6 tiles."""
    hparams = types.SimpleNamespace(state_res=(4, 6), num_target_frames=2, num_steps=5)
    spec = {"images": types.SimpleNamespace(shape=(6, HEIGHT, WIDTH, 3))}
    return types.SimpleNamespace(hparams=hparams, spec=spec)


async def drag(page, canvas, *points):
    """The mouse pressed at the first point (pixels of the frame), moved over the others, released."""
    box = await page.value(
        f"(() => {{ const e = document.getElementById('{canvas}'); e.scrollIntoView(); const b = e.getBoundingClientRect();"
        " return [b.x, b.y, b.width, b.height]; })()"
    )
    spots = [(box[0] + x * box[2] / WIDTH, box[1] + y * box[3] / HEIGHT) for x, y in points]
    kinds = ["mousePressed"] + ["mouseMoved"] * (len(spots) - 1) + ["mouseReleased"]
    for kind, (x, y) in zip(kinds, [*spots, spots[-1]]):
        await page.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)


async def set_frame(page, number):
    await page.value(
        f"(() => {{ const e = document.getElementById('frame'); e.value = {number}; e.dispatchEvent(new Event('input'));"
        " return true; })()"
    )


def test_tiles_are_selected_and_dragged_over_time(tmp_path):
    pytest.importorskip("aiohttp")
    devtools.chromium()
    from aiohttp.test_utils import TestServer

    from tfvid.serving.compose_web import Scene, make_app

    images = np.random.default_rng(0).integers(0, 256, (2, HEIGHT, WIDTH, 3), np.uint8)
    asked = []

    def compose(plan, images):
        grid = scene.grid
        groups = plan.groups(grid, None)
        controls = plan.controls(grid, groups)
        asked.append((plan, groups, controls))
        frames = np.repeat(images[:1], plan.num_frames, axis=0)[None]
        return Composition(plan, grid, groups, controls, images, frames, np.zeros((1, plan.num_frames)))

    scene = Scene(stand_in(), images, [{"clip": i, "split": "test", "frame": 0} for i in range(2)], compose)

    async def visit():
        async with (
            TestServer(make_app(scene, "demo")) as server,
            devtools.open_page(str(server.make_url("/")), tmp_path) as page,
        ):
            await page.wait("document.getElementById('status').textContent === 'ready'")
            await page.click("#images button:nth-child(2)")
            await drag(page, "source", (12, 12), (20, 12))
            await page.click("#add")
            # The object lies where it was; it is held at its middle and dragged on.
            await set_frame(page, 1)
            await drag(page, "stage", (24, 20), (32, 20))
            await set_frame(page, 0)
            await page.click("#empty")
            await page.click("#generate")
            await page.wait("document.getElementById('status').textContent.startsWith('4 frames')")
            assert not page.errors

    asyncio.run(visit())
    plan, groups, controls = asked[0]
    assert plan.initial == (1,) and plan.num_frames == 4 and plan.options == {"num_steps": 5}
    assert groups[0].image == 1 and groups[0].tiles == ((1, 1), (1, 2))
    assert [sorted(f) for f in controls.frames] == [[], [(2, 3), (2, 4)], [], []]
