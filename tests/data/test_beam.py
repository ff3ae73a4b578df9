"""Preparation on Apache Beam: the same files as by local processes, whoever did the work."""

import filecmp
import importlib.util
import os
import shutil
import sys

import pytest

from tests.data.test_prepare import TINY, _files, _write_videos
from tfvid.data import groups, preparation
from tfvid.data.groups import Group
from tfvid.data.preparation import Item
from tfvid.data.prepare import prepare
from tfvid.data.records import DataError
from tfvid.errors import UserError

HERE = "--runner=DirectRunner"
TWO_PROCESSES = f"{HERE},--direct_running_mode=multi_processing,--direct_num_workers=2"
CADDY_VIDEOS = "tests/fixtures/parity/caddy/data_videos"
VIDEO_OPTIONS = {"size": "8", "clip_length": 4}

needs_beam = pytest.mark.skipif(
    importlib.util.find_spec("apache_beam") is None, reason='needs Apache Beam: pip install "tfvid[beam]"'
)


def _prepare(dataset, source, output, options, beam_options=None, **more):
    return prepare(
        dataset, source and str(source), str(output), options, processes=0, progress=False, beam_options=beam_options,
        **more,
    )  # fmt: skip


def _assert_same(left, right):
    assert _files(left) == _files(right)
    for name in _files(left):
        assert filecmp.cmp(os.path.join(left, name), os.path.join(right, name), shallow=False), name


@needs_beam
def test_a_runner_in_this_process_writes_the_same_files(tmp_path):
    _prepare("demo", None, tmp_path / "local", TINY, items_per_file=2)
    info = _prepare("demo", None, tmp_path / "beam", TINY, HERE, items_per_file=2)
    assert info.splits["train"]["clips"] == 6
    _assert_same(tmp_path / "local", tmp_path / "beam")


@needs_beam
def test_too_many_broken_videos_stop_the_pipeline(tmp_path):
    _write_videos(tmp_path / "videos", broken=3)
    message = r"3 items cannot be read, expected at most --max_broken=2; the first: broken\d"
    with pytest.raises(DataError, match=message):
        _prepare("video_folder", tmp_path / "videos", tmp_path / "out", VIDEO_OPTIONS, HERE, max_broken=2)
    assert not (tmp_path / "out" / "dataset_info.json").exists()
    # The same command with a higher limit goes on, in spite of the file that stopped the workers.
    info = _prepare("video_folder", tmp_path / "videos", tmp_path / "out", VIDEO_OPTIONS, HERE, max_broken=3)
    assert [entry["item"] for entry in info.broken] == [f"broken{i}.mp4" for i in range(3)]


@needs_beam
def test_failure_of_a_worker_is_one_line_and_the_same_command_goes_on(tmp_path, monkeypatch):
    _prepare("demo", None, tmp_path / "whole", TINY, items_per_file=2)
    real, calls = groups.write_group, []

    def fails(job, group, prepared=None):
        calls.append(group.file_name)
        if len(calls) > 2:
            raise OSError(28, "No space left on device")
        return real(job, group, prepared)

    monkeypatch.setattr(groups, "write_group", fails)
    with pytest.raises(DataError, match="the Beam pipeline failed: .*No space left on device.*; the same") as e:
        _prepare("demo", None, tmp_path / "parts", TINY, HERE, items_per_file=2)
    assert "\n" not in str(e.value)
    monkeypatch.setattr(groups, "write_group", real)
    _prepare("demo", None, tmp_path / "parts", TINY, HERE, items_per_file=2)
    _assert_same(tmp_path / "whole", tmp_path / "parts")


@needs_beam
def test_stopped_workers_leave_what_is_left(tmp_path):
    from tfvid.data import beam

    job = groups.Job("demo", None, str(tmp_path), preparation.checked_options(_demo_options(), TINY), "raw")
    (tmp_path / ".progress").mkdir()
    (tmp_path / "train").mkdir()
    group = groups.make_groups(preparation.make_preparation("demo", None, TINY).items(), 2)[0]
    worker = beam.WriteGroup(job)
    worker.setup()
    (tmp_path / ".progress" / beam.STOP_FILE).write_text("stop")
    assert list(worker.process(beam.encode_group(group))) == [] and not os.listdir(tmp_path / "train")
    os.remove(tmp_path / ".progress" / beam.STOP_FILE)
    assert list(worker.process(beam.encode_group(group))) == [group.file_name]


