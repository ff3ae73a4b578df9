"""Small data sets that several tests read; none of them writes into these."""

import types

import pytest

from tfvid.data.prepare import prepare
from tfvid.data.source import open_source

TINY = {"size": 16, "clip_length": 7, "train_clips": 11, "val_clips": 2, "test_clips": 5}


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory):
    """A tiny demo data set whose train split has 4 files of 3, 3, 3 and 2 clips."""
    folder = str(tmp_path_factory.mktemp("data") / "demo")
    prepare("demo", None, folder, TINY, processes=0, progress=False, items_per_file=3)
    return folder


@pytest.fixture(scope="session")
def demo(demo_folder):
    return open_source("demo", demo_folder)


@pytest.fixture
def hparams_of():
    """Function: a source and changes -> an object with the data-set hyper-parameters."""

    def make(source, **changes):
        return types.SimpleNamespace(**{**source.defaults(), **changes})

    return make
