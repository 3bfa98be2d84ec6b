"""
Tests for L{tsrt.wire.stun}.
"""

from __future__ import annotations

import zlib

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tsrt.addresses import AddrPort
from tsrt.errors import WireError
from tsrt.wire import stun

hexa = bytes.fromhex
TXID = bytes(range(1, 13))

# RFC 5769 sections 2.1 to 2.3.
RFC5769_TXID = hexa("b7e7a701bc34d686fa87dfae")
RFC5769_REQUEST = hexa(
    "000100582112a442b7e7a701bc34d686fa87dfae"
    "802200105354554e207465737420636c69656e74"
    "002400046e0001ff80290008932ff9b151263b36"
    "000600096576746a3a68367659202020"
    "000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2"
    "80280004e57a3bcf"
)
RFC5769_IPV4 = hexa(
    "0101003c2112a442b7e7a701bc34d686fa87dfae"
    "8022000b7465737420766563746f7220"
    "002000080001a147e112a643"
    "000800142b91f599fd9e90c38c7489f92af9ba53f06be7d7"
    "80280004c07d4c96"
)
RFC5769_IPV6 = hexa(
    "010100482112a442b7e7a701bc34d686fa87dfae"
    "8022000b7465737420766563746f7220"
    "002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d9"
    "00080014a382954e4be67bf11784c97c8292c275bfe3ed41"
    "80280004c8fb0b4c"
)

