"""Checkpoints: complete or absent, of this model or refused."""

import json
import os
import re

import numpy as np
import pytest
import tensorflow as tf

from tests.toy_model import toy_hparams, toy_images, toy_spec, weights_of
from tfvid import models
from tfvid.errors import UserError
from tfvid.training import checkpoints as lib
from tfvid.training.checkpoints import Checkpoints, DamagedCheckpoint, restore
from tfvid.training.run_folder import RunFolder, weights_path


def build(seed=0, trainable=True, channels=3):
    return models.build("toy", toy_hparams(), toy_spec(channels), seed, trainable)


def step(model, number=1):
    data = tf.data.Dataset.from_tensor_slices({"images": toy_images(4)}).repeat().batch(4)
    model.fit(data, steps_per_epoch=number, verbose=0, shuffle=False)


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


@pytest.fixture
def saved(tmp_path):
    """A trained model and its folder with checkpoints at 1, 2 and 3."""
    model = build()
    checkpoints = Checkpoints(model, str(tmp_path / "c"), keep=3)
    for _ in range(3):
        step(model)
        checkpoints.save()
    return model, str(tmp_path / "c")


def test_all_comes_back(saved):
    model, folder = saved
    other = build(seed=5)
    assert Checkpoints(other, folder).restore_last() == 3
    assert same(weights_of(other), weights_of(model))
    assert int(other.step) == 3


def test_the_last_ones_are_kept(saved):
    model, folder = saved
    checkpoints = Checkpoints(model, folder, keep=2)
    step(model)
    checkpoints.save()
    names = {n.split(".")[0] for n in os.listdir(folder)}
    assert names == {"ckpt-3", "ckpt-4", "checkpoint"}


def test_a_damaged_last_one_is_passed_over_with_a_warning(saved, caplog):
    model, folder = saved
    path = f"{folder}/ckpt-3.data-00000-of-00001"
    with open(path, "r+b") as f:
        f.seek(100)
        f.write(b"\xff\xff\xff\xff")
    other = build(seed=5)
    assert Checkpoints(other, folder).restore_last() == 2
    assert "ckpt-3" in caplog.text and "going back" in caplog.text
    with open(f"{folder}/ckpt-2.index", "r+b") as f:
        f.truncate(20)
    assert Checkpoints(other, folder).restore_last() == 1


def test_if_all_are_damaged_it_is_an_error(saved):
    model, folder = saved
    for i in (1, 2, 3):
        os.truncate(f"{folder}/ckpt-{i}.data-00000-of-00001", 50)
    with pytest.raises(DamagedCheckpoint, match="ckpt-1"):
        Checkpoints(build(), folder).restore_last()


def test_no_checkpoint(tmp_path):
    assert Checkpoints(build(), str(tmp_path)).restore_last() is None
    with pytest.raises(UserError, match="expected a checkpoint, found none"):
        lib.last_checkpoint(str(tmp_path))


def test_a_checkpoint_of_another_model_says_what_differs(saved, monkeypatch):
    model, folder = saved
    grey = build(channels=1)
    before = weights_of(grey)
    with pytest.raises(UserError, match=r"of this Toy.*another shape.*expected \[.*received \[") as e:
        restore(grey, f"{folder}/ckpt-3")
    assert "\n" not in str(e.value) and not isinstance(e.value, DamagedCheckpoint)
    assert same(before, weights_of(grey))
    plain = tf.train.Checkpoint(weights={"x": tf.Variable(1.0)}).write(f"{folder}/other")
    with pytest.raises(UserError, match=r"without 6 of its 6 arrays .*with 1 that it does not have \(weights/x\)"):
        restore(build(), plain, optimizers=False)


def test_nothing_there(tmp_path):
    with pytest.raises(DamagedCheckpoint, match="nothing-1: expected a checkpoint, cannot read it"):
        restore(build(), str(tmp_path / "nothing-1"))


def test_weights_alone_serve_to_generate_but_not_to_continue(tmp_path, saved):
    model, folder = saved
    run = RunFolder.create(str(tmp_path / "run"), "toy", model.hparams, model.spec, dataset="toy")
    path = run.save_weights(model)
    loaded = RunFolder.open(run.path).load_model()
    assert all(np.array_equal(a.numpy(), b.numpy()) for a, b in zip(loaded.weights, model.weights))
    assert int(loaded.step) == 3
    with pytest.raises(UserError, match="weights alone, with which training cannot be continued"):
        restore(build(), path)


def test_a_checkpoint_with_moments_serves_a_model_without(tmp_path, saved):
    model, folder = saved
    run = RunFolder.create(str(tmp_path), "toy", model.hparams, model.spec)
    os.rename(folder, run.checkpoints)
    loaded = run.load_model()
    assert loaded.optimizers_by_name["generator"].m == []
    assert int(run.load_model(step=2).step) == 2
    with pytest.raises(UserError, match=r"expected a checkpoint of step 7, found those of \[1, 2, 3\]"):
        run.load_model(step=7)


