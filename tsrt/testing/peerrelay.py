"""
A peer relay for tests: a node that passes on the datagrams of two others.

L{PeerRelayMachine} is the relay without any network; L{PeerRelay} lets a node of
a L{TestTailnet<tsrt.testing.tailnet.TestTailnet>} be one.  It binds its clients
by a challenge, as real ones do, but its challenges are numbers: do not use it
where anybody may listen.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2s

from attrs import define, field
from twisted.internet.interfaces import IReactorUDP
from twisted.internet.protocol import DatagramProtocol

from tsrt.addresses import AddrPort, formatAddress, parseAddress
from tsrt.crypto.box import Box, openFrom, sealTo
from tsrt.errors import TSRTError
from tsrt.keys import DiscoKey
from tsrt.path.book import PathBook
from tsrt.path.peers import PathPeer
from tsrt.path.places import Via
from tsrt.wire import disco, geneve
from tsrt.wire.relayendpoint import RelayEndpoint

BIND_LIFETIME = 30.0
"""Seconds that two clients have to bind."""

STEADY_LIFETIME = 300.0
"""Seconds that a place stays without traffic of either."""


@define
class _Place:
    endpoint: RelayEndpoint
    generations: dict[int, int] = field(factory=dict)
    bound: dict[int, AddrPort] = field(factory=dict)
    usedAt: float = 0.0
    carried: int = 0


class PeerRelayMachine:
    """
    A relay: what comes in, and what goes out.

    @ivar carried: datagrams passed on so far, control's not counted.
    """

    def __init__(
        self,
        addresses: tuple[AddrPort, ...],
        *,
        now: Callable[[], float],
        randbytes: Callable[[int], bytes],
    ) -> None:
        """
        @param addresses: where clients reach it.
        @param now: the time in seconds.
        """
        self.key = DiscoKey.generate(randbytes)
        self.public = self.key.public().raw
        self.addresses = addresses
        self.carried = 0
        self._now = now
        self._randbytes = randbytes
        self._secret = randbytes(32)
        self._places: dict[int, _Place] = {}
        self._lamport = 0

    def allocate(self, pair: tuple[bytes, bytes]) -> RelayEndpoint:
        """A place for two clients, by their disco keys; the same one again."""
        self._expire()
        first, second = sorted(pair)
        for place in self._places.values():
            if place.endpoint.clientDisco == (first, second):
                return place.endpoint
        self._lamport += 1
        endpoint = RelayEndpoint(
            self.public,
            (first, second),
            self._lamport,
            self._lamport,
            BIND_LIFETIME,
            STEADY_LIFETIME,
            self.addresses,
        )
        self._places[endpoint.vni] = _Place(endpoint, usedAt=self._now())
        return endpoint

    def _expire(self) -> None:
        now = self._now()
        for vni, place in list(self._places.items()):
            isBound = len(place.bound) == 2
            if now - place.usedAt >= (STEADY_LIFETIME if isBound else BIND_LIFETIME):
                del self._places[vni]

    def forget(self) -> None:
        """Lose all places, as a relay that is started anew does."""
        self._places.clear()

    def received(
        self, source: AddrPort, datagram: bytes
    ) -> list[tuple[AddrPort, bytes]]:
        """A datagram came; what to send where."""
        self._expire()
        try:
            header = geneve.parseGeneve(datagram)
        except TSRTError:
            return []
        place = self._places.get(header.vni)
        if place is None:
            return []
        if not header.control:
            return self._pass(place, source, datagram)
        try:
            answer = self._control(place, source, datagram[geneve.HEADER_LENGTH :])
        except TSRTError:
            return []
        return [] if answer is None else [(source, answer)]

    def _pass(
        self, place: _Place, source: AddrPort, datagram: bytes
    ) -> list[tuple[AddrPort, bytes]]:
        if len(place.bound) < 2 or source not in place.bound.values():
            return []
        place.usedAt = self._now()
        self.carried += 1
        mine = 0 if place.bound[0] == source else 1
        return [(place.bound[1 - mine], datagram)]

    def _control(
        self, place: _Place, source: AddrPort, datagram: bytes
    ) -> bytes | None:
        sender, boxed = disco.parseEnvelope(datagram)
        clients = place.endpoint.clientDisco
        if sender not in clients:
            return None
        who = clients.index(sender)
        box = Box(self.key.raw, sender)
        message = disco.parseMessage(openFrom(box, boxed))
        if (
            not isinstance(message, disco.BindEndpoint | disco.BindAnswer)
            or message.vni != place.endpoint.vni
            or message.remoteKey != clients[1 - who]
        ):
            return None
        challenge = self._challenge(message.generation, source)
        if isinstance(message, disco.BindAnswer):
            isMine = place.generations.get(who) == message.generation
            if isMine and message.challenge == challenge:
                del place.generations[who]
                place.bound[who] = source
                place.usedAt = self._now()
            return None
        place.generations[who] = message.generation
        answer = disco.BindChallenge(
            message.vni, message.generation, message.remoteKey, challenge
        )
        header = geneve.GeneveHeader(geneve.PROTOCOL_DISCO, message.vni, True)
        sealed = sealTo(box, answer.encode(), self._randbytes)
        return header.encode() + disco.encodeEnvelope(self.public, sealed)

    def _challenge(self, generation: int, source: AddrPort) -> bytes:
        data = generation.to_bytes(4, "big") + source.binary()
        return blake2s(data, key=self._secret).digest()


class PeerRelay(DatagramProtocol):
    """
    Makes a node of the tailnet a relay for others.

    Hand it to the node's path book, C{book.relays}: it answers all that ask.
    """

    def __init__(self, book: PathBook, machine: PeerRelayMachine) -> None:
        self.machine = machine
        self._book = book

    def wanted(self, peer: PathPeer, isTrusted: bool, now: float) -> None:
        """It needs no relay itself."""

    def confirmed(self, peer: PathPeer, via: Via, now: float) -> None:
        """It needs no relay itself."""

    def received(self, peer: PathPeer, message: disco.Message, now: float) -> None:
        """Somebody asks for a place."""
        if isinstance(message, disco.AllocateRequest):
            endpoint = self.machine.allocate(message.clientDisco)
            answer = disco.AllocateResponse(message.generation, endpoint)
            self._book.tell(peer.key, answer, now)

    def listen(self, reactor: IReactorUDP, port: int) -> None:
        """Serve on a port of the node's host."""
        reactor.listenUDP(port, self, "", 2048)

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        """Pass on, or answer."""
        source = AddrPort(parseAddress(addr[0]), addr[1])
        assert self.transport is not None
        for to, data in self.machine.received(source, datagram):
            self.transport.write(data, (formatAddress(to.address), to.port))
