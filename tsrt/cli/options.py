"""What the options of all commands have in common."""

from __future__ import annotations

import sys
from typing import NoReturn

from twisted.python.usage import Options as UsageOptions

from tsrt._version import __version__


class CommandOptions(UsageOptions):
    """
    The options of one command.

    @cvar command: its whole name, for the first line of its help.
    """

    command = "tsrt"
    arguments = "[options]"

    def getSynopsis(self) -> str:
        """See L{UsageOptions}; without that of the command above."""
        return f"Usage: {self.command} {self.arguments}"

    def opt_version(self) -> NoReturn:
        """Print the version and exit."""
        sys.stdout.write(f"tsrt {__version__}\n")
        raise SystemExit(0)
