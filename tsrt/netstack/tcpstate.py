"""
The states of a TCP flow, how it can end, and what an application is told.

Reference: RFC 9293 section 3.3.2.
"""

from __future__ import annotations

import enum


class TCPState(enum.IntEnum):
    """
    The states of RFC 9293; LISTEN is not a state of a flow here.

    The order is that of a flow's life, so that ranges of states compare.
    """

    CLOSED = 0
    SYN_SENT = 1
    SYN_RECEIVED = 2
    ESTABLISHED = 3
    CLOSE_WAIT = 4
    FIN_WAIT_1 = 5
    FIN_WAIT_2 = 6
    CLOSING = 7
    LAST_ACK = 8
    TIME_WAIT = 9


class CloseReason(enum.Enum):
    """Why a flow is over."""

    DONE = "done"
    """Both sides finished and everything was acknowledged."""

    RESET = "reset"
    """The peer reset the flow."""

    TIMEOUT = "timeout"
    """The peer did not answer for too long."""

    REFUSED = "refused"
    """The peer answered our SYN with a reset."""

    UNREACHABLE = "unreachable"
    """The network said that the peer cannot be reached."""

    ABORTED = "aborted"
    """This side gave the flow up."""


READABLE = 1
"""Mark: data arrived that can be read."""

WRITABLE = 2
"""Mark: the queue of written data fell below the low-water mark."""

ESTABLISHED = 4
"""Mark: the handshake is over."""

EOF = 8
"""Mark: the peer has finished; what is readable is all there will be."""

CLOSED = 16
"""Mark: the flow is over, C{closeReason} says why; given exactly once."""
