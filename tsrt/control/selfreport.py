"""
What the control server is told about this node, and whether it is news.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable

from attrs import evolve

from tsrt.control.settings import ControlSettings, Identity, describeHost
from tsrt.keys import DiscoPublic, NodePublic
from tsrt.tailcfg import UNSET, Hostinfo, MapRequest, NetInfo, encode


class SelfReport:
    """
    The newest of everything.

    Each setter tells whether the server should hear of it.
    """

    def __init__(self, settings: ControlSettings, hostinfo: Hostinfo) -> None:
        """
        @param settings: what the user wants.
        @param hostinfo: what is known about this machine.
        """
        self._settings = settings
        self.hostinfo = hostinfo
        self._netInfo: NetInfo | None = None
        self._endpoints: tuple[tuple[str, int], ...] = ()
        self._lockHead = ""

    def setHostinfo(self, hostinfo: Hostinfo) -> bool:
        """Take what is known about this machine."""
        news = encode(hostinfo) != encode(self.hostinfo)
        self.hostinfo = hostinfo
        return news

    def setNetInfo(self, netInfo: NetInfo) -> bool:
        """Take what is known about the network; latencies alone are no news."""
        news = self._netInfo is None or _steady(netInfo) != _steady(self._netInfo)
        self._netInfo = netInfo
        return news

    def setEndpoints(self, endpoints: Iterable[tuple[str, int]]) -> bool:
        """Take the addresses we may be reached at; their order is no news."""
        new = tuple(endpoints)
        news = set(new) != set(self._endpoints)
        self._endpoints = new
        return news

    def setLockHead(self, head: str) -> bool:
        """Take the head of the tailnet lock's log."""
        news = head != self._lockHead
        self._lockHead = head
        return news

    def mapRequest(
        self, version: int, identity: Identity, *, stream: bool
    ) -> MapRequest:
        """
        A request that says all of it.

        @param stream: whether to ask for the map, as a stream; else the server
            merely takes note.
        """
        nodeKey = identity.nodeKey
        public = NodePublic.zero() if nodeKey is None else nodeKey.public()
        return MapRequest(
            version=version,
            compress="zstd" if self._settings.compress else UNSET,
            keepAlive=True,
            nodeKey=public.text(),
            discoKey=identity.discoPublic.text(),
            stream=stream,
            omitPeers=UNSET if stream else True,
            hostinfo=describeHost(
                self.hostinfo, self._settings, identity, self._netInfo
            ),
            endpoints=[text for text, _ in self._endpoints] or UNSET,
            endpointTypes=[kind for _, kind in self._endpoints] or UNSET,
            tkaHead=self._lockHead or UNSET,
        )


def withDisco(identity: Identity, public: DiscoPublic) -> Identity:
    """The same node with another key for finding paths."""
    return evolve(identity, discoPublic=public)


def _steady(netInfo: NetInfo) -> bytes:
    """What of C{netInfo} is worth an update when it changes."""
    steady = copy.copy(netInfo)
    steady.derpLatency = UNSET
    return encode(steady)
