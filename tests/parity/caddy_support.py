"""What the CADDY parity checks share: layouts, comparison, weights by name."""

import re

import numpy as np
import tensorflow as tf

from tfvid.conversion.assign import Source

# The same float64 function as the reference, evaluated in another order of operations.
SHARP = 1e-9
# Of the largest value, in float32.
RELATIVE = 1e-5


def channels_last(array, ranks=(4, 5)):
    """NCHW or (B, T, C, H, W) -> channels last; ranks that are not images stay as they are."""
    array = np.asarray(array)
    return np.moveaxis(array, -3, -1) if array.ndim in ranks else array


def channels_first(array, ranks=(4, 5)):
    """The inverse of `channels_last`."""
    array = np.asarray(array)
    return np.moveaxis(array, -1, -3) if array.ndim in ranks else array


def configuration(case, kind):
    """(folder, <cfg>, rest) of a case file called <folder><kind>_<cfg>_<rest>, <cfg> being what a params_<cfg> has."""
    folder, _, name = case.name.rpartition("/")
    folder = f"{folder}/" if folder else ""
    known = [p.stem.removeprefix("params_") for p in (case.folder / folder).glob("params_*.npz")]
    found = [c for c in known if name.startswith(f"{kind}_{c}_")]
    assert found, f"{case}: expected {kind}_<cfg>_... with params_<cfg>.npz beside it. Received: {name}"
    cfg = max(found, key=len)
    return folder, cfg, name.removeprefix(f"{kind}_{cfg}_")


def stated(case, pattern, otherwise):
    """The number that the texts of a case's JSON state, e.g. "alpha ([0-9.]+)"; else what the specification says."""
    text = " ".join([*case.meta.get("notes", []), *case.meta.get("keys", {}).values()])
    found = re.search(pattern, text)
    return float(found.group(1)) if found else otherwise


class Comparison:
    """Compares values with a case's recordings and collects every difference before it fails.

    precision "float64": the deviation must be what the reference's own float64 run
    deviates (`float32_vs_float64_maxabs`), to 1e-9 of the largest value.
    precision "float32": at most 1e-5 of the largest value and ten times that number.
    """

    def __init__(self, case, precision):
        self.case, self.precision, self.failures, self.count = case, precision, [], 0
        self.relative, self.amplified = RELATIVE, 0.0
        self.numbers = case.meta["float32_vs_float64_maxabs"]

    def check(self, key, value, reference=None, absolute=1e-15):
        """Compares `value`, in the recording's layout, with the array called `key`.

        absolute: allowed beside the relative tolerance where the case has no float64 number.
        """
        reference = np.asarray(self.case.arrays[key] if reference is None else reference, "float64")
        value = np.asarray(value, "float64")
        self.count += 1
        if value.shape != reference.shape:
            self.failures.append(f"{key}: shape {value.shape}, recorded {reference.shape}")
            return
        deviation = np.abs(value - reference).max(initial=0.0)
        scale = np.abs(reference).max(initial=0.0)
        number = self.numbers.get(key)
        if self.precision == "float64" and number is not None:
            allowed = SHARP * scale + self.amplified * number + 1e-15
            if not abs(deviation - number) <= allowed:
                self.failures.append(
                    f"{key}: deviates by {deviation:.4e}, the reference's float64 by {number:.4e}, allowed"
                    f" difference {allowed:.1e}, found {abs(deviation - number):.1e}"
                )
            return
        allowed = self.relative * scale + 10 * (number or 0.0) + absolute
        if not deviation <= allowed:
            self.failures.append(f"{key}: deviates by {deviation:.3e}, allowed {allowed:.3e}, scale {scale:.3e}")

    def finish(self, at_least=1):
        """Fails with every difference found."""
        assert self.count >= at_least, f"{self.case}: only {self.count} arrays were compared"
        assert not self.failures, f"{self.case} in {self.precision}: {len(self.failures)} of {self.count} differ:\n" + (
            "\n".join(self.failures[:40])
        )


def entries(variable_map):
    """{path: Source} with plain names wrapped."""
    return {p: s if isinstance(s, Source) else Source(s) for p, s in variable_map.items()}


def joined(source, arrays):
    """The arrays of one variable, in its layout; None where one is not recorded."""
    if any(name not in arrays for name in source.names):
        return None
    values = [np.asarray(arrays[name]) for name in source.names]
    return source.transform(*values) if source.transform else values[0]


def load(layer, variable_map, arrays):
    """Assigns every weight of `layer` from recorded arrays; none may be missing."""
    variables = {v.path: v for v in layer.weights}
    mapped = entries(variable_map)
    assert set(variables) == set(mapped), set(variables) ^ set(mapped)
    for path, source in mapped.items():
        value = joined(source, arrays)
        assert value is not None, f"{source.name}: not recorded"
        assert tuple(value.shape) == tuple(variables[path].shape), f"{path}: {value.shape}"
        variables[path].assign(value)


def split_by_name(source, value, arrays):
    """A variable's value (or gradient) cut into {recorded name: array in the recording's layout}.

    Written without the transforms' inverses: the places of a transform are found by
    running it on the places themselves.
    """
    shapes = [np.asarray(arrays[name]).shape for name in source.names]
    sizes = [int(np.prod(s)) for s in shapes]
    places, start = [], 0
    for shape, size in zip(shapes, sizes):
        places.append(np.arange(start, start + size, dtype="int64").reshape(shape))
        start += size
    order = source.transform(*places) if source.transform else places[0]
    flat = np.empty(start, np.asarray(value).dtype)
    flat[np.ravel(order)] = np.ravel(np.asarray(value))
    result, start = {}, 0
    for name, shape, size in zip(source.names, shapes, sizes):
        result[name] = flat[start : start + size].reshape(shape)
        start += size
    return result


def by_name(variable_map, values, arrays):
    """{recorded name: array} of {path: value}; `arrays` gives the recorded shapes."""
    result = {}
    for path, source in entries(variable_map).items():
        if path in values and values[path] is not None:
            result.update(split_by_name(source, values[path], arrays))
    return result


def weights_by_name(layer, variable_map, arrays):
    """{recorded name: current value} of every weight."""
    return by_name(variable_map, {v.path: np.asarray(v.value) for v in layer.weights}, arrays)


def constant(array, precision):
    """A tensor of the run's float type; integers stay."""
    array = np.asarray(array)
    return tf.constant(array, precision if np.issubdtype(array.dtype, np.floating) else array.dtype)
