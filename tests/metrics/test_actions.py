"""Metrics of discrete actions and detections on cases that can be worked out by hand."""

import itertools

import numpy as np
import pytest

from tfvid.metrics import actions, detection


@pytest.mark.parametrize("seed", range(4))
def test_the_assignment_is_the_best_of_all(seed):
    votes = np.random.default_rng(seed).integers(0, 50, (5, 5))
    best = max(itertools.permutations(range(5)), key=lambda p: votes[np.arange(5), list(p)].sum())
    found = actions.match_actions(votes)
    assert sorted(found) == list(range(5))
    assert votes[np.arange(5), found].sum() == votes[np.arange(5), list(best)].sum()


def test_accuracy_does_not_depend_on_names():
    truth = np.array([0, 0, 1, 1, 2, 2, 2, 2])
    accuracy, mapping = actions.action_accuracy(truth, (truth + 1) % 3, 3)
    assert accuracy == 1 and list(mapping) == [1, 2, 0]
    assert actions.action_accuracy(truth, np.zeros(8, int), 3)[0] == 0.5


def test_delta_mse_is_the_share_of_variance_left():
    movements = np.array([[1.0], [1.0], [-1.0], [-1.0]])
    assert actions.delta_mse(movements, [0, 0, 1, 1]) == 0
    assert actions.delta_mse(movements, [0, 1, 0, 1]) == pytest.approx(1)
    assert np.isnan(actions.delta_mse(np.zeros((4, 1)), [0, 0, 1, 1]))


@pytest.mark.parametrize("function", [actions.delta_accuracy, actions.delta_accuracy_pairs])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_separable_movements_are_classified(function, count):
    angles = np.repeat(np.arange(count), 20) * 2 * np.pi / max(count, 1)
    noise = np.random.default_rng(0).normal(0, 0.1, (len(angles), 2))
    movements = 3 * np.stack([np.cos(angles), np.sin(angles)], 1) + noise
    accuracy, each = function(movements, np.repeat(np.arange(count) * 2, 20))
    assert accuracy == 1 and set(each) == {2 * a for a in range(count)}


def test_the_machine_ends_where_its_gradient_is_zero():
    rng = np.random.default_rng(1)
    points, target = rng.normal(size=(50, 3)), rng.choice([-1.0, 1.0], 50)
    weights = actions.linear_machine(points, target)
    x = np.concatenate([points, np.ones((50, 1))], 1)
    slack = np.maximum(0, 1 - target * (x @ weights))
    np.testing.assert_allclose(weights, 2 * x.T @ (target * slack), atol=1e-7)


def test_paddle_found_on_its_row_alone():
    frame = np.zeros((208, 160, 3), np.uint8)
    assert detection.paddle_positions(frame) == -1
    frame[188, 40:56] = (200, 72, 72)
    assert detection.paddle_positions(frame) == 40
    frame[188, 50] = 0
    assert detection.paddle_positions(frame) == -1  # no run of 12 pixels is left
    frame[188, 148:160] = (200, 72, 72)
    assert detection.paddle_positions(frame) == -1  # the last column never counts


def test_distances_and_misses():
    reference, generated = np.array([[1, 5, -1], [2, 4, 3]]), np.array([[4, -1, 2], [2, 4, 7]])
    statistics = detection.detection_statistics(reference, generated)
    np.testing.assert_allclose(statistics["center_distance"], [1.5, 0, 4, 7 / 4])
    assert detection.average_detection_distance(statistics) == pytest.approx(7 / 4)
    assert detection.missed_detection_rate(statistics) == pytest.approx(1 / 5)
