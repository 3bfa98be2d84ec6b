"""
Tests for L{tsrt.addresses}.
"""

from __future__ import annotations

import ipaddress

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tsrt.addresses import (
    CGNAT,
    SERVICE_IPV4,
    SERVICE_IPV6,
    ULA,
    VIA,
    AddrPort,
    Prefix,
    formatAddress,
    fromMapped,
    isTailscaleAddress,
    parseAddress,
    parseViaName,
    toMapped,
    unmapVia,
    viaPrefix,
)
from tsrt.errors import WireError

packedIPv4 = st.binary(min_size=4, max_size=4)
packedIPv6 = st.binary(min_size=16, max_size=16)
packed = packedIPv4 | packedIPv6
ports = st.integers(0, 65535)


@st.composite
def prefixes(draw: st.DrawFn) -> Prefix:
    """Prefixes with host bits, of both families."""
    address = draw(packed)
    return Prefix(address, draw(st.integers(0, 8 * len(address))))


class AddressTests(SynchronousTestCase):
    """Text and packed form."""

    @given(packed)
    @settings(max_examples=200, deadline=None)
    def test_roundTrip(self, address: bytes) -> None:
        """What is written is read again, and is what everybody writes."""
        text = formatAddress(address)
        self.assertEqual(parseAddress(text), address)
        self.assertEqual(ipaddress.ip_address(text).packed, address)

    @given(st.text() | st.from_regex(r"[0-9a-f:.%/\[\]]*", fullmatch=True))
    @settings(max_examples=300, deadline=None)
    def test_anyText(self, text: str) -> None:
        """Text that is no address raises L{WireError} and nothing else."""
        try:
            address = parseAddress(text)
        except WireError:
            return
        self.assertEqual(address, ipaddress.ip_address(text).packed)

    def test_rejected(self) -> None:
        """What other programs might take for an address is none."""
        for text in (
            "",
            "1",
            "1.2.3",
            "1.2.3.4.5",
            "01.2.3.4",
            "1.2.3.4/32",
            " 1.2.3.4",
            "1.2.3.4 ",
            "1.2.3.256",
            "fe80::1%eth0",
            "[::1]",
            "::1/128",
            "1:2",
            ":::",
            "host",
        ):
            self.assertRaises(WireError, parseAddress, text)

    def test_format(self) -> None:
        """IPv6 is compressed, and mapped IPv4 keeps its dots."""
        self.assertEqual(
            formatAddress(bytes.fromhex("20010db8" + "00" * 11 + "05")),
            "2001:db8::5",
        )
        mapped = toMapped(parseAddress("192.0.2.7"))
        self.assertEqual(formatAddress(mapped), "::ffff:192.0.2.7")
        for size in (0, 3, 5, 15, 17):
            self.assertRaises(WireError, formatAddress, bytes(size))

    @given(packed)
    @settings(max_examples=100, deadline=None)
    def test_mapped(self, address: bytes) -> None:
        """Mapping to 16 bytes can be undone."""
        mapped = toMapped(address)
        self.assertEqual(len(mapped), 16)
        if not (len(address) == 16 and address.startswith(bytes(10) + b"\xff\xff")):
            self.assertEqual(fromMapped(mapped), address)

    def test_constants(self) -> None:
        """The service addresses are tailnet addresses."""
        self.assertEqual(formatAddress(SERVICE_IPV4), "100.100.100.100")
        self.assertEqual(formatAddress(SERVICE_IPV6), "fd7a:115c:a1e0::53")
        self.assertTrue(isTailscaleAddress(SERVICE_IPV4))
        self.assertTrue(isTailscaleAddress(SERVICE_IPV6))
        self.assertEqual(CGNAT.text(), "100.64.0.0/10")
        self.assertEqual(ULA.text(), "fd7a:115c:a1e0::/48")


class TailscaleAddressTests(SynchronousTestCase):
    """L{isTailscaleAddress}."""

    def test_edges(self) -> None:
        """The first and last address of each range, and their neighbours."""
        for text, expected in {
            "100.63.255.255": False,
            "100.64.0.0": True,
            "100.115.91.255": True,
            "100.115.92.0": False,
            "100.115.93.255": False,
            "100.115.94.0": True,
            "100.114.92.0": True,
            "100.127.255.255": True,
            "100.128.0.0": False,
            "101.64.0.0": False,
            "fd7a:115c:a1df:ffff::": False,
            "fd7a:115c:a1e0::": True,
            "fd7a:115c:a1e0:ffff:ffff:ffff:ffff:ffff": True,
            "fd7a:115c:a1e1::": False,
            "::ffff:100.64.0.1": False,
        }.items():
            self.assertIs(isTailscaleAddress(parseAddress(text)), expected, text)
        self.assertFalse(isTailscaleAddress(b""))
        self.assertFalse(isTailscaleAddress(ULA.address[:8]))


