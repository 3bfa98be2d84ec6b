"""Who is online, and when ephemeral nodes are forgotten."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from tsrt.testing.control.records import NodeRecord
from tsrt.testing.control.tailnet import Tailnet


@define(eq=False)
class _Absence:
    """What is going to happen to a node that does not listen."""

    since: float
    offline: IDelayedCall | None = None
    removal: IDelayedCall | None = None

    def cancel(self) -> None:
        """Let nothing of it happen."""
        for call in (self.offline, self.removal):
            if call is not None and call.active():
                call.cancel()


class Presence:
    """
    Follows which nodes listen for maps.

    A node that stops listening stays online for a moment, in which it may come
    back; an ephemeral one that does not come back is removed.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        tailnet: Tailnet,
        *,
        wallTime: Callable[[], float],
        removed: Callable[[NodeRecord], None],
        grace: float,
        ephemeralTimeout: float,
    ) -> None:
        """
        @param reactor: provides the delays.
        @param tailnet: the state, in which nodes go online and offline.
        @param wallTime: seconds since 1970.
        @param removed: deletes an ephemeral node.
        @param grace: seconds for a node to come back before it is offline.
        @param ephemeralTimeout: seconds for an ephemeral node to come back.
        """
        self._reactor = reactor
        self._tailnet = tailnet
        self._wallTime = wallTime
        self._removed = removed
        self._grace = grace
        self._ephemeralTimeout = ephemeralTimeout
        self._absences: dict[int, _Absence] = {}

    def arrived(self, node: NodeRecord) -> None:
        """A node listens."""
        self.forget(node)
        self._tailnet.update(node, online=True)

    def left(self, node: NodeRecord) -> None:
        """A node does not listen, or never did yet."""
        self.forget(node)
        absence = _Absence(self._wallTime())
        self._absences[node.id] = absence
        if node.online:
            absence.offline = self._reactor.callLater(
                self._grace, self._offline, node, absence
            )
        if node.ephemeral:
            absence.removal = self._reactor.callLater(
                self._ephemeralTimeout, self._remove, node
            )

    def _offline(self, node: NodeRecord, absence: _Absence) -> None:
        self._tailnet.update(node, online=False, lastSeen=absence.since)

    def _remove(self, node: NodeRecord) -> None:
        self.forget(node)
        self._removed(node)

    def isAbsent(self, node: NodeRecord) -> bool:
        """Whether the node is being waited for."""
        return node.id in self._absences

    def forget(self, node: NodeRecord) -> None:
        """Let nothing happen to a node any more."""
        absence = self._absences.pop(node.id, None)
        if absence is not None:
            absence.cancel()

    def stop(self) -> None:
        """Let nothing happen to any node any more."""
        for absence in self._absences.values():
            absence.cancel()
        self._absences.clear()
