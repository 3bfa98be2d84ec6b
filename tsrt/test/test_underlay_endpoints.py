"""
The rules about the one socket, and about what may be told of it: socket,
network check and list of endpoints together, behind a NAT that is simulated.
"""

from __future__ import annotations

from twisted.internet.protocol import DatagramProtocol

from tsrt.addresses import AddrPort
from tsrt.path.endpoints import EndpointBook, EndpointKind
from tsrt.test.test_underlay_netcheck import NetcheckTestCase
from tsrt.testing.natkinds import EASY
from tsrt.testing.networks import Network
from tsrt.underlay.interfaces import addressesFromText
from tsrt.wire import stun
from tsrt.wire.classify import Kind

PEER_PORT = 41641
DISCO = b"TS\xf0\x9f\x92\xac" + bytes(60)
WIREGUARD = b"\x04\0\0\0" + bytes(28)


class Peer(DatagramProtocol):
    """Keeps where datagrams come from."""

    def __init__(self) -> None:
        self.sources: set[tuple[str, int]] = set()

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        """See L{DatagramProtocol}."""
        self.sources.add(addr)


class OneSocketTests(NetcheckTestCase):
    """A node behind a NAT."""

    def setUp(self) -> None:
        super().setUp()
        internet = self.world.internet
        self.region(1)
        self.region(2)
        self.network: Network = internet.network("home", nat=EASY)
        self.host = internet.host("laptop", network=self.network)
        self.peer = Peer()
        self.other = internet.host("other", ["198.51.100.77"])
        self.other.listenUDP(PEER_PORT, self.peer)
        self.checks = self.service()
        self.world.elapse(5)
        self.book = EndpointBook()
        self.now = self.host.seconds()

    def endpoints(self) -> list[tuple[AddrPort, EndpointKind]]:
        """What the node tells of itself, after a check."""
        for address in self.reports[-1].mapped:
            self.book.addReflexive(address, self.now)
        self.book.setLocal(
            addressesFromText(self.host.addresses),
            self.socket.localPort(4),
            self.socket.localPort(6),
        )
        return [tuple(endpoint) for endpoint in self.book.endpoints(self.now)]

    def test_R_MS_1_oneSocket(self) -> None:
        """STUN, disco and WireGuard leave, and come, by one and the same port."""
        came: list[Kind] = []
        self.socket.onDatagrams = lambda source, kind, some: came.append(kind)
        there = AddrPort(bytes((198, 51, 100, 77)), PEER_PORT)
        for datagram in (stun.buildRequest(bytes(12)), DISCO, WIREGUARD):
            self.socket.send([datagram], there)
        self.world.elapse(1)
        [seen] = self.peer.sources
        for datagram in (DISCO, WIREGUARD):
            self.peer.transport.write(datagram, seen)
        self.world.elapse(1)
        self.assertEqual(came, [Kind.DISCO, Kind.WIREGUARD])
        self.assertEqual(len(self.host.ports), 2)
        self.stop(self.checks)

    def test_R_DIR_5_whatServersSawIsThisSocket(self) -> None:
        """The reflexive endpoint is where peers see the node's packets from."""
        [(reflexive, kind), (local, localKind)] = self.endpoints()
        self.assertEqual((kind, localKind), (EndpointKind.STUN, EndpointKind.LOCAL))
        there = AddrPort(bytes((198, 51, 100, 77)), PEER_PORT)
        self.socket.send([WIREGUARD], there)
        self.world.elapse(1)
        [(host, port)] = self.peer.sources
        self.assertEqual(reflexive.text(), f"{host}:{port}")
        self.assertEqual(local.text(), f"{self.host.addresses[0]}:{PEER_PORT}")
        self.stop(self.checks)

    def test_R_MS_6_foreignAnswers(self) -> None:
        """Answers that nobody asked for, and those of others, teach nothing."""
        before = self.endpoints()
        there = AddrPort(bytes((198, 51, 100, 77)), PEER_PORT)
        self.socket.send([DISCO], there)
        self.world.elapse(1)
        [seen] = self.peer.sources
        forged = AddrPort(bytes((203, 0, 113, 66)), 666)
        self.checks.check(isFull=True)
        for number in range(50):
            txid = number.to_bytes(12, "big")
            self.peer.transport.write(stun.buildResponse(txid, forged), seen)
        self.world.elapse(10)
        self.assertGreater(len(self.reports), 1)
        self.assertNotIn(forged, self.reports[-1].mapped)
        self.assertEqual(self.endpoints(), before)
        self.stop(self.checks)
