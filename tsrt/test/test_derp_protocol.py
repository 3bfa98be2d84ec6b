"""
Tests for L{tsrt.derp.protocol}.
"""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IPushProducer, ITCPTransport
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from tsrt.crypto.box import Box, openFrom, sealTo
from tsrt.derp.failures import RelayLost, RelayProtocolError, RelayTimeout
from tsrt.derp.protocol import (
    BURST_LIMIT,
    BURST_TIME,
    LOGIN_TIMEOUT,
    QUEUE_LIMIT,
    WATCHDOG,
    DERPClientProtocol,
)
from tsrt.derp.upgrade import Greeting
from tsrt.errors import WireError
from tsrt.interfaces import IReadListener
from tsrt.keys import NodeKey
from tsrt.wire import derp
from tsrt.wire.derp import FrameSplitter, FrameType, Restarting
from tsrt.wire.derpinfo import ServerInfo

VECTORS = json.loads(
    (Path(__file__).parent / "vectors" / "vectors.json").read_text("utf-8")
)["vectors"]["derp_client_info"]
FRAMES = {name: bytes.fromhex(text) for name, text in VECTORS["frames"].items()}
PEER = bytes(range(32))
OTHER = bytes(range(1, 33))


@implementer(ITCPTransport)
class Transport(StringTransport):
    """A transport that tells of its end in the same turn."""

    def __init__(self, protocol: DERPClientProtocol) -> None:
        super().__init__()
        self._protocol = protocol

    def abortConnection(self) -> None:
        super().abortConnection()
        self.finish()

    def finish(self) -> None:
        """Tell the protocol of the end, once."""
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            protocol.connectionLost(Failure(ConnectionLost()))


class Listener:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[tuple[object, ...]] = []

    def __getattr__(self, name: str):
        if not name.startswith("relay"):
            raise AttributeError(name)

        def note(protocol: DERPClientProtocol, *arguments: object) -> None:
            self.events.append((name.removeprefix("relay"), *arguments))

        return note

    def of(self, name: str) -> list[tuple[object, ...]]:
        """The arguments of the events of one kind."""
        return [event[1:] for event in self.events if event[0] == name]


class ProtocolTestCase(SynchronousTestCase):
    """A protocol that has sent its login to a server whose key we have."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.listener = Listener()
        self.server = NodeKey(bytes.fromhex(VECTORS["server_private"]))
        self.client = NodeKey(bytes.fromhex(VECTORS["client_private"]))
        self.nonces = [bytes.fromhex(VECTORS["client_nonce"])]
        self.protocol = DERPClientProtocol(
            self.clock, self.client, self.listener, randbytes=self.randbytes
        )
        self.transport = Transport(self.protocol)
        self.protocol.makeConnection(self.transport)
        self.begin()

    def randbytes(self, count: int) -> bytes:
        """The nonce of the vectors, then something else each time."""
        if count == 24 and self.nonces:
            return self.nonces.pop()
        self.counter = getattr(self, "counter", 0) + 1
        return self.counter.to_bytes(count, "big")

    def begin(self) -> None:
        """Log in."""
        self.protocol.begin(
            Greeting(self.server.public().raw, FrameSplitter(), [], False)
        )

    def serverInfo(self, info: ServerInfo | None = None) -> bytes:
        """The server's answer to the login."""
        box = Box(self.server.raw, self.client.public().raw)
        encoded = (info or ServerInfo()).encode()
        return derp.buildServerInfo(sealTo(box, encoded, self.randbytes))

    def loggedIn(self, info: ServerInfo | None = None) -> None:
        """Let the client in."""
        self.protocol.dataReceived(self.serverInfo(info))
        self.assertEqual(self.listener.of("LoggedIn"), [()])
        self.transport.clear()

    def sent(self) -> list[tuple[int, bytes]]:
        """The frames that were sent since the last call."""
        data = self.transport.value()
        self.transport.clear()
        return FrameSplitter().feed(data)

    def assertLost(self, kind: type[Exception]) -> str:
        """The connection was aborted for a reason of this kind; its text."""
        self.assertTrue(self.transport.disconnecting)
        [[reason]] = self.listener.of("Lost")
        self.assertIsInstance(reason.value, kind)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        return str(reason.value)


