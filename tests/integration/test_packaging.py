"""A source distribution builds, and its wheel works by itself, away from the source tree."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOT_SOURCES = shutil.ignore_patterns(
    *(".git", ".venv", "build", "dist", "state", "*.egg-info", "__pycache__", ".*_cache"),
    *(".hypothesis", "*.so", "*.c", "*.py[cod]"),
)


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command without what this process's environment says of Python; return its output."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in {"PYTHONPATH", "VIRTUAL_ENV", "AUTHZ_DEBUG"}
    }
    done = subprocess.run(
        command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def source_distribution(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked source distribution, built from a copy so that the tree stays untouched."""
    place = tmp_path_factory.mktemp("sdist")
    shutil.copytree(ROOT, place / "tree", ignore=NOT_SOURCES)
    build = "from setuptools.build_meta import build_sdist; build_sdist('..')"
    run(sys.executable, "-c", build, cwd=place / "tree")
    (archive,) = place.glob("authz-*.tar.gz")
    run("tar", "-xzf", archive, cwd=place)
    return place / archive.name.removesuffix(".tar.gz")


@pytest.fixture(scope="module")
def wheel(source_distribution: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from the source distribution alone."""
    place = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation")
    run(*pip, "--wheel-dir", place, source_distribution, cwd=place)
    (built,) = place.glob("authz-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin directory of a fresh virtual environment with the wheel installed.

    Its dependencies are those of this one, by a path file: path files are not followed from
    there, so the editable installation of the source tree stays out of sight.
    """
    place = tmp_path_factory.mktemp("installed")
    venv.create(place, with_pip=False, symlinks=True)
    pip = (sys.executable, "-m", "pip", "--python", place / "bin" / "python", "install", "--quiet")
    run(*pip, "--no-deps", "--no-index", wheel, cwd=place)
    (site_packages,) = place.glob("lib/python*/site-packages")
    (site_packages / "dependencies.pth").write_text(sysconfig.get_path("platlib") + "\n")
    return place / "bin"


def files_of(folder: str, pattern: str) -> set[str]:
    """Return the names, relative to the tree, of source files that must be shipped."""
    return {str(path.relative_to(ROOT)) for path in (ROOT / folder).rglob(pattern)}


def test_the_source_distribution_has_what_builds_and_tests(source_distribution: Path) -> None:
    wanted = {"LICENSE", "Makefile", "README.md", "pyproject.toml", "setup.py", ".ci/run"}
    for pattern in ("*.pyx", "*.pxd", "*.pyi"):
        wanted |= files_of("ext", pattern) | files_of("loadtest", pattern)
    wanted |= files_of("authz", "*.py") | files_of("lua", "*.lua") | files_of("tests", "*.py")
    assert sorted(name for name in wanted if not (source_distribution / name).is_file()) == []
    assert list(source_distribution.rglob("*.so")) == []
    assert list(source_distribution.rglob("*.c")) == []


def test_the_wheel_has_code_scripts_deck_and_types(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        names = set(packed.namelist())
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    extensions = {Path(name).stem for name in files_of("ext", "*.pyx")}
    wanted = {f"authz_ext/{name}{suffix}" for name in extensions}
    wanted |= {name.removeprefix("ext/") for name in files_of("ext", "*.py[id]")}
    wanted |= {name.removeprefix("ext/") for name in files_of("ext", "*.pxd")}
    wanted |= {f"authz_{name}" for name in files_of("lua", "*.lua")}
    wanted |= files_of("authz", "*.py") | {"authz/py.typed", "authz/demo/world_deck.csv"}
    assert extensions
    assert sorted(wanted - names) == []


def test_the_wheel_carries_no_sources_of_extensions_no_tests_and_no_load_test(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        names = packed.namelist()
    stray = [
        name
        for name in names
        if name.endswith((".c", ".pyx")) or name.startswith(("tests", "loadtest"))
    ]
    assert stray == []


def test_the_command_runs_from_an_empty_directory(installed: Path, tmp_path: Path) -> None:
    assert "serve" in run(installed / "authz", "--help", cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_everything_imports_from_an_empty_directory(installed: Path, tmp_path: Path) -> None:
    program = """
import importlib, pkgutil
import authz, authz_ext
for package in (authz, authz_ext):
    assert "installed" in package.__file__, package.__file__
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
"""
    run(installed / "python", "-W", "error", "-c", program, cwd=tmp_path)


def test_scripts_and_deck_load_from_an_empty_directory(installed: Path, tmp_path: Path) -> None:
    program = """
from importlib.resources import files
from authz.store.scripts import load_scripts
print(*sorted({script.name for script in load_scripts().values()}))
print(len((files("authz.demo") / "world_deck.csv").read_text("utf-8").splitlines()))
"""
    scripts, deck_lines = run(installed / "python", "-c", program, cwd=tmp_path).splitlines()
    assert scripts.split() == sorted(path.stem.split("-")[0] for path in ROOT.glob("lua/*-*.lua"))
    assert int(deck_lines) > 250
