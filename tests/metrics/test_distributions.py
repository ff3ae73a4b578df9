"""Metrics of sets against closed forms, scipy and direct sums."""

import tracemalloc

import numpy as np
import pytest

from tfvid.metrics import distributions as d


def statistics_of(features, batch=7):
    statistics = d.GaussianStatistics(features.shape[1])
    for i in range(0, len(features), batch):
        statistics.update(features[i : i + batch])
    return statistics


def test_mean_and_covariance_equal_numpy():
    features = 1e4 + np.random.default_rng(0).normal(size=(50, 4))  # far from 0: digits must not be lost
    statistics = statistics_of(features)
    np.testing.assert_allclose(statistics.mean(), features.mean(0), rtol=1e-14)
    np.testing.assert_allclose(statistics.covariance(), np.cov(features.T), rtol=1e-9, atol=1e-12)


def test_merged_parts_equal_the_whole():
    features = 100 + np.random.default_rng(1).normal(size=(40, 3))
    merged = d.GaussianStatistics(3)
    for part in (features[:15], features[15:16], features[16:]):
        merged.merge(d.GaussianStatistics.from_state(statistics_of(part).state()))
    merged.merge(d.GaussianStatistics(3))
    np.testing.assert_allclose(merged.mean(), features.mean(0), rtol=1e-13)
    np.testing.assert_allclose(merged.covariance(), np.cov(features.T), rtol=1e-9)


def test_frechet_distance_of_commuting_gaussians():
    # For diagonal covariances: |m|^2 + sum (sqrt(a) - sqrt(b))^2.
    a, b, shift = np.array([1.0, 4.0, 9.0]), np.array([4.0, 1.0, 0.25]), np.array([1.0, 2.0, -2.0])
    expected = shift @ shift + np.square(np.sqrt(a) - np.sqrt(b)).sum()
    assert d.frechet_distance(shift, np.diag(a), np.zeros(3), np.diag(b)) == pytest.approx(expected, rel=1e-12)


def test_frechet_distance_of_equal_gaussians_is_zero():
    features = np.random.default_rng(2).normal(size=(30, 5))
    statistics = statistics_of(features)
    assert abs(d.frechet_distance_of(statistics, statistics)) < 1e-10


@pytest.mark.parametrize("samples, dimension", [(80, 6), (10, 20)])
def test_frechet_distance_equals_scipy(samples, dimension):
    """Also with fewer samples than dimensions, where the general root is singular (scipy's error: about 1e-7)."""
    linalg = pytest.importorskip("scipy.linalg")
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(2, samples, dimension)) @ rng.normal(size=(dimension, dimension))
    a, b = np.cov(x.T), np.cov(y.T)
    root = linalg.sqrtm(a @ b)
    difference = x.mean(0) - y.mean(0)
    expected = difference @ difference + np.trace(a) + np.trace(b) - 2 * np.trace(root).real
    value = d.frechet_distance_of(statistics_of(x), statistics_of(y))
    assert value == pytest.approx(expected, rel=1e-4 if samples < dimension else 1e-9)


def test_distance_of_samples_approaches_that_of_the_gaussians():
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(20000, 2)), rng.normal(size=(20000, 2)) * 2 + 1
    assert d.frechet_distance_of(statistics_of(x, 500), statistics_of(y, 500)) == pytest.approx(2 + 2, rel=0.05)


def test_memory_is_constant():
    def peak(batches):
        rng = np.random.default_rng(0)
        tracemalloc.start()
        statistics, score = d.GaussianStatistics(16), d.InceptionScore(16)
        for _ in range(batches):
            features = rng.uniform(size=(8, 16))
            statistics.update(features)
            score.update(features / features.sum(1, keepdims=True))
        result = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return result

    peak(2)
    assert peak(1000) < 1.5 * peak(10)


def test_inception_score_of_known_cases():
    score = d.InceptionScore(4)
    score.update(np.eye(4))  # certain and evenly spread: the number of classes
    assert score.result() == pytest.approx(4)
    score = d.InceptionScore(4)
    score.update(np.full((5, 4), 0.25))  # says nothing
    assert score.result() == pytest.approx(1)


def test_precision_and_recall_of_known_histograms():
    precision, recall = d.precision_recall([0.5, 0.5, 0], [0.5, 0.5, 0], 101)
    assert precision.max() == pytest.approx(1) and recall.max() == pytest.approx(1)
    assert d.f_beta(precision, recall) == pytest.approx(1, abs=1e-3)
    precision, recall = d.precision_recall([1, 0], [0, 1], 101)
    np.testing.assert_allclose(precision, 0, atol=1e-9)
    # All that is generated is real, but half of the real is missing: precise, low recall.
    precision, recall = d.precision_recall([1, 0], [0.5, 0.5], 1001)
    assert precision.max() == pytest.approx(1) and recall.max() == pytest.approx(0.5)
    assert d.f_beta(precision, recall, 1 / 8) > d.f_beta(precision, recall, 8)


def test_clusters_find_separate_blobs():
    rng = np.random.default_rng(6)
    blobs = [rng.normal(size=(30, 2)) * 0.1 + centre for centre in ([0, 0], [10, 0], [0, 10])]
    evaluated, reference = d.cluster_histograms(np.concatenate(blobs[:2]), np.concatenate(blobs[1:]), clusters=3)
    assert sorted(evaluated) == pytest.approx([0, 0.5, 0.5]) and sorted(reference) == pytest.approx([0, 0.5, 0.5])
    assert np.minimum(evaluated, reference).sum() == pytest.approx(0.5)


def test_too_few_features_are_named():
    with pytest.raises(ValueError, match="at least 2 vectors, received 1"):
        statistics_of(np.zeros((1, 3))).covariance()
