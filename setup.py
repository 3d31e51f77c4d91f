"""Builds the Cython extensions of ext/; everything else is said in pyproject.toml.

AUTHZ_DEBUG=1 turns bounds checks and line tracing on.
"""

from __future__ import annotations

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

DEBUG = os.environ.get("AUTHZ_DEBUG") == "1"
SOURCES = sorted(Path("ext/authz_ext").glob("*.pyx"))

setup(
    ext_modules=cythonize(
        [
            Extension(
                f"authz_ext.{source.stem}",
                [str(source)],
                extra_compile_args=["-O0", "-g"] if DEBUG else ["-O2", "-Wall"],
                define_macros=[("CYTHON_TRACE", "1")] if DEBUG else [],
            )
            for source in SOURCES
        ],
        compiler_directives={
            "language_level": 3,
            "boundscheck": DEBUG,
            "wraparound": DEBUG,
            "cdivision": not DEBUG,
            "linetrace": DEBUG,
            "embedsignature": True,
        },
    )
)
