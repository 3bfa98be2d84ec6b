"""
Whose message a disco datagram is.

Disco keys tell machines apart, node keys tell nodes apart: several nodes may share
a disco key, and what comes by a relay says by which node it was sent.
"""

from __future__ import annotations

from collections.abc import Sequence

from tsrt.errors import DecryptError, WireError
from tsrt.path.contacts import Contact, Contacts
from tsrt.path.peerindex import PeerIndex
from tsrt.path.peerpath import PeerPath
from tsrt.path.places import Place, Relayed
from tsrt.path.status import PathCounters
from tsrt.wire import disco

Opened = tuple[Contact, Sequence[PeerPath], disco.Message]
"""Who shares the key, the paths to the nodes that have it, and what was said."""


class Reception:
    """Opens datagrams, and counts those that are nobody's."""

    def __init__(
        self,
        contacts: Contacts,
        peers: PeerIndex,
        counters: PathCounters,
        relayOnly: bool,
    ) -> None:
        """
        @param relayOnly: listen to what comes by relays only.
        """
        self._contacts = contacts
        self._peers = peers
        self._counters = counters
        self._relayOnly = relayOnly

    def open(self, place: Place, datagram: bytes, now: float) -> Opened | None:
        """
        Open a datagram, if it is from a peer.

        @param place: where it came from.
        """
        counters = self._counters
        try:
            sender, boxed = disco.parseEnvelope(datagram)
        except WireError:
            counters.droppedMalformed += 1
            return None
        paths = self._peers.withDisco(sender)
        if not paths or (self._relayOnly and not isinstance(place, Relayed)):
            counters.droppedStranger += 1
            return None
        contact = self._contacts.withDisco(sender, now)
        if contact is None:
            counters.droppedUnopened += 1
            return None
        try:
            return contact, paths, self._contacts.open(contact, boxed)
        except DecryptError:
            counters.droppedUnopened += 1
        except WireError:
            counters.droppedMalformed += 1
        return None

    def sender(
        self, paths: Sequence[PeerPath], place: Place, nodeKey: bytes
    ) -> PeerPath | None:
        """Which of the nodes with one disco key sent something."""
        if isinstance(place, Relayed):
            if nodeKey and nodeKey != place.peer:
                return None
            nodeKey = place.peer
        if nodeKey:
            path = self._peers.get(nodeKey)
            return path if path in paths else None
        return paths[0] if len(paths) == 1 else None

    def relayedFrom(self, contact: Contact, place: Place) -> PeerPath | None:
        """
        Who sent what may come by a relay (DERP) only; C{None}, and counted, when
        it did not, or not from whom it was sealed by.
        """
        if not isinstance(place, Relayed):
            self._counters.droppedCall += 1
            return None
        path = self._peers.get(place.peer)
        if path is None or path.peer.disco != contact.disco:
            self._counters.droppedUnbound += 1
            return None
        return path
