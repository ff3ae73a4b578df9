"""LPIPS against torch's own modules and the package `lpips`, random weights."""

import sys
import types

import numpy as np
import pytest

from tfvid.layers.vgg import WIDTHS as WIDTHS_VGG
from tfvid.metrics.lpips import ALEX_WIDTHS, LPIPS, SCALE, SHIFT

torch = pytest.importorskip("torch")

WIDTHS = {"alex": (6, 7, 8, 5, 4), "vgg": (4, 5, 6, 7, 8)}


def torch_backbone(net, widths):
    """torch layers in torchvision's order; indices of the activations that LPIPS reads."""
    conv, relu = torch.nn.Conv2d, torch.nn.ReLU
    if net == "alex":
        w, pool = widths, lambda: torch.nn.MaxPool2d(3, 2)
        layers = [conv(3, w[0], 11, 4, 2), relu(), pool(), conv(w[0], w[1], 5, padding=2), relu(), pool()]
        for a, b in zip(w[1:], w[2:]):
            layers += [conv(a, b, 3, padding=1), relu()]
        return torch.nn.Sequential(*layers), (1, 4, 7, 9, 11)
    layers, channels, taps = [], 3, []
    for count, width in zip((2, 2, 3, 3, 3), widths):
        for _ in range(count):
            layers += [conv(channels, width, 3, padding=1), relu()]
            channels = width
        taps.append(len(layers) - 1)
        layers.append(torch.nn.MaxPool2d(2, 2))
    return torch.nn.Sequential(*layers), taps


def torch_lpips(network, taps, heads, a, b):
    """The published formula, written with torch operations; a, b [N, 3, H, W] in [-1, 1]."""
    shift, scale = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (SHIFT, SCALE))
    x, y, total = (a - shift) / scale, (b - shift) / scale, 0
    level = 0
    for i, layer in enumerate(network):
        x, y = layer(x), layer(y)
        if i in taps:
            unit = [v / (v.pow(2).sum(1, keepdim=True).sqrt() + 1e-10) for v in (x, y)]
            total = total + (heads[level].reshape(1, -1, 1, 1) * (unit[0] - unit[1]) ** 2).sum(1).mean((1, 2))
            level += 1
    return total


def randomise(network, rng):
    network.double()
    for p in network.parameters():
        p.data = torch.tensor(rng.normal(size=p.shape) * (0.2 if p.ndim > 1 else 0.1))
    return {f"features.{k}": v.numpy() for k, v in network.state_dict().items()}


def published_package(monkeypatch):
    """`lpips` with torch's own layers in torchvision's place: random backbones, its own heads and formula."""

    def backbone(net, widths):
        return lambda pretrained: types.SimpleNamespace(features=torch_backbone(net, widths)[0])

    models = types.ModuleType("torchvision.models")
    models.alexnet = backbone("alex", ALEX_WIDTHS)
    models.vgg16 = backbone("vgg", WIDTHS_VGG)
    torchvision = types.ModuleType("torchvision")
    torchvision.models = models
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "torchvision", torchvision)
        patch.setitem(sys.modules, "torchvision.models", models)
        return pytest.importorskip("lpips")


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_distance_equals_torch(net):
    rng = np.random.default_rng(7)
    network, taps = torch_backbone(net, WIDTHS[net])
    state = randomise(network, rng)
    heads = [rng.uniform(size=(1, w, 1, 1)) for w in WIDTHS[net]]
    metric = LPIPS(net, WIDTHS[net], dtype="float64")
    metric.build()
    metric.load_torch(state, {f"lin{i}.model.1.weight": h for i, h in enumerate(heads)})
    a, b = rng.uniform(size=(2, 3, 41, 53, 3))
    with torch.no_grad():
        expected = torch_lpips(
            network, taps, [torch.tensor(h) for h in heads],
            *(torch.tensor(2 * v.transpose(0, 3, 1, 2) - 1) for v in (a, b)),
        )
    np.testing.assert_allclose(np.asarray(metric(a, b)), expected.numpy(), rtol=1e-9)
    np.testing.assert_allclose(np.asarray(metric(a, a)), 0, atol=1e-12)


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_distance_equals_the_published_package(net, monkeypatch):
    package = published_package(monkeypatch)
    torch.manual_seed(3)
    rng = np.random.default_rng(3)
    reference = package.LPIPS(net=net, pretrained=True, pnet_rand=True, verbose=False).eval()
    slices = {k: v.numpy() for k, v in reference.net.state_dict().items()}
    backbone = {f"features.{k.split('.', 1)[1]}": v for k, v in slices.items()}
    heads = {k: v.numpy() for k, v in reference.state_dict().items() if k.startswith("lin")}
    metric = LPIPS(net)
    metric.build()
    metric.load_torch(backbone, heads)
    a, b = rng.uniform(size=(2, 2, 64, 64, 3)).astype("float32")
    with torch.no_grad():
        expected = reference(*(torch.tensor(2 * v.transpose(0, 3, 1, 2) - 1) for v in (a, b))).numpy().ravel()
    np.testing.assert_allclose(np.asarray(metric(a, b)), expected, rtol=2e-5)


def test_grey_frames_are_repeated():
    metric = LPIPS("alex", WIDTHS["alex"])
    metric.build()
    a, b = np.random.default_rng(0).uniform(size=(2, 1, 32, 32, 1)).astype("float32")
    three = [np.repeat(x, 3, -1) for x in (a, b)]
    np.testing.assert_allclose(np.asarray(metric(a, b)), np.asarray(metric(*three)), rtol=1e-6)


def test_frames_too_small_are_refused():
    metric = LPIPS("alex", WIDTHS["alex"])
    metric.build()
    with pytest.raises(ValueError, match="at least 31 pixels. Received: 30x40"):
        metric.features(np.zeros((1, 30, 40, 3), "float32"))


def test_missing_head_is_named():
    rng = np.random.default_rng(0)
    metric = LPIPS("alex", WIDTHS["alex"])
    metric.build()
    state = randomise(torch_backbone("alex", WIDTHS["alex"])[0], rng)
    with pytest.raises(KeyError, match="lin0.model.1.weight"):
        metric.load_torch(state, {})