class LoginTests(ProtocolTestCase):
    """Who we are is told in a box."""

    def test_vector(self) -> None:
        """The login is, byte for byte, that of the published vector."""
        self.assertEqual(
            self.transport.value(), bytes.fromhex(VECTORS["client_info_frame"])
        )

    def test_T_derp_json_clientInfo(self) -> None:
        """The keys of the login are spelt exactly, empty ones left out."""
        [(kind, payload)] = self.sent()
        self.assertEqual(kind, FrameType.CLIENT_INFO)
        key, sealed = derp.parseClientInfo(payload)
        opened = openFrom(Box(self.server.raw, key), sealed)
        self.assertEqual(json.loads(opened), {"version": 2, "CanAckPings": True})
        self.assertEqual(opened.decode(), VECTORS["client_info_json"])

    def test_serverInfoVector(self) -> None:
        """The published answer of a server lets us in."""
        self.assertEqual(self.listener.of("LoggedIn"), [])
        self.protocol.dataReceived(bytes.fromhex(VECTORS["server_info_frame"]))
        self.assertEqual(self.listener.of("LoggedIn"), [()])
        self.assertEqual(self.protocol.info, ServerInfo())

    def test_speaksBeforeItIsAnswered(self) -> None:
        """Packets can be sent before the server has let us in."""
        self.assertEqual(self.listener.of("Ready"), [()])
        self.sent()
        self.protocol.setHome(True)
        self.protocol.send(PEER, [b"early"])
        self.assertEqual(
            [kind for kind, _ in self.sent()],
            [FrameType.NOTE_PREFERRED, FrameType.SEND_PACKET],
        )

    def test_noAnswer(self) -> None:
        """A server that does not answer the login is given up."""
        self.clock.advance(LOGIN_TIMEOUT)
        self.assertLost(RelayTimeout)

    def test_wrongBox(self) -> None:
        """An answer that the server's key did not seal ends the connection."""
        frame = bytearray(self.serverInfo())
        frame[-1] ^= 1
        self.protocol.dataReceived(bytes(frame))
        self.assertLost(RelayProtocolError)

    def test_malformedInfo(self) -> None:
        """An answer that is no JSON ends the connection."""
        box = Box(self.server.raw, self.client.public().raw)
        self.protocol.dataReceived(
            derp.buildServerInfo(sealTo(box, b"nonsense", self.randbytes))
        )
        self.assertLost(RelayProtocolError)

    def test_uselessKey(self) -> None:
        """A server key that shares nothing with anybody is refused."""
        protocol = DERPClientProtocol(
            self.clock, self.client, self.listener, randbytes=self.randbytes
        )
        self.assertRaises(
            WireError, protocol.begin, Greeting(bytes(32), FrameSplitter(), [], False)
        )

    def test_framesBehindTheKey(self) -> None:
        """What came together with the server's key is not lost."""
        self.protocol.connectionLost(Failure(ConnectionLost()))
        self.listener = Listener()
        self.protocol = DERPClientProtocol(
            self.clock, self.client, self.listener, randbytes=self.randbytes
        )
        self.protocol.makeConnection(Transport(self.protocol))
        splitter = FrameSplitter()
        pong = derp.buildHealth("sick")
        frames = splitter.feed(pong + self.serverInfo()[:10])
        self.protocol.begin(Greeting(self.server.public().raw, splitter, frames, False))
        self.assertEqual(self.listener.of("Health"), [("sick",)])

    def test_producer(self) -> None:
        """The protocol can be paused by its transport."""
        verifyObject(IPushProducer, self.protocol)
        self.assertIs(self.transport.producer, self.protocol)


