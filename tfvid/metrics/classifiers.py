"""Support vector machines with kernels that tell an action from a movement, in numpy alone.

Playable Video Generation's evaluation fits scikit-learn's SVC with its defaults (C = 1,
gamma "scale", one machine a pair of classes) beside the linear machines of
`tfvid.metrics.actions`; this is the same problem, solved to the same tolerance, so that
predictions agree except for points on a border.
"""

import numpy as np

KERNELS = ("rbf", "poly")


def kernel_accuracy(movements, labels, kernel="rbf", max_iterations=10000):
    """How well a kernel machine tells the action from the movement, on the data it is fitted to.

    Args:
      movements: [N, D].
      labels: [N] actions, at least two different ones.
      kernel: "rbf", exp(-g |a - b|^2), or "poly", (g a.b)^3, with g = 1 / (D * variance).

    Returns:
      (accuracy, {label: accuracy of its own movements}).
    """
    x, labels = np.asarray(movements, np.float64), np.asarray(labels)
    classes = np.unique(labels)
    if len(classes) < 2 or kernel not in KERNELS:
        raise ValueError(
            f"expected at least two actions and a kernel of {KERNELS}. Received: {classes.tolist()}, {kernel!r}"
        )
    correct = classes[_kernel_pairs(x, labels, classes, kernel, max_iterations)] == labels
    return float(correct.mean()), {int(c): float(correct[labels == c].mean()) for c in classes}


def fit_kernel(kernel, y, penalty=1.0, tolerance=1e-3, max_iterations=10000):
    """(coefficients [N], offset) of the dual problem; decision = kernel @ coefficients - offset.

    Sequential minimal optimisation with second-order working sets (Fan, Chen and Lin,
    2005), stopped where the optimality conditions hold to `tolerance`.

    Args:
      kernel: [N, N].
      y: [N] of -1 and 1.
    """
    alpha, gradient = np.zeros(len(y)), -np.ones(len(y))
    diagonal = np.diag(kernel)
    for _ in range(max_iterations):
        up = np.where(y > 0, alpha < penalty, alpha > 0)
        low = np.where(y > 0, alpha > 0, alpha < penalty)
        score = -y * gradient
        i = int(np.argmax(np.where(up, score, -np.inf)))
        gap = score[i] - score
        if not low.any() or gap[low].max() < tolerance:
            break
        curvature = np.maximum(diagonal[i] + diagonal - 2 * kernel[i], 1e-12)
        j = int(np.argmax(np.where(low & (gap > 0), np.square(gap) / curvature, -np.inf)))
        _move_pair(alpha, gradient, kernel, y, i, j, curvature[j], penalty)
    score = y * gradient
    free = (alpha > 0) & (alpha < penalty)
    if free.any():
        return alpha * y, score[free].mean()
    above = np.where(y > 0, alpha == 0, alpha == penalty)  # constraints from above
    upper = score[above].min() if above.any() else np.inf
    lower = score[~above].max() if (~above).any() else -np.inf
    return alpha * y, (upper + lower) / 2


def _move_pair(alpha, gradient, kernel, y, i, j, curvature, penalty):
    """Moves two coefficients along y.alpha = constant to the best point within the box, in place."""
    step = (-y[i] * gradient[i] + y[j] * gradient[j]) / curvature
    # y_i alpha_i grows by the step, y_j alpha_j shrinks by it.
    room_i = penalty - alpha[i] if y[i] > 0 else alpha[i]
    room_j = alpha[j] if y[j] > 0 else penalty - alpha[j]
    step = min(step, room_i, room_j)
    before = alpha[i], alpha[j]
    alpha[i] = np.clip(alpha[i] + y[i] * step, 0, penalty)
    alpha[j] = np.clip(alpha[j] - y[j] * step, 0, penalty)
    gradient += y * (kernel[i] * y[i] * (alpha[i] - before[0]) + kernel[j] * y[j] * (alpha[j] - before[1]))


def _kernel_pairs(x, labels, classes, kind, max_iterations):
    """One classifier a pair; votes, ties to the first class."""
    gamma = 1 / (x.shape[1] * x.var())
    if kind == "rbf":
        squares = np.square(x).sum(1)
        kernel = np.exp(-gamma * (squares[:, None] + squares - 2 * x @ x.T))
    else:
        kernel = (gamma * x @ x.T) ** 3
    votes = np.zeros((len(x), len(classes)))
    for i, j, chosen in _pairs(labels, classes):
        y = np.where(labels[chosen] == classes[i], 1.0, -1.0)
        coefficients, offset = fit_kernel(kernel[np.ix_(chosen, chosen)], y, max_iterations=max_iterations)
        decision = kernel[:, chosen] @ coefficients - offset
        votes[:, i] += decision > 0
        votes[:, j] += decision <= 0
    return np.argmax(votes, axis=1)


def _pairs(labels, classes):
    for i in range(len(classes)):
        for j in range(i + 1, len(classes)):
            yield i, j, np.flatnonzero((labels == classes[i]) | (labels == classes[j]))
