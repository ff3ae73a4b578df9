"""A page to play a model in the browser: frames over a websocket, one game a visitor.

Messages from the page are JSON {"type": "action", "action": 0-based} | "restart" |
"next" | "save" | "download", "format": "gif" or "mp4". The server answers {"type": "frame", ...}
followed by one binary message with the PNG, or {"type": "saved" | "error", ...}.
"""

import asyncio
import concurrent.futures
import json
import os
import socket
import sys
import tempfile
import webbrowser

import numpy as np

from tfvid.data.video_files import encode_gif, encode_png, write_mp4
from tfvid.errors import UserError
from tfvid.serving.pages import add_files, import_aiohttp
from tfvid.serving.play import Session, next_folder, save

PAGE_FILES = {"/": "play.html", "/play.css": "play.css", "/play.js": "play.js"}
LIMIT = 5000  # steps that a recording keeps; a longer game goes on without


def make_app(player, starts, output_dir, fps=5.0, title="tfvid"):
    """The web application; every visitor has a session of their own, steps are computed one at a time."""
    web = import_aiohttp()
    executor = concurrent.futures.ThreadPoolExecutor(1)

    async def game(request):
        channel = web.WebSocketResponse(max_msg_size=4096)
        await channel.prepare(request)
        loop = asyncio.get_running_loop()
        session = await loop.run_in_executor(executor, Session, player, starts)
        await channel.send_json({"type": "hello", "actions": player.actions_count, "size": list(player.size)})
        await _send_frame(channel, session)
        async for message in channel:
            if message.type != web.WSMsgType.TEXT:
                continue
            try:
                await _answer(channel, session, json.loads(message.data), loop, executor, output_dir, fps)
            except (UserError, ValueError, TypeError) as e:
                await channel.send_json({"type": "error", "message": str(e)})
        return channel

    app = web.Application()
    add_files(app, PAGE_FILES, title)
    app.router.add_get("/play", game)

    async def close(app):
        executor.shutdown(wait=False)

    app.on_cleanup.append(close)
    return app


async def _answer(channel, session, message, loop, executor, output_dir, fps):
    """Does what one message asks for."""
    kind = message.get("type") if isinstance(message, dict) else None
    if kind == "action":
        action = message.get("action")
        if not isinstance(action, int) or isinstance(action, bool):
            raise UserError(f"expected an action. Received: {action!r}")
        await loop.run_in_executor(executor, _press, session, action)
        await _send_frame(channel, session)
    elif kind in ("restart", "next"):
        await loop.run_in_executor(executor, session.restart if kind == "restart" else session.next_game)
        await _send_frame(channel, session)
    elif kind == "save":
        folder = await loop.run_in_executor(None, save, session.recording, next_folder(output_dir), fps)
        await channel.send_json({"type": "saved", "folder": folder})
    elif kind == "download":
        data = await loop.run_in_executor(None, encode, session.recording, message.get("format"), fps)
        await channel.send_json({"type": "video", "format": message["format"], "bytes": len(data)})
        await channel.send_bytes(data)
    else:
        raise UserError(f"expected action, restart, next, save or download. Received: {kind!r}")


def _press(session, action):
    session.press(action)
    if len(session.recording.frames) > LIMIT:
        for values in (session.recording.frames, session.recording.actions, session.recording.times):
            del values[0]


def encode(recording, kind, fps):
    """The recording as the bytes of a GIF or an MP4."""
    frames = np.stack(recording.frames)
    if kind == "gif":
        return encode_gif(frames, fps)
    if kind != "mp4":
        raise UserError(f"expected the format gif or mp4. Received: {kind!r}")
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "video.mp4")
        write_mp4(path, frames, fps)
        with open(path, "rb") as f:
            return f.read()


async def _send_frame(channel, session):
    recording = session.recording
    await channel.send_json(
        {
            "type": "frame", "steps": len(recording.actions), "game": session.game,
            "action": recording.actions[-1] if recording.actions else None,
            "milliseconds": round(1000 * session.latency, 1),
        }
    )
    await channel.send_bytes(encode_png(recording.frames[-1]))


def serve(player, starts, output_dir, fps, host, port, title, announce=print, open_browser=False):
    """Serves the page until interrupted.

    Args:
      port: 0 takes a free one.
      announce: called with a line that has the address, once the page can be reached.
      open_browser: show the page in the default browser, where there is a display.

    Raises:
      UserError: the port cannot be listened on.
    """
    web = import_aiohttp()
    try:
        listening = socket.create_server((host, port))
    except OSError as e:
        raise UserError(f"--port: cannot listen on {host}:{port}: {e.strerror}") from None
    Session(player, starts).warm_up()
    shown = "localhost" if host in ("0.0.0.0", "127.0.0.1") else host
    url = f"http://{shown}:{listening.getsockname()[1]}/"

    def started(*_):
        announce(f"play at {url} (Ctrl+C ends it)")
        if open_browser and has_display():
            webbrowser.open(url)

    app = make_app(player, starts, output_dir, fps, title)
    web.run_app(app, sock=listening, print=started, access_log=None, keepalive_timeout=5)


def has_display():
    """Whether a graphical browser can be shown; without one, a browser of the terminal would take it over."""
    return sys.platform in ("darwin", "win32") or any(os.environ.get(k) for k in ("DISPLAY", "WAYLAND_DISPLAY"))