class PrefixTests(SynchronousTestCase):
    """L{Prefix}."""

    @given(prefixes(), packed)
    @settings(max_examples=300, deadline=None)
    def test_contains(self, prefix: Prefix, address: bytes) -> None:
        """Containment agrees with the standard library."""
        network = ipaddress.ip_network((prefix.address, prefix.length), strict=False)
        expected = ipaddress.ip_address(address) in network
        self.assertIs(prefix.contains(address), expected)
        self.assertTrue(prefix.contains(prefix.address))
        edges = (network.network_address.packed, network.broadcast_address.packed)
        self.assertTrue(all(map(prefix.contains, edges)))

    @given(prefixes(), prefixes())
    @settings(max_examples=300, deadline=None)
    def test_coversAndOverlaps(self, first: Prefix, second: Prefix) -> None:
        """Both relations agree with the standard library."""
        one, two = (
            ipaddress.ip_network((prefix.address, prefix.length), strict=False)
            for prefix in (first, second)
        )
        if one.version == two.version:
            self.assertIs(first.covers(second), two.subnet_of(one))  # type: ignore[arg-type]  # both are of one version
            self.assertIs(first.overlaps(second), one.overlaps(two))
        else:
            self.assertFalse(first.covers(second))
            self.assertFalse(first.overlaps(second))

    def test_nested(self) -> None:
        """A network covers a part of itself, not the other way round."""
        outer, inner = Prefix.parse("10.0.0.0/8"), Prefix.parse("10.1.0.0/16")
        self.assertTrue(outer.covers(inner))
        self.assertFalse(inner.covers(outer))
        self.assertTrue(inner.overlaps(outer))
        self.assertFalse(inner.overlaps(Prefix.parse("10.2.0.0/16")))

    @given(prefixes())
    @settings(max_examples=200, deadline=None)
    def test_roundTrip(self, prefix: Prefix) -> None:
        """Parsing gives the masked prefix back."""
        parsed = Prefix.parse(prefix.text())
        self.assertEqual(parsed, prefix.masked())
        self.assertEqual(Prefix.parse(parsed.text(), strict=True), parsed)
        if parsed != prefix:
            self.assertRaises(WireError, Prefix.parse, prefix.text(), strict=True)

    @given(st.text() | st.from_regex(r"[0-9a-f:./]*", fullmatch=True))
    @settings(max_examples=300, deadline=None)
    def test_anyText(self, text: str) -> None:
        """Text that is no prefix raises L{WireError} and nothing else."""
        try:
            Prefix.parse(text)
        except WireError:
            return
        ipaddress.ip_network(text, strict=False)

    def test_rejected(self) -> None:
        """Lengths that are missing, signed, padded or too large."""
        for text in (
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/08",
            "10.0.0.0/-1",
            "10.0.0.0/+8",
            "10.0.0.0/8 ",
            "10.0.0.0/255.0.0.0",
            "10.0.0.0/\u0668",
            "::/129",
            "/8",
            "10.0.0.0/8/8",
        ):
            self.assertRaises(WireError, Prefix.parse, text)
        self.assertRaises(WireError, Prefix, bytes(5), 0)
        self.assertRaises(WireError, Prefix, bytes(4), 33)
        self.assertRaises(WireError, Prefix, bytes(4), -1)

    def test_hosts(self) -> None:
        """An address alone is the prefix of that host."""
        prefix = Prefix.parse("192.0.2.7")
        self.assertEqual(prefix, Prefix.host(parseAddress("192.0.2.7")))
        self.assertEqual(prefix.text(), "192.0.2.7/32")
        self.assertTrue(prefix.isHost)
        self.assertFalse(Prefix.parse("192.0.2.6/31").isHost)
        self.assertTrue(Prefix.parse("::1").isHost)
        self.assertEqual((prefix.family, Prefix.parse("::/0").family), (4, 6))

    def test_keepsHostBits(self) -> None:
        """The constructor keeps the address as it is; equality sees that."""
        prefix = Prefix(parseAddress("10.1.2.3"), 8)
        self.assertEqual(prefix.text(), "10.1.2.3/8")
        self.assertNotEqual(prefix, prefix.masked())
        self.assertTrue(prefix.contains(parseAddress("10.255.0.0")))

    def test_identity(self) -> None:
        """Prefixes can be put into sets, compared, sorted and shown."""
        one, two = Prefix.parse("10.0.0.0/8"), Prefix.parse("10.0.0.0/9")
        self.assertEqual(len({one, Prefix.parse("10.0.0.0/8"), two}), 2)
        self.assertNotEqual(one, "10.0.0.0/8")
        self.assertEqual(
            sorted([Prefix.parse("::/0"), two, one]), [one, two, Prefix.parse("::/0")]
        )
        self.assertEqual(str(one), "10.0.0.0/8")
        self.assertEqual(repr(one), "<Prefix 10.0.0.0/8>")


