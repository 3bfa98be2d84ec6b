"""
Tests for L{tsrt.wire.derp} and L{tsrt.wire.derpinfo}.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tsrt.addresses import AddrPort
from tsrt.errors import WireError
from tsrt.wire import derp
from tsrt.wire.derpinfo import ClientInfo, ServerInfo

KEY = bytes(range(32))
OTHER = bytes(range(32, 64))

PARSERS: tuple[Callable[[bytes], object], ...] = (
    derp.parseServerKey,
    derp.parseClientInfo,
    derp.parseSendPacket,
    derp.parseRecvPacket,
    derp.parseForwardPacket,
    derp.parseNotePreferred,
    derp.parsePing,
    derp.parseHealth,
    derp.parseRestarting,
    derp.parsePeerGone,
    derp.parsePeerPresent,
    derp.parseClosePeer,
    ClientInfo.decode,
    ServerInfo.decode,
)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """C{data} in pieces, cut at these places."""
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(places)]


class SplitterTests(SynchronousTestCase):
    """L{derp.FrameSplitter}."""

    @given(
        st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=60)), max_size=6),
        st.lists(st.integers(0, 500), max_size=8),
    )
    @settings(max_examples=150, deadline=None)
    def test_anyPieces(self, frames: list[tuple[int, bytes]], cuts: list[int]) -> None:
        """However a stream is cut, the same frames come out."""
        stream = b"".join(derp.encodeFrame(*frame) for frame in frames)
        splitter = derp.FrameSplitter()
        found = [
            frame for piece in pieces(stream, cuts) for frame in splitter.feed(piece)
        ]
        self.assertEqual(found, frames)

    @given(st.lists(st.binary(max_size=40), max_size=6))
    @settings(max_examples=150, deadline=None)
    def test_anyBytes(self, stream: list[bytes]) -> None:
        """Any stream gives frames or raises L{WireError}."""
        splitter = derp.FrameSplitter()
        try:
            for piece in stream:
                splitter.feed(piece)
        except WireError:
            pass

    def test_byteByByte(self) -> None:
        """A frame comes out with its last byte, and not before."""
        frame = derp.buildSendPacket(KEY, b"hello")
        splitter = derp.FrameSplitter()
        results = [splitter.feed(frame[at : at + 1]) for at in range(len(frame))]
        self.assertEqual(results[:-1], [[]] * (len(frame) - 1))
        self.assertEqual(results[-1], [(derp.FrameType.SEND_PACKET, KEY + b"hello")])

    def test_T_capsFrames(self) -> None:
        """A frame that is too long is refused when its header is there."""
        for kind, limit in (
            (derp.FrameType.RECV_PACKET, derp.MAX_FRAME),
            (derp.FrameType.SERVER_KEY, derp.MAX_SERVER_KEY),
            (derp.FrameType.SERVER_INFO, derp.MAX_SERVER_INFO),
            (0xEE, derp.MAX_FRAME),
        ):
            header = bytes((kind,)) + limit.to_bytes(4, "big")
            self.assertEqual(derp.FrameSplitter().feed(header), [])
            header = bytes((kind,)) + (limit + 1).to_bytes(4, "big")
            self.assertRaises(WireError, derp.FrameSplitter().feed, header)

    def test_T_capsServer(self) -> None:
        """A server takes no larger packets, logins and pings than it must."""
        for kind, limit in (
            (derp.FrameType.CLIENT_INFO, 256 << 10),
            (derp.FrameType.SEND_PACKET, 32 + 65536),
            (derp.FrameType.FORWARD_PACKET, 64 + 65536),
            (derp.FrameType.PING, 1000),
        ):
            splitter = derp.FrameSplitter(limits=derp.SERVER_LIMITS)
            self.assertEqual(
                splitter.feed(bytes((kind,)) + limit.to_bytes(4, "big")), []
            )
            splitter = derp.FrameSplitter(limits=derp.SERVER_LIMITS)
            header = bytes((kind,)) + (limit + 1).to_bytes(4, "big")
            self.assertRaises(WireError, splitter.feed, header)

    def test_ownLimit(self) -> None:
        """The limit can be chosen."""
        splitter = derp.FrameSplitter(limit=3)
        self.assertEqual(splitter.feed(derp.encodeFrame(6, b"abc")), [(6, b"abc")])
        self.assertRaises(WireError, splitter.feed, derp.encodeFrame(6, b"abcd"))


class FrameTests(SynchronousTestCase):
    """Builders and parsers of frames."""

    @given(st.binary(max_size=120))
    @settings(max_examples=200, deadline=None)
    def test_anyBytes(self, payload: bytes) -> None:
        """Any payload gives a value or raises L{WireError}."""
        for parser in PARSERS:
            for data in (payload, derp.MAGIC + payload, KEY + payload):
                try:
                    parser(data)
                except WireError:
                    pass

    def test_shortPayloads(self) -> None:
        """Each payload has a least length."""
        for parser, least in (
            (derp.parseClientInfo, 56),
            (derp.parseSendPacket, 32),
            (derp.parseRecvPacket, 32),
            (derp.parseForwardPacket, 64),
            (derp.parseNotePreferred, 1),
            (derp.parsePing, 8),
            (derp.parseRestarting, 8),
            (derp.parsePeerGone, 32),
            (derp.parsePeerPresent, 32),
            (derp.parseClosePeer, 32),
        ):
            parser(bytes(least))
            self.assertRaises(WireError, parser, bytes(least - 1))

    def test_serverKey(self) -> None:
        """The magic is checked, and what follows the key ignored."""
        frame = derp.buildServerKey(KEY)
        self.assertEqual(derp.parseServerKey(frame[5:] + b"more"), KEY)
        self.assertRaises(WireError, derp.parseServerKey, frame[5:-1])
        self.assertRaises(WireError, derp.parseServerKey, b"HTTP/1.1" + KEY)

    def test_forwardPacket(self) -> None:
        """Mesh peers name both ends."""
        [(kind, payload)] = derp.FrameSplitter().feed(
            derp.buildForwardPacket(KEY, OTHER, b"x")
        )
        self.assertEqual(kind, derp.FrameType.FORWARD_PACKET)
        self.assertEqual(derp.parseForwardPacket(payload), (KEY, OTHER, b"x"))

    def test_mesh(self) -> None:
        """Mesh peers watch and close."""
        self.assertEqual(derp.buildWatchConns(), b"\x10\0\0\0\0")
        frame = derp.buildClosePeer(KEY)
        self.assertEqual(frame[:5], b"\x11\0\0\0\x20")
        self.assertEqual(derp.parseClosePeer(frame[5:]), KEY)

    def test_notePreferred(self) -> None:
        """Yes and no are the only answers."""
        self.assertEqual(derp.buildNotePreferred(False), b"\x07\0\0\0\1\0")
        self.assertIs(derp.parseNotePreferred(b"\0"), False)
        self.assertIs(derp.parseNotePreferred(b"\1"), True)
        for payload in (b"\2", b"\1\1"):
            self.assertRaises(WireError, derp.parseNotePreferred, payload)

    def test_pings(self) -> None:
        """A long ping is answered with its first eight bytes."""
        self.assertEqual(derp.parsePing(b"12345678" + bytes(992)), b"12345678")
        self.assertEqual(derp.buildPong(b"123456789"), derp.buildPong(b"12345678"))

    def test_T_derpHealth(self) -> None:
        """A health text need not be UTF-8; no text means all is well."""
        self.assertEqual(derp.parseHealth(b""), "")
        self.assertEqual(derp.parseHealth(b"\xffx"), "\ufffdx")
        self.assertEqual(derp.parseHealth(derp.buildHealth("ü")[5:]), "ü")

    def test_T_derpHealthPeerGone(self) -> None:
        """A missing reason is the first; unknown reasons are handed on."""
        self.assertEqual(
            derp.parsePeerGone(KEY), (KEY, derp.PeerGoneReason.DISCONNECTED)
        )
        self.assertEqual(derp.parsePeerGone(KEY + b"\xf0more"), (KEY, 0xF0))
        self.assertEqual(derp.buildPeerGone(KEY)[5:], KEY + b"\0")

    def test_peerPresent(self) -> None:
        """Address and flags may be missing."""
        addrPort = AddrPort.parse("[2001:db8::5]:443")
        for present in (
            derp.PeerPresent(KEY),
            derp.PeerPresent(KEY, addrPort),
            derp.PeerPresent(KEY, addrPort, derp.PeerPresentFlag.PROBER),
        ):
            payload = derp.buildPeerPresent(present)[5:]
            self.assertEqual(derp.parsePeerPresent(payload), present)
        withoutFlags = KEY + addrPort.binary()
        self.assertEqual(
            derp.parsePeerPresent(withoutFlags), derp.PeerPresent(KEY, addrPort)
        )
        self.assertEqual(
            derp.parsePeerPresent(withoutFlags[:-1]), derp.PeerPresent(KEY)
        )

    def test_restarting(self) -> None:
        """Times are milliseconds on the wire and seconds here."""
        payload = derp.buildRestarting(0.0015, 2)[5:]
        self.assertEqual(payload, b"\0\0\0\2\0\0\7\xd0")
        self.assertEqual(derp.parseRestarting(payload + b"x"), (0.002, 2.0))


class InfoTests(SynchronousTestCase):
    """L{ClientInfo} and L{ServerInfo}."""

    @given(st.builds(ClientInfo, st.integers(), st.booleans(), st.text()))
    @settings(max_examples=50, deadline=None)
    def test_clientRoundTrip(self, info: ClientInfo) -> None:
        """What a client writes is read again."""
        self.assertEqual(ClientInfo.decode(info.encode()), info)

    @given(st.builds(ServerInfo, st.integers(), st.integers(), st.integers()))
    @settings(max_examples=50, deadline=None)
    def test_serverRoundTrip(self, info: ServerInfo) -> None:
        """What a server writes is read again."""
        self.assertEqual(ServerInfo.decode(info.encode()), info)

    def test_T_derpJSON(self) -> None:
        """Names are spelled exactly so; what says nothing is left out."""
        self.assertEqual(ClientInfo(canAckPings=False).encode(), b'{"version":2}')
        self.assertEqual(
            ClientInfo(meshKey="ab", isProber=True, appName="p").encode(),
            b'{"meshKey":"ab","version":2,"CanAckPings":true,"IsProber":true,'
            b'"AppName":"p"}',
        )
        self.assertEqual(
            ServerInfo(2, 1000, 2000).encode(),
            b'{"version":2,"TokenBucketBytesPerSecond":1000,'
            b'"TokenBucketBytesBurst":2000}',
        )

    def test_lenient(self) -> None:
        """Unknown members are ignored; null is the same as absent."""
        self.assertEqual(
            ClientInfo.decode(
                b'{"version":2,"CanAckPings":null,"meshKey":null,"new":[1]}'
            ),
            ClientInfo(canAckPings=False),
        )
        self.assertEqual(ServerInfo.decode(b"{}"), ServerInfo(version=0))

    def test_rejected(self) -> None:
        """Members of a wrong type, and what is no object at all."""
        for data in (
            b"",
            b"[]",
            b"\xff",
            b"[" * 100000,
            b'{"version":"2"}',
            b'{"version":true}',
            b'{"CanAckPings":1}',
            b'{"meshKey":1}',
        ):
            self.assertRaises(WireError, ClientInfo.decode, data)
        for data in (b"1", b'{"TokenBucketBytesBurst":1.5}'):
            self.assertRaises(WireError, ServerInfo.decode, data)

    def test_meshKeyIsHidden(self) -> None:
        """The secret of the mesh is not shown; other members are."""
        shown = repr(ClientInfo(meshKey="c0ffee", appName="prog"))
        self.assertNotIn("c0ffee", shown)
        self.assertIn("***", shown)
        self.assertIn("prog", shown)
        self.assertNotIn("***", repr(ClientInfo()))

    def test_loneSurrogate(self) -> None:
        """JSON can hold what is no text; writing it again raises nothing."""
        info = ClientInfo.decode(b'{"AppName":"\\ud800"}')
        self.assertIn(b'"AppName":"?"', info.encode())
