"""
The ways to all peers: disco messages in and out, and which path packets take.

Nothing is sent and nothing is timed here: the owner sends what L{PathBook.take}
returns and calls L{PathBook.tick} when L{PathBook.deadline} has come.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import inf

from tsrt.addresses import DERP_MAGIC, AddrPort
from tsrt.keys import DiscoKey
from tsrt.path.calls import Calls
from tsrt.path.candidates import (
    CALL_LIMIT,
    Candidate,
    Source,
    callMayName,
    pingMayName,
)
from tsrt.path.contacts import Contact, Contacts
from tsrt.path.flights import Flight, Flights
from tsrt.path.peerindex import PeerIndex
from tsrt.path.peerpath import PeerPath
from tsrt.path.peers import PathPeer, RelayFinder
from tsrt.path.places import Direct, Place, Relayed, Via
from tsrt.path.reception import Reception
from tsrt.path.schedule import PathSchedule
from tsrt.path.status import PathChange, PathCounters, PathStatus, PongReceived
from tsrt.wire import disco

PING_BACK_INTERVAL = 1.0
"""Least seconds between two pings to an address because of pings from there."""


class PathBook:
    """
    The path machine of a node.

    @ivar counters: what was sent, received and dropped.
    @ivar relays: looks for peer relays, if anybody does.
    """

    def __init__(
        self,
        key: DiscoKey,
        *,
        randbytes: Callable[[int], bytes],
        now: float,
        ipv6: bool = True,
        relayOnly: bool = False,
    ) -> None:
        """
        @param key: our disco key.
        @param randbytes: the source of secret random bytes.
        @param ipv6: whether IPv6 addresses can be reached at all.
        @param relayOnly: answer pings that come by relays, and nothing else.
        """
        self.counters = PathCounters()
        self.relays: RelayFinder | None = None
        self._randbytes = randbytes
        self._ipv6 = ipv6
        self._relayOnly = relayOnly
        self._isSilent = False
        self._own = b""
        self._peers = PeerIndex()
        self._contacts = Contacts(key, randbytes)
        self._reception = Reception(
            self._contacts, self._peers, self.counters, relayOnly
        )
        self._flights = Flights()
        self._tokens = 0
        self._calls = Calls()
        self._schedule = PathSchedule()
        self._out: list[tuple[Place, bytes]] = []
        self._changed: list[PeerPath] = []
        self._pongs: list[PongReceived] = []
        self.isStirred = False
        """Whether L{route} may have left something to take, or a deadline."""

    # -- what the world is like --------------------------------------------------

    def setOwnKey(self, public: bytes) -> None:
        """
        Say who we are; pings carry it.

        @param public: our raw node key.
        """
        self._own = public

    def setPeers(self, peers: Iterable[PathPeer], now: float) -> None:
        """Take all peers that there are; others are forgotten."""
        listed = list(peers)
        gone = self._peers.keys() - {peer.key for peer in listed}
        self.removePeers(list(gone))
        self.upsertPeers(listed, now)

    def upsertPeers(self, peers: Iterable[PathPeer], now: float) -> None:
        """Take new peers, and what is new of others."""
        for peer in peers:
            path = self._peers.get(peer.key)
            if path is None:
                path = self._newPath(peer, now)
            else:
                if path.peer == peer:
                    continue
                if path.peer.disco != peer.disco:
                    self._forgetDisco(path)
                isWorthATry = path.setPeer(peer, now)
                self._peers.disown(path)
                if isWorthATry and peer.disco and not self._relayOnly:
                    self._pingAll(path, path.discover(now), now)
                self._settle(path)
            self._peers.note(path)

    def _newPath(self, peer: PathPeer, now: float) -> PeerPath:
        path = PeerPath(peer, now)
        if self._relayOnly:
            path.why = "relay: direct paths are switched off"
        return path

    def removePeers(self, keys: Iterable[bytes]) -> None:
        """Forget peers, by their raw node keys; strangers are ignored."""
        for key in keys:
            path = self._peers.remove(key)
            if path is None:
                continue
            self._forgetDisco(path)
            self._calls.forget(key)
            path.candidates.clear()
            path.scheduledAt = inf
            path.best = None
            self._flights.forgetPath(path)

    def _forgetDisco(self, path: PeerPath) -> None:
        if self._peers.forgetDisco(path):
            self._contacts.forget(path.peer.disco)

    def setEndpoints(
        self, endpoints: Sequence[AddrPort], now: float, *, hasReflexive: bool
    ) -> None:
        """
        Say where we may be reached, which peers that we call are told.

        @param endpoints: what control is told, too (R-DIR-6).
        @param hasReflexive: whether one of them is our address as others see it;
            without it nobody is called.
        """
        for path in self._calls.setEndpoints(endpoints, now, hasReflexive):
            self._call(path, now)

    @property
    def needsEndpoints(self) -> bool:
        """
        Whether a peer is to be called that must be told where we are, and that is
        not known well enough: the owner finds out and calls L{setEndpoints}.
        """
        return self._calls.needsEndpoints

    def setSilent(self, isSilent: bool) -> None:
        """
        Say whether paths in use are kept confirmed by what comes on them only.

        Then nothing is sent that nobody wants to say; a path on which nothing
        comes is doubted, and pinged when something is sent (C{silent-disco}).
        """
        self._isSilent = isSilent

    def networkChanged(self, now: float) -> None:
        """This machine has other addresses: trust nothing, and look again."""
        self._flights.clear()
        self._peers.forgetAddresses()
        self._calls.forgetEndpoints()
        for path in self._peers:
            if path.networkChanged(now) and not self._relayOnly:
                self._search(path, path.discover(now), now)
            self._settle(path)

    # -- the hot path --------------------------------------------------------------

    def route(self, peer: bytes, now: float) -> tuple[Direct | None, bool]:
        """
        Where to send WireGuard messages to a peer.

        @param peer: its raw node key.
        @return: the place to send them directly, if there is one; and whether
            they go by the relay as well, or only.
        """
        path = self._peers.get(peer)
        if path is None or self._relayOnly:
            return None, True
        path.lastSent = now
        best = path.best
        if best is not None and now < path.trustedUntil:
            if path.scheduledAt == inf:
                self.isStirred = True
                self._used(path, now)
            return best.place, False
        self.isStirred = True
        return self._unproven(path, now)

    def _unproven(self, path: PeerPath, now: float) -> tuple[Direct | None, bool]:
        """There is no path that is known to work at this moment."""
        peer = path.peer
        if peer.isWireGuardOnly:
            return path.wireGuardPlace(now), False
        if not peer.disco:
            return None, True
        self._used(path, now)
        if path.needsDiscovery(now):
            self._search(path, path.discover(now), now)
        best = path.best
        return (None if best is None else best.place), True

    def _used(self, path: PeerPath, now: float) -> None:
        if self._isSilent:
            return
        path.used(now)
        self._schedule.note(path)

    # -- sending -------------------------------------------------------------------

    def _send(
        self, path: PeerPath, place: Place, message: disco.Message, now: float
    ) -> bool:
        contact = self._contacts.withDisco(path.peer.disco, now)
        if contact is None:
            return False
        self._out.append((place, self._contacts.seal(contact, message)))
        return True

    def _search(
        self, path: PeerPath, candidates: Iterable[Candidate], now: float
    ) -> None:
        """Look for a way to a peer by every means."""
        self._pingAll(path, candidates, now)
        self._call(path, now)
        self._wantRelay(path, now)

    def _wantRelay(self, path: PeerPath, now: float) -> None:
        if self.relays is not None and path.peer.canRelay and not path.isDirect(now):
            isTrusted = path.best is not None and now < path.trustedUntil
            self.relays.wanted(path.peer, isTrusted, now)

    def _pingAll(
        self, path: PeerPath, candidates: Iterable[Candidate], now: float
    ) -> None:
        for candidate in candidates:
            self._ping(path, candidate.place, candidate, now)

    def _ping(
        self,
        path: PeerPath,
        place: Place,
        candidate: Candidate | None,
        now: float,
        token: int = 0,
        size: int = 0,
    ) -> None:
        if not self._ipv6 and isinstance(place, AddrPort) and len(place.address) == 16:
            return
        txid = self._randbytes(disco.TXID_LENGTH)
        padding = max(0, size - disco.PING_DATAGRAM)
        if not self._send(path, place, disco.Ping(txid, self._own, padding), now):
            return
        if candidate is not None:
            candidate.lastPing = now
        self.counters.pingsSent += 1
        self._flights.add(txid, Flight(path, place, candidate, now, token))

    def _call(self, path: PeerPath, now: float) -> None:
        """Ask a peer to ping us, if we know where it can."""
        if path.isDirect(now):
            return
        message = self._calls.message(path, now)
        home = Relayed(path.peer.home, path.peer.key)
        if message is not None and self._send(path, home, message, now):
            self.counters.callsSent += 1

    # -- peer relays ---------------------------------------------------------------

    def peer(self, key: bytes) -> PathPeer | None:
        """What the netmap says of a peer, by its raw node key."""
        path = self._peers.get(key)
        return None if path is None else path.peer

    def names(self, packed: bytes) -> bool:
        """Whether control names an address as one of some peer."""
        return self._peers.names(packed)

    def tell(self, key: bytes, message: disco.Message, now: float) -> bool:
        """
        Send a peer a message by its home relay (DERP).

        @return: whether it is a peer that knows disco.
        """
        path = self._peers.get(key)
        if path is None or not path.peer.disco:
            return False
        return self._send(path, Relayed(path.peer.home, key), message, now)

    def offerVia(self, key: bytes, via: Via, now: float) -> None:
        """A peer may perhaps be met at a peer relay: ask it there."""
        path = self._peers.get(key)
        if path is not None and not self._relayOnly:
            candidate = path.learn(via, Source.RELAY, now)
            candidate.heardPong = max(candidate.heardPong, now)
            self._ping(path, via, candidate, now)

    def withdrawVia(self, key: bytes, via: Via, now: float) -> None:
        """A peer is not met any more where L{offerVia} said."""
        path = self._peers.get(key)
        if path is not None:
            path.withdrawVia(via, now)
            self._peers.disown(path)
            self._settle(path)

    def isTrusted(self, key: bytes, via: Via, now: float) -> bool:
        """Whether a peer relay carries what goes to a peer, at this moment."""
        path = self._peers.get(key)
        return (
            path is not None
            and path.best is not None
            and path.best.place == via
            and now < path.trustedUntil
        )

    # -- receiving -----------------------------------------------------------------

    def receivedDisco(self, place: Place, datagram: bytes, now: float) -> None:
        """
        Take a disco datagram.

        @param place: where it came from.
        """
        opened = self._reception.open(place, datagram, now)
        if opened is None:
            return
        contact, paths, message = opened
        if isinstance(message, disco.Ping):
            self._pinged(contact, paths, place, message, now)
        elif isinstance(message, disco.Pong):
            self._ponged(contact.disco, place, message, now)
        elif isinstance(message, disco.CallMeMaybe):
            self._called(contact, place, message, now)
        else:
            self._aboutRelay(contact, place, message, now)

    def _pinged(
        self,
        contact: Contact,
        paths: Sequence[PeerPath],
        place: Place,
        ping: disco.Ping,
        now: float,
    ) -> None:
        counters = self.counters
        path = self._reception.sender(paths, place, ping.nodeKey)
        if path is None:
            counters.droppedUnbound += 1
            return
        if contact.hasSeen(ping.txid):
            counters.droppedReplay += 1
            return
        if not contact.answers.take(now):
            counters.droppedFlood += 1
            return
        contact.remember(ping.txid)
        counters.pingsReceived += 1
        if isinstance(place, Relayed):
            # People want to know that a peer is there; a path it is not.
            source = AddrPort(DERP_MAGIC, place.region & 0xFFFF)
        else:
            source = place.address if isinstance(place, Via) else place
            self._learnFromPing(contact, path, place, now)
        if self._send(path, place, disco.Pong(ping.txid, source), now):
            counters.pongsSent += 1

    def _learnFromPing(
        self, contact: Contact, path: PeerPath, place: Direct, now: float
    ) -> None:
        """A peer is, or seems to be, where its ping came from."""
        path.prepare(now)
        candidate = path.candidates.get(place)
        if candidate is None:
            # Where a peer is met at peer relays is agreed upon before.
            if isinstance(place, Via) or not pingMayName(place):
                self.counters.droppedCandidate += 1
                return
            if not self._peers.mayBe(path, place) or not contact.news.take(now):
                self.counters.droppedCandidate += 1
                return
        isNew = candidate is None
        if candidate is None or not isinstance(place, Via):
            candidate = path.learn(place, Source.PING, now)
        isTrusted = path.best is not None and now < path.trustedUntil
        quiet = min(candidate.heardPing, candidate.lastPing)
        if isNew or (not isTrusted and now - quiet >= PING_BACK_INTERVAL):
            # It came through, so the NATs on both sides are open at this moment.
            self._ping(path, place, candidate, now)
        candidate.heardPing = now
        self._peers.heard(path, place)

    def _ponged(
        self, sender: bytes, place: Place, pong: disco.Pong, now: float
    ) -> None:
        counters = self.counters
        flight = self._flights.landed(pong.txid, sender)
        if flight is None:
            counters.droppedUnasked += 1
            return
        if place != flight.place:
            counters.droppedPongSource += 1
            return
        counters.pongsReceived += 1
        latency = max(now - flight.sent, 0.0)
        if flight.token:
            self._pongs.append(PongReceived(flight.token, latency, place))
        candidate, path = flight.candidate, flight.path
        if candidate is None or isinstance(place, Relayed):
            return
        if path.candidates.get(place) is not candidate:
            # It was withdrawn while the ping was under way.
            return
        self._peers.confirm(path, place)
        path.answered(candidate, latency, now)
        if isinstance(place, Via) and self.relays is not None:
            self.relays.confirmed(path.peer, place, now)
        self._settle(path)

    def _called(
        self, contact: Contact, place: Place, call: disco.CallMeMaybe, now: float
    ) -> None:
        counters = self.counters
        path = self._reception.relayedFrom(contact, place)
        if path is None or self._relayOnly:
            return
        if not contact.calls.take(now):
            counters.droppedFlood += 1
            return
        counters.callsReceived += 1
        places = []
        for endpoint in call.endpoints[:CALL_LIMIT]:
            if callMayName(endpoint) and self._peers.mayBe(path, endpoint):
                places.append(endpoint)
        counters.droppedCandidate += len(call.endpoints) - len(places)
        found = path.called(places, now)
        self._settle(path)
        self._pingAll(path, found, now)
        self._wantRelay(path, now)

    def _aboutRelay(
        self, contact: Contact, place: Place, message: disco.Message, now: float
    ) -> None:
        """Whatever is about peer relays travels by others (DERP)."""
        counters = self.counters
        if self.relays is None or self._relayOnly:
            counters.droppedUnhandled += 1
            return
        path = self._reception.relayedFrom(contact, place)
        if path is None:
            return
        if isinstance(message, disco.CallMeMaybeVia) and not contact.calls.take(now):
            counters.droppedFlood += 1
            return
        self.relays.received(path.peer, message, now)

    def heard(self, place: Place, peer: bytes, now: float) -> None:
        """
        An authentic WireGuard message of a peer came from somewhere.

        That makes a path only for peers that do not know disco.
        """
        path = self._peers.get(peer)
        if path is None or isinstance(place, Relayed):
            return
        if path.peer.isWireGuardOnly:
            path.heard(place, now)
            self._settle(path)
        elif self._isSilent:
            path.received(place, now)

    def peerAt(self, place: Direct) -> bytes | None:
        """The raw node key of the peer that is known to be at an address."""
        path = self._peers.ownerOf(place)
        return None if path is None else path.peer.key

    def sendFailed(self, place: AddrPort, now: float) -> None:
        """The system says that an address cannot be reached from here."""
        self._lost(place, now)
        for path in self._peers.withoutDisco():
            path.wireGuardFailed(place, now)
        for via in self._peers.viasAt(place):
            self._lost(via, now)

    def _lost(self, place: Direct, now: float) -> None:
        path = self._peers.ownerOf(place)
        if path is None:
            return
        if path.best is not None and path.best.place == place:
            path.lose(now, f"{place.text()} cannot be reached from here")
            self._settle(path)
        if isinstance(place, Via):
            path.withdrawVia(place, now)
            self._peers.disown(path)

    # -- what goes out ---------------------------------------------------------------

    def take(self) -> list[tuple[Place, bytes]]:
        """The datagrams to send, in order; each is returned once."""
        out = self._out
        if out:
            self._out = []
        return out

    def takeChanges(self) -> list[PathChange]:
        """The paths that changed since the last call."""
        if not self._changed:
            return []
        changed, self._changed = self._changed, []
        changes = []
        for path in changed:
            path.changed = False
            place = None if path.best is None else path.best.place
            changes.append(PathChange(path.peer.key, place, path.why))
        return changes

    def takePongs(self) -> list[PongReceived]:
        """The answers to pings of L{ping} since the last call."""
        pongs, self._pongs = self._pongs, []
        return pongs

    def _settle(self, path: PeerPath) -> None:
        """Note whether people are to be told of a path."""
        if path.changed and path not in self._changed:
            self._changed.append(path)

    # -- time --------------------------------------------------------------------------

    def deadline(self) -> float | None:
        """When to call L{tick}; C{None} if nothing is going to be due."""
        at = min(self._schedule.deadline(), self._flights.deadline())
        return None if at == inf else at

    def tick(self, now: float) -> None:
        """Do what is due."""
        for flight in self._flights.lost(now):
            if flight.candidate is not None:
                flight.path.unanswered(flight.candidate, now)
                self._settle(flight.path)
        while (path := self._schedule.next(now)) is not None:
            if self._isSilent:
                path.rest()
                continue
            found, isCalled = path.tick(now)
            self._pingAll(path, found, now)
            if isCalled:
                self._call(path, now)
            if path.isActive(now):
                self._wantRelay(path, now)
            self._settle(path)
            self._schedule.note(path)

    # -- for people --------------------------------------------------------------------

    def ping(self, peer: bytes, now: float, size: int = 0) -> int:
        """
        Ping a peer every way there is; answers come with L{takePongs}.

        @param peer: its raw node key.
        @param size: bytes of the datagram; less than the least is the least.
        @return: a token by which to know the answers; 0 if the peer is unknown
            or has no disco.
        """
        path = self._peers.get(peer)
        if path is None or not path.peer.disco:
            return 0
        self._tokens += 1
        token = self._tokens
        path.prepare(now)
        best = path.best
        if best is not None and path.isDirect(now):
            self._ping(path, best.place, best, now, token, size)
            return token
        if not self._relayOnly:
            for candidate in list(path.candidates.values()):
                self._ping(path, candidate.place, candidate, now, token, size)
            self._search(path, (), now)
            if best is not None and now < path.trustedUntil:
                return token
        home = Relayed(path.peer.home, peer)
        self._ping(path, home, None, now, token, size)
        return token

    def forgetPing(self, token: int) -> None:
        """Nobody waits for the answers to a ping any more."""
        self._flights.forgetToken(token)

    def status(self, peer: bytes, now: float) -> PathStatus | None:
        """How the way to a peer stands; C{None} for strangers."""
        path = self._peers.get(peer)
        return None if path is None else path.status(now)
