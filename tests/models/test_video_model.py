"""What every model inherits: gradients to updates, steps under fit, validation means, building."""

import numpy as np
import pytest
import tensorflow as tf

from tests.toy_model import Toy, toy_hparams, toy_images, toy_spec, weights_of
from tfvid import models
from tfvid.errors import UserError
from tfvid.hparams import HParams
from tfvid.models.video_model import VideoModel, weighted_sum


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    monkeypatch.setitem(models.MODELS, "toy", "tests.toy_model:Toy")


def build(seed=0, trainable=True, **values):
    return models.build("toy", toy_hparams(**values), toy_spec(), seed, trainable)


def batches(count=8, size=4):
    data = tf.data.Dataset.from_tensor_slices({"images": toy_images(count)})
    return data.repeat().batch(size, drop_remainder=True)


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


def test_building_is_a_function_of_the_seed_whatever_was_built_before():
    first, second, other = weights_of(build(1)), weights_of(build(1)), weights_of(build(2))
    assert same(first, second)
    assert first.keys() == other.keys() and not same(first, other)


def test_everything_exists_after_building():
    model = build()
    before = weights_of(model)
    model.fit(batches(), steps_per_epoch=1, verbose=0)
    assert weights_of(model).keys() == before.keys()
    assert "generator/m/sequential/conv2d/kernel" in before


def test_a_model_to_generate_has_the_same_weights_and_no_moments():
    full, light = build(3), build(3, trainable=False)
    assert same({v.path: v.numpy() for v in full.weights}, weights_of(light))


def test_float_policy_ends_with_the_build():
    import keras

    model = build(precision="mixed_bfloat16")
    assert keras.config.dtype_policy().name == "float32" and keras.config.floatx() == "float32"
    assert {v.dtype for v in model.weights} == {"float32"}
    assert model.generator.layers[0].compute_dtype == "bfloat16"
    assert {v.dtype for v in build(precision="float64").weights} == {"float64"}


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16", "float64"])
def test_training_reduces_the_loss_in_every_precision(precision):
    model = build(precision=precision)
    data = tf.data.Dataset.from_tensor_slices({"images": toy_images(8)}).batch(4)
    before = model.evaluate(data, verbose=0, return_dict=True)["mse"]
    model.fit(batches(), steps_per_epoch=40, verbose=0)
    assert model.evaluate(data, verbose=0, return_dict=True)["mse"] < 0.7 * before
    assert int(model.step) == model.host_step == 40
    assert model.data_wait > 0


def test_two_fits_in_a_row_are_one_long_fit():
    once, twice = build(), build()
    data = toy_images(24)
    slices = lambda start: tf.data.Dataset.from_tensor_slices({"images": data[start:]}).batch(4)  # noqa: E731
    once.fit(slices(0), steps_per_epoch=6, verbose=0)
    twice.fit(slices(0).take(2), steps_per_epoch=2, verbose=0)
    twice.fit(slices(8), steps_per_epoch=4, verbose=0)
    assert same(weights_of(once), weights_of(twice))


def test_a_step_without_finite_gradient_changes_nothing_of_its_optimizer():
    model = build(nan_from=0, nan_until=1)
    before = weights_of(model)
    model.fit(batches(), steps_per_epoch=1, verbose=0)
    after = weights_of(model)
    for key in before:
        of_generator = key.startswith(("generator", "sequential"))
        assert np.array_equal(before[key], after[key]) == of_generator, key
    model.fit(batches(), steps_per_epoch=1, verbose=0)
    assert not np.array_equal(weights_of(model)["sequential/conv2d/kernel"], before["sequential/conv2d/kernel"])


def test_gradients_are_clipped_to_the_norm_and_the_norm_before_is_reported():
    free, clipped = build(), build(clip_norm=1e-3)
    gradients = [tf.ones_like(v.value) for v in free.optimizers_by_name["critic"].targets]
    size = sum(int(tf.size(g)) for g in gradients)
    for model in (free, clipped):
        logs = model.apply_gradients("critic", gradients, 0.1)
        np.testing.assert_allclose(logs["critic_grad_norm"], size**0.5, rtol=1e-6)
        assert float(logs["critic_skipped"]) == 0
    m = lambda model: np.concatenate([np.ravel(x) for x in model.optimizers_by_name["critic"].m])  # noqa: E731
    np.testing.assert_allclose(m(free), 0.1, rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(m(clipped)), 0.1 * 1e-3, rtol=1e-5)


def test_no_gradient_at_all_is_a_defect():
    model = build()
    with pytest.raises(ValueError, match="'critic'"):
        model.apply_gradients("critic", [None, None], 0.1)


def test_validation_counts_valid_elements_exactly():
    model = build()
    images = toy_images(10)
    each = model.test_step({"images": tf.constant(images)})["mse"].numpy()
    padded = {"images": np.concatenate([images, images[:2]]), "valid": np.arange(12) < 10}
    got = model.evaluate(tf.data.Dataset.from_tensor_slices(padded).batch(4), verbose=0, return_dict=True)
    np.testing.assert_allclose(got["mse"], each.mean(), rtol=1e-6)
    again = model.evaluate(tf.data.Dataset.from_tensor_slices(padded).batch(4), verbose=0, return_dict=True)
    assert again == got


def test_scalars_of_a_batch_weigh_as_much_as_its_valid_elements(monkeypatch):
    model = build()
    monkeypatch.setattr(model, "test_step", lambda batch: {"loss": tf.reduce_mean(tf.cast(batch["valid"], tf.float32))})
    data = {"images": toy_images(8), "valid": np.array([1, 1, 1, 1, 1, 0, 0, 0], bool)}
    got = model.evaluate(tf.data.Dataset.from_tensor_slices(data).batch(4), verbose=0, return_dict=True)
    np.testing.assert_allclose(got["loss"], (4 * 1 + 1 * 0.25) / 5, rtol=1e-6)


def test_each_phase_is_traced_once():
    model = build()
    seen = []
    inner = model.train_step
    model.train_step = lambda batch: (seen.append(model.current_phase), inner(batch))[1]
    model.train_step.__name__ = "train_step"
    model.phase = lambda step: step // 2
    model.fit(batches(), steps_per_epoch=6, verbose=0)
    assert list(dict.fromkeys(seen)) == [0, 1, 2]


def test_spec_without_a_needed_key():
    with pytest.raises(UserError, match="Toy needs images in the data, received actions"):
        VideoModel.check_spec(
            type("Toy", (Toy,), {"__init__": lambda self: setattr(self, "spec", {"actions": None})})()
        )


def test_wrong_hparams_and_unknown_model():
    with pytest.raises(TypeError, match="ToyHParams"):
        Toy(HParams(), toy_spec())
    with pytest.raises(UserError, match="--model: expected one of savp.*'sapv'"):
        models.build("sapv", toy_hparams(), toy_spec())


def test_images_to_float():
    model = build()
    np.testing.assert_allclose(model.images_to_float(tf.constant([0, 255], tf.uint8)), [0, 1])
    assert model.images_to_float(tf.constant([0.5], tf.bfloat16)).dtype == tf.float32


def test_weighted_sum_wants_a_weight_for_every_loss():
    losses = {"a": tf.constant(2.0, tf.float64), "b": tf.constant(3.0, tf.float64)}
    assert float(weighted_sum(losses, {"a": 0.1, "b": tf.constant(1.0)})) == 0.1 * 2 + 3
    with pytest.raises(KeyError, match="b"):
        weighted_sum(losses, {"a": 1})
