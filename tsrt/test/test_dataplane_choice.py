"""
Tests for L{tsrt.dataplane.choice}: tiers that are there, and do not work.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tsrt.dataplane import choice
from tsrt.dataplane.choice import VARIABLE, chooseTier
from tsrt.dataplane.interface import Tier
from tsrt.errors import NotSupported

try:
    from tsrt.dataplane import compiled

    compiled.loadLibrary()
    WITHOUT = ""
except ImportError:
    WITHOUT = "the kernel is not built, or there is no libcrypto"

COMPILER = shutil.which(os.environ.get("CC", "cc"))

LIBRARY = """
#include <string.h>
static int something;
void *EVP_CIPHER_CTX_new(void) { return &something; }
void EVP_CIPHER_CTX_free(void *context) { (void)context; }
void *EVP_chacha20_poly1305(void) { return &something; }
int EVP_CipherInit_ex(void *a, void *b, void *c, void *d, void *e, int f)
{ return OBEYS; }
int EVP_CipherUpdate(void *a, unsigned char *out, int *done, void *in, int size)
{
    if (out != 0) memmove(out, in, (size_t)size);
    *done = size;
    return OBEYS;
}
int EVP_CipherFinal_ex(void *a, void *b, int *done) { *done = 0; return OBEYS; }
int EVP_CIPHER_CTX_ctrl(void *a, int b, int c, void *d) { return OBEYS; }
"""
"""A libcrypto that has all names, and either refuses all work, or does none."""


class FakeLibrary:
    """The kernel, with one function replaced."""

    def __init__(self, real: Any, name: str, function: Callable[..., object]) -> None:
        self._real = real
        self._name = name
        self._function = function
        self.calls = 0

    def __getattr__(self, name: str) -> object:
        if name != self._name:
            return getattr(self._real, name)

        def call(*arguments: object) -> object:
            self.calls += 1
            return self._function(*arguments)

        return call


class KernelTests(SynchronousTestCase):
    """A kernel that is built, with a libcrypto that does not do what it should."""

    if WITHOUT:
        skip = WITHOUT

    def refused(self, name: str, function: Callable[..., object]) -> None:
        """With such a function there is no compiled tier; the next one is taken."""
        fake = FakeLibrary(compiled.lib, name, function)
        self.patch(compiled, "lib", fake)
        with self.assertRaises(ImportError):
            compiled.CompiledTier()
        self.assertGreater(fake.calls, 0)
        with self.assertRaises(NotSupported) as raised:
            chooseTier("compiled")
        self.assertIn("ChaCha20-Poly1305", str(raised.exception))
        self.assertIn(chooseTier().name, ("fast", "plain"))

    def test_works(self) -> None:
        """The true one is found to work."""
        self.assertEqual(chooseTier("compiled").name, "compiled")

    def test_noCipher(self) -> None:
        """No cipher can be made, in one direction or the other."""
        make = compiled.lib.tsrt_cipher_new
        null = compiled.ffi.NULL
        for refuses in ((True, False), (True,), (False,)):
            self.refused(
                "tsrt_cipher_new",
                lambda key, seals, refuses=refuses: (
                    null if seals in refuses else make(key, seals)
                ),
            )

    def test_doesNotSeal(self) -> None:
        """It refuses to seal."""
        self.refused("tsrt_seal_run", lambda *_: -2)

    def test_sealsWrongly(self) -> None:
        """What it seals is not what it should be."""
        seal = compiled.lib.tsrt_seal_run

        def sealWrongly(*arguments: Any) -> int:
            length: int = seal(*arguments)
            arguments[-2][length // 2] ^= 1
            return length

        self.refused("tsrt_seal_run", sealWrongly)

    def test_doesNotOpen(self) -> None:
        """It opens nothing."""
        self.refused("tsrt_open_run", lambda *_: -1)
        open_ = compiled.lib.tsrt_open_run

        def openNothing(*arguments: Any) -> int:
            result: int = open_(*arguments)
            arguments[-1].taken = arguments[-1].items = 0
            return result

        self.refused("tsrt_open_run", openNothing)

    def test_opensWrongly(self) -> None:
        """What it opens is not what it should be."""
        open_ = compiled.lib.tsrt_open_run

        # The plaintexts, and the payloads that were put together.
        for where in (5, 6):

            def openWrongly(*arguments: Any, where: int = where) -> int:
                result: int = open_(*arguments)
                arguments[where][50] ^= 1
                return result

            self.refused("tsrt_open_run", openWrongly)

    def test_opensForged(self) -> None:
        """It does not look at the tags."""
        open_ = compiled.lib.tsrt_open_run

        def openAll(*arguments: Any) -> int:
            result: int = open_(*arguments)
            arguments[-1].taken = arguments[-2]
            return result

        self.refused("tsrt_open_run", openAll)

    def test_libraries(self) -> None:
        """
        A library that has everything and does not work is passed over, for another
        one or for another tier.
        """
        if COMPILER is None:
            self.skipTest("there is no C compiler")
        here = Path(self.mktemp()).absolute()
        here.mkdir()
        (here / "fake.c").write_text(LIBRARY)
        names = []
        for obeys in (0, 1):
            names.append(str(here / f"fake{obeys}.so"))
            options = ("-shared", "-fPIC", "-w", f"-DOBEYS={obeys}", "-o", names[-1])
            subprocess.run([COMPILER, *options, str(here / "fake.c")], check=True)
        program = (
            "import sys\n"
            "from tsrt.dataplane import compiled\n"
            "compiled.LIBRARIES = tuple(sys.argv[1:])\n"
            "compiled.find_library = lambda _: None\n"
            "from tsrt.dataplane.choice import TIER\n"
            "print(TIER.name)\n"
        )
        real = compiled.loadLibrary()
        for libraries, expected in (
            (names[:1], ("fast", "plain")),
            (names[1:], ("fast", "plain")),
            ((*names, real), ("compiled",)),
        ):
            done = subprocess.run(
                [sys.executable, "-c", program, *libraries],
                env={k: v for k, v in os.environ.items() if k != VARIABLE},
                capture_output=True,
                text=True,
            )
            self.assertIn(done.stdout.strip(), expected, done.stderr)


class TroubleTests(SynchronousTestCase):
    """Tiers that fail in ways of their own."""

    def tiers(self, error: Exception) -> None:
        """Of two tiers the first fails."""

        def fail() -> Tier:
            raise error

        self.patch(choice, "TIERS", {"fast": fail, "plain": choice.TIERS["plain"]})

    def test_anyError(self) -> None:
        """
        Whatever NumPy raises (C{RuntimeError} on a processor that it is not made
        for), there is another tier, and a warning says why.
        """
        for error in (
            RuntimeError("NumPy was built with baseline optimizations"),
            OSError("a library is broken"),
            AttributeError("half of it is there"),
        ):
            self.tiers(error)
            self.assertEqual(chooseTier().name, "plain")
            (warning,) = self.flushWarnings([self.test_anyError])
            self.assertIn("the fast tier", warning["message"])
            self.assertIn(str(error), warning["message"])

    def test_notThere(self) -> None:
        """What is simply not there is not worth a line."""
        self.tiers(ImportError("no NumPy"))
        self.assertEqual(chooseTier().name, "plain")
        self.assertEqual(self.flushWarnings(), [])

    def test_named(self) -> None:
        """Whoever asked for the one that fails is told why."""
        self.tiers(RuntimeError("not on this processor"))
        with self.assertRaises(NotSupported) as raised:
            chooseTier("fast")
        self.assertIn("not on this processor", str(raised.exception))

    def test_oldProcessor(self) -> None:
        """A new interpreter in which NumPy fails so takes the plain tier."""
        program = (
            "import sys\n"
            "class Finder:\n"
            "    def find_spec(self, name, path=None, target=None):\n"
            "        if name == 'numpy':\n"
            "            raise RuntimeError('not on this processor')\n"
            "sys.meta_path.insert(0, Finder())\n"
            "sys.modules['tsrt.dataplane._kernel'] = None\n"
            "from tsrt.dataplane.choice import TIER\n"
            "print(TIER.name)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={k: v for k, v in os.environ.items() if k != VARIABLE},
            capture_output=True,
            text=True,
        )
        self.assertEqual(done.stdout.strip(), "plain", done.stderr)
