"""
Checks that hold for the whole tree: who may import what, and that the map of
the tree in the documentation is true.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import tsrt

ROOT = Path(tsrt.__file__).parent

PURE = (
    "errors.py",
    "keys.py",
    "addresses.py",
    "counters.py",
    "wire",
    "crypto",
    "tailcfg",
    "tunnel",
    "netstack",
    "netmap",
    "path",
    "dataplane",
)

# Reads one variable of the environment, once.
EXEMPT = {("dataplane/choice.py", "os")}

FORBIDDEN = frozenset(
    [
        "twisted",
        "OpenSSL",
        "asyncio",
        "socket",
        "time",
        "random",
        "os",
        "select",
        "threading",
        "ssl",
        "subprocess",
        "selectors",
        "secrets",
    ]
)

# The only modules that may meet the global reactor: they are the edge where a
# process begins.
MAY_USE_GLOBAL_REACTOR = ("_tap.py", "_devtap.py", "cli")

# Overlay traffic may reach a host socket only through these (rule R-GLB-1).
MAY_OPEN_HOST_SOCKETS = ("underlay", "services", "testing", "_tap.py", "_devtap.py")


def modules(*names: str) -> Iterator[tuple[str, ast.Module]]:
    """Yield the relative path and the syntax tree of each named module."""
    for name in names:
        path = ROOT / name
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            yield (
                file.relative_to(ROOT).as_posix(),
                ast.parse(file.read_text(encoding="utf-8"), str(file)),
            )


def imports(tree: ast.AST) -> Iterator[str]:
    """Yield the full dotted name of everything that C{tree} imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                yield f"{node.module}.{alias.name}"


class PurityTests(SynchronousTestCase):
    """Pure packages do no I/O and read no clock."""

    def test_pureModulesImportNothingImpure(self) -> None:
        """No pure module imports Twisted, a clock, a socket or randomness."""
        wrong = [
            f"{name} imports {imported}"
            for name, tree in modules(*PURE)
            for imported in imports(tree)
            if imported.split(".")[0] in FORBIDDEN and (name, imported) not in EXEMPT
        ]
        self.assertEqual(wrong, [])

    def test_pureModulesImportOnlyPureTsrt(self) -> None:
        """What a pure module imports from tsrt is itself pure."""
        allowed = {name.removesuffix(".py") for name in PURE} | {"_version"}
        wrong = [
            f"{name} imports {imported}"
            for name, tree in modules(*PURE)
            for imported in imports(tree)
            if imported.startswith("tsrt.") and imported.split(".")[1] not in allowed
        ]
        self.assertEqual(wrong, [])

    def test_theCheckSeesThings(self) -> None:
        """The search finds an import where there is one."""
        tree = ast.parse("def f():\n    from time import monotonic\nimport os.path\n")
        self.assertEqual(sorted(imports(tree)), ["os.path", "time.monotonic"])


class SeamTests(SynchronousTestCase):
    """The world is handed in, never grabbed."""

    def test_globalReactorOnlyAtTheEdge(self) -> None:
        """Only the command line and the endpoint parsers meet the reactor."""
        wrong = [
            name
            for name, tree in modules(".")
            if not name.startswith(("test/", *MAY_USE_GLOBAL_REACTOR))
            for imported in imports(tree)
            if imported == "twisted.internet.reactor"
        ]
        self.assertEqual(wrong, [])

    def test_globalReactorNeverAtModuleLevel(self) -> None:
        """Even at the edge the reactor is imported inside a function."""
        wrong = [
            name
            for name, tree in modules(".")
            if not name.startswith("test/")
            for node in tree.body
            for imported in imports(node)
            if isinstance(node, ast.Import | ast.ImportFrom)
            and imported == "twisted.internet.reactor"
        ]
        self.assertEqual(wrong, [])

    def test_R_GLB_1_noHostSocketsForOverlayTraffic(self) -> None:
        """Nothing outside the named places opens a host socket by itself."""
        calls = {"socket", "create_connection", "connectTCP", "listenTCP", "listenUDP"}
        wrong = []
        for name, tree in modules(
            "overlay", "runtime", "node.py", "reactor.py", "names.py", "web.py"
        ):
            for imported in imports(tree):
                # Looking up a service's name opens nothing.
                if imported.split(".")[0] == "socket" and imported not in (
                    "socket.getservbyname",
                ):
                    wrong.append(f"{name} imports {imported}")
            for node in ast.walk(tree):
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Attribute)
                    and node.func.attr in calls
                    and isinstance(node.func.value, ast.Attribute | ast.Name)
                    and ast.unparse(node.func.value)
                    in ("reactor", "self._hostReactor", "hostReactor")
                ):
                    wrong.append(f"{name}:{node.lineno} {ast.unparse(node.func)}")
        self.assertEqual(wrong, [])

    def test_testingIsImportedByTestsOnly(self) -> None:
        """Nothing that a node needs imports L{tsrt.testing}."""
        wrong = [
            f"{name} imports {imported}"
            for name, tree in modules(".")
            if not name.startswith(("test/", "testing/", "_devtap.py"))
            for imported in imports(tree)
            if imported.startswith("tsrt.testing")
        ]
        self.assertEqual(wrong, [])


class ImportCostTests(SynchronousTestCase):
    """Importing the package pulls in no more than it must."""

    def test_packageImportIsLazy(self) -> None:
        """C{import tsrt} alone imports neither Twisted nor the wire codecs."""
        import subprocess

        code = (
            "import sys, tsrt; "
            "sys.exit(any(m.split('.')[0] in ('twisted', 'nacl', 'h2') "
            "for m in sys.modules))"
        )
        self.assertEqual(subprocess.run([sys.executable, "-c", code]).returncode, 0)
