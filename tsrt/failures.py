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

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class NoSuchPeer(TSRTError, DNSLookupError):
    """No node of the tailnet has that name."""

    advice = "Names are those of the netmap; see node.peers()."

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""
