"""Action graph files: what they mean, and what is wrong with wrong ones."""

import copy
import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from tests.models import ag2vid_tiny as tiny
from tfvid.errors import UserError
from tfvid.evaluation import action_graphs
from tfvid.models.ag2vid import action_graph
from tfvid.training.run_folder import RunFolder

VOCABULARY = action_graph.Vocabulary.of_labels(tiny.LABELS, "test")
EXAMPLES = sorted((pathlib.Path(__file__).parents[2] / "examples" / "ag2vid").glob("*.json"))
GRAPH = {
    "frames": 4,
    "objects": [
        {"name": "a", "shape": "cone", "color": "red", "size": "large", "box": [0.1, 0.1, 0.3, 0.3]},
        {"name": "b", "shape": "cube", "color": "blue", "size": "small", "box": [0.5, 0.6, 0.7, 0.8]},
    ],
    "actions": [
        {"subject": "b", "action": "slide", "start": 0, "end": 3, "destination": [0.4, 0.5]},
        {"subject": "a", "action": "contain", "target": "b", "start": 2.5, "end": 9},
    ],
}
SCENE = {"objects": np.array([[1, 3, 1], [3, 1, 2], [1, 2, 1]]), "boxes": np.arange(12).reshape(3, 4) / 20}


def parse(document, scene=None):
    return action_graph.parse(document, VOCABULARY, scene, "g.json")


def test_a_graph_becomes_a_batch():
    batch = parse(GRAPH).batch(np.zeros((32, 32, 3), np.uint8))
    assert batch["objects"].tolist() == [[[3, 1, 2], [1, 3, 1]]]
    assert batch["timed_actions"].tolist() == [[[1, 0, 1], [0, 1, 1]]]
    np.testing.assert_allclose(batch["action_progress"][0, :, 0], np.arange(4) / 4)
    np.testing.assert_allclose(batch["action_progress"][0, :, 1], (np.arange(4) - 2.5) / 7.5, rtol=1e-6)
    np.testing.assert_allclose(batch["action_destinations"][0], [[0.3, 0.4], [0, 0]], atol=1e-6)
    assert batch["images"].shape == (1, 1, 32, 32, 3) and batch["boxes"].shape == (1, 1, 2, 4)


def test_objects_of_a_known_first_frame():
    document = {"frames": 3, "objects": [{"name": "x", "shape": "cone"}, {"name": "y", "color": "blue"}], "actions": []}
    graph = parse(document, SCENE)
    assert graph.names == ["x", "y", "object 2"]
    assert graph.objects.tolist() == [[3, 1, 2], [1, 3, 1], [1, 2, 1]]
    np.testing.assert_allclose(graph.boxes[0], SCENE["boxes"][1])
    document["objects"][1] = {"name": "y", "shape": "cube"}
    with pytest.raises(
        UserError, match=r"objects\[1\]: expected attributes of one object in the first frame.*2 objects"
    ):
        parse(document, SCENE)


def changed(*path, value):
    document = copy.deepcopy(GRAPH)
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return document


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], r"expected a JSON object"),
        ({"frames": 3, "objects": []}, r"expected the key 'actions'. Received: only frames, objects"),
        ({**GRAPH, "acts": []}, r"expected the keys actions, frames.*'acts'; nearest: 'actions'"),
        (changed("frames", value=1), r"frames: expected an integer from 2 to 1024. Received: 1"),
        (changed("frames", value=True), r"frames: expected an integer"),
        (changed("objects", value=[]), r"objects: expected at least one object"),
        (changed("objects", 1, "name", value="a"), r"objects\[1\].name: expected a name that no other object has"),
        (
            changed("objects", 0, "color", value="rde"),
            r"objects\[0\].color: expected one of red.*'rde'; nearest: 'red'",
        ),
        (
            changed("objects", 0, "box", value=[0.3, 0.1, 0.1, 0.3]),
            r"objects\[0\].box: expected \[x0, y0, x1, y1\] with",
        ),
        (changed("objects", 0, "box", value=[0, 0, 1, 10**400]), r"objects\[0\].box: expected a list of 4 numbers"),
        (changed("objects", 0, "box", value=[0, 0, 1]), r"objects\[0\].box: expected a list of 4 numbers"),
        (changed("objects", 0, "box", value=None), r"objects\[0\]: expected a box"),
        (changed("actions", value={}), r"actions: expected a list"),
        (changed("actions", 0, "subject", value="c"), r"actions\[0\].subject: expected one of a, b. Received: 'c'"),
        (
            changed("actions", 0, "action", value="slid"),
            r"actions\[0\].action: expected one of slide.*nearest: 'slide'",
        ),
        (changed("actions", 0, "end", value=0), r"actions\[0\].end: expected a frame after start=0. Received: 0"),
        (changed("actions", 0, "start", value="now"), r"actions\[0\].start: expected a number. Received: now"),
        (changed("actions", 0, "destination", value=[1]), r"actions\[0\].destination: expected a list of 2 numbers"),
        (changed("actions", 1, "subject", value="b"), r"actions\[1\].start: expected a frame from 3 on.*Received: 2.5"),
        ({**GRAPH, "relations": [["a", "above", "b"]]}, r"relations\[0\]\[1\]: expected one of __in_image__"),
    ],
)
def test_wrong_graphs_are_one_line(document, message):
    with pytest.raises(UserError, match=f"g.json: {message}|g.json{message}") as caught:
        parse(document)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_examples_fit_the_demo(path):
    graph = action_graph.read(str(path), VOCABULARY)
    image = np.asarray(Image.open(path.parent / "table.png"))
    for (x0, y0, x1, y1), row in zip(graph.boxes * 64, graph.objects):
        middle = image[int((y0 + y1) / 2), int((x0 + x1) / 2)].astype(int)
        from tfvid.data.demo_scenes import COLOURS

        assert np.abs(middle - list(COLOURS.values())[row[1] - 1]).max() <= 2


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("run"))
    hparams = tiny.hparams(graph_only=True)
    folder = RunFolder.create(path, "ag2vid", hparams, tiny.spec(), labels=tiny.LABELS)
    folder.save_weights(folder.build_model(trainable=False))
    return path


def test_rendering_writes_videos_and_boxes(run, tmp_path):
    (tmp_path / "g.json").write_text(json.dumps(GRAPH))
    Image.fromarray(np.full((20, 20, 3), 90, np.uint8)).save(tmp_path / "f.png")
    request = action_graphs.Request(str(tmp_path / "g.json"), str(tmp_path / "f.png"))
    lines = []
    video, drawn = action_graphs.compose_graph(run, request, str(tmp_path / "out"), report=lines.append)
    with Image.open(video) as gif:
        assert gif.n_frames == 4 and gif.size == (32, 32)
    with Image.open(drawn) as gif:
        assert gif.n_frames == 4 and gif.size == (256, 256 + 2 * action_graphs.ROW)
    boxes = json.loads((tmp_path / "out" / "boxes.json").read_text())
    assert set(boxes) == {"a", "b"} and np.allclose(boxes["a"][0], GRAPH["objects"][0]["box"])
    assert len(lines) == 2 and len(list((tmp_path / "out").glob("frame_*.png"))) == 4


def test_what_is_missing_is_said(run, tmp_path):
    (tmp_path / "g.json").write_text(json.dumps(GRAPH))
    request = action_graphs.Request(str(tmp_path / "g.json"))
    with pytest.raises(UserError, match="expected a first frame, either --image=FILE or --clip=NUMBER"):
        action_graphs.compose_graph(run, request, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
