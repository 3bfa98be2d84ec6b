"""
Install tsrt as a wheel and editable, each into a fresh environment, and check
from outside of the checkout that Twisted finds its plugins.

The compiled tier is there after that, but not in a wheel that was built where the
compiler fails; that one works as well.
"""

from __future__ import annotations

import os
import shutil
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
from tsrt.dataplane.choice import TIER
print(TIER.name, tsrt.__file__)
"""

NOT_OURS = (".*", "build", "*.egg-info", "*.so", "__pycache__", "bin", "_trial_temp*")
"""What is in a checkout and is no source."""


def run(*command: str | Path, cwd: Path, **variables: str) -> str:
    """Run a command; return what it printed; show it all if it failed."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **variables},
    )
    if done.returncode:
        sys.exit(f"{command} failed with {done.returncode}:\n{done.stdout}")
    return done.stdout


def check(environment: Path, elsewhere: Path, what: str, tier: str) -> None:
    """Check that the plugins of an environment work, and which tier is in use."""
    listed = run(environment / "bin" / "twistd", "--help", cwd=elsewhere)
    for command in ("tsrt ", "tsrt-devtailnet"):
        if command not in listed:
            sys.exit(f"{what}: twistd --help does not list {command}:\n{listed}")
    helped = run(environment / "bin" / "twistd", "tsrt", "--help", cwd=elsewhere)
    if "--login-server" not in helped:
        sys.exit(f"{what}: twistd tsrt --help says:\n{helped}")
    run(environment / "bin" / "twistd", "tsrt-devtailnet", "--help", cwd=elsewhere)
    found = run(environment / "bin" / "python", "-c", CHECK, cwd=elsewhere)
    used, _, where = found.strip().partition(" ")
    if used != tier:
        sys.exit(f"{what}: the data plane is {used}, and should be {tier}")
    print(f"{what}: plugins work; the data plane is {used}; tsrt is {where}")


def build(source: Path, scratch: Path, **variables: str) -> Path:
    """Build a wheel."""
    command = (sys.executable, "-m", "build", "--wheel", "-o", scratch, source)
    run(*command, cwd=scratch, **variables)
    (wheel,) = scratch.glob("tsrt-*.whl")
    return wheel


def main() -> None:
    """Make the environments and check both."""
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        copy = scratch / "copy"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*NOT_OURS))
        (scratch / "plain").mkdir()
        plain = build(copy, scratch / "plain", CC="false")
        wheel = build(ROOT, scratch)
        for what, tier, arguments in (
            ("wheel without a compiler", "plain", [plain]),
            ("wheel", "compiled", [wheel]),
            ("editable", "compiled", ["--editable", ROOT]),
        ):
            environment = scratch / what
            venv.create(environment, with_pip=True)
            python = environment / "bin" / "python"
            run(python, "-m", "pip", "install", "-q", *arguments, cwd=scratch)
            check(environment, scratch, what, tier)


if __name__ == "__main__":
    main()
