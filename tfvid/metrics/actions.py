"""How well learnt discrete actions explain what moves; Menapace et al., CVPR 2021, section 4.

Movements are the differences of a position between two frames (pixels or the data set's
units), labels the action that the model used between them.
"""

import numpy as np

QUANTILES = np.linspace(0, 1, 11)


def match_actions(votes):
    """The one-to-one assignment of true to learnt actions with the most agreements.

    Args:
      votes: [A, A], how often true action i (row) went with learnt action j.

    Returns:
      [A] integers: the learnt action for each true one.
    """
    votes = np.asarray(votes, np.float64)
    return _hungarian(votes.max() - votes)


def action_accuracy(truth, learnt, count):
    """Share of steps whose learnt action is the one that the best assignment gives the true one.

    Args:
      truth, learnt: [N] integers in [0, count).
      count: number of actions.

    Returns:
      (accuracy in [0, 1], [count] learnt action for each true one).
    """
    truth, learnt = np.asarray(truth).reshape(-1), np.asarray(learnt).reshape(-1)
    votes = np.zeros((count, count))
    np.add.at(votes, (truth, learnt), 1)
    mapping = match_actions(votes)
    return float(votes[np.arange(count), mapping].sum() / len(truth)), mapping


def action_variance(movements, labels):
    """Statistics of the movements of each action and of all together ("global").

    Args:
      movements: [N, D].
      labels: [N] integers.

    Returns:
      {"avg_variance": {a: mean over D of the variance}, "mean_vector", "variance_vector",
      "kurtosis" (excess, biased; not for "global"), "quantiles" [11, D], "frequency" (not
      for "global")}, each {label or "global": value}, and "avg_variance_mean", the mean
      of avg_variance over the actions.
    """
    movements, labels = np.asarray(movements, np.float64), np.asarray(labels)
    result = {k: {} for k in ("avg_variance", "mean_vector", "variance_vector", "kurtosis", "quantiles", "frequency")}
    groups = {int(a): movements[labels == a] for a in np.unique(labels)}
    for label, points in {**groups, "global": movements}.items():
        variance = points.var(axis=0)
        result["avg_variance"][label] = float(variance.mean())
        result["mean_vector"][label], result["variance_vector"][label] = points.mean(axis=0), variance
        result["quantiles"][label] = np.quantile(points, QUANTILES, axis=0)
        if label != "global":
            result["kurtosis"][label] = _kurtosis(points, variance)
            result["frequency"][label] = len(points) / len(movements)
    result["avg_variance_mean"] = float(np.mean([result["avg_variance"][a] for a in groups]))
    return result


def delta_mse(movements, labels):
    """Share of the movements' variance that is left within the actions; 0 is best, 1 says nothing.

    sum_a frequency_a * variance_a / variance of all (the paper gives it in percent).
    """
    statistics = action_variance(movements, labels)
    within = sum(statistics["frequency"][a] * statistics["avg_variance"][a] for a in statistics["frequency"])
    total = statistics["avg_variance"]["global"]
    return float(within / total) if total > 0 else float("nan")


def delta_accuracy(movements, labels, regularisation=1.0):
    """How well a linear classifier tells the action from the movement; on the data it was fitted to, as in the paper.

    One L2-regularised squared-hinge machine for each action against the rest, the
    optimum that scikit-learn's `LinearSVC` approaches.

    Returns:
      (accuracy, {label: accuracy of its own movements}).
    """
    movements, labels = np.asarray(movements, np.float64), np.asarray(labels)
    classes = np.unique(labels)
    if len(classes) == 1:
        return 1.0, {int(classes[0]): 1.0}
    machines = [linear_machine(movements, np.where(labels == c, 1.0, -1.0), regularisation) for c in classes]
    if len(classes) == 2:  # one machine decides, as scikit-learn has it
        scores = np.stack([-_scores(movements, machines[1]), _scores(movements, machines[1])], axis=1)
    else:
        scores = np.stack([_scores(movements, m) for m in machines], axis=1)
    return _accuracies(classes[scores.argmax(axis=1)], labels)


