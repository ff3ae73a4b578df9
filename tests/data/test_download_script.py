"""The download script without a network: its words for a wrong call, and the layout it makes of BAIR."""

import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import tensorflow as tf

SCRIPT = pathlib.Path(__file__).parents[2] / "data" / "download_and_preprocess_dataset.sh"


def _run(root, *arguments):
    return subprocess.run(["bash", str(root / "data" / SCRIPT.name), *arguments], capture_output=True, text=True)


def test_wrong_name_is_one_line():
    for arguments in ((), ("kitti",)):
        done = subprocess.run(["bash", str(SCRIPT), *arguments], capture_output=True, text=True)
        assert done.returncode == 1
        assert done.stderr.startswith("error: expected bair or kth") and done.stderr.count("\n") == 1


def test_bair_that_is_there_is_laid_out_and_checked(tmp_path):
    """A checkout whose data/bair holds the unpacked archive: validation is taken out of train."""
    root = tmp_path / "checkout"
    (root / "data").mkdir(parents=True)
    shutil.copy(SCRIPT, root / "data")
    (root / "scripts").symlink_to(SCRIPT.parents[1] / "scripts")
    (root / "tfvid").symlink_to(SCRIPT.parents[1] / "tfvid")
    (root / ".venv" / "bin").mkdir(parents=True)
    python = root / ".venv" / "bin" / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{root}" exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    features = {f"{t}/image_aux1/encoded": np.full(4 * 4 * 3, t, np.uint8).tobytes() for t in range(3)}
    feature = {k: tf.train.Feature(bytes_list=tf.train.BytesList(value=[v])) for k, v in features.items()}
    example = tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()
    names = {"train": ["traj_0_to_0", "traj_256_to_511"], "test": ["traj_0_to_0"]}
    for split, files in names.items():
        folder = root / "data" / "bair" / "softmotion30_44k" / split
        os.makedirs(folder)
        for name in files:
            with tf.io.TFRecordWriter(str(folder / f"{name}.tfrecords")) as writer:
                writer.write(example)
    done = _run(root, "bair")
    assert done.returncode == 0, done.stderr
    found = sorted(str(p.relative_to(root / "data" / "bair")) for p in (root / "data" / "bair").rglob("*.tfrecords"))
    assert found == ["test/traj_0_to_0.tfrecords", "train/traj_0_to_0.tfrecords", "val/traj_256_to_511.tfrecords"]
    assert "data/bair/val: 1 clips, 3 frames, every record checked" in done.stdout
