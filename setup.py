"""Builds jowa._native with CMake. Everything else about the package is in pyproject.toml."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent


def find_tool(name: str) -> str | None:
    """The path of ``cmake`` or ``ninja``: on PATH, or beside this Python when its folder is not on PATH."""
    beside_python = os.pathsep.join([sysconfig.get_path("scripts"), str(Path(sys.executable).parent)])
    return shutil.which(name) or shutil.which(name, path=beside_python)


def find_compiler() -> str | None:
    """The C++ compiler that CMake will find: $CXX, or a usual name on PATH."""
    chosen = os.environ.get("CXX")
    candidates = [chosen.split()[0]] if chosen else ["c++", "g++", "clang++"]
    return next(filter(None, map(shutil.which, candidates)), None)


def stop(message: str) -> None:
    """End the build with one sentence, without a traceback."""
    raise SystemExit(f"error: jowa's native core cannot be built: {message}")


class CMakeBuild(build_ext):
    """Runs CMake in a folder that is kept between builds (build/native-<Python>-<platform>)."""

    def build_extension(self, ext: Extension) -> None:
        """Configure, compile and leave the module where setuptools expects it."""
        target = Path(self.get_ext_fullpath(ext.name)).resolve()
        folder = ROOT / "build" / f"native-{sys.implementation.cache_tag}-{sysconfig.get_platform()}"
        self.configure(folder, target.parent)
        self.call([self.cmake(), "--build", str(folder), "--config", "Release"], "see the compiler's messages above")

    def configure(self, folder: Path, destination: Path) -> None:
        """Write the build files.  Isolated builds move their tools, so every path is given anew."""
        if find_compiler() is None:
            stop("no C++ compiler was found; install g++ or clang with C++20, or set CXX to one.")
        try:
            import pybind11
        except ImportError:
            stop("pybind11 is missing; run 'pip install pybind11 cmake ninja', or build without --no-build-isolation.")
        cache = folder / "CMakeCache.txt"
        if cache.exists() and f"CMAKE_HOME_DIRECTORY:INTERNAL={ROOT}\n" not in cache.read_text():
            shutil.rmtree(folder)  # this checkout was copied or moved: CMake would refuse
        command = [
            self.cmake(), "-S", str(ROOT), "-B", str(folder),
            "-DCMAKE_BUILD_TYPE=Release",
            f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={destination}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
        ]  # fmt: skip
        if ninja := find_tool("ninja"):
            command += ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"]
        self.call(command, "see CMake's messages above")

    @staticmethod
    def cmake() -> str:
        """The path of cmake."""
        path = find_tool("cmake")
        if path is None:
            stop("CMake was not found; run 'pip install cmake ninja', or install cmake with the system's packages.")
        assert path is not None
        return path

    @staticmethod
    def call(command: list[str], advice: str) -> None:
        """Run a step of the build."""
        status = subprocess.run(command, check=False).returncode
        if status:
            stop(f"'{' '.join(command[:2])} ...' failed with status {status}; {advice}.")


setup(ext_modules=[Extension("jowa._native", sources=[])], cmdclass={"build_ext": CMakeBuild})
