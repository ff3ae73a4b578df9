"""TensorFlow 1 checkpoints: both formats, every way to name them, one line where something is wrong."""

import shutil

import numpy as np
import pytest

from tests.conversion.tf1 import write_checkpoint
from tfvid.conversion import tf1_checkpoint
from tfvid.errors import UserError

TENSORS = {
    "generator/conv/kernel": np.arange(60, dtype=np.float32).reshape(3, 4, 5),
    "generator/conv/kernel/Adam": np.zeros((3, 4, 5), np.float32),
    "global_step": np.array(70000, np.int64),
}


def _check(result):
    assert set(result) == set(TENSORS)
    for name, array in TENSORS.items():
        np.testing.assert_array_equal(result[name], array)
        assert result[name].dtype == array.dtype


@pytest.mark.parametrize("v1", [False, True])
def test_every_way_to_name_a_checkpoint(tmp_path, v1):
    prefix = write_checkpoint(tmp_path / "logs" / "model-70000", TENSORS, v1)
    _check(tf1_checkpoint.read(prefix))
    _check(tf1_checkpoint.read(prefix + ".meta"))
    _check(tf1_checkpoint.read(str(tmp_path / "logs")))
    if not v1:
        _check(tf1_checkpoint.read(prefix + ".index"))
        _check(tf1_checkpoint.read(prefix + ".data-00000-of-00001"))


def test_a_folder_that_was_moved(tmp_path):
    write_checkpoint(tmp_path / "there" / "model-70000", TENSORS)
    state = tmp_path / "there" / "checkpoint"
    state.write_text('model_checkpoint_path: "/home/somebody/logs/model-70000"\n')
    shutil.move(tmp_path / "there", tmp_path / "here")
    _check(tf1_checkpoint.read(str(tmp_path / "here")))


def test_a_folder_without_the_checkpoint_file(tmp_path):
    write_checkpoint(tmp_path / "model-1", TENSORS, latest=False)
    _check(tf1_checkpoint.read(str(tmp_path)))
    write_checkpoint(tmp_path / "model-2", TENSORS, latest=False)
    with pytest.raises(UserError, match="found model-1, model-2; name one of them"):
        tf1_checkpoint.read(str(tmp_path))


def test_nothing_there(tmp_path):
    for path in ("none", "none/model-1", "."):
        with pytest.raises(UserError, match="found none"):
            tf1_checkpoint.read(str(tmp_path / path))


def test_half_a_checkpoint(tmp_path):
    prefix = write_checkpoint(tmp_path / "model-1", TENSORS)
    (tmp_path / "model-1.data-00000-of-00001").rename(tmp_path / "data")
    with pytest.raises(UserError, match=r"found .*model-1\.index without"):
        tf1_checkpoint.read(prefix)
    (tmp_path / "data").rename(tmp_path / "model-1.data-00000-of-00001")
    (tmp_path / "model-1.index").unlink()
    with pytest.raises(UserError, match=r"without .*model-1\.index"):
        tf1_checkpoint.read(prefix)


def test_a_checkpoint_file_that_names_another(tmp_path):
    write_checkpoint(tmp_path / "model-1", TENSORS)
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "model-2"\n')
    with pytest.raises(UserError, match="names 'model-2', which is not in"):
        tf1_checkpoint.read(str(tmp_path))
    (tmp_path / "checkpoint").write_bytes(b"\x00\xff nonsense")
    with pytest.raises(UserError, match="expected a line model_checkpoint_path"):
        tf1_checkpoint.read(str(tmp_path))


@pytest.mark.parametrize("name", ["model-1.index", "model-1.data-00000-of-00001"])
def test_truncated_files(tmp_path, name):
    prefix = write_checkpoint(tmp_path / "model-1", TENSORS)
    data = (tmp_path / name).read_bytes()
    for end in range(0, len(data), max(1, len(data) // 9)):
        (tmp_path / name).write_bytes(data[:end])
        with pytest.raises(UserError, match="cannot read it as a TensorFlow checkpoint") as e:
            tf1_checkpoint.read(prefix)
        assert "\n" not in str(e.value)


def test_flipped_bits_are_found(tmp_path):
    prefix = write_checkpoint(tmp_path / "model-1", TENSORS)
    path = tmp_path / "model-1.data-00000-of-00001"
    data = bytearray(path.read_bytes())
    data[40] ^= 4
    path.write_bytes(data)
    with pytest.raises(
        UserError, match="cannot read it as a TensorFlow checkpoint at variable 'generator/conv/kernel'"
    ):
        tf1_checkpoint.read(prefix)


def test_another_kind_of_file(tmp_path):
    for content in (b"", b"PK\x03\x04 a zip archive", b"text\n" * 99):
        (tmp_path / "model").write_bytes(content)
        with pytest.raises(UserError, match="cannot read it as a TensorFlow checkpoint"):
            tf1_checkpoint.read(str(tmp_path / "model"))
