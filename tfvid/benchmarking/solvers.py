"""What the ODE solvers of CAGE cost, and how far their frames are from the flow's end."""

import time

import tensorflow as tf

from tfvid.models.cage.sampling import SOLVERS


def evaluations(solver, steps):
    """Evaluations of the vector field in a solve."""
    return steps * len(SOLVERS[solver][0])


REFERENCE = ("rk4", 32)
TRIED = tuple((name, steps) for name in SOLVERS for steps in (2, 3, 5, 10, 20, 40) if evaluations(name, steps) <= 40)


def compare(model, frames, seed=0, tried=TRIED, reference=REFERENCE):
    """Solves one chunk of T frames, from the same noise, in many ways.

    Args:
      model: a `Cage`.
      frames: [B, 1, H, W, 3] in [-1, 1], the frame that is given.
      seed: of the noise.
      tried: (solver, steps) pairs.
      reference: the pair that counts as exact.

    Returns:
      A list of {"solver", "steps", "evaluations" of the vector field a chunk, "seconds" a
      frame, "error": root mean square of the frames' difference from the reference's, in
      [0, 1]}.
    """
    number = model.hparams.num_target_frames

    def sample(solver, steps):
        options = {"odesolver": solver, "num_steps": steps, "method": "joint", "past_horizon": -1}
        return model.seeded_sample(seed, 0, number, frames, **options)

    exact, rows = sample(*reference), []
    for solver, steps in tried:
        sample(solver, steps)  # builds the graph
        start = time.perf_counter()
        made = sample(solver, steps)
        seconds = (time.perf_counter() - start) / (number * frames.shape[0])
        error = tf.sqrt(tf.reduce_mean(tf.square((made - exact) / 2)))
        rows.append({
            "solver": solver, "steps": steps, "evaluations": evaluations(solver, steps), "error": float(error),
            "seconds": seconds,
        })  # fmt: skip
    return rows


def table(rows):
    """The rows as Markdown, by their cost."""
    lines = ["| solver | steps | evaluations | seconds a frame | error |", "|---|---|---|---|---|"]
    for row in sorted(rows, key=lambda r: (r["evaluations"], r["error"])):
        lines.append(
            f"| {row['solver']} | {row['steps']} | {row['evaluations']} | {row['seconds']:.3f} | {row['error']:.4f} |"
        )
    return "\n".join(lines)
