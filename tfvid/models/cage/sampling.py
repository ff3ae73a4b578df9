"""Solving the flow: chunks of T frames, jointly or rolling (CAGE; RIVER, Davtyan et al. 2023)."""

import tensorflow as tf

# Explicit Runge-Kutta methods of a constant step: (times of the stages, weights of earlier
# stages, weights of the result). "rk4" is the 3/8 rule, as in torchdiffeq.
SOLVERS = {
    "euler": ((0.0,), ((),), (1.0,)),
    "midpoint": ((0.0, 0.5), ((), (0.5,)), (0.0, 1.0)),
    "heun": ((0.0, 1.0), ((), (1.0,)), (0.5, 0.5)),
    "rk4": (
        (0.0, 1 / 3, 2 / 3, 1.0),
        ((), (1 / 3,), (-1 / 3, 1.0), (1.0, -1.0, 1.0)),
        (1 / 8, 3 / 8, 3 / 8, 1 / 8),
    ),
}


def solve(velocity, y, num_steps, solver):
    """Integrates dy/dt = velocity from t = 0 to 1.

    Args:
      velocity: function (t, y, evaluation) of a scalar tensor, the state and the number
        of the function evaluation (an int32 scalar tensor).
      y: the state at t = 0.
      num_steps: steps of equal length.
      solver: a key of SOLVERS.

    Returns:
      The state at t = 1.
    """
    times, coefficients, weights = SOLVERS[solver]
    step = tf.constant(1 / num_steps, y.dtype)

    def body(k, y):
        slopes = []
        for stage, (offset, row) in enumerate(zip(times, coefficients)):
            point = y
            for weight, slope in zip(row, slopes):
                point = point + step * weight * slope if weight else point
            t = (tf.cast(k, y.dtype) + offset) * step
            slopes.append(velocity(t, point, k * len(times) + stage))
        change = sum(w * s for w, s in zip(weights, slopes) if w)
        return k + 1, y + step * change

    _, y = tf.while_loop(lambda k, y: k < num_steps, body, (tf.constant(0), y), maximum_iterations=num_steps)
    return y


def chunk_starts(first, num_frames, targets):
    """Indices of the first target frame of each chunk of the joint method."""
    starts = [first]
    while starts[-1] + targets - first < num_frames:
        starts.append(starts[-1] + targets)
    return starts


def rollout_plan(first, num_frames, targets):
    """Solves of the rolling method: (index of the first target, stage) with stage first, warm_up or rolling."""
    plan = [(first, "first")]
    if num_frames > targets:
        plan.append((first + targets, "warm_up"))
        plan += [(i, "rolling") for i in range(first + targets + 1, first + num_frames)]
    return plan
