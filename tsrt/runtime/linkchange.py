"""What a node does when the network under it changes."""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

from tsrt.control.service import ControlService
from tsrt.derp.pool import RelayPool
from tsrt.runtime.paths import PathService
from tsrt.underlay.linkmonitor import LinkChange
from tsrt.underlay.netcheck import NetcheckService
from tsrt.underlay.portmapper import PortMapper
from tsrt.underlay.socket import UnderlaySocket

_log = Logger(namespace="tsrt.runtime")


class LinkChangeHandler:
    """
    Starts over, in one order, whatever a change of network may have broken.

    First relays and control, which need no socket of ours; then the socket, and
    when it is there what is done with it: paths, and the measurement, which
    tells all of them where we are now.
    """

    def __init__(
        self,
        socket: UnderlaySocket,
        paths: PathService,
        relays: RelayPool,
        control: ControlService,
        netcheck: NetcheckService,
        portMapper: PortMapper,
        doubtSessions: Callable[[], object],
        setHealth: Callable[[str, str | None], object],
    ) -> None:
        """
        @param doubtSessions: makes the sessions with peers anew.
        @param setHealth: takes a key and what is wrong; C{None} if nothing is.
        """
        self._socket = socket
        self._paths = paths
        self._relays = relays
        self._control = control
        self._netcheck = netcheck
        self._portMapper = portMapper
        self._doubtSessions = doubtSessions
        self._setHealth = setHealth

    def __call__(self, change: LinkChange) -> None:
        """Something changed."""
        _log.info("the network changed: {what}", what=change.what)
        self._setHealth(
            "network",
            "this machine has no network address" if change.isOffline else None,
        )
        if change.isOffline:
            # There is nothing to start over with yet.
            return
        if not change.isMajor:
            self._paths.refreshEndpoints()
            self._netcheck.networkChanged()
            self._portMapper.networkChanged()
            return
        if change.hasSlept:
            self._doubtSessions()
        self._relays.checkConnections(change.addresses)
        self._control.reconnect(change.what)
        self._socket.rebind().addCallback(self._rebound)

    def _rebound(self, _: object) -> None:
        """There are new sockets: find out what is to be had with them."""
        self._paths.networkChanged()
        self._netcheck.networkChanged()
        self._portMapper.networkChanged()
