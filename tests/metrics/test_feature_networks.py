"""Inception and I3D against networks built here from torch's own modules, random weights."""

import numpy as np
import pytest
import tensorflow as tf

from tfvid.metrics import i3d, inception

torch = pytest.importorskip("torch")
nn, F = torch.nn, torch.nn.functional


def randomise(module, seed):
    """Random weights and statistics that keep activations of order one; the state as arrays."""
    generator = torch.Generator().manual_seed(seed)
    module.double().eval()
    for name, value in module.state_dict().items():
        if name.endswith("running_var"):
            value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
        elif value.ndim > 1:
            value.copy_(torch.randn(value.shape, generator=generator) * (2 / value[0].numel()) ** 0.5)
        elif value.ndim == 1:
            value.copy_(1 + 0.1 * torch.randn(value.shape, generator=generator))
    return {k: v.numpy() for k, v in module.state_dict().items()}


class Conv(nn.Module):
    def __init__(self, inputs, outputs, kernel, stride=1, padding=0):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)))


def block(**layers):
    return nn.ModuleDict(layers)


class TorchInception(nn.Module):
    """The published network, block by block, with all channels divided by `d`."""

    def __init__(self, d):
        super().__init__()
        n = lambda c: c // d  # noqa: E731
        self.d = d
        self.Conv2d_1a_3x3 = Conv(3, n(32), 3, 2)
        self.Conv2d_2a_3x3 = Conv(n(32), n(32), 3)
        self.Conv2d_2b_3x3 = Conv(n(32), n(64), 3, 1, 1)
        self.Conv2d_3b_1x1 = Conv(n(64), n(80), 1)
        self.Conv2d_4a_3x3 = Conv(n(80), n(192), 3)
        channels = n(192)
        for name, pool in (("5b", 32), ("5c", 64), ("5d", 64)):
            setattr(self, f"Mixed_{name}", block(
                branch1x1=Conv(channels, n(64), 1),
                branch5x5_1=Conv(channels, n(48), 1), branch5x5_2=Conv(n(48), n(64), 5, 1, 2),
                branch3x3dbl_1=Conv(channels, n(64), 1), branch3x3dbl_2=Conv(n(64), n(96), 3, 1, 1),
                branch3x3dbl_3=Conv(n(96), n(96), 3, 1, 1), branch_pool=Conv(channels, n(pool), 1),
            ))  # fmt: skip
            channels = n(64) + n(64) + n(96) + n(pool)
        self.Mixed_6a = block(
            branch3x3=Conv(channels, n(384), 3, 2), branch3x3dbl_1=Conv(channels, n(64), 1),
            branch3x3dbl_2=Conv(n(64), n(96), 3, 1, 1), branch3x3dbl_3=Conv(n(96), n(96), 3, 2),
        )  # fmt: skip
        channels += n(384) + n(96)
        for name, c7 in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
            across, down = {"kernel": (1, 7), "padding": (0, 3)}, {"kernel": (7, 1), "padding": (3, 0)}
            w = n(c7)
            setattr(self, f"Mixed_{name}", block(
                branch1x1=Conv(channels, n(192), 1), branch7x7_1=Conv(channels, w, 1),
                branch7x7_2=Conv(w, w, **across), branch7x7_3=Conv(w, n(192), **down),
                branch7x7dbl_1=Conv(channels, w, 1), branch7x7dbl_2=Conv(w, w, **down),
                branch7x7dbl_3=Conv(w, w, **across), branch7x7dbl_4=Conv(w, w, **down),
                branch7x7dbl_5=Conv(w, n(192), **across), branch_pool=Conv(channels, n(192), 1),
            ))  # fmt: skip
            channels = 4 * n(192)
        self.Mixed_7a = block(
            branch3x3_1=Conv(channels, n(192), 1), branch3x3_2=Conv(n(192), n(320), 3, 2),
            branch7x7x3_1=Conv(channels, n(192), 1), branch7x7x3_2=Conv(n(192), n(192), (1, 7), 1, (0, 3)),
            branch7x7x3_3=Conv(n(192), n(192), (7, 1), 1, (3, 0)), branch7x7x3_4=Conv(n(192), n(192), 3, 2),
        )  # fmt: skip
        channels += n(320) + n(192)
        for name in ("7b", "7c"):
            wide, tall = {"kernel": (1, 3), "padding": (0, 1)}, {"kernel": (3, 1), "padding": (1, 0)}
            setattr(self, f"Mixed_{name}", block(
                branch1x1=Conv(channels, n(320), 1), branch3x3_1=Conv(channels, n(384), 1),
                branch3x3_2a=Conv(n(384), n(384), **wide), branch3x3_2b=Conv(n(384), n(384), **tall),
                branch3x3dbl_1=Conv(channels, n(448), 1), branch3x3dbl_2=Conv(n(448), n(384), 3, 1, 1),
                branch3x3dbl_3a=Conv(n(384), n(384), **wide), branch3x3dbl_3b=Conv(n(384), n(384), **tall),
                branch_pool=Conv(channels, n(192), 1),
            ))  # fmt: skip
            channels = n(320) + 4 * n(384) + n(192)
        self.fc = nn.Linear(channels, inception.CLASSES)

    def forward(self, x):
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, 2)))
        x = F.max_pool2d(x, 3, 2)
        average = lambda v: F.avg_pool2d(v, 3, 1, 1, count_include_pad=False)  # noqa: E731
        for name in ("5b", "5c", "5d"):
            m = getattr(self, f"Mixed_{name}")
            x = torch.cat([
                m.branch1x1(x), m.branch5x5_2(m.branch5x5_1(x)),
                m.branch3x3dbl_3(m.branch3x3dbl_2(m.branch3x3dbl_1(x))), m.branch_pool(average(x)),
            ], 1)  # fmt: skip
        m = self.Mixed_6a
        deep = m.branch3x3dbl_3(m.branch3x3dbl_2(m.branch3x3dbl_1(x)))
        x = torch.cat([m.branch3x3(x), deep, F.max_pool2d(x, 3, 2)], 1)
        for name in ("6b", "6c", "6d", "6e"):
            m = getattr(self, f"Mixed_{name}")
            deep = m.branch7x7dbl_3(m.branch7x7dbl_2(m.branch7x7dbl_1(x)))
            x = torch.cat([
                m.branch1x1(x), m.branch7x7_3(m.branch7x7_2(m.branch7x7_1(x))),
                m.branch7x7dbl_5(m.branch7x7dbl_4(deep)), m.branch_pool(average(x)),
            ], 1)  # fmt: skip
        m = self.Mixed_7a
        deep = m.branch7x7x3_4(m.branch7x7x3_3(m.branch7x7x3_2(m.branch7x7x3_1(x))))
        x = torch.cat([m.branch3x3_2(m.branch3x3_1(x)), deep, F.max_pool2d(x, 3, 2)], 1)
        for name, pool in (("7b", average), ("7c", lambda v: F.max_pool2d(v, 3, 1, 1))):
            m = getattr(self, f"Mixed_{name}")
            a, b = m.branch3x3_1(x), m.branch3x3dbl_2(m.branch3x3dbl_1(x))
            x = torch.cat([
                m.branch1x1(x), m.branch3x3_2a(a), m.branch3x3_2b(a),
                m.branch3x3dbl_3a(b), m.branch3x3dbl_3b(b), m.branch_pool(pool(x)),
            ], 1)  # fmt: skip
        features = x.mean((2, 3))
        return features, self.fc(features)


