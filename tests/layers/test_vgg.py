"""VGG features against the same network of torch's own modules, random weights."""

import numpy as np
import pytest

from tfvid.layers import vgg

torch = pytest.importorskip("torch")


def torch_features(depth, widths, rng):
    """A torch Sequential with torchvision's order of layers, and its state dict as arrays."""
    layers, channels = [], 3
    for count, width in zip(vgg.STAGES[depth], widths):
        for _ in range(count):
            layers += [torch.nn.Conv2d(channels, width, 3, padding=1), torch.nn.ReLU()]
            channels = width
        layers.append(torch.nn.MaxPool2d(2, 2))
    network = torch.nn.Sequential(*layers).double()
    for p in network.parameters():
        p.data = torch.tensor(rng.normal(size=p.shape) * (0.2 if p.ndim > 1 else 0.05))
    return network, {f"features.{k}": v.numpy() for k, v in network.state_dict().items()}


@pytest.mark.parametrize("depth, taps", [(19, vgg.FIRST_RELUS), (16, vgg.LAST_RELUS_16)])
def test_taps_equal_torch(depth, taps):
    rng = np.random.default_rng(depth)
    widths = (4, 5, 6, 7, 8)
    network, state = torch_features(depth, widths, rng)
    features = vgg.VGGFeatures(depth, taps, widths, dtype="float64")
    features.build((None, None, None, 3))
    features.load_torch(state)
    images = rng.uniform(-1, 1, (2, 37, 50, 3))  # odd sizes: the pooling floors
    x, expected = torch.tensor(images.transpose(0, 3, 1, 2)), {}
    indices = vgg.convolution_indices(depth)
    with torch.no_grad():
        for i, layer in enumerate(network):
            x = layer(x)
            expected[i] = x.numpy().transpose(0, 2, 3, 1)
    outputs = features(images)
    assert len(outputs) == len(taps)
    for tap, output in zip(taps, outputs):
        np.testing.assert_allclose(np.asarray(output), expected[indices[tap] + 1], rtol=1e-10, atol=1e-12)


def test_nothing_beyond_the_last_tap_is_built():
    features = vgg.VGGFeatures(19, ("relu2_1",), (2, 2, 2, 2, 2))
    features.build((None, None, None, 3))
    assert len(features.weights) == 2 * 3


def test_missing_and_misshapen_weights_are_named():
    features = vgg.VGGFeatures(19, ("relu1_1",), (2, 2, 2, 2, 2))
    features.build((None, None, None, 3))
    with pytest.raises(KeyError, match="features.0.weight"):
        features.load_torch({})
    with pytest.raises(ValueError, match=r"features.0.weight: expected \(3, 3, 3, 2\)"):
        features.load_torch({"features.0.weight": np.zeros((4, 3, 3, 3)), "features.0.bias": np.zeros(4)})


def test_unknown_tap_is_refused():
    with pytest.raises(ValueError, match="Received: taps=\\('relu6_1',\\)"):
        vgg.VGGFeatures(19, ("relu6_1",))
