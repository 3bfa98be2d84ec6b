"""
Tests for L{tsrt.wire.classify} and L{tsrt.wire.geneve}.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tsrt.addresses import AddrPort
from tsrt.errors import WireError
from tsrt.wire import disco, stun
from tsrt.wire.classify import Kind, classify, looksLikeDisco, splitByKind
from tsrt.wire.geneve import (
    MAX_VNI,
    PROTOCOL_DISCO,
    PROTOCOL_WIREGUARD,
    GeneveHeader,
    parseGeneve,
)

KEY = bytes(range(32))
DISCO = disco.encodeEnvelope(KEY, bytes(40))
DATA = b"\4\0\0\0" + bytes(range(60))
REQUEST = stun.buildRequest(bytes(12))
RESPONSE = stun.buildResponse(bytes(12), AddrPort.parse("192.0.2.7:1"))
RELAYED_DISCO = GeneveHeader(PROTOCOL_DISCO, 7, True).encode() + DISCO
RELAYED_DATA = GeneveHeader(PROTOCOL_WIREGUARD, 7).encode() + DATA


def reference(datagram: bytes) -> Kind:
    """The checks one after the other, as they are written down."""
    length = len(datagram)
    if (
        length >= 20
        and datagram[0] & 0xC0 == 0
        and datagram[4:8] == b"\x21\x12\xa4\x42"
        and datagram[1] == 1
    ):
        return Kind.STUN
    if (
        length >= 8
        and datagram[0] & 0xC0 == 0
        and datagram[1] & 0x3F == 0
        and datagram[7] == 0
    ):
        if datagram[2:4] == b"\x7a\x11":
            inner = datagram[8:]
            if len(inner) >= 38 and inner[:6] == disco.MAGIC:
                return Kind.GENEVE_DISCO
            return Kind.WIREGUARD
        if datagram[2:4] == b"\x7a\x12":
            return Kind.GENEVE_WIREGUARD
    if length >= 38 and datagram[:6] == disco.MAGIC:
        return Kind.DISCO
    return Kind.WIREGUARD


class ClassifyTests(SynchronousTestCase):
    """L{classify}."""

    def test_kinds(self) -> None:
        """One datagram of each kind."""
        for datagram, kind in (
            (DATA, Kind.WIREGUARD),
            (b"\1\0\0\0" + bytes(144), Kind.WIREGUARD),
            (DISCO, Kind.DISCO),
            (REQUEST, Kind.STUN),
            (RESPONSE, Kind.STUN),
            (RELAYED_DISCO, Kind.GENEVE_DISCO),
            (RELAYED_DATA, Kind.GENEVE_WIREGUARD),
            (b"", Kind.WIREGUARD),
            (bytes(1500), Kind.WIREGUARD),
        ):
            self.assertIs(classify(datagram), kind)
            self.assertIs(reference(datagram), kind)

    def test_edges(self) -> None:
        """The least that makes a datagram what it is, and one byte less."""
        for datagram, length, kind in (
            (DISCO, 38, Kind.DISCO),
            (RESPONSE, 20, Kind.STUN),
            (RELAYED_DISCO, 46, Kind.GENEVE_DISCO),
            (RELAYED_DATA, 8, Kind.GENEVE_WIREGUARD),
        ):
            self.assertIs(classify(datagram[:length]), kind)
            self.assertIs(classify(datagram[: length - 1]), Kind.WIREGUARD)

    def test_nearMisses(self) -> None:
        """A Geneve header with options, and an unknown protocol in one."""
        for datagram in (
            b"\x40" + RELAYED_DATA[1:],
            b"\0\1" + RELAYED_DATA[2:],
            RELAYED_DATA[:7] + b"\1" + RELAYED_DATA[8:],
            b"\0\0\x7a\x13\0\0\7\0" + DATA,
            GeneveHeader(PROTOCOL_DISCO, 7).encode() + DATA,
            b"\0\2" + REQUEST[2:],
            b"\x40" + REQUEST[1:],
        ):
            self.assertIs(classify(datagram), Kind.WIREGUARD)

    @given(
        st.sampled_from(
            [DATA, DISCO, REQUEST, RESPONSE, RELAYED_DISCO, RELAYED_DATA, b""]
        ),
        st.binary(max_size=12),
        st.integers(0, 80),
    )
    @settings(max_examples=400, deadline=None)
    def test_agrees(self, datagram: bytes, front: bytes, length: int) -> None:
        """With the front changed and the end cut, both ways agree."""
        changed = (front + datagram[len(front) :])[:length]
        self.assertIs(classify(changed), reference(changed))
        self.assertIs(classify(datagram[:length]), reference(datagram[:length]))


class SplitTests(SynchronousTestCase):
    """L{splitByKind}."""

    def test_usualBatch(self) -> None:
        """A batch of nothing but data is handed on as it is."""
        batch = [DATA, DATA[:40]]
        split = splitByKind(batch)
        self.assertEqual(list(split), [Kind.WIREGUARD])
        self.assertIs(split[Kind.WIREGUARD], batch)
        self.assertEqual(splitByKind([]), {})

    def test_mixedBatch(self) -> None:
        """Within each kind the order stays, and nothing is lost."""
        other = DATA[:-1]
        batch = [DATA, DISCO, other, REQUEST, RELAYED_DATA, RELAYED_DISCO, RESPONSE]
        self.assertEqual(
            splitByKind(batch),
            {
                Kind.WIREGUARD: [DATA, other],
                Kind.DISCO: [DISCO],
                Kind.STUN: [REQUEST, RESPONSE],
                Kind.GENEVE_WIREGUARD: [RELAYED_DATA],
                Kind.GENEVE_DISCO: [RELAYED_DISCO],
            },
        )

    def test_noData(self) -> None:
        """Kinds that do not occur are missing."""
        self.assertEqual(splitByKind([DISCO]), {Kind.DISCO: [DISCO]})


class LooksLikeDiscoTests(SynchronousTestCase):
    """L{looksLikeDisco}."""

    def test_edges(self) -> None:
        """A relay also wants to see the nonce."""
        self.assertTrue(looksLikeDisco(DISCO[:62]))
        self.assertFalse(looksLikeDisco(DISCO[:61]))
        self.assertFalse(looksLikeDisco(DATA))


class GeneveTests(SynchronousTestCase):
    """L{tsrt.wire.geneve}."""

    @given(st.integers(0, 0xFFFF), st.integers(0, MAX_VNI), st.booleans())
    @settings(max_examples=100, deadline=None)
    def test_roundTrip(self, protocol: int, vni: int, control: bool) -> None:
        """What is written is read again."""
        header = GeneveHeader(protocol, vni, control)
        encoded = header.encode()
        self.assertEqual(len(encoded), 8)
        self.assertEqual(parseGeneve(encoded + b"content"), header)

    @given(st.binary(max_size=12))
    @settings(max_examples=200, deadline=None)
    def test_anyBytes(self, data: bytes) -> None:
        """Any bytes are a header or raise L{WireError}."""
        try:
            header = parseGeneve(data)
        except WireError:
            return
        self.assertEqual(header.encode(), data[:8])

    def test_rejected(self) -> None:
        """Options, other versions, reserved bits, and too few bytes."""
        good = GeneveHeader(PROTOCOL_DISCO, 7).encode()
        for data in (
            good[:-1],
            b"\1" + good[1:],
            b"\x40" + good[1:],
            good[:1] + b"\1" + good[2:],
            good[:7] + b"\1",
        ):
            self.assertRaises(WireError, parseGeneve, data)
