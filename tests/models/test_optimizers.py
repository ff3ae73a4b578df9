"""Adam against its formulas, PyTorch's and Keras' own; updates that are skipped."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfvid.models.optimizers import Adam, global_norm, half_squares, without_slots

LR, BETA1, BETA2, EPSILON, DECAY = 0.1, 0.8, 0.95, 1e-3, 0.05


def variables(dtype="float64"):
    rng = np.random.default_rng(0)
    return [keras.Variable(rng.normal(size=s), dtype=dtype, name=f"v{i}") for i, s in enumerate(([2, 3], [4]))]


def gradients(step, dtype="float64"):
    rng = np.random.default_rng(100 + step)
    return [tf.constant(rng.normal(size=s), dtype) for s in ([2, 3], [4])]


def reference(form, decay, decoupled, steps):
    """The formulas of the class' text in numpy; what the first variable becomes."""
    value, m, v = variables()[0].numpy(), 0.0, 0.0
    for t in range(1, steps + 1):
        g = gradients(t)[0].numpy()
        if decay and decoupled:
            value = value * (1 - LR * decay)
        elif decay:
            g = g + decay * value
        m, v = BETA1 * m + (1 - BETA1) * g, BETA2 * v + (1 - BETA2) * g * g
        c1, c2 = 1 - BETA1**t, 1 - BETA2**t
        if form == "keras":
            value = value - LR * np.sqrt(c2) / c1 * m / (np.sqrt(v) + EPSILON)
        else:
            value = value - LR / c1 * m / (np.sqrt(v / c2) + EPSILON)
    return value


@pytest.mark.parametrize("form", ["keras", "torch"])
@pytest.mark.parametrize(("decay", "decoupled"), [(0.0, False), (DECAY, False), (DECAY, True)])
def test_formulas(form, decay, decoupled):
    own = variables()
    adam = Adam(
        own, beta1=BETA1, beta2=BETA2, epsilon=EPSILON, form=form, weight_decay=decay, decoupled=decoupled, name="a"
    )
    for t in range(1, 4):
        adam.apply(gradients(t), own, LR)
    np.testing.assert_allclose(own[0].numpy(), reference(form, decay, decoupled, 3), rtol=1e-12)


def test_keras_form_is_that_of_keras():
    own, theirs = variables("float32"), variables("float32")
    adam = Adam(own, beta1=BETA1, beta2=BETA2, epsilon=EPSILON, name="a")
    keras_adam = keras.optimizers.Adam(LR, BETA1, BETA2, EPSILON)
    for t in range(1, 5):
        adam.apply(gradients(t, "float32"), own, LR)
        keras_adam.apply(gradients(t, "float32"), theirs)
    for a, b in zip(own, theirs):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-6)


def test_a_variable_without_gradient_stands_still_and_its_count_too():
    own = variables()
    adam = Adam(own, name="a")
    before = own[1].numpy()
    adam.apply([gradients(1)[0], None], own, LR)
    adam.apply(gradients(2), own, LR)
    np.testing.assert_array_equal(adam.counts, [2, 1])
    first_update = own[1].numpy() - before
    np.testing.assert_allclose(np.abs(first_update), LR, rtol=1e-5)  # what Adam's first step is


def test_a_subset_in_another_order():
    own = variables()
    adam = Adam(own, name="a")
    adam.apply(gradients(1)[1:], own[1:], LR)
    np.testing.assert_array_equal(adam.counts, [0, 1])
    np.testing.assert_array_equal(adam.m[0], 0)
    with pytest.raises(KeyError):
        adam.apply([tf.zeros([1])], [keras.Variable([0.0])], LR)
    with pytest.raises(ValueError):
        adam.apply(gradients(1), own[:1], LR)


@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("form", ["keras", "torch"])
@pytest.mark.parametrize("first", [0, 2])
def test_a_skipped_update_changes_no_bit(form, decoupled, first):
    own = variables("float32")
    adam = Adam(own, form=form, weight_decay=DECAY, decoupled=decoupled, name="a")
    for t in range(first):
        adam.apply(gradients(t, "float32"), own, LR)
    state = lambda: [x.numpy() for x in [*own, *adam.m, *adam.v, adam.counts]]  # noqa: E731
    before = state()
    bad = [tf.fill([2, 3], float("nan")), tf.fill([4], float("inf"))]
    tf.function(lambda ok: adam.apply(bad, own, LR, ok))(tf.constant(False))
    for a, b in zip(before, state()):
        np.testing.assert_array_equal(a, b)
    adam.apply(gradients(9, "float32"), own, LR)
    assert all(np.isfinite(v.numpy()).all() for v in own)
    assert not np.array_equal(before[0], own[0].numpy())


def test_learning_rate_may_be_a_tensor_and_zero():
    own = variables("float32")
    before = own[0].numpy()
    adam = Adam(own, name="a")
    adam.apply(gradients(1, "float32"), own, tf.constant(0.0, tf.float64))
    np.testing.assert_array_equal(own[0].numpy(), before)
    np.testing.assert_array_equal(adam.counts, [1, 1])


def test_state_names_the_moments_by_path():
    own = variables()
    state = Adam(own, name="a").state()
    assert set(state) == {"counts", "m", "v"}
    assert list(state["m"]) == [v.path for v in own]


def test_without_slots_takes_no_memory_and_cannot_train():
    own = variables()
    with without_slots():
        adam = Adam(own, name="a")
    assert adam.m == adam.v == [] and adam.state() == {}
    with pytest.raises(RuntimeError, match="without slots"):
        adam.apply(gradients(1), own, LR)
    assert Adam(own, name="b").m != []


def test_wrong_arguments():
    with pytest.raises(ValueError, match="form"):
        Adam(variables(), form="adamax", name="a")
    with pytest.raises(ValueError, match="one float type"):
        Adam([variables()[0], variables("float32")[0]], name="a")


def test_global_norm():
    np.testing.assert_allclose(global_norm(half_squares([tf.constant([3.0]), None, tf.constant([[4.0]])])), 5.0)
    assert float(global_norm(half_squares([None]))) == 0
    assert np.isnan(global_norm(half_squares([tf.constant([1.0, float("nan")])])))


def test_gradients_applied_one_by_one_change_what_their_own_flag_allows():
    def made():
        variables = [keras.Variable(np.arange(3.0) + i, dtype="float32") for i in range(3)]
        return variables, Adam(variables, form="torch", name="adam")

    grads = [tf.constant([1.0, -2.0, 3.0]), tf.constant([np.nan, 0.0, 1.0]), None]
    variables, one_by_one = made()
    update = tf.function(lambda: one_by_one.apply(grads, variables, 0.1, [tf.constant(True), tf.constant(False)]))
    update()
    update()
    references, together = made()
    for _ in range(2):
        together.apply(grads[:1], references[:1], 0.1)
    for value, reference in zip(variables, references):
        np.testing.assert_array_equal(value.numpy(), reference.numpy())
    np.testing.assert_array_equal(one_by_one.counts.numpy(), [2, 0, 0])
    np.testing.assert_array_equal(one_by_one.v[1].numpy(), 0)
