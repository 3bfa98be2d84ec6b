"""
The notify bus: all that changes about a node, as one stream of small news.

Whoever reads it slowly gets less of it, never stale: what was not read yet is
merged with what comes, and the last value of everything stays.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any

from attrs import asdict, evolve, frozen
from twisted.internet.defer import Deferred, fail

from tsrt.errors import NotRunning
from tsrt.netmap.netmap import NetworkMap
from tsrt.runtime.preferences import Preferences
from tsrt.runtime.status import HealthWarning, NodeState, NodeStatus


class NotifyMask(enum.IntFlag):
    """What a reader is told at once; the bits are those of C{WatchIPNBus}."""

    INITIAL_STATE = 1 << 1
    INITIAL_PREFS = 1 << 2
    INITIAL_NETMAP = 1 << 3
    INITIAL_HEALTH = 1 << 7
    NO_NETMAP = 1 << 13
    """Leave out the netmap altogether."""


@frozen(kw_only=True)
class Notify:
    """
    What has changed; C{None} stands for what has not.

    @ivar state: where the node is on its way.
    @ivar browseToURL: the page that a person has to open.
    @ivar loginFinished: whether a person has just let the node in.
    @ivar errMessage: what ended the node's work.
    @ivar prefs: what the user wants.
    @ivar netmap: the tailnet: a view of what is so when it is read.
    @ivar health: what is wrong, all of it.
    """

    state: NodeState | None = None
    browseToURL: str | None = None
    loginFinished: bool | None = None
    errMessage: str | None = None
    prefs: Preferences | None = None
    netmap: NetworkMap | None = None
    health: tuple[HealthWarning, ...] | None = None

    def mergedWith(self, later: Notify) -> Notify:
        """Both in one: of what both tell, the later."""
        return evolve(self, **_changes(later))


def _changes(notify: Notify) -> dict[str, Any]:
    values = asdict(notify, recurse=False)
    return {name: value for name, value in values.items() if value is not None}


class NotifyStream:
    """
    The news for one reader; an asynchronous iterator.

    Each piece is read once; what comes meanwhile waits as one piece.
    """

    def __init__(self, close: Callable[[NotifyStream], object], mask: int) -> None:
        self._close = close
        self._withoutNetmap = bool(mask & NotifyMask.NO_NETMAP)
        self._waiting = Notify()
        self._reader: Deferred[Notify] | None = None
        self._isClosed = False

    def offer(self, notify: Notify) -> None:
        """There is news."""
        if self._withoutNetmap:
            notify = evolve(notify, netmap=None)
        merged = self._waiting.mergedWith(notify)
        reader, self._reader = self._reader, None
        if reader is None or merged == Notify():
            self._waiting, self._reader = merged, reader
        else:
            self._waiting = Notify()
            reader.callback(merged)

    def next(self) -> Deferred[Notify]:
        """
        Fire with the next piece of news, at once if there is one.

        Fails with L{NotRunning} once the stream is closed; cancelling loses
        nothing.

        @raise RuntimeError: somebody waits already.
        """
        if self._reader is not None:
            raise RuntimeError("somebody waits for the next notification already")
        if self._isClosed:
            return fail(NotRunning("the notifications were closed"))

        def forget(_: Deferred[Notify]) -> None:
            self._reader = None

        reader: Deferred[Notify] = Deferred(forget)
        self._reader = reader
        self.offer(Notify())
        return reader

    def close(self) -> None:
        """Read no more; more than once is fine."""
        if self._isClosed:
            return
        self._isClosed = True
        self._close(self)
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.errback(NotRunning("the notifications were closed"))

    def __aiter__(self) -> NotifyStream:
        return self

    async def __anext__(self) -> Notify:
        try:
            return await self.next()
        except NotRunning:
            raise StopAsyncIteration from None


class NotifyBus:
    """Tells all readers what changes."""

    def __init__(self) -> None:
        self._streams: list[NotifyStream] = []
        self._status = NodeStatus()

    def open(
        self, mask: int, prefs: Preferences, netmap: NetworkMap | None
    ) -> NotifyStream:
        """
        A stream for one more reader.

        @param mask: bits of L{NotifyMask}.
        @param netmap: the netmap at present, if there is one.
        """
        status = self._status
        stream = NotifyStream(self._streams.remove, mask)
        self._streams.append(stream)
        first: dict[str, Any] = {}
        if mask & NotifyMask.INITIAL_STATE:
            first |= {"state": status.state, "browseToURL": status.loginURL or None}
            first["errMessage"] = _message(status)
        if mask & NotifyMask.INITIAL_PREFS:
            first["prefs"] = prefs
        if mask & NotifyMask.INITIAL_NETMAP:
            first["netmap"] = netmap
        if mask & NotifyMask.INITIAL_HEALTH:
            first["health"] = status.warnings
        stream.offer(Notify(**first))
        return stream

    def tell(self, notify: Notify) -> None:
        """Something has changed."""
        if notify != Notify():
            for stream in list(self._streams):
                stream.offer(notify)

    def statusChanged(self, status: NodeStatus) -> None:
        """The node has another status: tell what of it is news."""
        former, self._status = self._status, status
        changes: dict[str, Any] = {}
        if status.state is not former.state:
            changes["state"] = status.state
            if former.loginURL and not status.loginURL and status.error is None:
                changes["loginFinished"] = True
        if status.loginURL and status.loginURL != former.loginURL:
            changes["browseToURL"] = status.loginURL
        if status.error is not former.error:
            changes["errMessage"] = _message(status)
        if status.warnings != former.warnings:
            changes["health"] = status.warnings
        self.tell(Notify(**changes))

    def prefsChanged(self, prefs: Preferences) -> None:
        """The user wants something else."""
        self.tell(Notify(prefs=prefs))

    def netmapChanged(self, netmap: NetworkMap) -> None:
        """The tailnet has changed."""
        self.tell(Notify(netmap=netmap))


def _message(status: NodeStatus) -> str | None:
    return None if status.error is None else status.error.describe()
