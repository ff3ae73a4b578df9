"""Training in this process: what a run leaves, how it goes on, how it ends."""

import json
import os
import signal

import numpy as np
import pytest
import tensorflow as tf

from tests.toy_model import Toy, toy_hparams, toy_images, weights_of
from tests.training.test_logs import events
from tfvid.data import folder_lock
from tfvid.errors import UserError
from tfvid.training import callbacks as callbacks_lib
from tfvid.training.checkpoints import Checkpoints
from tfvid.training.run_folder import RunFolder


def contents(path):
    """All arrays of the last checkpoint."""
    run = RunFolder.open(str(path))
    model = run.build_model()
    assert Checkpoints(model, run.checkpoints).restore_last() is not None
    return weights_of(model)


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


def steps_of(path, kind):
    return [step for step, tag in events(os.path.join(path, kind))[0] if tag == "mse"]


def test_a_run_leaves_what_the_readme_says(tmp_path, train_toy):
    result, text = train_toy(tmp_path, image_summary_freq=3)
    assert (result.step, result.received, result.exit_status) == (6, None, 0)
    names = {"hparams.json", "run.json", "checkpoints", "train", "val", "metrics.csv", "samples", ".lock"}
    assert {p.name for p in tmp_path.iterdir()} == names
    hparams = json.loads((tmp_path / "hparams.json").read_text())
    assert hparams["dataset"] == "toy" and hparams["context_frames"] == 2 and hparams["max_steps"] == 6
    run = json.loads((tmp_path / "run.json").read_text())
    assert run["model"] == "toy" and run["training_clips"] == 24
    rows = (tmp_path / "metrics.csv").read_text().splitlines()
    assert rows[0] == "step,mse" and [r.split(",")[0] for r in rows[1:]] == ["2", "4", "6"]
    gifs = sorted(p.name for p in (tmp_path / "samples").iterdir())
    assert gifs == [f"{s:08d}_clip_{c}.gif" for s in (3, 6) for c in (0, 1)]
    assert steps_of(tmp_path, "train") == [1, 2, 3, 4, 5, 6] and steps_of(tmp_path, "val") == [2, 4, 6]
    tags = {tag for _, tag in events(tmp_path / "val")[0]}
    assert "over_time/psnr" in tags and "samples/psnr_best" in tags and "samples/psnr_repeat_last_frame" in tags
    assert "samples/clip_0/truth_prediction_error_of_best_average_worst" in tags
    assert "toy: " in text and "tensorboard --logdir" in text and "6/6" in text and "finished at step 6" in text


def test_going_on_gives_the_bits_of_an_uninterrupted_run(tmp_path, train_toy):
    train_toy(tmp_path / "whole")
    train_toy(tmp_path / "parts", max_steps=3)
    assert steps_of(tmp_path / "parts", "train") == [1, 2, 3]
    result, text = train_toy(tmp_path / "parts")
    assert "goes on from step 3" in text and result.step == 6
    assert same(contents(tmp_path / "whole"), contents(tmp_path / "parts"))
    assert steps_of(tmp_path / "parts", "train") == [1, 2, 3, 4, 5, 6]
    # A validation at 3, where the first part ended, and the others as in the whole run.
    rows = lambda p: (tmp_path / p / "metrics.csv").read_text().splitlines()  # noqa: E731
    assert [r for r in rows("parts") if not r.startswith("3,")] == rows("whole")


