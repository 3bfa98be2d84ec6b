"""
What a node knows: of itself, of its tailnet, and of what it has carried.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IAddress

from tsrt.addresses import AddrPort, parseAddress
from tsrt.errors import NotRunning, UnknownPeer, WireError
from tsrt.netmap.exitnode import suggestExit
from tsrt.netmap.netmap import NetworkMap
from tsrt.netmap.netmap import Node as Peer
from tsrt.netmap.routes import peersWithRoute
from tsrt.netmap.whois import WhoIs
from tsrt.runtime.capture import Capture, CaptureHub, Writable
from tsrt.runtime.devicestate import DeviceState
from tsrt.runtime.engine import Engine
from tsrt.runtime.metrics import Metric
from tsrt.runtime.notify import NotifyBus, NotifyStream
from tsrt.runtime.preferences import PreferenceCell
from tsrt.runtime.status import NodeStatus, StatusPublisher
from tsrt.runtime.watchers import Watchers


class TailnetView:
    """
    The part of a node that only looks; L{tsrt.node.Node} is one.

    All of it may be asked at any time: what is not known is empty.
    """

    _engine: Engine | None
    _publisher: StatusPublisher
    _netmapWatchers: Watchers[NetworkMap]
    _captures: CaptureHub
    _notifications: NotifyBus
    _preferences: PreferenceCell

    @property
    def status(self) -> NodeStatus:
        """The node at this moment."""
        return self._publisher.status

    def watchStatus(
        self, callback: Callable[[NodeStatus], object]
    ) -> Callable[[], None]:
        """
        Call C{callback} with the present status and with each new one.

        @return: a callable that ends this.
        """
        return self._publisher.watch(callback)

    def peers(self) -> tuple[Peer, ...]:
        """All peers, by their ids; none before the netmap has come."""
        engine = self._engine
        return () if engine is None else tuple(engine.netmap.peers)

    @property
    def netmap(self) -> NetworkMap:
        """
        The tailnet as it is at present, and goes on to be: a view.

        Its C{copy} stays as it is.  It is empty while the node does not run.
        """
        return NetworkMap() if self._engine is None else self._engine.netmap

    def watchNetmap(
        self, callback: Callable[[NetworkMap], object]
    ) -> Callable[[], None]:
        """
        Call C{callback} with the tailnet as it is, and each time that it changes.

        What it gets is the view of L{netmap}, with the change already in it; over
        stops and starts of the node it goes on.

        @return: a callable that ends this.
        """
        return self._netmapWatchers.watch(callback)

    @property
    def deviceState(self) -> DeviceState:
        """Where this device stands, and what to do about it."""
        return DeviceState.of(self.status)

    def notifications(self, mask: int = 0) -> NotifyStream:
        """
        Read all that changes from now on, as an asynchronous iterator.

        A slow reader gets less, not later: news that waits is merged, and the last
        value of everything stays.  C{close} ends it.

        @param mask: what to be told at once, as bits of L{NotifyMask}.
        """
        netmap = None if self._engine is None else self._engine.netmap
        return self._notifications.open(mask, self._preferences.value, netmap)

    def metricsText(self) -> str:
        """
        All counters, as Prometheus reads them.

        @raise NotRunning: the node is not started.
        """
        return self._running().metrics.text()

    def metrics(self) -> list[Metric]:
        """
        The same as values, for programs that have metrics of their own.

        @raise NotRunning: the node is not started.
        """
        return self._running().metrics.metrics()

    def peerByName(self, name: str) -> Peer | None:
        """The peer with a MagicDNS name, in short or in full."""
        engine = self._engine
        return None if engine is None else engine.netmap.peerByName(name.lower())

    def peerByIP(self, address: str) -> Peer | None:
        """The peer with a tailnet address."""
        engine = self._engine
        try:
            packed = parseAddress(address)
        except WireError:
            return None
        return None if engine is None else engine.netmap.peerByAddress(packed)

    def peersWithRoute(self, address: str) -> tuple[Peer, ...]:
        """
        The peers that offer the narrowest route to an address, by their ids.

        It is what they offer: packets go there only if routes are accepted, and
        to one of them.
        """
        engine = self._engine
        try:
            packed = parseAddress(address)
        except WireError:
            return ()
        return () if engine is None else peersWithRoute(engine.netmap.peers, packed)

    def backendStatus(self, peers: bool = True) -> dict[str, Any]:
        """
        The node and its tailnet as C{tailscale status --json} tells them.

        @param peers: whether to tell of peers and users, too.
        @return: values of JSON.
        @raise NotRunning: the node is not started.
        """
        return self._running().backendStatus.document(peers)

    def whois(self, address: IAddress | str) -> WhoIs:
        """
        Who is behind an address, with user and granted capabilities.

        @param address: as C{transport.getPeer()} gives it, or its text, with a
            port or without.
        @raise UnknownPeer: no node has this address.
        """
        text = address if isinstance(address, str) else getattr(address, "host", "")
        engine = self._engine
        try:
            packed = parseAddress(text)
        except WireError:
            try:
                packed = AddrPort.parse(text).address
            except WireError:
                raise UnknownPeer(f"{text!r} is not a tailnet address") from None
        found = None if engine is None else engine.whois(packed)
        if found is None:
            raise UnknownPeer(f"no node of the tailnet has the address {text}")
        return found

    def capturePcap(self, target: str | os.PathLike[str] | Writable) -> Capture:
        """
        Record all packets of the tailnet, for Wireshark.

        They are those that this node sends, and those from peers before any
        filter, in clear text; Tailscale's dissector for Wireshark shows them.
        Capturing goes on over stops and starts of the node until its C{stop} is
        called.

        @param target: the path of a file, which only this user may read, or
            anything with C{write}: a transport, which may pause (what comes
            meanwhile is counted, not kept), or a buffer.
        @raise ConfigError: the file cannot be written.
        """
        return self._captures.begin(target)

    @property
    def activeExitNode(self) -> Peer | None:
        """
        The peer through which packets go that no other route leads for.

        C{None} as well while the exit node that is wanted is not there: such
        packets go nowhere then.
        """
        return None if self._engine is None else self._engine.dispatcher.exit.node

    def suggestExitNode(self) -> Peer | None:
        """The exit node that is nearest, as far as that can be told."""
        engine = self._engine
        if engine is None:
            return None
        return suggestExit(engine.netmap.peers, engine.latencies())

    def _running(self) -> Engine:
        if self._engine is None:
            raise NotRunning("the node is not running")
        return self._engine
