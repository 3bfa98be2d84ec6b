"""
A hand-driven peer for one TCP flow: each of its segments is written by a test.
"""

from __future__ import annotations

from tsrt.dataplane.runs import packetsOf
from tsrt.netstack.flow import TCPFlow, TCPOptions
from tsrt.test.netlink import CLIENT, SERVER, parse
from tsrt.wire.tcp import ACK, RST, SYN, Options, Segment

US = 1000
"""Initial sequence number of the flow under test."""

PEER = 5000
"""Initial sequence number of the peer."""

MSS = 1240
"""Payload of a full segment in 1280-byte IPv4 packets."""


class Peer:
    """
    The other end of a flow, and the time.

    Positions are relative: C{seq} 1 is the peer's first byte, C{ack} 1
    acknowledges our SYN.

    @ivar flow: the flow under test.
    @ivar now: the time, to be moved by L{wait}.
    """

    def __init__(
        self,
        options: TCPOptions | None = None,
        *,
        active: bool = True,
        mss: int | None = MSS,
        scale: int | None = 0,
        sack: bool = True,
        stamp: int | None = None,
        window: int = 65535,
        mtu: int = 1280,
    ) -> None:
        """
        @param active: whether the flow under test opens the connection.
        @param mss: what the peer's SYN offers; likewise C{scale}, C{sack} and
            C{stamp}.
        """
        self.now = 100.0
        self.window = window
        self.stamp = stamp
        self.offers = Options(
            mss=mss, windowScale=scale, sackPermitted=sack, tsValue=stamp
        )
        self.flow: TCPFlow
        if active:
            self.flow = TCPFlow.connect(
                CLIENT[0],
                CLIENT[1],
                SERVER[0],
                SERVER[1],
                iss=US,
                now=self.now,
                mtu=mtu,
                options=options or TCPOptions(),
            )
        else:
            self.flow = TCPFlow.fromSYN(
                self.segment(SYN, 0, None, options=self.offers),
                CLIENT[0],
                SERVER[0],
                iss=US,
                now=self.now,
                mtu=mtu,
                options=options or TCPOptions(),
            )

    def segment(
        self,
        flags: int,
        seq: int,
        ack: int | None,
        payload: bytes = b"",
        *,
        window: int | None = None,
        sacks: tuple[tuple[int, int], ...] = (),
        options: Options | None = None,
    ) -> Segment:
        """A segment from the peer, with relative positions."""
        if options is None:
            options = Options(
                sacks=tuple((US + left, US + right) for left, right in sacks),
                tsValue=self.stamp,
            )
        if ack is not None:
            flags |= ACK
        return Segment(
            payload,
            0,
            len(payload),
            SERVER[1],
            CLIENT[1],
            (PEER + seq) & 0xFFFFFFFF,
            (US + ack) & 0xFFFFFFFF if ack is not None else 0,
            flags,
            self.window if window is None else window,
            options,
        )

    def send(
        self,
        flags: int,
        seq: int,
        ack: int | None,
        payload: bytes = b"",
        *,
        window: int | None = None,
        sacks: tuple[tuple[int, int], ...] = (),
        options: Options | None = None,
    ) -> list[Segment]:
        """Give one segment to the flow and return its answers."""
        segment = self.segment(
            flags, seq, ack, payload, window=window, sacks=sacks, options=options
        )
        self.flow.process([segment], self.now)
        return self.take()

    def sendAll(self, segments: list[Segment]) -> list[Segment]:
        """Give segments as one batch and return the answers."""
        self.flow.process(segments, self.now)
        return self.take()

    def take(self) -> list[Segment]:
        """What the flow sends now, with relative positions."""
        segments = []
        for _ in range(100):
            if not self.flow.wantsDispatch:
                break
            for packet in packetsOf(self.flow.dispatch(self.now)):
                segment = parse(packet)
                segment.seq = (segment.seq - US) & 0xFFFFFFFF
                if segment.flags & ACK:
                    segment.ack = (segment.ack - PEER) & 0xFFFFFFFF
                segment.options.sacks = tuple(
                    ((left - PEER) & 0xFFFFFFFF, (right - PEER) & 0xFFFFFFFF)
                    for left, right in segment.options.sacks
                )
                segments.append(segment)
        return segments

    def wait(self, seconds: float) -> list[Segment]:
        """
        Let time pass, waking the flow whenever it wants to be.

        @return: what it sends meanwhile.
        """
        end = self.now + seconds
        segments = []
        for _ in range(10_000):
            deadline = self.flow.deadline()
            if deadline is None or deadline > end:
                break
            self.now = max(self.now, deadline)
            self.flow.tick(self.now)
            segments += self.take()
        self.now = end
        return segments

    def establish(self, trip: float = 0.0) -> Peer:
        """
        Do the handshake.

        @param trip: seconds that it takes.
        """
        syn = self.take()[0]
        self.now += trip
        if syn.flags & ACK:
            self.send(0, 1, 1)
        else:
            self.send(SYN, 0, 1, options=self.offers)
        assert self.flow.established
        self.flow.takeMarks()
        self.flow.takeReady()
        return self


def payloads(segments: list[Segment]) -> list[tuple[int, int]]:
    """Position and size of each segment that has a payload."""
    return [
        (segment.seq, segment.end - segment.start)
        for segment in segments
        if segment.end > segment.start
    ]


def resets(segments: list[Segment]) -> list[Segment]:
    """Those that are resets."""
    return [segment for segment in segments if segment.flags & RST]
