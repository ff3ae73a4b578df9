"""The examples for clusters: what they make of a scheduler's variables is what the training reads."""

import importlib.util
import json
import os
import pathlib
import stat
import subprocess
import sys

import pytest

from tfvid.training.cluster import Cluster

EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"


def _tf_config_of_pods():
    path = EXAMPLES / "kubernetes" / "tf_config.py"
    spec = importlib.util.spec_from_file_location("pod_config", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.tf_config


def test_pods_make_one_cluster():
    variables = {"WORKERS": "3", "SERVICE": "tfvid-train"}
    for index in range(3):
        text = _tf_config_of_pods()({**variables, "JOB_COMPLETION_INDEX": str(index)})
        workers = tuple(f"tfvid-train-{i}.tfvid-train:2222" for i in range(3))
        assert Cluster.from_environment(text) == Cluster(workers, index)
    with pytest.raises(ValueError, match="JOB_COMPLETION_INDEX"):
        _tf_config_of_pods()(variables)


def test_manifests_agree_with_themselves():
    yaml = pytest.importorskip("yaml", reason="needs PyYAML, which the extra beam brings")
    service, job = yaml.safe_load_all((EXAMPLES / "kubernetes" / "train.yaml").read_text())
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    variables = {v["name"]: v["value"] for v in container["env"]}
    assert variables["SERVICE"] == service["metadata"]["name"] == job["metadata"]["name"] == pod["subdomain"]
    assert int(variables["WORKERS"]) == job["spec"]["completions"] == job["spec"]["parallelism"]
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}
    assert "tf_config.py" in container["args"][0]
    (job,) = yaml.safe_load_all((EXAMPLES / "kubernetes" / "evaluate.yaml").read_text())
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert f"--shard=$JOB_COMPLETION_INDEX/{job['spec']['completions']}" in container["args"][0]


def _program(folder, name, text):
    path = folder / name
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


@pytest.fixture
def slurm(tmp_path):
    """Function: status of a training -> what the batch script ran, with stand-ins for Slurm's commands."""
    python = _program(
        tmp_path, "python", f'#!/bin/sh\nexec {sys.executable} "{tmp_path}/train.py" "$@"\n'
    )  # fmt: skip
    _program(
        tmp_path, "srun", '#!/bin/bash\nshift\ns=0\nfor i in 0 1; do SLURM_PROCID=$i "$@" || s=$?; done\nexit $s\n'
    )
    scontrol = f'#!/bin/sh\nif [ "$1" = show ]; then printf "n1\\nn2\\n"; else echo "$@" > {tmp_path}/requeued; fi\n'
    _program(tmp_path, "scontrol", scontrol)
    code = "import json, os, sys\nwith open({out!r}, 'a') as f:\n"
    code += "    print(json.dumps([os.environ['TF_CONFIG'], sys.argv[1:]]), file=f)\nsys.exit({status})\n"

    def run(status):
        (tmp_path / "train.py").write_text(code.format(out=str(tmp_path / "out"), status=status))
        env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHON": python}
        env |= {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-2]"}
        script = EXAMPLES / "slurm" / "train.sbatch"
        arguments = ["--model=savp", "--hparams_override=lr=0.1,kernel_size=[3,3]", "--output_dir=/a b/c"]
        done = subprocess.run(["bash", str(script), *arguments], env=env, capture_output=True, text=True)
        lines = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
        return done, lines, arguments, (tmp_path / "requeued").exists()

    return run


def test_slurm_gives_each_task_its_place(slurm):
    done, lines, arguments, requeued = slurm(0)
    assert done.returncode == 0, done.stderr
    assert [Cluster.from_environment(text) for text, _ in lines] == [
        Cluster(("n1:20007", "n2:20007"), i) for i in range(2)
    ]
    assert all(given == ["scripts/train.py", *arguments] for _, given in lines) and not requeued


@pytest.mark.parametrize(("status", "again"), [(143, True), (1, False)])
def test_slurm_queues_again_what_was_saved_in_time(slurm, status, again):
    done, _, _, requeued = slurm(status)
    assert (done.returncode, requeued) == (status, again)
