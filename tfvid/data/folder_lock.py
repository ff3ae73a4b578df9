"""One process at a time writes a folder: a second one is told so before it does harm."""

import contextlib
import fcntl
import os

from absl import logging

from tfvid.errors import UserError

LOCK_FILE = ".lock"


@contextlib.contextmanager
def held(folder, wait=False):
    """Holds a folder that is there against other processes; the system lets go of it however this one ends.

    Args:
      folder: any; buckets and some network file systems know no locks, and are not held.
      wait: for another process, instead of an error.

    Raises:
      UserError: another process holds it.
    """
    folder = os.fspath(folder)
    if "://" in folder:
        yield
        return
    with open(os.path.join(folder, LOCK_FILE), "a") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise UserError(
                f"--output_dir: expected a folder that no other process writes now. Received: {folder}"
            ) from None
        except OSError as e:
            logging.warning("%s: cannot be held against a second process: %s", folder, e.strerror)
        yield
