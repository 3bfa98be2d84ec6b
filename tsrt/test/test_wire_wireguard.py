"""
Tests for L{tsrt.wire.wireguard}.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tsrt.errors import WireError
from tsrt.wire import wireguard
from tsrt.wire.wireguard import (
    CookieReply,
    Initiation,
    Response,
    Transport,
    messageType,
    paddingFor,
    tai64n,
)

Message = Initiation | Response | CookieReply | Transport

MESSAGES: dict[int, type[Message]] = {
    wireguard.TYPE_INITIATION: Initiation,
    wireguard.TYPE_RESPONSE: Response,
    wireguard.TYPE_COOKIE_REPLY: CookieReply,
    wireguard.TYPE_TRANSPORT: Transport,
}

indices = st.integers(0, 2**32 - 1)


def octets(count: int) -> st.SearchStrategy[bytes]:
    """Byte strings of one length."""
    return st.binary(min_size=count, max_size=count)


messages = st.one_of(
    st.builds(
        Initiation, indices, octets(32), octets(48), octets(28), octets(16), octets(16)
    ),
    st.builds(
        Response, indices, indices, octets(32), octets(16), octets(16), octets(16)
    ),
    st.builds(CookieReply, indices, octets(24), octets(32)),
    st.builds(Transport, indices, st.integers(0, 2**64 - 1), st.binary(min_size=16)),
)


class MessageTests(SynchronousTestCase):
    """The four messages."""

    @given(messages)
    @settings(max_examples=150, deadline=None)
    def test_roundTrip(self, message: Message) -> None:
        """What is written is read again, and has the type it should."""
        data = message.encode()
        self.assertIs(MESSAGES[messageType(data)], type(message))
        decoded = type(message).decode(data)
        self.assertEqual(decoded, message)

    @given(st.integers(0, 5), st.binary(max_size=160))
    @settings(max_examples=200, deadline=None)
    def test_anyBytes(self, kind: int, data: bytes) -> None:
        """Any bytes are a message or raise L{WireError}."""
        for datagram in (data, bytes((kind, 0, 0, 0)) + data):
            for parse in (messageType, *(each.decode for each in MESSAGES.values())):
                try:
                    parse(datagram)
                except WireError:
                    pass

    def test_lengths(self) -> None:
        """Every message of fixed length has that length exactly."""
        for kind, length in (
            (wireguard.TYPE_INITIATION, 148),
            (wireguard.TYPE_RESPONSE, 92),
            (wireguard.TYPE_COOKIE_REPLY, 64),
        ):
            datagram = bytes((kind, 0, 0, 0)) + bytes(length - 4)
            self.assertEqual(messageType(datagram), kind)
            decode = MESSAGES[kind].decode
            self.assertEqual(decode(datagram).encode(), datagram)
            for wrong in (datagram + b"\0", datagram[:-1]):
                self.assertRaises(WireError, messageType, wrong)
                self.assertRaises(WireError, decode, wrong)

    def test_transportLength(self) -> None:
        """A transport message is at least a keep-alive."""
        keepAlive = wireguard.TRANSPORT_PREFIX + bytes(28)
        self.assertEqual(messageType(keepAlive), wireguard.TYPE_TRANSPORT)
        self.assertEqual(Transport.decode(keepAlive), (0, 0, bytes(16)))
        self.assertRaises(WireError, messageType, keepAlive[:-1])
        self.assertRaises(WireError, Transport.decode, keepAlive[:-1])

    def test_types(self) -> None:
        """The reserved bytes are zero, and there are four types."""
        for prefix in (b"\0\0\0\0", b"\5\0\0\0", b"\4\1\0\0", b"\1\0\0\1"):
            for length in (32, 64, 92, 148):
                datagram = prefix + bytes(length - 4)
                self.assertRaises(WireError, messageType, datagram)
                for kind in MESSAGES.values():
                    self.assertRaises(WireError, kind.decode, datagram)

    def test_byteOrder(self) -> None:
        """Integers are little-endian."""
        message = Transport(0x01020304, 5, bytes(16)).encode()
        self.assertEqual(message[:16], b"\4\0\0\0\4\3\2\1\5" + bytes(7))
        self.assertEqual(
            wireguard.TRANSPORT_HEADER.unpack_from(message), (0x01020304, 5)
        )


class PaddingTests(SynchronousTestCase):
    """L{paddingFor}."""

    def test_T_padding(self) -> None:
        """Packets are padded to sixteen, but not beyond the MTU."""
        for length, mtu, expected in (
            (0, 1280, 0),
            (1, 1280, 15),
            (15, 1280, 1),
            (16, 1280, 0),
            (17, 1280, 15),
            (1279, 1280, 1),
            (1280, 1280, 0),
            (1281, 1285, 4),
            (1300, 1280, 0),
        ):
            self.assertEqual(paddingFor(length, mtu), bytes(expected), length)


class TimestampTests(SynchronousTestCase):
    """L{tai64n}."""

    def test_epoch(self) -> None:
        """The Unix epoch was ten seconds into TAI."""
        self.assertEqual(tai64n(0).hex(), "400000000000000a00000000")

    def test_whitening(self) -> None:
        """The lowest 24 bits of the nanoseconds are not told."""
        first = tai64n(0x01000000)
        self.assertEqual(first[8:], b"\1\0\0\0")
        self.assertEqual(tai64n(0x01FFFFFF), first)
        self.assertGreater(tai64n(0x02000000), first)

    @given(st.integers(0, 2**62), st.integers(0, 2**62))
    @settings(max_examples=100, deadline=None)
    def test_order(self, one: int, two: int) -> None:
        """As bytes, timestamps sort as their times do."""
        if one > two:
            one, two = two, one
        self.assertLessEqual(tai64n(one), tai64n(two))
