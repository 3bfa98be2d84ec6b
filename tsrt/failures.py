"""
Errors that are both ours and Twisted's.

They stand apart from L{tsrt.errors}, which pure code imports too.
"""

from __future__ import annotations

from twisted.internet.error import DNSLookupError
from twisted.internet.error import TimeoutError as TwistedTimeoutError

from tsrt.errors import Persistence, TSRTError


class TailnetTimeout(TSRTError, TwistedTimeoutError, TimeoutError):
    """A peer did not answer in time."""

    persistence = Persistence.TRANSIENT

    def __init__(self, message: str = "", *, advice: str | None = None) -> None:
        """
        @param message: one sentence that says what happened.
        @param advice: what to do next, when it differs from the class's.
        """
        Exception.__init__(self, message)
        if advice is not None:
            self.advice = advice

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class NoSuchPeer(TSRTError, DNSLookupError):
    """No node of the tailnet has that name."""

    advice = "Names are those of the netmap; see node.peers()."

    def __init__(self, message: str = "", *, advice: str | None = None) -> None:
        """
        @param message: one sentence that says what happened.
        @param advice: what to do next, when it differs from the class's.
        """
        Exception.__init__(self, message)
        if advice is not None:
            self.advice = advice

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""
