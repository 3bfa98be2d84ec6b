"""
How packets reach each peer: directly where that works, by relay otherwise.

Joins the path machine with the socket, the relays and the control client.  All
decisions are those of L{tsrt.path}; nothing here has an opinion.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from tsrt.addresses import AddrPort
from tsrt.dataplane.runs import Received, Sealed, datagramsOf, messagesOf
from tsrt.derp.pool import RelayPool
from tsrt.errors import NotRunning, WireError
from tsrt.failures import NoSuchPeer
from tsrt.netmap.changes import Changes
from tsrt.netmap.netmap import NetworkMap
from tsrt.netmap.node import Node
from tsrt.path.book import PathBook
from tsrt.path.endpoints import Endpoint, EndpointBook
from tsrt.path.netcheck import Report
from tsrt.path.peerrelays import PeerRelays
from tsrt.path.peers import PathPeer
from tsrt.path.places import Direct, Place, Relayed, Via
from tsrt.path.status import PathChange, PongReceived
from tsrt.runtime.relayservers import Granted, RelayServers
from tsrt.runtime.timers import DeadlineTimer
from tsrt.runtime.traffic import DERP, Traffic, pathOf
from tsrt.tailcfg.capabilities import PEER_RELAY_VERSION, SILENT_DISCO
from tsrt.underlay.interfaces import InterfaceAddress
from tsrt.underlay.socket import UnderlaySocket
from tsrt.wire import geneve
from tsrt.wire.classify import Kind, looksLikeDisco

_log = Logger(namespace="tsrt.path")

Deliver = Callable[[bytes, Sequence[Received], Place], object]
"""Takes WireGuard messages: what stands for their origin, they, and whence."""


class PathService(Service):
    """
    Sends WireGuard messages by the best path and takes what comes on any.

    @ivar book: decides; read its status, but tell it things through here.
    @ivar peerRelays: finds nodes that relay for others; read its counters.
    @ivar traffic: how much was carried by which kind of path.
    """

    name = "paths"

    def __init__(
        self,
        reactor: IReactorTime,
        book: PathBook,
        peerRelays: PeerRelays,
        endpoints: EndpointBook,
        socket: UnderlaySocket,
        relays: RelayPool,
        *,
        now: Callable[[], float],
        deliver: Deliver,
        regionOf: Callable[[bytes], int],
        nameOf: Callable[[bytes], str],
        advertise: Callable[[Sequence[Endpoint]], object],
        interfaces: Callable[[], Iterable[InterfaceAddress]],
        checkNetwork: Callable[[], object],
        onChange: Callable[[PathChange], object],
        granted: Granted,
        relayOnly: bool = False,
    ) -> None:
        """
        @param now: the time in seconds, which never goes backwards.
        @param deliver: see L{Deliver}.
        @param regionOf: the home relay region of a peer by its raw key, or 0.
        @param nameOf: what people call a peer.
        @param advertise: told our own endpoints whenever they change.
        @param interfaces: the addresses of this machine.
        @param checkNetwork: asks for a new measurement, of which L{measured}
            is told.
        @param onChange: told when the path to a peer has become another one.
        @param granted: tells what a peer may do at this node.
        @param relayOnly: whether to look for no direct paths at all.
        """
        self.book = book
        self.peerRelays = peerRelays
        self.traffic = Traffic()
        self._relayServers = RelayServers(granted)
        self._reactor = reactor
        self._endpoints = endpoints
        self._socket = socket
        self._relays = relays
        self._now = now
        self._deliver = deliver
        self._regionOf = regionOf
        self._nameOf = nameOf
        self._advertise = advertise
        self._interfaces = interfaces
        self._checkNetwork = checkNetwork
        self._onChange = onChange
        self._relayOnly = relayOnly
        self._checking = False
        self._pings: dict[int, Deferred[PongReceived]] = {}
        self._timer = DeadlineTimer(reactor, self._tick)
        self._advertised: tuple[Endpoint, ...] = ()
        self._hasAdvertised = False
        self._sources: dict[Direct, bytes] = {}

    # -- the service ---------------------------------------------------------------

    def startService(self) -> None:
        """Begin to take datagrams."""
        super().startService()
        self._socket.onDatagrams = self._datagrams
        self._socket.onUnreachable = self._unreachable
        self.refreshEndpoints()

    def stopService(self) -> None:
        """Take no datagrams any more."""
        super().stopService()
        self._socket.onDatagrams = None
        self._socket.onUnreachable = None
        self._timer.cancel()
        pings, self._pings = self._pings, {}
        for answered in pings.values():
            answered.errback(Failure(NotRunning("the node was stopped")))

    # -- sending: the hot path -----------------------------------------------------

    def transmit(self, peer: bytes, messages: Sequence[Sealed]) -> bool:
        """
        Send WireGuard messages to a peer.

        @return: whether there is any way to it.
        """
        now = self._now()
        place, viaRelay = self.book.route(peer, now)
        if place is not None:
            self._sendTo(place, messages)
        if viaRelay:
            viaRelay = self._viaRelay(peer, messages)
        if self.book.isStirred:
            self.book.isStirred = False
            self._settle(now)
        return viaRelay or place is not None

    def _viaRelay(self, peer: bytes, messages: Sequence[Sealed]) -> bool:
        relays = self._relays
        region = relays.regionFor(peer, self._regionOf(peer))
        if region is None:
            return False
        relays.send(region, peer, messagesOf(messages))
        self.traffic.outbound.add(DERP, messages)
        return True

    def _sendTo(self, place: Direct, messages: Sequence[Sealed]) -> None:
        if isinstance(place, Via):
            head = geneve.GeneveHeader(geneve.PROTOCOL_WIREGUARD, place.vni).encode()
            wrapped = [head + message for message in messagesOf(messages)]
            self._socket.send(wrapped, place.address)
        else:
            self._socket.send(messages, place)
        self.traffic.outbound.add(pathOf(place), messages)

    def reply(self, place: Place, messages: Sequence[Sealed]) -> None:
        """Send WireGuard messages back to where some came from."""
        if isinstance(place, Relayed):
            self._relays.send(place.region, place.peer, messagesOf(messages))
            self.traffic.outbound.add(DERP, messages)
        else:
            self._sendTo(place, messages)

    # -- receiving -----------------------------------------------------------------

    def _datagrams(
        self, source: AddrPort, kind: Kind, items: Sequence[Received]
    ) -> None:
        """Datagrams came to the socket."""
        if kind is Kind.WIREGUARD:
            self._deliver(self._sourceOf(source), items, source)
            # Once they are answered, or on their way: who waits for them waits less.
            self.traffic.inbound.add(pathOf(source), items)
        elif kind is Kind.DISCO:
            now = self._now()
            for datagram in datagramsOf(items):
                self.book.receivedDisco(source, datagram, now)
            self._settle(now)
        else:
            self._encapsulated(source, kind, datagramsOf(items))

    def _encapsulated(
        self, source: AddrPort, kind: Kind, datagrams: list[bytes]
    ) -> None:
        """Datagrams came through a peer relay."""
        now = self._now()
        byPlace: dict[Via, list[bytes]] = {}
        for datagram in datagrams:
            try:
                header = geneve.parseGeneve(datagram)
            except WireError:
                continue
            place = Via(source, header.vni)
            if header.control:
                self._fromPeerRelay(place, kind, datagram, now)
                continue
            byPlace.setdefault(place, []).append(datagram[geneve.HEADER_LENGTH :])
        for place, inner in byPlace.items():
            if kind is Kind.GENEVE_WIREGUARD:
                self.traffic.inbound.add(pathOf(place), inner)
                self._deliver(self._sourceOf(place), inner, place)
                continue
            for datagram in inner:
                self.book.receivedDisco(place, datagram, now)
        self._settle(now)

    def _fromPeerRelay(
        self, place: Via, kind: Kind, datagram: bytes, now: float
    ) -> None:
        """A peer relay speaks for itself."""
        relays = self.peerRelays
        if kind is Kind.GENEVE_DISCO:
            relays.receivedControl(place, datagram[geneve.HEADER_LENGTH :], now)
        else:
            relays.counters.droppedControl += 1

    def relayed(self, region: int, peer: bytes, packets: list[bytes]) -> None:
        """Packets of a peer came by a relay."""
        place = Relayed(region, peer)
        for packet in packets:
            if looksLikeDisco(packet):
                break
        else:
            self.traffic.inbound.add(DERP, packets)
            self._deliver(peer, packets, place)
            return
        now = self._now()
        messages: list[Received] = []
        for packet in packets:
            if not looksLikeDisco(packet):
                messages.append(packet)
            else:
                self.book.receivedDisco(place, packet, now)
        if messages:
            self.traffic.inbound.add(DERP, messages)
            self._deliver(peer, messages, place)
        self._settle(now)

    def heard(self, place: Place, peers: list[bytes]) -> None:
        """Authentic messages of these peers came from a place."""
        if isinstance(place, Relayed):
            return
        now = self._now()
        for peer in peers:
            self.book.heard(place, peer, now)

    def _sourceOf(self, place: Direct) -> bytes:
        """Bytes that stand for a place, always the same for the same one."""
        source = self._sources.get(place)
        if source is None:
            if len(self._sources) >= 4096:
                self._sources.clear()
            address = place.address if isinstance(place, Via) else place
            source = address.address + address.port.to_bytes(2, "big")
            self._sources[place] = source
        return source

    def _unreachable(self, destination: AddrPort) -> None:
        """The system says that an address cannot be reached."""
        self.book.sendFailed(destination, self._now())

    # -- what the netmap says --------------------------------------------------------

    def setOwnKey(self, public: bytes) -> None:
        """Our node key, raw, which pings carry."""
        self.book.setOwnKey(public)

    def applyNetmap(self, changes: Changes, netmap: NetworkMap) -> None:
        """Peers came, went or changed."""
        now = self._now()
        gone = [*changes.rekeyed, *(node.key.raw for node in changes.removed)]
        gone = [key for key in gone if netmap.peerByKey(key) is None]
        news = []
        for number in changes.upserted:
            node = netmap.peers.byID.get(number)
            if node is None:
                continue
            if node.expired or not node.isReachable:
                gone.append(node.key.raw)
            else:
                news.append(pathPeer(node))
        self.book.removePeers(gone)
        self.book.upsertPeers(news, now)
        if gone or news:
            self.peerRelays.peersChanged()
        own = netmap.selfNode
        if changes.selfChanged and own is not None:
            self.book.setSilent(SILENT_DISCO in own.capMap)
        servers = self._relayServers
        if servers.update(changes, netmap):
            self.peerRelays.setServers(servers.keys, now, isEnabled=servers.isEnabled)
        self._settle(now)

    # -- our own endpoints -----------------------------------------------------------

    def measured(self, report: Report) -> None:
        """The network was measured on our socket."""
        now = self._now()
        for address in report.mapped:
            self._endpoints.addReflexive(address, now)
        self._endpoints.setMappingVaries(report.mappingVaries)
        self._checking = False
        self.refreshEndpoints()

    def setMapped(self, address: AddrPort | None) -> None:
        """A gateway gave us a port, or took it back."""
        self._endpoints.setMapped(address)
        self.refreshEndpoints()

    def refreshEndpoints(self) -> None:
        """Look where we may be reached, and tell control and peers of news."""
        if not self.running or self._relayOnly:
            return
        now = self._now()
        socket = self._socket
        book = self._endpoints
        book.setLocal(self._interfaces(), socket.localPort(4), socket.localPort(6))
        endpoints = book.endpoints(now)
        self.book.setEndpoints(
            [endpoint.address for endpoint in endpoints],
            now,
            hasReflexive=book.hasReflexive(now),
        )
        if not self._hasAdvertised or set(endpoints) != set(self._advertised):
            self._hasAdvertised, self._advertised = True, tuple(endpoints)
            self._advertise(endpoints)
        self._settle(now)

    def ownEndpoints(self) -> list[str]:
        """Where this node may be reached, as control was told."""
        return [endpoint.address.text() for endpoint in self._advertised]

    def networkChanged(self) -> None:
        """
        The machine has other addresses, or slept; the socket is new.

        Where we may be reached is told when it was measured.
        """
        now = self._now()
        self._endpoints.networkChanged(now)
        self.peerRelays.networkChanged()
        self.book.networkChanged(now)
        self._settle(now)

    # -- pings -------------------------------------------------------------------------

    def ping(self, peer: bytes, size: int = 0) -> Deferred[PongReceived]:
        """
        Ask a peer by disco, every way there is.

        Cancelling forgets it; the caller sets the limit of time.

        @param peer: its raw node key.
        @param size: bytes of the datagrams, to try what a path lets through.
        @return: fires with the first answer; fails with L{NoSuchPeer} if the
            peer does not know disco.
        """
        now = self._now()
        token = self.book.ping(peer, now, size)
        if not token:
            return fail(NoSuchPeer(f"{self._nameOf(peer)} does not speak disco"))

        def forget(_: object) -> None:
            self._pings.pop(token, None)
            self.book.forgetPing(token)

        answered: Deferred[PongReceived] = Deferred(forget)
        self._pings[token] = answered
        self._settle(now)
        return answered

    def _pong(self, pong: PongReceived) -> None:
        answered = self._pings.pop(pong.token, None)
        if answered is not None:
            self.book.forgetPing(pong.token)
            answered.callback(pong)

    # -- the machine's wishes ----------------------------------------------------------

    def _tick(self) -> None:
        now = self._now()
        self.book.tick(now)
        self.peerRelays.tick(now)
        self._settle(now)

    def _settle(self, now: float) -> None:
        """Do what the machine wants done."""
        if not self.running:
            return
        book = self.book
        # First those for relays: they let pass what the others carry.
        for via, datagram in self.peerRelays.take():
            self._sendVia(via, datagram, True)
        for place, datagram in book.take():
            self._sendDisco(place, datagram)
        for change in book.takeChanges():
            _log.info("{peer}: {why}", peer=self._nameOf(change.peer), why=change.why)
            self._onChange(change)
        for pong in book.takePongs():
            self._pong(pong)
        if book.needsEndpoints and not self._checking:
            self._checking = True
            self._checkNetwork()
        at, other = book.deadline(), self.peerRelays.deadline()
        if other is not None and (at is None or other < at):
            at = other
        self._timer.arm(at, now)

    def _sendDisco(self, place: Place, datagram: bytes) -> None:
        if isinstance(place, Relayed):
            region = self._relays.regionFor(place.peer, place.region)
            if region is not None:
                self._relays.send(region, place.peer, [datagram])
        elif isinstance(place, Via):
            self._sendVia(place, datagram, False)
        else:
            self._socket.send([datagram], place)

    def _sendVia(self, via: Via, datagram: bytes, control: bool) -> None:
        """Send disco to a peer relay (C{control}) or by way of it."""
        header = geneve.GeneveHeader(geneve.PROTOCOL_DISCO, via.vni, control)
        self._socket.send([header.encode() + datagram], via.address)


def pathPeer(node: Node) -> PathPeer:
    """What the path machine knows of a node."""
    endpoints = []
    for text in node.endpoints:
        try:
            endpoints.append(AddrPort.parse(text))
        except WireError:
            continue
    return PathPeer(
        key=node.key.raw,
        disco=b"" if node.disco is None else node.disco.raw,
        endpoints=tuple(endpoints),
        home=node.homeDERP,
        isWireGuardOnly=node.isWireGuardOnly,
        canRelay=node.cap >= PEER_RELAY_VERSION,
    )
