"""Where the played object is, in real and generated frames: distance and misses (ADD and MDR).

A position of -1 means that the object was not found.
"""

import numpy as np

# The published measure looks at this row of a 208-row Breakout screen, in the red channel alone.
PADDLE_ROW, SCREEN_ROWS = 188, 208
PADDLE_RED = (62, 238)
PADDLE_WIDTH = 12  # pixels at the least
# The same in a frame of another size: the middle of the paddle's rows, its least width as a share of the screen's.
PADDLE_MIDDLE, SCREEN_WIDTH = 190, 160


def paddle_positions(frames, scaled=False):
    """Left edge of Breakout's paddle in pixels, -1 where there is none.

    As the published program finds it: the first run of at least 12 pixels with 62 <= red
    <= 238 on row 188 of 208; the last column never counts. The teal marks at the walls
    have such a red, too: a paddle that touches the left one is reported at it.

    Args:
      frames: [..., H, W, 3] uint8, or float in [0, 1].
      scaled: for frames that were made smaller: another row, and a width of fewer pixels.

    Returns:
      [...] int64.
    """
    frames = np.asarray(frames)
    height, width = frames.shape[-3:-1]
    row = frames[..., int((PADDLE_MIDDLE if scaled else PADDLE_ROW) * height / SCREEN_ROWS), :, 0]
    least = max(1, PADDLE_WIDTH * width // SCREEN_WIDTH) if scaled else PADDLE_WIDTH
    if not np.issubdtype(row.dtype, np.integer):
        row = row * 255
    low, high = PADDLE_RED
    found = (row >= low - 1e-3) & (row <= high + 1e-3)
    return np.apply_along_axis(_first_run, -1, found, least).astype(np.int64)


def _first_run(found, least):
    start = None
    for i, hit in enumerate(found):
        last = i == len(found) - 1
        if hit and not last:
            start = i if start is None else start
        elif start is not None:
            if i - start >= least:
                return start
            start = None
    return -1


def detection_statistics(reference, generated):
    """How far apart the object is in two sets of clips, and how often it is missing.

    Args:
      reference, generated: [B, T] or [B, T, D] positions; negative: not found.

    Returns:
      {"center_distance": [T + 1], "missed_detections", "successful_detections",
      "reference_detections": [T + 1] counts}: each position of the clip, then all
      together. Distances are means over the frames where both are found (NaN: none).
    """
    reference, generated = (_vectors(x) for x in (reference, generated))
    in_reference, in_generated = ((x >= 0).all(-1) for x in (reference, generated))
    both = in_reference & in_generated
    distance = np.where(both, np.linalg.norm(reference - generated, axis=-1), 0.0)
    counts = {
        "missed_detections": in_reference & ~in_generated,
        "successful_detections": both,
        "reference_detections": in_reference,
    }
    result = {k: np.append(v.sum(0), v.sum()) for k, v in counts.items()}
    sums, numbers = np.append(distance.sum(0), distance.sum()), result["successful_detections"]
    result["center_distance"] = np.where(numbers > 0, sums / np.maximum(numbers, 1), np.nan)
    return result


def average_detection_distance(statistics):
    """ADD: mean distance over all frames where both are found."""
    return float(statistics["center_distance"][-1])


def missed_detection_rate(statistics):
    """MDR in [0, 1]: share of the reference's detections that the generated frames miss."""
    found = statistics["reference_detections"][-1]
    return float(statistics["missed_detections"][-1] / found) if found else float("nan")


def _vectors(x):
    x = np.asarray(x, np.float64)
    return x[..., None] if x.ndim == 2 else x