def _demo_options():
    return preparation.preparation_class("demo").OPTIONS


@needs_beam
def test_groups_travel_as_text():
    from tfvid.data import beam

    group = Group("val", 1, 3, (Item("a b", "val", {"path": "x", "n": [1, 2]}), Item("c", "val", {})))
    assert beam.decode_group(beam.encode_group(group)) == group


@needs_beam
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "--runner=SlowRunner",
            "--runner=SlowRunner: Unexpected pipeline runner: SlowRunner. Valid values are .*Flink",
        ),
        ("--runner=no.such.Runner", "--runner=no.such.Runner: "),
        ("runner=DirectRunner", "expected --runner=NAME,--name=value. Received: 'runner=DirectRunner'"),
        ("--runner=DirectRunner,--direct_num_wrokers=2", "DirectRunner has no option --direct_num_wrokers"),
        ("--runner=DirectRunner,--direct_num_workers=two", "--direct_num_workers: invalid int value: 'two'"),
    ],
)
def test_wrong_options_are_one_line_before_anything_is_written(tmp_path, text, message):
    with pytest.raises(UserError, match=f"--beam_options: .*{message}") as e:
        _prepare("demo", None, tmp_path / "out", TINY, text)
    assert "\n" not in str(e.value) and not (tmp_path / "out").exists()


@needs_beam
def test_folders_of_one_process_are_refused():
    with pytest.raises(UserError, match="--beam_options: expected folders that all workers reach"):
        _prepare("demo", None, "ram://beam/demo", TINY, HERE)


@needs_beam
def test_values_keep_their_commas():
    from apache_beam.options.pipeline_options import DebugOptions

    from tfvid.data import beam

    options = beam.parse_options("--runner=DirectRunner, --experiments=a,b,--direct_num_workers=3")
    assert options.view_as(DebugOptions).experiments == ["a", "b"]
    assert options.get_all_options()["direct_num_workers"] == 3


def test_without_beam_it_is_said_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tfvid.data.beam", None)
    with pytest.raises(UserError, match=r'--beam_options: expected Apache Beam; pip install "tfvid\[beam\]"'):
        _prepare("demo", None, tmp_path / "out", TINY, HERE)


@needs_beam
@pytest.mark.slow
@pytest.mark.parametrize("dataset", ["video_folder", "caddy_videos"])
def test_two_worker_processes_write_the_same_files_as_the_local_pool(tmp_path, monkeypatch, dataset):
    """A folder of videos, two of them broken, and the published format of Playable Video Generation."""
    source, options = tmp_path / "videos", {}
    if dataset == "video_folder":
        options = VIDEO_OPTIONS
        _write_videos(source, good=9, broken=2)
    else:
        shutil.copytree(CADDY_VIDEOS, source / "train")
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    local = prepare(
        dataset, str(source), str(tmp_path / "pool"), options, processes=2, progress=False, items_per_file=2
    )
    by_beam = _prepare(dataset, source, tmp_path / "beam", options, TWO_PROCESSES, items_per_file=2)
    assert by_beam == local and sum(e["clips"] for e in by_beam.splits.values()) > 0
    # One of the annotated videos has no states, which its neighbours have.
    assert len(by_beam.broken) == (2 if dataset == "video_folder" else 1)
    _assert_same(tmp_path / "pool", tmp_path / "beam")


@needs_beam
@pytest.mark.parametrize(
    "text",
    [
        "--runner=FlinkRunner,--flink_master=HOST:8081,--environment_type=DOCKER,--environment_config=IMAGE,--parallelism=32",
        "--runner=SparkRunner,--spark_master_url=spark://HOST:7077,--environment_type=DOCKER,--environment_config=IMAGE",
    ],
)
def test_options_of_the_readme_are_known(text):
    from tfvid.data import beam

    with open("README.md") as f:
        assert text in f.read()
    options = beam.parse_options(text)
    assert set(options.get_all_options(retain_unknown_options=True)) == set(options.get_all_options())
