"""What people are told about the way to a peer."""

from __future__ import annotations

from attrs import frozen

from tsrt.counters import Counters
from tsrt.path.candidates import Source
from tsrt.path.places import Direct, Place


@frozen
class CandidateStatus:
    """
    One address of a peer.

    @ivar source: who named it.
    @ivar latency: seconds of its last answer; C{None} if it never answered.
    @ivar lastPing: when it was pinged last; C{None} if never.
    """

    place: Direct
    source: Source
    latency: float | None
    lastPing: float | None


@frozen
class PathStatus:
    """
    The way to a peer at one moment.

    @ivar place: where it is reached directly; C{None}: it is not.
    @ivar isTrusted: whether that was confirmed just now; else packets go by the
        relay as well.
    @ivar latency: seconds of the round trip there.
    @ivar why: why the path is what it is, in words.
    @ivar since: since when.
    @ivar lastSent: when something was last sent to the peer, if ever.
    """

    place: Direct | None
    isTrusted: bool
    latency: float | None
    why: str
    since: float
    candidates: tuple[CandidateStatus, ...]
    lastSent: float | None = None


@frozen
class PathChange:
    """
    The path to a peer became another one.

    @ivar peer: its raw node key.
    @ivar place: where it is reached directly now; C{None}: by relay.
    """

    peer: bytes
    place: Direct | None
    why: str


@frozen
class PongReceived:
    """An answer to a ping that somebody asked for."""

    token: int
    seconds: float
    place: Place


class PathCounters(Counters):
    """
    What was sent and received to find paths, and what was dropped.

    @ivar droppedStranger: the sender's disco key is nobody's in the tailnet.
    @ivar droppedUnopened: the box was not sealed by whom it names.
    @ivar droppedMalformed: no message, or one that nobody knows.
    @ivar droppedUnbound: the node key is not that of the disco key.
    @ivar droppedReplay: a ping that was answered before.
    @ivar droppedFlood: more pings or calls than a peer needs.
    @ivar droppedUnasked: pongs that nobody waits for (any more).
    @ivar droppedPongSource: pongs from elsewhere than was pinged.
    @ivar droppedCall: calls to meet that did not come by a relay.
    @ivar droppedCandidate: addresses that a peer may not name.
    @ivar droppedUnhandled: messages about peer relays, with nobody to take them.
    """

    __slots__ = (
        "callsReceived",
        "callsSent",
        "droppedCall",
        "droppedCandidate",
        "droppedFlood",
        "droppedMalformed",
        "droppedPongSource",
        "droppedReplay",
        "droppedStranger",
        "droppedUnasked",
        "droppedUnbound",
        "droppedUnhandled",
        "droppedUnopened",
        "pingsReceived",
        "pingsSent",
        "pongsReceived",
        "pongsSent",
    )
    callsReceived: int
    callsSent: int
    droppedCall: int
    droppedCandidate: int
    droppedFlood: int
    droppedMalformed: int
    droppedPongSource: int
    droppedReplay: int
    droppedStranger: int
    droppedUnasked: int
    droppedUnbound: int
    droppedUnhandled: int
    droppedUnopened: int
    pingsReceived: int
    pingsSent: int
    pongsReceived: int
    pongsSent: int