def test_a_new_run_shows_the_model_clips_of_its_data(tmp_path, train_toy, monkeypatch):
    seen, original = [], Toy.see_training_clips

    def see(model, clips):
        original(model, clips)
        seen.append((float(tf.reduce_mean(model.generator.layers[0].kernel)), np.concatenate(model.seen)))

    monkeypatch.setattr(Toy, "see_training_clips", see)
    train_toy(tmp_path / "a", max_steps=2)
    train_toy(tmp_path / "a", max_steps=4)  # goes on
    assert len(seen) == 1
    _, clips = seen[0]
    train = toy_images(24, seed=1)
    places = [int(np.flatnonzero((train == clip).all((1, 2, 3, 4)))[0]) for clip in clips]
    assert len(set(places)) == 5 and max(places) > 5  # of all the data, not its beginning
    # Weights of another run are there before.
    train_toy(tmp_path / "b", checkpoint=str(tmp_path / "a"), max_steps=2)
    kernel = contents(tmp_path / "a")
    assert seen[1][0] == pytest.approx(next(v.mean() for k, v in kernel.items() if v.ndim == 4 and "/m/" not in k))
    np.testing.assert_array_equal(seen[1][1], clips)


def test_the_seed_matters(tmp_path, train_toy):
    train_toy(tmp_path / "a")
    train_toy(tmp_path / "b", seed=1)
    assert not same(contents(tmp_path / "a"), contents(tmp_path / "b"))


def test_going_on_after_a_kill_has_nothing_twice(tmp_path, train_toy):
    """As after kill -9 at step 5: logs say more than the last checkpoint, at step 4, knows."""
    options = {"image_summary_freq": 4, "sample_clips": 1, "num_samples": 1}
    train_toy(tmp_path / "whole", **options)
    train_toy(tmp_path / "cut", max_steps=5, **options)
    folder = tmp_path / "cut" / "checkpoints"
    for name in os.listdir(folder):
        if name.startswith("ckpt-5"):
            os.remove(folder / name)
    os.remove(folder / "checkpoint")  # TensorFlow's list of them is not needed
    _, text = train_toy(tmp_path / "cut", **options)
    assert "goes on from step 4" in text, text
    assert same(contents(tmp_path / "whole"), contents(tmp_path / "cut"))
    assert (tmp_path / "cut" / "metrics.csv").read_text() == (tmp_path / "whole" / "metrics.csv").read_text()
    for kind in ("train", "val"):
        assert steps_of(tmp_path / "cut", kind) == steps_of(tmp_path / "whole", kind)
    samples = lambda p: {f.name: f.read_bytes() for f in (tmp_path / p / "samples").iterdir()}  # noqa: E731
    assert samples("cut") == samples("whole")


def test_a_finished_run_says_so(tmp_path, train_toy):
    train_toy(tmp_path)
    before = contents(tmp_path)
    result, text = train_toy(tmp_path)
    assert "this run is finished: step 6 of max_steps=6" in text and result.exit_status == 0
    assert same(before, contents(tmp_path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"overrides": "lr=0.5"}, "lr: 0.01 in the run, 0.5 now"),
        ({"seed": 3}, "seed: 0 in the run, 3 now"),
    ],
)
def test_a_run_of_other_settings_is_left_alone(tmp_path, train_toy, options, message):
    train_toy(tmp_path, max_steps=1)
    before = {p.name: p.stat().st_mtime for p in tmp_path.iterdir()}
    with pytest.raises(UserError, match=message):
        train_toy(tmp_path, **options)
    assert before == {p.name: p.stat().st_mtime for p in tmp_path.iterdir()}


def test_a_run_that_a_mistake_ended_before_its_first_step_may_have_other_settings(tmp_path, train_toy, monkeypatch):
    def refuse(model):
        raise UserError("expected another lr")

    with monkeypatch.context() as m:
        m.setattr(Toy, "begin_training", refuse)
        with pytest.raises(UserError, match="expected another lr"):
            train_toy(tmp_path, "lr=0.5")
    with folder_lock.held(tmp_path), pytest.raises(UserError, match="no other process writes now"):
        train_toy(tmp_path, max_steps=2)
    train_toy(tmp_path, max_steps=2)
    assert json.loads((tmp_path / "hparams.json").read_text())["lr"] == 0.01
    with pytest.raises(UserError, match="expected the settings that the run in it was started with; lr: 0.01"):
        train_toy(tmp_path, "lr=0.5", max_steps=2)


