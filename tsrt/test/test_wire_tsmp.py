"""
Tests for L{tsrt.wire.tsmp}.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tsrt.errors import WireError
from tsrt.wire.tsmp import (
    DiscoAdvertisement,
    Ping,
    Pong,
    Reject,
    RejectReason,
    TSMPMessage,
    parseTSMP,
)

octet = st.integers(0, 255)
port = st.integers(0, 65535)
data = st.binary(min_size=8, max_size=8)
messages = st.one_of(
    st.builds(Reject, octet, octet, port, port, st.booleans()),
    st.builds(Ping, data),
    st.builds(Pong, data, port),
    st.builds(DiscoAdvertisement, st.binary(min_size=32, max_size=32)),
)


class TSMPTests(SynchronousTestCase):
    """L{parseTSMP} and what it makes."""

    @given(messages)
    @settings(max_examples=100, deadline=None)
    def test_roundTrip(self, message: TSMPMessage) -> None:
        """What is written is read again, as the same kind."""
        parsed = parseTSMP(message.encode())
        self.assertEqual(parsed, message)
        self.assertIs(type(parsed), type(message))

    @given(st.sampled_from([b"", b"!", b"p", b"o", b"a"]), st.binary(max_size=40))
    @settings(max_examples=200, deadline=None)
    def test_anyBytes(self, front: bytes, rest: bytes) -> None:
        """Any bytes are a message or raise L{WireError}."""
        try:
            parseTSMP(front + rest)
        except WireError:
            pass

    def test_lengths(self) -> None:
        """Each message has a least length; more is tolerated."""
        for kind, least in ((b"!", 7), (b"p", 9), (b"o", 9), (b"a", 33)):
            body = kind + bytes(least - 1)
            message = parseTSMP(body)
            self.assertRaises(WireError, parseTSMP, body[:-1])
            self.assertEqual(parseTSMP(body + bytes(9)), message)

    def test_shortPong(self) -> None:
        """Half a port is none."""
        self.assertEqual(parseTSMP(b"o12345678\xff"), Pong(b"12345678"))

    def test_rejectFlags(self) -> None:
        """Only the lowest flag is known."""
        body = b"!\x11S\0\x01\0\x02"
        plain = Reject(17, RejectReason.SHIELDS_UP, 1, 2)
        self.assertEqual(parseTSMP(body), plain)
        self.assertEqual(parseTSMP(body + b"\xfe"), plain)
        broken = plain._replace(maybeBroken=True)
        self.assertEqual(parseTSMP(body + b"\x01"), broken)
        self.assertEqual(broken.encode(), body + b"\x01")

    def test_unknownReason(self) -> None:
        """A reason that is new to us is handed on."""
        message = parseTSMP(b"!\x06Z\0\0\0\0")
        assert isinstance(message, Reject)
        self.assertEqual(message.reason, ord("Z"))

    def test_unknown(self) -> None:
        """Other kinds are errors."""
        self.assertRaises(WireError, parseTSMP, b"x" + bytes(40))
