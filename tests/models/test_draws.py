"""Noise: a function of (seed, step, replica, stream, name) and of nothing else."""

import zlib

import numpy as np
import pytest
import tensorflow as tf

from tfvid.models.draws import RecordedDraws, StatelessDraws


def normal(*key, name="z"):
    return StatelessDraws(*key).normal(name, [4]).numpy()


def test_same_key_same_noise_eager_and_traced():
    traced = tf.function(lambda seed, step: StatelessDraws(seed, step, 1).normal("z", [4]))
    for step in (0, 7):
        want = normal(3, step, 1)
        np.testing.assert_array_equal(traced(tf.constant(3, tf.int64), tf.constant(step, tf.int64)), want)
        np.testing.assert_array_equal(normal(tf.constant(3, tf.int32), tf.constant(step, tf.int32), 1), want)


@pytest.mark.parametrize("kind", ["normal", "uniform"])
def test_noise_is_that_of_tf_random(kind):
    """What is promised of a run does not hang on the short way to its noise."""
    draws, again = StatelessDraws(-3, 5, 1), StatelessDraws(-3, 5, 1)
    expected = getattr(tf.random, f"stateless_{kind}")([2, 3], again.key("z"), dtype=tf.float64, alg="philox")
    np.testing.assert_array_equal(getattr(draws, kind)("z", [tf.constant(2), 3], "float64"), expected)
    key = tf.stack([tf.constant(-3, tf.int64), tf.constant(zlib.crc32(b"train"), tf.int64)])
    for part in (5, 1, zlib.crc32(b"z")):
        key = tf.random.fold_in(key, tf.constant(part, tf.int64), alg="philox")
    np.testing.assert_array_equal(StatelessDraws(-3, 5, 1).key("z"), key)


def test_every_part_of_the_key_matters():
    keys = [(0,), (1,), (-1,), (0, 1), (0, 0, 1), (0, 1, 1), (0, 0, 0, "val"), (1, 0, 0, "val"), (2**62,)]
    noise = [normal(*key) for key in keys] + [
        normal(0, name="other"),
        StatelessDraws(0).scope("z").normal("z", [4]).numpy(),
    ]
    assert len({n.tobytes() for n in noise}) == len(noise)


def test_noise_does_not_depend_on_what_was_drawn_before():
    draws = StatelessDraws(5)
    draws.uniform("a", [3])
    np.testing.assert_array_equal(draws.normal("z", [4]), normal(5))


def test_a_name_is_drawn_once():
    draws = StatelessDraws(0)
    draws.normal("z", [1])
    with pytest.raises(ValueError, match="'z'"):
        draws.uniform("z", [1])


def test_distributions():
    draws = StatelessDraws(1)
    z = draws.normal("z", [20000]).numpy()
    u = draws.uniform("u", [20000], "float64").numpy()
    assert abs(z.mean()) < 0.03 and abs(z.std() - 1) < 0.03
    assert u.dtype == np.float64 and u.min() >= 0 and u.max() < 1 and abs(u.mean() - 0.5) < 0.01
    assert abs(draws.bernoulli("b", [20000], 0.3).numpy().mean() - 0.3) < 0.02
    np.testing.assert_array_equal(draws.bernoulli("never", [100], 0.0), False)
    np.testing.assert_array_equal(draws.bernoulli("always", [100], tf.constant(1.0, tf.float64)), True)
    counts = np.bincount(draws.integers("i", [20000], 5).numpy(), minlength=5)
    assert len(counts) == 5 and counts.min() > 3600
    assert draws.integers("j", [2], tf.constant(3), "int64").dtype == tf.int64
    np.testing.assert_array_equal(np.sort(draws.permutation("p", 50)), np.arange(50))


def test_recorded_noise_is_given_back_and_checked():
    draws = RecordedDraws({"a": np.arange(6.0).reshape(2, 3), "g/b": np.array([1]), "c": np.zeros(2)})
    value = draws.normal("a", [2, 3], "float64")
    assert value.dtype == tf.float64
    np.testing.assert_array_equal(value, np.arange(6.0).reshape(2, 3))
    assert draws.scope("g").integers("b", [1], 9).dtype == tf.int32
    assert draws.unused() == ["c"]
    with pytest.raises(ValueError, match="'a'.*\\(2, 2\\).*\\(2, 3\\)"):
        draws.uniform("a", [2, 2])
    with pytest.raises(KeyError, match="'d'.*recorded: a, c, g/b"):
        draws.normal("d", [1])
