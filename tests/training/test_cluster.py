"""TF_CONFIG: every mistake is one line; workers find each other or say who is missing."""

import json
import socket
import threading
import time

import pytest

from tfvid.errors import UserError
from tfvid.training import strategy
from tfvid.training.cluster import Cluster, difference


def config(workers=("a:1", "b:2"), kind="worker", index=0, **jobs):
    return json.dumps({"cluster": {"worker": list(workers), **jobs}, "task": {"type": kind, "index": index}})


def test_no_tf_config_is_no_cluster(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert Cluster.from_environment() is None
    assert Cluster.from_environment("  ") is None


def test_workers_are_counted_from_the_chief():
    assert Cluster.from_environment(config(index=1)) == Cluster(("a:1", "b:2"), 1)
    with_chief = Cluster.from_environment(config(chief=["c:3"], kind="worker", index=0))
    assert with_chief == Cluster(("c:3", "a:1", "b:2"), 1) and not with_chief.chief
    assert Cluster.from_environment(config(chief=["c:3"], kind="chief")).chief


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "expected JSON"),
        ("[" * 100000, "expected JSON"),
        ("[]", "cluster: expected an object"),
        ("{}", "cluster: expected an object"),
        ('{"cluster": {"worker": ["a:1"]}}', "task: expected an object"),
        (config(workers=["a"]), "worker: expected a list of host:port"),
        (config(workers=["a:99999"]), "host:port"),
        (json.dumps({"cluster": {"worker": "a:1"}, "task": {"type": "worker", "index": 0}}), "host:port"),
        (config(workers=[]), "at least one worker"),
        (config(workers=["a:1", "a:1"]), "each address once.*a:1"),
        (config(index=2), "0 to 1. Received: index=2"),
        (config(index=-1), "index=-1"),
        (config(index="0"), "index: expected an integer"),
        (config(index=True), "index: expected an integer"),
        (config(kind="ps"), "type='ps'"),
        (config(kind="chief"), "type='chief'"),
        (config(ps=["p:1"]), "jobs chief and worker. Received: ps"),
        (config(chief=["c:1", "d:1"]), "at most one chief"),
    ],
)
def test_mistakes(text, message):
    with pytest.raises(UserError, match="TF_CONFIG: .*" + message) as e:
        Cluster.from_environment(text)
    assert "\n" not in str(e.value) and len(str(e.value)) < 400


def free_ports(number):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def meet(facts, timeout=20.0, present=None, delay=0.0):
    """What each worker's `meet` raised (None: nothing), for workers with these facts."""
    addresses = tuple(f"127.0.0.1:{p}" for p in free_ports(len(facts)))
    outcomes = {}

    def worker(i):
        try:
            if i == 0:
                time.sleep(delay)
            Cluster(addresses, i).meet(facts[i], timeout)
            outcomes[i] = None
        except UserError as e:
            outcomes[i] = str(e)

    threads = [threading.Thread(target=worker, args=(i,)) for i in (range(len(facts)) if present is None else present)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return outcomes, addresses


def test_workers_meet_also_when_the_chief_comes_last():
    facts = {"hyper-parameters": {"lr": 0.1}}
    assert meet([facts] * 3, delay=1.0)[0] == {0: None, 1: None, 2: None}


def test_a_single_worker_waits_for_nobody():
    Cluster(("127.0.0.1:1",), 0).meet({}, 0.0)


def test_different_settings_are_named_on_every_worker():
    facts = [{"hyper-parameters": {"lr": 0.1, "nz": 8}}, {"hyper-parameters": {"lr": 0.2, "nz": 8}}]
    outcomes, addresses = meet(facts)
    for i in (0, 1):
        assert outcomes[i] == (
            f"TF_CONFIG: worker 1 ({addresses[1]}) was started with other hyper-parameters than worker 0:"
            " lr 0.2 instead of 0.1"
        )


def test_a_missing_worker_is_named_to_all_that_came():
    outcomes, addresses = meet([{}] * 3, timeout=2.0, present=(0, 1))
    assert (
        outcomes[0] == outcomes[1] == (f"TF_CONFIG: expected 3 workers within 2 s, missing worker 2 ({addresses[2]})")
    )


def test_a_missing_chief_is_named():
    outcomes, addresses = meet([{}] * 2, timeout=1.0, present=(1,))
    assert outcomes[1] == (
        f"TF_CONFIG: worker 1: expected an answer of worker 0 ({addresses[0]}) within 1 s, received none"
    )


def test_strangers_at_the_door_do_no_harm():
    ports = free_ports(2)
    addresses = tuple(f"127.0.0.1:{p}" for p in ports)
    outcome = []
    chief = threading.Thread(target=lambda: outcome.append(Cluster(addresses, 0).meet({}, 20.0)))
    chief.start()
    for line in (b"GET / HTTP/1.0\r\n\r\n", b'{"index": 7}\n', b"\xff\xfe\n", b"[]\n"):
        for _ in range(50):
            try:
                with socket.create_connection(("127.0.0.1", ports[0])) as s:
                    s.sendall(line)
                break
            except OSError:
                time.sleep(0.05)
    Cluster(addresses, 1).meet({}, 20.0)
    chief.join()
    assert outcome == [None]


def test_a_port_that_is_taken():
    with socket.create_server(("", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(UserError, match="TF_CONFIG: worker 0: cannot listen on port"):
            Cluster((address, "127.0.0.1:1"), 0).meet({}, 1.0)


def test_difference_in_words():
    assert difference({"a": 1, "b": [1]}, {"a": 2, "b": [1]}) == "a 2 instead of 1"
    assert difference("savp", "dna") == "'dna' instead of 'savp'"
    many = {str(i): i for i in range(9)}
    assert difference(many, {}).endswith("and 5 more")


def test_strategy_names_and_batch_sizes(monkeypatch):
    cluster = Cluster(("a:1", "b:2"), 0)
    assert strategy.resolve("auto", cluster) == "multi_worker"
    assert strategy.resolve("auto", None) == "one"
    assert strategy.resolve("auto", None, cpu_devices=2) == "mirrored"
    with pytest.raises(UserError, match="--strategy=one: expected multi_worker"):
        strategy.resolve("one", cluster)
    with pytest.raises(UserError, match="--strategy=multi_worker: expected TF_CONFIG"):
        strategy.resolve("multi_worker", None)
    with pytest.raises(UserError, match="--strategy: expected one of"):
        strategy.resolve("tpu", None)
    assert strategy.local_devices("mirrored", 2) == ["CPU:0", "CPU:1"]
    assert strategy.local_devices("multi_worker", 2) == ["CPU:0"]
    strategy.check_batch_size(8, 2, 2)
    with pytest.raises(UserError, match=r"multiple of the 4 devices \(2 workers with 2\). Received: batch_size=6"):
        strategy.check_batch_size(6, 2, 2)
