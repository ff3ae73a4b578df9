"""PyTorch files are read as data: exact values, bounds checked, nothing executed."""

import io
import pathlib
import pickle  # tests alone write pickles, harmless and hostile ones; the package never loads one
import struct
import zipfile

import numpy as np
import pytest

from tests.parity.cases import BESIDE, BUNDLED
from tfvid.conversion import torch_file
from tfvid.conversion.pickle_reader import Opaque
from tfvid.errors import UserError

FOLDERS = [r / "actvae" / "checkpoints" for r in (BESIDE, BUNDLED)]
CHECKPOINTS = sorted(f for folder in FOLDERS if folder.is_dir() for f in folder.glob("*_*/*.pt"))


def _expected(path):
    """{last part of the name: arrays} recorded beside the original files."""
    kind = path.parent.name.rsplit("_", 1)[0]
    expected = {}
    with np.load(path.parent.parent / f"{kind}_expected.npz") as arrays:
        for key in arrays.files:
            expected.setdefault(key.split(".", 2)[2], []).append(arrays[key])
    return expected


@pytest.mark.parametrize("path", CHECKPOINTS, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_original_checkpoints(path):
    value = torch_file.read(str(path))
    if path.stem == "optimizer":
        assert all(set(part) == {"state", "param_groups"} for part in value.values())
        return
    expected = _expected(path)
    assert value["a"]
    for name, array in value["a"].items():
        assert any(a.dtype == array.dtype and np.array_equal(a, array) for a in expected[name]), name


# Files in both formats made by hand, so that these tests need no PyTorch.


class _Global:
    """Pickles as a call of any global, allowed or not."""

    def __init__(self, path, *arguments):
        self.path, self.arguments = path, arguments


class _Storage(_Global):
    def __init__(self, kind, key, count, view=None):
        self.kind, self.key, self.count, self.view = kind, key, count, view


def _assemble(value, legacy=False):
    """Protocol 2 of `value`, in which _Global and _Storage stand for what torch.save writes."""
    if isinstance(value, _Storage):
        parts = [
            "storage",
            _Raw(f"c{value.kind.rpartition('.')[0]}\n{value.kind.rpartition('.')[2]}\n"),
            value.key,
            "cpu",
        ]
        parts += [value.count] + ([value.view] if legacy else [])
        return b"(" + b"".join(_assemble(p, legacy) for p in parts) + b"tQ"
    if isinstance(value, _Raw):
        return value.text.encode()
    if isinstance(value, _Global):
        module, _, name = value.path.rpartition(".")
        return f"c{module}\n{name}\n".encode() + b"(" + b"".join(_assemble(a, legacy) for a in value.arguments) + b"tR"
    if isinstance(value, dict):
        return b"}(" + b"".join(_assemble(x, legacy) for pair in value.items() for x in pair) + b"u"
    if isinstance(value, tuple):
        return b"(" + b"".join(_assemble(x, legacy) for x in value) + b"t"
    return pickle.dumps(value, protocol=2)[2:-1]


class _Raw:
    def __init__(self, text):
        self.text = text


def _tensor(kind, key, count, size, stride, offset=0):
    storage = _Storage(f"torch.{kind}Storage", key, count)
    return _Global(
        "torch._utils._rebuild_tensor_v2", storage, offset, size, stride, False, _Global("collections.OrderedDict")
    )


def _zip(path, value, storages, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as z:
        z.writestr("archive/data.pkl", b"\x80\x02" + _assemble(value) + b".")
        z.writestr("archive/byteorder", "little")
        for key, data in storages.items():
            z.writestr(f"archive/data/{key}", data)
    return str(path)


def _legacy(path, value, storages):
    def dump(x):
        return pickle.dumps(x, protocol=2)

    parts = [dump(0x1950A86A20F9469CFC6C), dump(1001), dump({"protocol_version": 1001, "little_endian": True})]
    parts += [b"\x80\x02" + _assemble(value, legacy=True) + b".", dump(list(storages))]
    parts += [struct.pack("<q", count) + data for count, data in storages.values()]
    path.write_bytes(b"".join(parts))
    return str(path)


NUMBERS = np.arange(24, dtype=np.float32)


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_views_share_their_storage(tmp_path, form):
    value = {
        "all": _tensor("Float", "0", 24, (4, 6), (6, 1)),
        "part": _tensor("Float", "0", 24, (3, 2), (6, 3), 7),
        "transposed": _tensor("Float", "0", 24, (6, 4), (1, 6)),
        "expanded": _tensor("Float", "0", 24, (5, 2), (0, 1), 3),
        "parameter": _Global("torch._utils._rebuild_parameter", _tensor("Float", "0", 24, (2,), (1,)), True, ()),
        "none": _tensor("Float", "0", 24, (0, 3), (3, 1)),
        "scalar": _tensor("Float", "0", 24, (), (), 5),
        "step": 12,
    }
    if form == "zip":
        result = torch_file.read(_zip(tmp_path / "f.pt", value, {"0": NUMBERS.tobytes()}))
    else:
        result = torch_file.read(_legacy(tmp_path / "f.pt", value, {"0": (24, NUMBERS.tobytes())}))
    whole = NUMBERS.reshape(4, 6)
    np.testing.assert_array_equal(result["all"], whole)
    np.testing.assert_array_equal(result["part"], whole[1:, 1::3])
    np.testing.assert_array_equal(result["transposed"], whole.T)
    np.testing.assert_array_equal(result["expanded"], np.broadcast_to(NUMBERS[3:5], (5, 2)))
    np.testing.assert_array_equal(result["parameter"], NUMBERS[:2])
    assert result["none"].shape == (0, 3) and result["scalar"] == 5 and result["step"] == 12
    assert np.shares_memory(result["all"], result["part"]) and not result["all"].flags.writeable
    assert set(torch_file.flatten({"model": result, "list": [NUMBERS]})) == {"list.0"} | {
        f"model.{k}" for k in value if k != "step"
    }


def test_small_float_types(tmp_path):
    values = np.array([1.5, -2.25, 3e38], np.float32)
    bits = (values.view(np.uint32) >> 16).astype(np.uint16)
    halves = np.array([0.1, 65504], np.float16)
    value = {"b": _tensor("BFloat16", "0", 3, (3,), (1,)), "h": _tensor("Half", "1", 2, (2,), (1,))}
    result = torch_file.read(_zip(tmp_path / "f.pt", value, {"0": bits.tobytes(), "1": halves.tobytes()}))
    np.testing.assert_array_equal(result["b"].view(np.uint32), bits.astype(np.uint32) << 16)
    assert result["b"].dtype == np.float32
    np.testing.assert_array_equal(result["h"], halves)


def test_a_view_of_a_storage_in_the_older_format(tmp_path):
    storage = _Storage("torch.FloatStorage", "0", 24, view=("v", 6, 12))
    value = {"a": _Global("torch._utils._rebuild_tensor", storage, 0, (12,), (1,))}
    result = torch_file.read(_legacy(tmp_path / "f.pt", value, {"0": (24, NUMBERS.tobytes())}))
    np.testing.assert_array_equal(result["a"], NUMBERS[6:18])


@pytest.mark.parametrize(
    "path", ["os.system", "builtins.eval", "numpy.core.multiarray.scalar", "torch.nn.modules.linear.Linear"]
)
@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_other_globals_are_refused_by_name(tmp_path, path, form):
    marker = tmp_path / "executed"
    value = {"a": _Global(path, f"touch {marker}")}
    file = _zip(tmp_path / "f.pt", value, {}) if form == "zip" else _legacy(tmp_path / "f.pt", value, {})
    with pytest.raises(UserError, match=rf"f\.pt.*refused: it names '{path}'"):
        torch_file.read(file)
    assert not marker.exists()


def test_storages_and_types_cannot_be_called(tmp_path):
    with pytest.raises(UserError, match="refused: it calls 'torch.FloatStorage'"):
        torch_file.read(_zip(tmp_path / "f.pt", {"a": _Global("torch.FloatStorage", 10**12)}, {}))


def test_opaque_objects_are_placeholders(tmp_path):
    value = {"callbacks": _Global("lightning.callbacks.Checkpoint", 3), "x": _tensor("Float", "0", 24, (24,), (1,))}
    file = _zip(tmp_path / "f.pt", value, {"0": NUMBERS.tobytes()})
    result = torch_file.read(file, opaque=("lightning",))
    assert isinstance(result["callbacks"], Opaque) and result["callbacks"].path == "lightning.callbacks.Checkpoint"
    assert list(torch_file.flatten(result)) == ["x"]
    with pytest.raises(UserError, match="lightning.callbacks.Checkpoint"):
        torch_file.read(file, opaque=("light",))


BAD_TENSORS = {
    "beyond": (24, (4, 7), (6, 1), 0),
    "offset": (24, (1,), (1,), 24),
    "negative_stride": (24, (2,), (-1,), 5),
    "negative_offset": (24, (2,), (1,), -2),
    "bomb": (24, (10**6, 10**6), (0, 0), 0),
    "claimed_storage": (10**15, (10**15,), (1,), 0),
    "ranks": (24, (2, 2), (1,), 0),
    "not_integer": (24, (2.0,), (1,), 0),
}


@pytest.mark.parametrize("name", BAD_TENSORS)
@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_impossible_tensors(tmp_path, name, form):
    count, size, stride, offset = BAD_TENSORS[name]
    value = {"a": _tensor("Float", "0", count, size, stride, offset)}
    if form == "zip":
        file = _zip(tmp_path / "f.pt", value, {"0": NUMBERS.tobytes()})
    else:
        file = _legacy(tmp_path / "f.pt", value, {"0": (count, NUMBERS.tobytes())})
    with pytest.raises(UserError, match=r"f\.pt: cannot read it as a PyTorch file"):
        torch_file.read(file)


def _bytes_of(tmp_path, form):
    value = {"a": _tensor("Float", "0", 24, (4, 6), (6, 1)), "name": "x"}
    if form == "zip":
        return pathlib.Path(_zip(tmp_path / "good.pt", value, {"0": NUMBERS.tobytes()})).read_bytes()
    return pathlib.Path(_legacy(tmp_path / "good.pt", value, {"0": (24, NUMBERS.tobytes())})).read_bytes()


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_truncated_anywhere(tmp_path, form):
    data = _bytes_of(tmp_path, form)
    for end in range(0, len(data), 7):
        (tmp_path / "cut.pt").write_bytes(data[:end])
        with pytest.raises(UserError, match=r"cut\.pt"):
            torch_file.read(str(tmp_path / "cut.pt"))


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_flipped_bits_are_one_line_or_harmless(tmp_path, form):
    data = bytearray(_bytes_of(tmp_path, form))
    refused = 0
    for position in range(0, len(data), 3):
        flipped = bytearray(data)
        flipped[position] ^= 0x41
        (tmp_path / "flipped.pt").write_bytes(flipped)
        try:
            torch_file.read(str(tmp_path / "flipped.pt"))
        except UserError as e:
            refused += 1
            assert "flipped.pt" in str(e) and "\n" not in str(e)
    assert refused > 50


def test_a_flipped_bit_in_a_tensor_of_an_archive_is_found(tmp_path):
    data = bytearray(_bytes_of(tmp_path, "zip"))
    position = data.find(NUMBERS.tobytes())
    data[position + 9] ^= 1
    (tmp_path / "f.pt").write_bytes(data)
    with pytest.raises(UserError, match=r"checksum of 'archive/data/0'"):
        torch_file.read(str(tmp_path / "f.pt"))


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "received an empty one"),
        (b"\x89HDF\r\n\x1a\n" + bytes(64), "neither a zip archive nor"),
        (b"just some text\n" * 9, "neither a zip archive nor"),
        (pickle.dumps({"a": 1}), "neither a zip archive nor"),
    ],
)
def test_other_files(tmp_path, content, message):
    (tmp_path / "f.pt").write_bytes(content)
    with pytest.raises(UserError, match=message):
        torch_file.read(str(tmp_path / "f.pt"))


