"""The whole preparation of a data set: videos become records that are read back and checked.

A `Preparation` lists work items and turns one item into clips; items are put into groups
in a fixed order, and a group becomes one record file (`groups`). So groups can be worked
on by any number of processes (`local_pool`) or machines (`beam`), an interrupted
preparation goes on where it stopped, and the files do not depend on who wrote them. At
the end everything is read back and checked, and dataset_info.json is written.
"""

import contextlib
import hashlib
import importlib
import json
import os
import re
import time

import tensorflow as tf
from absl import logging
from tqdm import tqdm

from tfvid.data import folder_lock, records
from tfvid.data.groups import PROGRESS_FOLDER, Job, make_groups, result_path
from tfvid.data.index import index_of_entries, save_index
from tfvid.data.local_pool import pool_work
from tfvid.data.preparation import make_preparation
from tfvid.data.records import INFO_FILE, SPLITS, DataError, DatasetInfo
from tfvid.errors import UserError

# Names of what a preparation writes into the folder of a split.
_WRITTEN = re.compile(rf"clips-\d+-of-\d+\.tfrecord|{re.escape(records.INDEX_FILE)}|\.tmp-.*")


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
    prepared = make_preparation(dataset, source_dir, options or {})
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
