"""What a data set says of itself to be prepared: its work items and one function on an item.

`PREPARATIONS` names them; `prepare.prepare` and the workers of `groups` run them.
"""

import dataclasses
import hashlib
import importlib
import math

from tfvid.data import records
from tfvid.errors import UserError

MOST_PIXELS = 2**14  # a side of a frame


# Every data set that can be prepared: name -> "module:class".
PREPARATIONS = {
    "breakout": "tfvid.data.breakout:Breakout",
    "caddy_videos": "tfvid.data.caddy_videos:CaddyVideos",
    "cage_latents": "tfvid.data.cage_latents:CageLatents",
    "cater": "tfvid.data.cater:Cater",
    "clevrer": "tfvid.data.clevrer:Clevrer",
    "demo": "tfvid.data.demo:Demo",
    "demo_figures": "tfvid.data.demo_figures:DemoFigures",
    "demo_scenes": "tfvid.data.demo_scenes:DemoScenes",
    "epic": "tfvid.data.epic:EpicKitchens",
    "hdf5_shards": "tfvid.data.hdf5_shards:Hdf5Shards",
    "kth": "tfvid.data.kth_videos:KthVideos",
    "penn": "tfvid.data.penn:Penn",
    "something": "tfvid.data.something:Something",
    "video_folder": "tfvid.data.video_folder:VideoFolder",
}


@dataclasses.dataclass(frozen=True)
class Option:
    """One option of a preparation.

    Attributes:
      default: its type is that of the values.
      doc: meaning and unit.
      choices: values allowed, or None.
    """

    default: object
    doc: str
    choices: tuple | None = None


@dataclasses.dataclass(frozen=True)
class Item:
    """One unit of work, independent of all others.

    Attributes:
      key: unique in the data set; names the item in messages and its clips.
      split: "train", "val" or "test".
      payload: plain JSON values that the item's function needs.
    """

    key: str
    split: str
    payload: dict


class BrokenItem(UserError):
    """An item that cannot be read; it is skipped, counted and named."""


class Preparation:
    """One data set to prepare; subclasses are `PREPARATIONS`.

    An object must be the same wherever it is built from the same arguments: it is built
    anew in each process.

    Attributes:
      NEEDS_SOURCE: whether `--source_dir` is a must.
      OPTIONS: {name: Option}.
      ITEMS_PER_FILE: work items in one record file.
      DEFAULTS: data-set hyper-parameters for dataset_info.json.
      ENCODING: what "auto" stands for, one of `records.ENCODINGS`.
    """

    NEEDS_SOURCE = True
    ENCODING = "auto"
    OPTIONS = {}
    ITEMS_PER_FILE = 16
    DEFAULTS = {}

    def __init__(self, source_dir, options):
        self.source_dir = source_dir
        self.options = checked_options(self.OPTIONS, options)
        self.validate()

    def validate(self):
        """Raises UserError for options that cannot be; before any work starts."""

    def items(self):
        """List of every `Item`, in an order that depends on the source alone."""
        raise NotImplementedError

    def clips(self, item):
        """Yields the clips of an item: {key: array} with keys of `records.KEYS`.

        Raises:
          BrokenItem, VideoError, DataError: the item is skipped and counted as broken.
        """
        raise NotImplementedError

    def description(self):
        """{"source": words, "fps": number or None, "labels": {...}} for dataset_info.json."""
        raise NotImplementedError

    def defaults(self):
        """Data-set hyper-parameters of the prepared records."""
        return dict(self.DEFAULTS)


def make_preparation(name, source_dir, options):
    """Builds a `Preparation` by the name of its data set; UserError where it is not known."""
    if name not in PREPARATIONS:
        raise UserError(f"--dataset: expected one of {', '.join(sorted(PREPARATIONS))}. Received: {name!r}")
    cls = preparation_class(name)
    if cls.NEEDS_SOURCE:
        if not source_dir:
            raise UserError(f"--source_dir: expected the folder with the {name} videos, received none")
        if not records.is_folder(source_dir):
            raise UserError(f"--source_dir: expected a folder, found none at {source_dir!r}")
    return cls(source_dir, options)


def preparation_class(name):
    """The class of a data set in `PREPARATIONS`."""
    module, _, cls = PREPARATIONS[name].partition(":")
    return getattr(importlib.import_module(module), cls)


def checked_options(known, given):
    """Every option with its default where none is given; UserError for a wrong one."""
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise UserError(f"--{unknown[0]}: this data set has no such option, only {', '.join(sorted(known)) or 'none'}")
    values = {}
    for name, option in known.items():
        value = given.get(name, option.default)
        wanted = type(option.default)
        if wanted is float and type(value) is int:
            value = float(value)
        if type(value) is not wanted:
            raise UserError(f"--{name}: expected a value of type {wanted.__name__}. Received: {value!r}")
        if option.choices and value not in option.choices:
            raise UserError(f"--{name}: expected one of {', '.join(map(str, option.choices))}. Received: {value!r}")
        values[name] = value
    return values


def parse_option(option, name, text):
    """The value of an option from a flag's text."""
    kind = type(option.default)
    try:
        if kind is bool:
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        value = kind(text)
        if kind is float and not math.isfinite(value):
            raise ValueError
        return value
    except (KeyError, ValueError):
        raise UserError(f"--{name}: expected a value of type {kind.__name__}. Received: {text!r}") from None


def parse_size(text, name="size"):
    """(width, height) of a text: 64 -> (64, 64), 256x96 or 256,96 -> (256, 96), empty -> None."""
    if not text:
        return None
    parts = text.lower().replace(",", "x").split("x")
    if not 1 <= len(parts) <= 2 or not all(p.strip().isdecimal() and 0 < int(p) <= MOST_PIXELS for p in parts):
        raise UserError(f"--{name}: expected a side or WIDTHxHEIGHT in pixels, up to {MOST_PIXELS}. Received: {text!r}")
    return int(parts[0]), int(parts[-1])


def split_of_fractions(keys, val, test, seed=0):
    """{key: split} with exact fractions: keys are ranked by a hash of (seed, key)."""
    if not (val >= 0 and test >= 0 and val + test < 1):
        raise UserError(f"expected fractions of val and test >= 0 with a sum below 1. Received: {val} and {test}")
    ranked = sorted(keys, key=lambda key: hashlib.sha256(f"{seed}/{key}".encode()).digest())
    count_val, count_test = round(len(ranked) * val), round(len(ranked) * test)
    # A split that was asked for is not empty where there is enough to share out.
    if len(ranked) >= 3:
        count_val, count_test = max(count_val, int(val > 0)), max(count_test, int(test > 0))
    result = dict.fromkeys(ranked[:count_val], "val")
    result.update(dict.fromkeys(ranked[count_val : count_val + count_test], "test"))
    result.update(dict.fromkeys(ranked[count_val + count_test :], "train"))
    return result


def cut_into_clips(video, length, overlap=0):
    """Yields clips of exactly `length` frames; what is left at the end is dropped.

    Args:
      video: {key: array}, time first in keys that have it.
      length: frames of a clip; 0: the whole video is one clip.
      overlap: frames that a clip shares with the one before it.
    """
    total = len(video["images"])
    length = length or total
    for start in range(0, total - length + 1, length - overlap):
        steps = {"T": slice(start, start + length), "T-1": slice(start, start + length - 1), None: ...}
        yield {k: v[steps[records.KEYS[k].steps]] if records.KEYS[k].steps else v for k, v in video.items()}
