"""scripts/train.py as a process: killed, terminated, misused, on several workers."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

from tests.toy_model import write_toy_dataset


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("toy"))
    write_toy_dataset(folder)
    return folder


def start(data, run, *arguments, tf_config=None):
    """The command as a process; later arguments win over the usual ones."""
    usual = [
        "--model=toy", "--dataset=toy", f"--input_dir={data}", f"--output_dir={run}",
        "--hparams_override=batch_size=4", "--image_summary_freq=0", "--validation_freq=0", "--summary_freq=50",
    ]  # fmt: skip
    env = {k: v for k, v in os.environ.items() if k not in ("TF_CONFIG", "TF_CPP_MIN_LOG_LEVEL")}
    env |= {"PYTHONPATH": os.getcwd()} | ({"TF_CONFIG": tf_config} if tf_config else {})
    command = [sys.executable, "tests/toy_train.py", *usual, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)


def finish(process, timeout=600):
    """(exit status, output, errors); on a busy machine two workers take minutes."""
    try:
        out, err = process.communicate(timeout=timeout)
    finally:
        process.kill()
    return process.returncode, out, err


def contents(run):
    """{name: array} of the last checkpoint."""
    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(f"{run}/checkpoints"))
    names = [k for k in reader.get_variable_to_shape_map() if k.startswith(("weights", "optimizers", "step"))]
    return {k: reader.get_tensor(k) for k in names}


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


def wait_for_checkpoint(run, processes, timeout=180):
    """Until a first checkpoint is complete; the training then goes on."""
    deadline = time.monotonic() + timeout
    while not tf.io.gfile.glob(f"{run}/checkpoints/ckpt-*.index"):
        assert time.monotonic() < deadline and all(p.poll() is None for p in processes)
        time.sleep(0.1)


def end_at(process, run, number):
    """Sends a signal once there is a checkpoint; returns what `finish` does."""
    try:
        wait_for_checkpoint(run, [process])
        process.send_signal(number)
        return finish(process)
    finally:
        process.kill()


def test_kill_9_and_the_same_command_give_the_weights_of_an_uninterrupted_run(tmp_path, data):
    arguments = ["--max_steps=400", "--save_freq=20", "--validation_freq=50"]
    whole = start(data, tmp_path / "whole", *arguments)
    status, _, _ = end_at(start(data, tmp_path / "cut", *arguments), tmp_path / "cut", signal.SIGKILL)
    assert status == -signal.SIGKILL
    assert finish(whole)[0] == 0
    status, out, err = finish(start(data, tmp_path / "cut", *arguments))
    assert (status, err) == (0, "")
    assert "goes on from step" in out
    assert same(contents(tmp_path / "whole"), contents(tmp_path / "cut"))
    assert (tmp_path / "whole/metrics.csv").read_text() == (tmp_path / "cut/metrics.csv").read_text()


def test_sigterm_saves_and_has_its_own_exit_status(tmp_path, data):
    process = start(data, tmp_path / "run", "--max_steps=1000000", "--save_freq=20")
    status, out, err = end_at(process, tmp_path / "run", signal.SIGTERM)
    assert (status, err) == (143, "")
    step = int(out.split("SIGTERM: saved step ")[1].split(";")[0])
    assert int(contents(tmp_path / "run")["step/.ATTRIBUTES/VARIABLE_VALUE"]) == step


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--modle=toy"], 2, "error: Unknown command line flag 'modle'. Did you mean: model"),
        (["--hparams_override=lrr=1"], 1, "error: --hparams_override: unknown hyper-parameter 'lrr'"),
        (["--input_dir=no/such/folder"], 1, "error: no/such/folder: expected the toy data set, found no such folder"),
    ],
)
def test_bad_input_is_one_line(tmp_path, data, arguments, status, message):
    got, out, err = finish(start(data, tmp_path / "run", *arguments))
    assert got == status and out == ""
    assert err.startswith(message) and err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def cluster(number):
    """TF_CONFIG of each worker, on free ports of this machine."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    workers = [f"127.0.0.1:{s.getsockname()[1]}" for s in sockets]
    for s in sockets:
        s.close()
    task = lambda i: {"type": "worker", "index": i}  # noqa: E731
    return [json.dumps({"cluster": {"worker": workers}, "task": task(i)}) for i in range(number)]


def start_workers(data, run, *arguments):
    return [start(data, run, *arguments, tf_config=c) for c in cluster(2)]


def test_workers_started_with_other_settings_say_what_differs(tmp_path, data):
    configs = cluster(2)
    processes = [
        start(data, tmp_path / "run", f"--hparams_override=batch_size=4,lr={lr}", tf_config=c)
        for lr, c in zip((0.1, 0.2), configs)
    ]
    for process in processes:
        status, _, err = finish(process)
        assert status == 1 and err.count("\n") == 1
        assert "was started with other hyper-parameters than worker 0: lr 0.2 instead of 0.1" in err
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.slow
def test_two_workers_give_the_weights_of_one_process(tmp_path, data):
    arguments = ["--max_steps=20", "--hparams_override=batch_size=4,noise=0.0", "--validation_freq=10"]
    workers = start_workers(data, tmp_path / "two", *arguments)
    assert finish(start(data, tmp_path / "one", *arguments))[0] == 0
    (status, out, _), (other_status, other_out, _) = [finish(w) for w in workers]
    assert status == other_status == 0
    assert "on 2 devices of 2 workers" in out and other_out == ""
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    assert one.keys() == two.keys()
    for name in one:
        # Sums in another order: measured 1.2e-7.
        np.testing.assert_allclose(one[name], two[name], atol=1e-6, err_msg=name)
    rows = [np.loadtxt(tmp_path / p / "metrics.csv", delimiter=",", skiprows=1) for p in ("one", "two")]
    np.testing.assert_allclose(*rows, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_worker_ends_the_others_and_all_started_again_go_on_exactly(tmp_path, data, victim):
    arguments = ["--max_steps=150", "--save_freq=20"]
    whole = start_workers(data, tmp_path / "whole", *arguments)
    assert [finish(w)[0] for w in whole] == [0, 0]
    workers = start_workers(data, tmp_path / "cut", *arguments)
    try:
        wait_for_checkpoint(tmp_path / "cut", workers)
        workers[victim].kill()
        status, _, err = finish(workers[1 - victim])
    finally:
        for w in workers:
            w.kill()
    assert status != 0 and err
    again = start_workers(data, tmp_path / "cut", *arguments)
    assert [finish(w)[0] for w in again] == [0, 0]
    assert same(contents(tmp_path / "whole"), contents(tmp_path / "cut"))


@pytest.mark.slow
def test_sigterm_to_one_worker_saves_and_ends_all(tmp_path, data):
    workers = start_workers(data, tmp_path / "run", "--max_steps=1000000", "--save_freq=20")
    try:
        wait_for_checkpoint(tmp_path / "run", workers)
        workers[1].send_signal(signal.SIGTERM)
        results = [finish(w) for w in workers]
    finally:
        for w in workers:
            w.kill()
    assert [r[0] for r in results] == [143, 143]
    assert "SIGTERM: saved step" in results[0][1] and results[1][1] == ""
