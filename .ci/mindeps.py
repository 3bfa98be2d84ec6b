"""
Like C{pip install}, with the oldest versions that setup.cfg allows.

tox calls this instead of pip for the C{mindeps} environment.
"""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def oldest() -> list[str]:
    """The lower bounds of install_requires as exact versions."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    pins = []
    for line in config["options"]["install_requires"].split("\n"):
        match = re.match(
            r"\s*([A-Za-z0-9._-]+)(?:\[[^]]*\])?\s*>=\s*([0-9.]+)[^;]*(;.*)?$", line
        )
        if match:
            pins.append(f"{match[1]}=={match[2]}{match[3] or ''}")
    return pins


def main() -> None:
    """Run pip with the pins as constraints."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
        constraints.write("\n".join(oldest()) + "\n")
        constraints.flush()
        command = [sys.executable, "-m", "pip", "install", "-c", constraints.name]
        sys.exit(subprocess.call(command + sys.argv[1:]))


if __name__ == "__main__":
    main()
