"""
Install tsrt as a wheel and editable, each into a fresh environment, and check
from outside of the checkout that Twisted finds its plugins.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

CHECK = """
import sys
from twisted.internet import reactor
from twisted.internet.endpoints import clientFromString, serverFromString
client = clientFromString(reactor, "tailnet:host=web:port=80")
server = serverFromString(reactor, "tailnet:80:interface=v4")
assert type(client).__name__ == "_WrapperEndpoint" or "Tailnet" in repr(client), client
assert "Tailnet" in repr(server), server
import tsrt.test, tsrt
print(tsrt.__file__)
"""


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command; return what it printed; show it all if it failed."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{command} failed with {done.returncode}:\n{done.stdout}")
    return done.stdout


def check(environment: Path, elsewhere: Path, what: str) -> None:
    """Check that the plugins of an environment work."""
    listed = run(environment / "bin" / "twistd", "--help", cwd=elsewhere)
    for command in ("tsrt ", "tsrt-devtailnet"):
        if command not in listed:
            sys.exit(f"{what}: twistd --help does not list {command}:\n{listed}")
    helped = run(environment / "bin" / "twistd", "tsrt", "--help", cwd=elsewhere)
    if "--login-server" not in helped:
        sys.exit(f"{what}: twistd tsrt --help says:\n{helped}")
    run(environment / "bin" / "twistd", "tsrt-devtailnet", "--help", cwd=elsewhere)
    where = run(environment / "bin" / "python", "-c", CHECK, cwd=elsewhere)
    print(f"{what}: plugins work; tsrt is {where.strip()}")


def main() -> None:
    """Make the environments and check both."""
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        run(sys.executable, "-m", "build", "--wheel", "-o", scratch, ROOT, cwd=scratch)
        (wheel,) = scratch.glob("tsrt-*.whl")
        for what, arguments in (
            ("wheel", [wheel]),
            ("editable", ["--editable", ROOT]),
        ):
            environment = scratch / what
            venv.create(environment, with_pip=True)
            python = environment / "bin" / "python"
            run(python, "-m", "pip", "install", "-q", *arguments, cwd=scratch)
            check(environment, scratch, what)


if __name__ == "__main__":
    main()
