"""
Connection requests that are answered only when somebody has decided.

A router answers for hosts that it has to ask first.  Until it knows, the
request is kept: the peer hears nothing, as if the network were slow.
"""

from __future__ import annotations


class HeldSYN:
    """
    A connection request without an answer yet.

    A fallback of the stack returns one to have time.  Given to the stack once
    more, the packet asks the fallback again.

    @ivar packet: the latest copy of the request, as a whole IP packet; C{None}
        before the stack has put it here.
    """

    __slots__ = ("packet",)

    def __init__(self) -> None:
        self.packet: bytes | None = None
