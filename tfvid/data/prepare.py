"""Turning videos into records: independent work items and one function on an item.

A `Preparation` lists work items and turns one item into clips. Items are put into groups
in a fixed order; a group becomes one record file, written under another name and renamed
when it is whole. So groups can be worked on by any number of processes (or machines), an
interrupted preparation goes on where it stopped, and the files do not depend on who wrote
them. At the end everything is read back and checked, and dataset_info.json is written.
"""

import contextlib
import dataclasses
import hashlib
import importlib
import json
import math
import multiprocessing
import os
import re
import signal
import sys
import threading
import time
from concurrent import futures

import tensorflow as tf
from absl import logging
from tqdm import tqdm

from tfvid.data import folder_lock, records
from tfvid.data.index import OVERHEAD, index_of_entries, save_index
from tfvid.data.records import INFO_FILE, SPLITS, DataError, DatasetInfo
from tfvid.errors import UserError

PROGRESS_FOLDER = ".progress"
MOST_PIXELS = 2**14  # a side of a frame
# Names of what a preparation writes into the folder of a split.
_WRITTEN = re.compile(rf"clips-\d+-of-\d+\.tfrecord|{re.escape(records.INDEX_FILE)}|\.tmp-.*")

# Every data set that can be prepared: name -> "module:class".
PREPARATIONS = {
    "breakout": "tfvid.data.breakout:Breakout",
    "caddy_videos": "tfvid.data.caddy_videos:CaddyVideos",
    "cage_latents": "tfvid.data.cage_latents:CageLatents",
    "cater": "tfvid.data.cater:Cater",
    "clevrer": "tfvid.data.clevrer:Clevrer",
    "demo": "tfvid.data.demo:Demo",
    "demo_figures": "tfvid.data.demo_figures:DemoFigures",
    "demo_scenes": "tfvid.data.demo_scenes:DemoScenes",
    "epic": "tfvid.data.epic:EpicKitchens",
    "hdf5_shards": "tfvid.data.hdf5_shards:Hdf5Shards",
    "kth": "tfvid.data.kth_videos:KthVideos",
    "penn": "tfvid.data.penn:Penn",
    "something": "tfvid.data.something:Something",
    "video_folder": "tfvid.data.video_folder:VideoFolder",
}


@dataclasses.dataclass(frozen=True)
class Option:
    """One option of a preparation.

    Attributes:
      default: its type is that of the values.
      doc: meaning and unit.
      choices: values allowed, or None.
    """

    default: object
    doc: str
    choices: tuple | None = None


@dataclasses.dataclass(frozen=True)
class Item:
    """One unit of work, independent of all others.

    Attributes:
      key: unique in the data set; names the item in messages and its clips.
      split: "train", "val" or "test".
      payload: plain JSON values that the item's function needs.
    """

    key: str
    split: str
    payload: dict


class BrokenItem(UserError):
    """An item that cannot be read; it is skipped, counted and named."""


class Preparation:
    """One data set to prepare; subclasses are `PREPARATIONS`.

    An object must be the same wherever it is built from the same arguments: it is built
    anew in each process.

    Attributes:
      NEEDS_SOURCE: whether `--source_dir` is a must.
      OPTIONS: {name: Option}.
      ITEMS_PER_FILE: work items in one record file.
      DEFAULTS: data-set hyper-parameters for dataset_info.json.
      ENCODING: what "auto" stands for, one of `records.ENCODINGS`.
    """

    NEEDS_SOURCE = True
    ENCODING = "auto"
    OPTIONS = {}
    ITEMS_PER_FILE = 16
    DEFAULTS = {}

    def __init__(self, source_dir, options):
        self.source_dir = source_dir
        self.options = checked_options(self.OPTIONS, options)
        self.validate()

    def validate(self):
        """Raises UserError for options that cannot be; before any work starts."""

    def items(self):
        """List of every `Item`, in an order that depends on the source alone."""
        raise NotImplementedError

    def clips(self, item):
        """Yields the clips of an item: {key: array} with keys of `records.KEYS`.

        Raises:
          BrokenItem, VideoError, DataError: the item is skipped and counted as broken.
        """
        raise NotImplementedError

    def description(self):
        """{"source": words, "fps": number or None, "labels": {...}} for dataset_info.json."""
        raise NotImplementedError

    def defaults(self):
        """Data-set hyper-parameters of the prepared records."""
        return dict(self.DEFAULTS)