def test_a_folder_of_something_else_is_left_alone(tmp_path, train_toy):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(UserError, match="expected a run folder or an empty one.*thesis.tex"):
        train_toy(tmp_path)


def test_starting_from_the_weights_of_another_run(tmp_path, train_toy):
    train_toy(tmp_path / "a")
    train_toy(tmp_path / "b", max_steps=0 + 1, overrides="lr=0.0", checkpoint=str(tmp_path / "a"))
    a, b = contents(tmp_path / "a"), contents(tmp_path / "b")
    assert all(np.array_equal(a[k], b[k]) for k in a if not k.startswith(("generator", "critic")))
    assert b["generator/counts"][0] == 1
    with pytest.raises(UserError, match="checkpoint: "):
        train_toy(tmp_path / "b", overrides="lr=0.0")
    with pytest.raises(UserError, match="--checkpoint: expected a run folder"):
        train_toy(tmp_path / "c", checkpoint=str(tmp_path / "nothing"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_after_the_step_and_the_run_goes_on_exactly(tmp_path, train_toy, monkeypatch, number):
    train_toy(tmp_path / "whole")
    inner = callbacks_lib.StepLogs.on_train_batch_end

    def send(self, batch, logs=None):
        inner(self, batch, logs)
        if self.model.host_step == 3:
            os.kill(os.getpid(), number)

    handler = signal.getsignal(number)
    monkeypatch.setattr(callbacks_lib.StepLogs, "on_train_batch_end", send)
    result, text = train_toy(tmp_path / "cut", save_freq=100)
    monkeypatch.undo()
    monkeypatch.setitem(__import__("tfvid.models").models.MODELS, "toy", "tests.toy_model:Toy")
    assert (result.step, result.exit_status) == (3, 128 + number)
    assert f"{signal.Signals(number).name}: saved step 3" in text
    assert signal.getsignal(number) == handler
    train_toy(tmp_path / "cut")
    assert same(contents(tmp_path / "whole"), contents(tmp_path / "cut"))


def test_nan_is_skipped_counted_and_ends_the_run_with_the_last_good_checkpoint(tmp_path, train_toy, caplog):
    with pytest.raises(UserError) as e:
        train_toy(tmp_path, "nan_from=2,max_skipped_updates=3", max_steps=20, save_freq=2)
    message = str(e.value)
    assert message.startswith("step 3: expected finite losses, received mse=")
    assert "3 updates in a row" in message and "up to step 5" in message and "\n" not in message
    assert "ckpt-4" in message
    assert caplog.text.count("the update was skipped") == 1
    saved = contents(tmp_path)
    assert all(np.isfinite(v).all() for v in saved.values())
    np.testing.assert_array_equal(saved["generator/counts"], 2)  # steps 3 and 4 changed nothing
    np.testing.assert_array_equal(saved["critic/counts"], 4)


def test_a_few_bad_steps_do_no_harm(tmp_path, train_toy):
    result, _ = train_toy(tmp_path, "nan_from=1,nan_until=3,max_skipped_updates=3")
    assert result.step == 6
    np.testing.assert_array_equal(contents(tmp_path)["generator/counts"], 4)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "float64"])
def test_precision(tmp_path, train_toy, precision):
    train_toy(tmp_path, f"precision={precision}", image_summary_freq=6)
    dtype = "float64" if precision == "float64" else "float32"
    assert contents(tmp_path)["sequential/conv2d/kernel"].dtype == dtype


def test_ram_folders(train_toy):
    result, _ = train_toy("ram://training/run", image_summary_freq=6)
    assert result.step == 6
    assert "finished" in train_toy("ram://training/run")[1]
    assert tf.io.gfile.exists("ram://training/run/metrics.csv")


