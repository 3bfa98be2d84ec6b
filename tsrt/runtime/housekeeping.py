"""The parts of a run that only begin and end something, or look now and then."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from tsrt.interfaces import IStateStore
from tsrt.runtime.datapath import DataPath
from tsrt.runtime.dispatch import NetmapDispatcher
from tsrt.runtime.identity import IdentityKeeper
from tsrt.runtime.overlay import NodeOverlay
from tsrt.tunnel.timestamps import TimestampSource

_log = Logger(namespace="tsrt.runtime")

_HOUSEKEEPING = 60.0


class StateService(Service):
    """Keeps the store open while the node runs."""

    name = "state"

    def __init__(
        self,
        store: IStateStore,
        keeper: IdentityKeeper,
        timestamps: TimestampSource,
    ) -> None:
        self._store = store
        self._keeper = keeper
        self._timestamps = timestamps

    def stopService(self) -> None:
        """Save what the next run goes on from, and give the store back."""
        super().stopService()
        self._keeper.saveTimestamp(self._timestamps)
        self._store.close()


class LeaveService(Service):
    """Takes an ephemeral node out of the tailnet as it stops."""

    name = "leave"

    def __init__(self, leave: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._leave = leave

    def stopService(self) -> Deferred[None]:
        """Tell control, and never mind if it cannot be told."""
        super().stopService()
        leaving = Deferred.fromCoroutine(self._leave())
        return leaving.addErrback(
            lambda failure: _log.warn(
                "control could not be told that the node leaves: {reason}",
                reason=failure.getErrorMessage(),
            )
        )


class DataPathService(Service):
    """Runs the data path, and what has to be looked at now and then."""

    name = "datapath"

    def __init__(
        self,
        reactor: IReactorTime,
        datapath: DataPath,
        overlay: NodeOverlay,
        dispatcher: NetmapDispatcher,
    ) -> None:
        self._datapath = datapath
        self._overlay = overlay
        self._dispatcher = dispatcher
        self._housekeeping = LoopingCall(self._keepHouse)
        self._housekeeping.clock = reactor

    def startService(self) -> None:
        """Begin to move packets."""
        super().startService()
        self._overlay.attach(
            self._datapath.flush, lambda name: self._dispatcher.names.resolve(name)
        )
        self._datapath.start()
        self._housekeeping.start(_HOUSEKEEPING, now=False).addErrback(
            lambda failure: _log.failure("housekeeping stopped", failure)
        )

    def _keepHouse(self) -> None:
        # Regular looks at the clock are how a step of it is told.
        self._overlay.now()
        self._dispatcher.refresh()

    def stopService(self) -> None:
        """Move nothing any more."""
        super().stopService()
        if self._housekeeping.running:
            self._housekeeping.stop()
        self._overlay.detach()
        self._datapath.stop()
