"""Builds the Cython extensions of ext/ and loadtest/; the rest is said in pyproject.toml.

AUTHZ_DEBUG=1 turns bounds checks and line tracing on.
"""

from __future__ import annotations

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

DEBUG = os.environ.get("AUTHZ_DEBUG") == "1"
#: Packages with extensions, and where they lie.
PACKAGES = {"authz_ext": "ext/authz_ext", "loadtest": "loadtest"}


class BuildExtensions(build_ext):
    """Leaves out the load test's where they would be installed: it runs in a source tree only."""

    def finalize_options(self) -> None:
        """Decide what is built."""
        super().finalize_options()
        if not (self.inplace or self.editable_mode):
            self.extensions = [one for one in self.extensions if one.name[:9] != "loadtest."]


setup(
    cmdclass={"build_ext": BuildExtensions},
    ext_modules=cythonize(
        [
            Extension(
                f"{package}.{source.stem}",
                [str(source)],
                extra_compile_args=["-O0", "-g"] if DEBUG else ["-O2", "-Wall"],
                define_macros=[("CYTHON_TRACE", "1")] if DEBUG else [],
            )
            for package, place in PACKAGES.items()
            for source in sorted(Path(place).glob("*.pyx"))
        ],
        compiler_directives={
            "language_level": 3,
            "boundscheck": DEBUG,
            "wraparound": DEBUG,
            "cdivision": not DEBUG,
            "linetrace": DEBUG,
            "embedsignature": True,
        },
    ),
)
