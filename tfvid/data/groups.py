"""Groups of work items: what one process, or one worker of a cluster, does at a time.

A group becomes one record file, written under another name and renamed when it is whole,
and a result beside it. Groups do not depend on who works on them.
"""

import dataclasses
import json
import os

import tensorflow as tf

from tfvid.data import records
from tfvid.data.index import OVERHEAD
from tfvid.data.preparation import BrokenItem, make_preparation
from tfvid.data.records import SPLITS
from tfvid.errors import UserError

PROGRESS_FOLDER = ".progress"


@dataclasses.dataclass(frozen=True)
class Group:
    """Some items of one split that become one record file."""

    split: str
    number: int
    total: int
    items: tuple

    @property
    def file_name(self):
        """As it lies in the split's folder."""
        return f"clips-{self.number:05d}-of-{self.total:05d}.tfrecord"


@dataclasses.dataclass(frozen=True)
class Job:
    """All that a process needs to work on groups; plain values, so that it can be sent."""

    dataset: str
    source_dir: str | None
    output_dir: str
    options: dict
    encoding: str


def make_groups(items, items_per_file):
    """Puts items into groups, by split and in order."""
    groups, seen = [], set()
    for item in items:
        if item.key in seen:
            raise UserError(f"expected each item once, received {item.key!r} twice")
        seen.add(item.key)
    for split in SPLITS:
        mine = [item for item in items if item.split == split]
        total = -(-len(mine) // items_per_file)
        for number in range(total):
            part = tuple(mine[number * items_per_file : (number + 1) * items_per_file])
            groups.append(Group(split, number, total, part))
    return groups


def write_group(job, group, prepared=None):
    """Writes one group's record file, then its result; the function that all workers run.

    Returns:
      {"file", "split", "bytes", "offsets", "frames", "fields", "broken"}: where each
      record lies, how many frames it has, and the items that could not be read.
    """
    prepared = prepared or make_preparation(job.dataset, job.source_dir, job.options)
    path = os.path.join(job.output_dir, group.split, group.file_name)
    temporary = records.temporary_name(path)
    offsets, frames, broken, fields, position = [], [], [], {}, 0
    try:
        with tf.io.TFRecordWriter(temporary) as writer:
            for item in group.items:
                try:
                    encoded = _encode_item(prepared, item, job.encoding, fields)
                except (BrokenItem, records.DataError, UserError) as e:
                    broken.append({"item": item.key, "reason": str(e)})
                    continue
                for content, length in encoded:
                    writer.write(content)
                    offsets.append(position)
                    frames.append(length)
                    position += len(content) + OVERHEAD
        tf.io.gfile.rename(temporary, path, overwrite=True)
    except BaseException:
        if tf.io.gfile.exists(temporary):
            tf.io.gfile.remove(temporary)
        raise
    result = {
        "file": group.file_name,
        "split": group.split,
        "bytes": position,
        "offsets": offsets,
        "frames": frames,
        "fields": {k: [list(f.shape), f.encoding] for k, f in fields.items()},
        "broken": broken,
    }
    records.write_atomically(result_path(job.output_dir, group), json.dumps(result))
    return result


def _encode_item(prepared, item, encoding, fields):
    """All records of an item, or none: [(content, frames)]; `fields` is filled or compared."""
    encoded, mine = [], dict(fields)
    for number, clip in enumerate(prepared.clips(item)):
        content, found = records.encode_clip(clip, f"{item.key}/{number}", encoding)
        if not mine:
            mine.update(found)
        elif found != mine:
            raise BrokenItem(f"{item.key}: expected clips of the form {_form(mine)}, received {_form(found)}")
        encoded.append((content, len(clip["images"])))
    fields.update(mine)
    return encoded


def _form(fields):
    return ", ".join(f"{k} {list(f.shape)}" for k, f in sorted(fields.items()))


def result_path(output_dir, group):
    """Where `write_group` puts a group's result; it is there once the group is done."""
    return os.path.join(output_dir, PROGRESS_FOLDER, f"{group.split}-{group.number:05d}.json")
