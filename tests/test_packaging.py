"""What `pip install .` and the locks promise."""

import pathlib
import re
import subprocess
import sys
import tomllib
import zipfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(path):
    """{distribution: set of (version, marker)}; each pin must carry hashes."""
    found = {}
    for block in re.split(r"\n(?=\S)", (ROOT / path).read_text().strip()):
        match = re.match(r"([A-Za-z0-9._-]+)==(\S+)(?: ; ([^\\]+))?", block)
        assert match, f"{path}: expected name==version. Received: {block[:60]!r}"
        assert "--hash=sha256:" in block, f"{path}: {match[1]} has no hash"
        found.setdefault(normal(match[1]), set()).add((match[2], (match[3] or "").strip()))
    return found


def names(requirements):
    return {normal(re.match(r"[A-Za-z0-9._-]+", r)[0]) for r in requirements}


def test_locks_hold_every_dependency():
    extras = PROJECT["optional-dependencies"]
    run, dev = pins("requirements/run.lock"), pins("requirements/dev.lock")
    assert names([*PROJECT["dependencies"], *extras["video"], *extras["web"]]) <= set(run)
    # gpu and torch depend on the machine and are not locked.
    locked = [r for name, group in extras.items() if name not in ("gpu", "torch") for r in group]
    assert names(locked) <= set(dev)


def test_both_locks_agree():
    run, dev = pins("requirements/run.lock"), pins("requirements/dev.lock")
    versions = {name: {version for version, _ in found} for name, found in run.items()}
    assert {name: {version for version, _ in dev.get(name, ())} for name in run} == versions


def test_locked_versions_fit_what_pyproject_asks_for():
    specifiers = pytest.importorskip("packaging.specifiers")
    dev = pins("requirements/dev.lock")
    for requirement in PROJECT["dependencies"]:
        name, wanted = re.match(r"([A-Za-z0-9._-]+)(.*)", requirement).groups()
        for version, _ in dev[normal(name)]:
            assert version in specifiers.SpecifierSet(wanted), requirement


def test_wheel_holds_the_whole_package(tmp_path):
    """Sources and the files that the package reads; never tests, scripts or data."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    copy = tmp_path / "source"
    copy.mkdir()
    # A copy, so that setuptools' build/ and egg-info do not land in the checkout.
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (copy / name).write_bytes((ROOT / name).read_bytes())
    wanted = set()
    for path in (ROOT / "tfvid").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            target = copy / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
            wanted.add(path.relative_to(ROOT).as_posix())
    result = subprocess.run([*command, "--wheel-dir", str(tmp_path), str(copy)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    (wheel,) = tmp_path.glob("tfvid-*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    assert wanted <= held
    assert all(name.startswith(("tfvid/", "tfvid-")) for name in held)
    assert any(name.endswith("licenses/LICENSE") for name in held)


def test_readme_names_only_files_that_exist():
    text = (ROOT / "README.md").read_text()
    links = set(re.findall(r"\]\(([^)#:]+)\)", text))
    scripts = set(re.findall(r"\b((?:scripts|hparams|examples|requirements|benchmarks)/[\w./-]+\.\w+)", text))
    missing = sorted(name for name in links | scripts if not (ROOT / name).exists())
    assert not missing


def test_makefile_targets_that_the_readme_names_exist():
    rules = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"`?make ([a-z][a-z-]+)", (ROOT / "README.md").read_text()))
    assert named <= rules | {"it", "sure", "up"}, named - rules


def test_citations_are_well_formed():
    for path in (ROOT / "data/bibtex").glob("*.bib"):
        text = path.read_text()
        entries = re.findall(r"^@(\w+)\{([\w:-]+),", text, re.M)
        assert entries, path.name
        assert len({key for _, key in entries}) == len(entries), path.name
        assert text.count("{") == text.count("}"), path.name
        for kind, key in entries:
            body = text.split(f"{{{key},")[1].split("\n@")[0]
            for field in ("title", "author", "year"):
                assert re.search(rf"^\s*{field}\s*=", body, re.M), f"{path.name}: {key} ({kind}) has no {field}"
