"""Writes BUILD from the tree: one py_library a package, one py_binary a script, one py_test a test file.

    python scripts/update_build.py           writes BUILD
    python scripts/update_build.py --check   exit status 1 where BUILD is not what the tree asks for
"""

import ast
import dataclasses
import pathlib
import sys

from absl import app, flags

_CHECK = flags.DEFINE_bool("check", False, "compare BUILD with the tree instead of writing it")

ROOT = pathlib.Path(__file__).resolve().parents[1]
# Folders at the root that hold Python files of the project.
FOLDERS = ("benchmarks", "data", "examples", "scripts", "tests", "tfvid")
# Below data/ only what is versioned (see .gitignore).
SKIPPED = {"__pycache__", "node_modules", "fixtures"}
DATA_SUFFIXES = (".json", ".html", ".css", ".js", ".npz", ".txt")
# Import name -> distribution, for those in requirements/dev.lock; PyTorch is optional and not locked.
DISTRIBUTIONS = {
    "absl": "absl_py", "aiohttp": "aiohttp", "ale_py": "ale_py", "apache_beam": "apache_beam", "av": "av",
    "cv2": "opencv_python", "google": "protobuf", "grpc": "grpcio", "h5py": "h5py", "keras": "keras",
    "matplotlib": "matplotlib", "numpy": "numpy", "PIL": "pillow", "pytest": "pytest",
    "scipy": "scipy", "skimage": "scikit_image", "sklearn": "scikit_learn",
    "tensorboard": "tensorboard", "tensorflow": "tensorflow", "tensorflow_serving": "tensorflow_serving_api",
    "tqdm": "tqdm",
}  # fmt: skip

HEADER = '''\
"""Targets of tfvid, written by `make build-file`; tests/test_build_file.py keeps them true."""

load("//:python_rules.bzl", "py_binary", "py_library", "py_test")

package(default_visibility = ["//visibility:public"])

exports_files([
    "LICENSE",
    "pyproject.toml",
    "requirements/dev.lock",
    "requirements/run.lock",
])
'''


@dataclasses.dataclass
class Target:
    """One rule of BUILD."""

    kind: str
    name: str
    srcs: list
    deps: set
    attributes: dict


def python_files(root=ROOT):
    """Paths of the project's Python files relative to `root`, sorted."""
    found = []
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*.py")):
            relative = path.relative_to(root)
            if SKIPPED & set(relative.parts) or any(part.startswith(".") for part in relative.parts):
                continue
            if relative.parts[0] == "data" and len(relative.parts) > 2:
                continue
            found.append(relative)
    return found


def imports_of(path):
    """Dotted names that a file imports anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def is_program(path):
    """Whether the file runs when it is executed."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return any(isinstance(n, ast.If) and "__name__" in ast.unparse(n.test) for n in tree.body)


def label(path):
    """`tfvid/models/savp` -> `tfvid_models_savp`."""
    return "_".join(pathlib.Path(path).with_suffix("").parts)


def targets_of(root=ROOT):
    """Every target that the tree asks for, sorted by name."""
    libraries, programs, tests = {}, [], []
    for path in python_files(root):
        if path.parts[0] == "tests" and path.name.startswith("test_"):
            tests.append(path)
        elif path.parts[0] not in ("tfvid", "tests") and is_program(root / path):
            programs.append(path)
        else:
            libraries.setdefault(path.parent, []).append(path)
    groups = _without_cycles(libraries, root)
    home = {folder: name for name, folders in groups.items() for folder in folders}
    targets = [_library(name, folders, libraries, home, root) for name, folders in groups.items()]
    everything = [t.name for t in targets if t.name.startswith("tfvid")]
    # Models are named by strings in tfvid.models.MODELS, so that programs need all of them.
    targets.append(Target("py_library", "tfvid_all", [], {f":{n}" for n in everything}, {}))
    for path in programs:
        deps = {":tfvid_all"} | _outside([path], root)
        targets.append(Target("py_binary", label(path), [path], deps, {"main": str(path), "data": [":hparams"]}))
    helpers = {f":{t.name}" for t in targets if t.name.startswith("tests")}
    for path in tests:
        deps = {":tfvid_all", "@pypi//pytest"} | helpers | _outside([path], root)
        attributes = {
            "main": "tests/run_pytest.py",
            "args": [str(path)],
            "data": [":hparams", ":project_files", ":test_fixtures"],
        }
        targets.append(Target("py_test", label(path), [path, "tests/run_pytest.py"], deps, attributes))
    return sorted(targets, key=lambda t: (t.kind, t.name))