class ReceivingTests(ProtocolTestCase):
    """What the relay sends is taken apart and handed on."""

    def setUp(self) -> None:
        super().setUp()
        self.loggedIn()

    def test_recvPacketVector(self) -> None:
        """The published packet arrives with its source."""
        self.protocol.dataReceived(FRAMES["recv_packet"])
        self.clock.advance(0)
        source = bytes.fromhex(VECTORS["client_public"])
        self.assertEqual(self.listener.of("Packets"), [(source, [b"hello"])])

    def test_batches(self) -> None:
        """Packets of one turn come in one call for each source."""
        self.protocol.dataReceived(
            derp.buildRecvPacket(PEER, b"1")
            + derp.buildRecvPacket(OTHER, b"2")
            + derp.buildRecvPacket(PEER, b"3")
        )
        self.clock.advance(0)
        self.assertEqual(
            self.listener.of("Packets"), [(PEER, [b"1", b"3"]), (OTHER, [b"2"])]
        )

    def test_readsOfManyRecords(self) -> None:
        """
        Where the transport tells of the end of a read, the packets of that read
        come in one call, and at once.
        """
        verifyObject(IReadListener, self.protocol)
        self.protocol.readOver()
        for number in (b"1", b"2"):
            self.protocol.dataReceived(derp.buildRecvPacket(PEER, number))
        self.assertEqual(self.listener.of("Packets"), [])
        calls = len(self.clock.getDelayedCalls())
        self.protocol.readOver()
        self.assertEqual(self.listener.of("Packets"), [(PEER, [b"1", b"2"])])
        self.assertEqual(len(self.clock.getDelayedCalls()), calls)

    def test_orderOfPacketsAndNews(self) -> None:
        """That a peer is gone is told after what it sent before."""
        self.listener.events.clear()
        self.protocol.dataReceived(
            derp.buildRecvPacket(PEER, b"1")
            + derp.buildPeerGone(PEER)
            + derp.buildRecvPacket(PEER, b"2")
        )
        self.clock.advance(0)
        self.assertEqual(
            [event[0] for event in self.listener.events],
            ["Packets", "PeerGone", "Packets"],
        )

    def test_anyFragmentation(self) -> None:
        """Frames may come in any pieces."""
        for byte in derp.buildRecvPacket(PEER, b"hello") + derp.buildHealth("x"):
            self.protocol.dataReceived(bytes((byte,)))
        self.assertEqual(self.listener.of("Packets"), [(PEER, [b"hello"])])

    def test_ping(self) -> None:
        """A ping is answered with its own bytes."""
        self.protocol.dataReceived(FRAMES["ping"])
        self.assertEqual(self.transport.value(), FRAMES["pong"])

    def test_noPongsPiledUp(self) -> None:
        """Pings of a relay that does not read are not answered."""
        self.protocol.pauseProducing()
        self.protocol.dataReceived(FRAMES["ping"] * 100)
        self.protocol.resumeProducing()
        self.assertEqual(self.sent(), [])

    def test_T_derp_health_framesThatAreSkipped(self) -> None:
        """Health, Restarting, short and unknown frames do not end anything."""
        self.protocol.dataReceived(
            FRAMES["health"]
            + FRAMES["restarting_500ms_10s"]
            + FRAMES["keepalive"]
            + FRAMES["peer_present"]
            + derp.encodeFrame(0xEE, b"from the future")
            + derp.encodeFrame(FrameType.RECV_PACKET, b"short")
            + derp.encodeFrame(FrameType.PEER_GONE, b"short")
            + derp.encodeFrame(FrameType.PING, b"short")
            + derp.encodeFrame(FrameType.PONG, b"short")
            + derp.encodeFrame(FrameType.RESTARTING, b"short")
            + derp.buildServerKey(bytes(32))
        )
        self.assertIn(("dup",), self.listener.of("Health"))
        self.assertEqual(self.listener.of("Restarting"), [(Restarting(0.5, 10.0),)])
        self.assertEqual(self.protocol.counters.malformed, 5)
        self.assertEqual(self.protocol.counters.unknown, 1)
        self.assertEqual(self.listener.of("Lost"), [])
        self.protocol.dataReceived(derp.buildRecvPacket(PEER, b"still here"))
        self.clock.advance(0)
        self.assertEqual(self.listener.of("Packets"), [(PEER, [b"still here"])])

    def test_T_derp_health_peerGoneWithoutReason(self) -> None:
        """A peer may be gone for a reason, a new one, or none at all."""
        self.protocol.dataReceived(
            FRAMES["peer_gone_not_here"]
            + derp.encodeFrame(FrameType.PEER_GONE, PEER)
            + derp.encodeFrame(FrameType.PEER_GONE, PEER + b"\x77")
        )
        self.assertEqual(
            [reason for _, reason in self.listener.of("PeerGone")], [1, 0, 0x77]
        )

    def test_healthEndsWithServerInfo(self) -> None:
        """A new answer of the server means that it is well."""
        self.protocol.dataReceived(derp.buildHealth("bad") + self.serverInfo())
        self.assertEqual(self.listener.of("Health")[-2:], [("bad",), ("",)])
        self.assertEqual(self.listener.of("LoggedIn"), [()])

    def test_oversizedFrame(self) -> None:
        """A frame beyond a mebibyte ends the connection before it comes."""
        self.protocol.dataReceived(b"\x05" + (1 << 24).to_bytes(4, "big"))
        self.assertLost(RelayProtocolError)

    def test_silence(self) -> None:
        """Two minutes without a frame end the connection, not sooner."""
        for _ in range(5):
            self.clock.advance(WATCHDOG - 1)
            self.protocol.dataReceived(FRAMES["keepalive"])
        self.clock.advance(WATCHDOG - 0.1)
        self.assertEqual(self.listener.of("Lost"), [])
        self.clock.advance(0.2)
        self.assertLost(RelayTimeout)

    def test_failingListener(self) -> None:
        """An error of whoever is told is logged and disturbs nobody else."""

        class Broken(Listener):
            def relayPackets(self, protocol, source, packets):
                raise ZeroDivisionError

        self.protocol._listener = Broken()
        self.protocol.dataReceived(
            derp.buildRecvPacket(PEER, b"1") + derp.buildRecvPacket(OTHER, b"2")
        )
        self.clock.advance(0)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)
        self.assertFalse(self.transport.disconnecting)

    @settings(max_examples=150, deadline=None)
    @given(
        st.lists(
            st.one_of(
                st.binary(max_size=60),
                st.builds(
                    derp.encodeFrame,
                    st.integers(0, 255),
                    st.binary(max_size=80),
                ),
            ),
            max_size=8,
        )
    )
    def test_anyBytes(self, pieces: list[bytes]) -> None:
        """No bytes of a relay make dataReceived raise, or leave a timer."""
        self.nonces = [bytes(24)]
        self.setUp()
        for piece in pieces:
            self.protocol.dataReceived(piece)
        self.protocol.abort()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.flushLoggedErrors(), [])