def test_other_archives(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as z:
        z.writestr("a/b.txt", "x")
    (tmp_path / "f.pt").write_bytes(buffer.getvalue())
    with pytest.raises(UserError, match="without <name>/data.pkl"):
        torch_file.read(str(tmp_path / "f.pt"))
    value = {"a": _tensor("Float", "0", 24, (24,), (1,))}
    compressed = _zip(tmp_path / "c.pt", value, {"0": NUMBERS.tobytes()}, zipfile.ZIP_DEFLATED)
    with pytest.raises(UserError, match="compressed"):
        torch_file.read(compressed)
    with pytest.raises(UserError, match="has no entry 'archive/data/0'"):
        torch_file.read(_zip(tmp_path / "m.pt", value, {}))


def test_missing_file_and_directory(tmp_path):
    with pytest.raises(UserError, match="found none"):
        torch_file.read(str(tmp_path / "none.pt"))
    with pytest.raises(UserError, match="received a directory"):
        torch_file.read(str(tmp_path))


def test_structures_that_are_too_deep():
    value = leaf = []
    for _ in range(100):
        leaf.append([])
        leaf = leaf[0]
    with pytest.raises(UserError, match="too deep"):
        torch_file.flatten(value)
    value = [0] * 10
    for _ in range(40):  # by reference: small in memory, huge when walked through
        value = [value] * 10
    with pytest.raises(UserError, match="too deep or too large"):
        torch_file.flatten(value)


def test_files_written_by_pytorch(tmp_path):
    torch = pytest.importorskip("torch")
    numbers = torch.arange(24.0).reshape(4, 6)
    model = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(2, 2, 5, 5)).sum().backward()
    optimizer.step()
    tensors = {
        "view": numbers[1:, ::2], "transposed": numbers.t(), "expanded": torch.ones(1).expand(5, 4),
        "parameter": torch.nn.Parameter(torch.ones(3)), "half": torch.randn(3).half(), "long": torch.arange(3),
        "bool": torch.tensor([True, False]), "uint16": torch.arange(4).to(torch.uint16), "empty": torch.zeros(0, 3),
        "complex": torch.ones(2, dtype=torch.complex64), "scalar": torch.tensor(2.5), "double": torch.randn(2).double(),
        **model.state_dict(),
    }  # fmt: skip
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [1, 2, 2])
    saved = {
        "tensors": tensors, "optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict(),
        "rest": [numbers.size(), torch.device("cpu"), None, 2.5, "é", b"ab", {3}, (1,)],
    }  # fmt: skip
    for zipped in (True, False):
        for protocol in (2, 4):
            path = str(tmp_path / f"{zipped}{protocol}.pt")
            torch.save(saved, path, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
            result = torch_file.read(path)
            for name, tensor in tensors.items():
                expected = tensor.detach().numpy()
                assert result["tensors"][name].dtype == expected.dtype
                np.testing.assert_array_equal(result["tensors"][name], expected)
            assert result["rest"] == [(4, 6), "cpu", None, 2.5, "é", b"ab", {3}, (1,)]
            moments = result["optimizer"]["state"][0]["exp_avg"]
            np.testing.assert_array_equal(moments, optimizer.state_dict()["state"][0]["exp_avg"].numpy())
            assert result["scheduler"]["milestones"] == {1: 1, 2: 2}


def test_torchscript_modules_are_dictionaries(tmp_path):
    torch = pytest.importorskip("torch")

    class Block(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.sizes = [3, 4]
            self.layers = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))

        def forward(self, x):
            return self.layers(x) + float(self.sizes[0])

    module = torch.jit.script(Block())
    torch.jit.save(module, str(tmp_path / "scripted.pt"))
    read = torch_file.flatten(torch_file.read(str(tmp_path / "scripted.pt")))
    expected = module.state_dict()
    assert read.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(read[name], value.numpy())


def test_a_whole_pickled_module_of_pytorch_is_refused(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "f.pt")
    with pytest.raises(UserError, match="refused: it names 'torch.nn.modules.linear.Linear'"):
        torch_file.read(str(tmp_path / "f.pt"))