def preparation(name, source_dir, options):
    """Builds a `Preparation` by the name of its data set; UserError where it is not known."""
    if name not in PREPARATIONS:
        raise UserError(f"--dataset: expected one of {', '.join(sorted(PREPARATIONS))}. Received: {name!r}")
    cls = preparation_class(name)
    if cls.NEEDS_SOURCE:
        if not source_dir:
            raise UserError(f"--source_dir: expected the folder with the {name} videos, received none")
        if not records.is_folder(source_dir):
            raise UserError(f"--source_dir: expected a folder, found none at {source_dir!r}")
    return cls(source_dir, options)


def preparation_class(name):
    """The class of a data set in `PREPARATIONS`."""
    module, _, cls = PREPARATIONS[name].partition(":")
    return getattr(importlib.import_module(module), cls)


def checked_options(known, given):
    """Every option with its default where none is given; UserError for a wrong one."""
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise UserError(f"--{unknown[0]}: this data set has no such option, only {', '.join(sorted(known)) or 'none'}")
    values = {}
    for name, option in known.items():
        value = given.get(name, option.default)
        wanted = type(option.default)
        if wanted is float and type(value) is int:
            value = float(value)
        if type(value) is not wanted:
            raise UserError(f"--{name}: expected a value of type {wanted.__name__}. Received: {value!r}")
        if option.choices and value not in option.choices:
            raise UserError(f"--{name}: expected one of {', '.join(map(str, option.choices))}. Received: {value!r}")
        values[name] = value
    return values


def parse_option(option, name, text):
    """The value of an option from a flag's text."""
    kind = type(option.default)
    try:
        if kind is bool:
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        value = kind(text)
        if kind is float and not math.isfinite(value):
            raise ValueError
        return value
    except (KeyError, ValueError):
        raise UserError(f"--{name}: expected a value of type {kind.__name__}. Received: {text!r}") from None


def parse_size(text, name="size"):
    """(width, height) of a text: 64 -> (64, 64), 256x96 or 256,96 -> (256, 96), empty -> None."""
    if not text:
        return None
    parts = text.lower().replace(",", "x").split("x")
    if not 1 <= len(parts) <= 2 or not all(p.strip().isdecimal() and 0 < int(p) <= MOST_PIXELS for p in parts):
        raise UserError(f"--{name}: expected a side or WIDTHxHEIGHT in pixels, up to {MOST_PIXELS}. Received: {text!r}")
    return int(parts[0]), int(parts[-1])


# Splits.


def split_of_fractions(keys, val, test, seed=0):
    """{key: split} with exact fractions: keys are ranked by a hash of (seed, key)."""
    if not (val >= 0 and test >= 0 and val + test < 1):
        raise UserError(f"expected fractions of val and test >= 0 with a sum below 1. Received: {val} and {test}")
    ranked = sorted(keys, key=lambda key: hashlib.sha256(f"{seed}/{key}".encode()).digest())
    count_val, count_test = round(len(ranked) * val), round(len(ranked) * test)
    # A split that was asked for is not empty where there is enough to share out.
    if len(ranked) >= 3:
        count_val, count_test = max(count_val, int(val > 0)), max(count_test, int(test > 0))
    result = dict.fromkeys(ranked[:count_val], "val")
    result.update(dict.fromkeys(ranked[count_val : count_val + count_test], "test"))
    result.update(dict.fromkeys(ranked[count_val + count_test :], "train"))
    return result


