"""Workers as one training: what keeps them from starting is one line, and nothing is written."""

import json
import os
import threading

import pytest

from tests.toy_model import write_toy_dataset
from tests.training.test_cluster import free_ports
from tfvid.errors import UserError
from tfvid.training import loop
from tfvid.training.cluster import Cluster
from tfvid.training.options import TrainOptions


def tf_config(addresses, index):
    return json.dumps({"cluster": {"worker": list(addresses)}, "task": {"type": "worker", "index": index}})


@pytest.fixture
def addresses():
    return tuple(f"127.0.0.1:{p}" for p in free_ports(2))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{'cluster': 1}", "TF_CONFIG: expected JSON, received {'cluster': 1}"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}', "TF_CONFIG: task: .*index=1"),
    ],
)
def test_a_wrong_tf_config_is_one_line(tmp_path, train_toy, monkeypatch, text, message):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UserError, match=message) as e:
        train_toy(tmp_path / "run")
    assert "\n" not in str(e.value) and not (tmp_path / "run").exists()


def test_a_worker_that_never_comes_is_named(tmp_path, train_toy, monkeypatch, addresses):
    monkeypatch.setenv("TF_CONFIG", tf_config(addresses, 0))
    with pytest.raises(UserError, match=f"expected 2 workers within 1 s, missing worker 1 .{addresses[1]}."):
        train_toy(tmp_path / "run", worker_timeout=1.0)
    assert not (tmp_path / "run" / "run.json").exists()


def facts(toy_data, run, **options):
    """What a worker with these options would tell the chief."""
    values = {"model": "toy", "dataset": "toy", "input_dir": toy_data, "output_dir": run, "max_steps": 6}
    setting = loop.prepare(TrainOptions(**{**values, "hparams_override": "batch_size=4", **options}))
    return loop._facts(setting, setting.source.files("train"))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"input_dir": "more"}, "other data than worker 0: bytes .* instead of "),
        ({"hparams_override": "batch_size=4,lr=0.5"}, "other hyper-parameters than worker 0: lr 0.5 instead of 0.01"),
        ({"seed": 3}, "other settings than worker 0: seed 3 instead of 0"),
    ],
)
def test_a_worker_that_was_started_otherwise_is_named_to_both(
    tmp_path, toy_data, train_toy, monkeypatch, addresses, other, message
):
    if other.get("input_dir"):
        other = {"input_dir": str(tmp_path / "more")}
        write_toy_dataset(other["input_dir"], train=28)
    run, heard = str(tmp_path / "run"), []
    theirs = facts(toy_data, run, **other)

    def second():
        try:
            Cluster(addresses, 1).meet(theirs, 60.0)
        except UserError as e:
            heard.append(str(e))

    worker = threading.Thread(target=second)
    worker.start()
    monkeypatch.setenv("TF_CONFIG", tf_config(addresses, 0))
    with pytest.raises(UserError, match=rf"worker 1 \({addresses[1]}\) was started with {message}") as e:
        train_toy(run, worker_timeout=60.0)
    worker.join()
    assert heard == [str(e.value)] and "\n" not in heard[0]
    assert not os.path.exists(os.path.join(run, "run.json"))