class SendingTests(ProtocolTestCase):
    """Packets are framed, limited and counted."""

    def setUp(self) -> None:
        super().setUp()
        self.loggedIn()

    def test_sendPacketVector(self) -> None:
        """A packet is framed as published."""
        peer = FRAMES["send_packet"][5:37]
        self.protocol.send(peer, [b"hello"])
        self.assertEqual(self.transport.value(), FRAMES["send_packet"])

    def test_oneWriteForABatch(self) -> None:
        """A batch is written at once."""
        writes: list[bytes] = []
        self.transport.write = writes.append
        self.protocol.send(PEER, [b"1", b"2", b"3"])
        self.assertEqual(len(writes), 1)
        self.assertEqual(self.protocol.counters.sentPackets, 3)

    def test_home(self) -> None:
        """Being the home is told when it changes, and only then."""
        for isHome in (False, True, True, False, False):
            self.protocol.setHome(isHome)
        self.assertEqual(
            self.transport.value(),
            FRAMES["note_preferred"] + derp.buildNotePreferred(False),
        )

    def test_queueIsBounded(self) -> None:
        """While paused the 32 newest packets wait, older ones are counted."""
        self.protocol.pauseProducing()
        self.clock.advance(BURST_TIME)
        for number in range(40):
            self.protocol.send(PEER, [b"%02d" % number])
        self.assertEqual(self.transport.value(), b"")
        self.assertEqual(self.protocol.counters.droppedFull, 40 - QUEUE_LIMIT)
        self.assertEqual(self.protocol.counters.sentPackets, QUEUE_LIMIT)
        self.protocol.resumeProducing()
        self.assertEqual(
            [payload[32:] for _, payload in self.sent()],
            [b"%02d" % number for number in range(40 - QUEUE_LIMIT, 40)],
        )

    def test_burstWaits(self) -> None:
        """
        A pause says only that one turn wrote much; what that turn goes on to
        write, and what follows soon, waits and is not dropped.
        """
        self.protocol.pauseProducing()
        self.protocol.send(PEER, [b"%03d" % number for number in range(500)])
        self.clock.advance(BURST_TIME / 2)
        self.protocol.send(PEER, [b"soon"])
        self.assertEqual(self.protocol.counters.droppedFull, 0)
        self.protocol.resumeProducing()
        self.assertEqual(len(self.sent()), 501)

    def test_burstIsBounded(self) -> None:
        """Even so there is a bound."""
        self.protocol.pauseProducing()
        self.protocol.send(PEER, [b"x"] * (BURST_LIMIT + 3))
        self.assertEqual(self.protocol.counters.droppedFull, 3)
        self.assertEqual(self.protocol.counters.sentBytes, BURST_LIMIT)

    def test_burstOver(self) -> None:
        """A connection that stays behind takes no more than a few."""
        self.protocol.pauseProducing()
        self.protocol.send(PEER, [b"early"] * 100)
        self.clock.advance(BURST_TIME)
        self.protocol.send(PEER, [b"late"] * 10)
        self.assertEqual(self.protocol.counters.droppedFull, 10)
        self.protocol.resumeProducing()
        texts = [payload[32:] for _, payload in self.sent()]
        self.assertEqual(texts, [b"early"] * 90 + [b"late"] * 10)

    def test_rate(self) -> None:
        """Packets beyond the bucket are dropped; it fills with time."""
        self.protocol.dataReceived(
            self.serverInfo(
                ServerInfo(tokenBucketBytesPerSecond=100, tokenBucketBytesBurst=200)
            )
        )
        packet = bytes(100 - 37)
        self.protocol.send(PEER, [packet] * 5)
        self.assertEqual(len(self.sent()), 2)
        self.clock.advance(1)
        self.protocol.send(PEER, [packet] * 5)
        self.assertEqual(len(self.sent()), 1)
        self.clock.advance(100)
        self.protocol.send(PEER, [packet] * 5)
        self.assertEqual(len(self.sent()), 2)
        self.assertEqual(self.protocol.counters.droppedRate, 10)

    def test_tooLong(self) -> None:
        """What no relay takes is not sent."""
        self.protocol.send(PEER, [bytes(65537)])
        self.assertEqual(self.sent(), [])
        self.assertEqual(self.protocol.counters.droppedTooLong, 1)

    def test_afterTheEnd(self) -> None:
        """Packets for a connection that is gone are counted."""
        self.protocol.abort()
        self.protocol.send(PEER, [b"1", b"2"])
        self.assertEqual(self.protocol.counters.droppedClosed, 2)
        self.assertFalse(self.protocol.isUp)

    def test_pingIsMeasured(self) -> None:
        """A ping tells the round trip."""
        measured = self.protocol.ping()
        [(kind, payload)] = self.sent()
        self.assertEqual(kind, FrameType.PING)
        self.clock.advance(0.25)
        self.protocol.dataReceived(derp.buildPong(payload))
        self.assertEqual(self.successResultOf(measured), 0.25)
        self.protocol.dataReceived(derp.buildPong(payload))

    def test_pingTimesOut(self) -> None:
        """A ping that is not answered fails."""
        measured = self.protocol.ping(3.0)
        self.clock.advance(3.0)
        self.failureResultOf(measured, RelayTimeout)

    def test_pingIsCancelled(self) -> None:
        """A ping that nobody waits for leaves nothing."""
        measured = self.protocol.ping()
        measured.cancel()
        self.failureResultOf(measured)
        self.protocol.abort()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_pingsAreBounded(self) -> None:
        """Only so many pings are under way, and they end with the connection."""
        pings = [self.protocol.ping() for _ in range(17)]
        self.failureResultOf(pings.pop(), RelayLost)
        self.protocol.abort()
        for measured in pings:
            self.failureResultOf(measured, RelayLost)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class EndTests(ProtocolTestCase):
    """Connections end cleanly."""

    def test_closeWaitsAMoment(self) -> None:
        """A close is forced when the relay does not agree to it."""
        self.loggedIn()
        self.protocol.close()
        self.protocol.close()
        self.assertTrue(self.transport.disconnecting)
        self.assertIsNone(self.transport.producer)
        self.assertEqual(self.listener.of("Lost"), [])
        self.clock.advance(2)
        self.assertLost(RelayLost)

    def test_closeInTime(self) -> None:
        """A close that is agreed to leaves nothing."""
        self.loggedIn()
        self.protocol.close()
        self.transport.finish()
        self.assertLost(RelayLost)

    def test_nothingAfterTheEnd(self) -> None:
        """Bytes that come after the end are not looked at."""
        self.loggedIn()
        self.protocol.abort()
        self.protocol.dataReceived(derp.buildRecvPacket(PEER, b"late"))
        self.assertEqual(self.listener.of("Packets"), [])

    def test_queuedPacketsAreCounted(self) -> None:
        """What waited when the connection ended counts as dropped."""
        self.loggedIn()
        self.protocol.pauseProducing()
        self.protocol.send(PEER, [b"1", b"2"])
        self.transport.finish()
        self.assertEqual(self.protocol.counters.droppedClosed, 2)
