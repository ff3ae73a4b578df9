"""Metrics of sets: Frechet distance, Inception score, precision and recall of distributions.

Features come in batches; `GaussianStatistics` and `InceptionScore` hold sums of a fixed
size, so that memory does not grow with the number of clips. All in float64.
"""

import numpy as np

from tfvid.errors import UserError


class GaussianStatistics:
    """Running mean and covariance of feature vectors, mergeable.

    The sums are kept around the first vector seen: features of a network are large
    against their spread, and plain sums of squares would lose digits.
    """

    def __init__(self, dimension):
        self.count = 0
        self.origin = None
        self.sum = np.zeros(dimension)
        self.outer = np.zeros((dimension, dimension))

    def update(self, features):
        """Adds [N, D] features."""
        features = np.asarray(features, np.float64)
        if not len(features):
            return
        if self.origin is None:
            self.origin = features[0].copy()
        centred = features - self.origin
        self.count += len(features)
        self.sum += centred.sum(0)
        self.outer += centred.T @ centred

    def merge(self, other):
        """Adds what another statistics object has seen."""
        if other.origin is None:
            return
        if self.origin is None:
            self.origin = other.origin.copy()
        shift = other.origin - self.origin
        cross = np.outer(other.sum, shift)
        self.outer += other.outer + cross + cross.T + other.count * np.outer(shift, shift)
        self.sum += other.sum + other.count * shift
        self.count += other.count

    def mean(self):
        """[D]."""
        self._require(1)
        return self.origin + self.sum / self.count

    def covariance(self):
        """[D, D] with the divisor N - 1."""
        self._require(2)
        mean = self.sum / self.count
        return (self.outer - self.count * np.outer(mean, mean)) / (self.count - 1)

    def state(self):
        """{name: array} that `from_state` reads."""
        self._require(1)
        return {"count": np.int64(self.count), "origin": self.origin, "sum": self.sum, "outer": self.outer}

    @classmethod
    def from_state(cls, state):
        """The object whose `state()` this was."""
        self = cls(len(state["sum"]))
        self.count, self.origin = int(state["count"]), np.array(state["origin"])
        self.sum, self.outer = np.array(state["sum"]), np.array(state["outer"])
        return self

    def _require(self, count):
        if self.count < count:
            raise UserError(f"statistics of features: expected at least {count} vectors, received {self.count}")


def frechet_distance(mean_a, covariance_a, mean_b, covariance_b):
    """|m_a - m_b|^2 + Tr(S_a + S_b - 2 (S_a S_b)^(1/2)) of two Gaussians; 0 is best.

    The trace of the root is the sum of the roots of the eigenvalues of the symmetric
    matrix S_a^(1/2) S_b S_a^(1/2): real and without the singular cases of a general
    matrix root, also with fewer samples than dimensions.
    """
    values, vectors = np.linalg.eigh(_symmetric(covariance_a))
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    product = np.linalg.eigvalsh(_symmetric(root @ covariance_b @ root))
    trace_of_root = np.sqrt(np.clip(product, 0, None)).sum()
    difference = np.asarray(mean_a, np.float64) - mean_b
    return float(difference @ difference + np.trace(covariance_a) + np.trace(covariance_b) - 2 * trace_of_root)


def frechet_distance_of(statistics_a, statistics_b):
    """Frechet distance of two `GaussianStatistics`."""
    return frechet_distance(
        statistics_a.mean(), statistics_a.covariance(), statistics_b.mean(), statistics_b.covariance()
    )


def _symmetric(matrix):
    matrix = np.asarray(matrix, np.float64)
    return (matrix + matrix.T) / 2


class InceptionScore:
    """Running exp(mean KL(p(y|x) || p(y))) of class probabilities; larger is better."""

    def __init__(self, classes):
        self.count, self.sum, self.negative_entropy = 0, np.zeros(classes), 0.0

    def update(self, probabilities):
        """Adds [N, K] probabilities that sum to 1."""
        p = np.asarray(probabilities, np.float64)
        self.count += len(p)
        self.sum += p.sum(0)
        self.negative_entropy += _xlogx(p).sum()

    def intra_entropy(self):
        """Mean entropy of the predictions, natural logarithm."""
        return -self.negative_entropy / self.count

    def inter_entropy(self):
        """Entropy of the mean prediction, natural logarithm."""
        return -_xlogx(self.sum / self.count).sum()

    def result(self):
        """The score, in [1, K]."""
        return float(np.exp(self.inter_entropy() - self.intra_entropy()))


