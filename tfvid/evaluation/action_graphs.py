"""Videos of action graphs (AG2Vid): rendered, with boxes and the graph drawn over the frames."""

import dataclasses
import json
import os

import cv2
import numpy as np
import tensorflow as tf

from tfvid.data.video_files import check_fps, encode_png, read_image, write_gif
from tfvid.errors import UserError
from tfvid.evaluation import runs
from tfvid.evaluation.samples import to_uint8
from tfvid.models.ag2vid import action_graph

# Sides of the drawn frames, and the height of a row of the time table below them, in pixels.
SIDE, ROW = 256, 18
PALETTE = (
    (230, 80, 70), (80, 170, 240), (110, 200, 100), (245, 200, 70), (190, 120, 230), (240, 140, 60), (90, 210, 200),
    (240, 130, 180),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Request:
    """What is asked for; every field is a flag of scripts/generate.py."""

    graph: str
    image: str | None = None
    clip: int | None = None
    split: str = "test"
    fps: float = 4.0


def compose_graph(checkpoint, request, output_dir, input_dir=None, report=print):
    """Renders one action graph.

        video.gif   the first frame and the generated ones
        boxes.gif   the same with boxes, names and the actions' time table
        frame_<t>.png, boxes.json

    Returns:
      The paths of the two GIFs.

    Raises:
      UserError: one line on what does not fit, before anything is computed.
    """
    (trial,) = runs.open_trials([checkpoint])
    if trial.run.model_name != "ag2vid":
        raise UserError(f"--checkpoint: expected a run of ag2vid for --graph. Received: one of {trial.run.model_name}")
    if (request.image is None) == (request.clip is None):
        raise UserError("--graph: expected a first frame, either --image=FILE or --clip=NUMBER. Received: both or none")
    check_fps(request.fps)
    image, scene = _first_frame(trial, request, input_dir)
    graph = action_graph.read(request.graph, vocabulary_of(trial, input_dir), scene)
    runs.prepare_folder(output_dir)
    model = trial.run.load_model(trial.step, training_networks=False)
    outputs = model.generate({k: tf.constant(v) for k, v in graph.batch(image).items()}, 0, 1, graph.frames - 1)
    frames = np.concatenate([image[None], to_uint8(outputs["images"][0, 0].numpy())])
    boxes = np.concatenate([graph.boxes[None], outputs["boxes"][0, 0].numpy()])
    paths = [os.path.join(output_dir, f"{name}.gif") for name in ("video", "boxes")]
    write_gif(paths[0], frames, request.fps)
    vocabulary = vocabulary_of(trial, input_dir)
    write_gif(paths[1], drawn(frames, boxes, graph, vocabulary.actions), request.fps)
    for t, frame in enumerate(frames):
        with tf.io.gfile.GFile(os.path.join(output_dir, f"frame_{t:02d}.png"), "wb") as f:
            f.write(encode_png(frame))
    with tf.io.gfile.GFile(os.path.join(output_dir, "boxes.json"), "w") as f:
        named = {n: np.round(boxes[:, i], 4).tolist() for i, n in enumerate(graph.names)}
        f.write(json.dumps(named) + "\n")
    report(f"video: {paths[0]}")
    report(f"with boxes and graph: {paths[1]}")
    return paths


def vocabulary_of(trial, input_dir=None):
    """Names that the run keeps, else those of its data set."""
    labels = trial.run.info.get("labels")
    if not labels and trial.run.hparams.dataset == "cater":
        from tfvid.data.cater import LABELS as labels  # noqa: N811
    if not labels:
        source = runs.open_data([trial], input_dir)
        labels = source.info.labels if source.info else {}
    return action_graph.Vocabulary.of_labels(labels, trial.run.path)


def _first_frame(trial, request, input_dir):
    """(uint8 [H, W, 3], {"objects", "boxes"} or None)."""
    if request.clip is not None:
        source = runs.open_data([trial], input_dir)
        count = source.count(request.split, trial.run.hparams)
        if not 0 <= request.clip < count:
            raise UserError(f"--clip: expected a number from 0 to {count - 1}. Received: {request.clip}")
        batches = source.evaluation_batches(request.split, trial.run.hparams, 1, limit=request.clip + 1)
        clip = {k: v[0].numpy() for k, v in next(iter(batches.skip(request.clip))).items()}
        present = clip["objects"][:, 0] > 0
        return clip["images"][0], {"objects": clip["objects"][present], "boxes": clip["boxes"][0][present]}
    height, width = trial.run.spec["images"].shape[1:3]
    image = read_image(request.image)
    if image.shape[:2] != (height, width):
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return image, None


def drawn(frames, boxes, graph, action_names):
    """Frames with boxes and names, the time table of the actions below.

    Args:
      frames: uint8 [T, H, W, 3]. boxes: [T, O, 4] corners.
      graph: the `ActionGraph`. action_names: by id.

    Returns:
      uint8 [T, H', W', 3].
    """
    scale = max(1, round(SIDE / frames.shape[1]))
    table = _time_table(graph, action_names, frames.shape[2] * scale)
    result = []
    for t, frame in enumerate(frames):
        large = np.ascontiguousarray(frame.repeat(scale, 0).repeat(scale, 1))
        height, width = large.shape[:2]
        for i, name in enumerate(graph.names):
            colour = PALETTE[i % len(PALETTE)]
            x0, y0, x1, y1 = (int(np.clip(v, -1, 2) * s) for v, s in zip(boxes[t, i], (width, height) * 2))
            cv2.rectangle(large, (x0, y0), (x1, y1), colour, 1, cv2.LINE_AA)
            _text(large, name, (x0 + 2, max(y0 - 4, 9)), colour)
            for action in graph.actions:
                if action.subject == i and action.target != i and action.start <= t <= action.end:
                    middles = [np.reshape(boxes[t, k], (2, 2)).mean(0) for k in (i, action.target)]
                    points = [tuple(int(np.clip(v, -1, 2) * s) for v, s in zip(m, (width, height))) for m in middles]
                    cv2.arrowedLine(large, *points, colour, 1, cv2.LINE_AA, tipLength=0.12)
        below = table.copy()
        x = int((t + 0.5) / graph.frames * width)
        cv2.line(below, (x, 0), (x, below.shape[0]), (255, 255, 255), 1)
        result.append(np.concatenate([large, below], axis=0))
    return np.stack(result)


def _time_table(graph, action_names, width):
    """uint8 [rows, width, 3]: a bar for each action from its first frame to its last."""
    table = np.full((ROW * max(len(graph.actions), 1), width, 3), 30, np.uint8)
    for row, action in enumerate(graph.actions):
        colour = PALETTE[action.subject % len(PALETTE)]
        x0, x1 = (int(np.clip(v / graph.frames, 0, 1) * width) for v in (action.start, action.end + 1))
        top = row * ROW
        cv2.rectangle(table, (x0, top + 2), (max(x1 - 1, x0), top + ROW - 3), tuple(c // 2 for c in colour), -1)
        text = f"{graph.names[action.subject]}: {action_names[action.action].strip('_')}"
        if action.target != action.subject:
            text += f" {graph.names[action.target]}"
        _text(table, text, (4, top + ROW - 6), colour)
    return table


def _text(image, text, place, colour):
    cv2.putText(image, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.36, colour, 1, cv2.LINE_AA)
