"""Truncated, bit-flipped, missing and misshapen records: one line that names the file."""

import json
import os
import shutil
import unittest

import numpy as np
import pytest
import tensorflow as tf

from tfvid.data import records
from tfvid.data import source as source_lib
from tfvid.data.index import build_index, masked_crc32c, scan_file
from tfvid.data.records import DataError, data_error_line
from tfvid.data.source import open_source
from tfvid.data.verify import verify_source


@pytest.fixture
def copy(demo_folder, tmp_path):
    """A copy that a test may break."""
    return shutil.copytree(demo_folder, tmp_path / "demo")


def _flip(path, position, bit=3):
    data = bytearray(path.read_bytes())
    data[position] ^= 1 << bit
    path.write_bytes(bytes(data))


def _stream_error(source, hparams, split="train"):
    with pytest.raises(tf.errors.OpError) as caught:
        for _ in source.training_batches(split, hparams, 4, seed=0).take(9):
            pass
    return data_error_line(caught.value)


def test_flipped_bit_names_file_and_record(copy, hparams_of):
    path = copy / "train" / "clips-00001-of-00004.tfrecord"
    offsets, _ = scan_file(str(path))
    _flip(path, offsets[2] + 200)
    line = _stream_error(open_source("demo", copy), hparams_of(open_source("demo", copy), sequence_length=3))
    assert line.startswith(f"{path}: record 2 at byte {offsets[2]}: its content does not match its checksum")
    with pytest.raises(DataError, match=f"{path}: record 2"):
        verify_source(open_source("demo", copy), progress=False)


def test_flipped_length_is_found_before_training(copy, hparams_of):
    path = copy / "train" / "clips-00002-of-00004.tfrecord"
    offsets, _ = scan_file(str(path))
    _flip(path, offsets[1] + 1)
    (copy / "train" / records.INDEX_FILE).unlink()
    source = open_source("demo", copy)
    with pytest.raises(DataError, match=f"{path}: record 1 at byte {offsets[1]}: the record's length"):
        source.training_batches("train", hparams_of(source), 2, seed=0)


def test_truncated_file_is_found_before_training(copy, hparams_of):
    path = copy / "train" / "clips-00003-of-00004.tfrecord"
    data = path.read_bytes()
    offsets, _ = scan_file(str(path))
    source = open_source("demo", copy)
    for size in (len(data) - 5, offsets[1] + 7):
        path.write_bytes(data[:size])
        with pytest.raises(DataError, match=f"{path}: record 1 at byte {offsets[1]}: .*truncated at {size}"):
            source.training_batches("train", hparams_of(source), 2, seed=0)


def test_skipping_leaves_out_one_record_and_counts(copy, hparams_of):
    path = copy / "train" / "clips-00000-of-00004.tfrecord"
    offsets, _ = scan_file(str(path))
    _flip(path, offsets[0] + 100)
    source = open_source("demo", copy, skip_corrupt=True)
    with unittest.TestCase().assertLogs("absl", "WARNING") as logs:
        assert source.count("train") == 10
    assert f"{path}: record 0" in logs.output[0] and "left out 1 broken records of 11" in logs.output[-1]
    hparams = hparams_of(source, sequence_length=7)
    batches = list(source.training_batches("train", hparams, 10, seed=0).take(1))
    assert len({clip.tobytes() for clip in batches[0]["images"].numpy()}) == 10


def test_record_of_another_shape_names_the_file(copy, hparams_of):
    path = copy / "train" / "clips-00003-of-00004.tfrecord"
    clip = {"images": np.zeros([7, 8, 8, 3], np.uint8), "action_labels": np.zeros(6)}
    clip |= {"actions": np.zeros([6, 2]), "states": np.zeros([7, 2]), "boxes": np.zeros([7, 3, 4])}
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(records.encode_clip(clip, "small")[0])
    source = open_source("demo", copy)
    line = _stream_error(source, hparams_of(source, sequence_length=3))
    assert line.startswith(f"{path}: record 0: expected frames of 16 x 16 x 3 = 768 bytes, received 192")


def test_record_without_a_key_names_the_file(copy, hparams_of):
    path = copy / "train" / "clips-00003-of-00004.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(records.encode_clip({"images": np.zeros([7, 16, 16, 3], np.uint8)}, "bare")[0])
    source = open_source("demo", copy)
    line = _stream_error(source, hparams_of(source, sequence_length=3))
    assert f"{path}: record 0: action_labels: expected 6 steps as the frames have, received 0" in line


def test_record_that_is_no_example_names_the_file(copy, hparams_of):
    path = copy / "train" / "clips-00003-of-00004.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(b"\xff\xff nothing of the kind")
    source = open_source("demo", copy)
    assert f"{path}: record 0" in _stream_error(source, hparams_of(source, sequence_length=3))


def test_clip_that_is_too_short_names_the_file(demo, hparams_of):
    with pytest.raises(DataError, match=r"\.tfrecord: clips of 8 frames .* need 8 frames.* have 7 frames"):
        demo.spec(hparams_of(demo, sequence_length=8))
    with pytest.raises(DataError, match="frame_skip=2 need 10 frames"):
        demo.training_batches("train", hparams_of(demo, sequence_length=4, frame_skip=2), 2, seed=0)


def test_missing_data_says_how_to_get_them(tmp_path):
    with pytest.raises(DataError) as caught:
        open_source("bair", tmp_path / "bair")
    message = str(caught.value)
    assert "bash data/download_and_preprocess_dataset.sh bair" in message
    assert "python scripts/train.py --model=savp --hparams=hparams/demo/savp.json" in message
    assert "\n" not in message
    with pytest.raises(DataError, match="prepare_data.py --dataset=breakout --output_dir="):
        open_source("breakout", tmp_path / "breakout")


