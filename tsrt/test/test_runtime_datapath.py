"""Tests for L{tsrt.runtime.datapath} and L{tsrt.runtime.tsmp}."""

from __future__ import annotations

from twisted.internet.error import NoRouteError
from twisted.internet.protocol import Factory
from twisted.trial.unittest import SynchronousTestCase

from tsrt.addresses import parseAddress
from tsrt.path.places import Relayed
from tsrt.runtime.datapath import FROM_LOCAL, FROM_PEER
from tsrt.runtime.tsmp import TSMPResponder
from tsrt.test.test_node import Gather, NodeTestCase
from tsrt.wire.ip import PROTOCOL_TSMP, buildPackets, parseIP
from tsrt.wire.tsmp import DiscoAdvertisement, Ping, Pong, parseTSMP

PEER = bytes(range(32))


class TSMPTests(SynchronousTestCase):
    """L{TSMPResponder} answers pings and swallows the rest."""

    def setUp(self) -> None:
        self.responder = TSMPResponder()

    def packet(self, body: bytes, source: str, destination: str) -> bytes:
        """A TSMP packet."""
        [packet] = buildPackets(
            parseAddress(source),
            parseAddress(destination),
            PROTOCOL_TSMP,
            body,
            1280,
            0,
        )
        return packet

    def test_ping(self) -> None:
        """A pong goes back with the same bytes and swapped addresses."""
        for one, two in (("100.64.0.1", "100.64.0.2"), ("fd7a::1", "fd7a::2")):
            ping = self.packet(Ping(b"12345678").encode(), one, two)
            [answer] = self.responder(PEER, ping)
            header = parseIP(answer)
            self.assertEqual(header.source, parseAddress(two))
            self.assertEqual(header.destination, parseAddress(one))
            offset = 20 if len(header.source) == 4 else 40
            self.assertEqual(parseTSMP(answer[offset:]), Pong(b"12345678", 0))
        self.assertEqual(self.responder.counters.pingsAnswered, 2)

    def test_others(self) -> None:
        """Advertisements and junk get no answer and are counted."""
        advert = DiscoAdvertisement(bytes(32)).encode()
        for body in (advert, b"?234567", b""):
            packet = self.packet(body, "100.64.0.1", "100.64.0.2")
            self.assertEqual(self.responder(PEER, packet), [])
        self.assertEqual(self.responder.counters.swallowed, 1)
        self.assertEqual(self.responder.counters.malformed, 2)


class DataPathTests(NodeTestCase):
    """The data path of a running node."""

    def test_R_DPC_3_noRoute(self) -> None:
        """A connection to nobody's address fails at once, and is counted."""
        tailnet = self.tailnet("a")
        began = tailnet.clock.seconds()
        connecting = (
            tailnet["a"]
            .clientEndpoint("100.64.0.77", 7, timeout=20)
            .connect(Factory.forProtocol(Gather))
        )
        with self.assertRaises(NoRouteError):
            tailnet.wait(connecting)
        self.assertLess(tailnet.clock.seconds() - began, 1.0)
        self.assertEqual(tailnet["a"]._engine.datapath.counters.droppedNoRoute, 1)

    def test_capture(self) -> None:
        """A capture hook sees whole packets, in both directions, as lists."""
        tailnet = self.tailnet("a", "b")
        seen: list[tuple[int, list[bytes]]] = []
        datapath = tailnet["a"]._engine.datapath
        datapath.capture = lambda way, packets: seen.append((way, packets))
        tailnet.wait(tailnet["a"].ping("b"))
        datapath.capture = None
        [(first, [request]), (second, [reply])] = seen
        self.assertEqual((first, second), (FROM_LOCAL, FROM_PEER))
        self.assertEqual(parseIP(request).destination, parseIP(reply).source)

    def test_R_DPC_2_forgedSource(self) -> None:
        """A peer that sends from another's address is not heard."""
        tailnet = self.tailnet("a", "b", "c")
        [c] = [p for p in tailnet["a"].peers() if p.hostname == "c"]
        [own] = [p for p in tailnet["c"].peers() if p.hostname == "a"]
        tailnet.wait(tailnet["c"].ping("a"))
        forged = buildPackets(
            parseAddress("100.64.0.2"),
            parseAddress("100.64.0.1"),
            1,
            b"\0" * 8,
            1280,
            0,
        )
        before = tailnet["a"]._engine.packetFilter.counters.droppedSource
        tailnet["c"]._engine.datapath.sendPackets(
            own.key.raw, forged, tailnet["c"]._overlay.now()
        )
        tailnet.settle()
        counters = tailnet["a"]._engine.packetFilter.counters
        self.assertEqual(counters.droppedSource, before + 1)
        self.assertIsNotNone(c)

    def test_stoppedDataPathCarriesNothing(self) -> None:
        """After a stop nothing is taken in and no timer is left."""
        tailnet = self.tailnet("a", "b")
        datapath = tailnet["a"]._engine.datapath
        tailnet.wait(tailnet["a"].stopService())
        packets = datapath.counters.inboundPackets
        datapath.receive(PEER, [b"\4\0\0\0" + bytes(28)], Relayed(1, PEER))
        datapath.flush()
        self.assertEqual(datapath.counters.inboundPackets, packets)
        self.assertIsNone(datapath._timer._call)
        self.assertIsNone(datapath._scheduled)

    def test_timeNeverRunsBackwards(self) -> None:
        """A clock that is set back does not stop a node's timers."""
        tailnet = self.tailnet("a", "b")
        overlay = tailnet["a"]._overlay
        before = overlay.now()
        tailnet.clock.rightNow -= 3600
        self.assertGreaterEqual(overlay.now(), before)
        tailnet.clock.rightNow += 10
        self.assertGreaterEqual(overlay.now(), before + 10)
        tailnet.clock.rightNow += 3590