def test_remains_of_a_killed_write_are_removed_and_good_ones_stay(saved):
    model, folder = saved
    os.makedirs(f"{folder}/ckpt-4_temp")
    open(f"{folder}/ckpt-4_temp/part-00000-of-00001.data-00000-of-00001", "w").close()
    open(f"{folder}/ckpt-4.data-00000-of-00001.tempstate123", "w").close()
    checkpoints = Checkpoints(model, folder)
    checkpoints.clean()
    assert {n.split(".")[0] for n in os.listdir(folder)} == {"ckpt-1", "ckpt-2", "ckpt-3", "checkpoint"}


def test_a_full_disk_is_one_line_and_leaves_the_good_ones(saved, monkeypatch):
    model, folder = saved
    checkpoints = Checkpoints(model, folder)
    step(model)

    def full(*args, **kwargs):
        open(f"{folder}/ckpt-4.data-00000-of-00001", "w").close()
        raise tf.errors.ResourceExhaustedError(None, None, f"{folder}/ckpt-4_temp: No space left on device")

    monkeypatch.setattr(checkpoints._manager, "save", full)
    with pytest.raises(UserError, match="cannot write the checkpoint of step 4: .*No space left.*last good.*ckpt-3"):
        checkpoints.save()
    assert not [n for n in os.listdir(folder) if n.startswith("ckpt-4")]
    assert Checkpoints(build(), folder).restore_last() == 3


def test_weights_that_are_not_finite_are_never_saved(saved):
    model, folder = saved
    model.weights[0].assign(model.weights[0] * float("nan"))
    step_before = Checkpoints(model, folder).last
    with pytest.raises(UserError, match=r"step 3: expected finite weights.*conv2d/kernel.*ckpt-3"):
        Checkpoints(model, folder).save()
    assert Checkpoints(model, folder).last == step_before


def test_weights_path_takes_a_run_or_a_file(tmp_path, saved):
    model, folder = saved
    run = RunFolder.create(str(tmp_path), "toy", model.hparams, model.spec)
    assert weights_path(f"{folder}/ckpt-2.index") == weights_path(f"{folder}/ckpt-2") == f"{folder}/ckpt-2"
    os.rename(folder, run.checkpoints)
    assert weights_path(run.path) == f"{run.checkpoints}/ckpt-3"
    with pytest.raises(UserError, match="--checkpoint: expected a run folder or a checkpoint"):
        weights_path(str(tmp_path / "x"))


def test_run_folder_says_what_is_wrong(tmp_path):
    with pytest.raises(UserError, match="expected a run folder"):
        RunFolder.open(str(tmp_path))
    run = RunFolder.create(str(tmp_path), "toy", toy_hparams(), toy_spec(), seed=3, dataset="toy")
    again = RunFolder.open(str(tmp_path))
    assert again.hparams == run.hparams and again.spec == toy_spec() and again.info == run.info
    (tmp_path / "run.json").write_text('{"model": "toy"}')
    with pytest.raises(UserError, match="missing seed, spec"):
        RunFolder.open(str(tmp_path))
    (tmp_path / "run.json").write_text('{"model": "toy", "seed": 1, "sp')
    with pytest.raises(UserError, match="run.json: expected JSON"):
        RunFolder.open(str(tmp_path))


def test_a_model_without_optimisers_goes_on(tmp_path):
    hparams = models.model_class("repeat").HPARAMS(context_frames=2, sequence_length=4)
    model, again = (models.build("repeat", hparams, toy_spec()) for _ in range(2))
    model.step.assign(5)
    Checkpoints(model, str(tmp_path)).save()
    assert Checkpoints(again, str(tmp_path)).restore_last() == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": ["toy"]}, "model: expected a string. Received: ['toy']"),
        ({"seed": "x"}, "seed: expected an integer. Received: 'x'"),
        ({"spec": [1]}, "spec: expected an object. Received: [1]"),
        ({"spec": {"images": {"shape": "x", "dtype": "uint8"}}}, "spec: expected a shape and a dtype for each key"),
        ({"spec": {"images": {"shape": [8, 8, 3], "dtype": "uint8"}}}, "spec: expected images [T, H, W, C]"),
        ({"input_dir": 3}, "input_dir: expected a string. Received: 3"),
        ({"labels": 3}, "labels: expected an object. Received: 3"),
    ],
)
def test_an_edited_run_file_is_named(tmp_path, change, message):
    run = RunFolder.create(str(tmp_path), "toy", toy_hparams(), toy_spec(), dataset="toy")
    (tmp_path / "run.json").write_text(json.dumps({**run.info, **change}))
    with pytest.raises(UserError, match=re.escape(f"{tmp_path}/run.json: {message}")):
        RunFolder.open(str(tmp_path))


def test_differences_between_runs(tmp_path):
    mine = RunFolder.planned("a", "toy", toy_hparams(), toy_spec(), 0, dataset="d")
    other = RunFolder.planned("a", "toy", toy_hparams(lr=1.0, max_steps=99), toy_spec(1), 1, dataset="d")
    text = mine.differences(other, changeable=("max_steps",))
    assert "seed: 0 in the run, 1 now" in text and "lr: 0.01 in the run, 1.0 now" in text and "spec" in text
    assert "max_steps" not in text
    assert mine.differences(mine) == ""