def cut_into_clips(video, length, overlap=0):
    """Yields clips of exactly `length` frames; what is left at the end is dropped.

    Args:
      video: {key: array}, time first in keys that have it.
      length: frames of a clip; 0: the whole video is one clip.
      overlap: frames that a clip shares with the one before it.
    """
    total = len(video["images"])
    length = length or total
    for start in range(0, total - length + 1, length - overlap):
        steps = {"T": slice(start, start + length), "T-1": slice(start, start + length - 1), None: ...}
        yield {k: v[steps[records.KEYS[k].steps]] if records.KEYS[k].steps else v for k, v in video.items()}


# Groups: what one process (or one worker of a cluster) does at a time.


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
    prepared = prepared or preparation(job.dataset, job.source_dir, job.options)
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


# The whole preparation.


def prepare(
    dataset,
    source_dir,
    output_dir,
    options=None,
    encoding="auto",
    max_broken=10,
    processes=None,
    overwrite=False,
    progress=True,
    name=None,
    items_per_file=None,
    beam_options=None,
    wait=False,
):
    """Prepares a data set; the same call goes on after an interruption.

    Args:
      dataset: one of PREPARATIONS.
      source_dir: folder of the videos, or None where the data set needs none.
      output_dir: folder to write; `{train,val,test}/*.tfrecord` and dataset_info.json.
      options: {name: value} of the preparation's OPTIONS.
      encoding: of the frames, one of `records.ENCODINGS`; "auto": as suits the data set.
      max_broken: items that may be unreadable before the preparation fails.
      processes: workers; default all cores; 0: in this process.
      overwrite: replace a data set that is there already.
      progress: show a progress bar.
      name: written into dataset_info.json; default `dataset`.
      items_per_file: work items in one record file; default: as suits the data set.
      beam_options: options of Apache Beam (--runner=NAME,--name=value), which then does the
        work instead of `processes`.
      wait: for another process that prepares the same folder now, instead of an error.

    Returns:
      `DatasetInfo`.
    """
    prepared = preparation(dataset, source_dir, options or {})
    if encoding not in records.ENCODINGS:
        raise UserError(f"--encoding: expected one of {', '.join(records.ENCODINGS)}. Received: {encoding!r}")
    if overwrite:
        _check_apart(source_dir, output_dir)
    encoding = prepared.ENCODING if encoding == "auto" else encoding
    work = beam_work(beam_options) if beam_options else pool_work(processes)
    job = Job(dataset, source_dir, output_dir, prepared.options, encoding)
    items = prepared.items()
    if not items:
        raise UserError(f"{source_dir}: expected videos of the {dataset} data set, found none")
    groups = make_groups(items, items_per_file or prepared.ITEMS_PER_FILE)
    state = {"dataset": dataset, "options": prepared.options, "encoding": encoding, "items": _digest(groups)}
    if not _begin(output_dir, state, groups, overwrite):
        logging.warning("%s: the data set is there already, prepared with the same options", output_dir)
        return DatasetInfo.load(output_dir)
    with folder_lock.held(output_dir, wait):
        if tf.io.gfile.exists(os.path.join(output_dir, INFO_FILE)):  # while this process waited
            return DatasetInfo.load(output_dir)
        done = _finished(output_dir, groups)
        _run(
            job,
            prepared,
            [g for g in groups if g.file_name not in done.get(g.split, ())],
            groups,
            max_broken,
            work,
            progress,
        )
        return finish(job, prepared, groups, state, max_broken, name or dataset, progress)


