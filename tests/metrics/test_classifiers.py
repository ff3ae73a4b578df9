"""Kernel machines against the recorded program, scikit-learn and a case that is known."""

import numpy as np
import pytest

from tests.parity.cases import find_cases
from tfvid.metrics import classifiers

RECORDED = [c for c in find_cases() if "action_classification" in c.meta.get("results", {})]


@pytest.mark.parametrize("kernel", classifiers.KERNELS)
@pytest.mark.parametrize("case", RECORDED, ids=str)
def test_equals_the_recorded_accuracies(case, kernel):
    labels = case.arrays["actions/labels"]
    accuracy, each = classifiers.kernel_accuracy(case.arrays["actions/vectors"], labels, kernel)
    expected = case.meta["results"]["action_classification"]
    # Points on a border may fall to the other side: two at most.
    assert abs(accuracy - expected[f"{kernel}/action_accuracy"]) * len(labels) <= 2.01
    for label, value in each.items():
        assert abs(value - expected[f"{kernel}/action_accuracy/{label}"]) * np.sum(labels == label) <= 2.01


@pytest.mark.parametrize("kernel", classifiers.KERNELS)
def test_equals_scikit_learn(kernel):
    svm = pytest.importorskip("sklearn.svm")
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 3, 120)
    movements = rng.normal(size=(120, 2)) + labels[:, None]
    expected = np.mean(svm.SVC(kernel=kernel).fit(movements, labels).predict(movements) == labels)
    accuracy, _ = classifiers.kernel_accuracy(movements, labels, kernel)
    assert abs(accuracy - expected) * 120 <= 1.01


def test_a_circle_is_told_by_the_gaussian_kernel():
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    movements, labels = np.concatenate([0.2 * circle, 2 * circle]), np.repeat([0, 1], 40)
    accuracy, each = classifiers.kernel_accuracy(movements, labels, "rbf")
    assert accuracy == 1.0 and each == {0: 1.0, 1: 1.0}


def test_coefficients_meet_the_constraints_of_the_dual():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(50, 2)), np.where(rng.uniform(size=50) < 0.5, 1.0, -1.0)
    coefficients, _ = classifiers.fit_kernel(x @ x.T, y)
    assert abs(coefficients.sum()) < 1e-9
    assert np.all(coefficients * y >= 0) and np.all(np.abs(coefficients) <= 1 + 1e-12)


def test_one_action_is_refused():
    with pytest.raises(ValueError, match="at least two actions"):
        classifiers.kernel_accuracy(np.zeros((3, 2)), np.zeros(3, int))
