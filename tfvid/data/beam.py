"""Preparation as an Apache Beam pipeline: its groups of work items, worked on by any runner.

The pipeline is Create(groups) | Reshuffle | `write_group`, nothing else: workers write
record files and results where the local processes write them, so that files, restart and
the checks at the end do not depend on who did the work. This process watches the results
appear. Needs the extra `beam`.
"""

from tfvid import cli

cli.import_tensorflow_quietly()  # a worker's process begins here

import argparse  # noqa: E402
import contextlib  # noqa: E402
import dataclasses  # noqa: E402
import io  # noqa: E402
import json  # noqa: E402
import logging as python_logging  # noqa: E402
import os  # noqa: E402
import re  # noqa: E402
import threading  # noqa: E402

import tensorflow as tf  # noqa: E402
from absl import logging  # noqa: E402

from tfvid.data import groups, preparation, records  # noqa: E402
from tfvid.errors import UserError  # noqa: E402

python_logging.disable(python_logging.WARNING)  # of libraries for clouds that are not installed
try:
    import apache_beam as beam  # noqa: E402
    from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions  # noqa: E402
finally:
    python_logging.disable(python_logging.NOTSET)

STOP_FILE = "stop"
_IN_ONE_PROCESS = ("DirectRunner", "SwitchingDirectRunner", "FnApiRunner")


def parse_options(text):
    """Beam's options of `--name=value,--name=value`; a comma within a value stays in it.

    Raises:
      UserError: no such form, an unknown runner, or an option that a local runner does not know.
    """
    parts = [p.strip() for p in re.split(r",(?=\s*--)", text) if p.strip()]
    if not parts or not all(re.match(r"--\w", p) for p in parts):
        raise UserError(f"--beam_options: expected --runner=NAME,--name=value. Received: {text!r}")
    if not any(p.startswith("--default_sdk_harness_log_level") for p in parts) and not logging.level_info():
        parts.append("--default_sdk_harness_log_level=ERROR")
    options = PipelineOptions(parts)
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            known = options.get_all_options()
    except (SystemExit, argparse.ArgumentError) as e:
        line = (complaint.getvalue().strip() or str(e)).splitlines()[-1]
        raise UserError(f"--beam_options: {line}") from None
    name = known["runner"] or StandardOptions.DEFAULT_RUNNER
    # A job server may know further ones; a runner on this machine may not.
    unknown = sorted(set(options.get_all_options(retain_unknown_options=True)) - set(known))
    if unknown and name in StandardOptions.LOCAL_RUNNERS:
        raise UserError(f"--beam_options: {name} has no option {', '.join('--' + u for u in unknown)}")
    make_runner(options)
    return options


def make_runner(options):
    """The runner that the options name; UserError for one that is not there."""
    name = options.view_as(StandardOptions).runner or StandardOptions.DEFAULT_RUNNER
    if name in _IN_ONE_PROCESS:
        # DirectRunner first downloads another runner, which knows nothing of --direct_running_mode,
        # and falls back on this one.
        return _local_runner(options)
    try:
        return beam.runners.runner.create_runner(name)
    except (ValueError, ImportError, AttributeError) as e:
        raise UserError(f"--beam_options: --runner={name}: {' '.join(str(e).split())}") from None


def _local_runner(options):
    from apache_beam.portability.api import beam_provision_api_pb2
    from apache_beam.runners.portability.fn_api_runner import fn_runner
    from apache_beam.runners.portability.portable_runner import JobServiceHandle

    encoded = JobServiceHandle.encode_pipeline_options(options.get_all_options())
    info = beam_provision_api_pb2.ProvisionInfo(pipeline_options=encoded)
    return fn_runner.FnApiRunner(provision_info=fn_runner.ExtendedProvisionInfo(info))


def encode_group(group):
    """A `groups.Group` as JSON text."""
    return json.dumps(dataclasses.asdict(group))


def decode_group(text):
    """The `groups.Group` of `encode_group`."""
    fields = json.loads(text)
    items = tuple(preparation.Item(**item) for item in fields.pop("items"))
    return groups.Group(**fields, items=items)