def test_without_validation_data(tmp_path, toy_data, train_toy):
    import shutil

    shutil.copytree(toy_data, tmp_path / "data")
    shutil.rmtree(tmp_path / "data" / "val")
    train_toy(tmp_path / "run", input_dir=str(tmp_path / "data"), image_summary_freq=2)
    assert not (tmp_path / "run" / "metrics.csv").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"overrides": "lrr=1"}, "unknown hyper-parameter 'lrr'; did you mean 'lr'"),
        ({"overrides": "lr=fast"}, "lr: expected number"),
        ({"overrides": "context_frames=7"}, "context_frames"),
        ({"overrides": "batch_size=4,batch_size=8"}, "once"),
        ({"model": "tooy"}, "--model: expected one of"),
        ({"hparams": "nothing.json"}, "nothing.json: expected a JSON file, found none"),
        (
            {"input_dir": "no/such/folder"},
            "no/such/folder: expected the toy data set, found no such folder.*or run the demo",
        ),
        ({"dataset": None}, "--dataset: expected the name of a data set"),
        ({"strategy": "tpu"}, "--strategy: expected one of auto"),
        ({"strategy": "multi_worker"}, "expected TF_CONFIG"),
        ({"save_freq": 0}, "--save_freq: expected a value >= 1"),
        ({"max_steps": -1}, "--max_steps"),
        ({"seed": 2**63}, "--seed"),
        ({"profile": "5,2"}, "--profile: expected first,last"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, train_toy, options, message):
    with pytest.raises(UserError, match=message) as e:
        train_toy(tmp_path / "run", **options)
    assert "\n" not in str(e.value)
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_second_process_leaves_the_run_alone(tmp_path, train_toy):
    train_toy(tmp_path, max_steps=2)
    with folder_lock.held(str(tmp_path)):
        with pytest.raises(UserError, match="--output_dir: expected a folder that no other process writes now"):
            train_toy(tmp_path, max_steps=4)
    assert train_toy(tmp_path, max_steps=4)[0].step == 4


def test_a_write_that_was_cut_off_does_not_make_a_folder_strange(tmp_path, train_toy):
    (tmp_path / ".tmp-12345678-run.json.part").write_text("{")
    assert train_toy(tmp_path, max_steps=1)[0].step == 1


def test_a_damaged_table_is_named(tmp_path, train_toy):
    train_toy(tmp_path, max_steps=2, validation_freq=1)
    (tmp_path / "metrics.csv").write_text("step;mse\n1;0,5\n")
    with pytest.raises(UserError, match="metrics.csv: expected a row for each validation"):
        train_toy(tmp_path, max_steps=4, validation_freq=1)


def test_empty_data_and_clips_that_are_too_short(tmp_path, train_toy):
    os.makedirs(tmp_path / "data" / "train")
    with pytest.raises(UserError, match="toy"):
        train_toy(tmp_path / "run", input_dir=str(tmp_path / "data"))
    with pytest.raises(UserError, match="sequence_length|clips of at least"):
        train_toy(tmp_path / "run2", "sequence_length=50")


def test_read_only_output(tmp_path, train_toy):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--output_dir: expected a folder that can be written"):
        train_toy(tmp_path / "file" / "run")
    with pytest.raises(UserError, match="--output_dir: expected a folder that can be written"):
        train_toy("/proc/run")


def test_full_disk_before_the_start(tmp_path, train_toy, monkeypatch):
    import shutil

    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10))
    with pytest.raises(UserError, match="--output_dir: expected .* MiB of free space.*with 0 MiB"):
        train_toy(tmp_path)


def test_a_broken_record_is_named(tmp_path, toy_data, train_toy):
    import shutil

    shutil.copytree(toy_data, tmp_path / "data")
    path = next((tmp_path / "data" / "train").glob("*.tfrecord"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"train-00000-of-00001.tfrecord: record \d+") as e:
        train_toy(tmp_path / "run", input_dir=str(tmp_path / "data"), max_steps=20)
    assert "\n" not in str(e.value)
    result, text = train_toy(tmp_path / "sound", input_dir=str(tmp_path / "data"), skip_corrupt=True)
    assert result.step == 6 and "23 training clips" in text


def test_hparams_of_the_toy_have_their_defaults():
    assert toy_hparams().batch_size == 4
