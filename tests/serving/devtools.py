"""A headless Chromium, driven over the DevTools protocol with nothing but aiohttp."""

import asyncio
import contextlib
import itertools
import json
import pathlib
import shutil
import subprocess
import time

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PATIENCE = 60  # seconds that anything may take on a busy machine


def chromium():
    """The path of an installed Chromium or Chrome; skips the test where there is none."""
    for name in NAMES:
        if path := shutil.which(name):
            return path
    pytest.skip(f"no Chromium is installed (looked for {', '.join(NAMES)})")


@contextlib.asynccontextmanager
async def open_page(url, folder):
    """A `Page` of a new browser at `url`; its profile and downloads lie in `folder`."""
    import aiohttp

    profile = pathlib.Path(folder, "profile")
    log = pathlib.Path(folder, "chromium.log").open("wb")
    browser = subprocess.Popen(
        [
            chromium(), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--window-size=900,900", "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank",
        ],
        stdout=log, stderr=log,
    )  # fmt: skip
    try:
        port = await _port(profile / "DevToolsActivePort", browser)
        async with aiohttp.ClientSession() as http:
            async with http.put(f"http://127.0.0.1:{port}/json/new?about:blank") as response:
                target = await response.json()
            async with http.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as channel:
                page = Page(channel)
                await page.call("Page.enable")
                await page.call("Runtime.enable")
                await page.call("Page.navigate", url=url)
                # The answer may come before the document: about:blank has none of its elements.
                await page.wait("location.href !== 'about:blank' && document.readyState === 'complete'")
                yield page
    finally:
        browser.terminate()
        try:
            browser.wait(10)
        except subprocess.TimeoutExpired:
            browser.kill()
            browser.wait()
        log.close()


async def _port(path, browser):
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if browser.poll() is not None:
            pytest.fail(f"Chromium ended with status {browser.returncode}")
        if path.exists() and (text := path.read_text()).count("\n"):
            return int(text.splitlines()[0])
        await asyncio.sleep(0.1)
    pytest.fail("Chromium opened no port")


class Page:
    """One page: calls of the protocol, and what a visitor does.

    Attributes:
      errors: texts of exceptions that the page's scripts did not catch.
    """

    def __init__(self, channel):
        self._channel, self._numbers, self.errors = channel, itertools.count(1), []

    async def call(self, method, **params):
        """The result of one protocol method."""
        number = next(self._numbers)
        await self._channel.send_json({"id": number, "method": method, "params": params})
        while True:
            message = json.loads((await self._channel.receive(PATIENCE)).data)
            if message.get("method") == "Runtime.exceptionThrown":
                self.errors.append(message["params"]["exceptionDetails"]["text"])
            if message.get("id") == number:
                assert "error" not in message, f"{method}: {message['error']}"
                return message["result"]

    async def value(self, expression):
        """The value of a JavaScript expression."""
        result = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    async def wait(self, expression):
        """Waits until a JavaScript expression is true."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if await self.value(f"Boolean({expression})"):
                return
            await asyncio.sleep(0.05)
        pytest.fail(f"never true on the page: {expression}; errors: {self.errors}")

    async def key(self, key):
        """Presses and releases a key."""
        await self.call("Input.dispatchKeyEvent", type="keyDown", key=key, text=key)
        await self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    async def click(self, selector):
        """Clicks the middle of an element with the mouse."""
        box = await self.value(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.scrollIntoView();"
            " const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            await self.call(
                "Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1
            )

    async def save_downloads(self, folder):
        """Lets downloads of the page end in `folder`."""
        await self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
