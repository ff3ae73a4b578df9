"""BUILD has a target for every Python file, and only for those that exist."""

import ast
import pathlib
import subprocess
import sys

import tfvid

ROOT = pathlib.Path(__file__).resolve().parents[1]
# Folders that hold no Python file of the project.
OUTSIDE = {".venv", "node_modules", "build", "dist", "runs", "compare", "__pycache__", "fixtures"}


def rules():
    """[(kind, {attribute: value})] of BUILD, read without Bazel: its syntax is Python's."""
    found = []
    for node in ast.parse((ROOT / "BUILD").read_text()).body:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            call = node.value
            values = {
                k.arg: ast.literal_eval(k.value) for k in call.keywords if not isinstance(k.value, ast.Call)
            }
            found.append((call.func.id, values))
    return found


def python_rules():
    return [(kind, values) for kind, values in rules() if kind.startswith("py_")]


def tree():
    """The project's Python files, found without the generator's help."""
    files = set()
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT).parts
        if OUTSIDE & set(parts) or any(p.startswith(".") or p.endswith(".egg-info") for p in parts):
            continue
        if parts[0] == "data" and len(parts) > 2:  # data sets, not versioned
            continue
        files.add("/".join(parts))
    return files


def test_every_python_file_is_in_a_target_and_no_other():
    sources = {s for _, values in python_rules() for s in values.get("srcs", [])}
    assert sources == tree()


def test_each_kind_of_file_has_its_kind_of_target():
    kinds = {}
    for kind, values in python_rules():
        for source in values.get("srcs", []):
            kinds.setdefault(source, set()).add(kind)
    for source in tree():
        name = pathlib.PurePath(source).name
        if name.startswith("test_"):
            assert kinds[source] == {"py_test"}, source
        elif source.startswith("tfvid/"):
            assert kinds[source] == {"py_library"}, source
    assert "py_binary" in kinds["scripts/update_build.py"]


def test_names_are_unique_and_local_dependencies_exist():
    names = [values["name"] for _, values in rules() if "name" in values]
    assert len(names) == len(set(names))
    for _, values in python_rules():
        for dep in values.get("deps", []):
            assert dep.startswith("@pypi//") or dep.removeprefix(":") in names, f"{values['name']}: {dep}"


def test_dependencies_on_distributions_are_locked():
    locked = {
        line.split("==")[0].replace("-", "_").lower()
        for line in (ROOT / "requirements/dev.lock").read_text().splitlines()
        if "==" in line and not line.startswith(" ")
    }
    used = {d.removeprefix("@pypi//") for _, values in python_rules() for d in values.get("deps", []) if "@" in d}
    assert used <= locked


def test_no_cycle():
    edges = {v["name"]: {d[1:] for d in v.get("deps", []) if d.startswith(":")} for _, v in python_rules()}
    done, path = set(), []

    def visit(name):
        assert name not in path, f"cycle: {' -> '.join([*path, name])}"
        if name in done:
            return
        path.append(name)
        for dep in edges.get(name, ()):
            visit(dep)
        path.pop()
        done.add(name)

    for name in edges:
        visit(name)


def test_build_is_what_the_generator_writes():
    result = subprocess.run(
        [sys.executable, "scripts/update_build.py", "--check"], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr


def test_module_has_the_package_version():
    assert f'version = "{tfvid.__version__}"' in (ROOT / "MODULE.bazel").read_text()