class AddrPortTests(SynchronousTestCase):
    """L{AddrPort}."""

    @given(packed, ports)
    @settings(max_examples=200, deadline=None)
    def test_roundTrip(self, address: bytes, port: int) -> None:
        """Text and binary form give the value back."""
        value = AddrPort(address, port)
        self.assertEqual(AddrPort.parse(value.text()), value)
        binary = value.binary()
        self.assertEqual(len(binary), 18)
        expected = AddrPort(fromMapped(address), port)
        self.assertEqual(AddrPort.fromBinary(b"xx" + binary + b"y", 2), expected)

    @given(st.text() | st.from_regex(r"[0-9a-f:.\[\]]*", fullmatch=True))
    @settings(max_examples=300, deadline=None)
    def test_anyText(self, text: str) -> None:
        """Text that is none raises L{WireError} and nothing else."""
        try:
            value = AddrPort.parse(text)
        except WireError:
            return
        self.assertEqual(AddrPort.parse(value.text()), value)

    def test_rejected(self) -> None:
        """Ports that are none, and brackets in the wrong place."""
        for text in (
            "1.2.3.4",
            "1.2.3.4:",
            "1.2.3.4:65536",
            "1.2.3.4:080",
            "1.2.3.4:-1",
            "[1.2.3.4]:80",
            "::1:80",
            "[::1]",
            "[::1:80",
            "host:80",
        ):
            self.assertRaises(WireError, AddrPort.parse, text)

    def test_shortBinary(self) -> None:
        """Fewer than 18 bytes are none."""
        self.assertRaises(WireError, AddrPort.fromBinary, bytes(17))
        self.assertRaises(WireError, AddrPort.fromBinary, bytes(18), 1)


class ViaTests(SynchronousTestCase):
    """4via6."""

    @given(st.integers(0, (1 << 32) - 1), packedIPv4, st.integers(0, 32))
    @settings(max_examples=100, deadline=None)
    def test_roundTrip(self, site: int, address: bytes, length: int) -> None:
        """Mapping can be undone, and stays in its range."""
        prefix = Prefix(address, length)
        mapped = viaPrefix(site, prefix)
        self.assertTrue(VIA.covers(mapped))
        self.assertEqual(unmapVia(mapped), (site, prefix))

    def test_rejected(self) -> None:
        """IPv6 and sites beyond 32 bits cannot be mapped."""
        ipv4 = Prefix.parse("10.0.0.0/8")
        self.assertRaises(WireError, viaPrefix, 1, Prefix.parse("::/0"))
        self.assertRaises(WireError, viaPrefix, 1 << 32, ipv4)
        self.assertRaises(WireError, viaPrefix, -1, ipv4)

    def test_noMapping(self) -> None:
        """Other prefixes are no mapping."""
        for text in ("::/0", "10.0.0.0/8", "fd7a:115c:a1e0:b1a::/64", "2001:db8::/96"):
            self.assertIsNone(unmapVia(Prefix.parse(text)))

    def test_names(self) -> None:
        """Names with a site in decimal or hexadecimal, under known suffixes."""
        expected = "fd7a:115c:a1e0:b1a:0:7:a01:105"
        for name in (
            "10-1-1-5-via-7",
            "10-1-1-5-via-7.",
            "10-1-1-5-via-0x7",
            "10-1-1-5-VIA-0X07",
            "10-1-1-5-via-7.tail.ts.net.",
            "10-1-1-5-via-7.ts.net",
            "10-1-1-5-via-7.Tail.TS.net",
            "10-1-1-5-via-7.foo.tailscale.net",
        ):
            address = parseViaName(name)
            assert address is not None, name
            self.assertEqual(formatAddress(address), expected)

    def test_otherNames(self) -> None:
        """Everything else means nothing."""
        for name in (
            "",
            "host",
            "10-1-1-via-7",
            "10-1-1-5-via-",
            "10-1-1-5-via-7.example.com",
            "10-1-1-5-via-7.nots.net",
            "10-1-1-256-via-7",
            "10-1-1-05-via-7",
            "10-1-1-5-via-4294967296",
            "10-1-1-5-via-0x100000000",
            "x10-1-1-5-via-7",
            "a.10-1-1-5-via-7",
            "10-1-1-5-v\u0131a-7",
        ):
            self.assertIsNone(parseViaName(name), name)
        self.assertIsNotNone(parseViaName("10-1-1-5-via-4294967295"))

    @given(st.text())
    @settings(max_examples=100, deadline=None)
    def test_anyName(self, name: str) -> None:
        """No name raises anything."""
        parseViaName(name)
        parseViaName("1-2-3-4-via-" + name)
