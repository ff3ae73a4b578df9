"""Checking records: every byte against its checksum, every clip against the schema."""

import os

import numpy as np
import tensorflow as tf
from absl import logging
from tqdm import tqdm

from tfvid.data import formats, pipeline
from tfvid.data.clip_format import ClipFormat
from tfvid.data.index import build_index
from tfvid.data.records import INFO_FILE, SPLITS, DataError, data_error_line


def verify_source(source, progress=True):
    """Checks every record of a data set: checksums, schema, shapes, counts.

    Returns:
      {split: {"clips": n, "frames": n}}.

    Raises:
      DataError: names the broken file and record.
    """
    report = {}
    for split in source.splits():
        files = source.files(split)
        index = build_index(files)
        if source.info:
            _check_counts(source.info, split, files, index)
        frames = verify_records(source.info, index, source.format, progress)
        report[split] = {"clips": len(index), "frames": int(frames.sum())}
    if not report:
        raise DataError(f"{source.folder}: expected *.tfrecord* files in {', '.join(SPLITS)}, found none")
    if source.info:
        missing = sorted(set(source.info.splits) - set(report))
        if missing:
            raise DataError(f"{os.path.join(source.folder, missing[0])}: expected its files, found none")
    return report


def verify_records(info, index, fmt=None, progress=True):
    """Reads, parses and decodes every record of an index; returns frames [N] int64.

    Args:
      info: `DatasetInfo`, or None for an original format, whose first record sets the form.
      index: of the files as they are.
      fmt: `Format`; default: that of `info`.
    """
    fmt = fmt or ClipFormat(os.path.dirname(os.path.dirname(index.files[0])), info)
    layout = fmt.layout(index.read(0), index.name(0))
    lengths = np.zeros(len(index), np.int64)
    bar = tqdm(total=len(index), desc="verify", unit="clip", disable=not progress)
    with bar:
        for i, length in _checked(fmt, layout, index):
            if isinstance(length, str):
                raise DataError(length)
            lengths[i] = length
            bar.update()
    if index.frames is not None and (lengths != index.frames).any():
        wrong = int(np.argmax(lengths != index.frames))
        raise DataError(
            f"{index.name(wrong)}: expected {index.frames[wrong]} frames as the index says, received {lengths[wrong]}"
        )
    return lengths


def sound_records(fmt, layout, index):
    """bool [N]: which records can be read; the others are named and counted in the log."""
    sound = np.ones(len(index), bool)
    for i, length in _checked(fmt, layout, index):
        if isinstance(length, str):
            logging.warning("left out: %s", length)
            sound[i] = False
    if not sound.all():
        logging.warning("left out %d broken records of %d", (~sound).sum(), len(sound))
    if not sound.any():
        raise DataError(f"{index.files[0]}: expected readable records, all {len(sound)} are broken")
    return sound


def _checked(fmt, layout, index):
    """Yields (number, frames of it, or the line that says what is wrong with it)."""
    done = 0
    while done < len(index):
        rest = np.arange(done, len(index))
        stream = pipeline.each_record(
            index.take(rest), lambda record, name: formats.check_record(fmt, layout, record, name)
        )
        try:
            for length in stream.as_numpy_iterator():
                yield done, int(length)
                done += 1
        except tf.errors.OpError as e:
            # The stream keeps the order, so it is the next record that is broken.
            yield done, data_error_line(e) or f"{index.name(done)}: cannot decode its frames: {_first_line(e)}"
            done += 1


def _first_line(error):
    return str(error.message).splitlines()[0][:200]


def _check_counts(info, split, files, index):
    """Compares files and their clips with what dataset_info.json says."""
    if split not in info.splits:
        raise DataError(f"{files[0]}: {INFO_FILE} knows no split {split!r}")
    known = info.splits[split]["files"]
    for number, path in enumerate(files):
        entry = known.get(os.path.basename(path))
        if entry is None:
            raise DataError(f"{path}: {INFO_FILE} does not list this file")
        clips = int((index.file == number).sum())
        if clips != entry["clips"]:
            raise DataError(f"{path}: expected {entry['clips']} clips as {INFO_FILE} says, received {clips}")
    missing = sorted(set(known) - {os.path.basename(f) for f in files})
    if missing:
        raise DataError(f"{os.path.join(os.path.dirname(files[0]), missing[0])}: expected this file, found none")
