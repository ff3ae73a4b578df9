"""Where a model's batches come from: one `Source` for each folder of records."""

import os

import numpy as np
import tensorflow as tf
from absl import logging

from tfvid.data import pipeline
from tfvid.data.clip_format import ClipFormat
from tfvid.data.formats import ReadOptions, clip_length, clip_spec
from tfvid.data.google_robot import GoogleRobotFormat
from tfvid.data.groups import PROGRESS_FOLDER
from tfvid.data.index import build_index, save_index
from tfvid.data.kth_records import KthFormat, Ucf101Format
from tfvid.data.preparation import PREPARATIONS
from tfvid.data.prepare import prepare
from tfvid.data.records import INFO_FILE, SPLITS, DataError, data_error_line, is_folder
from tfvid.data.softmotion import BairFormat, CartgripperFormat
from tfvid.data.sv2p import Sv2pFormat
from tfvid.data.verify import sound_records

# Original formats that are read as they are, by the name of the data set.
FORMATS = {
    "bair": BairFormat,
    "softmotion": BairFormat,
    "cartgripper": CartgripperFormat,
    "kth": KthFormat,
    "ucf101": Ucf101Format,
    "sv2p": Sv2pFormat,
    "google_robot": GoogleRobotFormat,
}

DEMO = "python scripts/train.py --model=savp --hparams=hparams/demo/savp.json"
_FETCH = "bash data/download_and_preprocess_dataset.sh {name}"
_PREPARE = "python scripts/prepare_data.py --dataset={name} --source_dir=DIR --output_dir={folder}"
_RECORD = "python scripts/prepare_data.py --dataset={name} --output_dir={folder}"
# Data sets that are generated on first use, by their `Preparation`.
DEMOS = tuple(name for name in PREPARATIONS if name.startswith("demo"))
HOW_TO_GET = {"bair": _FETCH, "softmotion": _FETCH, "kth": _FETCH, "breakout": _RECORD}


def open_source(dataset, input_dir=None, skip_corrupt=False):
    """Opens the records of a data set.

    Args:
      dataset: name; one of DEMOS is generated on first use.
      input_dir: its folder, with `{train,val,test}/*.tfrecord*` or with the files
        themselves; default data/<dataset>. One with a dataset_info.json may have any name.
      skip_corrupt: leave broken records out instead of failing. The whole data set is
        then read and checked first; what is left out is counted and named.

    Raises:
      DataError: no such folder, or nothing in it that can be read.
    """
    folder = os.fspath(input_dir) if input_dir else os.path.join("data", dataset)
    if dataset in DEMOS and _not_made(folder):
        logging.warning("%s: making the data set %s (a few seconds)", folder, dataset)
        prepare(dataset, None, folder, processes=0, progress=False, wait=True)
    if not is_folder(folder):
        raise DataError(
            f"{folder}: expected the {dataset} data set, found no such folder; {how_to_get(dataset, folder)}"
        )
    if tf.io.gfile.exists(os.path.join(folder, INFO_FILE)):
        return Source(dataset, folder, ClipFormat(folder), skip_corrupt)
    if dataset not in FORMATS:
        raise DataError(
            f"{folder}: expected a {INFO_FILE} as prepare_data writes it, or one of the data sets"
            f" {', '.join(sorted(FORMATS))}, which are read as they are. Received: {dataset!r};"
            f" {how_to_get(dataset, folder)}"
        )
    return Source(dataset, folder, FORMATS[dataset](folder), skip_corrupt)


def _not_made(folder):
    """Whether a generated data set is not there, or was begun and interrupted."""
    if not tf.io.gfile.exists(folder):
        return True
    begun = tf.io.gfile.exists(os.path.join(folder, PROGRESS_FOLDER))
    return begun and not tf.io.gfile.exists(os.path.join(folder, INFO_FILE))


def how_to_get(dataset, folder):
    """Which command fetches or makes a data set, and which demo needs none."""
    command = HOW_TO_GET.get(dataset, _PREPARE).format(name=dataset, folder=folder)
    return f"get it with `{command}`, or run the demo, which needs no data: `{DEMO}`"