def inception_score_of_splits(probabilities, splits):
    """Mean and population deviation of the score over `splits` runs of N // splits in order."""
    size = len(probabilities) // splits
    if size < 1:
        raise ValueError(f"expected at least {splits} probabilities. Received: {len(probabilities)}")
    scores = []
    for i in range(splits):
        score = InceptionScore(probabilities.shape[1])
        score.update(probabilities[i * size : (i + 1) * size])
        scores.append(score.result())
    return float(np.mean(scores)), float(np.std(scores))


def _xlogx(p):
    return np.where(p > 0, p * np.log(np.where(p > 0, p, 1)), 0)


def class_mean_distance(features_a, classes_a, features_b, classes_b):
    """Mean over the classes of the squared distance between the means of their features.

    AG2Vid's evaluation calls it a Frechet distance; it has no covariance term.
    """
    classes = sorted(set(np.asarray(classes_a).tolist()) & set(np.asarray(classes_b).tolist()))
    if not classes:
        raise ValueError("expected at least one class on both sides. Received: none")
    distances = [
        np.square(
            np.mean(features_a[classes_a == c], 0, np.float64) - np.mean(features_b[classes_b == c], 0, np.float64)
        ).sum()
        for c in classes
    ]
    return float(np.mean(distances))


def precision_recall(evaluated, reference, angles=1001, epsilon=1e-10):
    """Precision-recall curve of two histograms over the same clusters.

    Sajjadi et al., "Assessing Generative Models via Precision and Recall", 2018.

    Args:
      evaluated, reference: [K] probabilities of the clusters.

    Returns:
      (precision [angles], recall [angles]), both in [0, 1].
    """
    if not 0 < epsilon < 0.1 or angles < 3:
        raise ValueError(f"expected 0 < epsilon < 0.1 and angles >= 3. Received: {epsilon}, {angles}")
    slopes = np.tan(np.linspace(epsilon, np.pi / 2 - epsilon, angles))[:, None]
    evaluated, reference = np.asarray(evaluated, np.float64), np.asarray(reference, np.float64)
    precision = np.minimum(reference * slopes, evaluated).sum(1)
    recall = precision / slopes[:, 0]
    return np.clip(precision, 0, 1), np.clip(recall, 0, 1)


def f_beta(precision, recall, beta=8.0, epsilon=1e-10):
    """Largest F_beta over the curve: F_8 weighs recall, F_1/8 precision."""
    b = beta**2
    return float(np.max((1 + b) * precision * recall / (b * precision + recall + epsilon)))


def cluster_histograms(evaluated, reference, clusters=20, seed=0, iterations=100):
    """Histograms of two sets of features over the clusters of k-means on their union.

    Args:
      evaluated, reference: [N, D], the same number of each (a larger set would win clusters).

    Returns:
      Two [clusters] histograms that sum to 1.
    """
    if len(evaluated) != len(reference):
        raise ValueError(f"expected as many features of each. Received: {len(evaluated)}, {len(reference)}")
    both = np.concatenate([evaluated, reference]).astype(np.float64)
    labels = k_means(both, min(clusters, len(both)), np.random.default_rng(seed), iterations)
    n = len(evaluated)
    count = [np.bincount(part, minlength=clusters) for part in (labels[:n], labels[n:])]
    return count[0] / n, count[1] / n


def k_means(points, clusters, rng, iterations=100):
    """Labels [N] of Lloyd's algorithm started by k-means++."""
    centres = points[rng.integers(len(points))][None]
    nearest = np.square(points - centres[0]).sum(1)
    for _ in range(clusters - 1):
        total = nearest.sum()
        weights = nearest / total if total > 0 else None  # all points coincide with centres
        centre = points[rng.choice(len(points), p=weights)]
        centres = np.concatenate([centres, centre[None]])
        nearest = np.minimum(nearest, np.square(points - centre).sum(1))
    labels = None
    for _ in range(iterations):
        distances = np.square(centres).sum(1) - 2 * points @ centres.T
        assigned = distances.argmin(1)
        if labels is not None and np.array_equal(assigned, labels):
            break
        labels = assigned
        for k in range(clusters):
            members = points[labels == k]
            if len(members):
                centres[k] = members.mean(0)
    return labels
