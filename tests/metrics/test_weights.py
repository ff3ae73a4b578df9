"""Downloading, converting and loading of networks; no network access."""

import dataclasses
import os
import pathlib
import re

import numpy as np
import pytest

from tfvid.errors import UserError
from tfvid.metrics import weights
from tfvid.metrics.lpips import LPIPS

torch = pytest.importorskip("torch")
WIDTHS = (2, 3, 4, 5, 6)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A small LPIPS in the table, with its published files on disk as file:// URLs."""
    rng = np.random.default_rng(0)
    shapes = {0: (2, 3, 11, 11), 3: (3, 2, 5, 5), 6: (4, 3, 3, 3), 8: (5, 4, 3, 3), 10: (6, 5, 3, 3)}
    backbone = {f"features.{i}.weight": torch.tensor(rng.normal(size=s)).float() for i, s in shapes.items()}
    backbone |= {f"features.{i}.bias": torch.zeros(s[0]) for i, s in shapes.items()}
    heads = {f"lin{i}.model.1.weight": torch.rand(1, w, 1, 1) for i, w in enumerate(WIDTHS)}
    files = []
    for name, state in (("a.pth", backbone), ("b.pth", heads)):
        path = str(tmp_path / name)
        torch.save(state, path)
        files.append(weights.PublishedFile(name, f"file://{path}", weights.sha256_of_file(path)))

    def build():
        network = LPIPS("alex", WIDTHS, dtype="float32")
        network.build()
        return network

    entry = weights.Network("a tiny LPIPS", tuple(files), build, lambda n, *s: n.load_torch(*s))
    monkeypatch.setitem(weights.NETWORKS, "tiny", entry)
    return entry, {**backbone, **heads}


def test_download_convert_load(tiny, tmp_path):
    entry, state = tiny
    folder = str(tmp_path / "weights")
    path = weights.download("tiny", folder, report=lambda line: None)
    assert path == os.path.join(folder, "tiny.npz")
    network = weights.load("tiny", folder)
    kernel = network.backbone.convolutions[1].kernel.numpy()
    np.testing.assert_array_equal(kernel, state["features.3.weight"].numpy().transpose(2, 3, 1, 0))
    np.testing.assert_array_equal(network.heads[4].numpy(), state["lin4.model.1.weight"].numpy().ravel())
    assert weights.checksum(network) == weights.checksum(weights.load("tiny", folder))
    network.heads[0].assign(network.heads[0] + 1)
    assert weights.checksum(network) != weights.checksum(weights.load("tiny", folder))


def test_another_sha256_keeps_nothing(tiny, tmp_path, monkeypatch):
    entry, _ = tiny
    wrong = dataclasses.replace(entry.files[0], sha256="0" * 64)
    monkeypatch.setitem(weights.NETWORKS, "tiny", dataclasses.replace(entry, files=(wrong, entry.files[1])))
    folder = str(tmp_path / "weights")
    with pytest.raises(UserError, match="expected SHA-256 0000.*nothing kept"):
        weights.download("tiny", folder, report=lambda line: None)
    assert os.listdir(os.path.join(folder, "downloads")) == []


def test_missing_weights_say_which_command_makes_them(tmp_path):
    with pytest.raises(weights.WeightsMissing, match="download_weights.py --network=lpips_alex"):
        weights.load("lpips_alex", str(tmp_path))


def test_files_of_another_network(tiny, tmp_path):
    entry, _ = tiny
    paths = [f.url.removeprefix("file://") for f in entry.files]
    with pytest.raises(UserError, match="not the weights of a tiny LPIPS: expected features.0.weight"):
        weights.convert("tiny", paths[::-1], str(tmp_path / "weights"))
    with pytest.raises(UserError, match="expected 2 files for tiny"):
        weights.convert("tiny", paths[:1], str(tmp_path / "weights"))
    with pytest.raises(UserError, match="expected one of lpips_alex"):
        weights.convert("lpipss", paths, str(tmp_path / "weights"))


def test_damaged_converted_file(tiny, tmp_path):
    folder = str(tmp_path / "weights")
    path = weights.download("tiny", folder, report=lambda line: None)
    data = pathlib.Path(path).read_bytes()
    pathlib.Path(path).write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="cannot read them"):
        weights.load("tiny", folder)


def test_unreachable_url(tiny, tmp_path, monkeypatch):
    entry, _ = tiny
    gone = dataclasses.replace(entry.files[0], url=f"file://{tmp_path}/gone.pth")
    monkeypatch.setitem(weights.NETWORKS, "tiny", dataclasses.replace(entry, files=(gone, entry.files[1])))
    with pytest.raises(UserError, match="cannot download it .*--source"):
        weights.download("tiny", str(tmp_path / "weights"), report=lambda line: None)


def test_every_published_file_is_pinned_by_a_whole_sha256():
    for name, network in weights.NETWORKS.items():
        for file in network.files:
            assert re.fullmatch(r"[0-9a-f]{64}", file.sha256), f"{name}: {file.name}"
            short = re.search(r"-([0-9a-f]{8})\.pth$", file.name)  # torchvision's names begin the digest
            assert short is None or file.sha256.startswith(short[1]), f"{name}: {file.name}"
