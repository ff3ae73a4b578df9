"""Several devices: N of them give the update of one, with noise of their own."""

import json

import numpy as np
import pytest

from tests import commands


@pytest.fixture(scope="module")
def measured():
    """What tests/training/replicas.py prints; logical devices need a fresh process."""
    result = commands.run("tests/training/replicas.py")
    assert result.returncode == 0, result.stderr[-2000:]
    return json.loads(result.stdout.splitlines()[-1])


def test_two_devices_give_the_update_of_one(measured):
    # Sums in another order: measured 1.2e-7 after 20 steps of weights around 1.
    assert measured["difference"] < 1e-6
    assert measured["steps"] == 5


def test_two_devices_validate_as_one(measured):
    np.testing.assert_allclose(*measured["validation"], rtol=1e-6)


def test_every_replica_draws_its_own_noise(measured):
    first, second = measured["noise"]
    assert not np.allclose(first, second)
