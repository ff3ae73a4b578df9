"""The recorded `datasets` case: original record files and the batches that their readers made."""

import pathlib
import tempfile
import types

import numpy as np

from tfvid.data.records import SPLITS
from tfvid.data.source import open_source

# float32 division by 255 against the recorded one, and resizing in another TensorFlow.
TOLERANCE = 1e-7
SCALED_TOLERANCE = 1e-6


def check(case):
    """Every recorded set of options gives the recorded batches."""
    with tempfile.TemporaryDirectory() as folder:
        _check(case, pathlib.Path(folder))


def _check(case, tmp_path):
    files = case.under("file/")
    for name, meta in case.meta["cases"].items():
        expected = case.under(f"{name}/out/")
        folder = _write_files(tmp_path / name, meta, files)
        source = open_source(meta["dataset"], folder)
        hparams = types.SimpleNamespace(**source.defaults())
        for key, value in meta["hparams_dict"].items():
            setattr(hparams, key, value)
        for key, value in meta["all_hparams"].items():
            # The recorded programs write 0 as what it stands for.
            if getattr(hparams, key, 0) != 0:
                assert getattr(hparams, key) == value, f"{name}: {key}"
        _check_count(name, meta, source, hparams)
        _check_batches(name, meta, source, hparams, expected)


def _check_count(name, meta, source, hparams):
    """Against the recorded number, which the originals take from file names or, for kth, from lengths.

    For sv2p and google_robot they have constants of the published sets.
    """
    expected = meta["num_examples_per_epoch"]
    if meta["dataset"] == "kth":
        assert source.count(meta["mode"], hparams) == expected, name
    elif meta["dataset"] not in ("sv2p", "google_robot"):
        assert source.count(meta["mode"]) == expected, name


def _write_files(root, meta, files):
    """Lays the recorded files out as the original programs wanted them; returns the folder.

    Files are recorded as `<set>/<name>`, where the set is the data set's name or, for
    sv2p, that and the name of the folder, which tells what is in it.
    """
    sets = {key.split("/")[0] for key in files}
    complete = [s for s in sets if all(f"{s}/{f}" in files for f in meta["files"])]
    named = [s for s in complete if root.name.startswith(s)] or [s for s in complete if s.startswith(meta["dataset"])]
    prefix = max(named or complete, key=len)
    folder = root / prefix.removeprefix(meta["dataset"]).lstrip("_") if meta["dataset"] == "sv2p" else root
    split = folder / meta["mode"]
    assert meta["mode"] in SPLITS
    split.mkdir(parents=True)
    for key, data in files.items():
        owner, file_name = key.split("/", 1)
        if owner == prefix and (file_name in meta["files"] or ".tfrecord" not in file_name):
            (split / file_name).write_bytes(data.tobytes())
    return str(folder)


def _check_batches(name, meta, source, hparams, expected):
    batches = source.evaluation_batches(meta["mode"], hparams, meta["batch_size"], offsets="middle")
    batches = [{k: v.numpy() for k, v in b.items()} for b in batches.take(meta["num_batches"])]
    assert len(batches) == meta["num_batches"], name
    spec = source.spec(hparams)
    assert set(spec) == set(expected), name
    for key, reference in expected.items():
        ours = np.concatenate([b[key] for b in batches])
        assert ours.shape[1:] == tuple(spec[key].shape), f"{name}: {key}"
        tolerance = TOLERANCE
        if key == "images":
            scaled = ours.dtype != np.uint8
            # A recorded bug: resized frames stay in 0..255.
            reference = reference / np.float32(255) if scaled else reference
            ours = ours if scaled else ours / np.float32(255)
            tolerance = SCALED_TOLERANCE if scaled else TOLERANCE
        assert ours.shape == reference.shape, f"{name}: {key}: {ours.shape} != {reference.shape}"
        difference = np.abs(ours - reference).max()
        assert difference <= tolerance, f"{name}: {key} differs by {difference}"
