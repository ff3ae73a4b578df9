"""Groups worked on by processes of this machine."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from concurrent import futures

import tensorflow as tf

from tfvid.data.groups import write_group
from tfvid.data.records import DataError


def pool_work(processes):
    """Function (job, prepared, todo) -> generator of (group, result) as groups get done, by processes here."""
    return lambda job, prepared, todo: _results(job, prepared, todo, processes)


def _results(job, prepared, todo, processes):
    """Yields (group, result) as groups get done, by a process pool or here."""
    processes = min(multiprocessing.cpu_count() if processes is None else processes, len(todo))
    if processes <= 1 or any("ram://" in p for p in (job.output_dir, job.source_dir or "")):
        for group in todo:
            yield group, write_group(job, group, prepared)
        return
    context = multiprocessing.get_context("spawn")  # TensorFlow does not survive a fork
    pool = futures.ProcessPoolExecutor(processes, mp_context=context, initializer=_start_worker)
    try:
        with _no_messages():
            waiting = {pool.submit(write_group, job, group): group for group in todo}
        for future in futures.as_completed(waiting):
            yield waiting[future], future.result()
    except futures.process.BrokenProcessPool:
        raise DataError(
            f"{job.output_dir}: a worker process ended unexpectedly (out of memory?); the same command goes on"
            " from here, with fewer --processes if need be"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _no_messages():
    """Processes started meanwhile write no messages of TensorFlow and OpenCV between the progress bar."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _start_worker():
    """In a worker: ends with its parent and not by itself on interruption; one core for OpenCV."""
    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    tf.config.threading.set_intra_op_parallelism_threads(1)

    def follow():
        multiprocessing.parent_process().join()
        os._exit(1)  # the parent was killed: nobody waits for a result

    threading.Thread(target=follow, daemon=True).start()