def test_empty_folder_empty_split_and_empty_file(tmp_path, demo, hparams_of):
    source = open_source("kth", tmp_path)
    with pytest.raises(DataError, match=r"expected \*\.tfrecord\* files of the kth data set, found none"):
        source.count("train")
    with pytest.raises(DataError, match="split: expected one of train, val, test"):
        demo.count("training")
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "a.tfrecord").touch()
    with pytest.raises(DataError, match="a.tfrecord: expected records, found an empty file"):
        source.spec(hparams_of(source))
    with pytest.raises(DataError, match="test.*found none; it has train"):
        source.count("test")


def test_unknown_data_set_without_description(tmp_path):
    with pytest.raises(DataError, match="expected a dataset_info.json .* Received: 'bairr'"):
        open_source("bairr", tmp_path)


def test_gzip_and_foreign_files_are_named(tmp_path):
    import gzip

    path = tmp_path / "a.tfrecord"
    path.write_bytes(gzip.compress(b"x" * 1000))
    with pytest.raises(DataError, match="a.tfrecord: expected an uncompressed TFRecord file, received a GZIP"):
        build_index([str(path)])
    path.write_bytes(b"just some text that is no record at all")
    with pytest.raises(DataError, match="a.tfrecord: record 0 at byte 0: the record's length"):
        build_index([str(path)])


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"format": 9}', '{"format": 1, "schema": {"images": {"shape": [1]}}}']
)
def test_damaged_description_is_named(copy, text):
    (copy / records.INFO_FILE).write_text(text)
    with pytest.raises(DataError, match="dataset_info.json"):
        open_source("demo", copy)


def test_verify_compares_with_the_description(copy):
    assert verify_source(open_source("demo", copy), progress=False)["train"] == {"clips": 11, "frames": 77}
    os.rename(copy / "train" / "clips-00001-of-00004.tfrecord", copy / "train" / "stranger.tfrecord")
    with pytest.raises(DataError, match="stranger.tfrecord: dataset_info.json does not list this file"):
        verify_source(open_source("demo", copy), progress=False)
    (copy / "train" / "stranger.tfrecord").unlink()
    with pytest.raises(DataError, match="clips-00001-of-00004.tfrecord: expected this file, found none"):
        verify_source(open_source("demo", copy), progress=False)


def test_an_empty_file_is_an_error_and_other_counts_a_warning(copy, hparams_of, monkeypatch):
    said = []
    monkeypatch.setattr(source_lib.logging, "warning", lambda text, *args: said.append(text % args))
    (copy / "train" / "clips-00001-of-00004.tfrecord").unlink()
    assert open_source("demo", copy).count("train") == 8
    assert [line.split("/")[-1] for line in said] == [
        "train: 8 clips, dataset_info.json says 11; prepare_data.py --verify names the file"
    ]
    (copy / "train" / "clips-00002-of-00004.tfrecord").write_bytes(b"")
    with pytest.raises(DataError, match="clips-00002-of-00004.tfrecord: expected 3 clips as .* found an empty file"):
        open_source("demo", copy).count("train")
    assert open_source("demo", copy, skip_corrupt=True).count("train") == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bytes": None}, "index.json: cannot read it"),
        ({"offsets": ["a"], "frames": None}, "offsets that are no places"),
        ({"offsets": [10**30], "frames": None}, "offsets that are no places"),
        ({"offsets": [0, 5], "frames": None}, "offsets that are no places"),
        ({"offsets": [0], "frames": ["a"]}, "frames that are no numbers"),
    ],
)
def test_damaged_index_is_named(copy, change, message):
    path = copy / "train" / records.INDEX_FILE
    files = json.loads(path.read_text())["files"]
    files["clips-00000-of-00004.tfrecord"].update(change)
    path.write_text(json.dumps({"files": files}))
    with pytest.raises(DataError, match=message):
        open_source("demo", copy).count("train")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fps": "x"}, "fps: expected a number or null. Received: 'x'"),
        ({"clip_length": "7"}, "clip_length: expected an integer or null. Received: '7'"),
        ({"splits": {"train": 3}}, "expected what prepare_data writes"),
        ({"splits": {"train": {"files": {"a": {"clips": "x", "bytes": 1}}}}}, "splits: train: a: clips: expected an"),
        ({"labels": {"action_labels": 3}}, "labels: action_labels: expected a list of names. Received: 3"),
        ({"defaults": {"time_shift": "two"}}, "dataset_info.json: defaults: .*time_shift: expected integer"),
        ({"schema": {"images": {"shape": ["T", 8, 8, 3], "encoding": "bmp"}}}, "encoding: expected raw, png or jpeg"),
        ({"schema": {"images": {"shape": ["T", -8, 8, 3], "encoding": "raw"}}}, "shape: expected positive sizes"),
    ],
)
def test_edited_description_is_named(copy, change, message):
    document = json.loads((copy / records.INFO_FILE).read_text())
    (copy / records.INFO_FILE).write_text(json.dumps({**document, **change}))
    with pytest.raises(DataError, match=message) as caught:
        open_source("demo", copy)
    assert str(caught.value).startswith(str(copy / records.INFO_FILE)) and "\n" not in str(caught.value)


def test_index_serves_only_while_sizes_stay(copy, hparams_of):
    path = copy / "train" / "clips-00000-of-00004.tfrecord"
    shutil.copyfile(copy / "train" / "clips-00003-of-00004.tfrecord", path)  # two clips instead of three
    assert open_source("demo", copy).count("train") == 10


def test_checksum_is_that_of_tfrecord_files():
    # The masked CRC-32C of eight zero bytes and of the check string of the CRC catalogue.
    crc = 0xE3069283  # CRC-32C of "123456789"
    assert masked_crc32c(b"123456789") == (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
