"""
The way to one peer: candidates, the best of them, and how far it is trusted.

It knows no keys and sends nothing: each method says what to ping, and L{PathBook}
does it.  A path is trusted for a short while after each answer; before that time
is over it is asked again, and if no answer comes, packets go by the relay.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf

from tsrt.addresses import AddrPort
from tsrt.path.candidates import CANDIDATE_LIMIT, Candidate, Source, netmapMayName
from tsrt.path.compare import isBetter
from tsrt.path.peers import PathPeer
from tsrt.path.places import Direct, Via, describe
from tsrt.path.status import CandidateStatus, PathStatus

TRUST = 6.5
"""Seconds for which an answered ping vouches for an address."""

HEARTBEAT = 3.0
"""Seconds between the pings that keep a path in use confirmed."""

SESSION_ACTIVE = 45.0
"""Seconds after the last packet for which a path counts as in use."""

DISCOVERY_INTERVAL = 5.0
"""Least seconds between two pings to one address in search of a path."""

UPGRADE_INTERVAL = 60.0
"""Seconds after which a direct path is compared with all others again."""

GOOD_ENOUGH = 0.005
"""Seconds of round trip below which no better address is looked for."""

PING_CANDIDATE_LIFETIME = 45.0
"""Seconds for which an address lives that is known from a ping only."""

VIA_PATIENCE = 10.0
"""Seconds without an answer after which a place at a peer relay is given up."""

WIREGUARD_TRUST = 5.0
"""Seconds for which a peer without disco is known to be where it was heard."""

WIREGUARD_TURN = 6.0
"""Seconds that each address of a peer without disco has for its answer; one
handshake is tried again within that time."""


class PeerPath:
    """
    The state of one peer.

    @ivar peer: what the netmap says of it.
    @ivar best: the best address; packets go there.
    @ivar trustedUntil: until when they go nowhere else.
    @ivar lastSent: when something was last sent to the peer.
    @ivar scheduledAt: where the owner's heap of deadlines has this path.
    @ivar why: why the path is what it is, in words.
    @ivar since: when that began.
    @ivar changed: whether people have not been told of that yet.
    """

    __slots__ = (
        "_heartbeatAt",
        "_lastFull",
        "_names",
        "_turn",
        "_turnEnds",
        "_turnUsed",
        "best",
        "candidates",
        "changed",
        "lastSent",
        "peer",
        "scheduledAt",
        "since",
        "trustedUntil",
        "why",
    )

    def __init__(self, peer: PathPeer, now: float) -> None:
        self.peer = peer
        self.candidates: dict[Direct, Candidate] = {}
        self.best: Candidate | None = None
        self.trustedUntil = -inf
        self.lastSent = -inf
        self.scheduledAt = inf
        self.why = "relay: no direct path was looked for yet"
        self.since = now
        self.changed = False
        self._heartbeatAt = inf
        self._lastFull = -inf
        # The netmap's endpoints become candidates when the peer is first used.
        self._names: tuple[AddrPort, ...] | None = None
        # Peers without disco: which address has its turn, and how long.
        self._turn: Direct | None = None
        self._turnEnds = -inf
        self._turnUsed = -inf

    # -- candidates ------------------------------------------------------------------

    def setPeer(self, peer: PathPeer, now: float) -> bool:
        """
        Take what the netmap says now; what it says no more is forgotten.

        @return: whether there is a new address to be tried at once, the path
            being in use and without a direct way.
        """
        isRestarted = self.peer.disco != peer.disco
        self.peer = peer
        former = self._names
        if former is not None:
            self._reconcile(now)
        if isRestarted:
            # Whoever answered there has gone.
            self._withdrawVias(now)
            if self.best is not None:
                self.lose(now, "the peer was started anew")
        return (
            former is not None
            and self.isActive(now)
            and now >= self.trustedUntil
            and not set(former).issuperset(self._names or ())
        )

    def prepare(self, now: float) -> None:
        """Make candidates of the netmap's endpoints, before first use."""
        if self._names is None:
            self._reconcile(now)

    def _reconcile(self, now: float) -> None:
        names = tuple(filter(netmapMayName, self.peer.endpoints))
        self._names = names
        for place in names:
            known = self.candidates.get(place)
            if known is None:
                self.candidates[place] = Candidate(place, Source.NETMAP)
            else:
                known.source |= Source.NETMAP
        wanted = set(names)
        for candidate in list(self.candidates.values()):
            if Source.NETMAP in candidate.source and candidate.place not in wanted:
                self._withdraw(candidate, Source.NETMAP, now)

    def _withdraw(
        self,
        candidate: Candidate,
        source: Source,
        now: float,
        reason: str = "the peer left its address",
    ) -> None:
        """Somebody does not name an address any more."""
        candidate.source &= ~source
        if not candidate.source:
            del self.candidates[candidate.place]
            if candidate is self.best:
                self.lose(now, reason)

    def withdrawVia(self, via: Via, now: float) -> None:
        """A peer relay is no place to meet any more."""
        candidate = self.candidates.get(via)
        if candidate is not None:
            self._withdraw(candidate, Source.RELAY, now, "the peer relay was left")

    def _withdrawVias(self, now: float) -> None:
        for place in list(self.candidates):
            if isinstance(place, Via):
                self.withdrawVia(place, now)

    def learn(self, place: Direct, source: Source, now: float) -> Candidate:
        """An address was learned; the least promising one makes room."""
        self.prepare(now)
        candidate = self.candidates.get(place)
        if candidate is None:
            if len(self.candidates) >= CANDIDATE_LIMIT:
                self._makeRoom(now)
            candidate = self.candidates[place] = Candidate(place, source)
        else:
            candidate.source |= source
        return candidate

    def _makeRoom(self, now: float) -> None:
        """Forget the learned address that was of use least lately."""
        learned = [
            c
            for c in self.candidates.values()
            if Source.NETMAP not in c.source and c is not self.best
        ]
        if learned:
            oldest = min(learned, key=lambda c: (c.latency is not None, c.heardPing))
            del self.candidates[oldest.place]

    def called(self, places: Iterable[AddrPort], now: float) -> list[Candidate]:
        """
        The peer asks to be pinged, at these addresses among others.

        Nobody calls who has a working path.  So ours, if we think that we have
        one, may lead to where the peer was: until it answers, packets take the
        relay as well.

        @return: whom to ping.
        """
        if self.best is not None and not isinstance(self.best.place, Via):
            # By a peer relay it calls to find something better.
            self.trustedUntil = min(self.trustedUntil, now)
        wanted = set(places)
        for candidate in list(self.candidates.values()):
            if Source.CALL in candidate.source and candidate.place not in wanted:
                self._withdraw(candidate, Source.CALL, now)
        for place in wanted:
            self.learn(place, Source.CALL, now)
        self.prepare(now)
        return list(self.candidates.values())

    def expire(self, now: float) -> None:
        """Forget addresses from which the peer pinged us long ago."""
        for candidate in list(self.candidates.values()):
            if (
                Source.PING in candidate.source
                and now - candidate.heardPing >= PING_CANDIDATE_LIFETIME
                and candidate is not self.best
            ):
                self._withdraw(candidate, Source.PING, now)

    # -- sending ---------------------------------------------------------------------

    def discover(self, now: float) -> list[Candidate]:
        """
        Look for a path.

        @return: whom to ping; the peer is to be called as well if there is
            anybody.
        """
        self.prepare(now)
        self._lastFull = now
        return [
            candidate
            for candidate in self.candidates.values()
            if now - candidate.lastPing >= DISCOVERY_INTERVAL
        ]

    def needsDiscovery(self, now: float) -> bool:
        """Whether packets go by a relay, and nobody looked for better lately."""
        return now >= self.trustedUntil and now - self._lastFull >= DISCOVERY_INTERVAL

    def used(self, now: float) -> None:
        """Something was sent: the path is to be kept, or found."""
        self.lastSent = now
        if self._heartbeatAt == inf:
            self._heartbeatAt = now + HEARTBEAT

    def wireGuardPlace(self, now: float) -> Direct | None:
        """
        Where to send to a peer that has no disco.

        Where it was heard just now; or else each address has its turn, until it
        is heard at one: what is sent to it is the only question that it answers.
        Where it was heard last is first, then IPv6, then IPv4.
        """
        self.prepare(now)
        best = self.best
        if best is not None and now < self.trustedUntil:
            self._turn = None
            return best.place
        places = sorted(self.candidates, key=lambda place: -_length(place))
        if best is not None:
            places.remove(best.place)
            places.insert(0, best.place)
        if not places:
            return None
        isResumed = now - self._turnUsed >= WIREGUARD_TURN
        self._turnUsed = now
        if self._turn not in places or isResumed:
            self._turn, self._turnEnds = places[0], now + WIREGUARD_TURN
        elif now >= self._turnEnds:
            following = places.index(self._turn) + 1
            self._turn = places[following % len(places)]
            self._turnEnds = now + WIREGUARD_TURN
        return self._turn

    def wireGuardFailed(self, place: Direct, now: float) -> None:
        """The system knows no way to an address of a peer that has no disco."""
        if place == self._turn:
            self._turnEnds = now

    def isDirect(self, now: float) -> bool:
        """Whether packets go from here to the peer with nobody between."""
        best = self.best
        return (
            best is not None
            and now < self.trustedUntil
            and not isinstance(best.place, Via)
        )

    # -- what comes back -------------------------------------------------------------

    def answered(self, candidate: Candidate, latency: float, now: float) -> None:
        """A ping to a candidate was answered from there."""
        candidate.latency = latency
        candidate.heardPong = now
        best = self.best
        if best is candidate:
            self.trustedUntil = now + TRUST
            return
        if (
            best is None
            or now >= self.trustedUntil
            or isBetter(
                candidate.place,
                latency,
                best.place,
                best.latency if best.latency is not None else inf,
            )
        ):
            self.best = candidate
            self.trustedUntil = now + TRUST
            way = describe(candidate.place)
            self._tell(f"{way} ({latency * 1000:.0f} ms)", now)

    def unanswered(self, candidate: Candidate, now: float) -> None:
        """A ping to a candidate was not answered in time."""
        place = candidate.place
        if candidate is self.best and now >= self.trustedUntil:
            self.lose(now, f"{place.text()} stopped answering")
        if (
            isinstance(place, Via)
            and candidate is not self.best
            and now - candidate.heardPong >= VIA_PATIENCE
        ):
            # The relay has forgotten us; asking there again is of no use.
            self.withdrawVia(place, now)

    def lose(self, now: float, reason: str) -> None:
        """There is no direct path any more."""
        self.best = None
        self.trustedUntil = -inf
        self._tell(f"relay: {reason}", now)

    def heard(self, place: Direct, now: float) -> None:
        """A peer without disco was heard at an address."""
        self.prepare(now)
        candidate = self.candidates.get(place) or Candidate(place, Source.PING)
        candidate.heardPing = now
        self.candidates[place] = candidate
        if self.best is not candidate:
            self.best = candidate
            self._tell(f"{describe(place)} (heard there)", now)
        self.trustedUntil = now + WIREGUARD_TRUST

    def received(self, place: Direct, now: float) -> None:
        """Something authentic came from where packets go: that way works."""
        best = self.best
        if best is not None and best.place == place:
            self.trustedUntil = max(self.trustedUntil, now + TRUST)

    def rest(self) -> None:
        """Keep no path confirmed by pings of its own."""
        self._heartbeatAt = inf

    def networkChanged(self, now: float) -> bool:
        """
        Nothing that was found holds any more, though the candidates may.

        @return: whether the path is in use.
        """
        self._lastFull = -inf
        if self.best is not None:
            self.lose(now, "this machine's network changed")
        # Peer relays know us by the address that we had.
        self._withdrawVias(now)
        for candidate in self.candidates.values():
            candidate.latency = None
            candidate.lastPing = -inf
        return self.isActive(now)

    # -- time ------------------------------------------------------------------------

    def isActive(self, now: float) -> bool:
        """Whether the path is in use."""
        return now - self.lastSent < SESSION_ACTIVE

    def deadline(self) -> float:
        """When to call L{tick}; C{inf} if nothing is going to be due."""
        return self._heartbeatAt

    def tick(self, now: float) -> tuple[list[Candidate], bool]:
        """
        Keep the path confirmed while it is in use.

        @return: whom to ping, and whether to call the peer as well.
        """
        if now < self._heartbeatAt:
            return [], False
        self.expire(now)
        if not self.isActive(now):
            self._heartbeatAt = inf
            return [], False
        self._heartbeatAt = now + HEARTBEAT
        best = self.best
        if best is None or not self.isDirect(now):
            if best is None and self.candidates and self._lastFull > -inf:
                self._tell(self._nothingFound(), now)
            found = self.discover(now)
            isCalled = bool(found) or (best is not None and now >= self.trustedUntil)
            if best is not None and best not in found:
                found.append(best)
            return found, isCalled
        slow = best.latency is None or best.latency > GOOD_ENOUGH
        if slow and now - self._lastFull >= UPGRADE_INTERVAL:
            found = self.discover(now)
            if best not in found:
                found.append(best)
            return found, True
        return [best], False

    def _nothingFound(self) -> str:
        count = len(self.candidates)
        addresses = "its address" if count == 1 else f"any of its {count} addresses"
        return f"relay: no answer from {addresses}"

    # -- for people ------------------------------------------------------------------

    def _tell(self, why: str, now: float) -> None:
        if why != self.why:
            self.why = why
            self.since = now
            self.changed = True

    def status(self, now: float) -> PathStatus:
        """How the path stands."""
        best = self.best
        return PathStatus(
            place=None if best is None else best.place,
            isTrusted=best is not None and now < self.trustedUntil,
            latency=None if best is None else best.latency,
            why=self.why,
            since=self.since,
            lastSent=None if self.lastSent == -inf else self.lastSent,
            candidates=tuple(
                CandidateStatus(
                    c.place,
                    c.source,
                    c.latency,
                    None if c.lastPing == -inf else c.lastPing,
                )
                for c in self.candidates.values()
            ),
        )


def _length(place: Direct) -> int:
    """Bytes of an address."""
    return len((place.address if isinstance(place, Via) else place).address)
