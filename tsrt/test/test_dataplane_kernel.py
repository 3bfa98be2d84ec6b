"""
Tests for the C of L{tsrt.dataplane.compiled}: it builds without a warning, and stays
within its buffers whatever it is given.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import tsrt.dataplane

HERE = Path(__file__).parent
SOURCES = Path(tsrt.dataplane.__file__).parent
COMPILER = shutil.which(os.environ.get("CC", "cc"))
ROUNDS = 30_000

SEEDS = (1, 20, 300)
"""Seeds of the fuzzer that are always tried, before one that nobody knows."""

try:
    from tsrt.dataplane.compiled import loadLibrary

    LIBRARY = loadLibrary()
except ImportError:
    LIBRARY = ""


class KernelTests(SynchronousTestCase):
    """The C sources, by themselves."""

    # What a sanitizer has to say is long.
    maxDiff = None
    if COMPILER is None:
        skip = "there is no C compiler"

    def compile(self, *arguments: str) -> None:
        """Run the compiler; it has to like what it sees."""
        done = subprocess.run(
            [str(COMPILER), *arguments], capture_output=True, text=True
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_warnings(self) -> None:
        """No compiler warning is left."""
        source = str(SOURCES / "kernel.c")
        self.compile(
            *("-std=c11", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Wshadow"),
            *("-c", "-o", self.mktemp(), source),
        )

    def test_fuzz(self) -> None:
        """
        Under sanitizers nothing is read or written outside of what was given, and
        nothing is lost between what is sealed and what is opened.

        C{TSRT_FUZZ_SEED} repeats a seed that once failed.
        """
        if not LIBRARY:
            self.skipTest("the kernel is not built, or there is no libcrypto")
        program = os.path.abspath(self.mktemp())
        self.compile(
            *("-std=gnu11", "-g", "-O1", "-Wall", "-Wextra"),
            *("-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
            *("-o", program, str(HERE / "kernelfuzz.c"), str(SOURCES / "kernel.c")),
            "-ldl",
        )
        chosen = os.environ.get("TSRT_FUZZ_SEED") or secrets.randbits(48)
        for seed in (*SEEDS, chosen):
            done = subprocess.run(
                [program, LIBRARY, str(seed), str(ROUNDS)],
                capture_output=True,
                text=True,
                timeout=120,
            )
            self.assertEqual(
                (done.returncode, done.stdout, done.stderr),
                (0, "ok\n", ""),
                f"TSRT_FUZZ_SEED={seed}",
            )
