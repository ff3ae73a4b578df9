"""The page of a comparison, looked at in a headless Chromium."""

import asyncio
import base64

import pytest

from tests.evaluation.toy import ToySource
from tests.serving import devtools
from tfvid.data.video_files import read_image
from tfvid.evaluation.evaluate import Request, evaluate

SMALL = Request(num_samples=2, batch_size=2, num_shown=2)


def test_the_page_of_two_models_shows_everything_and_restarts_its_clips(make_run, tmp_path):
    pytest.importorskip("aiohttp")
    devtools.chromium()
    runs = [make_run(name, ToySource(count=2), noise=noise) for name, noise in (("a", 0.1), ("b", 0.0))]
    out = tmp_path / "out"
    evaluate(runs, str(out), SMALL, report=lambda line: None)

    async def visit():
        async with devtools.open_page((out / "index.html").as_uri(), tmp_path) as page:
            # Parsed, and all pictures loaded: the page's script gives clips their pictures once more.
            loaded = "[...document.images].every(i => i.complete && i.naturalWidth)"
            await page.wait(f"document.readyState === 'complete' && {loaded}")
            sizes = await page.value("[...document.images].map(i => i.naturalWidth)")
            assert len(sizes) >= 8 + 2 and all(sizes), sizes  # clips and plots
            heads = await page.value("[...document.querySelectorAll('table tr')].map(r => r.cells[0].textContent)")
            assert heads[:4] == ["model", "a", "b", "repeat last frame"]
            await page.value("window.before = [...document.querySelectorAll('.clip')].map(i => i.src)")
            await page.click("#restart")
            await page.wait("[...document.querySelectorAll('.clip')].every((c, i) => c.src && c.src != before[i])")
            await page.wait("[...document.images].every(i => i.complete && i.naturalWidth)")
            assert not page.errors
            return base64.b64decode((await page.call("Page.captureScreenshot"))["data"])

    picture = tmp_path / "page.png"
    picture.write_bytes(asyncio.run(visit()))
    pixels = read_image(str(picture))
    assert pixels.shape[0] >= 600 and pixels.std() > 10  # not an empty page
