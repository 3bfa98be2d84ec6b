"""
Tests of L{tsrt.netstack.flow}: arbitrary segments, in every state.
"""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tsrt.netstack.flow import CloseReason, TCPOptions, TCPState
from tsrt.test.netlink import pattern
from tsrt.test.netpeer import PEER, US, Peer
from tsrt.wire.tcp import ACK, FIN, NO_OPTIONS, PSH, RST, SYN, Options, Segment

STREAM = pattern(200_000)
"""What the honest peer sends, byte by byte."""

OURS = pattern(3000, 9)


def _synSent(peer: Peer) -> None:
    peer.take()


def _established(peer: Peer) -> None:
    peer.establish()


def _sending(peer: Peer) -> None:
    peer.establish()
    peer.flow.write(OURS)
    peer.take()


def _closeWait(peer: Peer) -> None:
    _sending(peer)
    peer.send(FIN, 1, 1)


def _finWait1(peer: Peer) -> None:
    _sending(peer)
    peer.flow.shutdownWrite()
    peer.take()


def _finWait2(peer: Peer) -> None:
    _finWait1(peer)
    peer.send(0, 1, 3002)


def _closing(peer: Peer) -> None:
    _finWait1(peer)
    peer.send(FIN, 1, 1)


def _lastAck(peer: Peer) -> None:
    _closeWait(peer)
    peer.flow.shutdownWrite()
    peer.take()


def _timeWait(peer: Peer) -> None:
    _finWait2(peer)
    peer.send(FIN, 1, 3002)


STATES: dict[TCPState, Callable[[Peer], None]] = {
    TCPState.SYN_SENT: _synSent,
    TCPState.SYN_RECEIVED: _synSent,
    TCPState.ESTABLISHED: _sending,
    TCPState.CLOSE_WAIT: _closeWait,
    TCPState.FIN_WAIT_1: _finWait1,
    TCPState.FIN_WAIT_2: _finWait2,
    TCPState.CLOSING: _closing,
    TCPState.LAST_ACK: _lastAck,
    TCPState.TIME_WAIT: _timeWait,
}

_positions = st.one_of(
    st.integers(-5, 20),
    st.integers(-3000, 70_000),
    st.integers(0, 0xFFFFFFFF),
)
_flags = st.one_of(
    st.sampled_from(
        (ACK, ACK | PSH, ACK | FIN, RST, RST | ACK, SYN, SYN | ACK, FIN, 0)
    ),
    st.integers(0, 255),
)
_options = st.builds(
    Options,
    mss=st.none() | st.integers(0, 65535),
    windowScale=st.none() | st.integers(0, 14),
    sackPermitted=st.booleans(),
    sacks=st.lists(st.tuples(_positions, _positions), max_size=4).map(
        lambda blocks: tuple(
            ((US + left) & 0xFFFFFFFF, (US + right) & 0xFFFFFFFF)
            for left, right in blocks
        )
    ),
    tsValue=st.none() | st.integers(0, 0xFFFFFFFF),
    tsEcho=st.integers(0, 0xFFFFFFFF),
)


@st.composite
def _segments(draw: st.DrawFn) -> Segment:
    """A segment: anything, but its data is what belongs at its position."""
    seq = draw(_positions)
    size = draw(st.one_of(st.just(0), st.integers(0, 20), st.integers(0, 3000)))
    start = seq - 1
    if start >= 0 and start + size <= len(STREAM):
        payload = STREAM[start : start + size]
    else:
        payload = b""
    return Segment(
        payload,
        0,
        len(payload),
        80,
        40000,
        (PEER + seq) & 0xFFFFFFFF,
        (US + draw(_positions)) & 0xFFFFFFFF,
        draw(_flags),
        draw(st.sampled_from((0, 1, 100, 65535))),
        draw(st.one_of(st.just(NO_OPTIONS), _options)),
    )


_steps = st.lists(
    st.one_of(
        st.lists(_segments(), min_size=1, max_size=4),
        st.sampled_from(("write", "read", "shutdown", "release", "abort", "keep")),
        st.floats(0.0, 100.0),
    ),
    max_size=12,
)


class FuzzTests(SynchronousTestCase):
    """Whatever comes, nothing raises and no wrong byte is read."""

    def check(self, state: TCPState, peer: Peer, steps: list[object]) -> None:
        """Put the flow through C{steps} and look at it after each."""
        STATES[state](peer)
        flow = peer.flow
        self.assertIs(flow.state, state)
        read = bytearray()
        reason: CloseReason | None = flow.closeReason
        closings = flow.takeMarks() & 16
        for step in steps:
            if isinstance(step, list):
                peer.sendAll(step)
            elif isinstance(step, float):
                peer.wait(step)
            elif step == "write":
                flow.write(b"w" * 2000)
            elif step == "read":
                read += flow.read(5000)
            elif step == "shutdown":
                flow.shutdownWrite()
            elif step == "release":
                flow.release(peer.now)
            elif step == "keep":
                flow.setKeepAlive(5.0, 1.0, 2, now=peer.now)
            else:
                flow.abort()
            peer.take()
            self.assertFalse(flow.wantsDispatch)
            deadline = flow.deadline()
            if deadline is not None and deadline <= peer.now:
                flow.tick(peer.now)
                peer.take()
                deadline = flow.deadline()
                self.assertTrue(deadline is None or deadline > peer.now)
            if reason is not None:
                self.assertIs(flow.closeReason, reason)
            reason = flow.closeReason
            closings += flow.takeMarks() & 16
            self.assertEqual(closings, 16 if reason is not None else 0)
            receiver = flow._tcb.receiver
            if receiver is not None:
                islands = receiver.buffer._islands
                pieces = [piece for island in islands for piece in island.pieces()]
                held = flow.readable + sum(map(len, pieces))
                self.assertLessEqual(held, receiver.capacity + 64)
            sender = flow._tcb.sender
            self.assertLessEqual(sender.una, sender.nxt)
            self.assertLessEqual(sender.nxt, sender.high)
        read += flow.read()
        self.assertTrue(STREAM.startswith(bytes(read)))
        # Left alone with an application that is gone, it ends by itself.
        flow.release(peer.now)
        peer.take()
        peer.wait(2000)
        self.assertTrue(flow.retired)
        self.assertIsNone(flow.deadline())
        self.assertIsNotNone(flow.closeReason)

    @settings(max_examples=120, deadline=None)
    @given(st.sampled_from(sorted(STATES)), _steps, st.booleans(), st.booleans())
    def test_anything(
        self, state: TCPState, steps: list[object], sack: bool, stamps: bool
    ) -> None:
        """Segments of any kind, in any state, between any calls."""
        peer = Peer(
            TCPOptions(selectiveAck=sack, timestamps=stamps),
            active=state is not TCPState.SYN_RECEIVED,
        )
        self.check(state, peer, steps)

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.lists(_segments(), max_size=6), max_size=10))
    def test_batchesLikeSingles(self, batches: list[list[Segment]]) -> None:
        """A batch leaves the same stream and state as its segments singly."""
        together, apart = Peer().establish(), Peer().establish()
        for batch in batches:
            together.sendAll(batch)
            for segment in batch:
                apart.flow.process([segment], apart.now)
            apart.take()
        self.assertEqual(together.flow.read(), apart.flow.read())
        self.assertIs(together.flow.state, apart.flow.state)
        self.assertIs(together.flow.closeReason, apart.flow.closeReason)
