"""What installing and importing jowa promises."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import jowa

ROOT = Path(__file__).resolve().parents[1]

IMPORT_WITH_ONLY = """
import importlib, pkgutil, sys

allowed = set({allowed!r})

class Refuse:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in sys.stdlib_module_names or top.startswith("_") or top in allowed:
            return None
        raise ModuleNotFoundError(f"No module named {{name!r}} (refused by the test)", name=name)

sys.meta_path.insert(0, Refuse())
for name in {modules!r}:
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(package.__path__, name + "."):
        if not module.name.endswith("_triton"):  # only a GPU's path imports these
            importlib.import_module(module.name)
"""


def requirements(distribution: str, seen: set[str]) -> set[str]:
    """The installed distributions that ``distribution`` needs, itself included, extras left out."""
    name = re.sub(r"[-_.]+", "-", distribution).lower()
    if name not in seen:
        try:
            needed = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            return seen
        seen.add(name)
        for requirement in needed:
            if "extra ==" not in requirement:
                requirements(re.split(r"[\s;<>=!~\[(]", requirement, maxsplit=1)[0], seen)
    return seen


def run_python(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload, no-any-return]


def test_model_losses_planner_and_kernels_need_only_torch_and_numpy():
    needed = requirements("torch", requirements("numpy", set()))
    allowed = ["jowa"] + [
        top
        for top, distributions in importlib.metadata.packages_distributions().items()
        if any(re.sub(r"[-_.]+", "-", d).lower() in needed for d in distributions)
    ]
    modules = ["jowa.model", "jowa.losses", "jowa.planner", "jowa.kernels"]
    done = run_python("-c", IMPORT_WITH_ONLY.format(allowed=allowed, modules=modules), cwd="/")
    assert done.returncode == 0, done.stderr


def test_importing_jowa_is_light():
    done = run_python("-c", "import sys, jowa; assert not {'numpy', 'torch'} & set(sys.modules)")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["train", "finetune", "suite", "viewer"])
def test_options_are_known_without_torch(name):
    """Help and mistakes in a call come at once."""
    done = run_python("-X", "importtime", "-m", f"jowa.{name}", "--help")
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert done.returncode == 0 and "usage" in done.stdout.lower() and "tyro" in imported
    assert not {"torch", "zarr", "scipy", "gymnasium"} & imported


def test_the_version_is_the_installed_one():
    assert importlib.metadata.version("jowa") == jowa.__version__


def test_kernels_and_viewer_are_part_of_the_package():
    import jowa.kernels
    import jowa.viewer

    for module, folder in ((jowa.kernels, "kernels"), (jowa.viewer, "viewer")):
        assert module.__file__ is not None
        assert Path(module.__file__).resolve() == ROOT / folder / "__init__.py"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of what is built from, links kept."""
    pytest.importorskip("setuptools", minversion="77")
    target = tmp_path / "jowa"
    target.mkdir()
    for name in ("setup.py", "pyproject.toml", "CMakeLists.txt", "MANIFEST.in", "LICENSE", "README.md", "Makefile"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, target)
    for name in ("jowa", "kernels", "viewer", "csrc", "tests"):
        ignored = shutil.ignore_patterns("__pycache__", "*.so")
        shutil.copytree(ROOT / name, target / name, symlinks=True, ignore=ignored)
    return target


def test_the_sdist_holds_links_as_files_and_all_that_a_wheel_needs(copy: Path):
    done = run_python("-c", "from setuptools import build_meta; build_meta.build_sdist('out')", cwd=copy)
    assert done.returncode == 0, done.stderr
    (archive,) = (copy / "out").glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        files = {member.name.partition("/")[2] for member in tar if member.isfile()}
        assert not [member.name for member in tar if member.issym() or member.islnk()]
    native = {f"csrc/{name}" for name in ("tree.h", "trees.cpp", "bindings.cpp", "cuda/trees.cu")}
    shipped = ROOT / "jowa" / "shipped"
    assert {f"jowa/shipped/{path.relative_to(shipped)}" for path in shipped.rglob("*.*")} <= files
    assert files >= native | {
        "jowa/kernels/__init__.py",
        "jowa/viewer/__init__.py",
        "jowa/_native.pyi",
        "CMakeLists.txt",
    }
    assert {f"jowa/kernels/{path.name}" for path in (ROOT / "kernels").glob("*.py")} <= files
    assert {f"jowa/report/templates/{path.name}" for path in (ROOT / "jowa/report/templates").iterdir()} <= files


@pytest.mark.slow
def test_a_wheel_works_away_from_the_checkout(copy: Path, tmp_path: Path):
    if not shutil.which("c++") and not shutil.which("g++"):
        pytest.skip("no C++ compiler")
    built = run_python("-c", "from setuptools import build_meta; build_meta.build_wheel('out')", cwd=copy)
    assert built.returncode == 0, built.stderr
    (wheel,) = (copy / "out").glob("*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    shipped = ROOT / "jowa" / "shipped"
    assert {path.relative_to(shipped) for path in shipped.rglob("*.*")} == {
        path.relative_to(site / "jowa" / "shipped") for path in (site / "jowa" / "shipped").rglob("*.*")
    }
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import jowa.kernels, jowa.viewer, jowa.planner.tree as tree; "
        "from pathlib import Path; assert (Path(jowa.__file__).parent / 'report/templates/page.html.j2').is_file(); "
        "assert tree.native_available(); print(tree.__file__)"
    )
    done = run_python("-c", code, str(site), cwd=str(tmp_path))
    assert done.returncode == 0 and done.stdout.startswith(str(site)), (done.stdout, done.stderr)


@pytest.mark.parametrize(
    ("absent", "said"), [("cmake", "CMake was not found; run 'pip install cmake"), ("pybind11", "pybind11 is missing")]
)
def test_a_missing_tool_is_one_sentence(copy: Path, absent: str, said: str):
    # A cmake beside this Python counts, and so does one on PATH: hide both.
    code = (
        "import runpy, shutil, sys; sys.argv = ['setup.py', 'build_ext']; "
        "find = shutil.which; shutil.which = lambda name, **how: None if name == 'cmake' else find(name, **how)"
        if absent == "cmake"
        else "import runpy, sys; sys.argv = ['setup.py', 'build_ext']; sys.modules['pybind11'] = None"
    )
    done = run_python("-c", code + "; runpy.run_path('setup.py', run_name='__main__')", cwd=copy)
    assert done.returncode == 1
    assert said in done.stderr and "Traceback" not in done.stderr


def test_a_missing_compiler_is_one_sentence(copy: Path):
    environment = {**os.environ, "CXX": "/nowhere/c++"}
    done = run_python("setup.py", "build_ext", cwd=copy, env=environment)
    assert done.returncode == 1
    assert "no C++ compiler was found; install g++" in done.stderr and "Traceback" not in done.stderr
