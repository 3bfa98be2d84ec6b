"""
Finding places at peer relays, where two nodes meet that no direct path joins.

A peer relay is a node of the tailnet that passes on the traffic of others.  We
ask those that we are granted, by DERP, to keep a place for us and a peer; tell
the peer; and bind to it, as the peer does.  When the peer answers a ping by way
of it, the place is one candidate among others of L{PathBook<tsrt.path.book>}.

Nothing is sent and nothing is timed here: the owner sends what L{PeerRelays.take}
returns, and calls L{PeerRelays.tick} when L{PeerRelays.deadline} has come.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import count
from math import inf

from attrs import define

from tsrt.addresses import AddrPort
from tsrt.counters import Counters
from tsrt.crypto.box import Box, openFrom, sealTo
from tsrt.errors import DecryptError, WireError
from tsrt.keys import DiscoKey
from tsrt.path.binding import Binding
from tsrt.path.book import PathBook
from tsrt.path.candidates import callMayName, pingMayName
from tsrt.path.peers import PathPeer
from tsrt.path.places import Via
from tsrt.wire import disco
from tsrt.wire.relayendpoint import RelayEndpoint

DISCOVERY_INTERVAL = 30.0
"""Least seconds between two searches for a peer relay for one peer."""

UPGRADE_INTERVAL = 60.0
"""Seconds after which a peer relay in use is compared with the others."""

ALLOCATE_REPEAT = 3.0
"""Seconds after which a relay that has not answered is asked once more."""

ALLOCATE_TIMEOUT = 10.0
"""Seconds after which its answer is not waited for any more."""

MOST_RELAYS = 16
"""Relays that are asked for one peer."""

MOST_ADDRESSES = 16
"""Addresses of a relay that are tried."""

MOST_BINDINGS_PER_PEER, MOST_BINDINGS = 8, 256
"""Handshakes under way."""

MOST_PLACES = 8
"""Places at which a peer may be met, at different relays."""


class PeerRelayCounters(Counters):
    """
    What was sent and received to find peer relays, and what was dropped.

    @ivar requestsSent: questions to relays for a place.
    @ivar placesGiven: their answers.
    @ivar offersSent: places that peers were told.
    @ivar offersReceived: places that peers told us.
    @ivar confirmed: places at which a peer answered.
    @ivar droppedUnasked: answers of relays that were not asked (any more), or
        for another pair of nodes.
    @ivar droppedOffer: places named by a peer that may not, or older than ours,
        or too many.
    @ivar droppedAddress: addresses that may not be named.
    @ivar droppedUnknown: messages of relays with which there is no handshake.
    @ivar droppedUnopened: messages not sealed by the relay.
    @ivar droppedMalformed: no message at all, or none that a relay sends.
    @ivar droppedChallenge: challenges that answer no question.
    @ivar droppedControl: what is for relays, but no disco.
    """

    __slots__ = (
        "confirmed",
        "droppedAddress",
        "droppedChallenge",
        "droppedControl",
        "droppedMalformed",
        "droppedOffer",
        "droppedUnasked",
        "droppedUnknown",
        "droppedUnopened",
        "offersReceived",
        "offersSent",
        "placesGiven",
        "requestsSent",
    )
    confirmed: int
    droppedAddress: int
    droppedChallenge: int
    droppedControl: int
    droppedMalformed: int
    droppedOffer: int
    droppedUnasked: int
    droppedUnknown: int
    droppedUnopened: int
    offersReceived: int
    offersSent: int
    placesGiven: int
    requestsSent: int


@define
class _Request:
    """A relay was asked for a place."""

    peer: bytes
    sentAt: float
    repeatAt: float


@define
class _Place:
    """A place at which a peer was, or may be, met."""

    via: Via
    lamportID: int


class PeerRelays:
    """
    The peer relays of a node, as seen by one that uses them.

    @ivar counters: what was sent, received and dropped.
    """

    def __init__(
        self, book: PathBook, key: DiscoKey, *, randbytes: Callable[[int], bytes]
    ) -> None:
        """
        @param book: the paths to the peers; asks for relays from now on.
        @param key: our disco key.
        @param randbytes: the source of secret random bytes.
        """
        self.counters = PeerRelayCounters()
        self._book = book
        self._key = key
        self._public = key.public().raw
        self._randbytes = randbytes
        self._servers: tuple[bytes, ...] = ()
        self._isEnabled = True
        self._generations = count(1 + int.from_bytes(randbytes(3), "big"))
        # By node key, with the disco key that it was for.
        self._searched: dict[bytes, tuple[bytes, float]] = {}
        # By the relay's node key and a generation.
        self._requests: dict[tuple[bytes, int], _Request] = {}
        self._bindings: list[Binding] = []
        self._places: dict[bytes, dict[bytes, _Place]] = {}
        self._out: list[tuple[Via, bytes]] = []
        book.relays = self

    # -- what the world is like ----------------------------------------------------

    def setServers(
        self, servers: Iterable[bytes], now: float, *, isEnabled: bool = True
    ) -> None:
        """
        Say which peers relay for us.

        @param servers: their raw node keys.
        @param isEnabled: whether to use any, ours or a peer's.
        """
        self._servers = tuple(servers)
        self._isEnabled = isEnabled
        for key in [k for k in self._requests if k[0] not in self._servers]:
            del self._requests[key]
        if not isEnabled:
            self._bindings.clear()
            while self._places:
                peer, places = self._places.popitem()
                for place in places.values():
                    self._book.withdrawVia(peer, place.via, now)

    def peersChanged(self) -> None:
        """Peers came, went or changed: forget what was about others."""
        book = self._book
        for key in [k for k in self._searched if book.peer(k) is None]:
            del self._searched[key]
        for key in [k for k in self._places if book.peer(k) is None]:
            del self._places[key]
        self._bindings = [b for b in self._bindings if self._isAbout(b.peer)]

    def _isAbout(self, peer: PathPeer) -> bool:
        """Whether a peer is still there and was not started anew."""
        current = self._book.peer(peer.key)
        return current is not None and current.disco == peer.disco

    def networkChanged(self) -> None:
        """This machine has other addresses: search anew, when asked."""
        self._searched.clear()
        self._requests.clear()
        self._bindings.clear()
        self._places.clear()

    # -- searching -------------------------------------------------------------------

    def wanted(self, peer: PathPeer, isTrusted: bool, now: float) -> None:
        """
        Packets to a peer go by no direct path: ask the relays, if it is time.

        @param isTrusted: whether a peer relay carries them.
        """
        if not self._servers or not self._isEnabled:
            return
        interval = UPGRADE_INTERVAL if isTrusted else DISCOVERY_INTERVAL
        known, searched = self._searched.get(peer.key, (b"", -inf))
        if known == peer.disco and now - searched < interval:
            return
        self._searched[peer.key] = peer.disco, now
        asked = 0
        for server in self._servers:
            if server != peer.key and asked < MOST_RELAYS:
                asked += self._request(server, peer, now)

    def _request(self, server: bytes, peer: PathPeer, now: float) -> bool:
        generation = self._generation()
        if not self._ask(server, peer, generation, now):
            return False
        self._requests[server, generation] = _Request(
            peer.key, now, now + ALLOCATE_REPEAT
        )
        return True

    def _ask(self, server: bytes, peer: PathPeer, generation: int, now: float) -> bool:
        message = disco.AllocateRequest(self._pair(peer), generation)
        isSent = self._book.tell(server, message, now)
        self.counters.requestsSent += isSent
        return isSent

    def _generation(self) -> int:
        """A number by which to know an answer; never zero."""
        return next(self._generations) % 0xFFFFFFFF + 1

    def _pair(self, peer: PathPeer) -> tuple[bytes, bytes]:
        """Both disco keys, the smaller one first."""
        ours, theirs = self._public, peer.disco
        return (ours, theirs) if ours < theirs else (theirs, ours)

    # -- what comes by DERP ------------------------------------------------------------

    def received(self, peer: PathPeer, message: disco.Message, now: float) -> None:
        """
        A peer sent something about peer relays.

        @param peer: whose disco key the message was sealed with, and in whose
            name the relay (DERP) passed it on.
        """
        if isinstance(message, disco.AllocateResponse):
            self._allocated(peer, message, now)
        elif isinstance(message, disco.CallMeMaybeVia):
            self._offered(peer, message.endpoint, now)
        else:
            # Only relays are asked for places, and none is bound to this way.
            self._book.counters.droppedUnhandled += 1

    def _allocated(
        self, server: PathPeer, response: disco.AllocateResponse, now: float
    ) -> None:
        endpoint = response.endpoint
        request = self._requests.get((server.key, response.generation))
        peer = None if request is None else self._book.peer(request.peer)
        if peer is None or set(endpoint.clientDisco) != set(self._pair(peer)):
            self.counters.droppedUnasked += 1
            return
        del self._requests[server.key, response.generation]
        self.counters.placesGiven += 1
        addresses = self._may(endpoint, pingMayName)
        self._bind(peer, endpoint, addresses, now)
        if self._book.tell(peer.key, disco.CallMeMaybeVia(endpoint), now):
            self.counters.offersSent += 1

    def _offered(self, peer: PathPeer, endpoint: RelayEndpoint, now: float) -> None:
        if (
            not self._isEnabled
            or not peer.canRelay
            or set(endpoint.clientDisco) != set(self._pair(peer))
        ):
            self.counters.droppedOffer += 1
            return
        self.counters.offersReceived += 1
        self._bind(peer, endpoint, self._may(endpoint, self._peerMayName), now)

    def _peerMayName(self, address: AddrPort) -> bool:
        """
        Whether to send to an address because a peer names it as a relay's.

        Private ones are control's to tell: those of machines in the tailnet.
        """
        return callMayName(address) or (
            pingMayName(address) and self._book.names(address.address)
        )

    def _may(
        self, endpoint: RelayEndpoint, mayName: Callable[[AddrPort], bool]
    ) -> list[AddrPort]:
        named = list(dict.fromkeys(endpoint.addrPorts))
        addresses = [a for a in named[:MOST_ADDRESSES] if mayName(a)]
        self.counters.droppedAddress += len(named) - len(addresses)
        return addresses

    # -- binding -------------------------------------------------------------------

    def _bind(
        self,
        peer: PathPeer,
        endpoint: RelayEndpoint,
        addresses: list[AddrPort],
        now: float,
    ) -> None:
        server = endpoint.serverDisco
        known = self._places.get(peer.key, {}).get(server)
        if known is not None and self._book.isTrusted(peer.key, known.via, now):
            if known.via.vni == endpoint.vni and known.via.address in addresses:
                # It works; that both have asked is how it is.
                return
            if known.lamportID >= endpoint.lamportID:
                self.counters.droppedOffer += 1
                return
        mine = [b for b in self._bindings if b.peer.key == peer.key]
        for binding in mine:
            if binding.endpoint.serverDisco == server:
                lamportID = binding.endpoint.lamportID
                if lamportID >= endpoint.lamportID and binding.dueAt < inf:
                    # The very same one as a rule, named by both sides.
                    return
                self._bindings.remove(binding)
        if (
            not addresses
            or endpoint.bindLifetime <= 0
            or len(mine) >= MOST_BINDINGS_PER_PEER
            or len(self._bindings) >= MOST_BINDINGS
        ):
            self.counters.droppedOffer += 1
            return
        try:
            box = Box(self._key.raw, server)
        except DecryptError:
            self.counters.droppedOffer += 1
            return
        binding = Binding(peer, endpoint, addresses, box, self._generation(), now)
        self._bindings.append(binding)
        self._continue(binding, now)

    def _continue(self, binding: Binding, now: float) -> None:
        for via, plaintext in binding.again(now):
            sealed = sealTo(binding.box, plaintext, self._randbytes)
            self._out.append((via, disco.encodeEnvelope(self._public, sealed)))
        if binding.via is not None:
            self._book.offerVia(binding.peer.key, binding.via, now)

    def receivedControl(self, via: Via, datagram: bytes, now: float) -> None:
        """
        Take a disco datagram that a relay sent itself.

        @param via: where it came from; its number is not that of a pair of
            nodes that the relay serves until it has shown that it is the relay.
        """
        counters = self.counters
        try:
            server, boxed = disco.parseEnvelope(datagram)
        except WireError:
            counters.droppedMalformed += 1
            return
        matching = [b for b in self._bindings if b.isWith(server, via)]
        if not matching:
            counters.droppedUnknown += 1
            return
        try:
            message = disco.parseMessage(openFrom(matching[0].box, boxed))
        except DecryptError:
            counters.droppedUnopened += 1
            return
        except WireError:
            counters.droppedMalformed += 1
            return
        if not isinstance(message, disco.BindChallenge):
            counters.droppedMalformed += 1
            return
        for binding in matching:
            if binding.challenged(via, message, now):
                self._enter(binding, via)
                self._continue(binding, now)
                return
        counters.droppedChallenge += 1

    def _enter(self, binding: Binding, via: Via) -> None:
        """The relay knows us: remember where, in place of what it gave before."""
        key, server = binding.peer.key, binding.endpoint.serverDisco
        places = self._places.setdefault(key, {})
        former = places.pop(server, None)
        if former is None and len(places) >= MOST_PLACES:
            oldest = next(iter(places))
            former = places.pop(oldest)
        if former is not None and former.via != via:
            binding.replaces.append(former.via)
        places[server] = _Place(via, binding.endpoint.lamportID)

    def confirmed(self, peer: PathPeer, via: Via, now: float) -> None:
        """A peer answered by way of a relay: the handshake is over."""
        for binding in self._bindings:
            if binding.via == via and binding.peer.key == peer.key:
                self._bindings.remove(binding)
                self.counters.confirmed += 1
                for former in binding.replaces:
                    self._book.withdrawVia(peer.key, former, now)
                return

    # -- what goes out ---------------------------------------------------------------

    def take(self) -> list[tuple[Via, bytes]]:
        """
        The disco datagrams for relays themselves; each is returned once.

        They are to be sent before those of the path book.
        """
        out = self._out
        if out:
            self._out = []
        return out

    # -- time --------------------------------------------------------------------------

    def deadline(self) -> float | None:
        """When to call L{tick}; C{None} if nothing is going to be due."""
        if not self._bindings and not self._requests:
            return None
        times = [min(b.dueAt, b.endsAt) for b in self._bindings]
        times += [
            min(request.repeatAt, request.sentAt + ALLOCATE_TIMEOUT)
            for request in self._requests.values()
        ]
        return min(times)

    def tick(self, now: float) -> None:
        """Do what is due."""
        for (server, generation), request in list(self._requests.items()):
            peer = self._book.peer(request.peer)
            if peer is None or now >= request.sentAt + ALLOCATE_TIMEOUT:
                del self._requests[server, generation]
            elif now >= request.repeatAt:
                request.repeatAt = inf
                self._ask(server, peer, generation, now)
        self._bindings = [b for b in self._bindings if now < b.endsAt]
        for binding in self._bindings:
            if now >= binding.dueAt:
                self._continue(binding, now)