def test_inception_equals_torch():
    network = TorchInception(16)
    state = randomise(network, 0)
    ours = inception.InceptionV3(16, dtype="float64")
    ours.build()
    ours.load_torch(state)
    images = np.random.default_rng(0).uniform(size=(2, 40, 32, 3))
    with torch.no_grad():
        x = torch.tensor(images.transpose(0, 3, 1, 2))
        x = F.interpolate(x, (299, 299), mode="bilinear", align_corners=False)
        expected = [v.numpy() for v in network(2 * x - 1)]
    for value, reference in zip(ours(images), expected):
        assert np.abs(reference).max() > 0.1
        np.testing.assert_allclose(np.asarray(value), reference, rtol=1e-8, atol=1e-10)


def test_inception_of_the_published_size():
    network = inception.InceptionV3()
    network.build()
    parameters = sum(int(np.prod(w.shape)) for w in network.weights)
    assert network.classifier.kernel.shape == (2048, 1008)
    # 21.8 million of convolutions (torchvision's count) with one bias for each of their channels.
    assert 23.5e6 < parameters < 24.5e6


class Unit(nn.Module):
    """A port's unit: TensorFlow's padding made explicit."""

    def __init__(self, inputs, outputs, kernel, stride, norm):
        super().__init__()
        self.conv3d = nn.Conv3d(inputs, outputs, kernel, stride, bias=False)
        setattr(self, norm, nn.BatchNorm3d(outputs, eps=1e-3))
        self.kernel, self.stride, self.norm = kernel, stride, norm

    def forward(self, x):
        return F.relu(getattr(self, self.norm)(self.conv3d(same(x, self.kernel, self.stride))))


