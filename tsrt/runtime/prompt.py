"""Telling the log what a person has to do to let the node in."""

from __future__ import annotations

from twisted.logger import Logger
from zope.interface import implementer

from tsrt.interfaces import ILoginPrompt

_log = Logger(namespace="tsrt.login")


@implementer(ILoginPrompt)
class LogPrompt:
    """Writes to the log, for nodes inside of other programs."""

    def loginRequired(self, url: str) -> None:
        """Show the page to open, once for each page."""
        _log.info("to let this node in, open {url}", url=url)

    def approvalRequired(self) -> None:
        """Say that an administrator has to act."""
        _log.info("waiting for an administrator to approve this machine")

    def loginCompleted(self) -> None:
        """Say that the node is in."""
        _log.info("this node was let in")
