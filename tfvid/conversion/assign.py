"""Fills a model's variables from named arrays: every array used or ignored by rule, every variable filled."""

import dataclasses
import difflib
import typing

import numpy as np

from tfvid.errors import UserError


@dataclasses.dataclass(frozen=True)
class Source:
    """Where a variable's value comes from.

    Attributes:
      name: of the array in the file, or a tuple of names whose arrays `transform` joins.
      transform: function of the array (of the arrays) to the variable's layout; None: as it is.
    """

    name: str | tuple
    transform: typing.Callable | None = None

    @property
    def names(self):
        """The names as a tuple."""
        return (self.name,) if isinstance(self.name, str) else tuple(self.name)


@dataclasses.dataclass(frozen=True)
class Report:
    """What an assignment did.

    Attributes:
      assigned: {variable path: source name or names}.
      ignored: names in the file that a rule left out, sorted.
      untouched: paths of optional variables that the file lacks and that keep their values.
    """

    assigned: dict
    ignored: tuple
    untouched: tuple = ()

    def __str__(self):
        text = f"{len(self.assigned)} variables filled, {len(self.ignored)} entries of the file ignored by rule"
        if self.untouched:
            text += f", {len(self.untouched)} variables that only training needs left as they were initialised"
        return text


def assign(
    model, tensors, variable_map, ignorable=lambda name: False, optional=lambda path: False, source="checkpoint"
):
    """Fills every variable of `model.weights`; nothing is changed unless everything fits.

    Args:
      model: a Keras model whose variables exist.
      tensors: {name: array}, as a reader of this package returns (flattened).
      variable_map: {variable path: source name or `Source`}, all of `model.weights`.
      ignorable: function of a name: True for entries that the model has no use for
        (optimiser slots, counters, losses' own networks).
      optional: function of a variable's path: True for variables that the file may lack;
        it has all or none of those that share the first part of the path.
      source: names the file in errors.

    Returns:
      A `Report`.

    Raises:
      UserError: an array is missing, has another shape, or is neither used nor ignorable.
    """
    variables = {v.path: v for v in model.weights}
    entries = {p: s if isinstance(s, Source) else Source(s) for p, s in variable_map.items()}
    unknown = sorted(set(entries) - set(variables)) + sorted(set(variables) - set(entries))
    if unknown:
        raise ValueError(f"the map and the variables of {type(model).__name__} differ: {', '.join(unknown[:8])}")
    untouched = _absent(tensors, entries, optional)
    entries = {p: e for p, e in entries.items() if p not in untouched}
    _check_names(tensors, entries, ignorable, source, type(model).__name__)
    values = {path: _value(variables[path], entry, tensors, source) for path, entry in entries.items()}
    for path, value in values.items():
        variables[path].assign(value)
    used = {name for entry in entries.values() for name in entry.names}
    assigned = {p: e.name for p, e in entries.items()}
    return Report(assigned, tuple(sorted(set(tensors) - used)), tuple(sorted(untouched)))


def _absent(tensors, entries, optional):
    """Paths of the optional variables of which the file has nothing, nor of their group."""
    groups = {}
    for path, entry in entries.items():
        if optional(path):
            # A network's variables stand or fall together; one that is the model's own stands alone.
            group = path.split("/")[0] if path.count("/") > 1 else path
            groups.setdefault(group, []).append((path, entry))
    return {
        path
        for group in groups.values()
        if not any(name in tensors for _, entry in group for name in entry.names)
        for path, _ in group
    }


def _check_names(tensors, entries, ignorable, source, model_name):
    wanted = {name: path for path, entry in entries.items() for name in entry.names}
    left = sorted(name for name in tensors if name not in wanted and not ignorable(name))
    missing = sorted(name for name in wanted if name not in tensors)
    if missing:
        name = missing[0]
        more = f" (and {len(missing) - 1} more of {len(wanted)})" if len(missing) > 1 else ""
        raise UserError(
            f"{source}: expected a checkpoint of this {model_name}: it has no {name!r}{more}{_nearest(name, left)}"
        )
    if left:
        name = left[0]
        more = f" (and {len(left) - 1} more)" if len(left) > 1 else ""
        raise UserError(
            f"{source}: expected a checkpoint of this {model_name}: it holds {name!r}{more}, for which the model has"
            f" no variable{_nearest(name, wanted)}"
        )


def _value(variable, entry, tensors, source):
    arrays = [np.asarray(tensors[name]) for name in entry.names]
    try:
        value = entry.transform(*arrays) if entry.transform else arrays[0]
    except (ValueError, IndexError) as e:
        shapes = ", ".join(str(a.shape) for a in arrays)
        raise UserError(f"{source}: {entry.name!r} of shape {shapes} does not fit {variable.path!r}: {e}") from None
    if tuple(value.shape) != tuple(variable.shape):
        received = " and ".join(str(list(a.shape)) for a in arrays)
        raise UserError(
            f"{source}: {entry.name!r}: expected what gives {variable.path} the shape {list(variable.shape)},"
            f" received shape {received}"
        )
    if not np.issubdtype(value.dtype, np.number) and value.dtype != np.bool_:
        raise UserError(f"{source}: {entry.name!r}: expected numbers, received {value.dtype}")
    if np.issubdtype(value.dtype, np.floating) and not np.isfinite(value).all():
        raise UserError(f"{source}: {entry.name!r}: expected finite values, received NaN or infinity")
    return value


def _nearest(name, known):
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; nearest: {match[0]!r}" if match else ""


# Layouts of PyTorch -> layouts of Keras.


def conv2d_kernel(kernel):
    """OIHW -> HWIO."""
    return np.transpose(kernel, (2, 3, 1, 0))


def conv3d_kernel(kernel):
    """OIDHW -> DHWIO."""
    return np.transpose(kernel, (2, 3, 4, 1, 0))


def conv2d_transpose_kernel(kernel):
    """PyTorch [in, out, h, w] -> [h, w, out, in], the layout of Keras' Conv2DTranspose."""
    return np.transpose(kernel, (2, 3, 1, 0))


def dense_kernel(kernel):
    """[out, in] -> [in, out]."""
    return np.transpose(kernel)
