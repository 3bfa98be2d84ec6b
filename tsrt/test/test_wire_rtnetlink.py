"""
Tests for L{tsrt.wire.rtnetlink}.
"""

from __future__ import annotations

import struct
import sys

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tsrt.addresses import parseAddress
from tsrt.errors import WireError
from tsrt.wire.rtnetlink import (
    IFF_LOOPBACK,
    AddressMessage,
    ErrorMessage,
    LinkMessage,
    RouteMessage,
    buildRouteRequest,
    parseMessages,
)


def attribute(kind: int, value: bytes) -> bytes:
    """An attribute with its padding."""
    data = struct.pack("=HH", 4 + len(value), kind) + value
    return data + bytes(-len(data) % 4)


def message(kind: int, body: bytes, sequence: int = 0) -> bytes:
    """A message with its padding."""
    data = struct.pack("=IHHII", 16 + len(body), kind, 0, sequence, 0) + body
    return data + bytes(-len(data) % 4)


def link(kind: int = 16, flags: int = 0x1043, name: bytes = b"eth0\0") -> bytes:
    """An interface."""
    body = struct.pack("=BxHiII", 0, 1, 4, flags, 0)
    return message(kind, body + attribute(3, name) + attribute(0x8000 | 50, bytes(9)))


def address(kind: int, text: str, *attributes: bytes, family: int = 0) -> bytes:
    """An address, of which the attributes may say something else."""
    packed = parseAddress(text)
    family = family or (2 if len(packed) == 4 else 10)
    body = struct.pack("=BBBBI", family, 24, 0x80, 0, 4)
    return message(kind, body + b"".join(attributes or [attribute(1, packed)]))


def route(
    kind: int, family: int, length: int, *attributes: bytes, type: int = 1
) -> bytes:
    """A route."""
    body = struct.pack("=BBBBBBBBI", family, length, 0, 0, 254, 3, 0, type, 0)
    return message(kind, body + b"".join(attributes), sequence=9)


V4, V6 = parseAddress("192.0.2.1"), parseAddress("2001:db8::1")


class ParseTests(SynchronousTestCase):
    """What the kernel tells."""

    def one(self, data: bytes) -> object:
        """The one message of some data."""
        [(_, found)] = parseMessages(data)
        return found

    def test_link(self) -> None:
        """Interfaces have an index, a name and flags."""
        found = self.one(link())
        self.assertEqual(found, LinkMessage(False, 4, "eth0", 0x1043))
        self.assertTrue(found.isUp)
        self.assertFalse(found.flags & IFF_LOOPBACK)
        self.assertFalse(self.one(link(17)).isUp)
        self.assertFalse(self.one(link(flags=0x1042)).isUp)
        self.assertEqual(self.one(link(name=b"\xff\0")).name, "\ufffd")

    def test_address(self) -> None:
        """Addresses of both families come and go."""
        self.assertEqual(
            self.one(address(20, "192.0.2.1")), AddressMessage(False, 4, V4, 24)
        )
        self.assertEqual(
            self.one(address(21, "2001:db8::1")), AddressMessage(True, 4, V6, 24)
        )

    def test_pointToPoint(self) -> None:
        """On a link of two ends our own address counts, in any order."""
        ours, theirs = attribute(2, V4), attribute(1, b"\x0a\0\0\1")
        for order in ((ours, theirs), (theirs, ours)):
            self.assertEqual(self.one(address(20, "192.0.2.1", *order)).address, V4)

    def test_route(self) -> None:
        """Routes have a gateway, an interface and a source, or have not."""
        full = route(
            24,
            2,
            0,
            attribute(15, struct.pack("=I", 254)),
            attribute(5, V4),
            attribute(4, struct.pack("=I", 3)),
            attribute(7, b"\xc0\0\2\2"),
        )
        self.assertEqual(
            parseMessages(full),
            [(9, RouteMessage(False, 4, 0, V4, 3, b"\xc0\0\2\2", True))],
        )
        self.assertEqual(
            self.one(route(25, 10, 64)),
            RouteMessage(True, 16, 64, None, 0, None, True),
        )
        self.assertFalse(self.one(route(24, 10, 0, type=7)).isUnicast)

    def test_gatewayOfOtherFamily(self) -> None:
        """IPv4 may go by an IPv6 router (RFC 5549)."""
        via = attribute(18, struct.pack("=H", 10) + V6)
        self.assertEqual(self.one(route(24, 2, 0, via)).gateway, V6)

    def test_error(self) -> None:
        """Errors have the number that programs know."""
        body = struct.pack("=i", -101) + bytes(16)
        self.assertEqual(parseMessages(message(2, body, 7)), [(7, ErrorMessage(101))])

    def test_several(self) -> None:
        """A datagram holds many; other kinds and families are passed over."""
        data = (
            link(name=b"lo\0")
            + message(28, bytes(12))
            + address(20, "192.0.2.1", family=7)
            + route(24, 128, 0)
            + address(20, "192.0.2.1")
        )
        self.assertEqual([type(found) for _, found in parseMessages(data)], [
            LinkMessage, AddressMessage
        ])  # fmt: skip
        self.assertEqual(parseMessages(message(3, bytes(4)) + link()), [])

    def test_cut(self) -> None:
        """What is cut short ends the datagram, and what was before it counts."""
        good = address(20, "192.0.2.1")
        for bad in (
            bytes(16),
            struct.pack("=IHHII", 15, 16, 0, 0, 0),
            message(16, bytes(15)),
            message(20, bytes(3)),
            message(24, bytes(11)),
            message(2, bytes(3)),
            address(20, "192.0.2.1", attribute(1, b"\1\2\3")),
            address(20, "192.0.2.1", struct.pack("=HH", 3, 1)),
            address(20, "192.0.2.1", struct.pack("=HH", 99, 1)),
            route(24, 2, 0, attribute(4, b"\1")),
        ):
            found = parseMessages(good + bad + good)
            self.assertEqual([m for _, m in found], [AddressMessage(False, 4, V4, 24)])

        for rest in (b"\1", link()[:-1], link()[:17], link()[:15]):
            self.assertEqual(len(parseMessages(good + rest)), 1)

    @given(st.binary(max_size=300), st.sampled_from([16, 20, 24, 2]), st.booleans())
    def test_anything(self, body: bytes, kind: int, isWhole: bool) -> None:
        """Nothing that may come raises."""
        parseMessages(message(kind, body) if isWhole else body)


class RequestTests(SynchronousTestCase):
    """Asking for a route."""

    def test_bytes(self) -> None:
        """The requests are those that C{ip route get} sends, without its flags."""
        if sys.byteorder != "little":
            raise SkipTest("the bytes are those of a little-endian machine")
        self.assertEqual(
            buildRouteRequest(V4, 5).hex(),
            "24000000" "1a00" "0100" "05000000" "00000000"
            "02200000" "00000000" "00000000" "0800" "0100" "c0000201",
        )  # fmt: skip
        self.assertEqual(
            buildRouteRequest(V6, 6).hex(),
            "30000000" "1a00" "0100" "06000000" "00000000"
            "0a800000" "00000000" "00000000" "1400" "0100"
            "20010db8000000000000000000000001",
        )  # fmt: skip

    def test_noAddress(self) -> None:
        """Only addresses can be asked for."""
        self.assertRaises(WireError, buildRouteRequest, b"123", 1)