addrPorts = st.builds(
    AddrPort,
    st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16),
    st.integers(0, 65535),
)
txids = st.binary(min_size=12, max_size=12)


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute with its padding."""
    padding = bytes(-len(value) % 4)
    return kind.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value + padding


def message(kind: int, *attributes: bytes) -> bytes:
    """A message with these attributes."""
    body = b"".join(attributes)
    header = kind.to_bytes(2, "big") + len(body).to_bytes(2, "big")
    return header + stun.COOKIE + TXID + body


def request(*attributes: bytes) -> bytes:
    """A request with a right fingerprint behind these attributes."""
    whole = message(1, *attributes, attribute(0x8028, bytes(4)))
    crc = zlib.crc32(whole[:-8]) ^ 0x5354554E
    return whole[:-4] + crc.to_bytes(4, "big")


SOFTWARE = attribute(0x8022, b"tailnode")


class RequestTests(SynchronousTestCase):
    """Requests."""

    @given(txids)
    @settings(max_examples=50, deadline=None)
    def test_roundTrip(self, txid: bytes) -> None:
        """A server accepts what a client sends."""
        self.assertEqual(stun.parseRequest(stun.buildRequest(txid)), txid)

    def test_fingerprint(self) -> None:
        """The fingerprint is that of RFC 5769."""
        crc = stun._fingerprint(RFC5769_REQUEST[:-8])
        self.assertEqual(crc.to_bytes(4, "big"), RFC5769_REQUEST[-4:])

    def test_otherSoftware(self) -> None:
        """A good request of other software is not answered."""
        error = self.assertRaises(WireError, stun.parseRequest, RFC5769_REQUEST)
        self.assertIn("software", str(error))
        self.assertRaises(WireError, stun.parseRequest, request())

    def test_otherAttributes(self) -> None:
        """Attributes that nobody knows are no harm."""
        datagram = request(attribute(0x7777, b"abc"), SOFTWARE)
        self.assertEqual(stun.parseRequest(datagram), TXID)

    def test_fingerprintIsLast(self) -> None:
        """Nothing may follow the fingerprint, and there must be one."""
        fingerprint = request(SOFTWARE)[-8:]
        for datagram in (
            message(1, SOFTWARE),
            message(1, SOFTWARE, fingerprint, attribute(0x7777, b"")),
            message(1, fingerprint, SOFTWARE),
            message(1, SOFTWARE, fingerprint, fingerprint),
        ):
            self.assertRaises(WireError, stun.parseRequest, datagram)
        # Even if it is right for a message of that length.
        longer = message(1, SOFTWARE, attribute(0x8028, bytes(4)), SOFTWARE)
        crc = zlib.crc32(longer[:32]) ^ 0x5354554E
        datagram = longer[:36] + crc.to_bytes(4, "big") + SOFTWARE
        error = self.assertRaises(WireError, stun.parseRequest, datagram)
        self.assertIn("behind its fingerprint", str(error))

    def test_everyBitCounts(self) -> None:
        """A bit changed anywhere is noticed."""
        datagram = stun.buildRequest(TXID)
        for at in range(len(datagram) * 8):
            changed = bytearray(datagram)
            changed[at // 8] ^= 1 << at % 8
            self.assertRaises(WireError, stun.parseRequest, bytes(changed))

    def test_notARequest(self) -> None:
        """Responses and errors are no requests."""
        for kind in (0x0101, 0x0111, 0x0011, 0x0002):
            self.assertRaises(WireError, stun.parseRequest, message(kind, SOFTWARE))


class ResponseTests(SynchronousTestCase):
    """Responses."""

    @given(txids, addrPorts)
    @settings(max_examples=100, deadline=None)
    def test_roundTrip(self, txid: bytes, source: AddrPort) -> None:
        """A client understands what a server sends."""
        response = stun.buildResponse(txid, source)
        self.assertEqual(stun.parseResponse(response), (txid, source))

    def test_rfc5769(self) -> None:
        """The responses of RFC 5769, which have more attributes than ours."""
        self.assertEqual(
            stun.parseResponse(RFC5769_IPV4),
            (RFC5769_TXID, AddrPort.parse("192.0.2.1:32853")),
        )
        self.assertEqual(
            stun.parseResponse(RFC5769_IPV6),
            (
                RFC5769_TXID,
                AddrPort.parse("[2001:db8:1234:5678:11:2233:4455:6677]:32853"),
            ),
        )

    def test_fallback(self) -> None:
        """A plain address counts only if there is none under a mask."""
        plain = attribute(1, hexa("00010050c0000207"))
        later = attribute(1, hexa("00010051c0000208"))
        masked = attribute(0x0020, hexa("000183bbe112a645"))
        expected = AddrPort.parse("192.0.2.7:80")
        parsed = stun.parseResponse(message(0x0101, plain, later))
        self.assertEqual(parsed, (TXID, expected))
        for kind in (0x0020, 0x8020):
            under = attribute(kind, masked[4:])
            parsed = stun.parseResponse(message(0x0101, plain, under))
            self.assertEqual(parsed, (TXID, AddrPort.parse("192.0.2.7:41641")))

    def test_noAddress(self) -> None:
        """Attributes that hold no address are as good as none."""
        for value in (
            b"",
            b"\0\3\0\0" + bytes(16),
            b"\0\1\0\0\1\2\3",
            b"\0\2" + bytes(17),
        ):
            for kind in (1, 0x0020, 0x8020):
                datagram = message(0x0101, attribute(kind, value))
                self.assertRaises(WireError, stun.parseResponse, datagram)
        self.assertRaises(WireError, stun.parseResponse, message(0x0101))

    def test_trailingBytes(self) -> None:
        """What follows a message is ignored."""
        source = AddrPort.parse("192.0.2.7:41641")
        response = stun.buildResponse(TXID, source) + b"more"
        self.assertEqual(stun.parseResponse(response), (TXID, source))


class FormTests(SynchronousTestCase):
    """Datagrams that are none."""

    @given(st.binary(max_size=60), st.binary(max_size=60))
    @settings(max_examples=200, deadline=None)
    def test_anyBytes(self, data: bytes, body: bytes) -> None:
        """Any bytes are a message or raise L{WireError}."""
        for datagram in (data, message(1, body), message(0x0101, body)):
            for parse in (stun.parseRequest, stun.parseResponse):
                try:
                    parse(datagram)
                except WireError:
                    pass

    def test_isSTUN(self) -> None:
        """The cookie and two bits of the first byte make it STUN."""
        datagram = stun.buildRequest(TXID)
        self.assertTrue(stun.isSTUN(datagram))
        self.assertFalse(stun.isSTUN(datagram[:19]))
        self.assertFalse(stun.isSTUN(b"\x40" + datagram[1:]))
        self.assertFalse(stun.isSTUN(datagram[:4] + b"\0" + datagram[5:]))

    def test_cutShort(self) -> None:
        """Lengths that lead beyond the end."""
        whole = stun.buildRequest(TXID)
        for datagram in (
            whole[:-1],
            message(1, b"\x80"),
            message(1, b"\x80\x22\0\x08tailnod"),
        ):
            self.assertRaises(WireError, stun.parseRequest, datagram)