def same(x, kernel, stride, value=0.0):
    pads = []
    for size, k, s in reversed(list(zip(x.shape[2:], kernel, stride))):
        total = max((-(-size // s) - 1) * s + k - size, 0)
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads, value=value)


def pool(x, kernel, stride):
    return F.max_pool3d(same(x, kernel, stride), kernel, stride)


MIXED = {
    "3b": (64, 96, 128, 16, 32, 32), "3c": (128, 128, 192, 32, 96, 64), "4b": (192, 96, 208, 16, 48, 64),
    "4c": (160, 112, 224, 24, 64, 64), "4d": (128, 128, 256, 24, 64, 64), "4e": (112, 144, 288, 32, 64, 64),
    "4f": (256, 160, 320, 32, 128, 128), "5b": (256, 160, 320, 32, 128, 128), "5c": (384, 192, 384, 48, 128, 128),
}  # fmt: skip


class TorchI3D(nn.Module):
    """The port `pytorch-i3d` in names and order, all channels divided by `d`."""

    def __init__(self, d, classes):
        super().__init__()
        ones = (1, 1, 1)
        self.Conv3d_1a_7x7 = Unit(3, 64 // d, (7, 7, 7), (2, 2, 2), "bn")
        self.Conv3d_2b_1x1 = Unit(64 // d, 64 // d, ones, ones, "bn")
        self.Conv3d_2c_3x3 = Unit(64 // d, 192 // d, (3, 3, 3), ones, "bn")
        channels = 192 // d
        for name, widths in MIXED.items():
            w = [v // d for v in widths]
            three = (3, 3, 3)
            setattr(self, f"Mixed_{name}", nn.ModuleDict({
                "b0": Unit(channels, w[0], ones, ones, "bn"),
                "b1a": Unit(channels, w[1], ones, ones, "bn"), "b1b": Unit(w[1], w[2], three, ones, "bn"),
                "b2a": Unit(channels, w[3], ones, ones, "bn"), "b2b": Unit(w[3], w[4], three, ones, "bn"),
                "b3b": Unit(channels, w[5], ones, ones, "bn"),
            }))  # fmt: skip
            channels = w[0] + w[2] + w[4] + w[5]
        self.logits = nn.ModuleDict({"conv3d": nn.Conv3d(channels, classes, 1)})

    def forward(self, x):
        x = pool(self.Conv3d_1a_7x7(x), (1, 3, 3), (1, 2, 2))
        x = pool(self.Conv3d_2c_3x3(self.Conv3d_2b_1x1(x)), (1, 3, 3), (1, 2, 2))
        for name in MIXED:
            if name == "4b":
                x = pool(x, (3, 3, 3), (2, 2, 2))
            if name == "5b":
                x = pool(x, (2, 2, 2), (2, 2, 2))
            m = getattr(self, f"Mixed_{name}")
            x = torch.cat([
                m["b0"](x), m["b1b"](m["b1a"](x)), m["b2b"](m["b2a"](x)), m["b3b"](pool(x, (3, 3, 3), (1, 1, 1))),
            ], 1)  # fmt: skip
        x = F.avg_pool3d(x, (2, *x.shape[3:]), 1)
        return self.logits["conv3d"](x).mean((2, 3, 4))


@pytest.fixture(scope="module")
def small_i3d():
    """(our network with weights, clips, expected logits, state dict)."""
    network = TorchI3D(8, 7)
    state = randomise(network, 1)
    clips = np.random.default_rng(1).uniform(-1, 1, (2, 11, 37, 64, 3))
    with torch.no_grad():
        expected = network(torch.tensor(clips.transpose(0, 4, 1, 2, 3))).numpy()
    return clips, expected, state


def our_i3d(state):
    ours = i3d.I3D(8, 7, dtype="float64")
    ours.build()
    ours.load(state)
    return ours


def test_i3d_equals_torch(small_i3d):
    clips, expected, state = small_i3d
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(np.asarray(our_i3d(state)(clips)), expected, rtol=1e-8, atol=1e-10)


def lower_case(name):
    """A name of `pytorch-i3d` as `kinetics_i3d_pytorch` writes it."""
    name = name.replace("logits.", "conv3d_0c_1x1.").replace(".bn.", ".batch3d.")
    branches = {"b0": "branch_0", "b1a": "branch_1.0", "b1b": "branch_1.1", "b2a": "branch_2.0",
                "b2b": "branch_2.1", "b3b": "branch_3.1"}  # fmt: skip
    for short, long in branches.items():
        name = name.replace(f".{short}.", f".{long}.")
    return name.lower()


def test_i3d_reads_the_other_port(small_i3d):
    clips, expected, state = small_i3d
    renamed = {lower_case(k): v for k, v in state.items()}
    np.testing.assert_allclose(np.asarray(our_i3d(renamed)(clips)), expected, rtol=1e-8, atol=1e-10)


def test_i3d_reads_torchscript(small_i3d, tmp_path):
    from tfvid.conversion import torch_file

    clips, expected, state = small_i3d
    network = TorchI3D(8, 7)
    network.load_state_dict({k: torch.tensor(v) for k, v in state.items()}, strict=False)
    network = nn.ModuleDict({"model": network.double().eval()})
    network.forward = lambda x: network["model"](x)
    path = str(tmp_path / "i3d.pt")
    torch.jit.trace(network, torch.tensor(clips.transpose(0, 4, 1, 2, 3))).save(path)
    read = torch_file.flatten(torch_file.read(path))
    assert all(k.startswith("model.") for k in read)
    np.testing.assert_allclose(np.asarray(our_i3d(read)(clips)), expected, rtol=1e-8, atol=1e-10)


def test_i3d_reads_deepmind_s_variables(small_i3d):
    clips, expected, state = small_i3d
    variables = {}
    scopes = {"b0": "Branch_0/Conv3d_0a_1x1", "b1a": "Branch_1/Conv3d_0a_1x1", "b1b": "Branch_1/Conv3d_0b_3x3",
              "b2a": "Branch_2/Conv3d_0a_1x1", "b2b": "Branch_2/Conv3d_0b_3x3",
              "b3b": "Branch_3/Conv3d_0b_1x1"}  # fmt: skip
    for name, value in state.items():
        parts = name.split(".")
        unit = "/".join(scopes.get(p, p) for p in parts[:-2])
        unit = unit.replace("Mixed_5b/Branch_2/Conv3d_0b_3x3", "Mixed_5b/Branch_2/Conv3d_0a_3x3")
        if parts[0] == "logits":
            key = {"weight": "w", "bias": "b"}[parts[-1]]
            variables[f"RGB/inception_i3d/Logits/Conv3d_0c_1x1/conv_3d/{key}"] = (
                value.transpose(2, 3, 4, 1, 0) if value.ndim == 5 else value
            )
        elif parts[-2] == "conv3d":
            gamma = state[name.replace("conv3d.weight", "bn.weight")]  # DeepMind's batch norm has no factor
            variables[f"RGB/inception_i3d/{unit}/conv_3d/w"] = value.transpose(2, 3, 4, 1, 0) * gamma
        elif parts[-1] == "bias":
            variables[f"RGB/inception_i3d/{unit}/batch_norm/beta"] = value.reshape(1, 1, 1, 1, -1)
        elif parts[-1] == "running_mean":
            gamma = state[name.replace("running_mean", "weight")]
            variables[f"RGB/inception_i3d/{unit}/batch_norm/moving_mean"] = value * gamma
        elif parts[-1] == "running_var":
            variables[f"RGB/inception_i3d/{unit}/batch_norm/moving_variance"] = value
    np.testing.assert_allclose(np.asarray(our_i3d(variables)(clips)), expected, rtol=1e-8, atol=1e-10)


def test_clips_are_resized_as_tensorflow_1_did():
    clips = np.random.default_rng(0).uniform(size=(1, 9, 20, 30, 3))
    expected = tf.compat.v1.image.resize_bilinear(clips[0], (224, 224))
    # Theirs computes the grid in float32.
    np.testing.assert_allclose(np.asarray(i3d.prepared(clips))[0], 2 * expected.numpy() - 1, atol=1e-5)


def test_short_clips_are_refused():
    with pytest.raises(ValueError, match="at least 9 frames. Received: 8"):
        i3d.prepared(np.zeros((1, 8, 16, 16, 3)))
