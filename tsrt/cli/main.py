"""
C{tsrt}: what people ask on a terminal, beside C{twistd tsrt}, which runs a node.

Each command is a module of its own, imported when it is used.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol, TextIO, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twisted.python.usage import Options as UsageOptions
from twisted.python.usage import UsageError

from tsrt.cli.options import CommandOptions
from tsrt.errors import TSRTError


class Command(Protocol):
    """The options of a command, which know how to run it."""

    def run(self, reactor: Any, out: TextIO) -> Coroutine[Any, Any, None]:
        """Do it; what it says goes to C{out}."""


def _netcheck() -> UsageOptions:
    from tsrt.cli.netcheck import NetcheckOptions

    return NetcheckOptions()


def _status() -> UsageOptions:
    from tsrt.cli.status import StatusOptions

    return StatusOptions()


def _ip() -> UsageOptions:
    from tsrt.cli.status import IPOptions

    return IPOptions()


def _whois() -> UsageOptions:
    from tsrt.cli.ask import WhoisOptions

    return WhoisOptions()


def _ping() -> UsageOptions:
    from tsrt.cli.ask import PingOptions

    return PingOptions()


class Options(CommandOptions):
    """The command line of C{tsrt}."""

    arguments = "COMMAND [options]"
    longdesc = (
        "Commands that ask a running node, and netcheck, which needs none. 'tsrt "
        "COMMAND --help' tells more of each. A node is run by 'twistd tsrt'."
    )
    subCommands = [
        ["status", None, _status, "Tell who is on the tailnet, and how they are."],
        ["ip", None, _ip, "Print the addresses of the node, or of a peer."],
        ["whois", None, _whois, "Tell who is behind a tailnet address."],
        ["ping", None, _ping, "Ping a peer, and tell by which path it answers."],
        ["netcheck", None, _netcheck, "Print an analysis of local network conditions."],
    ]

    def postOptions(self) -> None:
        """See L{UsageOptions}."""
        if self.subCommand is None:
            raise UsageError("which command? See 'tsrt --help'.")


def parse(arguments: Sequence[str]) -> Command:
    """
    Read a command line.

    @raise SystemExit: after help, or with a sentence for what is wrong.
    """
    options = Options()
    try:
        options.parseOptions(list(arguments))
    except UsageError as error:
        command = options.subCommand
        help = f"tsrt {command} --help" if command else "tsrt --help"
        raise SystemExit(f"tsrt: {error}\nTry '{help}'.") from None
    return cast(Command, options.subOptions)


def main(
    arguments: Sequence[str] | None = None,
    react: Callable[..., object] = react,
) -> None:
    """
    The console script.

    @param arguments: those of the process by default.
    @param react: runs the reactor.
    """
    command = parse(sys.argv[1:] if arguments is None else arguments)
    react(lambda reactor: Deferred.fromCoroutine(_guarded(command, reactor)))


async def _guarded(command: Command, reactor: Any) -> None:
    try:
        await command.run(reactor, sys.stdout)
    except TSRTError as error:
        raise SystemExit(f"tsrt: {error.describe()}") from None
    except BrokenPipeError:
        # Whoever read this has had enough.
        raise SystemExit(1) from None
