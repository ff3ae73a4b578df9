"""Typed hyper-parameters: JSON in, JSON out, overrides, and errors that help.

Every model has one frozen dataclass derived from `HParams`; its fields are the only
place where a default is written. A JSON file holds one flat object with what differs
from the defaults, keyed as in the files of the original SAVP project. Precedence:

    defaults of the dataclass < data set's defaults < JSON file < --hparams_override
"""

import dataclasses
import difflib
import json
import math
import types
import typing

import tensorflow as tf
from absl import logging

from tfvid.errors import UserError


class HParamsError(UserError):
    """An unknown key, a wrong type or an impossible value."""


def hp(default, doc, *, choices=None, low=None, high=None):
    """A documented field.

    Args:
      default: the default value; its annotation fixes the type.
      doc: what it means, with its unit.
      choices: the values allowed, or None for any.
      low, high: inclusive bounds of a number, or of each number of a tuple.
    """
    return dataclasses.field(
        default=default,
        metadata={"doc": doc, "choices": choices, "low": low, "high": high},
    )


@dataclasses.dataclass(frozen=True)
class HParams:
    """Hyper-parameters that every model has.

    A field of the first block that is None takes the data set's default
    (`with_dataset_defaults`); a run folder always holds the merged values.
    """

    # The data, as in the original's dataset_hparams.
    dataset: str | None = hp(None, "data set that the file is for; data/<dataset> is its default folder")
    context_frames: int | None = hp(None, "frames that are given before the first predicted one", low=1)
    sequence_length: int | None = hp(None, "frames of a training clip, context included; 0: all that there are", low=0)
    long_sequence_length: int | None = hp(None, "frames of a test clip, context included; 0: all there are", low=0)
    frame_skip: int | None = hp(None, "frames left out between two frames of a clip", low=0)
    time_shift: int | None = hp(None, "clips start at a random multiple of this; 0: always at the first frame", low=0)
    force_time_shift: bool | None = hp(None, "random starts in validation and test too")
    shuffle_on_val: bool | None = hp(None, "shuffle validation data as training data is")
    use_state: bool | None = hp(None, "read robot states and actions")
    crop_size: int | None = hp(None, "side of the central crop in pixels; 0: none", low=0)
    random_crop_size: int | None = hp(None, "side of a random crop in pixels, the same in a clip; 0: none", low=0)
    scale_size: int | None = hp(None, "side to which frames are resized, in pixels; 0: none", low=0)

    # The training.
    batch_size: int = hp(16, "clips in a step, over all devices", low=1)
    max_steps: int = hp(300000, "training steps", low=0)
    precision: str = hp(
        "float32",
        "float type of the computation; variables of mixed_bfloat16 stay float32",
        choices=("float32", "mixed_bfloat16", "float64"),
    )
    clip_norm: float = hp(0.0, "limit of the norm of each optimiser's gradient; 0: none", low=0)
    max_skipped_updates: int = hp(
        20, "updates skipped in a row for a gradient that is not finite before training stops", low=1
    )

    monitor: str | None = hp(
        None, "validation metric whose best weights are kept in checkpoints/best, which generate, evaluate and export use"
    )
    monitor_mode: str = hp("min", "whether lower or higher values of it are better", choices=("min", "max"))
    patience: int = hp(0, "validations without a better value after which training ends; 0: never", low=0)

    # Keys of older programs that are accepted without effect: key -> values that are
    # harmless (None: any). Another value than those is an error.
    IGNORED_KEYS: typing.ClassVar[dict] = {}

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = _checked(type(self), field, getattr(self, field.name), "value")
            object.__setattr__(self, field.name, value)
        self.validate()

    def validate(self):
        """Raises HParamsError where values do not fit each other; subclasses extend it."""
        if self.context_frames and self.sequence_length:
            self.require(
                self.context_frames < self.sequence_length,
                "context_frames",
                f"less than sequence_length={self.sequence_length}",
            )

    def check_labels(self, labels):
        """Raises HParamsError where sizes do not fit the data's names of discrete values, see `DatasetInfo.labels`."""

    def require(self, ok, key, expected):
        """Raises HParamsError for `key` unless `ok`."""
        if not ok:
            raise HParamsError(f"hyper-parameter {key}: expected {expected}. Received: {key}={getattr(self, key)!r}")

    def replace(self, **changes):
        """A copy with some values changed, checked again."""
        return dataclasses.replace(self, **changes)

    def with_dataset_defaults(self, defaults):
        """Fills the fields that are None from a data set's defaults (a dict of names that all models have)."""
        shared = {f.name for f in dataclasses.fields(HParams)}
        strange = sorted(set(defaults) - shared)
        if strange:
            raise HParamsError(
                f"data set's defaults: expected names of {sorted(shared)}. Received: {', '.join(strange)}"
            )
        return self.replace(**{k: v for k, v in defaults.items() if getattr(self, k) is None})

    def to_dict(self):
        """Plain JSON types, every field."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    def save(self, path):
        """Writes every field as JSON."""
        with tf.io.gfile.GFile(path, "w") as f:
            f.write(json.dumps(self.to_dict(), indent=2) + "\n")

    @classmethod
    def from_dict(cls, values, source="hyper-parameters", quiet=False):
        """Builds from a plain dictionary; `source` names its origin in errors; `quiet` warns of nothing."""
        fields = {f.name: f for f in dataclasses.fields(cls)}
        checked, ignored = {}, []
        for key, value in values.items():
            if key in fields:
                checked[key] = _checked(cls, fields[key], value, source)
            elif key in cls.IGNORED_KEYS:
                harmless = cls.IGNORED_KEYS[key]
                if harmless is not None and value not in harmless:
                    raise HParamsError(
                        f"{source}: {key} is not supported: expected one of {list(harmless)} or no such key."
                        f" Received: {key}={value!r}"
                    )
                ignored.append(key)
            else:
                raise HParamsError(f"{source}: unknown hyper-parameter {key!r}{_nearest(key, fields)}")
        if ignored and not quiet:
            logging.warning("%s: ignored, without effect: %s", source, ", ".join(sorted(ignored)))
        try:
            return cls(**checked)
        except HParamsError as e:
            raise HParamsError(f"{source}: {e}") from None

    @classmethod
    def load(cls, path=None, overrides="", extra=None):
        """Reads a JSON file and applies `overrides`.

        Args:
          path: a JSON file with one flat object, or None for the defaults.
          overrides: `a=1,b=[1,2],c=name`, as in `--hparams_override`.
          extra: a dictionary of checked values with the highest precedence.

        Raises:
          HParamsError: names the file, the key, what was expected and received.
        """
        values = read_json_object(path) if path else {}
        source = path or f"defaults of {cls.__name__}"
        if overrides:
            # The file is checked first, so that an error is blamed on the right source.
            cls.from_dict(values, source, quiet=True)
            fields = {f.name: f for f in dataclasses.fields(cls)}
            for key, text in split_overrides(overrides).items():
                if key not in fields:
                    raise HParamsError(f"--hparams_override: unknown hyper-parameter {key!r}{_nearest(key, fields)}")
                values[key] = _checked(cls, fields[key], _parse(cls, fields[key], text), "--hparams_override")
            source = f"{source} with --hparams_override={overrides}"
        values.update(extra or {})
        return cls.from_dict(values, source)

    @classmethod
    def describe(cls):
        """A text table of every field: name, type, default, meaning."""
        return "\n".join(
            f"{f.name} ({type_name(field_type(cls, f))}, default {f.default!r}): {f.metadata['doc']}"
            + (f"; one of {', '.join(map(str, f.metadata['choices']))}" if f.metadata["choices"] else "")
            for f in dataclasses.fields(cls)
        )


def read_json_object(path):
    """Reads one JSON object; every failure is one line that names the file."""
    try:
        with tf.io.gfile.GFile(path, "r") as f:
            text = f.read()
    except tf.errors.NotFoundError:
        raise HParamsError(f"{path}: expected a JSON file, found none") from None
    except (tf.errors.OpError, UnicodeDecodeError) as e:
        reason = e.message if isinstance(e, tf.errors.OpError) else str(e)
        raise HParamsError(f"{path}: expected a JSON text file, cannot read it: {reason}") from None

    def unique(pairs):
        result = {}
        for key, value in pairs:
            if key in result:
                raise HParamsError(f"{path}: expected each key once, received {key!r} twice")
            result[key] = value
        return result

    def refuse(constant):
        raise HParamsError(f"{path}: expected finite numbers, received {constant}")

    try:
        value = json.loads(text.removeprefix("\ufeff"), object_pairs_hook=unique, parse_constant=refuse)
    except HParamsError:
        raise
    except json.JSONDecodeError as e:
        raise HParamsError(f"{path}: expected JSON, received at line {e.lineno} column {e.colno}: {e.msg}") from None
    except ValueError as e:  # a number of thousands of digits
        raise HParamsError(f"{path}: expected JSON: {str(e).split(';')[0]}") from None
    except RecursionError:
        raise HParamsError(f"{path}: expected one flat JSON object, received one nested too deeply") from None
    if not isinstance(value, dict):
        raise HParamsError(f"{path}: expected one flat JSON object, received {_kind(value)}")
    return value


def split_overrides(text):
    """`a=1,b=[1,2]` -> {"a": "1", "b": "[1,2]"}: commas inside brackets do not separate."""
    parts, depth, start = [], 0, 0
    for i, char in enumerate(text):
        depth += (char == "[") - (char == "]")
        if char == "," and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    parts.append(text[start:])
    result = {}
    for part in parts:
        key, equals, value = part.partition("=")
        key = key.strip()
        if not equals or not key:
            raise HParamsError(f"--hparams_override: expected name=value,name=[value,value]. Received: {part!r}")
        if key in result:
            raise HParamsError(f"--hparams_override: expected each name once, received {key!r} twice")
        result[key] = value.strip()
    return result


def field_type(cls, field):
    """The annotation of a field as a type object."""
    return typing.get_type_hints(cls)[field.name]


def type_name(kind):
    """How errors and help call a type."""
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        return " or ".join(type_name(k) for k in typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        args = typing.get_args(kind)
        if len(args) == 2 and args[1] is Ellipsis:
            return f"list of {type_name(args[0])}"
        return "[" + ", ".join(type_name(a) for a in args) + "]"
    return {type(None): "null", str: "string", bool: "true or false", int: "integer", float: "number"}[kind]


def _checked(cls, field, value, source):
    kind = field_type(cls, field)
    try:
        value = _convert(kind, value)
    except TypeError:
        raise HParamsError(
            f"{source}: {field.name}: expected {type_name(kind)}. Received: {value!r} ({_kind(value)})"
        ) from None
    choices, low, high = (field.metadata.get(k) for k in ("choices", "low", "high"))
    for item in value if isinstance(value, tuple) else (value,):
        if item is None:
            continue
        if choices and item not in choices:
            hint = _nearest(item, choices) if isinstance(item, str) else ""
            raise HParamsError(
                f"{source}: {field.name}: expected one of {', '.join(map(str, choices))}. Received: {item!r}{hint}"
            )
        if (low is not None and item < low) or (high is not None and item > high):
            bounds = " and ".join(f"{s} {b}" for s, b in ((">=", low), ("<=", high)) if b is not None)
            raise HParamsError(f"{source}: {field.name}: expected a value {bounds}. Received: {item!r}")
    return value


def _convert(kind, value):
    """Returns `value` as `kind` or raises TypeError. An integer is a number; a bool is not."""
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        for option in typing.get_args(kind):
            try:
                return _convert(option, value)
            except TypeError:
                pass
        raise TypeError
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, (list, tuple)):
            raise TypeError
        args = typing.get_args(kind)
        if len(args) == 2 and args[1] is Ellipsis:
            return tuple(_convert(args[0], v) for v in value)
        if len(args) != len(value):
            raise TypeError
        return tuple(_convert(a, v) for a, v in zip(args, value))
    if kind is type(None):
        if value is not None:
            raise TypeError
        return None
    if kind is float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError
        try:
            value = float(value)
        except OverflowError:
            raise TypeError from None
        if not math.isfinite(value):
            raise TypeError
        return value
    if type(value) is not kind or (kind is int and not -(2**63) <= value < 2**63):
        raise TypeError
    return value


def _parse(cls, field, text):
    """The value that an override's text stands for; a bare word is a string."""
    kind = field_type(cls, field)
    if kind is str:
        return text.strip("'\"")
    words = {"true": True, "false": False, "none": None, "null": None}
    if text.lower() in words:
        return words[text.lower()]
    is_list = text.startswith("[") and text.endswith("]")
    if is_list and str in typing.get_args(kind):
        return [item.strip().strip("'\"") for item in text[1:-1].split(",") if item.strip()]
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text.strip("'\"")


def _nearest(key, known):
    match = difflib.get_close_matches(str(key), [str(k) for k in known], n=1)
    return f"; did you mean {match[0]!r}?" if match else f"; known: {', '.join(sorted(map(str, known)))}"


def _kind(value):
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return "integer of more than 64 bits"
    names = {str: "string", int: "integer", float: "number", list: "list", dict: "object", type(None): "null"}
    return names.get(type(value), type(value).__name__)
