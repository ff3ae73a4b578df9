"""Two workers of each method on the loopback address: as one process with two devices, and through kill -9."""

import os
import pathlib
import signal
import subprocess
import sys

import numpy as np
import pytest

from tests.test_train_command import cluster, contents, finish, wait_for_checkpoint
from tfvid import models
from tfvid.data.prepare import prepare
from tfvid.data.source import open_source
from tfvid.training.run_folder import RunFolder

ROOT = pathlib.Path(__file__).parents[2]
STEPS, SAVE_FREQ = 12, 2
# Gradients that are zero but for rounding (biases before an instance norm, biases of attention's keys) become weights
# as large as any in Adam's hands: in float32 those of SAVP differ by 4e-3 after 12 steps, those of CAGE by 2e-5.
PRECISION = "float64"
CLIPS = {"train_clips": 12, "val_clips": 2, "test_clips": 1}

# Model -> (data set, its options, hyper-parameters on top of hparams/demo/<model>.json).
METHODS = {
    "savp": (
        "demo", {**CLIPS, "size": 32, "clip_length": 6},
        "sequence_length=6,long_sequence_length=6,clip_length=4,ngf=4,nef=4,ndf=4,nz=2",
    ),
    "caddy": (
        "demo", {**CLIPS, "size": 32, "clip_length": 8},
        "sequence_length=4,long_sequence_length=6,time_shift=0,observations_count_start=3,state_features=4,"
        "hidden_state_size=8,pretraining_steps=3",
    ),
    "actvae": ("demo_figures", {**CLIPS, "size": 64}, "decoder_units=8,latent_dim=4"),
    # Here float64 is not enough: such weights differ by 6e-5 after two steps of lr=0.001, and the frames that are fed
    # back then drive the runs apart. At this rate the weights show the direction of the updates, the moments the
    # gradients.
    "ag2vid": (
        "demo_scenes", {**CLIPS, "size": 32, "clip_length": 16},
        "embedding_dim=8,gconv_dim=8,gconv_hidden_dim=8,lr=0.000001",
    ),
    "cage": (
        "demo", {**CLIPS, "size": 32, "clip_length": 8},
        "vit_shape=[16,1,1,4,8],inner_dim=16,num_heads=2,fc_dim=16,depth=2,mid_depth=1,sequence_length=6,"
        "long_sequence_length=6",
    ),
}  # fmt: skip


@pytest.fixture(scope="module", params=METHODS)
def started(request, tmp_path_factory):
    """Function (run folder, environment, arguments) -> a process that trains one method on tiny data."""
    model = request.param
    dataset, options, overrides = METHODS[model]
    folder = tmp_path_factory.mktemp(model)
    data = str(folder / "data")
    prepare(dataset, None, data, options, processes=0, progress=False)
    arguments = [
        f"--model={model}", f"--hparams=hparams/demo/{model}.json", f"--dataset={dataset}", f"--input_dir={data}",
        f"--hparams_override=batch_size=4,precision={PRECISION},{overrides}",
        f"--max_steps={STEPS}", f"--save_freq={SAVE_FREQ}", "--image_summary_freq=0", "--validation_freq=0", "--keep=100",
    ]  # fmt: skip
    if model == "cage":
        arguments.append(f"--autoencoder_checkpoint={_autoencoder(folder, dataset, data)}")

    def start(run, *more, tf_config=None):
        env = {k: v for k, v in os.environ.items() if k not in ("TF_CONFIG", "TF_CPP_MIN_LOG_LEVEL")}
        env |= {"PYTHONPATH": str(ROOT)} | ({"TF_CONFIG": tf_config} if tf_config else {})
        command = [sys.executable, "scripts/train.py", *arguments, f"--output_dir={run}", *more]
        return subprocess.Popen(
            command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )  # fmt: skip

    return start


def _autoencoder(folder, dataset, data):
    """Run folder of a cage_autoencoder with its first weights."""
    source = open_source(dataset, data)
    hparams = models.model_class("cage_autoencoder").HPARAMS.load(str(ROOT / "hparams/demo/cage_autoencoder.json"))
    hparams = hparams.replace(sequence_length=6, long_sequence_length=6)
    hparams = hparams.with_dataset_defaults(source.defaults())
    run = RunFolder.create(
        str(folder / "autoencoder"), "cage_autoencoder", hparams, source.spec(hparams), dataset=dataset
    )
    run.save_weights(run.build_model())
    return run.path


def _workers(started, run):
    return [started(run, tf_config=config) for config in cluster(2)]


def _finish_all(processes):
    results = [finish(p) for p in processes]
    assert [r[0] for r in results] == [0] * len(results), results[0][2][-2000:] + results[-1][2][-2000:]
    return results


@pytest.fixture(scope="module")
def whole(started, tmp_path_factory):
    """Weights, moments and step of two workers that nothing interrupted, and what they printed."""
    run = tmp_path_factory.mktemp("whole")
    results = _finish_all(_workers(started, run))
    return contents(run), results


@pytest.mark.slow
def test_two_workers_give_the_weights_of_one_process_with_their_batch(started, whole, tmp_path):
    """Replica i draws the same noise, whether it is another device or another machine."""
    (result,) = _finish_all([started(tmp_path / "one", "--cpu_devices=2")])
    weights, (chief, other) = whole
    assert "on 2 devices of 2 workers" in chief[1] and other[1] == "" and "on 2 devices\n" in result[1]
    one = contents(tmp_path / "one")
    assert one.keys() == weights.keys()
    for name in one:
        np.testing.assert_allclose(weights[name], one[name], rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.slow
def test_a_worker_killed_and_all_started_again_end_at_the_same_weights(started, whole, tmp_path):
    run = tmp_path / "cut"
    workers = _workers(started, run)
    try:
        wait_for_checkpoint(run, workers, timeout=600)
        workers[1].kill()
        status, _, error = finish(workers[0])
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    assert workers[1].returncode == -signal.SIGKILL and status != 0
    assert error.count("\n") == 1 and "another worker was lost" in error
    results = _finish_all(_workers(started, run))
    assert "goes on from step" in results[0][1]
    again = contents(run)
    for name, value in whole[0].items():
        np.testing.assert_array_equal(again[name], value, err_msg=name)
