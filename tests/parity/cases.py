"""Finding and reading recorded cases."""

import dataclasses
import filecmp
import functools
import json
import os
import pathlib

import numpy as np

BUNDLED = pathlib.Path(__file__).parents[1] / "fixtures" / "parity"
BESIDE = pathlib.Path(os.environ.get("TFVID_PARITY_DIR") or pathlib.Path(__file__).parents[3] / "shared" / "parity")


@dataclasses.dataclass(frozen=True)
class Case:
    """One recorded case.

    Attributes:
      root: the folder that holds the methods' folders.
      method: name of the method's folder.
      name: path below it without suffix, e.g. "variants/flow".
    """

    root: pathlib.Path
    method: str
    name: str

    def __str__(self):
        where = "bundled-" if self.root == BUNDLED else ""
        return f"{where}{self.method}-{self.name.replace('/', '-')}"

    @property
    def folder(self):
        """The method's folder."""
        return self.root / self.method

    @functools.cached_property
    def meta(self):
        """The JSON beside the arrays."""
        return json.loads((self.folder / f"{self.name}.json").read_text())

    @functools.cached_property
    def arrays(self):
        """{key: array} of this case."""
        return self.sibling(self.name)

    def sibling(self, name):
        """{key: array} of another case of the same method (shared parameters, inputs)."""
        with np.load(self.folder / f"{name}.npz", allow_pickle=False) as f:
            return {k: f[k] for k in f.files}

    def sibling_meta(self, name):
        """The JSON of another case of the same method."""
        return json.loads((self.folder / f"{name}.json").read_text())

    def under(self, prefix):
        """The arrays whose key starts with `prefix`, without it."""
        return {k[len(prefix) :]: v for k, v in self.arrays.items() if k.startswith(prefix)}


def find_cases():
    """Every case of every root; a bundled case that is also elsewhere, byte for byte, is run once."""
    outer = BESIDE if BESIDE.is_dir() else None
    if os.environ.get("TFVID_PARITY_DIR") and outer is None:
        raise FileNotFoundError(f"TFVID_PARITY_DIR: expected a folder. Received: {os.fspath(BESIDE)!r}")
    cases = []
    for root in [r for r in (outer, BUNDLED) if r is not None]:
        for path in sorted(root.glob("*/**/*.json")):
            arrays = path.with_suffix(".npz")
            relative = path.relative_to(root)
            if not arrays.exists():
                continue
            if root == BUNDLED and outer is not None:
                twin = outer / arrays.relative_to(root)
                if twin.exists() and filecmp.cmp(twin, arrays, shallow=False):
                    continue
            name = "/".join(relative.parts[1:])[: -len(".json")]
            cases.append(Case(root, relative.parts[0], name))
    return cases