def delta_accuracy_pairs(movements, labels, regularisation=1.0):
    """`delta_accuracy` with one machine for each pair of actions, which vote."""
    movements, labels = np.asarray(movements, np.float64), np.asarray(labels)
    classes = np.unique(labels)
    votes = np.zeros((len(movements), len(classes)))
    confidence = np.zeros_like(votes)
    for i in range(len(classes)):
        for j in range(i + 1, len(classes)):
            chosen = np.isin(labels, (classes[i], classes[j]))
            target = np.where(labels[chosen] == classes[j], 1.0, -1.0)
            scores = _scores(movements, linear_machine(movements[chosen], target, regularisation))
            votes[:, j] += scores > 0
            votes[:, i] += scores <= 0
            confidence[:, j] += scores
            confidence[:, i] -= scores
    # Confidence decides between equal votes: squashed to less than half a vote.
    return _accuracies(classes[(votes + confidence / (3 * (np.abs(confidence) + 1))).argmax(axis=1)], labels)


def linear_machine(points, target, regularisation=1.0, steps=100):
    """Weights [D + 1] (the bias last, regularised too) of min |w|^2 / 2 + C sum max(0, 1 - y w x)^2.

    The objective is strictly convex and piecewise quadratic: Newton's method with
    halved steps ends at its only minimum.
    """
    x = np.concatenate([points, np.ones((len(points), 1))], axis=1) * target[:, None]
    weights = np.zeros(x.shape[1])

    def value(w):
        return 0.5 * w @ w + regularisation * np.square(np.maximum(0, 1 - x @ w)).sum()

    for _ in range(steps):
        active = x[x @ weights < 1]
        gradient = weights - 2 * regularisation * active.T @ (1 - active @ weights)
        if np.linalg.norm(gradient) < 1e-10 * max(1.0, len(points)):
            break
        step = np.linalg.solve(np.eye(len(weights)) + 2 * regularisation * active.T @ active, gradient)
        size = 1.0
        while value(weights - size * step) > value(weights) and size > 1e-8:
            size /= 2
        weights = weights - size * step
    return weights


def _scores(points, weights):
    return points @ weights[:-1] + weights[-1]


def _accuracies(predicted, labels):
    each = {int(c): float(np.mean(predicted[labels == c] == c)) for c in np.unique(labels)}
    return float(np.mean(predicted == labels)), each


def _kurtosis(points, variance):
    fourth = np.mean((points - points.mean(axis=0)) ** 4, axis=0)
    return fourth / np.where(variance > 0, variance, np.nan) ** 2 - 3


def _hungarian(cost):
    """[n] column of each row in the assignment of least total cost (Kuhn and Munkres, with potentials)."""
    n = len(cost)
    row_potential, column_potential = np.zeros(n + 1), np.zeros(n + 1)
    row_of = np.zeros(n + 1, int)  # 1-based row of each column; 0: free
    for row in range(1, n + 1):
        row_of[0], column = row, 0
        least, came_from, done = np.full(n + 1, np.inf), np.zeros(n + 1, int), np.zeros(n + 1, bool)
        while row_of[column]:
            done[column] = True
            current = row_of[column]
            reduced = cost[current - 1] - row_potential[current] - column_potential[1:]
            better = ~done[1:] & (reduced < least[1:])
            least[1:][better], came_from[1:][better] = reduced[better], column
            following = 1 + int(np.argmin(np.where(done[1:], np.inf, least[1:])))
            delta = least[following]
            row_potential[row_of[done]] += delta
            column_potential[done] -= delta
            least[~done] -= delta
            column = following
        while column:
            row_of[column], column = row_of[came_from[column]], came_from[column]
    result = np.zeros(n, int)
    result[row_of[1:] - 1] = np.arange(n)
    return result
