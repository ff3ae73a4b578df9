"""Encoding of clips and the description of a data set."""

import numpy as np
import pytest
import tensorflow as tf

from tfvid.data import records
from tfvid.data.prepare import prepare
from tfvid.data.records import DataError, DatasetInfo
from tfvid.data.source import open_source
from tfvid.data.verify import verify_source


def test_every_key_says_what_it_is():
    for name, key in records.KEYS.items():
        assert key.doc and np.dtype(key.dtype), name
        assert key.steps in ("T", "T-1", None)


@pytest.mark.parametrize("encoding", ["raw", "png", "jpeg"])
@pytest.mark.parametrize("channels", [1, 3])
def test_round_trip_through_records(tmp_path, hparams_of, encoding, channels):
    rng = np.random.default_rng(0)
    clip = {
        "images": np.tile(rng.integers(0, 256, [1, 3, 4, channels], np.uint8), [5, 4, 4, 1]),
        "actions": rng.normal(size=[4, 2]).astype(np.float32),
        "states": rng.normal(size=[5, 3]).astype(np.float32),
        "action_labels": rng.integers(0, 9, 4),
        "action_class": np.int32(7),
        "features": rng.normal(size=[5, 2, 3, 4]).astype(np.float32),
    }
    content, fields = records.encode_clip(clip, "one", encoding)
    (tmp_path / "test").mkdir()
    with tf.io.TFRecordWriter(str(tmp_path / "test" / "a.tfrecord")) as writer:
        writer.write(content)
    info = DatasetInfo("mine", "here", 10.0, fields, {}, {"sequence_length": 5, "use_state": True}, {})
    info.save(tmp_path)
    source = open_source("mine", tmp_path)
    assert source.fps == 10.0
    (batch,) = source.evaluation_batches("test", hparams_of(source), 1)
    for key, value in clip.items():
        read = batch[key][0].numpy()
        assert read.shape == np.shape(value) and read.dtype == records.KEYS[key].dtype, key
        if key == "images" and encoding == "jpeg":
            continue  # lossy; its size and place are what matters
        np.testing.assert_array_equal(read, value)


def test_encoding_by_size():
    assert records.choose_encoding("auto", 64, 64) == "raw"
    assert records.choose_encoding("auto", 65, 8) == "jpeg"
    assert records.choose_encoding("lossless", 65, 8) == "png"
    assert records.choose_encoding("png", 8, 8) == "png"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"action": np.zeros([3, 1])}, "expected keys of images, .* Received: 'action'"),
        ({"actions": np.zeros([4, 1])}, r"actions: expected axes \[T-1, A\] with T = 4. Received: shape \[4, 1\]"),
        ({"states": np.zeros([4])}, r"states: expected axes \[T, S\]"),
        ({"states": np.full([4, 1], np.nan)}, "states: expected finite numbers"),
    ],
)
def test_wrong_clip_is_one_line(changes, message):
    with pytest.raises(DataError, match=f"clip one: .*{message}|clip one: {message}"):
        records.encode_clip({"images": np.zeros([4, 8, 8, 3], np.uint8), **changes}, "one")


def test_ram_file_system_round_trip(hparams_of):
    options = {"size": 16, "clip_length": 4, "train_clips": 3, "val_clips": 0, "test_clips": 1}
    info = prepare("demo", None, "ram://data/demo", options, progress=False)
    source = open_source("demo", "ram://data/demo")
    assert source.splits() == ["train", "test"] and info.splits["train"]["clips"] == 3
    batch = next(iter(source.training_batches("train", hparams_of(source, sequence_length=3), 2, seed=0)))
    assert batch["images"].shape == (2, 3, 16, 16, 3)
    assert verify_source(source, progress=False)["test"]["clips"] == 1


def test_write_atomically_leaves_no_other_file(tmp_path):
    records.write_atomically(str(tmp_path / "a.json"), "{}")
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
