"""A page to compose with CAGE: select tiles of images, drag them over time, generate.

GET /scene gives {"grid", "images": [{"source", "png"}], "num_frames", "num_steps"}; POST
/generate takes a control file (`tfvid.models.cage.control_file`) without its images, which
are the scene's, and answers {"frames": [sample: [PNG]], "controls": [PNG], "error": [...]},
or {"message"} with status 400. Pictures are data URLs.
"""

import asyncio
import base64
import concurrent.futures
import json

from tfvid.data.video_files import encode_png
from tfvid.errors import UserError
from tfvid.evaluation import compositions
from tfvid.models.cage import control_file
from tfvid.serving.pages import add_files, import_aiohttp

PAGE_FILES = {"/": "compose.html", "/compose.css": "compose.css", "/compose.js": "compose.js"}
MOST_FRAMES = 64  # that a visitor may ask for
LARGEST_REQUEST = 2**20  # bytes


class Scene:
    """What the page shows and what it may ask for.

    Args:
      model: a `Cage`.
      images: uint8 [N, H, W, 3] in the size of its frames.
      sources: of the images, as in a control file's `images`.
      compose: function (plan, images) -> `Composition`; default: with the model.
    """

    def __init__(self, model, images, sources, compose=None):
        self.grid, self.images, self.sources = compositions.grid_of(model), images, list(sources)
        self.num_frames = model.hparams.num_target_frames * 2
        self.num_steps = model.hparams.num_steps
        self._compose = compose or (lambda plan, images: compositions.compose(model, plan, images))

    def described(self):
        """The answer to /scene."""
        grid = self.grid
        return {
            "grid": {"rows": grid.rows, "columns": grid.columns, "height": grid.height, "width": grid.width},
            "images": [{"source": s, "png": data_url(i)} for s, i in zip(self.sources, self.images)],
            "num_frames": self.num_frames,
            "num_steps": self.num_steps,
        }

    def generate(self, request):
        """The answer to /generate; UserError where the request is not sound."""
        if not isinstance(request, dict):
            raise UserError(f"expected a JSON object. Received: {type(request).__name__}")
        if "images" in request:
            raise UserError("expected no images: they are the page's. Received: images")
        items = request.get("objects", [])
        for item in items if isinstance(items, list) else ():
            if isinstance(item, dict) and "mask" in item:
                raise UserError("objects: expected box or tiles on the page. Received: mask")
        images = [{"clip": i} for i in range(len(self.images))]
        plan = control_file.parse({**request, "images": images}, "request")
        if plan.num_frames > MOST_FRAMES:
            raise UserError(f"num_frames: expected at most {MOST_FRAMES} on the page. Received: {plan.num_frames}")
        result = self._compose(plan, self.images)
        return {
            "frames": [[data_url(f) for f in frames] for frames in result.frames],
            "controls": [data_url(f) for f in result.pictures()],
            "error": [[float(e) for e in row] for row in result.errors],
        }


def data_url(frame):
    """uint8 [H, W, 3] -> a PNG as the text of an image's source."""
    return "data:image/png;base64," + base64.b64encode(encode_png(frame)).decode()


def make_app(scene, title="tfvid"):
    """The web application; videos are computed one at a time."""
    web = import_aiohttp()
    executor = concurrent.futures.ThreadPoolExecutor(1)

    async def describe(request):
        return web.json_response(scene.described())

    async def generate(request):
        try:
            asked = json.loads(await request.text())
            answer = await asyncio.get_running_loop().run_in_executor(executor, scene.generate, asked)
        except (UserError, ValueError) as e:  # no JSON, or not a control file
            return web.json_response({"message": str(e)}, status=400)
        return web.json_response(answer)

    async def close(app):
        executor.shutdown(wait=False)

    app = web.Application(client_max_size=LARGEST_REQUEST)
    add_files(app, PAGE_FILES, title)
    app.router.add_get("/scene", describe)
    app.router.add_post("/generate", generate)
    app.on_cleanup.append(close)
    return app


def serve(checkpoint, images, input_dir, host, port, announce=print):
    """Serves the page until interrupted.

    Args:
      images: paths of image files; none: the first frames of test clips.
    """
    web = import_aiohttp()
    trial, model = compositions.open_model(checkpoint)
    sources = [{"file": p} for p in images] or [{"clip": i, "split": "test", "frame": 0} for i in range(4)]
    plan = control_file.parse({"images": sources, "num_frames": 1})
    frames = compositions.read_images(
        plan, compositions.grid_of(model), lambda: compositions.runs.open_data([trial], input_dir), trial.run.hparams
    )
    announce(f"compose at http://{host}:{port}/ (Ctrl+C ends it)")
    try:
        web.run_app(make_app(Scene(model, frames, sources), f"compose {checkpoint}"), host=host, port=port, print=None,
                    access_log=None, reuse_address=True)  # fmt: skip
    except OSError as e:
        raise UserError(f"--port: cannot listen on {host}:{port}: {e.strerror}") from None
