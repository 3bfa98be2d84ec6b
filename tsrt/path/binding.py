"""
Being let in at a place that a peer relay keeps for this node and a peer.

The relay is asked from our socket at each of its addresses; it answers with a
challenge, so that it knows where we are, and is answered.  From then on it
passes on what both nodes send there, and the peer can be pinged.
"""

from __future__ import annotations

from math import inf

from tsrt.addresses import AddrPort
from tsrt.crypto.box import Box
from tsrt.path.peers import PathPeer
from tsrt.path.places import Via
from tsrt.wire.disco import BindAnswer, BindChallenge, BindEndpoint
from tsrt.wire.relayendpoint import RelayEndpoint

REPEAT = 1.0
"""Seconds after which what was not answered is sent again."""

MOST_REPEATS = 10
"""How often, at most, the relay is answered and the peer pinged."""

MOST_SECONDS = 30.0
"""Seconds after which a place that does not work is given up."""

_NO_CHALLENGE = bytes(32)


class Binding:
    """
    The handshake for one place, until the peer answers there.

    It is in one of two states: asking the relay at all its addresses, or, after
    its first challenge, answering it and pinging the peer at one of them.

    @ivar peer: who is to be met.
    @ivar endpoint: what the relay said of the place.
    @ivar box: seals for the relay.
    @ivar via: where the peer is pinged; C{None} before the first challenge.
    @ivar dueAt: when to call L{again}, C{inf} if there is nothing left to send.
    @ivar endsAt: when the place is given up.
    @ivar replaces: where the peer was met before; left when it answers here.
    """

    __slots__ = (
        "_addresses",
        "_challenge",
        "_generation",
        "_repeats",
        "box",
        "dueAt",
        "endpoint",
        "endsAt",
        "peer",
        "replaces",
        "via",
    )

    def __init__(
        self,
        peer: PathPeer,
        endpoint: RelayEndpoint,
        addresses: list[AddrPort],
        box: Box,
        generation: int,
        now: float,
    ) -> None:
        """
        @param addresses: those of the relay that may be asked.
        @param generation: by which the relay tells handshakes apart; not zero.
        """
        self.peer = peer
        self.endpoint = endpoint
        self.box = box
        self.via: Via | None = None
        self.dueAt = now
        self.endsAt = now + min(endpoint.bindLifetime, MOST_SECONDS)
        self.replaces: list[Via] = []
        self._addresses = addresses
        self._generation = generation
        self._challenge = _NO_CHALLENGE
        self._repeats = 0

    def again(self, now: float) -> list[tuple[Via, bytes]]:
        """
        What to send to the relay, as plaintexts; when L{via} is known the peer
        is to be pinged there as well.
        """
        self._repeats += 1
        self.dueAt = now + REPEAT if self._repeats < MOST_REPEATS else inf
        fields = (self.endpoint.vni, self._generation, self.peer.disco)
        if self.via is not None:
            answer = BindAnswer(*fields, self._challenge).encode()
            return [(self.via, answer)]
        question = BindEndpoint(*fields, _NO_CHALLENGE).encode()
        return [
            (Via(address, self.endpoint.vni), question) for address in self._addresses
        ]

    def isWith(self, server: bytes, via: Via) -> bool:
        """Whether this is a handshake with a relay that was asked at a place."""
        endpoint = self.endpoint
        return (
            endpoint.serverDisco == server
            and endpoint.vni == via.vni
            and via.address in self._addresses
        )

    def challenged(self, via: Via, challenge: BindChallenge, now: float) -> bool:
        """
        The relay answered.

        @return: whether it is the first answer, and one to this handshake.
        """
        if (
            self.via is not None
            or challenge.vni != self.endpoint.vni
            or challenge.generation != self._generation
            or challenge.remoteKey != self.peer.disco
        ):
            return False
        self.via = via
        self.dueAt = now
        self._repeats = 0
        self._challenge = challenge.challenge
        return True
