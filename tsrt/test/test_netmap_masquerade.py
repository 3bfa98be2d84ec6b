"""Tests of appearing to a peer with another address."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tsrt.addresses import parseAddress
from tsrt.netmap.masquerade import Masquerade, masquerades
from tsrt.netmap.node import Node
from tsrt.test.netmapworld import NOW, rawKey, wireNode

OWN4, MASK4, PEER4 = map(parseAddress, ("100.64.0.1", "100.99.1.2", "100.64.0.2"))
OWN6, MASK6, PEER6 = map(
    parseAddress, ("fd7a:115c:a1e0::1", "fd7a:115c:a1e0:99::2", "fd7a:115c:a1e0::2")
)
BOTH = Masquerade([(OWN4, MASK4), (OWN6, MASK6)])


def plainSum(data: bytes) -> int:
    """The Internet checksum, word by word, as RFC 1071 tells it."""
    total = 0
    for at in range(0, len(data), 2):
        total += int.from_bytes(data[at : at + 2].ljust(2, b"\0"), "big")
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def transport(
    source: bytes, destination: bytes, protocol: int, body: bytes, field: int
) -> bytes:
    """A transport message with its checksum put in at an offset."""
    pseudo = source + destination + protocol.to_bytes(4, "big")
    pseudo += len(body).to_bytes(4, "big")
    value = plainSum(pseudo + body)
    if protocol == 17 and value == 0:
        value = 0xFFFF
    return body[:field] + value.to_bytes(2, "big") + body[field + 2 :]


def ip(
    source: bytes,
    destination: bytes,
    protocol: int,
    body: bytes,
    fragment: int = 0,
) -> bytes:
    """A packet of either family around a body."""
    if len(source) == 16:
        head = b"\x60\0\0\0" + len(body).to_bytes(2, "big") + bytes((protocol, 64))
        return head + source + destination + body
    head = b"\x45\0" + (20 + len(body)).to_bytes(2, "big") + b"\x12\x34"
    head += fragment.to_bytes(2, "big") + bytes((64, protocol))
    value = plainSum(head + b"\0\0" + source + destination)
    return head + value.to_bytes(2, "big") + source + destination + body


def packet(source: bytes, destination: bytes, protocol: int, data: bytes) -> bytes:
    """A whole packet with all checksums right."""
    headers = {6: (20, 16), 17: (8, 6), 58: (8, 2), 1: (8, 2), 132: (12, 8)}
    size, field = headers[protocol]
    body = bytearray(size) + data
    if protocol == 6:
        body[12] = 0x50
    if protocol == 17:
        body[4:6] = len(body).to_bytes(2, "big")
    filled = bytes(body)
    if protocol in (6, 17, 58):
        filled = transport(source, destination, protocol, filled, field)
    return ip(source, destination, protocol, filled)


FAMILIES = st.sampled_from([(OWN4, MASK4, PEER4), (OWN6, MASK6, PEER6)])


class TranslationTests(SynchronousTestCase):
    """L{Masquerade}."""

    @settings(max_examples=150, deadline=None)
    @given(FAMILIES, st.sampled_from([1, 6, 17, 58, 132]), st.binary(max_size=40))
    def test_bothWays(
        self, family: tuple[bytes, bytes, bytes], protocol: int, data: bytes
    ) -> None:
        """Packets come out as if they had been made with the other address."""
        own, masked, peer = family
        self.assertEqual(
            BOTH.outbound([packet(own, peer, protocol, data)]),
            [packet(masked, peer, protocol, data)],
        )
        self.assertEqual(
            BOTH.inbound([packet(peer, masked, protocol, data)]),
            [packet(peer, own, protocol, data)],
        )

    def test_onlyTheNativeAddress(self) -> None:
        """Other addresses, and the other end of packets, are left alone."""
        for source, destination in ((PEER4, OWN4), (PEER4, PEER4), (MASK4, PEER4)):
            untouched = packet(source, destination, 17, b"x")
            self.assertEqual(BOTH.outbound([untouched]), [untouched])
        for source, destination in ((MASK6, PEER6), (PEER6, OWN6)):
            untouched = packet(source, destination, 6, b"x")
            self.assertEqual(BOTH.inbound([untouched]), [untouched])

    def test_oneFamily(self) -> None:
        """Where only one family is masqueraded the other goes as it is."""
        only4 = Masquerade([(OWN4, MASK4)])
        six = packet(OWN6, PEER6, 6, b"")
        four = packet(OWN4, PEER4, 6, b"")
        self.assertEqual(
            only4.outbound([six, four]), [six, packet(MASK4, PEER4, 6, b"")]
        )
        self.assertEqual(only4.appearsAs(OWN4), MASK4)
        self.assertEqual(only4.appearsAs(OWN6), OWN6)

    def test_noChecksum(self) -> None:
        """UDP without a checksum stays without one."""
        body = b"\0\1\0\2\0\x09\0\0x"
        self.assertEqual(
            BOTH.outbound([ip(OWN4, PEER4, 17, body)]), [ip(MASK4, PEER4, 17, body)]
        )

    def test_checksumNeverBecomesNone(self) -> None:
        """A UDP checksum that comes to zero is written as its other form."""
        for number in range(65536):
            data = number.to_bytes(2, "big")
            if packet(MASK4, PEER4, 17, data)[26:28] == b"\xff\xff":
                break
        self.assertEqual(
            BOTH.outbound([packet(OWN4, PEER4, 17, data)]),
            [packet(MASK4, PEER4, 17, data)],
        )

    def test_fragments(self) -> None:
        """The first fragment has a checksum, later ones have only data."""
        whole = packet(OWN4, PEER4, 17, bytes(range(80)))[20:]
        translated = packet(MASK4, PEER4, 17, bytes(range(80)))[20:]
        for at, more in ((0, 0x2000), (40, 0x2000), (80, 0)):
            fragment = more | at // 8
            self.assertEqual(
                BOTH.outbound([ip(OWN4, PEER4, 17, whole[at : at + 40], fragment)]),
                [ip(MASK4, PEER4, 17, translated[at : at + 40], fragment)],
            )

    def test_cutShort(self) -> None:
        """A transport header that is cut short has no checksum to change."""
        for protocol in (6, 17):
            self.assertEqual(
                BOTH.outbound([ip(OWN4, PEER4, protocol, b"\1\2\3")]),
                [ip(MASK4, PEER4, protocol, b"\1\2\3")],
            )

    def test_malformed(self) -> None:
        """A packet whose header makes no sense stays as it is."""
        broken = bytearray(packet(OWN4, PEER4, 17, b""))
        broken[10] ^= 1
        self.assertEqual(BOTH.outbound([bytes(broken)]), [bytes(broken)])

    @settings(max_examples=100, deadline=None)
    @given(st.binary(max_size=60))
    def test_anyBytes(self, data: bytes) -> None:
        """Any bytes come out, in the same number."""
        for start in (b"", b"\x45" + bytes(11) + OWN4, b"\x60" + bytes(7) + OWN6):
            out = BOTH.outbound([start + data])
            self.assertEqual([len(p) for p in out], [len(start + data)])
            self.assertEqual(len(BOTH.inbound([start + data])), 1)


class BuildTests(SynchronousTestCase):
    """L{masquerades}."""

    def build(self, *addresses: str, **fields: object) -> dict[bytes, Masquerade]:
        """The translations of a node with addresses towards peers 2 and 3."""
        own = Node.fromWire(wireNode(1, addresses=list(addresses)), NOW, isSelf=True)
        peers = (wireNode(2, **fields), wireNode(3))
        return masquerades(own, [Node.fromWire(peer, NOW) for peer in peers])

    def test_none(self) -> None:
        """Usually there are none."""
        self.assertEqual(self.build("100.64.0.1/32"), {})

    def test_bothFamilies(self) -> None:
        """The first own address of each family is translated."""
        found = self.build(
            "fd7a:115c:a1e0::1/128",
            "100.64.0.1/32",
            "100.64.0.77/32",
            selfNodeV4MasqAddrForThisPeer="100.99.1.2",
            selfNodeV6MasqAddrForThisPeer="fd7a:115c:a1e0:99::2",
        )
        self.assertEqual(list(found), [rawKey(2)])
        self.assertEqual(found[rawKey(2)].appearsAs(OWN4), MASK4)
        self.assertEqual(found[rawKey(2)].appearsAs(OWN6), MASK6)

    def test_familyThatIsMissing(self) -> None:
        """Where this node has no address of the family nothing is translated."""
        self.assertEqual(
            self.build("100.64.0.1/32", selfNodeV6MasqAddrForThisPeer="fd7a::2"), {}
        )