class Source:
    """The records of one data set.

    Attributes:
      name: of the data set.
      folder: where it lies.
      format: how its records are read (`tfvid.data.formats.Format`).
      info: `DatasetInfo`, or None for an original format.
      fps: frames per second of the clips where that is known, else None.
    """

    def __init__(self, name, folder, fmt, skip_corrupt=False):
        self.name = name
        self.folder = folder
        self.format = fmt
        self.info = getattr(fmt, "info", None)
        self.fps = self.info.fps if self.info else None
        self._skip_corrupt = skip_corrupt
        self._indices = {}
        self._known_layout = None
        self._folders = [folder] + [os.path.join(folder, s) for s in fmt.SUBFOLDERS]

    def defaults(self):
        """Data-set hyper-parameters, for `HParams.with_dataset_defaults`."""
        return self.format.defaults()

    def spec(self, hparams, length=None):
        """{key: tf.TensorSpec} of a clip, without batch axis.

        Args:
          hparams: its data-set fields; those that are None take `defaults()`.
          length: frames of a clip; None: `sequence_length`; 0: the longest possible.
        """
        options = self._options(hparams, length)
        return self._described(lambda: clip_spec(self.format, self._layout(), options), self._first_file())

    def splits(self):
        """The names of the splits that have files."""
        return [s for s in SPLITS if self.files(s)]

    def files(self, split):
        """Paths of a split's files, by name; empty where there are none."""
        return self.format.select(split, self._find)

    def count(self, split, hparams=None, length=None):
        """Clips of a split; with hyper-parameters only those that are long enough."""
        index = self._index(split)
        return len(index) if hparams is None else len(self._eligible(split, self._options(hparams, length)))

    def training_batches(self, split, hparams, batch_size, seed, start_step=0, shard=(0, 1)):
        """Endless batches, a pure function of (seed, step); see `tfvid.data.pipeline`.

        Args:
          batch_size: of this worker: worker i of n (`shard`) gets the i-th part of the
            batch that one process with `n * batch_size` would get.
          start_step: the step of the first batch; resuming reads nothing before it.

        Returns:
          `tf.data.Dataset` of {key: [batch_size, ...]}.
        """
        options = self._options(hparams)
        index = self._eligible(split, options)
        return pipeline.training_batches(
            self.format, self._layout(), options, index, batch_size, seed, start_step, shard
        )

    def evaluation_batches(
        self, split, hparams, batch_size, length=None, limit=None, shard=(0, 1), offsets="hashed", shuffle=None
    ):
        """Every clip once in a fixed order; see `tfvid.data.pipeline.evaluation_batches`.

        Args:
          shuffle: whether that order is a permutation of the records'; default: that of `val`, if the
            hyper-parameter shuffle_on_val says so.

        Returns:
          `tf.data.Dataset` of {key: [batch_size, ...], "index": [B] int64, "valid": [B] bool}.
        """
        options = self._options(hparams, length)
        index = self._eligible(split, options)
        if shuffle is None:
            shuffle = split == "val" and self._value(hparams, "shuffle_on_val")
        return pipeline.evaluation_batches(
            self.format, self._layout(), options, index, batch_size, limit, shard, offsets, shuffle
        )

    def _options(self, hparams, length=None):
        return ReadOptions.of(hparams, self.defaults(), length)

    def _value(self, hparams, name):
        value = getattr(hparams, name, None)
        return self.defaults()[name] if value is None else value

    def _find(self, *names):
        """Record files in the first of the folders `names`; else in the data set's own."""
        for folder in self._folders:
            for name in names:
                files = record_files(os.path.join(folder, name))
                if files:
                    return files
        return []

    def _index(self, split):
        if split not in SPLITS:
            raise DataError(f"split: expected one of {', '.join(SPLITS)}. Received: {split!r}")
        if split not in self._indices:
            self._indices[split] = self._open_index(split)
        return self._indices[split]

    def _open_index(self, split):
        files = self.files(split)
        if not files:
            there = self.splits()
            have = f"; it has {', '.join(there)}" if there else ""
            raise DataError(
                f"{os.path.join(self.folder, split)}: expected *.tfrecord* files of the {self.name} data set,"
                f" found none{have}; {self.format.hint(split) or how_to_get(self.name, self.folder)}"
            )
        index = build_index(files)
        if not len(index):
            raise DataError(f"{files[0]}: expected records, found an empty file")
        if self.info:
            self._compare_counts(split, index)
        if self._skip_corrupt:
            index = index.take(np.flatnonzero(sound_records(self.format, self._layout(), index)))
        return index

    def _compare_counts(self, split, index):
        """Says so where the files hold other clips than were written; an empty file is an error."""
        entry = self.info.splits.get(split, {"clips": 0, "files": {}})
        for file, clips in zip(index.files, np.bincount(index.file, minlength=len(index.files))):
            written = entry["files"].get(os.path.basename(file), {"clips": 0})["clips"]
            if written and not clips and not self._skip_corrupt:
                raise DataError(f"{file}: expected {written} clips as {INFO_FILE} says, found an empty file")
        if len(index) != entry["clips"]:
            logging.warning(
                "%s: %d clips, %s says %d; prepare_data.py --verify names the file", os.path.dirname(index.files[0]),
                len(index), INFO_FILE, entry["clips"],
            )  # fmt: skip

    def _eligible(self, split, options):
        """The index of the records that are long enough for a clip."""
        index, layout = self._index(split), self._layout()
        length = self._described(lambda: clip_length(layout, options), index.files[0])
        if layout.length is not None:
            return index
        if index.frames is None:
            index = self._indices[split] = self._with_frames(split, index)
        enough = index.frames >= options.span(length)
        if not enough.any():
            raise DataError(
                f"{os.path.dirname(index.files[0])}: expected clips of at least {options.span(length)} frames"
                f" (sequence_length {length}, frame_skip {options.frame_skip}), the longest has {index.frames.max()}"
            )
        return index.take(enough)

    def _with_frames(self, split, index):
        folder = os.path.dirname(index.files[0])
        known = self.format.known_frames(index, folder)
        if known is not None:
            return index.with_frames(known)
        logging.info("%s: reading the length of %d clips once", folder, len(index))
        try:
            index = index.with_frames(pipeline.frame_counts(self.format, index))
        except tf.errors.OpError as e:
            line = data_error_line(e)
            if line is None:
                raise
            raise DataError(line) from None
        try:
            save_index(folder, index)
        except (OSError, tf.errors.OpError) as e:
            logging.info("%s: cannot keep the index there (%s)", folder, e)
        return index

    def _first_file(self):
        for split in SPLITS:
            files = self.files(split)
            if files:
                return files[0]
        return self._index("train").files[0]  # raises: no split has a file

    def _layout(self):
        """From the first record of the first file that has one."""
        if self._known_layout is None:
            for split in SPLITS:
                for file in self.files(split):
                    index = build_index([file])
                    for i in range(len(index)):
                        try:
                            self._known_layout = self.format.layout(index.read(i), index.name(i))
                            return self._known_layout
                        except DataError as e:
                            if not self._skip_corrupt:
                                raise
                            logging.warning("left out: %s", e)
            raise DataError(f"{self._first_file()}: expected records, found an empty file")
        return self._known_layout

    def _described(self, function, file):
        """Calls `function`; its DataError is said to be of `file`."""
        try:
            return function()
        except DataError as e:
            raise DataError(f"{file}: {e}") from None


def record_files(folder):
    """TFRecord files of a folder by name, without hidden and unfinished ones."""
    if not tf.io.gfile.isdir(folder):
        return []
    names = [n for n in tf.io.gfile.listdir(folder) if ".tfrecord" in n and not n.startswith(".")]
    return [os.path.join(folder, n) for n in sorted(names) if not tf.io.gfile.isdir(os.path.join(folder, n))]