def _library(name, folders, libraries, home, root):
    paths = sorted(path for folder in folders for path in libraries[folder])
    deps = _outside(paths, root) | {f":{home[f]}" for f in _inside(paths, libraries, root) if home[f] != name}
    data = sorted(
        str(p.relative_to(root))
        for folder in folders
        for p in (root / folder).glob("*")
        if p.suffix in DATA_SUFFIXES and folder.parts[0] == "tfvid"
    )
    attributes = {"data": data} if data else {}
    if name.startswith("tests"):
        attributes["testonly"] = True
    return Target("py_library", name, paths, deps, attributes)


def _inside(paths, libraries, root):
    """Folders of the project that the files import from."""
    result = set()
    for path in paths:
        for name in imports_of(root / path):
            parts = pathlib.Path(*name.split("."))
            for folder in (parts, parts.parent, parts.parent.parent):
                if folder in libraries and folder.parts:
                    result.add(folder)
                    break
    return result


def _outside(paths, root):
    """Labels of the distributions that the files import."""
    tops = {name.split(".")[0] for path in paths for name in imports_of(root / path)}
    return {f"@pypi//{DISTRIBUTIONS[top]}" for top in tops if top in DISTRIBUTIONS}


def _without_cycles(libraries, root):
    """{target name: folders}; folders that import each other share a target, for Bazel allows no cycle."""
    reach = {f: _inside(paths, libraries, root) | {f} for f, paths in libraries.items()}
    while True:
        wider = {f: set().union(*(reach[g] for g in reached)) for f, reached in reach.items()}
        if wider == reach:
            break
        reach = wider
    groups = {}
    for folder in sorted(libraries):
        first = min(g for g in reach[folder] if folder in reach[g])
        groups.setdefault(label(first), []).append(folder)
    return groups


def render(targets):
    """The text of BUILD, in buildifier's form."""
    blocks = [
        HEADER,
        _rule("filegroup", "hparams", [("srcs", _glob(["hparams/**/*.json"]))]),
        _rule(
            "filegroup",
            "project_files",
            [("srcs", _glob(["*", "benchmarks/**", "data/*", "examples/**", "requirements/*", "scripts/*"]))],
        ),
        _rule("filegroup", "test_fixtures", [("testonly", "True"), ("srcs", _glob(["tests/fixtures/**"]))]),
    ]
    for target in targets:
        pairs = []
        for key in ("testonly", "args", "data", "main", "deps"):
            value = sorted(target.deps, key=_order) if key == "deps" else target.attributes.get(key)
            if value:
                pairs.append((key, _value(value)))
        if target.srcs:
            pairs.append(("srcs", _value(sorted(str(s) for s in target.srcs))))
        blocks.append(_rule(target.kind, target.name, pairs))
    return "\n".join(blocks)


# buildifier's order of attributes.
_ATTRIBUTES = ("name", "testonly", "srcs", "args", "data", "main", "deps")


def _rule(kind, name, pairs):
    pairs = sorted([("name", f'"{name}"'), *pairs], key=lambda p: _ATTRIBUTES.index(p[0]))
    lines = "".join(f"    {key} = {text},\n" for key, text in pairs)
    return f"{kind}(\n{lines})\n"


def _value(value):
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, str):
        return f'"{value}"'
    if len(value) == 1:
        return f'["{value[0]}"]'
    return "[\n" + "".join(f'        "{item}",\n' for item in value) + "    ]"


def _glob(patterns):
    if len(patterns) == 1:
        return f'glob(["{patterns[0]}"])'
    items = "".join(f'            "{p}",\n' for p in patterns)
    return f"glob(\n        [\n{items}        ],\n        allow_empty = True,\n    )"


def _order(dep):
    return (dep.startswith("@"), dep)


def main(argv):
    del argv
    text = render(targets_of())
    path = ROOT / "BUILD"
    if not _CHECK.value:
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path.name}")
    elif not path.exists() or path.read_text(encoding="utf-8") != text:
        print("error: BUILD is not what the tree asks for; run `make build-file`", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    app.run(main)
