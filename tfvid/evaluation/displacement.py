"""How far CAGE moves an object against how far it was asked to, on the demo data, whose colours are known."""

import numpy as np
import tensorflow as tf

from tfvid.errors import UserError
from tfvid.evaluation import runs
from tfvid.evaluation.compositions import grid_of, open_model
from tfvid.models.cage.controls import Controls, Group

# Of the square in the demo data, and how far another colour may be from it.
COLOUR, REACH = np.array([235, 80, 60], np.float32), 90.0
FRAMES = 3  # that are generated; the square is placed in each
DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1))


def position(frame):
    """(x, y) in pixels of what has the square's colour, or None where nothing has it.

    Args:
      frame: uint8 [H, W, 3].
    """
    near = np.linalg.norm(frame.astype(np.float32) - COLOUR, axis=-1) < REACH
    if near.sum() < 4:
        return None
    rows, columns = np.nonzero(near)
    return columns.mean() + 0.5, rows.mean() + 0.5


def measure(checkpoint, clips=16, seed=0):
    """Asks a run for displacements in four directions, and lets it go without controls from the same noise.

    Returns:
      {"with controls", "without controls": {"asked", "obtained": signed pixels along the
      direction, "lost": clips without a square at the end, "slope", "correlation", "error"}}.
    """
    trial, model = open_model(checkpoint)
    source, grid = runs.open_data([trial]), grid_of(model)
    if source.name != "demo":
        raise UserError(f"--checkpoint: expected a run on the data set demo. Received: one on {source.name}")
    batch = next(iter(source.evaluation_batches("test", trial.run.hparams, clips, length=2)))
    images, boxes = batch["images"][:, 0].numpy(), batch["boxes"][:, 0, 0].numpy()
    features = model.features(tf.cast(images, tf.float32)[:, None] / 127.5 - 1)[:, 0].numpy()
    asked, placed, masks = [], [], []
    for n, box in enumerate(boxes):
        group = Group(0, grid.tiles_in_box(box * [grid.width, grid.height, grid.width, grid.height]))
        step, direction = _request(group, grid, n)
        controls = Controls(grid, FRAMES)
        for f in range(FRAMES):
            pixels = step * grid.tile[0] * (f + 1)
            controls.move(f, group, direction[0] * pixels, direction[1] * pixels)
        arrays = controls.arrays([features[n]])
        placed.append(arrays[0])
        masks.append(arrays[1])
        asked.append((step * grid.tile[0] * FRAMES, direction))
    first = tf.cast(images, tf.float32)[:, None] / 127.5 - 1
    placed, masks = np.stack(placed), np.stack(masks)
    result = {}
    for name, shown in (("with controls", masks), ("without controls", np.zeros_like(masks))):
        frames = model.seeded_sample(seed, 0, FRAMES, first, placed, shown)
        frames = np.clip((frames.numpy() + 1) * 127.5, 0, 255).astype(np.uint8)
        result[name] = _summary(images, frames[:, -1], asked)
    return result


def _request(group, grid, number):
    """(tiles a frame, direction) so that the group stays in the frame; cycles through both."""
    rows, columns = zip(*group.tiles)
    for turn in range(len(DIRECTIONS)):
        direction = DIRECTIONS[(number + turn) % len(DIRECTIONS)]
        room = {
            (1, 0): grid.columns - 1 - max(columns), (-1, 0): min(columns),
            (0, 1): grid.rows - 1 - max(rows), (0, -1): min(rows),
        }[direction] // FRAMES  # fmt: skip
        if room:
            return min(room, 1 + number // len(DIRECTIONS) % 2), direction
    return 0, DIRECTIONS[0]


def _summary(images, last, asked):
    wanted, obtained, lost = [], [], 0
    for image, frame, (pixels, direction) in zip(images, last, asked):
        before, after = position(image), position(frame)
        if before is None:
            continue
        if after is None:
            lost += 1
            continue
        sign = -1 if min(direction) < 0 else 1  # right and down are positive
        moved = sum((b - a) * abs(d) for a, b, d in zip(before, after, direction))
        wanted.append(float(sign * pixels))
        obtained.append(float(moved))
    x, y = np.array(wanted), np.array(obtained)
    varied = len(x) > 1 and x.std() > 0
    return {
        "asked": wanted,
        "obtained": obtained,
        "lost": lost,
        "slope": float(np.polyfit(x, y, 1)[0]) if varied else 0.0,
        "correlation": float(np.corrcoef(x, y)[0, 1]) if varied and y.std() > 0 else 0.0,
        "error": float(np.abs(x - y).mean()) if len(x) else 0.0,
    }


def plot(results, path):
    """Writes a picture of asked against obtained displacements; {label: result of `measure`}."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(4.5, 4.2), layout="constrained")
    for number, (label, result) in enumerate(results.items()):
        axes.plot(result["asked"], result["obtained"], "o" if number == 0 else "x", label=label)
    reach = [min(min(r["asked"], default=0) for r in results.values()), 0]
    reach[1] = max(max(r["asked"], default=0) for r in results.values())
    axes.plot(reach, reach, color="0.7", zorder=0)
    axes.set(xlabel="asked (pixels)", ylabel="obtained (pixels)")
    axes.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
