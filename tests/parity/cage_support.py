"""What the comparisons of CAGE share."""

import numpy as np

# Largest deviation allowed, relative to the largest value of the array (seen: 3e-6).
RTOL = 2e-5


def last(x):
    """[..., C, H, W] -> [..., H, W, C]."""
    return np.moveaxis(np.asarray(x), -3, -1)


def first(x):
    """[..., H, W, C] -> [..., C, H, W]."""
    return np.moveaxis(np.asarray(x), -1, -3)


def assert_close(actual, recorded, name, rtol=RTOL):
    recorded = np.asarray(recorded)
    scale = max(np.abs(recorded).max(), 1e-12)
    np.testing.assert_allclose(np.asarray(actual) / scale, recorded / scale, 0, rtol, err_msg=name)


def fill(entries, arrays, ignorable=()):
    """Assigns every recorded parameter; every variable but counters must be recorded."""
    left = dict(arrays)
    for name, (variable, transform) in entries.items():
        if name not in left:
            assert name.endswith("num_batches_tracked"), f"{name} was not recorded"
            continue
        value = left.pop(name)
        variable.assign(transform(value) if transform else value)
    left = [k for k in left if not any(part in k for part in ignorable)]
    assert not left, f"recorded but unknown: {left[:5]}"
