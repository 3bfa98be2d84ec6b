"""
Builds the compiled kernel, C{tsrt.dataplane._kernel}, with cffi in API mode.

C{setup.py} does so at installation, also an editable one, where there is a compiler;
nothing needs it.
"""

from __future__ import annotations

import re
from pathlib import Path

from cffi import FFI

_HERE = Path(__file__).resolve().parent


def declarations() -> str:
    """What the header declares, without its comments."""
    return re.sub(r"/\*.*?\*/", "", (_HERE / "kernel.h").read_text(), flags=re.DOTALL)


ffibuilder = FFI()
ffibuilder.cdef(declarations())
ffibuilder.set_source(
    "tsrt.dataplane._kernel",
    (_HERE / "kernel.c").read_text(),
    include_dirs=[str(_HERE)],
    libraries=["dl"],
    extra_compile_args=["-O3", "-std=c11"],
)
