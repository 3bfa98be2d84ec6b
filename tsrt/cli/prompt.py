"""Asking the person at the terminal to let the node in."""

from __future__ import annotations

from typing import TextIO

from twisted.logger import Logger
from zope.interface import implementer

from tsrt.interfaces import ILoginPrompt


@implementer(ILoginPrompt)
class TerminalPrompt:
    """Writes what has to be done to a terminal, and to the log."""

    _log = Logger(namespace="tsrt.login")

    def __init__(self, output: TextIO | None) -> None:
        """
        @param output: the terminal, or C{None} for the log only.
        """
        self._output = output

    def loginRequired(self, url: str) -> None:
        """Show the page to open, once for each page."""
        self._log.info("to let this node in, open {url}", url=url)
        self._write(f"\nTo let this node in, open:\n\n\t{url}\n\n")

    def approvalRequired(self) -> None:
        """Say that an administrator has to act."""
        self._log.info("waiting for an administrator to approve this machine")
        self._write(
            "\nAn administrator of the tailnet has to approve this machine.\n\n"
        )

    def loginCompleted(self) -> None:
        """Say that the node is in."""
        self._log.info("this node was let in")
        self._write("The node was let in.\n")

    def _write(self, text: str) -> None:
        if self._output is not None:
            self._output.write(text)
            self._output.flush()


@implementer(ILoginPrompt)
class LogPrompt(TerminalPrompt):
    """Writes to the log only, for nodes inside other programs."""

    def __init__(self) -> None:
        super().__init__(None)
