"""What lies in folders of source data: names and paths, without what a system hides there."""

import os

import tensorflow as tf

from tfvid.errors import UserError

_ARCHIVERS = "__MACOSX"  # copies of hidden files that a zip of macOS brings


def names_in(folder):
    """Names in a folder, those of folders without a slash, hidden ones left out; no order."""
    try:
        names = [name.rstrip("/") for name in tf.io.gfile.listdir(folder)]
    except UnicodeDecodeError as e:
        raise UserError(f"{folder}: expected names in UTF-8. Received: {e.object!r}; rename it") from None
    return [name for name in names if not name.startswith(".") and name != _ARCHIVERS]


def walk(folder):
    """Yields (path below `folder` with "/", "" for itself; names of files) of each folder, sorted.

    Symbolic links are followed, but for those to a folder in which they lie.
    """
    yield from _walk(os.fspath(folder), "", ())


def _walk(root, relative, above):
    path = os.path.join(root, relative) if relative else root
    real = path if "://" in path else os.path.realpath(path)
    if real in above:
        return
    names = sorted(names_in(path))
    folders = [name for name in names if tf.io.gfile.isdir(os.path.join(path, name))]
    yield relative, sorted(set(names) - set(folders))
    for name in folders:
        yield from _walk(root, f"{relative}/{name}" if relative else name, (*above, real))
