"""
L{tsrt.tunnel} against wireguard-go, over real UDP sockets on loopback.

Our side is the tunnel table alone: what travels inside is built by hand here
(ICMP echo and UDP), so that nothing but the tunnel is under test.  Our clock is
the reactor's plus an offset, by which a test makes us, and only us, older.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from random import Random
from typing import Any, cast

from twisted.internet.base import DelayedCall
from twisted.internet.defer import Deferred
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tsrt.addresses import parseAddress
from tsrt.keys import NodeKey
from tsrt.test.interop.programs import CommandProgram, eventually, spawn
from tsrt.tunnel.cookies import CookieJar
from tsrt.tunnel.table import TunnelTable
from tsrt.tunnel.timestamps import TimestampSource
from tsrt.wire.icmp import (
    V4_ECHO_REPLY,
    V4_ECHO_REQUEST,
    V6_ECHO_REPLY,
    V6_ECHO_REQUEST,
    buildICMP,
    parseICMP,
    verifyICMP,
)
from tsrt.wire.ip import (
    PROTOCOL_ICMP,
    PROTOCOL_ICMPV6,
    PROTOCOL_UDP,
    buildPackets,
    parseIP,
)
from tsrt.wire.udp import buildUDP, parseUDP, verifyUDP

OURS = [parseAddress("100.64.7.1"), parseAddress("fd7a:115c:a1e0::701")]
THEIRS = [parseAddress("100.64.7.2"), parseAddress("fd7a:115c:a1e0::702")]
ECHO_PORT = 7
MTU = 1280


def _binary() -> Path:
    """Where the foreign program is, if it was built."""
    return Path(os.environ.get("TSRT_INTEROP_BIN", "interop/bin")) / "wireguard-peer"


class InnerHost:
    """
    What is at our end of the tunnel: answers echoes, keeps everything else.
    """

    def __init__(self, send: Callable[[list[bytes]], None]) -> None:
        self._send = send
        self._ident = 0
        self.pongs: list[tuple[bytes, int, bytes]] = []
        """Echo replies: source address, sequence number, payload."""
        self.datagrams: list[bytes] = []
        """Payloads of UDP datagrams to other ports than that of the echo."""

    def ping(self, family: int, sequence: int, payload: bytes) -> None:
        """
        Send an echo request to the peer.

        @param family: index into the addresses.
        """
        kind = (V4_ECHO_REQUEST, V6_ECHO_REQUEST)[family]
        rest = 0x7357 << 16 | sequence
        message = buildICMP(OURS[family], THEIRS[family], kind, 0, rest, payload)
        self.emit(family, (PROTOCOL_ICMP, PROTOCOL_ICMPV6)[family], message)

    def sendDatagrams(self, family: int, port: int, payloads: list[bytes]) -> None:
        """Send UDP datagrams to the peer, as one batch."""
        packets: list[bytes] = []
        for payload in payloads:
            message = buildUDP(OURS[family], 4000, THEIRS[family], port, payload)
            packets += self.packets(family, PROTOCOL_UDP, message)
        self._send(packets)

    def packets(self, family: int, protocol: int, message: bytes) -> list[bytes]:
        """Put an IP header in front."""
        self._ident += 1
        return buildPackets(
            OURS[family], THEIRS[family], protocol, message, MTU, self._ident
        )

    def emit(self, family: int, protocol: int, message: bytes) -> None:
        """Send one message."""
        self._send(self.packets(family, protocol, message))

    def receive(self, packet: bytes) -> None:
        """Take a packet out of the tunnel."""
        header = parseIP(packet)
        family = 0 if header.version == 4 else 1
        if header.protocol == PROTOCOL_UDP:
            datagram = parseUDP(packet, header.start, header.end)
            assert verifyUDP(header, datagram)
            if datagram.destinationPort == ECHO_PORT:
                back = buildUDP(
                    header.destination,
                    ECHO_PORT,
                    header.source,
                    datagram.sourcePort,
                    datagram.payload,
                )
                self.emit(family, PROTOCOL_UDP, back)
            else:
                self.datagrams.append(datagram.payload)
        elif header.protocol in (PROTOCOL_ICMP, PROTOCOL_ICMPV6):
            message = parseICMP(packet, header.start, header.end)
            assert verifyICMP(header)
            if message.type in (V4_ECHO_REQUEST, V6_ECHO_REQUEST):
                kind = (V4_ECHO_REPLY, V6_ECHO_REPLY)[family]
                reply = buildICMP(
                    header.destination,
                    header.source,
                    kind,
                    0,
                    message.rest,
                    message.payload,
                )
                self.emit(family, header.protocol, reply)
            elif message.type in (V4_ECHO_REPLY, V6_ECHO_REPLY):
                self.pongs.append((header.source, message.sequence, message.payload))


class TunnelPort(DatagramProtocol):
    """
    A tunnel table on a UDP port.
    """

    def __init__(self, clock: Any, table: TunnelTable, peer: bytes) -> None:
        self._clock = clock
        self.table = table
        self.peer = peer
        self.offset = 0.0
        """How far our clock is ahead of the real one, in seconds."""
        self.peerAddress: tuple[str, int] | None = None
        self.inner = InnerHost(self.send)
        self.heardKinds: list[int] = []
        """The types of the messages received."""
        self.established = 0
        self._call: DelayedCall | None = None

    def now(self) -> float:
        """Our time."""
        return cast(float, self._clock.seconds()) + self.offset

    def send(self, packets: list[bytes]) -> None:
        """Send inner packets to the peer."""
        self._emit(self.table.send(self.peer, packets, self.now()))
        self._arm()

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        """Take a datagram from the peer."""
        self.heardKinds.append(datagram[0])
        source = f"{addr[0]}:{addr[1]}".encode()
        received = self.table.receive([datagram], source, self.now())
        if received.heard:
            self.peerAddress = addr
        self.established += len(received.established)
        for _, messages in received.replies:
            self._emit(messages)
        for message in received.toSource:
            assert self.transport is not None
            self.transport.write(message, addr)
        for _, packets in received.packets:
            for packet in packets:
                self.inner.receive(packet)
        self._arm()

    def makeOlder(self, seconds: float) -> None:
        """Set our clock forward."""
        self.offset += seconds
        self._arm()

    def stop(self) -> None:
        """Cancel the timer."""
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _emit(self, messages: list[bytes]) -> None:
        """Send datagrams to the peer, if we know where it is."""
        if self.transport is not None and self.peerAddress is not None:
            for message in messages:
                self.transport.write(message, self.peerAddress)

    def _arm(self) -> None:
        """Be woken when something is due."""
        self.stop()
        deadline = self.table.deadline()
        if deadline is not None:
            wait = max(deadline - self.now(), 0.0)
            self._call = self._clock.callLater(wait, self._tick)

    def _tick(self) -> None:
        """Do what is due."""
        self._call = None
        for _, messages in self.table.tick(self.now()):
            self._emit(messages)
        self._arm()


class Flood(DatagramProtocol):
    """
    Somebody who sends handshake messages that nobody can use.
    """

    def __init__(self) -> None:
        self.answers: list[bytes] = []

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        """Keep the answers."""
        self.answers.append(datagram)

    def pour(self, public: bytes, to: tuple[str, int], count: int) -> None:
        """Send initiations with a right first MAC and nothing else right."""
        assert self.transport is not None
        jar = CookieJar(public)
        for number in range(count):
            body = b"\x01\x00\x00\x00" + number.to_bytes(4, "little") + os.urandom(108)
            self.transport.write(jar.sign(body, 0.0), to)


class WireGuardTests(TestCase):
    """
    Our tunnel and wireguard-go.
    """

    timeout = 60

    if not _binary().exists():
        skip = "interop binaries not built: run make interop"

    def setUp(self) -> None:
        """One tunnel table of ours on a UDP port, and two key pairs."""
        from twisted.internet import reactor

        self.reactor = cast(Any, reactor)
        self.key = NodeKey.generate(os.urandom)
        self.peerKey = NodeKey.generate(os.urandom)
        self.peerPublic = self.peerKey.public().raw
        self.programs: list[CommandProgram] = []

    def test_weInitiate(self) -> Deferred[None]:
        """Our handshake is answered, and echoes of both families come back."""

        async def go() -> None:
            port, peer = await self.start()
            payloads = [Random(n).randbytes(n * 100) for n in range(13)]
            for number, payload in enumerate(payloads):
                port.inner.ping(number % 2, number, payload)
            await self.until(lambda: len(port.inner.pongs) == 13, "thirteen pongs")
            self.assertEqual(
                sorted((number, payload) for _, number, payload in port.inner.pongs),
                list(enumerate(payloads)),
            )
            self.assertEqual({pong[0] for pong in port.inner.pongs}, set(THEIRS))
            counters = port.table.counters
            self.assertEqual(counters.handshakesStarted, 1)
            self.assertEqual(counters.handshakesAnswered, 0)
            stats = await peer.call("stats")
            status = port.table.status(self.peerPublic)
            assert status is not None
            self.assertNotEqual(stats["lastHandshake"], 0)
            # The foreign side counts its handshake messages as well.
            self.assertEqual(stats["sentBytes"], status.receivedBytes + 92)
            self.assertEqual(stats["receivedBytes"], status.sentBytes + 148)

        return self.run_(go())

    def test_itInitiates(self) -> Deferred[None]:
        """It does not know us until it starts; we answer, and it is served."""

        async def go() -> None:
            port, peer = await self.start(tellThem=True, tellUs=False)
            for family, address in enumerate(("100.64.7.1", "fd7a:115c:a1e0::701")):
                pong = await peer.call("ping", address=address, size=700, seed=family)
                self.assertEqual(pong["equal"], True)
            counters = port.table.counters
            self.assertEqual(counters.handshakesStarted, 0)
            self.assertEqual(counters.handshakesAnswered, 1)
            self.assertEqual(counters.handshakesCompleted, 1)
            self.assertEqual(port.heardKinds[0], 1)

        return self.run_(go())

    def test_datagramsBothWays(self) -> Deferred[None]:
        """Datagrams of all sizes go both ways unchanged."""

        async def go() -> None:
            port, peer = await self.start()
            await peer.call("listen", network="udp", port=ECHO_PORT)
            payloads = [Random(n).randbytes(n) for n in range(0, 1232, 8)]
            for family in (0, 1):
                port.inner.datagrams.clear()
                for start in range(0, len(payloads), 32):
                    batch = payloads[start : start + 32]
                    due = len(port.inner.datagrams) + len(batch)
                    port.inner.sendDatagrams(family, ECHO_PORT, batch)
                    await self.until(
                        lambda n=due: len(port.inner.datagrams) == n,
                        "a batch of echoes",
                    )
                self.assertEqual(sorted(port.inner.datagrams), sorted(payloads))
            for size in (0, 1, 500, 1230):
                for host in ("100.64.7.1", "[fd7a:115c:a1e0::701]"):
                    echo = await peer.call(
                        "dial",
                        network="udp",
                        address=f"{host}:{ECHO_PORT}",
                        size=size,
                        seed=size,
                    )
                    self.assertEqual((echo["size"], echo["equal"]), (size, True))
            snapshot = port.table.counters.snapshot()
            drops = {n: v for n, v in snapshot.items() if "dropped" in n and v}
            self.assertEqual(drops, {})

        return self.run_(go())

    def test_rekey(self) -> Deferred[None]:
        """
        After two minutes of ours we renew the session, and it takes the new
        one; nothing is lost over five renewals.
        """

        async def go() -> None:
            port, peer = await self.start()
            handshakes = []
            for turn in range(6):
                port.inner.ping(turn % 2, turn, b"x" * turn)
                await self.until(
                    lambda n=turn: (
                        len(port.inner.pongs) == n + 1 and port.established == n + 1
                    ),
                    "pong and session",
                )
                stats = await peer.call("stats")
                handshakes.append(
                    (stats["lastHandshake"], stats["lastHandshakeNanoseconds"])
                )
                await self.pause()
                port.makeOlder(121.0)
            self.assertEqual(len(set(handshakes)), 6)
            self.assertEqual(port.table.counters.handshakesCompleted, 6)
            self.assertEqual(port.table.counters.handshakesStarted, 6)

        return self.run_(go())

    def test_expired(self) -> Deferred[None]:
        """A session that is too old for us is replaced before data goes out."""

        async def go() -> None:
            port, _ = await self.start()
            port.inner.ping(0, 1, b"one")
            await self.until(lambda: len(port.inner.pongs) == 1, "a pong")
            await self.pause()
            port.makeOlder(400.0)
            port.inner.ping(0, 2, b"two")
            await self.until(lambda: len(port.inner.pongs) == 2, "another pong")
            self.assertEqual(port.table.counters.handshakesCompleted, 2)

        return self.run_(go())

    def test_itRestarts(self) -> Deferred[None]:
        """
        When it forgets the session we notice by its silence, and start anew.
        """

        async def go() -> None:
            port, peer = await self.start()
            port.inner.ping(0, 1, b"one")
            await self.until(lambda: len(port.inner.pongs) == 1, "a pong")
            assert port.peerAddress is not None
            outside = port.peerAddress[1]
            await peer.call("quit")
            await peer.stop(self.reactor)
            await self.startPeer(port, local=f"127.0.0.1:{outside}")
            port.inner.ping(0, 2, b"two")
            port.makeOlder(15.4)
            await self.until(lambda: port.established == 2, "another session")
            port.inner.ping(0, 3, b"three")
            await self.until(lambda: len(port.inner.pongs) == 2, "another pong")
            self.assertEqual(port.inner.pongs[1][2], b"three")

        return self.run_(go())

    def test_weRestart(self) -> Deferred[None]:
        """With a timestamp that went on, it accepts us again at once."""

        async def go() -> None:
            port, _ = await self.start()
            port.inner.ping(0, 1, b"one")
            await self.until(lambda: len(port.inner.pongs) == 1, "a pong")
            await self.pause()
            port.table.removePeer(self.peerPublic)
            port.table.upsertPeer(self.peerPublic, now=port.now())
            port.inner.ping(0, 2, b"two")
            await self.until(lambda: len(port.inner.pongs) == 2, "another pong")
            self.assertEqual(port.established, 2)

        return self.run_(go())

    def test_keepalives(self) -> Deferred[None]:
        """Our persistent keep-alives alone bring the session about."""

        async def go() -> None:
            port, peer = await self.start()
            port.table.upsertPeer(self.peerPublic, 1.0, now=port.now())
            port.makeOlder(1.0)
            await self.until(lambda: port.established == 1, "a session")
            stats = await peer.call("stats")
            self.assertNotEqual(stats["lastHandshake"], 0)

        return self.run_(go())

    def test_itGetsOurCookie(self) -> Deferred[None]:
        """
        When we are under load it gets a cookie, comes again after its five
        seconds with a MAC made from it, and is let in.
        """

        async def go() -> None:
            port, peer = await self.start(tellThem=True, tellUs=False, loadLimit=0)
            pong = await peer.call("ping", address="100.64.7.1", size=10, timeout=30)
            self.assertEqual(pong["equal"], True)
            counters = port.table.counters
            self.assertGreaterEqual(counters.cookiesSent, 1)
            self.assertEqual(counters.handshakesCompleted, 1)

        return self.run_(go())

    def test_weGetItsCookie(self) -> Deferred[None]:
        """
        When it is under load we get a cookie, and are let in with it.
        """

        async def go() -> None:
            port, _ = await self.start()
            assert port.peerAddress is not None
            flood = Flood()
            listening = self.reactor.listenUDP(0, flood, interface="127.0.0.1")
            self.addCleanup(listening.stopListening)
            counters = port.table.counters
            for turn in range(40):
                flood.pour(self.peerPublic, port.peerAddress, 400)
                port.inner.ping(0, turn, b"")
                port.makeOlder(5.4)
                flood.pour(self.peerPublic, port.peerAddress, 400)
                await deferLater(self.reactor, 0.05)
                if counters.cookiesReceived:
                    break
            self.assertGreater(counters.cookiesReceived, 0)
            # Still under load: only the cookie opens the door.
            before = counters.handshakesStarted
            for _ in range(40):
                flood.pour(self.peerPublic, port.peerAddress, 400)
                port.makeOlder(5.4)
                await deferLater(self.reactor, 0.05)
                if port.established:
                    break
            self.assertGreater(counters.handshakesStarted, before)
            await self.until(lambda: len(port.inner.pongs) > 0, "a pong")

        return self.run_(go())

    # -- the two sides -------------------------------------------------------

    async def start(
        self, *, tellThem: bool = False, tellUs: bool = True, **options: int
    ) -> tuple[TunnelPort, CommandProgram]:
        """
        Start both sides.

        @param tellThem: let it know where we are.
        @param tellUs: let us know where it is.
        @param options: passed on to L{TunnelTable}.
        """
        table = TunnelTable(
            self.key,
            timestamp=TimestampSource(time.time),
            randbytes=os.urandom,
            **options,
        )
        port = TunnelPort(self.reactor, table, self.peerPublic)
        table.upsertPeer(self.peerPublic, now=port.now())
        listening = self.reactor.listenUDP(0, port, interface="127.0.0.1")
        self.addCleanup(listening.stopListening)
        self.addCleanup(port.stop)
        endpoint = f"127.0.0.1:{listening.getHost().port}" if tellThem else ""
        peer = await self.startPeer(port, endpoint=endpoint)
        if not tellUs:
            port.peerAddress = None
        return port, peer

    async def startPeer(
        self, port: TunnelPort, endpoint: str = "", local: str = "127.0.0.1:0"
    ) -> CommandProgram:
        """Start the foreign side, and let us know where it is."""
        directory = Path(self.mktemp())
        directory.mkdir()
        program = CommandProgram("wireguard-peer", directory / "log")
        spawn(self.reactor, program, [str(_binary().resolve())], directory)
        self.addCleanup(self.quit, program)
        answer = await program.call(
            "start",
            privateKey=self.peerKey.raw.hex(),
            peerKey=self.key.public().raw.hex(),
            endpoint=endpoint,
            addresses=["100.64.7.2", "fd7a:115c:a1e0::702"],
            allowedIPs=["100.64.7.1/32", "fd7a:115c:a1e0::701/128"],
            mtu=MTU,
            local=local,
        )
        port.peerAddress = ("127.0.0.1", cast(int, answer["port"]))
        return program

    def quit(self, program: CommandProgram) -> Deferred[None]:
        """End the foreign side."""
        return Deferred.fromCoroutine(program.stop(self.reactor))

    async def pause(self) -> None:
        """
        Let the real clock go on a little: that of the foreign side does not
        leap, and it takes no two initiations of a peer within 20 ms.
        """
        await deferLater(self.reactor, 0.03)

    async def until(self, check: Callable[[], bool], what: str) -> None:
        """Wait until something is so."""
        await eventually(self.reactor, check, what, patience=20.0, interval=0.01)

    def run_(self, work: Coroutine[Deferred[Any], Any, None]) -> Deferred[None]:
        """Run a test."""
        return Deferred.fromCoroutine(work)
