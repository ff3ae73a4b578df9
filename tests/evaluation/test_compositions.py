"""Videos from control files, with a tiny CAGE: files, pictures, errors; the page's server."""

import asyncio
import json

import numpy as np
import pytest

from tests.models import cage_tiny
from tfvid.data.video_files import encode_png, read_video
from tfvid.errors import UserError
from tfvid.evaluation import compositions, displacement
from tfvid.models.cage import control_file
from tfvid.training.run_folder import RunFolder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder of a tiny CAGE beside an image."""
    folder = tmp_path_factory.mktemp("cage")
    model = cage_tiny.cage()
    RunFolder.create(str(folder / "run"), "cage", model.hparams, cage_tiny.SPEC, dataset="none").save_weights(model)
    image = np.random.default_rng(0).integers(0, 256, (*cage_tiny.SIZE, 3), np.uint8)
    (folder / "image.png").write_bytes(encode_png(image))
    return folder


DOCUMENT = {
    "images": [{"file": "image.png"}],
    "initial": [0],
    "num_frames": 4,
    "objects": [{"image": 0, "box": [4, 4, 12, 8], "keyframes": {"0": [8, 6], "3": [20, 6]}}],
    "num_steps": 1,
    "num_samples": 2,
}


def test_a_control_file_becomes_a_video(run, tmp_path):
    (run / "controls.json").write_text(json.dumps(DOCUMENT))
    lines = []
    compositions.compose_file(str(run / "run"), str(run / "controls.json"), str(tmp_path), report=lines.append)
    assert lines[0].startswith("control error") and lines[1].endswith("index.html")
    scale = 128 // cage_tiny.SIZE[0]
    frames = read_video(str(tmp_path / "controls_and_result.gif"))[0]
    assert frames.shape == (4, cage_tiny.SIZE[0] * scale + 4, 3 * (cage_tiny.SIZE[1] * scale + 4), 3)
    assert (tmp_path / "selection.png").exists() and (tmp_path / "sample_01_0003.png").exists()
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["tiles"][0] == [[1, 1], [1, 2]] and summary["tiles"][3] == [[1, 4], [1, 5]]
    assert np.shape(summary["control_error"]) == (2, 4)


def test_the_same_plan_gives_the_same_frames_and_controls_change_them(run):
    model = RunFolder.open(str(run / "run")).load_model()
    image = np.random.default_rng(1).integers(0, 256, (1, *cage_tiny.SIZE, 3), np.uint8)

    def frames(**changes):
        return compositions.compose(model, control_file.parse({**DOCUMENT, **changes}), image).frames

    first = frames()
    np.testing.assert_array_equal(first, frames())
    assert np.any(first != frames(objects=[])) and np.any(first != frames(seed=1))
    assert frames(images=[], initial=[], objects=[], num_samples=1).shape == (1, 4, *cage_tiny.SIZE, 3)


def test_other_models_are_refused(run, tmp_path):
    model = cage_tiny.autoencoder()
    RunFolder.create(str(tmp_path), "cage_autoencoder", model.hparams, cage_tiny.SPEC).save_weights(model)
    with pytest.raises(UserError, match="--controls: expected --checkpoint to be a run of cage"):
        compositions.open_model(str(tmp_path))


def test_a_missing_image(run, tmp_path):
    path = tmp_path / "c.json"
    path.write_text(json.dumps(DOCUMENT))
    with pytest.raises(UserError, match="image.png"):
        compositions.compose_file(str(run / "run"), str(path), str(tmp_path / "out"))


def test_position_of_a_colour():
    frame = np.zeros((20, 20, 3), np.uint8)
    assert displacement.position(frame) is None
    frame[4:8, 10:14] = displacement.COLOUR
    assert displacement.position(frame) == (12, 6)


def test_displacements_are_compared():
    images = np.zeros((2, 20, 20, 3), np.uint8)
    images[:, 4:8, 8:12] = displacement.COLOUR
    moved = np.roll(images, 3, axis=2)
    result = displacement._summary(images, moved, [(4, (1, 0)), (4, (-1, 0))])
    assert result["asked"] == [4.0, -4.0] and result["obtained"] == [3.0, 3.0]
    assert result["error"] == 4.0 and result["lost"] == 0


def test_the_page_answers(run):
    pytest.importorskip("aiohttp")
    from aiohttp.test_utils import TestClient, TestServer

    from tfvid.serving.compose_web import Scene, make_app

    model = RunFolder.open(str(run / "run")).load_model()
    images = np.random.default_rng(1).integers(0, 256, (2, *cage_tiny.SIZE, 3), np.uint8)
    request = {
        "initial": [1],
        "num_frames": 2,
        "num_steps": 1,
        "objects": [{"image": 1, "tiles": [[0, 0]], "path": []}],
    }

    async def visit():
        scene = Scene(model, images, [{"clip": 0, "split": "test", "frame": 0}] * 2)
        async with TestClient(TestServer(make_app(scene, "demo"))) as client:
            for path, word in (("/", "<canvas"), ("/compose.css", "canvas"), ("/compose.js", "fetch")):
                response = await client.get(path)
                assert response.status == 200 and word in await response.text()
            described = await (await client.get("/scene")).json()
            assert described["grid"] == {"rows": 4, "columns": 6, "height": 16, "width": 24}
            assert len(described["images"]) == 2
            answer = await (await client.post("/generate", json=request)).json()
            assert len(answer["frames"][0]) == len(answer["controls"]) == 2
            assert answer["frames"][0][0].startswith("data:image/png;base64,")
            for bad, text in (
                ("nonsense", "Expecting value"),
                ("[]", "expected a JSON object"),
                (json.dumps({**request, "images": [{"file": "/etc/passwd"}]}), "expected no images"),
                (json.dumps({**request, "objects": [{"image": 0, "mask": "/x", "stay": [0, 1]}]}), "Received: mask"),
                (json.dumps({**request, "num_frames": 1000}), "expected at most 64"),
                (json.dumps({**request, "odesolver": "magic"}), "odesolver"),
            ):
                response = await client.post("/generate", data=bad)
                assert response.status == 400 and text in (await response.json())["message"], bad

    asyncio.run(visit())
