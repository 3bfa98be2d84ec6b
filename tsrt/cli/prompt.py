"""Asking the person at the terminal to let the node in."""

from __future__ import annotations

from typing import TextIO

from tsrt.runtime.prompt import LogPrompt


class TerminalPrompt(LogPrompt):
    """Writes what has to be done to a terminal, and to the log."""

    def __init__(self, output: TextIO | None) -> None:
        """
        @param output: the terminal; C{None} where there is none.
        """
        self._output = output

    def loginRequired(self, url: str) -> None:
        """Show the page to open, once for each page."""
        super().loginRequired(url)
        self._write(f"\nTo let this node in, open:\n\n\t{url}\n\n")

    def approvalRequired(self) -> None:
        """Say that an administrator has to act."""
        super().approvalRequired()
        self._write(
            "\nAn administrator of the tailnet has to approve this machine.\n\n"
        )

    def loginCompleted(self) -> None:
        """Say that the node is in."""
        super().loginCompleted()
        self._write("The node was let in.\n")

    def _write(self, text: str) -> None:
        if self._output is not None:
            self._output.write(text)
            self._output.flush()
