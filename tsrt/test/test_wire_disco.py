"""
Tests for L{tsrt.wire.disco} and L{tsrt.wire.relayendpoint}.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tsrt.addresses import AddrPort, fromMapped, toMapped
from tsrt.errors import WireError
from tsrt.wire import disco
from tsrt.wire.disco import (
    AllocateRequest,
    AllocateResponse,
    BindAnswer,
    BindChallenge,
    BindEndpoint,
    CallMeMaybe,
    CallMeMaybeVia,
    Message,
    Ping,
    Pong,
    encodeEnvelope,
    parseEnvelope,
    parseMessage,
)
from tsrt.wire.relayendpoint import MAX_ENDPOINTS, RelayEndpoint

TXID = bytes(range(12))
KEY = bytes(range(32))
SOMEWHERE = AddrPort.parse("192.0.2.7:41641")

uint32 = st.integers(0, 2**32 - 1)
keys = st.binary(min_size=32, max_size=32)
txids = st.binary(min_size=12, max_size=12)
addrPorts = st.builds(
    AddrPort,
    (st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16)).map(
        # Mapped IPv4 comes back as IPv4.
        lambda address: fromMapped(toMapped(address))
    ),
    st.integers(0, 65535),
)
relayEndpoints = st.builds(
    RelayEndpoint,
    keys,
    st.tuples(keys, keys),
    st.integers(0, 2**64 - 1),
    uint32,
    st.integers(0, 10**6).map(float),
    st.integers(0, 10**6).map(lambda half: half / 2),
    st.lists(addrPorts, min_size=1, max_size=5).map(tuple),
)
messages = st.one_of(
    txids.map(Ping),
    st.builds(Ping, txids, keys, st.integers(0, 100)),
    st.builds(Pong, txids, addrPorts),
    st.builds(CallMeMaybe, st.lists(addrPorts, max_size=5).map(tuple)),
    st.builds(BindEndpoint, uint32, uint32, keys, keys),
    st.builds(BindChallenge, uint32, uint32, keys, keys),
    st.builds(BindAnswer, uint32, uint32, keys, keys),
    st.builds(CallMeMaybeVia, relayEndpoints),
    st.builds(AllocateRequest, st.tuples(keys, keys), uint32),
    st.builds(AllocateResponse, uint32, relayEndpoints),
)


class EnvelopeTests(SynchronousTestCase):
    """Datagrams around boxes."""

    def test_roundTrip(self) -> None:
        """Sender and content come out again."""
        datagram = encodeEnvelope(KEY, bytes(24) + b"box")
        self.assertEqual(parseEnvelope(datagram), (KEY, bytes(24) + b"box"))

    def test_rejected(self) -> None:
        """A wrong magic, or less than a nonce behind the key."""
        datagram = encodeEnvelope(KEY, bytes(24))
        self.assertEqual(parseEnvelope(datagram), (KEY, bytes(24)))
        self.assertRaises(WireError, parseEnvelope, datagram[:-1])
        self.assertRaises(WireError, parseEnvelope, b"X" + datagram[1:])
        self.assertRaises(WireError, parseEnvelope, b"")

    @given(st.binary(max_size=100))
    @settings(max_examples=50, deadline=None)
    def test_anyBytes(self, data: bytes) -> None:
        """Any bytes are an envelope or raise L{WireError}."""
        for datagram in (data, disco.MAGIC + data):
            try:
                parseEnvelope(datagram)
            except WireError:
                pass


class MessageTests(SynchronousTestCase):
    """What boxes hold."""

    @given(messages)
    @settings(max_examples=200, deadline=None)
    def test_roundTrip(self, message: Message) -> None:
        """What is written is read again, as the same kind."""
        parsed = parseMessage(message.encode())
        self.assertEqual(parsed, message)
        self.assertIs(type(parsed), type(message))

    @given(st.integers(0, 10), st.integers(0, 1), st.binary(max_size=250))
    @settings(max_examples=300, deadline=None)
    def test_anyBytes(self, kind: int, version: int, data: bytes) -> None:
        """Any bytes are a message or raise L{WireError}."""
        for plaintext in (data, bytes((kind, version)) + data):
            try:
                parseMessage(plaintext)
            except WireError:
                pass

    @given(messages)
    @settings(max_examples=100, deadline=None)
    def test_cutShort(self, message: Message) -> None:
        """A message cut anywhere is another message or raises L{WireError}."""
        plaintext = message.encode()
        for length in range(len(plaintext)):
            try:
                parseMessage(plaintext[:length])
            except WireError:
                pass

    def test_leastLengths(self) -> None:
        """Every kind of message has a least length."""
        for kind, least in {1: 12, 2: 30, 3: 0, 4: 72, 5: 72, 6: 72, 8: 68}.items():
            parseMessage(bytes((kind, 0)) + bytes(least))
            if least:
                short = bytes((kind, 0)) + bytes(least - 1)
                self.assertRaises(WireError, parseMessage, short)
        for kind, least in {7: 124 + 18, 9: 4 + 124 + 18}.items():
            parseMessage(bytes((kind, 0)) + bytes(least))
            for wrong in (least - 1, least + 1, least - 18, 3):
                plaintext = bytes((kind, 0)) + bytes(wrong)
                self.assertRaises(WireError, parseMessage, plaintext)

    def test_unknown(self) -> None:
        """Unknown types, and less than a type and a version."""
        for plaintext in (b"", b"\1", b"\0\0" + bytes(200), b"\x0a\0" + bytes(200)):
            self.assertRaises(WireError, parseMessage, plaintext)

    def test_oldPing(self) -> None:
        """A ping may lack the node key; a part of one is padding to nobody."""
        self.assertEqual(parseMessage(b"\1\0" + TXID), Ping(TXID))
        self.assertEqual(parseMessage(b"\1\0" + TXID + KEY[:-1]), Ping(TXID))
        self.assertEqual(Ping(TXID, b"", 100).encode(), b"\1\0" + TXID)

    def test_paddedPing(self) -> None:
        """Padding is counted and otherwise ignored."""
        plaintext = b"\1\0" + TXID + KEY + b"anything"
        self.assertEqual(parseMessage(plaintext), Ping(TXID, KEY, 8))

    def test_T_discoLax(self) -> None:
        """Newer versions and trailing bytes are tolerated where they can be."""
        pong = Pong(TXID, SOMEWHERE)
        self.assertEqual(parseMessage(pong.encode() + b"more"), pong)
        self.assertEqual(parseMessage(b"\2\1" + pong.encode()[2:]), pong)
        self.assertEqual(parseMessage(b"\1\x09" + TXID + KEY), Ping(TXID, KEY))
        bind = BindEndpoint(1, 2, KEY, KEY)
        self.assertEqual(parseMessage(bind.encode() + b"more"), bind)
        request = AllocateRequest((KEY, KEY), 3)
        self.assertEqual(parseMessage(request.encode() + b"more"), request)

    def test_T_discoLaxCallMeMaybe(self) -> None:
        """A list that cannot be read is an empty one: the call still counts."""
        call = CallMeMaybe((SOMEWHERE, SOMEWHERE))
        self.assertEqual(parseMessage(call.encode()), call)
        for plaintext in (
            b"\3\0",
            call.encode() + b"x",
            call.encode()[:-1],
            b"\3\1" + call.encode()[2:],
        ):
            self.assertEqual(parseMessage(plaintext), CallMeMaybe(()))

    def test_T_discoLaxCap(self) -> None:
        """No message makes us look at more than so many addresses."""
        many = (SOMEWHERE,) * (MAX_ENDPOINTS + 10)
        call = parseMessage(CallMeMaybe(many).encode())
        assert isinstance(call, CallMeMaybe)
        self.assertEqual(len(call.endpoints), MAX_ENDPOINTS)
        endpoint = RelayEndpoint(KEY, (KEY, KEY), 1, 2, 3.0, 4.0, many)
        via = parseMessage(CallMeMaybeVia(endpoint).encode())
        assert isinstance(via, CallMeMaybeVia)
        self.assertEqual(len(via.endpoint.addrPorts), MAX_ENDPOINTS)

    def test_viaVersion(self) -> None:
        """A newer call-me-maybe-via says nothing that we could read."""
        endpoint = RelayEndpoint(KEY, (KEY, KEY), 1, 2, 3.0, 4.0, (SOMEWHERE,))
        plaintext = CallMeMaybeVia(endpoint).encode()
        self.assertRaises(WireError, parseMessage, b"\7\1" + plaintext[2:])