def _digest(groups):
    """One word for the list of items and their order."""
    text = json.dumps([[g.split, g.number, [[i.key, i.payload] for i in g.items]] for g in groups], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _begin(output_dir, state, groups, overwrite):
    """Checks the folder and makes what is missing in it; False where all is done."""
    info = os.path.join(output_dir, INFO_FILE)
    progress = os.path.join(output_dir, PROGRESS_FOLDER)
    if overwrite:
        _clear(output_dir)
    if tf.io.gfile.exists(info):
        options = DatasetInfo.load(output_dir).options
        if options.get("preparation") == state:
            return False
        raise UserError(
            f"{info}: another data set, or one of other options, is there; expected an empty folder, or --overwrite"
        )
    for folder in [*(os.path.join(output_dir, g.split) for g in groups), progress]:
        tf.io.gfile.makedirs(folder)
    path = os.path.join(progress, "state.json")
    if tf.io.gfile.exists(path):
        before = records.read_json(path)
        if before != state:
            differing = sorted(k for k in state if before.get(k) != state[k])
            raise UserError(
                f"{output_dir}: a preparation with other {', '.join(differing)} was begun there;"
                " expected the same, or --overwrite"
            )
    else:
        strangers = [f for s in SPLITS for f in _record_names(os.path.join(output_dir, s))]
        if strangers:
            raise UserError(f"{output_dir}: expected an empty folder, found {strangers[0]}; or use --overwrite")
        records.write_atomically(path, json.dumps(state))
    return True


def _clear(output_dir):
    """Removes a data set, or one that was begun; UserError where files lie there that `prepare` never wrote."""
    files = {}
    for split in SPLITS:
        folder = os.path.join(output_dir, split)
        files[folder] = tf.io.gfile.listdir(folder) if tf.io.gfile.isdir(folder) else []
        strangers = sorted(n for n in files[folder] if not _WRITTEN.fullmatch(n.rstrip("/")))
        if strangers:
            raise UserError(
                f"--overwrite: expected a prepared data set in {output_dir}. Received: {os.path.join(folder, strangers[0])},"
                " which would be lost"
            )
    info, progress = (os.path.join(output_dir, name) for name in (INFO_FILE, PROGRESS_FOLDER))
    if not (tf.io.gfile.exists(info) or tf.io.gfile.isdir(progress) or any(files.values())):
        return
    with folder_lock.held(output_dir):
        if tf.io.gfile.exists(info):
            tf.io.gfile.remove(info)
        for folder, names in files.items():
            for name in names:
                tf.io.gfile.remove(os.path.join(folder, name))
        if tf.io.gfile.isdir(progress):
            tf.io.gfile.rmtree(progress)


def _check_apart(source_dir, output_dir):
    """UserError where the records would replace those that they are made from."""
    if source_dir is None:
        return
    source, output = (p.rstrip("/") if "://" in p else os.path.realpath(p) for p in map(os.fspath, (source_dir, output_dir)))
    if source == output:
        raise UserError(f"--overwrite: expected --output_dir to be another folder than --source_dir. Received: {output_dir}")


def _record_names(folder):
    return [n for n in tf.io.gfile.listdir(folder) if ".tfrecord" in n] if tf.io.gfile.isdir(folder) else []


def _finished(output_dir, groups):
    done = {}
    for group in groups:
        path = os.path.join(output_dir, group.split, group.file_name)
        if not tf.io.gfile.exists(result_path(output_dir, group)) or not tf.io.gfile.exists(path):
            continue
        if tf.io.gfile.stat(path).length == records.read_json(result_path(output_dir, group))["bytes"]:
            done.setdefault(group.split, set()).add(group.file_name)
    for split in SPLITS:  # what an interrupted run left unfinished
        folder = os.path.join(output_dir, split)
        for name in tf.io.gfile.listdir(folder) if tf.io.gfile.isdir(folder) else ():
            if name.startswith(".tmp-"):
                tf.io.gfile.remove(os.path.join(folder, name))
    return done


def _run(job, prepared, todo, groups, max_broken, work, progress):
    total = sum(len(g.items) for g in groups)
    broken = []
    for group in groups:
        if group not in todo:
            broken += records.read_json(result_path(job.output_dir, group))["broken"]
    bar = tqdm(
        total=total,
        initial=total - sum(len(g.items) for g in todo),
        desc=job.dataset,
        unit="item",
        disable=not progress,
    )
    frames, begin = 0, time.monotonic()
    with bar, contextlib.closing(work(job, prepared, todo)) as results:
        for group, result in results:
            bar.update(len(group.items))
            frames += sum(result["frames"])
            bar.set_postfix_str(f"{frames / max(time.monotonic() - begin, 1e-9):.0f} frames/s")
            for entry in result["broken"]:
                logging.warning("skipped %s: %s", entry["item"], entry["reason"])
            broken += result["broken"]
            _check_broken(broken, max_broken, job.output_dir)
    _check_broken(broken, max_broken, job.output_dir)


def _check_broken(broken, limit, output_dir):
    if len(broken) > limit:
        first = broken[0]
        raise DataError(
            f"{output_dir}: {len(broken)} items cannot be read, expected at most --max_broken={limit};"
            f" the first: {first['item']}: {first['reason']}"
        )


def beam_work(options):
    """A function like that of `pool_work`, for Apache Beam; UserError for wrong options."""
    try:
        beam = importlib.import_module("tfvid.data.beam")
    except ImportError as e:
        raise UserError(f'--beam_options: expected Apache Beam; pip install "tfvid[beam]" ({e})') from None
    parsed = beam.parse_options(options)
    return lambda job, prepared, todo: beam.results(job, todo, parsed)


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


def finish(job, prepared, groups, state, max_broken, name, progress):
    """Merges the groups' results, checks every record, writes the indices and dataset_info.json."""
    from tfvid.data.verify import verify_records

    results = [records.read_json(result_path(job.output_dir, g)) for g in groups]
    broken = [entry for r in results for entry in r["broken"]]
    _check_broken(broken, max_broken, job.output_dir)
    forms = {json.dumps(r["fields"], sort_keys=True): r for r in results if r["fields"]}
    if not forms:
        raise DataError(f"{job.output_dir}: expected clips, all {len(broken)} items were broken or too short")
    if len(forms) > 1:
        raise DataError(
            f"{job.output_dir}: expected clips of one form, received {' and '.join(list(forms)[:2])}"
            f" in {' and '.join(r['file'] for r in list(forms.values())[:2])}; set a size"
        )
    fields = {k: records.Field(tuple(shape), enc) for k, (shape, enc) in json.loads(next(iter(forms))).items()}
    splits = {}
    for split in SPLITS:
        mine = [r for r in results if r["split"] == split]
        if any(r["offsets"] for r in mine):
            splits[split] = _split_entry(mine)
    description = prepared.description()
    lengths = {length for r in results for length in r["frames"]}
    info = DatasetInfo(
        name=name,
        source=description["source"],
        fps=description.get("fps"),
        fields=fields,
        splits=splits,
        defaults=prepared.defaults(),
        options={"preparation": state},
        broken=broken,
        labels=description.get("labels", {}),
        clip_length=lengths.pop() if len(lengths) == 1 else None,
    )
    written = [r for r in results if r["split"] in splits]
    paths = [os.path.join(job.output_dir, r["split"], r["file"]) for r in written]
    verify_records(info, index_of_entries(paths, written), progress=progress)
    for split in splits:
        mine = [(p, r) for p, r in zip(paths, written) if r["split"] == split]
        save_index(os.path.join(job.output_dir, split), index_of_entries(*zip(*mine)))
    info.save(job.output_dir)
    tf.io.gfile.rmtree(os.path.join(job.output_dir, PROGRESS_FOLDER))
    return info


def _split_entry(results):
    return {
        "clips": sum(len(r["offsets"]) for r in results),
        "frames": sum(sum(r["frames"]) for r in results),
        "files": {
            r["file"]: {"clips": len(r["offsets"]), "frames": sum(r["frames"]), "bytes": r["bytes"]} for r in results
        },
    }
