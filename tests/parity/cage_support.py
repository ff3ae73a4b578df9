"""What the comparisons of CAGE share."""

import json
import pathlib

import numpy as np

# Largest deviation allowed, relative to the largest value of the array (seen: 3e-6).
RTOL = 2e-5


def last(x):
    """[..., C, H, W] -> [..., H, W, C]."""
    return np.moveaxis(np.asarray(x), -3, -1)


def first(x):
    """[..., H, W, C] -> [..., C, H, W]."""
    return np.moveaxis(np.asarray(x), -1, -3)


def ordered_draws(arrays, prefix="draw/"):
    """[(torch function, array)] in the order of the calls."""
    keys = [k[len(prefix) :].split("_", 1) + [k] for k in arrays if k.startswith(prefix)]
    return [(function, arrays[k]) for _, function, k in sorted(keys, key=lambda key: int(key[0]))]


def beside(case, name):
    """The name of another case in the same folder as `case`."""
    return str(pathlib.PurePosixPath(case.name).with_name(name.removesuffix(".npz")))


def parameters_of(case):
    """Name of the case that holds the parameters."""
    return beside(case, case.meta["params_file"]) if case.meta.get("params_file") else case.name


def of_kind(case, kind):
    """Name of the case of this kind in the same folder, or None."""
    for path in sorted((case.folder / case.name).parent.glob("*.json")):
        if json.loads(path.read_text()).get("case") == kind:
            return beside(case, path.stem)
    return None


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