class WriteGroup(beam.DoFn):
    """`groups.write_group` in a worker of any runner; nothing once the stop file is there."""

    def __init__(self, job):
        self._job = dataclasses.asdict(job)
        self._driver = os.getpid()

    def setup(self):
        """Once in each worker: the data set's work items and their function."""
        job = groups.Job(**self._job)
        if os.getpid() != self._driver:
            import cv2

            cv2.setNumThreads(1)  # workers share the cores among them
        self._prepared = preparation.make_preparation(job.dataset, job.source_dir, job.options)

    def process(self, text):
        """One group of `encode_group`; yields the name of its file."""
        job, group = groups.Job(**self._job), decode_group(text)
        if tf.io.gfile.exists(stop_path(job.output_dir)):
            return
        yield groups.write_group(job, group, self._prepared)["file"]


def stop_path(output_dir):
    """While this file is there, workers leave what is left to do."""
    return os.path.join(output_dir, groups.PROGRESS_FOLDER, STOP_FILE)


def results(job, todo, options):
    """Runs the pipeline; yields (group, result) as results appear in the output folder.

    A caller that does not wait for all of them stops the workers.

    Args:
      job: `groups.Job`.
      todo: groups to work on.
      options: of `parse_options`.

    Raises:
      DataError: the pipeline failed, in one line; the same command goes on.
    """
    if not todo:
        return
    if any("ram://" in p for p in (job.output_dir, job.source_dir or "")):
        raise UserError("--beam_options: expected folders that all workers reach; ram:// lives in one process")
    waiting = {os.path.basename(groups.result_path(job.output_dir, g)): g for g in todo}
    for name in (STOP_FILE, *waiting):  # of an earlier run
        path = os.path.join(job.output_dir, groups.PROGRESS_FOLDER, name)
        if tf.io.gfile.exists(path):
            tf.io.gfile.remove(path)
    pipeline = _Running(job, todo, options)
    pause = 0.2
    try:
        while waiting:
            ended = pipeline.wait(pause)
            there = set(tf.io.gfile.listdir(os.path.join(job.output_dir, groups.PROGRESS_FOLDER)))
            found = [name for name in waiting if name in there]
            for name in found:
                group = waiting.pop(name)
                yield group, records.read_json(groups.result_path(job.output_dir, group))
            if ended and not found:
                break
            pause = min(2 * pause, 5.0)  # a listing of a bucket takes time and money
        if not waiting:
            pipeline.join()
    except BaseException:
        with tf.io.gfile.GFile(stop_path(job.output_dir), "w") as f:
            f.write("stop\n")
        pipeline.wait(60.0)
        raise
    pipeline.check()
    if waiting:
        raise records.DataError(f"{job.output_dir}: the Beam pipeline ended without {', '.join(sorted(waiting)[:3])}")


class _Running:
    """The pipeline in a thread, since some runners return at its end only."""

    def __init__(self, job, todo, options):
        self._output_dir, self._error, self._state = job.output_dir, None, None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(job, todo, options), daemon=True)
        self._thread.start()

    def _run(self, job, todo, options):
        python_logging.getLogger("apache_beam").setLevel(
            python_logging.INFO if logging.level_info() else python_logging.ERROR
        )
        try:
            pipeline = beam.Pipeline(runner=make_runner(options), options=options)
            work = pipeline | beam.Create([encode_group(g) for g in todo]) | beam.Reshuffle()
            _ = work | "write_group" >> beam.ParDo(WriteGroup(job))
            running = pipeline.run()
            running.wait_until_finish()
            self._state = running.state
        except BaseException as e:
            self._error = e
        finally:
            self._ended.set()

    def wait(self, seconds):
        """Whether the pipeline has ended, at most so many seconds from now."""
        return self._ended.wait(seconds)

    def join(self):
        """Waits for the end."""
        self._thread.join()

    def check(self):
        """Raises DataError where the pipeline failed; call it after its end."""
        if self._error is not None:
            logging.info("the Beam pipeline failed", exc_info=self._error)
            line = error_line(str(self._error) or type(self._error).__name__)
            raise records.DataError(
                f"{self._output_dir}: the Beam pipeline failed: {line}; the same command goes on from here"
            ) from self._error
        if self._state != beam.runners.runner.PipelineState.DONE:
            raise records.DataError(
                f"{self._output_dir}: expected the Beam pipeline to end as DONE. Received: {self._state}"
            )


def error_line(text):
    """The line of an error's text that says what went wrong: of a remote traceback the last exception's."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    exceptions = [line for line in lines if re.match(r"[\w.]+(Error|Exception|Item|Interrupt)\b.*:", line)]
    return re.sub(r"\s*\[while running.*", "", (exceptions or lines)[-1])[:500]
