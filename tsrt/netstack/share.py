"""
What the flows to one node share: the socket at the end of a short path.

Between two nodes on one machine, or on one local network, nothing queues but the
socket at the far end.  Once that is full it loses whole writes at once, dozens of
segments of one flow, which mostly end in a timeout.  So all flows to a node have
no more on their way together than it holds, and take turns: each sends a long run
when it is called, in place of many a short one, which is what makes a hundred flows
as fast as one.

On longer paths what is on its way is in no socket, and how much the queue there
takes nobody knows but congestion control.  So flows to hosts behind a node are not
counted as flows to it, but as flows to each of those addresses: they may be far off.

Reference: RFC 3124 has flows to one host share what they know of the path.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tsrt.netstack.flow import TCPFlow

SHORT = 0.002
"""Round-trip time in seconds below which a path is a short one."""

MOST = 5 << 20
"""Bytes that flows have on their way together: a socket of the reference client, and
one of ours, is given 7 MiB where the system allows."""


class Share:
    """
    What is known of the flows to one node, which may have several addresses, or to a
    host that is none.

    @ivar key: what its addresses have in common, or the address itself.
    @ivar flight: bytes that they have on their way.
    @ivar smallest: the smallest round-trip time that any of them saw, in seconds;
        L{None} before that.
    @ivar waiting: those that wait until they are called, in this order.
    @ivar count: how many flows there are.
    """

    __slots__ = ("count", "flight", "key", "smallest", "waiting")

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.flight = 0
        self.smallest: float | None = None
        self.waiting: OrderedDict[TCPFlow, None] = OrderedDict()
        self.count = 0

    @property
    def hasRoom(self) -> bool:
        """Whether more may be on its way."""
        return self.flight < MOST or self.smallest is None or self.smallest >= SHORT
