"""
The compiled part, which is built where there is a compiler, and done without where
there is none.  Everything else about the package is in C{setup.cfg}.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from setuptools import Extension, setup


def kernel() -> list[Extension]:
    """The compiled kernel of the data plane; nothing where it cannot be."""
    if os.name != "posix" or os.environ.get("TSRT_NO_KERNEL"):
        return []
    try:
        sys.path.insert(0, str(Path(__file__).resolve().parent))
        from tsrt.dataplane.kernelbuild import ffibuilder
    except ImportError:
        return []
    finally:
        del sys.path[0]
    extension: Extension = ffibuilder.distutils_extension("build")
    # Whatever goes wrong with the compiler, the installation goes on.
    extension.optional = True
    return [extension]


setup(ext_modules=kernel())
