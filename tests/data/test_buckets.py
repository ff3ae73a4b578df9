"""A bucket that cannot be reached is another mistake than a folder that is not there."""

import pytest
import tensorflow as tf

from tfvid import cli
from tfvid.data.preparation import make_preparation
from tfvid.data.records import is_folder
from tfvid.data.source import open_source
from tfvid.errors import UserError

WHY = "Error executing an HTTP request: Could not resolve host\n\t when reading metadata of gs://nobody/data"


@pytest.fixture
def unreachable(monkeypatch):
    """TensorFlow's answers of gs:// without a network: isdir says False, exists says why."""

    def exists(path):
        raise tf.errors.FailedPreconditionError(None, None, WHY)

    monkeypatch.setattr(tf.io.gfile, "isdir", lambda path: False)
    monkeypatch.setattr(tf.io.gfile, "exists", exists)


@pytest.mark.parametrize(
    "opens", [lambda path: open_source("bair", path), lambda path: make_preparation("kth", path, {})], ids=["read", "prepare"]
)
def test_the_reason_is_told(unreachable, capsys, opens):
    with pytest.raises(tf.errors.FailedPreconditionError) as e:
        opens("gs://nobody/data")
    with pytest.raises(SystemExit):
        cli.fail(cli._io_failure(e.value))
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "Could not resolve host when reading metadata of gs://nobody/data" in error


def test_a_folder_that_is_not_there_is_still_that(tmp_path):
    assert is_folder(str(tmp_path)) and not is_folder("ram://nothing/here") and not is_folder(str(tmp_path / "none"))
    with pytest.raises(UserError, match="found no such folder"):
        open_source("bair", str(tmp_path / "none"))
